//! A folder as Hugging Face has it: shards of safetensors with their index, `config.json`, `generation_config.json` and
//! the files of the vocabulary.

use serde_json::{Map, Value, json};

use super::{Plan, WeightFile, WeightTensor};
use crate::checkpoint::{Checkpoint, published_name};
use crate::error::{Error, Result};
use crate::formats::gguf::{GgmlType, TensorInfo};
use crate::quantize::FileType;

/// Most bytes of one shard, as transformers splits them.
const MAX_SHARD_BYTES: u64 = 5_000_000_000;
/// Headers are filled up with spaces to a multiple of this, so that values are aligned.
const ALIGNMENT: usize = 8;
/// GGUF's only tensor that is a setting elsewhere.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Lays out `checkpoint` as a folder whose weights have `file_type`: f32, f16 or bf16.
///
/// # Errors
/// `invalid_request` for another type, `unsupported` when the files of other programs cannot say what this model is.
pub fn plan(checkpoint: &Checkpoint, file_type: FileType) -> Result<Plan> {
    let (dtype, word) = match file_type {
        FileType::F32 => (GgmlType::F32, "F32"),
        FileType::F16 => (GgmlType::F16, "F16"),
        FileType::Bf16 => (GgmlType::BF16, "BF16"),
        other => {
            let message = format!("converting to safetensors: expected f32, f16 or bf16, got {}", other.name());
            return Err(Error::invalid_request(message));
        }
    };
    let tensors = tensors(checkpoint, dtype, checkpoint.plan(None)?.config().head_dim)?;
    let shards = shards(&tensors);
    let mut companions = companions(checkpoint, file_type)?;
    if shards.len() > 1 {
        companions.push(("model.safetensors.index.json".to_owned(), pretty(&index(&shards))));
    }
    let count = shards.len();
    let files = shards.into_iter().enumerate().map(|(i, shard)| file(shard_name(i, count), &shard, word));
    Ok(Plan { files: files.collect(), companions })
}

/// A tensor under its published name; places are counted later.
#[derive(Clone)]
struct Named {
    name: String,
    shape: Vec<usize>,
    tensor: WeightTensor,
}

fn tensors(checkpoint: &Checkpoint, dtype: GgmlType, head_dim: usize) -> Result<Vec<Named>> {
    let named = |(index, info): (usize, &TensorInfo)| -> Result<Named> {
        let (name, is_rotary) = published_name(&info.name).ok_or_else(|| {
            Error::unsupported(format!(
                "converting to safetensors: expected tensors that a folder has, got {}",
                info.name
            ))
        })?;
        let len = (info.shape.iter().product::<usize>() * dtype.type_size()) as u64;
        let rotary = is_rotary.then_some(head_dim);
        Ok(Named { name, shape: info.shape.clone(), tensor: WeightTensor { index, dtype, start: 0, len, rotary } })
    };
    checkpoint.head().tensors.iter().enumerate().filter(|(_, info)| info.name != ROPE_FACTORS).map(named).collect()
}

/// Tensors in order, each shard as full as may be.
fn shards(tensors: &[Named]) -> Vec<Vec<Named>> {
    let mut shards: Vec<(u64, Vec<Named>)> = Vec::new();
    for tensor in tensors {
        let len = tensor.tensor.len;
        match shards.last_mut() {
            Some((bytes, shard)) if *bytes + len <= MAX_SHARD_BYTES => {
                *bytes += len;
                shard.push(tensor.clone());
            }
            _ => shards.push((len, vec![tensor.clone()])),
        }
    }
    shards.into_iter().map(|(_, shard)| shard).collect()
}

fn shard_name(i: usize, count: usize) -> String {
    if count == 1 { "model.safetensors".into() } else { format!("model-{:05}-of-{count:05}.safetensors", i + 1) }
}

/// Header and places of one shard.
fn file(name: String, shard: &[Named], word: &str) -> WeightFile {
    let (mut at, mut entries) = (0, Map::new());
    entries.insert("__metadata__".into(), json!({"format": "pt"}));
    for Named { name, shape, tensor } in shard {
        entries.insert(name.clone(), json!({"dtype": word, "shape": shape, "data_offsets": [at, at + tensor.len]}));
        at += tensor.len;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    let head = [&(header.len() as u64).to_le_bytes(), header.as_slice()].concat();
    let mut start = head.len() as u64;
    let tensors = shard.iter().map(|named| {
        let tensor = WeightTensor { start, ..named.tensor.clone() };
        start += tensor.len;
        tensor
    });
    let tensors: Vec<_> = tensors.collect();
    WeightFile { name, len: head.len() as u64 + at, head, tensors }
}

fn index(shards: &[Vec<Named>]) -> Value {
    let count = shards.len();
    let places = shards.iter().enumerate().flat_map(|(i, shard)| {
        shard.iter().map(move |named| (named.name.clone(), Value::String(shard_name(i, count))))
    });
    let total: u64 = shards.iter().flatten().map(|named| named.tensor.len).sum();
    json!({"metadata": {"total_size": total}, "weight_map": places.collect::<Map<_, _>>()})
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// The files of a publication, with the type of the weights as it will be.
fn companions(checkpoint: &Checkpoint, file_type: FileType) -> Result<Vec<(String, Vec<u8>)>> {
    let dtype = match file_type {
        FileType::F32 => "float32",
        FileType::F16 => "float16",
        _ => "bfloat16",
    };
    let mut files = checkpoint.publication()?;
    for (_, bytes) in files.iter_mut().filter(|(name, _)| name == "config.json") {
        let mut config: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|e| Error::invalid_format(format!("reading config.json: expected a JSON object, got {e}")))?;
        // Both spellings are read; newer programs write the short one.
        if config.contains_key("dtype") {
            config.insert("dtype".into(), dtype.into());
        }
        config.insert("torch_dtype".into(), dtype.into());
        *bytes = pretty(&Value::Object(config));
    }
    Ok(files)
}
