//! The vocabulary of a GGUF file as the files of a Hugging Face folder: a SentencePiece model or a tokenizer.json, and
//! tokenizer_config.json. What is written here, [`super::read`] reads back to the same ids.

use serde_json::{Map, Value as Json, json};

use super::json::pre_tokenizer_steps;
use crate::error::{Error, Result};
use crate::formats::gguf::Metadata;
use crate::formats::sentencepiece::{self, ModelKind, Piece, SentencePieceModel};
use crate::load::vocab::vocab_spec;
use crate::tokenizer::{PreTokenizer, TokenType, VocabKind, VocabSpec};

/// Names and contents of the files.
///
/// # Errors
/// As `load::vocab::vocab_spec`, and `unsupported` for a pre-tokenizer that the files cannot describe.
pub fn publish(metadata: &Metadata) -> Result<Vec<(String, Vec<u8>)>> {
    let spec = vocab_spec(metadata)?;
    let model = match spec.kind {
        VocabKind::SentencePiece => ("tokenizer.model".to_owned(), sentencepiece::write(&model(&spec))),
        VocabKind::ByteLevel => ("tokenizer.json".to_owned(), pretty(&tokenizer_json(&spec)?)),
    };
    Ok(vec![model, ("tokenizer_config.json".to_owned(), pretty(&settings(&spec, metadata)?))])
}

fn pretty(value: &Json) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// The type of a piece; those of files without types are normal.
fn type_of(spec: &VocabSpec, id: usize) -> TokenType {
    spec.types.get(id).copied().unwrap_or(TokenType::Normal)
}

fn model(spec: &VocabSpec) -> SentencePieceModel {
    let piece = |(id, text): (usize, &String)| Piece {
        text: text.clone(),
        score: spec.scores.get(id).copied().unwrap_or(0.0),
        // Files have no number for pieces without a meaning: nothing must become one.
        kind: match type_of(spec, id) {
            TokenType::Undefined => TokenType::Unused.code(),
            kind => kind.code(),
        },
    };
    SentencePieceModel {
        pieces: spec.pieces.iter().enumerate().map(piece).collect(),
        kind: ModelKind::Bpe,
        byte_fallback: spec.types.contains(&TokenType::Byte),
        treat_whitespace_as_suffix: false,
        unk: spec.unk.unwrap_or(0),
        bos: spec.bos,
        eos: spec.eos,
        pad: None,
        precompiled_charsmap: Vec::new(),
        add_dummy_prefix: spec.add_space_prefix,
        remove_extra_whitespaces: false,
        escape_whitespaces: true,
    }
}

fn tokenizer_json(spec: &VocabSpec) -> Result<Json> {
    let pre = PreTokenizer::from_name(&spec.pre)?;
    let steps = pre_tokenizer_steps(pre).ok_or_else(|| {
        Error::unsupported(format!("writing tokenizer.json: expected a pre-tokenizer that it has, got {:?}", spec.pre))
    })?;
    let all = || spec.pieces.iter().enumerate();
    let vocab: Map<_, _> = all().map(|(id, piece)| (piece.clone(), json!(id))).collect();
    let added = all().filter(|(id, _)| type_of(spec, *id).is_special()).map(|(id, piece)| {
        let special = type_of(spec, id) != TokenType::UserDefined;
        json!({
            "id": id, "content": piece, "special": special,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    });
    Ok(json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": steps,
        "post_processor": post_processor(spec),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre.takes_whole_words(), "vocab": vocab, "merges": spec.merges,
        },
    }))
}

/// What puts the beginning in front of a text, if anything does.
fn post_processor(spec: &VocabSpec) -> Json {
    let Some((id, piece)) = spec.bos.filter(|_| spec.add_bos).and_then(|id| Some((id, spec.pieces.get(id as usize)?)))
    else {
        return Json::Null;
    };
    let bos = |type_id| json!({"SpecialToken": {"id": piece, "type_id": type_id}});
    let text = |name, type_id| json!({"Sequence": {"id": name, "type_id": type_id}});
    let mut tokens = Map::new();
    tokens.insert(piece.clone(), json!({"id": piece, "ids": [id], "tokens": [piece]}));
    json!({
        "type": "TemplateProcessing",
        "single": [bos(0), text("A", 0)],
        "pair": [bos(0), text("A", 0), bos(1), text("B", 1)],
        "special_tokens": tokens,
    })
}

