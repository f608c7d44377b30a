//! The `tokenizer.ggml.*` keys of a GGUF file as vocabulary data.
//!
//! Defaults are llama.cpp's where files rely on them. Absent: vocabulary kinds of other families (WordPiece, unigram).

use crate::error::{Error, Result};
use crate::formats::gguf::Metadata;
use crate::tokenizer::{PreTokenizer, TokenType, VocabKind, VocabSpec};

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
/// Ours: whether texts after special tokens get a space in front, as all do in llama.cpp.
pub const LEGACY: &str = "llamero.tokenizer.legacy";
/// Ours: all ids that end generation; GGUF's own keys hold one of each kind.
pub const EOS_IDS: &str = "llamero.tokenizer.eos_token_ids";

/// The vocabulary a file describes.
///
/// # Errors
/// `invalid_format` for keys that are missing or of a wrong type, `unsupported` for another kind of vocabulary. Whether
/// the parts fit together is for `Tokenizer::new` to say.
pub fn vocab_spec(metadata: &Metadata) -> Result<VocabSpec> {
    match metadata.str(MODEL)?.ok_or_else(|| Metadata::missing(MODEL))? {
        "llama" => sentencepiece(metadata),
        "gpt2" => byte_level(metadata),
        other => {
            Err(Error::unsupported(format!("reading metadata: expected {MODEL} to be llama or gpt2, got {other}")))
        }
    }
}

fn sentencepiece(metadata: &Metadata) -> Result<VocabSpec> {
    let mut spec = common(metadata, VocabKind::SentencePiece)?;
    spec.scores = metadata.f32_array("tokenizer.ggml.scores")?.unwrap_or_default().to_vec();
    // The ids of Llama 1 and 2, for files written before the keys existed.
    let default = |id: u32| Some(id).filter(|&id| (id as usize) < spec.pieces.len());
    (spec.bos, spec.eos, spec.unk) = (spec.bos.or(default(1)), spec.eos.or(default(2)), spec.unk.or(default(0)));
    spec.add_bos = metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(true);
    spec.add_space_prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    Ok(spec)
}

fn byte_level(metadata: &Metadata) -> Result<VocabSpec> {
    const MERGES: &str = "tokenizer.ggml.merges";
    let mut spec = common(metadata, VocabKind::ByteLevel)?;
    spec.merges = metadata.str_array(MERGES)?.ok_or_else(|| Metadata::missing(MERGES))?.to_vec();
    spec.pre = metadata.str("tokenizer.ggml.pre")?.unwrap_or_default().to_owned();
    // Llama 3 files begin texts with bos unless they say otherwise; others do so only if they say so.
    let is_llama3 = PreTokenizer::from_name(&spec.pre) == Ok(PreTokenizer::Llama3);
    spec.add_bos = metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(is_llama3);
    Ok(spec)
}

/// What both kinds share.
fn common(metadata: &Metadata, kind: VocabKind) -> Result<VocabSpec> {
    let pieces = metadata.str_array(TOKENS)?.ok_or_else(|| Metadata::missing(TOKENS))?.to_vec();
    let id = |name: &str| metadata.u32(&format!("tokenizer.ggml.{name}_token_id"));
    Ok(VocabSpec {
        kind,
        pieces,
        types: token_types(metadata)?,
        scores: Vec::new(),
        merges: Vec::new(),
        pre: String::new(),
        bos: id("bos")?,
        eos: id("eos")?,
        eot: id("eot")?,
        eom: id("eom")?,
        unk: id("unknown")?,
        add_bos: false,
        add_eos: metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
        add_space_prefix: false,
        legacy: metadata.bool(LEGACY)?.unwrap_or(true),
        ends: eos_ids(metadata)?,
    })
}

fn eos_ids(metadata: &Metadata) -> Result<Vec<u32>> {
    let ids = metadata.i32_array(EOS_IDS)?.unwrap_or_default();
    let read = |&id| {
        u32::try_from(id).map_err(|_| {
            Error::invalid_format(format!("reading metadata: expected {EOS_IDS} to be non-negative, got {id}"))
        })
    };
    ids.iter().map(read).collect()
}

