//! Where formats meet model and tokenizer: names and metadata keys of a file become a `Config`, weights and a
//! vocabulary. Absent here: inference, opening files.

pub mod config;
pub mod vocab;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::formats::gguf::{GgmlType, Gguf, TensorInfo};
use crate::kernels;
use crate::model::{Llama, TensorSource};
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
    let file = Gguf::parse(bytes, bytes.len() as u64)?;
    let config = config::from_metadata(&file, context_length)?;
    let tokenizer = Tokenizer::new(vocab::vocab_spec(&file.metadata)?)?;
    if tokenizer.len() != config.n_vocab {
        let (tokens, rows) = (tokenizer.len(), config.n_vocab);
        return Err(Error::invalid_format(format!("expected one embedding row per token ({tokens}), got {rows} rows")));
    }
    let info = describe(&file, &tokenizer, config.n_ctx)?;
    let total = file.tensors.iter().map(|t| t.len as u64).sum();
    let mut source = GgufSource { file: &file, bytes, done: 0, total, progress };
    let model = Llama::new(config, &mut source, &Device::Cpu)?;
    Ok(Loaded { model, tokenizer, info })
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

/// Hands tensors of a GGUF file to the model by name, counting the bytes.
struct GgufSource<'a, 'p> {
    file: &'a Gguf,
    bytes: &'a [u8],
    done: u64,
    total: u64,
    progress: &'a mut Progress<'p>,
}

impl TensorSource for GgufSource<'_, '_> {
    fn tensor(&mut self, name: &str) -> Result<Option<QTensor>> {
        let Some(info) = self.file.tensor(name) else { return Ok(None) };
        let data = self.bytes.get(info.offset..info.offset + info.len).ok_or_else(|| {
            Error::invalid_format(format!("tensor {name}: expected {} bytes at {}, got fewer", info.len, info.offset))
        })?;
        let dtype = candle_type(info)?;
        let storage = QStorage::from_data(data.into(), &Device::Cpu, dtype)?;
        let tensor = QTensor::new(storage, info.shape.as_slice())?;
        self.done += info.len as u64;
        (self.progress)(self.done, self.total)?;
        Ok(Some(tensor))
    }
}

fn candle_type(info: &TensorInfo) -> Result<GgmlDType> {
    Ok(match info.dtype {
        GgmlType::F32 => GgmlDType::F32,
        GgmlType::F16 => GgmlDType::F16,
        GgmlType::BF16 => GgmlDType::BF16,
        GgmlType::Q4_0 => GgmlDType::Q4_0,
        GgmlType::Q4_1 => GgmlDType::Q4_1,
        GgmlType::Q5_0 => GgmlDType::Q5_0,
        GgmlType::Q5_1 => GgmlDType::Q5_1,
        GgmlType::Q8_0 => GgmlDType::Q8_0,
        GgmlType::Q2K => GgmlDType::Q2K,
        GgmlType::Q3K => GgmlDType::Q3K,
        GgmlType::Q4K => GgmlDType::Q4K,
        GgmlType::Q5K => GgmlDType::Q5K,
        GgmlType::Q6K => GgmlDType::Q6K,
        GgmlType::Q8K => GgmlDType::Q8K,
        other => {
            let known = "f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0 and q2_k to q8_k";
            let message = format!("tensor {}: type {} is not implemented; known are {known}", info.name, other.name());
            return Err(Error::unsupported(message));
        }
    })
}
