//! Requests whose constraint is being compiled, or waits for it. Compiling takes milliseconds and more, too long
//! for the thread that all replies share; so it happens on threads of its own, which end when there is no more to do.
//!
//! Absent: the threads themselves, and what becomes of the outcome (see `host`).

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::engine::{Constraint, Request, RequestId};

/// Most constraints that are compiled at once; the others wait in order.
pub const MAX_COMPILERS: usize = 2;
/// Longest time for one constraint, from its turn on. Nothing can stop the library in the middle of its work, which sizes
/// and fuel bound; but whoever asked does not wait for it any longer.
pub const MAX_COMPILE: Duration = Duration::from_secs(1);

/// The book of what is compiled.
#[derive(Default)]
pub(super) struct Compiling {
    /// All of them.
    requests: HashMap<RequestId, Request>,
    /// Those that wait.
    queue: VecDeque<(RequestId, Constraint)>,
    /// Those whose turn it is, and when it ends.
    turns: VecDeque<(RequestId, Instant)>,
    threads: usize,
}

impl Compiling {
    /// How many requests are here.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Takes a request in. Returns whether a thread is to be started for it, which then counts as running.
    pub fn push(&mut self, id: RequestId, request: Request, constraint: Constraint) -> bool {
        self.requests.insert(id, request);
        self.queue.push_back((id, constraint));
        let starts = self.threads < MAX_COMPILERS;
        self.threads += usize::from(starts);
        starts
    }

    /// What a thread compiles next; with none it ends.
    pub fn next(&mut self, now: Instant) -> Option<(RequestId, Constraint)> {
        let next = self.queue.pop_front();
        match &next {
            Some((id, _)) => self.turns.push_back((*id, now + MAX_COMPILE)),
            None => self.ended(),
        }
        next
    }

    /// When the next turn ends.
    pub fn deadline(&self) -> Option<Instant> {
        self.turns.front().map(|(_, ends)| *ends)
    }

    /// Takes out a request whose turn is over.
    pub fn expired(&mut self, now: Instant) -> Option<RequestId> {
        let (id, _) = *self.turns.front().filter(|(_, ends)| *ends <= now)?;
        self.take(id);
        Some(id)
    }

    /// A thread has ended, or could not be started.
    pub fn ended(&mut self) {
        self.threads -= 1;
    }

    /// Takes a request out, compiled or not; none when it has been taken out before.
    pub fn take(&mut self, id: RequestId) -> Option<Request> {
        self.queue.retain(|(waiting, _)| *waiting != id);
        self.turns.retain(|(turn, _)| *turn != id);
        self.requests.remove(&id)
    }

    /// Takes all requests out.
    pub fn clear(&mut self) {
        self.requests.clear();
        self.queue.clear();
        self.turns.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(compiling: &mut Compiling, id: RequestId) -> bool {
        let request = Request::from_json(br#"{"prompt":["a"]}"#).expect("request");
        compiling.push(id, request, Constraint::JsonObject {})
    }

    #[test]
    fn so_many_threads_and_the_others_wait_in_order() {
        let mut compiling = Compiling::default();
        let started = (1..=4).filter(|&id| push(&mut compiling, id)).count();
        assert_eq!((started, compiling.len()), (MAX_COMPILERS, 4));
        let order: Vec<_> = std::iter::from_fn(|| compiling.next(Instant::now())).map(|(id, _)| id).collect();
        assert_eq!(order, [1, 2, 3, 4]);
        assert!(push(&mut compiling, 5), "a thread has ended, so another may start");
    }

    #[test]
    fn a_turn_has_an_end_and_waiting_has_none() {
        let (mut compiling, now) = (Compiling::default(), Instant::now());
        (1..=3).for_each(|id| _ = push(&mut compiling, id));
        assert_eq!((compiling.deadline(), compiling.expired(now + 9 * MAX_COMPILE)), (None, None));
        compiling.next(now);
        compiling.next(now + MAX_COMPILE / 2);
        assert_eq!(compiling.deadline(), Some(now + MAX_COMPILE));
        assert_eq!(compiling.expired(now), None);
        assert_eq!([compiling.expired(now + MAX_COMPILE), compiling.expired(now + MAX_COMPILE)], [Some(1), None]);
        assert!(compiling.take(1).is_none(), "the outcome comes too late");
        assert!(compiling.take(2).is_some(), "in time");
        assert_eq!((compiling.deadline(), compiling.len()), (None, 1));
    }

    #[test]
    fn what_is_taken_out_is_not_compiled_and_comes_once() {
        let mut compiling = Compiling::default();
        (1..=3).for_each(|id| _ = push(&mut compiling, id));
        assert!(compiling.take(2).is_some() && compiling.take(2).is_none());
        assert_eq!(compiling.next(Instant::now()).map(|(id, _)| id), Some(1));
        assert!(compiling.take(1).is_some(), "while it is compiled");
        assert_eq!((compiling.len(), compiling.next(Instant::now()).map(|(id, _)| id)), (1, Some(3)));
        compiling.clear();
        assert_eq!((compiling.len(), compiling.next(Instant::now())), (0, None));
    }
}
