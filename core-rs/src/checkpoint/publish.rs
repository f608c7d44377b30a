//! The files beside the weights of a Hugging Face folder: those that a checkpoint came with, or, for a GGUF file, what
//! its metadata says in their words.

use serde_json::{Map, Value, json};

use super::Checkpoint;
use super::vocab;
use crate::error::{Error, Result};
use crate::formats::gguf::{Gguf, Metadata};
use crate::load::vocab::EOS_IDS;
use crate::model::Yarn;

/// Files of a folder that a copy with other weights needs too.
pub(super) const COMPANIONS: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "LICENSE",
];

impl Checkpoint {
    /// Names and contents of the files beside the weights.
    ///
    /// # Errors
    /// `unsupported` for a GGUF file that says what those files cannot.
    pub fn publication(&self) -> Result<Vec<(String, Vec<u8>)>> {
        if !self.companions.is_empty() {
            // Only Paddle's programs look for the vocabulary under its older name.
            let renamed = |(name, bytes): &(String, Vec<u8>)| {
                let name = if name == "sentencepiece.bpe.model" { "tokenizer.model" } else { name };
                (name.to_owned(), bytes.clone())
            };
            return Ok(self.companions.iter().map(renamed).collect());
        }
        let mut files = vec![("config.json".to_owned(), pretty(config(&self.head)?))];
        if let Some(generation) = generation(&self.head)? {
            files.push(("generation_config.json".to_owned(), pretty(generation)));
        }
        files.extend(vocab::publish(&self.head.metadata)?);
        Ok(files)
    }
}

fn pretty(value: Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// `config.json` from the keys of `llama.*`.
fn config(head: &Gguf) -> Result<Value> {
    if head.tensor("rope_freqs.weight").is_some() {
        return Err(Error::unsupported("writing config.json: expected rope scaling by name, got a tensor of factors"));
    }
    let metadata = &head.metadata;
    let number = |key: &str| metadata.u32(&format!("llama.{key}"));
    let float = |key: &str| metadata.f32(&format!("llama.{key}"));
    let n_head = number("attention.head_count")?;
    let embedding = head.tensor("token_embd.weight").and_then(|info| info.shape.first());
    let id = |name: &str| metadata.u32(&format!("tokenizer.ggml.{name}_token_id"));
    let (scaling, context) = scaling(head)?;
    let entries = [
        ("_name_or_path", json!(metadata.str("general.name")?)),
        ("architectures", json!(["LlamaForCausalLM"])),
        ("model_type", json!("llama")),
        ("hidden_act", json!("silu")),
        ("hidden_size", json!(number("embedding_length")?)),
        ("intermediate_size", json!(number("feed_forward_length")?)),
        ("num_hidden_layers", json!(number("block_count")?)),
        ("num_attention_heads", json!(n_head)),
        ("num_key_value_heads", json!(number("attention.head_count_kv")?.or(n_head))),
        ("head_dim", json!(number("attention.key_length")?)),
        ("vocab_size", json!(embedding)),
        ("max_position_embeddings", json!(context)),
        ("sliding_window", json!(number("attention.sliding_window")?)),
        ("rms_norm_eps", json!(float("attention.layer_norm_rms_epsilon")?)),
        ("rope_theta", json!(float("rope.freq_base")?.unwrap_or(10_000.0))),
        ("rope_scaling", scaling),
        ("tie_word_embeddings", json!(head.tensor("output.weight").is_none())),
        ("bos_token_id", json!(id("bos")?)),
        ("eos_token_id", ends(metadata, id("eos")?)?),
    ];
    let entries = entries.into_iter().filter(|(key, value)| !value.is_null() || *key == "rope_scaling");
    Ok(Value::Object(entries.map(|(key, value)| (key.to_owned(), value)).collect()))
}

/// The end of text: one id, or a list where a model has several.
fn ends(metadata: &Metadata, eos: Option<u32>) -> Result<Value> {
    let others = metadata.i32_array(EOS_IDS)?.unwrap_or_default();
    let mut all: Vec<i64> = eos.map(i64::from).into_iter().chain(others.iter().copied().map(i64::from)).collect();
    all.sort_unstable();
    all.dedup();
    Ok(if all.len() > 1 { json!(all) } else { json!(eos) })
}

/// `rope_scaling`, and the context that belongs to it: linear and dynamic stretching count from the trained one.
fn scaling(head: &Gguf) -> Result<(Value, Option<u32>)> {
    let metadata = &head.metadata;
    let context = metadata.u32("llama.context_length")?;
    let Some(kind) = metadata.str("llama.rope.scaling.type")?.filter(|kind| *kind != "none") else {
        return Ok((Value::Null, context));
    };
    let mut entries = Map::new();
    entries.insert("rope_type".into(), kind.into());
    let floats = [("factor", "factor"), ("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")];
    for (word, key) in floats {
        if let Some(value) = metadata.f32(&format!("llama.rope.scaling.{key}"))? {
            entries.insert(word.into(), json!(value));
        }
    }
    let relative = metadata.f32("llama.rope.scaling.attn_factor")?;
    if let (Some(relative), Some(factor)) = (relative, metadata.f32("llama.rope.scaling.factor")?) {
        entries.insert("attention_factor".into(), json!(relative * Yarn::magnitude(factor, 1.0)));
    }
    if let Some(original) = metadata.u32("llama.rope.scaling.original_context_length")? {
        entries.insert("original_max_position_embeddings".into(), original.into());
    }
    let factor = metadata.f32("llama.rope.scaling.factor")?.filter(|factor| *factor >= 1.0).unwrap_or(1.0);
    let trained = context.map(|context| match kind {
        "linear" | "dynamic" => (f64::from(context) / f64::from(factor)).round() as u32,
        _ => context,
    });
    Ok((Value::Object(entries), trained))
}

/// `generation_config.json`, if anything is known of it.
fn generation(head: &Gguf) -> Result<Option<Value>> {
    let metadata = &head.metadata;
    let float = |key: &str| metadata.f32(&format!("general.sampling.{key}"));
    let entries = [
        // transformers has no temperature 0: it is greedy when it does not sample.
        ("temperature", json!(float("temp")?.filter(|&t| t != 0.0))),
        ("do_sample", if float("temp")? == Some(0.0) { json!(false) } else { Value::Null }),
        ("eos_token_id", ends(metadata, metadata.u32("tokenizer.ggml.eos_token_id")?)?),
        ("top_p", json!(float("top_p")?)),
        ("min_p", json!(float("min_p")?)),
        ("repetition_penalty", json!(float("penalty_repeat")?)),
        ("top_k", json!(metadata.u32("general.sampling.top_k").ok().flatten())),
        ("max_length", json!(metadata.u32("llamero.max_length")?)),
    ];
    let known: Map<_, _> = entries.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.to_owned(), v)).collect();
    Ok((!known.is_empty()).then_some(Value::Object(known)))
}
