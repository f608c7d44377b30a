//! The names that publishers give to the tensors of a Llama, and what GGUF calls them.
//!
//! Hugging Face writes `model.layers.0.self_attn.q_proj.weight`, PaddleNLP `llama.layers.0.self_attn.q_proj.weight`, and
//! models that also see put one more word in front; behind the prefix all are the same. Absent: shapes.

use crate::error::{Error, Result};

/// What a tensor is for, as far as its layout depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A weight of a linear layer.
    Linear,
    /// A linear weight whose rows are rotated by position: queries and keys.
    Rotary,
    /// The token embedding, `[vocabulary, width]` everywhere.
    Embedding,
    /// The separate output, a linear weight that is never square.
    Output,
    /// The weight of a norm.
    Norm,
}

/// What a publisher's name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// A tensor of the language model.
    Known {
        /// Its name in GGUF files.
        gguf: String,
        /// What it is for.
        role: Role,
    },
    /// A tensor that text needs not, such as the weights of an eye or a table that is computed anew.
    Ignored,
}

/// Parts of a layer: the publisher's word, GGUF's, the role.
const LAYER: [(&str, &str, Role); 9] = [
    ("self_attn.q_proj", "attn_q", Role::Rotary),
    ("self_attn.k_proj", "attn_k", Role::Rotary),
    ("self_attn.v_proj", "attn_v", Role::Linear),
    ("self_attn.o_proj", "attn_output", Role::Linear),
    ("mlp.gate_proj", "ffn_gate", Role::Linear),
    ("mlp.up_proj", "ffn_up", Role::Linear),
    ("mlp.down_proj", "ffn_down", Role::Linear),
    ("input_layernorm", "attn_norm", Role::Norm),
    ("post_attention_layernorm", "ffn_norm", Role::Norm),
];

/// Tensors that a model has once.
const GLOBAL: [(&str, &str, Role); 3] = [
    ("embed_tokens", "token_embd", Role::Embedding),
    ("norm", "output_norm", Role::Norm),
    ("lm_head", "output", Role::Output),
];

/// What may stand in front, longest first where one begins another.
const PREFIXES: [&str; 7] =
    ["model.language_model.", "language_model.model.", "language_model.", "llama.", "mistral.", "model.", ""];

/// Beginnings (behind a prefix) of what belongs to other senses than text.
const OTHER_SENSES: [&str; 6] =
    ["vision_tower.", "vision_model.", "mm_projector.", "multi_modal_projector.", "mm_vision_tower.", "image_newline"];

/// Ends of tables that old checkpoints carry and every engine computes itself.
const TABLES: [&str; 3] = ["rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached"];

/// What `name` stands for.
///
/// # Errors
/// `unsupported` for a name that no Llama has: leaving a weight out in silence would answer nonsense.
pub(super) fn parse(name: &str) -> Result<Name> {
    if TABLES.iter().any(|table| name.ends_with(table)) {
        return Ok(Name::Ignored);
    }
    let prefix = PREFIXES.iter().find(|prefix| name.starts_with(**prefix)).map_or(0, |prefix| prefix.len());
    let bare = &name[prefix..];
    if OTHER_SENSES.iter().any(|sense| bare.starts_with(sense)) {
        return Ok(Name::Ignored);
    }
    let known = bare.strip_suffix(".weight").and_then(|bare| match bare.strip_prefix("layers.") {
        Some(in_layer) => {
            let (layer, part) = in_layer.split_once('.')?;
            let layer: usize = layer.parse().ok()?;
            find(&LAYER, part).map(|(gguf, role)| Name::Known { gguf: format!("blk.{layer}.{gguf}.weight"), role })
        }
        None => find(&GLOBAL, bare).map(|(gguf, role)| Name::Known { gguf: format!("{gguf}.weight"), role }),
    });
    known.ok_or_else(|| Error::unsupported(format!("expected names of a Llama's tensors, got {name}")))
}

/// The name in Hugging Face's spelling of the tensor that GGUF calls `gguf`, and its role; none for tensors that only
/// GGUF files have.
pub(super) fn to_hugging_face(gguf: &str) -> Option<(String, Role)> {
    let bare = gguf.strip_suffix(".weight")?;
    let by_gguf = |table: &[(&str, &str, Role)], word: &str| {
        table.iter().find(|entry| entry.1 == word).map(|e| (e.0.to_owned(), e.2))
    };
    match bare.strip_prefix("blk.") {
        Some(in_layer) => {
            let (layer, part) = in_layer.split_once('.')?;
            by_gguf(&LAYER, part).map(|(word, role)| (format!("model.layers.{layer}.{word}.weight"), role))
        }
        None => by_gguf(&GLOBAL, bare).map(|(word, role)| {
            let prefix = if role == Role::Output { "" } else { "model." };
            (format!("{prefix}{word}.weight"), role)
        }),
    }
}

fn find<'a>(table: &[(&str, &'a str, Role)], word: &str) -> Option<(&'a str, Role)> {
    table.iter().find(|entry| entry.0 == word).map(|&(_, gguf, role)| (gguf, role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_mean_the_same() {
        let q = || Name::Known { gguf: "blk.7.attn_q.weight".into(), role: Role::Rotary };
        for prefix in ["model.", "llama.", "language_model.model.", "model.language_model.", ""] {
            assert_eq!(parse(&format!("{prefix}layers.7.self_attn.q_proj.weight")), Ok(q()), "{prefix}");
        }
        for name in ["lm_head.weight", "language_model.lm_head.weight"] {
            assert_eq!(parse(name), Ok(Name::Known { gguf: "output.weight".into(), role: Role::Output }));
        }
    }

    #[test]
    fn what_text_needs_not_is_left_out_and_strangers_are_refused() {
        for name in
            ["model.layers.0.self_attn.rotary_emb.inv_freq", "llama.vision_tower.x.weight", "model.mm_projector.0.bias"]
        {
            assert_eq!(parse(name), Ok(Name::Ignored), "{name}");
        }
        for name in ["model.layers.0.self_attn.q_proj.bias", "model.layers.x.mlp.up_proj.weight", "h.0.attn.weight", ""]
        {
            assert!(parse(name).is_err_and(|e| e.to_string().ends_with(&format!("got {name}"))), "{name}");
        }
    }

    #[test]
    fn names_go_both_ways() {
        for (word, gguf, role) in LAYER {
            let name = format!("model.layers.11.{word}.weight");
            assert_eq!(to_hugging_face(&format!("blk.11.{gguf}.weight")), Some((name.clone(), role)));
            assert_eq!(parse(&name), Ok(Name::Known { gguf: format!("blk.11.{gguf}.weight"), role }));
        }
        assert_eq!(to_hugging_face("output.weight"), Some(("lm_head.weight".into(), Role::Output)));
        assert_eq!(to_hugging_face("token_embd.weight"), Some(("model.embed_tokens.weight".into(), Role::Embedding)));
        assert_eq!(to_hugging_face("rope_freqs.weight"), None);
    }
}
