//! Where formats meet model and tokenizer: names and metadata keys of a file become a `Config`, weights and a
//! vocabulary. Absent here: inference, opening files.

mod blocks;
pub mod config;
mod stream;
pub mod vocab;
mod weights;

use candle_core::Device;
use serde::Serialize;

pub use self::stream::Stream;
use self::weights::Weights;

use crate::error::{Error, Result};
use crate::formats::gguf::{GgmlType, Gguf, TensorInfo};
use crate::kernels;
use crate::model::{Config, Llama};
use crate::tokenizer::Tokenizer;

/// A loaded model: weights, vocabulary and what to say about them.
pub struct Loaded {
    /// The weights.
    pub model: Llama,
    /// The vocabulary.
    pub tokenizer: Tokenizer,
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
    /// Where the arithmetic runs, such as `cpu avx2`.
    pub device: String,
}

/// Told how many bytes of weights are done of how many; an error ends the loading with it.
pub type Progress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

/// Load a Llama-family model from the bytes of a GGUF file.
///
/// `context_length` asks for less context than the model allows.
///
/// # Errors
/// `invalid_format` when the bytes break the format or the shapes do not fit together, `unsupported` for an
/// architecture, weight type or vocabulary that is not implemented, and whatever `progress` returns.
pub fn gguf(bytes: &[u8], context_length: Option<usize>, progress: &mut Progress) -> Result<Loaded> {
    let (plan, mut weights) = Plan::new(Gguf::parse(bytes, bytes.len() as u64)?, context_length)?;
    for piece in bytes.chunks(PIECE_BYTES) {
        weights.push(piece)?;
        let (done, total) = weights.progress();
        progress(done, total)?;
    }
    plan.finish(weights)
}

/// Bytes between two reports of progress: some milliseconds of copying.
const PIECE_BYTES: usize = 16 << 20;

/// What a header says: everything but the weights.
struct Plan {
    config: Config,
    tokenizer: Tokenizer,
    info: ModelInfo,
}

impl Plan {
    fn new(file: Gguf, context_length: Option<usize>) -> Result<(Self, Weights)> {
        let config = config::from_metadata(&file, context_length)?;
        let tokenizer = Tokenizer::new(vocab::vocab_spec(&file.metadata)?)?;
        if tokenizer.len() != config.n_vocab {
            let (tokens, rows) = (tokenizer.len(), config.n_vocab);
            let message = format!("expected one embedding row per token ({tokens}), got {rows} rows");
            return Err(Error::invalid_format(message));
        }
        let info = describe(&file, &tokenizer, config.n_ctx)?;
        Ok((Self { config, tokenizer, info }, Weights::new(file.tensors)?))
    }

    fn finish(self, mut weights: Weights) -> Result<Loaded> {
        weights.check_complete()?;
        let model = Llama::new(self.config, &mut weights, &Device::Cpu)?;
        Ok(Loaded { model, tokenizer: self.tokenizer, info: self.info })
    }
}

fn describe(file: &Gguf, tokenizer: &Tokenizer, context_length: usize) -> Result<ModelInfo> {
    let text = |key: &str| -> Result<Option<String>> { Ok(file.metadata.str(key)?.map(str::to_owned)) };
    let piece = |id: Option<u32>| id.and_then(|id| tokenizer.piece(id)).map(str::to_owned);
    let weights = |t: &TensorInfo| t.shape.iter().product::<usize>() as u64;
    let of_type = |dtype: GgmlType| file.tensors.iter().filter(|t| t.dtype == dtype).map(weights).sum::<u64>();
    let most = file.tensors.iter().map(|t| t.dtype).max_by_key(|&dtype| of_type(dtype));
    Ok(ModelInfo {
        name: text("general.name")?.unwrap_or_default(),
        architecture: text("general.architecture")?.unwrap_or_default(),
        context_length,
        vocab_size: tokenizer.len(),
        parameters: file.tensors.iter().map(weights).sum(),
        quantization: most.map_or_else(|| "none".into(), |dtype| dtype.name().into()),
        chat_template: text("tokenizer.chat_template")?,
        bos_token: piece(tokenizer.bos()),
        eos_token: piece(tokenizer.eos()),
        adds_bos: tokenizer.adds_bos(),
        special_tokens: tokenizer.special_texts(),
        device: format!("cpu {}", kernels::active()),
    })
}
