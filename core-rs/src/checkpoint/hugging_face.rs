//! Folders as Hugging Face and PaddleNLP publish them: `config.json`, weights in one of three formats, a vocabulary.
//!
//! Absent: GGUF files, and what a name or a shape means (see `names` and `layout`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::folder::{Bytes, Folder, Format, WeightFiles};
use super::layout::{self, Decision, is_turned};
use super::names::{self, Name, Role};
use super::publish::COMPANIONS;
use super::rows::Source;
use super::settings::{Generation, Settings, json};
use super::vocab::{self, VocabFiles, Vocabulary};
use super::{Checkpoint, Origin, open_all};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::gguf::{GgmlType, Gguf, TensorInfo};
use crate::formats::metadata::{Metadata, Value};
use crate::formats::stored::Stored;
use crate::formats::{pdparams, safetensors, torch};
use crate::model::llama3_factors;

/// Names of the embedding and of what maps back to the vocabulary.
const EMBEDDING: &str = "token_embd.weight";
const OUTPUT: &str = "output.weight";
/// Factors of Llama 3's stretched rotation.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

pub(super) fn open(folder: &dyn Folder, found: WeightFiles) -> Result<Checkpoint> {
    let settings = Settings::read(&required(folder, "config.json")?)?;
    let files = open_all(folder, &found.names)?;
    let stored = stored(&found, &files)?;
    let mut origin = Origin::new(&found, &files);
    let tensors = Tensors::new(&settings, stored, found.format, &mut origin)?;
    let n_vocab = tensors.n_vocab()?;
    let mut metadata = Metadata::new();
    general(folder, &settings, &mut metadata)?;
    settings.write(&mut metadata)?;
    if let Some(bytes) = optional(folder, "generation_config.json")? {
        json::<Generation>("generation_config.json", &bytes)?.write(&mut metadata)?;
    }
    let vocabulary = vocabulary(folder, n_vocab)?;
    for (key, value) in vocabulary.metadata {
        metadata.insert(key, value)?;
    }
    origin.vocabulary = vocabulary.source;
    origin.not_portable = vocabulary.not_portable;
    let (head, sources) = tensors.finish(metadata, &settings)?;
    let read = |name: &&str| Ok(optional(folder, name)?.map(|bytes| ((*name).to_owned(), bytes)));
    let companions = COMPANIONS.iter().filter_map(|name| read(name).transpose()).collect::<Result<_>>()?;
    Ok(Checkpoint { head, sources, files, tokenizer: Arc::new(vocabulary.tokenizer), origin, companions, packed: None })
}

fn general(folder: &dyn Folder, settings: &Settings, metadata: &mut Metadata) -> Result<()> {
    metadata.insert("general.architecture".into(), Value::String("llama".into()))?;
    let name = settings.name().unwrap_or(folder.name()).to_owned();
    metadata.insert("general.name".into(), Value::String(name))
}

fn vocabulary(folder: &dyn Folder, n_vocab: usize) -> Result<Vocabulary> {
    let read = |names: &[&str]| -> Result<Option<Vec<u8>>> {
        names.iter().find_map(|name| optional(folder, name).transpose()).transpose()
    };
    let sentencepiece = read(&["tokenizer.model", "sentencepiece.bpe.model", "spiece.model"])?;
    let tokenizer_json = read(&["tokenizer.json"])?;
    let tokenizer_config = read(&["tokenizer_config.json"])?;
    let special_tokens_map = read(&["special_tokens_map.json"])?;
    let added_tokens = read(&["added_tokens.json"])?;
    let generation_config = read(&["generation_config.json"])?;
    let config = read(&["config.json"])?;
    let chat_template = read(&["chat_template.jinja"])?;
    vocab::read(&VocabFiles {
        sentencepiece: sentencepiece.as_deref(),
        tokenizer_json: tokenizer_json.as_deref(),
        tokenizer_config: tokenizer_config.as_deref(),
        special_tokens_map: special_tokens_map.as_deref(),
        added_tokens: added_tokens.as_deref(),
        generation_config: generation_config.as_deref(),
        config: config.as_deref(),
        chat_template: chat_template.as_deref(),
        n_vocab: Some(n_vocab),
    })
}

/// The bytes of a small file that must be there.
fn required(folder: &dyn Folder, name: &str) -> Result<Vec<u8>> {
    optional(folder, name)?.ok_or_else(|| {
        Error::new(ErrorKind::Io, format!("expected {name} beside the weights in {}, got none", folder.name()))
    })
}

pub(super) fn optional(folder: &dyn Folder, name: &str) -> Result<Option<Vec<u8>>> {
    if !folder.names().iter().any(|there| there == name) {
        return Ok(None);
    }
    let file = folder.open(name)?;
    let bytes = (*file).as_ref();
    if bytes.len() > vocab::MAX_FILE_LEN {
        let message = format!("reading {name}: expected at most {} bytes, got {}", vocab::MAX_FILE_LEN, bytes.len());
        return Err(Error::invalid_format(message));
    }
    Ok(Some(bytes.to_vec()))
}