fn settings(spec: &VocabSpec, metadata: &Metadata) -> Result<Json> {
    let piece = |id: Option<u32>| id.and_then(|id| spec.pieces.get(id as usize));
    let is_sentencepiece = spec.kind == VocabKind::SentencePiece;
    let entries = [
        ("tokenizer_class", json!(if is_sentencepiece { "LlamaTokenizer" } else { "PreTrainedTokenizerFast" })),
        ("add_bos_token", json!(spec.add_bos)),
        ("add_eos_token", json!(spec.add_eos)),
        ("bos_token", json!(piece(spec.bos))),
        ("eos_token", json!(piece(spec.eos))),
        ("unk_token", json!(piece(spec.unk))),
        ("legacy", if is_sentencepiece { json!(spec.legacy) } else { Json::Null }),
        ("chat_template", json!(metadata.str("tokenizer.chat_template")?)),
        ("clean_up_tokenization_spaces", json!(false)),
    ];
    Ok(Json::Object(entries.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.to_owned(), v)).collect()))
}

#[cfg(test)]
mod tests {
    use super::super::{VocabFiles, read};
    use super::*;
    use crate::formats::gguf::{Array, Gguf, Value};
    use crate::tokenizer::Tokenizer;

    const TEXTS: [&str; 6] = [
        "",
        "Hello, world! 12345 times",
        "  two  spaces\n\nlines\t",
        "naïve 漢字 🦙 \u{7f}",
        "a</s>b <|im_start|>user",
        "they'll've",
    ];

    /// Files made from the metadata give the ids that the metadata gives.
    fn check(metadata: &Metadata) {
        let files: std::collections::BTreeMap<_, _> = publish(metadata).unwrap().into_iter().collect();
        let get = |name: &str| files.get(name).map(Vec::as_slice);
        let again = read(&VocabFiles {
            sentencepiece: get("tokenizer.model"),
            tokenizer_json: get("tokenizer.json"),
            tokenizer_config: get("tokenizer_config.json"),
            ..VocabFiles::default()
        });
        let (before, after) = (Tokenizer::new(vocab_spec(metadata).unwrap()).unwrap(), again.unwrap());
        assert_eq!(after.not_portable, None);
        for text in TEXTS {
            assert_eq!(before.encode(&[text]), after.tokenizer.encode(&[text]), "{text:?}");
        }
        assert_eq!(
            (before.bos(), before.eos(), before.len()),
            (after.tokenizer.bos(), after.tokenizer.eos(), after.tokenizer.len())
        );
    }

    #[test]
    fn a_sentencepiece_vocabulary_goes_there_and_back() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tiny-llama2.gguf");
        let bytes = std::fs::read(path).unwrap();
        check(&Gguf::parse(&bytes, bytes.len() as u64).unwrap().metadata);
    }

    /// The bytes in GPT-2's spelling: printable ones as they are, the others from U+0100 on.
    fn byte_pieces() -> Vec<String> {
        let mut next = 0x100;
        let spell = |byte: u8| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte).to_string(),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap().to_string()
            }
        };
        (0..=255).map(spell).collect()
    }

    #[test]
    fn a_byte_level_vocabulary_goes_there_and_back() {
        // All 256 bytes in GPT-2's spelling, two joined pieces, two control tokens.
        let mut pieces = byte_pieces();
        pieces.extend(["ll", "Ġl", "<|im_start|>", "<|im_end|>"].map(str::to_owned));
        let mut types = vec![1; 258];
        types.extend([3, 3]);
        for (pre, add_bos) in [("smollm", false), ("llama-bpe", true), ("gpt-2", false), ("qwen2", false)] {
            let mut metadata = Metadata::new();
            let strings = |texts: &[String]| Value::Array(Array::String(texts.to_vec()));
            for (key, value) in [
                ("model", Value::String("gpt2".into())),
                ("pre", Value::String(pre.into())),
                ("tokens", strings(&pieces)),
                ("token_type", Value::Array(Array::I32(types.clone()))),
                ("merges", strings(&["l l".into(), "Ġ l".into()])),
                ("bos_token_id", Value::U32(258)),
                ("eos_token_id", Value::U32(259)),
                ("add_bos_token", Value::Bool(add_bos)),
            ] {
                metadata.insert(format!("tokenizer.ggml.{key}"), value).unwrap();
            }
            check(&metadata);
        }
    }
}
