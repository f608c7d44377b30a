//! The forward pass of the Llama family: RMSNorm, rotary attention with grouped heads, SwiGLU, tied or separate output.

use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};

use super::attention::attention;
use super::batch::{Segment, Wanted, Workspace};
use super::config::Config;
use super::kv_cache::KvCache;
use super::ops::{add, rms_norm, swiglu};
use super::rope::{Angles, Rope};
use crate::error::{Error, Result};
use crate::kernels::{Linear, forward_shared, on_pool};

/// Where weights come from, by GGUF name (`blk.0.attn_q.weight`).
pub trait TensorSource {
    /// The tensor of that name on the model's device, or nothing if there is none.
    fn tensor(&mut self, name: &str) -> Result<Option<QTensor>>;
}

/// A model's weights. Immutable: conversations live in caches.
#[derive(Debug)]
pub struct Llama {
    config: Config,
    device: Device,
    rope: Rope,
    /// `[n_vocab, n_embd]`; only the rows asked for are dequantised.
    embedding: Arc<QTensor>,
    layers: Vec<Layer>,
    output_norm: Tensor,
    output: Linear,
}

#[derive(Debug)]
struct Layer {
    attn_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    attn_output: Linear,
    ffn_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Llama {
    /// Takes the weights that `config` calls for from `source`, checking each one's shape.
    pub fn new(config: Config, source: &mut dyn TensorSource, device: &Device) -> Result<Self> {
        config.validate()?;
        let mut weights = Weights { source, device };
        let factors = weights.optional("rope_freqs.weight", &[config.rope_dim / 2])?;
        let factors = factors.map(|factors| factors.dequantize(&Device::Cpu)?.to_vec1::<f32>()).transpose()?;
        let rope = Rope::new(&config, factors.as_deref())?;
        let embedding = Arc::new(weights.required("token_embd.weight", &[config.n_vocab, config.n_embd])?);
        let layers = (0..config.n_layer).map(|i| Layer::new(&config, i, &mut weights)).collect::<Result<_>>()?;
        let output_norm = weights.vector("output_norm.weight", config.n_embd)?;
        let output = match weights.optional("output.weight", &[config.n_vocab, config.n_embd])? {
            Some(output) => Linear::new(Arc::new(output))?,
            None => Linear::new(embedding.clone())?,
        };
        Ok(Self { config, device: device.clone(), rope, embedding, layers, output_norm, output })
    }

    /// The shape it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// An empty cache for a conversation with this model.
    pub fn new_cache(&self) -> KvCache {
        KvCache::new(&self.config, &self.device)
    }

    /// Appends the tokens of each segment to its cache and puts what is wanted of them into `workspace`.
    ///
    /// A segment's rows do not depend on the others. After an error every cache holds what it held before.
    pub fn forward(&self, batch: &mut [Segment<'_>], workspace: &mut Workspace) -> Result<()> {
        workspace.output.clear();
        for at in 0..batch.len() {
            if let Err(error) = self.append(&mut batch[at], &mut workspace.output) {
                for done in &mut batch[..at] {
                    done.cache.truncate(done.cache.len() - done.tokens.len());
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// A pass of one conversation: appends `tokens` to the cache and returns the logits that follow the last of them.
    pub fn logits(&self, tokens: &[u32], cache: &mut KvCache) -> Result<Vec<f32>> {
        let mut workspace = Workspace::default();
        self.forward(&mut [Segment { tokens, cache, wanted: Wanted::Last }], &mut workspace)?;
        Ok(workspace.output)
    }

    /// One segment; its rows go behind those in `output`.
    fn append(&self, segment: &mut Segment<'_>, output: &mut Vec<f32>) -> Result<()> {
        let Segment { tokens, cache, wanted } = segment;
        self.check(tokens)?;
        cache.check(&self.config)?;
        on_pool(|| {
            cache.reserve(tokens.len())?;
            let angles = self.rope.angles(cache.len(), tokens.len(), &self.device)?;
            let mut x = self.embedding.embedding(&Tensor::new(*tokens, &self.device)?)?;
            for (i, layer) in self.layers.iter().enumerate() {
                x = layer.forward(&self.config, &self.rope, &x, &angles, i, cache)?;
            }
            let rows = match wanted {
                Wanted::Nothing => None,
                Wanted::Last => Some(self.output.forward(&self.normed(&x.narrow(0, tokens.len() - 1, 1)?)?)?),
                Wanted::Each => Some(self.output.forward(&self.normed(&x)?)?),
                Wanted::Hidden => Some(self.normed(&x)?),
            };
            if let Some(rows) = rows {
                output.extend(rows.flatten_all()?.to_vec1::<f32>()?);
            }
            cache.advance(tokens.len());
            Ok(())
        })
    }

    fn normed(&self, x: &Tensor) -> Result<Tensor> {
        rms_norm(x, &self.output_norm, self.config.rms_eps)
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

impl Layer {
    fn new(config: &Config, i: usize, weights: &mut Weights<'_>) -> Result<Self> {
        let Config { n_embd, n_ff, .. } = *config;
        let (n_q, n_kv) = (config.n_embd_q(), config.n_embd_kv());
        let name = |part: &str| format!("blk.{i}.{part}.weight");
        Ok(Self {
            attn_norm: weights.vector(&name("attn_norm"), n_embd)?,
            q: weights.linear(&name("attn_q"), n_q, n_embd)?,
            k: weights.linear(&name("attn_k"), n_kv, n_embd)?,
            v: weights.linear(&name("attn_v"), n_kv, n_embd)?,
            attn_output: weights.linear(&name("attn_output"), n_embd, n_q)?,
            ffn_norm: weights.vector(&name("ffn_norm"), n_embd)?,
            gate: weights.linear(&name("ffn_gate"), n_ff, n_embd)?,
            up: weights.linear(&name("ffn_up"), n_ff, n_embd)?,
            down: weights.linear(&name("ffn_down"), n_embd, n_ff)?,
        })
    }

    /// `x [n, n_embd]` to the same shape; keys and values of the tokens go behind those in `cache`.
    fn forward(
        &self,
        config: &Config,
        rope: &Rope,
        x: &Tensor,
        angles: &Angles,
        i: usize,
        cache: &KvCache,
    ) -> Result<Tensor> {
        let normed = rms_norm(x, &self.attn_norm, config.rms_eps)?;
        let [q, k, v] = forward_shared([&self.q, &self.k, &self.v], &normed)?;
        let kept = cache.write(i, &rope.rotate(&k, angles)?, &v)?;
        let attended = attention(config, &rope.rotate(&q, angles)?, kept, cache.len())?;
        let x = add(x, &self.attn_output.forward(&attended)?)?;
        let normed = rms_norm(&x, &self.ffn_norm, config.rms_eps)?;
        let [gate, up] = forward_shared([&self.gate, &self.up], &normed)?;
        add(&x, &self.down.forward(&swiglu(&gate, &up)?)?)
    }
}

/// A source whose tensors are checked before use.
struct Weights<'a> {
    source: &'a mut dyn TensorSource,
    device: &'a Device,
}

impl Weights<'_> {
    fn linear(&mut self, name: &str, n_out: usize, n_in: usize) -> Result<Linear> {
        Linear::new(Arc::new(self.required(name, &[n_out, n_in])?)).map_err(|e| e.context(name))
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Tensor> {
        Ok(self.required(name, &[len])?.dequantize(self.device)?)
    }

    fn required(&mut self, name: &str, shape: &[usize]) -> Result<QTensor> {
        self.optional(name, shape)?.ok_or_else(|| {
            Error::invalid_format(format!("reading tensor {name}: expected shape {shape:?}, got no such tensor"))
        })
    }

    fn optional(&mut self, name: &str, shape: &[usize]) -> Result<Option<QTensor>> {
        let Some(tensor) = self.source.tensor(name)? else { return Ok(None) };
        let got = tensor.shape().dims();
        if got != shape {
            let message = format!("reading tensor {name}: expected shape {shape:?}, got {got:?}");
            return Err(Error::invalid_format(message));
        }
        Ok(Some(tensor))
    }
}
