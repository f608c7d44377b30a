//! What a checkpoint is and what it asks of a machine, for people and programs, without loading it.
//!
//! Absent: the machine itself (its memory is handed in), chat templates (the TypeScript side chooses and renders them).

mod memory;

use std::collections::BTreeMap;

use serde::Serialize;

pub use self::memory::{Machine, Memory, Need, check, need};

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::formats::gguf::TensorInfo;
use crate::load::ModelInfo;

/// A description of a checkpoint.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How weights are stored: `gguf`, `safetensors`, `pytorch` or `paddle`.
    pub format: &'static str,
    /// The files of weights.
    pub files: Vec<File>,
    /// Which way round linear weights lie, and how that was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// Which release of a known family this is, as far as sizes and names tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// What loading it would say.
    pub model: ModelInfo,
    /// Sizes of the model.
    pub shape: Shape,
    /// How positions are stretched, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<String>,
    /// Weights by what they are for.
    pub groups: Vec<Group>,
    /// What the vocabulary was read from.
    pub vocabulary: &'static str,
    /// Memory that it takes, and whether this machine has it.
    pub memory: Memory,
    /// What else was noticed.
    pub notes: Vec<String>,
}

/// A file of weights.
#[derive(Debug, Serialize)]
pub struct File {
    /// Its name in the folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// Sizes of a model, by GGUF's names.
#[derive(Debug, Serialize)]
pub struct Shape {
    /// Layers.
    pub block_count: usize,
    /// Width of the residual stream.
    pub embedding_length: usize,
    /// Width of the feed-forward layers.
    pub feed_forward_length: usize,
    /// Query heads.
    pub head_count: usize,
    /// Key and value heads.
    pub head_count_kv: usize,
}

/// Weights for one purpose that are stored one way.
#[derive(Debug, PartialEq, Serialize)]
pub struct Group {
    /// `embedding`, `attention`, `feed-forward`, `norms`, `output` or `other`.
    pub name: &'static str,
    /// How they are stored.
    #[serde(rename = "type")]
    pub dtype: &'static str,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Describes `checkpoint` for a machine.
///
/// # Errors
/// As [`Checkpoint::plan`].
pub fn report(checkpoint: &Checkpoint, context_length: Option<usize>, machine: Machine) -> Result<Report> {
    let plan = checkpoint.plan(context_length)?;
    let (config, origin, info) = (plan.config(), checkpoint.origin(), plan.info().clone());
    let metadata = &checkpoint.head().metadata;
    let trained = checkpoint.plan(None)?.config().n_ctx;
    let scaling = metadata.str("llama.rope.scaling.type")?.filter(|kind| *kind != "none");
    let factor = metadata.f32("llama.rope.scaling.factor")?;
    let stretched = checkpoint.head().tensor("rope_freqs.weight").map(|_| "llama3".to_owned());
    let mut notes = origin.notes.clone();
    if origin.ignored > 0 {
        notes.push(format!("{} tensors that are not needed for text are left out", origin.ignored));
    }
    notes.extend(origin.not_portable.iter().map(|reason| format!("cannot be converted to GGUF: {reason}")));
    Ok(Report {
        format: origin.format.name(),
        files: origin.files.iter().map(|(name, bytes)| File { name: name.clone(), bytes: *bytes }).collect(),
        layout: origin.layout.clone(),
        release: release(&info.name, info.vocab_size, trained),
        shape: Shape {
            block_count: config.n_layer,
            embedding_length: config.n_embd,
            feed_forward_length: config.n_ff,
            head_count: config.n_head,
            head_count_kv: config.n_head_kv,
        },
        rope_scaling: scaling
            .map(|kind| factor.map_or(kind.to_owned(), |factor| format!("{kind} × {factor}")))
            .or(stretched),
        groups: groups(&checkpoint.head().tensors),
        vocabulary: origin.vocabulary,
        memory: memory::memory(checkpoint, config, machine),
        model: info,
        notes,
    })
}

/// Weights by purpose and type, in the order of the forward pass.
fn groups(tensors: &[TensorInfo]) -> Vec<Group> {
    let mut groups: BTreeMap<(usize, &'static str), Group> = BTreeMap::new();
    for info in tensors {
        let (order, name) = purpose(&info.name);
        let dtype = info.dtype.name();
        let group = groups.entry((order, dtype)).or_insert(Group { name, dtype, tensors: 0, parameters: 0, bytes: 0 });
        group.tensors += 1;
        group.parameters += info.shape.iter().product::<usize>() as u64;
        group.bytes += info.len as u64;
    }
    groups.into_values().collect()
}

fn purpose(name: &str) -> (usize, &'static str) {
    const PURPOSES: [(&str, &str); 5] = [
        ("token_embd.", "embedding"),
        (".attn_", "attention"),
        (".ffn_", "feed-forward"),
        ("_norm.", "norms"),
        ("output.", "output"),
    ];
    // Norms are named after what they stand in front of.
    let at = if name.contains("_norm.") { Some(3) } else { PURPOSES.iter().position(|(part, _)| name.contains(part)) };
    at.map_or((PURPOSES.len(), "other"), |at| (at, PURPOSES[at].1))
}

/// Which Vicuna it is. The versions differ in base model, prompt and length, and mixing them up spoils every answer:
/// v0 has rows for added tokens, v1.1 and v1.3 are Llama 1 (2,048 tokens), v1.5 is Llama 2. A version in the name wins.
fn release(name: &str, vocab_size: usize, context_length: usize) -> Option<String> {
    let name = name.to_ascii_lowercase();
    if !name.contains("vicuna") {
        return None;
    }
    let named = ["v1.5-16k", "v1.5", "v1.3", "v1.1"].into_iter().find(|version| name.contains(version));
    let version = named.unwrap_or(match (vocab_size, context_length) {
        (vocabulary, _) if vocabulary > 32_000 => "v0: weights of the `###` prompt, as its vocabulary is above 32,000",
        (_, 0..=2048) => "v1.1 or v1.3, by its 2,048 tokens",
        (_, 2049..=4096) => "v1.5, by its 4,096 tokens",
        _ => "v1.5-16k, by its stretched positions",
    });
    Some(format!("Vicuna {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::gguf::GgmlType;

    fn info(name: &str, dtype: GgmlType) -> TensorInfo {
        TensorInfo { name: name.into(), dtype, shape: vec![2, 32], offset: 0, len: 64 }
    }

    #[test]
    fn versions_of_vicuna_are_told_apart() {
        for (name, vocabulary, context, version) in [
            ("vicuna-7b-v1.5", 32_000, 2048, "Vicuna v1.5"),
            ("llava-Vicuna-7b-v1.5", 32_064, 4096, "Vicuna v1.5"),
            ("vicuna-7b-delta-v0", 32_001, 2048, "Vicuna v0: weights"),
            ("vicuna-7b", 32_000, 2048, "Vicuna v1.1 or v1.3"),
            ("vicuna-13b", 32_000, 16_384, "Vicuna v1.5-16k"),
        ] {
            let found = release(name, vocabulary, context).unwrap();
            assert!(found.starts_with(version), "{name}: {found}");
        }
        assert_eq!(release("llama-2-7b", 32_000, 4096), None);
    }

    #[test]
    fn tensors_are_grouped_by_purpose_and_type() {
        let tensors = [
            info("token_embd.weight", GgmlType::F16),
            info("blk.0.attn_norm.weight", GgmlType::F32),
            info("blk.0.attn_q.weight", GgmlType::F16),
            info("blk.0.ffn_down.weight", GgmlType::Q6K),
            info("blk.1.ffn_down.weight", GgmlType::Q4K),
            info("blk.2.ffn_down.weight", GgmlType::Q4K),
            info("output_norm.weight", GgmlType::F32),
            info("output.weight", GgmlType::F16),
            info("rope_freqs.weight", GgmlType::F32),
        ];
        let seen: Vec<_> = groups(&tensors).iter().map(|g| (g.name, g.dtype, g.tensors, g.parameters)).collect();
        assert_eq!(
            seen,
            [
                ("embedding", "f16", 1, 64),
                ("attention", "f16", 1, 64),
                ("feed-forward", "q4_k", 2, 128),
                ("feed-forward", "q6_k", 1, 64),
                ("norms", "f32", 2, 128),
                ("output", "f16", 1, 64),
                ("other", "f32", 1, 64),
            ]
        );
    }
}
