//! Where formats meet model and tokenizer: names and metadata keys of a file become a `Config`, weights and a
//! vocabulary. Absent here: inference, opening files.

mod blocks;
pub mod config;
mod device;
mod stream;
pub mod vocab;
mod weights;

use std::sync::Arc;

use candle_core::Device;
use serde::Serialize;

pub use self::blocks::{element, open};
pub use self::device::Place;
pub use self::stream::Stream;

use crate::error::{Error, Result};
use crate::formats::gguf::{GgmlType, Gguf, Metadata, TensorInfo};
use crate::kernels::{self, CacheType};
use crate::model::{Config, Llama, TensorSource};
use crate::sampling::SamplingParams;
use crate::tokenizer::Tokenizer;

/// A loaded model: weights, vocabulary and what to say about them.
pub struct Loaded {
    /// The weights.
    pub model: Llama,
    /// The vocabulary.
    pub tokenizer: Arc<Tokenizer>,
    /// A description for people and templates.
    pub info: ModelInfo,
}

/// What a model is; field by field the `ModelInfo` of src/engine/engine.ts in snake case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelInfo {
    /// The name inside the file; empty when it has none.
    pub name: String,
    /// The architecture, such as `llama`.
    pub architecture: String,
    /// Most tokens of prompt and reply together.
    pub context_length: usize,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Length of an embedding.
    pub embedding_length: usize,
    /// Whether replies can be constrained by a grammar.
    pub constrains: bool,
    /// Number of weights.
    pub parameters: u64,
    /// The weight type that holds most of the weights, such as `q4_1`.
    pub quantization: String,
    /// The Jinja chat template, if the file has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// Text of the begin-of-sequence token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bos_token: Option<String>,
    /// Text of the end-of-sequence token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eos_token: Option<String>,
    /// Whether encoding puts the begin-of-sequence token in front.
    pub adds_bos: bool,
    /// Texts that encoding turns into control tokens.
    pub special_tokens: Vec<String>,
    /// How the publishers would sample.
    #[serde(skip_serializing_if = "Defaults::is_empty")]
    pub defaults: Defaults,
    /// Where the arithmetic runs, such as `cpu avx2` or `cuda:0`.
    pub device: String,
    /// Why packed weights could be neither found nor kept, where that was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_mapped: Option<String>,
}

/// How a model's publishers would sample, as far as they say (`generation_config.json`, `general.sampling.*`).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Defaults {
    /// Divides logits; 0 is greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Least share of probability to choose from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Most tokens to choose from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Least probability relative to the best.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Divides the logits of tokens seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_penalty: Option<f32>,
    /// Most tokens of prompt and reply together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
}

