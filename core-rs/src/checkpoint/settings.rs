//! `config.json` and `generation_config.json` as GGUF metadata: the same keys that llama.cpp's converter writes, so that
//! everything behind has one kind of configuration.
//!
//! Absent: the vocabulary (see `vocab`), tensors, and whether the numbers fit together (`load` checks that).

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::layout::Sizes;
use crate::error::{Error, Result};
use crate::formats::metadata::{Metadata, Value};
use crate::model::Yarn;

/// Longest JSON file in bytes; published ones have a few kilobytes.
const MAX_JSON: usize = 1 << 20;
/// Families whose arithmetic is exactly Llama's.
const MODEL_TYPES: [&str; 4] = ["llama", "mistral", "llava", "llava_llama"];

/// What transformers takes for sizes that a config leaves out.
const LLAMA_7B: [(&str, usize); 4] =
    [("hidden_size", 4096), ("intermediate_size", 11008), ("num_hidden_layers", 32), ("num_attention_heads", 32)];
/// Sizes from here on are those of no model.
const MAX_SIZE: usize = 1 << 24;

/// What `config.json` says of a Llama.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    config: Config,
    rope: Rope,
}

#[derive(Debug, Clone, Deserialize)]
struct Config {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
    #[serde(rename = "_name_or_path")]
    name: Option<String>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    max_sequence_length: Option<usize>,
    seq_length: Option<usize>,
    rms_norm_eps: Option<f32>,
    rope_theta: Option<f32>,
    rope_scaling: Option<Rope>,
    /// Where newer files keep theta and scaling together.
    rope_parameters: Option<Rope>,
    sliding_window: Option<usize>,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    quantization_config: Option<serde_json::Value>,
    num_local_experts: Option<usize>,
}

/// How positions turn; the names are Hugging Face's.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Rope {
    rope_type: Option<String>,
    /// The older word for `rope_type`; newer files have both.
    #[serde(rename = "type")]
    older_type: Option<String>,
    rope_theta: Option<f32>,
    pub factor: Option<f32>,
    pub original_max_position_embeddings: Option<usize>,
    attention_factor: Option<f32>,
    beta_fast: Option<f32>,
    beta_slow: Option<f32>,
    mscale: Option<f32>,
    mscale_all_dim: Option<f32>,
    truncate: Option<bool>,
    pub low_freq_factor: Option<f32>,
    pub high_freq_factor: Option<f32>,
}

impl Rope {
    /// YaRN's factor on queries and keys, relative to what follows from `factor`, as GGUF has it.
    fn attn_factor(&self, factor: f32) -> Option<f32> {
        let (whole, of_dims) = (self.mscale, self.mscale_all_dim);
        let absolute = self.attention_factor.or_else(|| {
            let (whole, of_dims) = (whole.filter(|&m| m != 0.0)?, of_dims.filter(|&m| m != 0.0)?);
            Some(Yarn::magnitude(factor, whole) / Yarn::magnitude(factor, of_dims))
        })?;
        Some(absolute / Yarn::magnitude(factor, 1.0))
    }

    fn kind(&self) -> &str {
        self.rope_type.as_deref().or(self.older_type.as_deref()).unwrap_or("default")
    }
}

/// What every file of JSON here goes through.
pub(super) fn json<T: DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T> {
    if bytes.len() > MAX_JSON {
        return Err(Error::invalid_format(format!(
            "reading {file}: expected at most {MAX_JSON} bytes, got {}",
            bytes.len()
        )));
    }
    serde_json::from_slice(bytes)
        .map_err(|e| Error::invalid_format(format!("reading {file}: expected its JSON, got {e}")))
}

