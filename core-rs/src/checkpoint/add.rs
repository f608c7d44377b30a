//! What is added to the weights of a checkpoint: the difference to another model (a delta release), or adapters
//! (LoRA, <https://arxiv.org/abs/2106.09685>, in the folders of PEFT).
//!
//! Sums are made in single precision and rounded once to the type of the weight, row by row as they are read. Absent:
//! training, and adapters that change more than linear weights.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Checkpoint;
use super::folder::{Bytes, Folder, weight_files};
use super::hugging_face::{ROPE_FACTORS, optional, stored};
use super::names::{self, Name, Role};
use super::open_all;
use super::rows::{LowRank, Source, gguf_row, row_shape};
use super::settings::json;
use crate::error::{Error, ErrorKind, Result};
use crate::formats::gguf::TensorInfo;
use crate::formats::stored::Stored;
use crate::quantize;

/// Ways to begin an adapter that take something away from the base, which a folder of the adapter does not tell.
const CHANGES_BASE: [&str; 4] = ["pissa", "olora", "corda", "loftq"];
/// Largest rank of an adapter; published ones stay below 512.
const MAX_RANK: usize = 1 << 12;

/// The model whose difference to `base` is `delta`. Names, shapes and vocabulary are those of the delta; rows of the
/// vocabulary that only the delta has are added to zeros, as FastChat made them.
///
/// # Errors
/// `invalid_format` when a tensor is missing on one side or of another shape.
pub fn apply_delta(base: Checkpoint, delta: Checkpoint) -> Result<Checkpoint> {
    let mut from_base: BTreeMap<String, (TensorInfo, Source)> = base
        .head
        .tensors
        .into_iter()
        .zip(base.sources)
        .map(|(info, source)| (info.name.clone(), (info, source)))
        .collect();
    let mut sources = Vec::with_capacity(delta.sources.len());
    for (info, mut source) in delta.head.tensors.iter().zip(delta.sources) {
        source.shift_files(base.files.len());
        // No weight but a setting, which both sides have whole.
        if info.name == ROPE_FACTORS {
            from_base.remove(ROPE_FACTORS);
            sources.push(source);
            continue;
        }
        let (base_info, base_source) = from_base.remove(&info.name).ok_or_else(|| unmatched(&info.name, "the base"))?;
        check_shapes(&base_info, info)?;
        sources.push(Source::Sum(Box::new((base_info, base_source)), Box::new((info.clone(), source))));
    }
    if let Some(name) = from_base.keys().next() {
        return Err(unmatched(name, "the delta"));
    }
    let mut origin = delta.origin;
    origin.files.extend(base.origin.files);
    let files = base.files.into_iter().chain(delta.files).collect();
    Ok(Checkpoint {
        head: delta.head,
        sources,
        files,
        tokenizer: delta.tokenizer,
        origin,
        companions: delta.companions,
        packed: None,
    })
}

fn unmatched(name: &str, side: &str) -> Error {
    Error::invalid_format(format!("adding the delta: expected {name} in {side} too, got none"))
}

fn check_shapes(base: &TensorInfo, delta: &TensorInfo) -> Result<()> {
    let ((base_rows, base_len), (rows, len)) = (row_shape(&base.shape), row_shape(&delta.shape));
    let is_vocabulary = matches!(delta.name.as_str(), "token_embd.weight" | "output.weight");
    if base_len == len && (base_rows == rows || (is_vocabulary && base_rows < rows)) {
        return Ok(());
    }
    let (name, wanted, got) = (&delta.name, &delta.shape, &base.shape);
    Err(Error::invalid_format(format!(
        "adding the delta: expected {name} of shape {wanted:?} in the base, got {got:?}"
    )))
}

/// `adapter_config.json`, as far as it changes the sum.
#[derive(Debug, Deserialize)]
struct AdapterConfig {
    peft_type: Option<String>,
    lora_alpha: f32,
    /// How training began; some ways change the base as well.
    init_lora_weights: Option<serde_json::Value>,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    bias: Option<String>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f32>,
}

impl AdapterConfig {
    fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::unsupported(format!("reading adapter_config.json: {what}")));
        match self.peft_type.as_deref() {
            None | Some("LORA") => {}
            Some(other) => return refuse(&format!("expected peft_type LORA, got {other}")),
        }
        if self.use_dora {
            return refuse("expected plain LoRA, got use_dora");
        }
        if self.fan_in_fan_out {
            return refuse("expected linear layers, got fan_in_fan_out");
        }
        if let Some(init) = self.init_lora_weights.as_ref().and_then(|init| init.as_str())
            && CHANGES_BASE.iter().any(|way| init.starts_with(way))
        {
            return refuse(&format!(
                "expected an adapter of the base as it is published, got init_lora_weights {init}"
            ));
        }
        match self.bias.as_deref() {
            None | Some("none") => Ok(()),
            Some(other) => refuse(&format!("expected bias none, got {other}")),
        }
    }

    /// What the product of this rank for a module is multiplied with.
    fn scale(&self, module: &str, rank: usize) -> f32 {
        let alpha = pattern(&self.alpha_pattern, module).unwrap_or(self.lora_alpha);
        alpha / if self.use_rslora { (rank as f32).sqrt() } else { rank as f32 }
    }

    /// Patterns are expressions in general; one that names no module here would change nothing in silence.
    fn check_patterns<'a>(&self, modules: impl Iterator<Item = &'a String> + Clone) -> Result<()> {
        let unused = self.alpha_pattern.keys().find(|pattern| !modules.clone().any(|module| is_named(module, pattern)));
        match unused {
            None => Ok(()),
            Some(pattern) => Err(Error::unsupported(format!(
                "reading adapter_config.json: expected alpha_pattern with ends of module names, got {pattern}"
            ))),
        }
    }
}

