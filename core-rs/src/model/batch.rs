//! A forward pass over several conversations: what each brings, what is wanted of it, and where results are kept.

use super::kv_cache::KvCache;

/// What a forward pass is to give for a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing but the cache: there is more of the prompt to come.
    Nothing,
    /// The logits after the last token.
    Last,
    /// The logits after each token.
    Each,
    /// The hidden states that logits are made of, of each token.
    Hidden,
}

impl Wanted {
    /// How many rows of output `tokens` give.
    pub fn rows(self, tokens: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Last => 1,
            Self::Each | Self::Hidden => tokens,
        }
    }
}

/// One conversation's part of a forward pass: tokens that go behind those in its cache.
#[derive(Debug)]
pub struct Segment<'a, C = KvCache> {
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// The conversation's state, which holds them afterwards.
    pub cache: &'a mut C,
    /// What to give for them.
    pub wanted: Wanted,
}

/// Buffers of a forward pass, kept from one to the next so that a token allocates nothing.
#[derive(Debug, Default)]
pub struct Workspace {
    pub(super) output: Vec<f32>,
}

impl Workspace {
    /// The rows that the last pass was asked for, segment after segment: `n_vocab` logits or `n_embd` states each.
    pub fn output(&mut self) -> &mut [f32] {
        &mut self.output
    }
}
