//! Guesses of a smaller model with the same vocabulary: for each reply that wants some, its most probable next token, that
//! behind it, and so on; all replies in one pass of the smaller model.
//!
//! Absent: when that pays (`speculate`). What fails here fails no reply: it goes on without guesses.

use std::collections::VecDeque;

use super::lm::CausalLm;
use super::turns::Turns;
use crate::model::{Segment, Wanted};

/// Most tokens of one conversation that the draft model reads in one pass, when it is behind: replies wait meanwhile.
const CATCH_UP: usize = 256;
/// Weight of older passes against the newest in what a guess takes.
const MEMORY: f64 = 0.9;

/// The smaller model.
pub(super) struct Drafter<M: CausalLm> {
    pub model: M,
    workspace: M::Workspace,
    /// Milliseconds of a pass for one token of each conversation, lately.
    pub token_ms: f64,
}

/// What the smaller model has seen of one conversation.
pub(super) struct Draft<C> {
    pub cache: C,
    /// Tokens of the conversation in the cache.
    pub cached: usize,
    /// What is wanted of its part of the pass that is under way.
    pub asked: Option<Wanted>,
}

impl<C> Draft<C> {
    pub fn new(cache: C) -> Self {
        Self { cache, cached: 0, asked: None }
    }

    /// Its next piece of `text`; behind all of it a guess is wanted. None where its context has no room.
    pub fn segment<'a, M: CausalLm<Cache = C>>(&'a mut self, text: &'a [u32], model: &M) -> Option<Segment<'a, C>> {
        let tokens = &text[self.cached..text.len().min(self.cached + CATCH_UP)];
        model.truncate(&mut self.cache, self.cached);
        model.reserve(&mut self.cache, tokens.len()).ok()?;
        self.cached += tokens.len();
        let wanted = if self.cached == text.len() { Wanted::Last } else { Wanted::Nothing };
        self.asked = Some(wanted);
        Some(Segment { tokens, cache: &mut self.cache, wanted })
    }
}

impl<M: CausalLm> Drafter<M> {
    pub fn new(model: M) -> Self {
        Self { model, workspace: M::Workspace::default(), token_ms: 0.0 }
    }

    /// Make the guesses that are wanted.
    pub fn guess(&mut self, running: &mut VecDeque<Turns<M>>, now: &dyn Fn() -> f64) {
        loop {
            let segments = running.iter_mut().filter_map(Turns::reply).filter_map(|s| s.draft_segment(&self.model));
            let mut batch: Vec<_> = segments.collect();
            let Some(longest) = batch.iter().map(|segment| segment.tokens.len()).max() else { return };
            let begun = now();
            let passed = self.model.forward(&mut batch, &mut self.workspace);
            if longest == 1 {
                let first = self.token_ms == 0.0;
                self.token_ms += (now() - begun - self.token_ms) * if first { 1.0 } else { 1.0 - MEMORY };
            }
            let n_vocab = self.model.vocabulary_size();
            let mut guesses = self.model.output(&mut self.workspace).chunks_exact(n_vocab).map(most_probable);
            for sequence in running.iter_mut().filter_map(Turns::reply) {
                sequence.take_draft(if passed.is_ok() { Some(&mut guesses) } else { None });
            }
        }
    }
}

/// The highest of the logits, the first among equals.
fn most_probable(logits: &[f32]) -> u32 {
    let higher = |best: (u32, f32), x: (u32, f32)| if x.1 > best.1 { x } else { best };
    (0..).zip(logits.iter().copied()).fold((0, f32::NEG_INFINITY), higher).0
}
