//! GGUF metadata keys of the Llama family to a model `Config`.

use crate::error::{Error, Result};
use crate::formats::gguf::{Gguf, Metadata};
use crate::model::{Config, RopeScaling, Yarn};

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
        rope_scaling: scaling(meta, &key, trained)?,
        sliding_window: optional("attention.sliding_window")?.filter(|&n| n > 0),
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

/// The `rope.scaling.*` keys, as llama.cpp reads them; `trained` is the context length of the file. `dynamic` is a type
/// that llama.cpp does not have, with the keys of the others.
///
/// The `yarn_*` keys are read for every file here; llama.cpp reads them for some architectures.
fn scaling(meta: &Metadata, key: &dyn Fn(&str) -> String, trained: usize) -> Result<RopeScaling> {
    let number = |name: &str| meta.f32(&key(&format!("rope.scaling.{name}")));
    let factor = match number("factor")? {
        Some(factor) => Some(factor),
        None => meta.f32(&key("rope.scale_linear"))?,
    };
    let factor = factor.filter(|&factor| factor != 0.0).unwrap_or(1.0);
    let original = meta.u32(&key("rope.scaling.original_context_length"))?.filter(|&n| n > 0);
    let original_context_length = original.map_or(trained, |n| n as usize);
    let attn_factor = number("attn_factor")?.unwrap_or(1.0);
    let kind = meta.str(&key("rope.scaling.type"))?.unwrap_or("linear");
    if kind != "yarn" && attn_factor != 1.0 {
        let message = format!("rope scaling {kind:?} with an attn_factor of {attn_factor} is not implemented");
        return Err(Error::unsupported(message));
    }
    match kind {
        "none" => Ok(RopeScaling::None),
        "linear" if factor == 1.0 => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear(factor)),
        "dynamic" => Ok(RopeScaling::Dynamic { factor, original_context_length }),
        "yarn" => {
            let default = Yarn::new(factor, original_context_length);
            // A negative number means that it is not set.
            let ext_factor = number("yarn_ext_factor")?.filter(|&share| share >= 0.0).unwrap_or(default.ext_factor);
            let stated =
                if ext_factor == 0.0 { number("yarn_attn_factor")?.unwrap_or(1.0) } else { default.attention_factor };
            Ok(RopeScaling::Yarn(Yarn {
                ext_factor,
                attention_factor: stated * attn_factor,
                beta_fast: number("yarn_beta_fast")?.unwrap_or(default.beta_fast),
                beta_slow: number("yarn_beta_slow")?.unwrap_or(default.beta_slow),
                ..default
            }))
        }
        other => {
            let known = "none, linear, dynamic and yarn";
            Err(Error::unsupported(format!("rope scaling {other:?} is not implemented; known are {known}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::formats::gguf::Value;

    fn read(keys: &[(&str, Value)]) -> Result<RopeScaling> {
        let mut meta = Metadata::new();
        for (key, value) in keys {
            meta.insert(format!("llama.rope.{key}"), value.clone()).unwrap();
        }
        scaling(&meta, &|name| format!("llama.{name}"), 4096)
    }

    fn kind(name: &str) -> (&'static str, Value) {
        ("scaling.type", Value::String(name.into()))
    }

    const FACTOR: (&str, Value) = ("scaling.factor", Value::F32(4.0));
    const ORIGINAL: (&str, Value) = ("scaling.original_context_length", Value::U32(512));

    #[test]
    fn every_type_is_read_with_llama_cpps_defaults() {
        let yarn = Yarn::new(4.0, 512);
        let dynamic = |original_context_length| RopeScaling::Dynamic { factor: 4.0, original_context_length };
        for (keys, expected) in [
            (vec![], RopeScaling::None),
            (vec![kind("none"), FACTOR], RopeScaling::None),
            (vec![kind("linear")], RopeScaling::None),
            (vec![FACTOR], RopeScaling::Linear(4.0)),
            (vec![kind("linear"), FACTOR], RopeScaling::Linear(4.0)),
            (vec![("scale_linear", Value::F32(8.0))], RopeScaling::Linear(8.0)),
            (vec![("scaling.factor", Value::F32(0.0))], RopeScaling::None),
            (vec![kind("dynamic"), FACTOR, ORIGINAL], dynamic(512)),
            (vec![kind("dynamic"), FACTOR], dynamic(4096)),
            (vec![kind("yarn"), FACTOR, ORIGINAL], RopeScaling::Yarn(yarn)),
            (vec![kind("yarn")], RopeScaling::Yarn(Yarn::new(1.0, 4096))),
        ] {
            assert_eq!(read(&keys).unwrap(), expected, "{keys:?}");
        }
    }

    #[test]
    fn yarn_takes_its_own_keys() {
        let yarn = |keys: &[(&'static str, f32)]| {
            let own = keys.iter().map(|&(key, value)| (key, Value::F32(value)));
            match read(&[kind("yarn"), FACTOR, ORIGINAL].into_iter().chain(own).collect::<Vec<_>>()).unwrap() {
                RopeScaling::Yarn(yarn) => yarn,
                other => panic!("{other:?}"),
            }
        };
        let default = Yarn::new(4.0, 512);
        let betas = yarn(&[("scaling.yarn_beta_fast", 16.0), ("scaling.yarn_beta_slow", 2.0)]);
        assert_eq!(betas, Yarn { beta_fast: 16.0, beta_slow: 2.0, ..default });
        let doubled = Yarn { attention_factor: 2.0 * default.attention_factor, ..default };
        assert_eq!(yarn(&[("scaling.attn_factor", 2.0), ("scaling.yarn_attn_factor", 9.0)]), doubled);
        let unset = yarn(&[("scaling.yarn_ext_factor", -1.0)]);
        assert_eq!(unset, default);
        let linear = yarn(&[("scaling.yarn_ext_factor", 0.0), ("scaling.yarn_attn_factor", 1.5)]);
        assert_eq!(linear, Yarn { ext_factor: 0.0, attention_factor: 1.5, ..default });
    }

    #[test]
    fn what_is_not_implemented_is_named() {
        let attn_factor = ("scaling.attn_factor", Value::F32(1.5));
        for (keys, wanted) in [
            (
                vec![kind("longrope"), FACTOR],
                "\"longrope\" is not implemented; known are none, linear, dynamic and yarn",
            ),
            (vec![FACTOR, attn_factor], "\"linear\" with an attn_factor of 1.5"),
        ] {
            let error = read(&keys).unwrap_err();
            assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains(wanted), "{error}");
        }
        assert_eq!(
            read(&[kind("yarn"), ("scaling.factor", Value::Bool(true))]).unwrap_err().kind(),
            ErrorKind::InvalidFormat
        );
    }
}