/// The value for a module, whose name ends with the pattern at a dot.
fn pattern<T: Copy>(patterns: &BTreeMap<String, T>, module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| is_named(module, pattern)).map(|(_, value)| *value)
}

fn is_named(module: &str, pattern: &str) -> bool {
    module.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// `checkpoint` with the adapter in `folder` merged into its weights.
///
/// # Errors
/// `io` when the folder has no adapter, `unsupported` for adapters that are not plain LoRA on linear layers, and
/// `invalid_format` when its matrices do not fit the weights.
pub fn merge_lora(mut checkpoint: Checkpoint, folder: &dyn Folder) -> Result<Checkpoint> {
    let config = optional(folder, "adapter_config.json")?.ok_or_else(|| {
        Error::new(ErrorKind::Io, format!("expected adapter_config.json in {}, got none", folder.name()))
    })?;
    let config: AdapterConfig = json("adapter_config.json", &config)?;
    config.check()?;
    let name = ["adapter_model.safetensors", "adapter_model.bin"]
        .into_iter()
        .find(|name| folder.names().iter().any(|n| n == name));
    let found = weight_files(folder, Some(name.unwrap_or("adapter_model.safetensors")))?;
    let files = open_all(folder, &found.names)?;
    let pairs = pairs(stored(&found, &files)?)?;
    config.check_patterns(pairs.keys())?;
    let files: Vec<&[u8]> = files.iter().map(|file: &Bytes| (**file).as_ref()).collect();
    let by_name: BTreeMap<String, usize> =
        checkpoint.head.tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
    let head_dim = checkpoint.plan(None)?.config().head_dim;
    for (module, pair) in &pairs {
        let Name::Known { gguf, role } = names::parse(&format!("{module}.weight"))? else { continue };
        let Some(&at) = by_name.get(&gguf) else { return Err(unmatched_module(module)) };
        if matches!(role, Role::Norm | Role::Embedding) {
            return Err(Error::unsupported(format!("merging the adapter: expected linear layers, got {module}")));
        }
        let rotary = (role == Role::Rotary).then_some(head_dim);
        let mut product = pair.product(module, rotary, &checkpoint.head.tensors[at], &files)?;
        product.scale = config.scale(module, product.rank);
        let base = std::mem::replace(&mut checkpoint.sources[at], Source::Constant(Vec::new()));
        checkpoint.sources[at] = Source::LowRank { base: Box::new(base), product };
    }
    let note = format!("{} weights have the adapter {} added", pairs.len(), folder.name());
    checkpoint.origin.notes.push(note);
    Ok(checkpoint)
}

fn unmatched_module(module: &str) -> Error {
    Error::invalid_format(format!("merging the adapter: expected weights of the model, got {module}"))
}

/// Both matrices of a module.
#[derive(Default)]
struct Pair {
    a: Option<Stored>,
    b: Option<Stored>,
}

/// Tensors by the name of the module that they belong to.
fn pairs(stored: Vec<Stored>) -> Result<BTreeMap<String, Pair>> {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for tensor in stored {
        let bare = tensor.name.strip_prefix("base_model.model.").unwrap_or(&tensor.name);
        let bare = bare.strip_suffix(".weight").unwrap_or(bare);
        let bare = bare.strip_suffix(".default").unwrap_or(bare);
        let (module, is_a) = match (bare.strip_suffix(".lora_A"), bare.strip_suffix(".lora_B")) {
            (Some(module), _) => (module.to_owned(), true),
            (_, Some(module)) => (module.to_owned(), false),
            _ => {
                return Err(Error::unsupported(format!(
                    "merging the adapter: expected lora_A and lora_B, got {}",
                    tensor.name
                )));
            }
        };
        let pair = pairs.entry(module).or_default();
        *(if is_a { &mut pair.a } else { &mut pair.b }) = Some(tensor);
    }
    Ok(pairs)
}

impl Pair {
    fn product(&self, module: &str, rotary: Option<usize>, info: &TensorInfo, files: &[&[u8]]) -> Result<LowRank> {
        let (Some(a), Some(b)) = (&self.a, &self.b) else {
            return Err(Error::invalid_format(format!(
                "merging the adapter: expected lora_A and lora_B of {module}, got one"
            )));
        };
        let (n_out, n_in) = row_shape(&info.shape);
        let rank = match (a.shape.as_slice(), b.shape.as_slice()) {
            (&[rank, a_in], &[b_out, b_rank])
                if a_in == n_in && b_out == n_out && rank == b_rank && (1..=MAX_RANK).contains(&rank) =>
            {
                rank
            }
            (a, b) => {
                let wanted = format!("lora_A [rank, {n_in}] and lora_B [{n_out}, rank] with a rank up to {MAX_RANK}");
                return Err(Error::invalid_format(format!(
                    "merging the adapter: expected {module} with {wanted}, got {a:?} and {b:?}"
                )));
            }
        };
        let (a, published) = (floats(a, files)?, floats(b, files)?);
        let mut b = vec![0.0; published.len()];
        for (row, values) in published.chunks_exact(rank).enumerate() {
            b[gguf_row(row, rotary) * rank..][..rank].copy_from_slice(values);
        }
        Ok(LowRank { a, b, rank, scale: 1.0 })
    }
}

fn floats(stored: &Stored, files: &[&[u8]]) -> Result<Vec<f32>> {
    if stored.column_major {
        return Err(Error::unsupported(format!(
            "merging the adapter: expected {} row after row, got columns",
            stored.name
        )));
    }
    let mut values = vec![0.0; stored.shape.iter().product()];
    quantize::dequantize(stored.dtype()?, &stored.bytes(files)?, &mut values)?;
    Ok(values)
}
