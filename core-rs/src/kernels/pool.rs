//! Threads for the forward pass: regions of small pieces, handed out one by one.
//!
//! A decoded token is some hundred and fifty regions of a few microseconds to a few milliseconds. Whoever is free takes
//! the next piece, so a thread that the system has stopped delays its own piece and no other; waiting threads spin
//! for the time of a short region and then sleep, so that a neighbour's process gets the core. candle's pool spins without
//! end and deals pieces out beforehand: with one other busy process it decoded at a tenth of its speed.
//!
//! A piece that the system has stopped still holds up its region. So the caller, which waits for it, sleeps in naps: each
//! time its core falls idle, the system looks for a thread that could run there, and the stopped one may be moved. That
//! leaves two threads of ours on one core and the neighbour alone on another, and as they wake one another, each in the
//! way of the other, it stays so. On Linux, therefore, a thread that wakes on a core where another of ours was last seen
//! goes to one where none was; which of several is the system's choice. With a neighbour on one of two cores this gave
//! three quarters of the quiet rate where it had been a half. It was not measured with more cores.
//!
//! Where there are no threads (WebAssembly, one core) the caller does all pieces itself.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::place::{self, Core};

/// Rounds of waiting before a thread sleeps: some 50 microseconds, longer than what lies between two regions of a token.
const SPINS: u32 = 1500;
/// How long a thread sleeps that waits for a piece in another's hands, before it falls asleep anew.
const NAP: Duration = Duration::from_micros(200);
/// Most pieces of a region: with as many looks in vain behind the last one, what fits into the ticket.
const MAX_PIECES: usize = 1 << 23;
/// Most threads, whatever the machine has: more do not make a token faster, and each costs memory for its scratch.
const MAX_THREADS: usize = 256;

/// A ticket is the number of the region (16 bits), how many pieces it has and which comes next (24 bits each): taking a
/// piece and learning what it belongs to is one operation.
const PIECE_BITS: u32 = 24;

/// What the pieces of a region do, with the number of the piece and of the thread that takes it.
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// No core: a thread of the pool sleeps, or the system does not tell. Callers keep theirs, also through their naps.
const NOWHERE: Core = Core::MAX;

/// Where a thread was when it last began with a region, on a cache line of its own.
#[repr(align(64))]
struct Seat(AtomicU32);

struct Shared {
    ticket: AtomicU64,
    /// The region's work; set before its ticket, and alive until all pieces are done.
    work: Mutex<Option<&'static Work<'static>>>,
    done: AtomicUsize,
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
    /// Threads that sleep, and whether the caller does.
    sleeping: AtomicU32,
    caller_sleeps: AtomicBool,
    wake: Mutex<()>,
    work_there: Condvar,
    all_done: Condvar,
    /// One for each thread, the caller's first.
    seats: Box<[Seat]>,
}

/// The process's pool.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: usize,
    /// One region at a time: two models in one process take turns.
    turn: Mutex<u64>,
}

static POOL: OnceLock<Pool> = OnceLock::new();

impl Pool {
    /// The pool of this process, as large as the machine allows.
    pub(crate) fn global() -> &'static Self {
        POOL.get_or_init(|| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            Self::new(threads.min(MAX_THREADS))
        })
    }

    /// A pool of `threads`, of which the caller of [`Pool::run`] is one. Threads that cannot be had are done without.
    fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::new(threads));
        let started = (1..threads).take_while(|&thread| {
            let shared = shared.clone();
            let name = format!("llamero-compute-{thread}");
            std::thread::Builder::new().name(name).spawn(move || shared.serve(thread)).is_ok()
        });
        let threads = 1 + started.count();
        Self { shared, threads, turn: Mutex::new(0) }
    }

    /// Threads that take part, the caller among them.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work(piece, thread)` for each of `pieces`, once, and returns when all are done. Must not be called from
    /// within `work`.
    ///
    /// # Panics
    /// When `work` does.
    pub(crate) fn run(&self, pieces: usize, work: &Work<'_>) {
        assert!(pieces <= MAX_PIECES, "{pieces} pieces of work");
        if pieces <= 1 || self.threads == 1 {
            (0..pieces).for_each(|piece| work(piece, 0));
            return;
        }
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        *turn += 1;
        let shared = &*self.shared;
        // SAFETY: only the lifetime is changed. The work is taken out again below, after the last piece has been done, and
        // nobody calls it without a piece.
        let forever = unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        *lock(&shared.work) = Some(forever);
        shared.done.store(0, Ordering::Relaxed);
        let ticket = (*turn & 0xffff) << (2 * PIECE_BITS) | (pieces as u64) << PIECE_BITS;
        shared.sit(0);
        shared.ticket.store(ticket, Ordering::SeqCst);
        if shared.sleeping.load(Ordering::SeqCst) > 0 {
            drop(lock(&shared.wake));
            shared.work_there.notify_all();
        }
        shared.take_pieces(0);
        shared.wait_until_done(pieces);
        *lock(&shared.work) = None;
        if let Some(panic) = lock(&shared.panicked).take() {
            drop(turn);
            resume_unwind(panic);
        }
    }
}