/// All tensors of all files, each once, and where the index says.
pub(super) fn stored(found: &WeightFiles, files: &[Bytes]) -> Result<Vec<Stored>> {
    let mut all: Vec<Stored> = Vec::new();
    for (i, (name, file)) in found.names.iter().zip(files).enumerate() {
        let bytes = (**file).as_ref();
        let parsed = match found.format {
            Format::Safetensors => safetensors::parse(bytes, i).map(|file| file.tensors),
            Format::PyTorch => torch::parse(bytes, i),
            Format::Paddle => pdparams::parse(bytes, i),
            Format::Gguf => Err(Error::internal("expected no GGUF file here")),
        };
        all.extend(parsed.map_err(|e| e.context(name))?);
    }
    if let Some(index) = &found.index {
        let place: BTreeMap<&str, usize> =
            all.iter().filter_map(|s| Some((s.name.as_str(), s.pieces.first()?.file))).collect();
        for (tensor, file) in index {
            if place.get(tensor.as_str()).is_none_or(|&i| found.names[i] != *file) {
                return Err(Error::invalid_format(format!(
                    "expected tensor {tensor} in {file}, as the index says, got none"
                )));
            }
        }
    }
    Ok(all)
}

/// Tensors under their GGUF names.
struct Tensors {
    /// In the order of the layers: embedding, `blk.0`…, norm, output.
    entries: Vec<(TensorInfo, Source)>,
}

impl Tensors {
    fn new(settings: &Settings, stored: Vec<Stored>, format: Format, origin: &mut Origin) -> Result<Self> {
        let mut known: BTreeMap<String, (Role, Stored)> = BTreeMap::new();
        for tensor in stored {
            match names::parse(&tensor.name)? {
                Name::Ignored => origin.ignored += 1,
                Name::Known { gguf, role } => {
                    let name = tensor.name.clone();
                    if let Some((_, other)) = known.insert(gguf, (role, tensor)) {
                        return Err(Error::invalid_format(format!(
                            "expected one tensor of a kind, got {} and {name}",
                            other.name
                        )));
                    }
                }
            }
        }
        if settings.is_tied() && known.remove(OUTPUT).is_some() {
            origin.notes.push("the output is the embedding, so its second copy is left out".into());
        }
        if !settings.is_tied() && !known.contains_key(OUTPUT) {
            let message = "expected lm_head.weight, as config.json does not say tie_word_embeddings, got none";
            return Err(Error::invalid_format(message));
        }
        let default = if format == Format::Paddle { layout::Layout::InOut } else { layout::Layout::OutIn };
        let shapes = known.iter().map(|(gguf, (_, stored))| (gguf.as_str(), stored.shape.as_slice()));
        let Decision { layout, reason } = layout::decide(&settings.sizes(), shapes, default)?;
        origin.layout = Some(reason);
        let n_vocab = known.get(EMBEDDING).and_then(|(_, stored)| stored.shape.first().copied()).unwrap_or(0);
        let mut entries = known
            .into_iter()
            .map(|(gguf, (role, stored))| entry(gguf, role, stored, layout, n_vocab, settings.head_dim()))
            .collect::<Result<Vec<_>>>()?;
        entries.sort_by_key(|(info, _)| order(&info.name));
        Ok(Self { entries })
    }

    /// Rows of the embedding.
    fn n_vocab(&self) -> Result<usize> {
        let embedding = self.entries.iter().find(|(info, _)| info.name == EMBEDDING);
        embedding
            .map(|(info, _)| info.shape[0])
            .ok_or_else(|| Error::invalid_format("expected an embedding (embed_tokens.weight), got none"))
    }

    fn finish(mut self, metadata: Metadata, settings: &Settings) -> Result<(Gguf, Vec<Source>)> {
        if let Some(rope) = settings.llama3() {
            let factors = llama3_factors(
                settings.head_dim(),
                settings.rope_theta(),
                rope.factor.unwrap_or(8.0),
                rope.low_freq_factor.unwrap_or(1.0),
                rope.high_freq_factor.unwrap_or(4.0),
                rope.original_max_position_embeddings.unwrap_or(8192),
            );
            let bytes: Vec<u8> = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
            let info = TensorInfo {
                name: ROPE_FACTORS.into(),
                dtype: GgmlType::F32,
                shape: vec![factors.len()],
                offset: 0,
                len: bytes.len(),
            };
            self.entries.push((info, Source::Constant(bytes)));
        }
        let (infos, sources) = self.entries.into_iter().unzip();
        Ok((Gguf::new(metadata, infos)?, sources))
    }
}

/// One tensor as GGUF has it.
fn entry(
    gguf: String,
    role: Role,
    stored: Stored,
    layout: layout::Layout,
    n_vocab: usize,
    head_dim: usize,
) -> Result<(TensorInfo, Source)> {
    let dtype = stored.dtype()?;
    let turned = is_turned(role, layout, &stored.shape, n_vocab);
    let mut shape = stored.shape.clone();
    if turned {
        shape.reverse();
    }
    let wanted = if role == Role::Norm { 1 } else { 2 };
    if shape.len() != wanted || shape.contains(&0) {
        return Err(Error::invalid_format(format!(
            "expected {} with {wanted} dimensions, got {:?}",
            stored.name, stored.shape
        )));
    }
    let rotary = (role == Role::Rotary).then_some(head_dim);
    if let Some(width) = rotary.filter(|&width| width == 0 || width % 2 != 0 || !shape[0].is_multiple_of(width)) {
        return Err(Error::invalid_format(format!(
            "expected {} to have heads of {width} rows (an even number), got {:?}",
            stored.name, stored.shape
        )));
    }
    let len = stored.byte_len()?;
    let info = TensorInfo { name: gguf, dtype, shape, offset: 0, len };
    Ok((info, Source::Stored { stored, turned, rotary }))
}

/// The order in which the forward pass meets tensors: converted files are read from front to back.
fn order(name: &str) -> (usize, usize, String) {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
    match (layer, name) {
        (Some(layer), _) => (1, layer, name.to_owned()),
        (None, EMBEDDING) => (0, 0, String::new()),
        (None, _) => (2, 0, name.to_owned()),
    }
}
