//! The Llama family: weights by name, and passes over batches of conversations.

use super::batch::{Segment, Wanted, Workspace};
use super::config::Config;
use super::cpu::CpuPass;
use super::kv_cache::KvCache;
use super::pass::{Layer, Net, run};
use super::rope::Rope;
use crate::error::{Error, Result};
use crate::kernels::{CacheType, Weight};

/// Where weights come from, by GGUF name (`blk.0.attn_q.weight`).
pub trait TensorSource {
    /// The tensor of that name, or nothing if there is none.
    fn tensor(&mut self, name: &str) -> Result<Option<Weight>>;
}

/// A model's weights. Immutable: conversations live in caches.
#[derive(Debug)]
pub struct Llama {
    config: Config,
    rope: Rope,
    net: Net<Weight, Vec<f32>>,
    cache_type: CacheType,
}

impl Llama {
    /// Takes the weights that `config` calls for from `source`, checking each one's shape. Conversations keep keys and
    /// values as `cache_type`.
    ///
    /// # Errors
    /// `invalid_format` for a tensor that is missing or of another shape; `unsupported` for heads that `cache_type` cannot
    /// keep.
    pub fn new(config: Config, source: &mut dyn TensorSource, cache_type: CacheType) -> Result<Self> {
        config.validate()?;
        if !cache_type.fits(config.head_dim) {
            let (name, dim) = (cache_type.name(), config.head_dim);
            let message = format!("keeping keys and values as {name}: expected heads of whole blocks of 32, got {dim}");
            return Err(Error::unsupported(message));
        }
        let mut weights = Weights { source };
        let factors = weights.optional("rope_freqs.weight", &[config.rope_dim / 2])?.map(|factors| factors.values());
        let rope = Rope::new(&config, factors.as_deref())?;
        let net = Net {
            embedding: weights.required("token_embd.weight", &[config.n_vocab, config.n_embd])?,
            layers: (0..config.n_layer).map(|i| layer(&config, i, &mut weights)).collect::<Result<_>>()?,
            output_norm: weights.vector("output_norm.weight", config.n_embd)?,
            output: weights.optional("output.weight", &[config.n_vocab, config.n_embd])?,
        };
        Ok(Self { config, rope, net, cache_type })
    }

    /// The shape it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// An empty cache for a conversation with this model.
    pub fn new_cache(&self) -> KvCache {
        KvCache::new(&self.config, self.cache_type)
    }

    /// Appends the tokens of each segment to its cache, all in one pass; the workspace then has what is wanted of them.
    /// What a segment gets does not depend on the others, nor on where its conversation was cut before.
    ///
    /// After an error every cache holds what it held before.
    ///
    /// # Errors
    /// `invalid_request` for a token outside the vocabulary and for a segment without tokens, `context_overflow` for one
    /// that does not fit.
    pub fn forward(&self, batch: &mut [Segment<'_>], workspace: &mut Workspace) -> Result<()> {
        for segment in batch.iter_mut() {
            self.check(segment.tokens)?;
            segment.cache.check(&self.config)?;
            segment.cache.reserve(segment.tokens.len())?;
        }
        let mut pass = CpuPass { config: &self.config, rope: &self.rope, batch, workspace };
        run(&self.net, &mut pass)?;
        batch.iter_mut().for_each(|segment| segment.cache.advance(segment.tokens.len()));
        Ok(())
    }

    /// A pass of one conversation: appends `tokens` to the cache and returns the logits that follow the last of them.
    ///
    /// # Errors
    /// As [`Llama::forward`].
    pub fn logits(&self, tokens: &[u32], cache: &mut KvCache) -> Result<Vec<f32>> {
        let mut workspace = Workspace::default();
        self.forward(&mut [Segment { tokens, cache, wanted: Wanted::Last }], &mut workspace)?;
        Ok(workspace.output().to_vec())
    }

    fn check(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::invalid_request("running the model: expected at least one token, got none"));
        }
        let n_vocab = self.config.n_vocab;
        match tokens.iter().find(|&&id| id as usize >= n_vocab) {
            Some(id) => {
                Err(Error::invalid_request(format!("running the model: expected token ids below {n_vocab}, got {id}")))
            }
            None => Ok(()),
        }
    }
}

fn layer(config: &Config, i: usize, weights: &mut Weights<'_>) -> Result<Layer<Weight, Vec<f32>>> {
    let Config { n_embd, n_ff, .. } = *config;
    let (n_q, n_kv) = (config.n_embd_q(), config.n_embd_kv());
    let name = |part: &str| format!("blk.{i}.{part}.weight");
    Ok(Layer {
        attn_norm: weights.vector(&name("attn_norm"), n_embd)?,
        q: weights.required(&name("attn_q"), &[n_q, n_embd])?,
        k: weights.required(&name("attn_k"), &[n_kv, n_embd])?,
        v: weights.required(&name("attn_v"), &[n_kv, n_embd])?,
        attn_output: weights.required(&name("attn_output"), &[n_embd, n_q])?,
        ffn_norm: weights.vector(&name("ffn_norm"), n_embd)?,
        gate: weights.required(&name("ffn_gate"), &[n_ff, n_embd])?,
        up: weights.required(&name("ffn_up"), &[n_ff, n_embd])?,
        down: weights.required(&name("ffn_down"), &[n_embd, n_ff])?,
    })
}

/// A source whose tensors are checked before use.
struct Weights<'a> {
    source: &'a mut dyn TensorSource,
}

impl Weights<'_> {
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        Ok(self.required(name, &[len])?.values())
    }

    fn required(&mut self, name: &str, shape: &[usize]) -> Result<Weight> {
        self.optional(name, shape)?.ok_or_else(|| {
            Error::invalid_format(format!("reading tensor {name}: expected shape {shape:?}, got no such tensor"))
        })
    }

    fn optional(&mut self, name: &str, shape: &[usize]) -> Result<Option<Weight>> {
        let Some(tensor) = self.source.tensor(name)? else { return Ok(None) };
        let got = tensor.shape();
        if got != shape {
            let message = format!("reading tensor {name}: expected shape {shape:?}, got {got:?}");
            return Err(Error::invalid_format(message));
        }
        Ok(Some(tensor))
    }
}