impl Defaults {
    /// Values that no request could have are left out: they would make every reply an error.
    fn read(metadata: &Metadata) -> Result<Self> {
        let float = |key: &str, with: fn(f32) -> SamplingParams| -> Result<Option<f32>> {
            let value = metadata.f32(&format!("general.sampling.{key}"))?;
            Ok(value.filter(|&value| with(value).validate().is_ok()))
        };
        Ok(Self {
            temperature: float("temp", |temperature| SamplingParams { temperature, ..SamplingParams::default() })?,
            top_p: float("top_p", |top_p| SamplingParams { top_p, ..SamplingParams::default() })?,
            // Negative values say that there is no bound.
            top_k: metadata.u32("general.sampling.top_k").ok().flatten(),
            min_p: float("min_p", |min_p| SamplingParams { min_p, ..SamplingParams::default() })?,
            repeat_penalty: float("penalty_repeat", |repeat_penalty| SamplingParams {
                repeat_penalty,
                ..SamplingParams::default()
            })?,
            max_length: metadata.u32("llamero.max_length")?.filter(|&length| length > 0),
        })
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Told how many bytes of weights are done of how many; an error ends the loading with it.
pub type Progress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

/// What a header says: everything but the weights.
pub struct Plan {
    config: Config,
    tokenizer: Arc<Tokenizer>,
    info: ModelInfo,
    device: Device,
}

impl Plan {
    /// Checks that the header of a Llama-family model and its vocabulary fit together.
    ///
    /// `context_length` asks for less context than the model allows.
    ///
    /// # Errors
    /// `invalid_format` when numbers are missing, impossible or do not fit together, `unsupported` for an architecture
    /// that is not implemented.
    pub fn new(head: &Gguf, tokenizer: Arc<Tokenizer>, context_length: Option<usize>) -> Result<Self> {
        let config = config::from_metadata(head, context_length)?;
        if tokenizer.len() != config.n_vocab {
            let (tokens, rows) = (tokenizer.len(), config.n_vocab);
            let message = format!("expected one embedding row per token ({tokens}), got {rows} rows");
            return Err(Error::invalid_format(message));
        }
        let info = describe(head, &tokenizer, &config)?;
        Ok(Self { config, tokenizer, info, device: Device::Cpu })
    }

    /// The same for another place than the CPU, which is opened.
    ///
    /// # Errors
    /// `invalid_request` when this machine has no such device.
    pub fn on(mut self, place: Place) -> Result<Self> {
        self.device = place.open()?;
        if place != Place::Cpu {
            self.info.device = place.to_string();
        }
        Ok(self)
    }

    /// Where the model will run.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The description of what will be loaded.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The model, with the weights of `source`. Conversations keep keys and values as `cache_type`.
    ///
    /// # Errors
    /// `invalid_format` for a tensor that is missing or of another shape, and what `source` returns.
    pub fn finish(self, source: &mut dyn TensorSource, cache_type: CacheType) -> Result<Loaded> {
        let Self { config, tokenizer, info, device } = self;
        let model = model(config, source, cache_type, &device)?;
        Ok(Loaded { model, tokenizer, info })
    }
}

fn model(config: Config, source: &mut dyn TensorSource, cache_type: CacheType, device: &Device) -> Result<Llama> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => Llama::on_device(config, source, cache_type, device),
        _ => Llama::new(config, source, cache_type),
    }
}

fn describe(file: &Gguf, tokenizer: &Tokenizer, config: &Config) -> Result<ModelInfo> {
    let text = |key: &str| -> Result<Option<String>> { Ok(file.metadata.str(key)?.map(str::to_owned)) };
    let piece = |id: Option<u32>| id.and_then(|id| tokenizer.piece(id)).map(str::to_owned);
    let weights = |t: &TensorInfo| t.shape.iter().product::<usize>() as u64;
    let of_type = |dtype: GgmlType| file.tensors.iter().filter(|t| t.dtype == dtype).map(weights).sum::<u64>();
    let most = file.tensors.iter().map(|t| t.dtype).max_by_key(|&dtype| of_type(dtype));
    Ok(ModelInfo {
        name: text("general.name")?.unwrap_or_default(),
        architecture: text("general.architecture")?.unwrap_or_default(),
        context_length: config.n_ctx,
        vocab_size: tokenizer.len(),
        embedding_length: config.n_embd,
        constrains: false,
        parameters: file.tensors.iter().map(weights).sum(),
        quantization: most.map_or_else(|| "none".into(), |dtype| dtype.name().into()),
        chat_template: text("tokenizer.chat_template")?,
        bos_token: piece(tokenizer.bos()),
        eos_token: piece(tokenizer.eos()),
        adds_bos: tokenizer.adds_bos(),
        special_tokens: tokenizer.special_texts(),
        defaults: Defaults::read(&file.metadata)?,
        device: format!("cpu {}", kernels::active()),
        not_mapped: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::gguf::Value;

    #[test]
    fn recommendations_that_no_request_could_make_are_left_out() {
        let read = |key: &str, value: f32| {
            let mut metadata = Metadata::new();
            metadata.insert(format!("general.sampling.{key}"), Value::F32(value)).unwrap();
            Defaults::read(&metadata).unwrap()
        };
        assert_eq!(read("temp", 0.9), Defaults { temperature: Some(0.9), ..Defaults::default() });
        for (key, value) in [
            ("temp", -1.0),
            ("temp", f32::NAN),
            ("top_p", 0.0),
            ("top_p", 1.5),
            ("min_p", 2.0),
            ("penalty_repeat", 0.0),
        ] {
            assert_eq!(read(key, value), Defaults::default(), "{key} {value}");
        }
    }
}