fn token_types(metadata: &Metadata) -> Result<Vec<TokenType>> {
    let codes = metadata.i32_array(TYPES)?.unwrap_or_default();
    let read = |(id, &code)| {
        TokenType::from_code(code).ok_or_else(|| {
            Error::invalid_format(format!("reading metadata: expected {TYPES} from 0 to 6, got {code} for piece {id}"))
        })
    };
    codes.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::formats::gguf::{Array, Value};
    use crate::tokenizer::Tokenizer;

    fn strings(texts: &[&str]) -> Value {
        Value::Array(Array::String(texts.iter().map(|t| t.to_string()).collect()))
    }

    fn metadata(pairs: Vec<(&str, Value)>) -> Metadata {
        let mut metadata = Metadata::new();
        for (key, value) in pairs {
            metadata.insert(format!("tokenizer.ggml.{key}"), value).unwrap();
        }
        metadata
    }

    fn llama() -> Vec<(&'static str, Value)> {
        vec![
            ("model", Value::String("llama".into())),
            ("tokens", strings(&["<unk>", "<s>", "</s>", "▁", "a"])),
            ("scores", Value::Array(Array::F32(vec![0.0, 0.0, 0.0, -1.0, -2.0]))),
            ("token_type", Value::Array(Array::I32(vec![2, 3, 3, 1, 1]))),
        ]
    }

    fn gpt2() -> Vec<(&'static str, Value)> {
        vec![
            ("model", Value::String("gpt2".into())),
            ("tokens", strings(&["a", "b", "ab", "<|end|>"])),
            ("merges", strings(&["a b"])),
        ]
    }

    #[test]
    fn llama_defaults() {
        let spec = vocab_spec(&metadata(llama())).unwrap();
        assert_eq!((spec.kind, spec.bos, spec.eos, spec.unk), (VocabKind::SentencePiece, Some(1), Some(2), Some(0)));
        assert_eq!((spec.add_bos, spec.add_eos, spec.add_space_prefix), (true, false, true));
        assert_eq!(Tokenizer::new(spec).unwrap().encode(&["a"]), Ok(vec![1, 3, 4]));
    }

    /// What other readers overflowed at: a piece of a megabyte, an id below zero, an id just beyond the pieces.
    #[test]
    fn pieces_and_ids_beyond_all_bounds_are_refused() {
        let with = |key: &'static str, value: Value| {
            let mut pairs = llama();
            pairs.retain(|(there, _)| *there != key);
            pairs.push((key, value));
            vocab_spec(&metadata(pairs)).and_then(Tokenizer::new).expect_err(key).to_string()
        };
        let long = "x".repeat(1 << 20);
        let error = with("tokens", strings(&["<unk>", "<s>", "</s>", "▁", &long]));
        assert!(error.contains("1048576"), "{error}");
        assert!(with("bos_token_id", Value::I32(-1)).contains("got i32 -1"));
        assert!(with("eos_token_id", Value::U32(5)).contains("the eos id below 5, got 5"));
    }

    #[test]
    fn keys_override_defaults() {
        let keys = [("add_bos_token", false), ("add_eos_token", true), ("add_space_prefix", false)];
        let mut pairs = llama();
        pairs.extend(keys.map(|(key, v)| (key, Value::Bool(v))));
        pairs.push(("eos_token_id", Value::U32(4)));
        let spec = vocab_spec(&metadata(pairs)).unwrap();
        assert_eq!((spec.add_bos, spec.add_eos, spec.add_space_prefix, spec.eos), (false, true, false, Some(4)));
    }

    #[test]
    fn gpt2_defaults() {
        let spec = vocab_spec(&metadata(gpt2())).unwrap();
        assert_eq!((spec.kind, spec.bos, spec.eos, spec.add_bos), (VocabKind::ByteLevel, None, None, false));
        let tokenizer = Tokenizer::new(spec).unwrap();
        assert_eq!(tokenizer.encode(&["ab"]), Ok(vec![2]));
        assert!(tokenizer.is_end(3));
    }

    #[test]
    fn llama3_texts_begin_with_bos() {
        let mut pairs = gpt2();
        pairs.extend([("pre", Value::String("llama-bpe".into())), ("bos_token_id", Value::U32(3))]);
        assert!(vocab_spec(&metadata(pairs)).unwrap().add_bos);
    }

    #[test]
    fn our_own_keys_are_read() {
        let mut pairs = llama();
        pairs[1].1 = strings(&["<unk>", "<s>", "</s>", "▁", "▁a"]);
        let mut metadata = metadata(pairs);
        assert!(vocab_spec(&metadata).unwrap().legacy);
        metadata.insert(LEGACY.into(), Value::Bool(false)).unwrap();
        metadata.insert(EOS_IDS.into(), Value::Array(Array::I32(vec![2, 4]))).unwrap();
        let tokenizer = Tokenizer::new(vocab_spec(&metadata).unwrap()).unwrap();
        assert_eq!([1, 2, 3, 4].map(|id| tokenizer.is_end(id)), [false, true, false, true]);
        assert_eq!(tokenizer.encode(&["a</s> "]), Ok(vec![1, 4, 2, 3]));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let without = |mut pairs: Vec<(&'static str, Value)>, key| {
            pairs.retain(|(k, _)| *k != key);
            vocab_spec(&metadata(pairs))
        };
        let with = |mut pairs: Vec<(&'static str, Value)>, key, value: Value| {
            pairs.retain(|(k, _)| *k != key);
            pairs.push((key, value));
            vocab_spec(&metadata(pairs))
        };
        let invalid = ErrorKind::InvalidFormat;
        let codes = Value::Array(Array::I32(vec![1, 1, 1, 7]));
        let cases = [
            (without(llama(), "model"), invalid, "expected a value for tokenizer.ggml.model, got none"),
            (without(llama(), "tokens"), invalid, "tokenizer.ggml.tokens, got none"),
            (without(gpt2(), "merges"), invalid, "tokenizer.ggml.merges, got none"),
            (with(gpt2(), "model", Value::String("bert".into())), ErrorKind::Unsupported, "llama or gpt2, got bert"),
            (with(gpt2(), "token_type", codes), invalid, "from 0 to 6, got 7 for piece 3"),
            (with(gpt2(), "tokens", Value::U8(1)), invalid, "to be an array of strings, got u8"),
            (with(gpt2(), "bos_token_id", Value::I32(-1)), invalid, "bos_token_id to be an integer"),
        ];
        for (result, kind, wanted) in cases {
            let e = result.expect_err(wanted);
            assert!(e.kind() == kind && e.to_string().contains(wanted), "{wanted:?} not in: {e}");
        }
        let mut negative = metadata(llama());
        negative.insert(EOS_IDS.into(), Value::Array(Array::I32(vec![2, -1]))).unwrap();
        let e = vocab_spec(&negative).unwrap_err();
        assert!(e.to_string().ends_with("eos_token_ids to be non-negative, got -1"), "{e}");
        let e = Tokenizer::new(without(llama(), "scores").unwrap()).unwrap_err();
        assert!(e.to_string().ends_with("expected as many scores as pieces, 5, got 0"), "{e}");
    }
}