impl Shared {
    fn new(threads: usize) -> Self {
        Self {
            ticket: AtomicU64::new(0),
            work: Mutex::new(None),
            done: AtomicUsize::new(0),
            panicked: Mutex::new(None),
            sleeping: AtomicU32::new(0),
            caller_sleeps: AtomicBool::new(false),
            wake: Mutex::new(()),
            work_there: Condvar::new(),
            all_done: Condvar::new(),
            seats: (0..threads).map(|_| Seat(AtomicU32::new(NOWHERE))).collect(),
        }
    }

    /// A thread's life. It ends with the process: the pool is never dropped.
    fn serve(&self, thread: usize) {
        loop {
            self.wait_for_pieces(thread);
            self.sit(thread);
            self.take_pieces(thread);
        }
    }

    /// Says where `thread`, the calling one, works.
    fn sit(&self, thread: usize) {
        self.seats[thread].0.store(place::current().unwrap_or(NOWHERE), Ordering::Relaxed);
    }

    /// Leaves the core that `thread`, the calling one, woke on, if another works there. Whether it could.
    fn keep_apart(&self, thread: usize) -> bool {
        let others = self.seats.iter().enumerate().filter(|&(other, _)| other != thread);
        let taken =
            || others.clone().map(|(_, Seat(core))| core.load(Ordering::Relaxed)).filter(|&core| core != NOWHERE);
        place::current().is_some_and(|core| taken().any(|other| other == core)) && place::leave(taken())
    }

    fn has_pieces(&self) -> bool {
        let (pieces, next) = read(self.ticket.load(Ordering::SeqCst));
        next < pieces
    }

    fn wait_for_pieces(&self, thread: usize) {
        for _ in 0..SPINS {
            if self.has_pieces() {
                return;
            }
            std::hint::spin_loop();
        }
        self.seats[thread].0.store(NOWHERE, Ordering::Relaxed);
        let mut guard = lock(&self.wake);
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        while !self.has_pieces() {
            guard = self.work_there.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        drop(guard);
        self.keep_apart(thread);
    }

    /// Does pieces until none is left.
    fn take_pieces(&self, thread: usize) {
        // A region without pieces left is not touched: its count must not run over into the next field.
        while self.has_pieces() {
            let (pieces, piece) = read(self.ticket.fetch_add(1, Ordering::SeqCst));
            if piece >= pieces {
                return;
            }
            // With a piece in hand the region cannot end, so the work is that of the ticket.
            let work = *lock(&self.work);
            if let Some(work) = work
                && let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(piece, thread)))
            {
                lock(&self.panicked).get_or_insert(panic);
            }
            if self.done.fetch_add(1, Ordering::SeqCst) + 1 == pieces && self.caller_sleeps.load(Ordering::SeqCst) {
                drop(lock(&self.wake));
                self.all_done.notify_all();
            }
        }
    }

    fn wait_until_done(&self, pieces: usize) {
        let done = || self.done.load(Ordering::SeqCst) == pieces;
        for _ in 0..SPINS {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
        let mut guard = lock(&self.wake);
        self.caller_sleeps.store(true, Ordering::SeqCst);
        while !done() {
            guard = self.all_done.wait_timeout(guard, NAP).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.caller_sleeps.store(false, Ordering::SeqCst);
    }
}

/// Pieces of a ticket's region, and which comes next.
fn read(ticket: u64) -> (usize, usize) {
    let mask = (1 << PIECE_BITS) - 1;
    ((ticket >> PIECE_BITS & mask) as usize, (ticket & mask) as usize)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for pieces in [0, 1, 2, 7, 1000] {
                let counts: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                pool.run(pieces, &|piece, thread| {
                    assert!(thread < threads);
                    counts[piece].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} threads, {pieces}");
            }
        }
    }

    #[test]
    fn regions_follow_each_other_at_once_and_after_a_rest() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        for round in 0..20_000 {
            pool.run(3, &|piece, _| {
                total.fetch_add(piece, Ordering::Relaxed);
            });
            if round % 5000 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        assert_eq!(total.into_inner(), 20_000 * 3);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_wakes_where_another_works_goes_where_none_does() {
        let cores = place::allowed();
        // A thread of its own, since it moves. All cores but one are taken, and it has the last seat.
        let test = move || {
            let shared = Shared::new(cores.len() + 1);
            let here = place::current().unwrap();
            let free = cores.iter().copied().find(|&core| core != here);
            for (seat, &core) in shared.seats.iter().zip(&cores) {
                seat.0.store(if Some(core) == free { NOWHERE } else { core }, Ordering::Relaxed);
            }
            // Without a free core it stays; the system itself may have moved it to the free one meanwhile.
            assert!(shared.keep_apart(cores.len()) == free.is_some() || place::current() == free);
        };
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn callers_take_turns() {
        let pool = Pool::new(2);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        pool.run(4, &|_, _| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 4 * 500 * 4);
    }

    #[test]
    fn a_panic_comes_back_and_the_pool_goes_on() {
        let pool = Pool::new(3);
        let panic = catch_unwind(AssertUnwindSafe(|| pool.run(9, &|piece, _| assert_ne!(piece, 5, "five"))));
        assert!(panic.is_err());
        let count = AtomicUsize::new(0);
        pool.run(9, &|_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 9);
    }
}