impl Settings {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// `invalid_format` for JSON without the numbers of a Llama, `unsupported` for another family or for weights and
    /// layers that are not implemented.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let mut whole: serde_json::Value = json("config.json", bytes)?;
        // The language model inside one that also sees, whose sizes are only written where they are not Llama's.
        if whole.get("hidden_size").is_none()
            && let Some(serde_json::Value::Object(text)) = whole.get_mut("text_config").map(serde_json::Value::take)
        {
            let mut inner: serde_json::Map<_, _> =
                LLAMA_7B.iter().map(|&(key, size)| (key.to_owned(), size.into())).collect();
            inner.extend(text);
            whole = serde_json::Value::Object(inner);
        }
        let config: Config = serde_json::from_value(whole).map_err(|e| {
            Error::invalid_format(format!("reading config.json: expected the sizes of a Llama, got {e}"))
        })?;
        check(&config)?;
        let rope = config.rope_scaling.clone().or_else(|| config.rope_parameters.clone()).unwrap_or_default();
        Ok(Self { config, rope })
    }

    /// The name that the config was published under, without its owner.
    pub fn name(&self) -> Option<&str> {
        let name = self.config.name.as_deref()?.trim_end_matches('/');
        name.rsplit('/').next().filter(|name| !name.is_empty())
    }

    /// Sizes that linear weights have.
    pub fn sizes(&self) -> Sizes {
        let Config { hidden_size, intermediate_size, num_attention_heads, .. } = self.config;
        Sizes {
            n_embd: hidden_size,
            n_ff: intermediate_size,
            n_embd_q: self.head_dim().saturating_mul(num_attention_heads),
            n_embd_kv: self.head_dim().saturating_mul(self.n_head_kv()),
        }
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        let config = &self.config;
        config.head_dim.unwrap_or_else(|| config.hidden_size.checked_div(config.num_attention_heads).unwrap_or(0))
    }

    fn n_head_kv(&self) -> usize {
        self.config.num_key_value_heads.unwrap_or(self.config.num_attention_heads)
    }

    /// Whether the output is the embedding again, so that a second copy in the file does not count.
    pub fn is_tied(&self) -> bool {
        self.config.tie_word_embeddings.unwrap_or(false)
    }

    /// The rotation's base.
    pub fn rope_theta(&self) -> f32 {
        let of = |rope: &Option<Rope>| rope.as_ref().and_then(|rope| rope.rope_theta);
        self.config.rope_theta.or_else(|| of(&self.config.rope_parameters)).unwrap_or(10_000.0)
    }

    /// Llama 3's stretching, which GGUF keeps as a tensor of factors.
    pub fn llama3(&self) -> Option<&Rope> {
        (self.rope.kind() == "llama3").then_some(&self.rope)
    }

    /// Most tokens: linear and dynamic stretching multiply what the model was first trained with, as FastChat and
    /// Vicuna's 16k files mean it; the others have done so in the file already.
    fn context_length(&self) -> usize {
        let config = &self.config;
        let trained =
            config.max_position_embeddings.or(config.max_sequence_length).or(config.seq_length).unwrap_or(2048);
        match (self.rope.kind(), self.rope.factor) {
            ("linear" | "dynamic", Some(factor)) if factor >= 1.0 => (trained as f64 * f64::from(factor)) as usize,
            _ => trained,
        }
    }

    /// Adds the keys of `llama.*` to `metadata`.
    ///
    /// # Errors
    /// `unsupported` for a stretching of positions that is not implemented.
    pub fn write(&self, metadata: &mut Metadata) -> Result<()> {
        let config = &self.config;
        let mut put = |key: &str, value: Value| metadata.insert(format!("llama.{key}"), value);
        let sizes = [
            ("context_length", self.context_length()),
            ("embedding_length", config.hidden_size),
            ("block_count", config.num_hidden_layers),
            ("feed_forward_length", config.intermediate_size),
            ("attention.head_count", config.num_attention_heads),
            ("attention.head_count_kv", self.n_head_kv()),
            ("attention.key_length", self.head_dim()),
            ("attention.value_length", self.head_dim()),
            ("rope.dimension_count", self.head_dim()),
        ];
        for (key, size) in sizes {
            put(key, Value::U32(to_u32(key, size)?))?;
        }
        if let Some(window) = config.sliding_window {
            put("attention.sliding_window", Value::U32(to_u32("sliding_window", window)?))?;
        }
        put("attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps.unwrap_or(1e-6)))?;
        put("rope.freq_base", Value::F32(self.rope_theta()))?;
        self.write_scaling(&mut put)
    }

    fn write_scaling(&self, put: &mut dyn FnMut(&str, Value) -> Result<()>) -> Result<()> {
        let rope = &self.rope;
        let kind = match rope.kind() {
            // Llama 3's is a tensor of factors instead.
            "default" | "none" | "llama3" => return Ok(()),
            kind @ ("linear" | "dynamic" | "yarn") => kind,
            other => {
                return Err(Error::unsupported(format!(
                    "reading config.json: expected rope scaling linear, dynamic, llama3 or yarn, got {other}"
                )));
            }
        };
        let factor = rope.factor.ok_or_else(|| {
            Error::invalid_format(format!("reading config.json: expected a factor of {kind} rope scaling, got none"))
        })?;
        if kind == "yarn" && rope.truncate == Some(false) {
            let message = "reading config.json: expected yarn with truncated bounds, got truncate false";
            return Err(Error::unsupported(message));
        }
        put("rope.scaling.type", Value::String(kind.into()))?;
        put("rope.scaling.factor", Value::F32(factor))?;
        let original = rope.original_max_position_embeddings.or(match kind {
            "linear" => None,
            _ => self.config.max_position_embeddings,
        });
        if let Some(original) = original {
            put(
                "rope.scaling.original_context_length",
                Value::U32(to_u32("original_max_position_embeddings", original)?),
            )?;
        }
        let numbers = [
            ("attn_factor", rope.attn_factor(factor).filter(|_| kind == "yarn")),
            ("yarn_beta_fast", rope.beta_fast),
            ("yarn_beta_slow", rope.beta_slow),
        ];
        for (key, number) in numbers {
            if let Some(number) = number {
                put(&format!("rope.scaling.{key}"), Value::F32(number))?;
            }
        }
        Ok(())
    }
}

