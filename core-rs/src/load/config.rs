//! GGUF metadata keys of the Llama family to a model `Config`.

use crate::error::{Error, Result};
use crate::formats::gguf::{Gguf, Metadata};
use crate::model::{Config, RopeScaling};

/// Architectures whose tensors and arithmetic are exactly Llama's.
const ARCHITECTURES: [&str; 1] = ["llama"];

/// The configuration in a file's metadata, with the context cut to `context_length` if that is less.
///
/// # Errors
/// `unsupported` for another architecture or rope scaling, `invalid_format` for missing or impossible values.
pub fn from_metadata(file: &Gguf, context_length: Option<usize>) -> Result<Config> {
    let meta = &file.metadata;
    let architecture = meta.str("general.architecture")?.ok_or_else(|| Metadata::missing("general.architecture"))?;
    if !ARCHITECTURES.contains(&architecture) {
        let message =
            format!("architecture {architecture:?} is not implemented; known is {}", ARCHITECTURES.join(", "));
        return Err(Error::unsupported(message));
    }
    let key = |name: &str| format!("{architecture}.{name}");
    let optional = |name: &str| -> Result<Option<usize>> { Ok(meta.u32(&key(name))?.map(|n| n as usize)) };
    let required = |name: &str| optional(name)?.ok_or_else(|| Metadata::missing(&key(name)));
    let n_head = required("attention.head_count")?;
    let n_embd = required("embedding_length")?;
    let head_dim = match optional("attention.key_length")? {
        Some(dim) => dim,
        None => n_embd.checked_div(n_head).ok_or_else(|| Error::invalid_format("expected at least one head, got 0"))?,
    };
    if let Some(experts) = optional("expert_count")?.filter(|&n| n > 0) {
        return Err(Error::unsupported(format!("mixture of {experts} experts is not implemented, only dense models")));
    }
    let trained = required("context_length")?;
    let config = Config {
        n_layer: required("block_count")?,
        n_embd,
        n_ff: required("feed_forward_length")?,
        n_head,
        n_head_kv: optional("attention.head_count_kv")?.unwrap_or(n_head),
        head_dim,
        n_vocab: vocab_rows(file)?,
        n_ctx: context_length.map_or(trained, |wanted| wanted.min(trained)),
        rope_dim: optional("rope.dimension_count")?.unwrap_or(head_dim),
        rope_theta: meta.f32(&key("rope.freq_base"))?.unwrap_or(10_000.0),
        rope_scaling: scaling(file, &key)?,
        rms_eps: meta.f32(&key("attention.layer_norm_rms_epsilon"))?.unwrap_or(1e-5),
    };
    config.validate()?;
    Ok(config)
}

/// The vocabulary size is what the embedding has, since metadata may leave it out.
fn vocab_rows(file: &Gguf) -> Result<usize> {
    let name = "token_embd.weight";
    let tensor = file.tensor(name).ok_or_else(|| Error::invalid_format(format!("expected tensor {name}, got none")))?;
    Ok(tensor.shape.first().copied().unwrap_or(0))
}

fn scaling(file: &Gguf, key: &dyn Fn(&str) -> String) -> Result<RopeScaling> {
    let meta = &file.metadata;
    let factor = match meta.f32(&key("rope.scaling.factor"))? {
        Some(factor) => Some(factor),
        None => meta.f32(&key("rope.scale_linear"))?,
    };
    match (meta.str(&key("rope.scaling.type"))?, factor) {
        (Some("none"), _) | (None, None) | (Some("linear"), None) => Ok(RopeScaling::None),
        (Some("linear") | None, Some(factor)) => Ok(RopeScaling::Linear(factor)),
        (Some(other), _) => {
            Err(Error::unsupported(format!("rope scaling {other:?} is not implemented; known are none and linear")))
        }
    }
}
