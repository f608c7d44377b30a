//! What the engine needs of a model; tests script it.

use crate::error::Result;
use crate::model::{KvCache, Llama};

/// A causal language model whose state per conversation is a cache that the caller owns.
pub trait CausalLm {
    /// The state of one conversation.
    type Cache;

    /// Most tokens in one conversation.
    fn context_length(&self) -> usize;
    /// Numbers in the hidden state of one token.
    fn embedding_length(&self) -> usize;
    /// A cache that holds nothing.
    fn new_cache(&self) -> Self::Cache;
    /// Append `tokens` to `cache` and return the logits after the last of them, one per vocabulary entry.
    ///
    /// # Errors
    /// When a token is outside the vocabulary, the context is full, or the arithmetic fails.
    fn forward(&self, tokens: &[u32], cache: &mut Self::Cache) -> Result<Vec<f32>>;
    /// Append `tokens` to `cache` and return the hidden states that logits are made of, token by token.
    ///
    /// # Errors
    /// As `forward`.
    fn hidden(&self, tokens: &[u32], cache: &mut Self::Cache) -> Result<Vec<f32>>;

    /// The same with the logits after each of them, one token after another.
    ///
    /// # Errors
    /// As `forward`.
    fn forward_all(&self, tokens: &[u32], cache: &mut Self::Cache) -> Result<Vec<f32>>;
}

impl CausalLm for Llama {
    type Cache = KvCache;

    fn context_length(&self) -> usize {
        self.config().n_ctx
    }

    fn embedding_length(&self) -> usize {
        self.config().n_embd
    }

    fn new_cache(&self) -> KvCache {
        Llama::new_cache(self)
    }

    fn forward(&self, tokens: &[u32], cache: &mut KvCache) -> Result<Vec<f32>> {
        Llama::forward(self, tokens, cache)
    }

    fn hidden(&self, tokens: &[u32], cache: &mut KvCache) -> Result<Vec<f32>> {
        Llama::hidden(self, tokens, cache)
    }

    fn forward_all(&self, tokens: &[u32], cache: &mut KvCache) -> Result<Vec<f32>> {
        Llama::forward_all(self, tokens, cache)
    }
}