fn to_u32(what: &str, n: usize) -> Result<u32> {
    u32::try_from(n)
        .map_err(|_| Error::invalid_format(format!("reading config.json: expected {what} below 2^32, got {n}")))
}

/// Refuses what the arithmetic behind does not have.
fn check(config: &Config) -> Result<()> {
    let refuse = |what: String| Err(Error::unsupported(format!("reading config.json: {what}")));
    let sizes = [
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads.unwrap_or(1),
        config.head_dim.unwrap_or(1),
    ];
    if let Some(size) = sizes.into_iter().find(|size| !(1..MAX_SIZE).contains(size)) {
        return Err(Error::invalid_format(format!(
            "reading config.json: expected sizes from 1 to {MAX_SIZE}, got {size}"
        )));
    }
    let family = config.model_type.as_deref().unwrap_or("llama");
    if !MODEL_TYPES.contains(&family) {
        let classes = config.architectures.as_deref().unwrap_or_default().join(", ");
        return refuse(format!(
            "expected model_type to be one of {}, got {family} ({classes})",
            MODEL_TYPES.join(", ")
        ));
    }
    if config.quantization_config.is_some() {
        return refuse("expected plain weights (f16, bf16 or f32), got a quantization_config".into());
    }
    if let Some(experts) = config.num_local_experts.filter(|&n| n > 1) {
        return refuse(format!("expected a dense model, got a mixture of {experts} experts"));
    }
    if config.attention_bias == Some(true) || config.mlp_bias == Some(true) {
        return refuse("expected linear layers without bias, got attention_bias or mlp_bias".into());
    }
    match config.hidden_act.as_deref() {
        None | Some("silu" | "swish") => Ok(()),
        Some(other) => refuse(format!("expected hidden_act silu, got {other}")),
    }
}

/// `generation_config.json`: how the publishers would sample. What is no number of its kind says nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Generation {
    values: serde_json::Map<String, serde_json::Value>,
}

