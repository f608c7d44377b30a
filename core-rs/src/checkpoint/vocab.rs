//! The vocabulary files of a model folder as a tokenizer, and as the metadata that a GGUF file would carry.
//!
//! A SentencePiece model is encoded as SentencePiece does, a tokenizer.json by the crate it belongs to; the JSON files
//! beside them name special tokens, add tokens and say whether text after a special token gets a space. Absent: finding
//! and reading files, weights, rendering templates; of added tokens that they take the spaces beside them, which none
//! of the model families here does.

mod draft;
mod json;
mod publish;
mod sentencepiece;
mod settings;

use draft::Draft;
pub use publish::publish;
use settings::Settings;

use crate::error::{Error, Result};
use crate::formats::gguf::{Array, Value};
use crate::load::vocab::{EOS_IDS, LEGACY};
use crate::tokenizer::{Scheme, Tokenizer, Vocab, VocabKind, VocabSpec};

/// Largest file in bytes; a tokenizer.json of 260k pieces has about 33 MB.
pub const MAX_FILE_LEN: usize = 64 << 20;

/// The bytes of the files that a model folder describes its vocabulary with, as far as it has them.
#[derive(Debug, Clone, Copy, Default)]
pub struct VocabFiles<'a> {
    /// `tokenizer.model`, `sentencepiece.bpe.model` or `spiece.model`.
    pub sentencepiece: Option<&'a [u8]>,
    /// `tokenizer.json`; used when there is no SentencePiece model.
    pub tokenizer_json: Option<&'a [u8]>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<&'a [u8]>,
    /// `added_tokens.json`.
    pub added_tokens: Option<&'a [u8]>,
    /// `generation_config.json`.
    pub generation_config: Option<&'a [u8]>,
    /// `config.json`.
    pub config: Option<&'a [u8]>,
    /// `chat_template.jinja`.
    pub chat_template: Option<&'a [u8]>,
    /// Rows of the embedding, which the vocabulary is padded or cut to.
    pub n_vocab: Option<usize>,
}

/// A vocabulary that has been read.
#[derive(Debug)]
pub struct Vocabulary {
    /// Keys `tokenizer.*` and `llamero.tokenizer.*` for a GGUF file; only templates when `not_portable` says why.
    pub metadata: Vec<(String, Value)>,
    /// Ready to encode and decode.
    pub tokenizer: Tokenizer,
    /// What it was read from, for people, such as `sentencepiece bpe`.
    pub source: &'static str,
    /// Why a GGUF file cannot carry this vocabulary, if so.
    pub not_portable: Option<String>,
}

/// Makes the scheme of a vocabulary once its pieces are checked.
type MakeScheme = Box<dyn FnOnce(&Vocab, &VocabSpec) -> Result<Box<dyn Scheme>>>;

/// What a vocabulary file says, with the settings of the files beside it.
struct Source {
    spec: VocabSpec,
    scheme: MakeScheme,
    pad: Option<u32>,
    name: &'static str,
    not_portable: Option<String>,
}

/// Reads the vocabulary of a model folder.
///
/// # Errors
/// `invalid_format` for files that break their rules or do not fit together, `unsupported` for kinds of vocabulary that
/// are not implemented.
pub fn read(files: &VocabFiles) -> Result<Vocabulary> {
    let settings = Settings::read(files)?;
    let source = match (files.sentencepiece, files.tokenizer_json) {
        (Some(model), _) => sentencepiece::read(model, &settings, files.n_vocab)?,
        (None, Some(json)) => json::read(json, &settings, files.n_vocab)?,
        (None, None) => {
            let message = "reading vocabulary: expected a SentencePiece model or tokenizer.json, got neither";
            return Err(Error::invalid_format(message));
        }
    };
    let mut metadata = settings.templates.metadata();
    if source.not_portable.is_none() {
        metadata.extend(portable(&source));
    }
    Ok(Vocabulary {
        metadata,
        tokenizer: Tokenizer::with_scheme(source.spec, source.scheme)?,
        source: source.name,
        not_portable: source.not_portable,
    })
}

/// The keys that GGUF readers know, and the two that only we do.
fn portable(source: &Source) -> Vec<(String, Value)> {
    let spec = &source.spec;
    let text = |text: &str| Some(Value::String(text.into()));
    let id = |id: Option<u32>| id.map(Value::U32);
    let is_bpe = spec.kind == VocabKind::ByteLevel;
    let ends = || Value::Array(Array::I32(spec.ends.iter().map(|&id| id as i32).collect()));
    let ours = [(LEGACY, (!spec.legacy).then_some(Value::Bool(false))), (EOS_IDS, (!spec.ends.is_empty()).then(ends))];
    let ggml = [
        ("model", text(if is_bpe { "gpt2" } else { "llama" })),
        ("pre", text(&spec.pre)),
        ("tokens", Some(Value::Array(Array::String(spec.pieces.clone())))),
        ("token_type", Some(Value::Array(Array::I32(spec.types.iter().map(|t| t.code()).collect())))),
        ("scores", (!is_bpe).then(|| Value::Array(Array::F32(spec.scores.clone())))),
        ("merges", is_bpe.then(|| Value::Array(Array::String(spec.merges.clone())))),
        ("bos_token_id", id(spec.bos)),
        ("eos_token_id", id(spec.eos)),
        ("unknown_token_id", id(spec.unk)),
        ("padding_token_id", id(source.pad)),
        ("add_bos_token", Some(Value::Bool(spec.add_bos))),
        ("add_eos_token", Some(Value::Bool(spec.add_eos))),
        ("add_space_prefix", (!is_bpe).then_some(Value::Bool(spec.add_space_prefix))),
    ];
    let ggml = ggml.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value));
    let all = ggml.chain(ours.map(|(key, value)| (key.to_owned(), value)));
    all.filter_map(|(key, value)| Some((key, value?))).collect()
}

#[cfg(test)]
mod tests;
