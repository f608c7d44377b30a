//! What the engine needs of a model; tests script it.

use crate::error::Result;
use crate::model::{KvCache, Llama, Segment, Workspace};

/// A causal language model whose state per conversation is a cache that the caller owns.
pub trait CausalLm {
    /// The state of one conversation.
    type Cache: 'static;
    /// Buffers and results of a pass.
    type Workspace: Default;

    /// Most tokens in one conversation.
    fn context_length(&self) -> usize;
    /// Numbers in a row of logits.
    fn vocabulary_size(&self) -> usize;
    /// Numbers in the hidden state of one token.
    fn embedding_length(&self) -> usize;
    /// A cache that holds nothing.
    fn new_cache(&self) -> Self::Cache;
    /// Make room for `n` more tokens in `cache`.
    ///
    /// # Errors
    /// When there is none; the cache is as it was.
    fn reserve(&self, cache: &mut Self::Cache, n: usize) -> Result<()>;
    /// Forget all tokens of `cache` but the first `len`.
    fn truncate(&self, cache: &mut Self::Cache, len: usize);
    /// Append the tokens of each segment to its cache; `output` has what is wanted of them. What a segment gets does not
    /// depend on the others.
    ///
    /// # Errors
    /// When a token is outside the vocabulary, a context is full, or the arithmetic fails; every cache is as it was.
    fn forward(&self, batch: &mut [Segment<'_, Self::Cache>], workspace: &mut Self::Workspace) -> Result<()>;
    /// The rows of the last pass, segment after segment.
    fn output<'a>(&self, workspace: &'a mut Self::Workspace) -> &'a mut [f32];
}

impl CausalLm for Llama {
    type Cache = KvCache;
    type Workspace = Workspace;

    fn context_length(&self) -> usize {
        self.config().n_ctx
    }

    fn vocabulary_size(&self) -> usize {
        self.config().n_vocab
    }

    fn embedding_length(&self) -> usize {
        self.config().n_embd
    }

    fn new_cache(&self) -> KvCache {
        Llama::new_cache(self)
    }

    fn reserve(&self, cache: &mut KvCache, n: usize) -> Result<()> {
        cache.reserve(n)
    }

    fn truncate(&self, cache: &mut KvCache, len: usize) {
        cache.truncate(len);
    }

    fn forward(&self, batch: &mut [Segment<'_>], workspace: &mut Workspace) -> Result<()> {
        Llama::forward(self, batch, workspace)
    }

    fn output<'a>(&self, workspace: &'a mut Workspace) -> &'a mut [f32] {
        workspace.output()
    }
}
