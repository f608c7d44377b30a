//! The Llama family: passes over batches of conversations, on the CPU or another device.

#[cfg(any(test, feature = "cuda"))]
use candle_core::Device;

use super::batch::{Segment, Wanted, Workspace};
use super::config::Config;
use super::cpu::CpuPass;
#[cfg(any(test, feature = "cuda"))]
use super::device::DeviceNet;
use super::kv_cache::KvCache;
use super::pass::{Net, run};
use super::rope::Rope;
use super::weights::{OnCpu, TensorSource, net, rope_factors};
use crate::error::{Error, Result};
use crate::kernels::{CacheType, Weight};

/// A model's weights. Immutable: conversations live in caches.
#[derive(Debug)]
pub struct Llama {
    config: Config,
    rope: Rope,
    net: Placed,
    cache_type: CacheType,
}

/// Weights where a pass can use them.
#[derive(Debug)]
enum Placed {
    Cpu(Net<Weight, Vec<f32>>),
    #[cfg(any(test, feature = "cuda"))]
    Device(DeviceNet),
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
        let mut weights = OnCpu(source);
        let rope = Rope::new(&config, rope_factors(&config, &mut weights)?.as_deref())?;
        let net = Placed::Cpu(net(&config, &mut weights)?);
        Ok(Self { config, rope, net, cache_type })
    }

    /// The same on another device than the CPU.
    ///
    /// # Errors
    /// As [`Llama::new`]; `unsupported` for weights and caches of types that devices do not have.
    #[cfg(any(test, feature = "cuda"))]
    pub fn on_device(
        config: Config,
        source: &mut dyn TensorSource,
        cache_type: CacheType,
        device: &Device,
    ) -> Result<Self> {
        config.validate()?;
        let (net, factors) = DeviceNet::new(&config, source, cache_type, device)?;
        let rope = Rope::new(&config, factors.as_deref())?;
        Ok(Self { config, rope, net: Placed::Device(net), cache_type })
    }

    /// The shape it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// An empty cache for a conversation with this model.
    pub fn new_cache(&self) -> KvCache {
        let cache = KvCache::new(&self.config, self.cache_type);
        match &self.net {
            Placed::Cpu(_) => cache,
            #[cfg(any(test, feature = "cuda"))]
            Placed::Device(net) => cache.in_rows(net.new_rows(&self.config)),
        }
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
        self.run(batch, workspace)?;
        batch.iter_mut().for_each(|segment| segment.cache.advance(segment.tokens.len()));
        Ok(())
    }

    fn run(&self, batch: &mut [Segment<'_>], workspace: &mut Workspace) -> Result<()> {
        let Self { config, rope, .. } = self;
        match &self.net {
            Placed::Cpu(net) => run(net, &mut CpuPass { config, rope, batch, workspace }),
            #[cfg(any(test, feature = "cuda"))]
            Placed::Device(net) => net.run(config, rope, batch, workspace),
        }
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