impl Generation {
    /// Adds what the file says to `metadata`, under the keys that GGUF has for it.
    pub fn write(&self, metadata: &mut Metadata) -> Result<()> {
        let number = |key: &str| self.values.get(key).and_then(serde_json::Value::as_f64).map(|value| value as f32);
        let whole = |key: &str| self.values.get(key).and_then(serde_json::Value::as_u64);
        // Who asks not to sample asks for the best token, whatever temperature stands beside it.
        let is_greedy = self.values.get("do_sample").and_then(serde_json::Value::as_bool) == Some(false);
        let floats = [
            ("temp", if is_greedy { Some(0.0) } else { number("temperature") }),
            ("top_p", number("top_p")),
            ("min_p", number("min_p")),
            ("penalty_repeat", number("repetition_penalty")),
        ];
        for (key, value) in floats {
            if let Some(value) = value.filter(|v| v.is_finite()) {
                metadata.insert(format!("general.sampling.{key}"), Value::F32(value))?;
            }
        }
        if let Some(k) = whole("top_k").and_then(|k| i32::try_from(k).ok()) {
            metadata.insert("general.sampling.top_k".into(), Value::I32(k))?;
        }
        // Most tokens of prompt and reply together.
        if let Some(length) = whole("max_length").and_then(|length| u32::try_from(length).ok()) {
            metadata.insert("llamero.max_length".into(), Value::U32(length))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const VICUNA: &str = r#"{"_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-05,
        "rope_scaling": null, "tie_word_embeddings": false, "vocab_size": 32000}"#;

    /// `VICUNA` with other values.
    fn with(changes: &str) -> Result<Settings> {
        let mut config: serde_json::Map<String, serde_json::Value> = serde_json::from_str(VICUNA).unwrap();
        config.extend(serde_json::from_str::<serde_json::Map<_, _>>(changes).unwrap());
        Settings::read(&serde_json::to_vec(&config).unwrap())
    }

    fn metadata(settings: &Settings) -> Result<Metadata> {
        let mut metadata = Metadata::new();
        settings.write(&mut metadata).map(|()| metadata)
    }

    #[test]
    fn vicuna_has_the_keys_of_its_gguf_files() {
        let settings = Settings::read(VICUNA.as_bytes()).unwrap();
        assert_eq!(settings.name(), Some("vicuna-7b-v1.5"));
        let metadata = metadata(&settings).unwrap();
        for (key, expected) in [
            ("context_length", 4096),
            ("embedding_length", 4096),
            ("block_count", 32),
            ("feed_forward_length", 11008),
            ("attention.head_count_kv", 32),
            ("rope.dimension_count", 128),
        ] {
            assert_eq!(metadata.u32(&format!("llama.{key}")), Ok(Some(expected)), "{key}");
        }
        assert_eq!(metadata.f32("llama.rope.freq_base"), Ok(Some(10_000.0)));
        assert_eq!(metadata.str("llama.rope.scaling.type"), Ok(None));
    }

    #[test]
    fn stretched_contexts() {
        for (scaling, kind, context) in [
            (r#"{"rope_scaling": {"type": "linear", "factor": 4.0}}"#, Some("linear"), 16384),
            (r#"{"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}"#, Some("dynamic"), 8192),
            (
                r#"{"rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512}}"#,
                Some("yarn"),
                4096,
            ),
            (r#"{"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}"#, None, 4096),
            (
                r#"{"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 1024}}"#,
                None,
                4096,
            ),
        ] {
            let metadata = metadata(&with(scaling).unwrap()).unwrap();
            assert_eq!(metadata.str("llama.rope.scaling.type"), Ok(kind), "{scaling}");
            assert_eq!(metadata.u32("llama.context_length"), Ok(Some(context)), "{scaling}");
        }
        let newer = with(r#"{"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}"#).unwrap();
        assert_eq!(newer.rope_theta(), 500_000.0);
        assert!(metadata(&with(r#"{"rope_scaling": {"type": "longrope", "factor": 2.0}}"#).unwrap()).is_err());
        assert!(metadata(&with(r#"{"rope_scaling": {"type": "yarn"}}"#).unwrap()).is_err());
    }

    #[test]
    fn yarn_s_attention_factor_is_relative_in_gguf() {
        let yarn = |more: &str| format!(r#"{{"rope_scaling": {{"rope_type": "yarn", "factor": 16.0{more}}}}}"#);
        let factor = |more: &str| {
            let metadata = metadata(&with(&yarn(more)).unwrap()).unwrap();
            metadata.f32("llama.rope.scaling.attn_factor").unwrap()
        };
        assert_eq!(factor(""), None);
        let usual = 0.1 * 16f32.ln() + 1.0;
        assert!((factor(&format!(r#", "attention_factor": {usual}"#)).unwrap() - 1.0).abs() < 1e-6);
        assert!((factor(r#", "mscale": 1.0, "mscale_all_dim": 1.0"#).unwrap() - 1.0 / usual).abs() < 1e-6);
        assert!(metadata(&with(&yarn(r#", "truncate": false"#)).unwrap()).is_err());
    }

    #[test]
    fn other_families_are_refused_by_name() {
        for (change, word) in [
            (r#"{"model_type": "qwen3"}"#, "qwen3"),
            (r#"{"quantization_config": {"bits": 4}}"#, "quantization_config"),
            (r#"{"num_local_experts": 8}"#, "8 experts"),
            (r#"{"attention_bias": true}"#, "attention_bias"),
            (r#"{"hidden_act": "gelu"}"#, "gelu"),
        ] {
            let error = with(change).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(word), "{error}");
        }
        for bytes in ["", "[]", "{\"hidden_size\": \"x\"}", "{\"hidden_size\": 1}"] {
            assert_eq!(Settings::read(bytes.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidFormat);
        }
    }

    #[test]
    fn the_language_model_inside_one_that_sees() {
        let nested = format!(r#"{{"model_type": "llava", "text_config": {VICUNA}}}"#);
        assert_eq!(Settings::read(nested.as_bytes()).unwrap().head_dim(), 128);
    }

    #[test]
    fn odd_values_of_publishers_say_nothing() {
        let odd = br#"{"temperature": "hot", "top_k": -1, "max_length": 1e99, "do_sample": false}"#;
        let mut metadata = Metadata::new();
        json::<Generation>("generation_config.json", odd).unwrap().write(&mut metadata).unwrap();
        assert_eq!(metadata.iter().collect::<Vec<_>>(), [("general.sampling.temp", &Value::F32(0.0))]);
    }

    #[test]
    fn both_words_for_the_kind_of_stretching_may_stand_together() {
        let both = r#"{"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 4.0}}"#;
        assert_eq!(metadata(&with(both).unwrap()).unwrap().u32("llama.context_length"), Ok(Some(16384)));
    }

    #[test]
    fn sizes_beyond_any_model_are_refused_before_anything_is_made_of_them() {
        for change in [r#"{"head_dim": 1000000000000}"#, r#"{"num_attention_heads": 0}"#] {
            assert_eq!(with(change).unwrap_err().kind(), ErrorKind::InvalidFormat);
        }
    }

    #[test]
    fn publishers_sampling_is_kept() {
        let generation: Generation = json(
            "generation_config.json",
            br#"{"temperature": 0.9, "top_p": 0.6, "top_k": 40, "max_length": 4096, "eos_token_id": [1, 2]}"#,
        )
        .unwrap();
        let mut metadata = Metadata::new();
        generation.write(&mut metadata).unwrap();
        assert_eq!(metadata.f32("general.sampling.temp"), Ok(Some(0.9)));
        assert_eq!(metadata.f32("general.sampling.top_p"), Ok(Some(0.6)));
        assert_eq!(metadata.u32("general.sampling.top_k"), Ok(Some(40)));
        assert_eq!(metadata.u32("llamero.max_length"), Ok(Some(4096)));
    }
}
