//! The genuine Llama-2 vocabulary against llama.cpp's ids. The SentencePiece model is not ours to publish: it is read in
//! place where it lies beside the checkout, and without it this check says that it is skipped.

use std::path::Path;

use llamero::tokenizer::{TokenType, Tokenizer, VocabKind, VocabSpec};
use serde::Deserialize;

const MODEL: &str = "../../shared/data/llama2/tokenizer.model";
const GOLDEN: &str = "../tests/golden/llama2.tokens.json";

#[derive(Deserialize)]
struct Golden {
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    name: String,
    text: String,
    ids: Vec<u32>,
}

/// A field of a protobuf message: its number, and its bytes (a varint or fixed number in little-endian order).
fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = bytes.split_first().expect("a varint");
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let value = match tag & 7 {
            0 => varint(&mut message).to_le_bytes().to_vec(),
            wire @ (1 | 2 | 5) => {
                let len = match wire {
                    1 => 8,
                    2 => varint(&mut message) as usize,
                    _ => 4,
                };
                let (value, rest) = message.split_at(len);
                message = rest;
                value.to_vec()
            }
            wire => panic!("wire type {wire}"),
        };
        found.push((tag >> 3, value));
    }
    found
}

/// `ModelProto.pieces` (field 1), each with text (1), score (2) and type (3, normal when absent).
fn vocabulary(model: &[u8]) -> VocabSpec {
    let (mut pieces, mut scores, mut types) = (Vec::new(), Vec::new(), Vec::new());
    for (_, piece) in fields(model).into_iter().filter(|(number, _)| *number == 1) {
        let (mut score, mut kind) = (0.0, 1);
        for (number, value) in fields(&piece) {
            match number {
                1 => pieces.push(String::from_utf8(value).expect("UTF-8")),
                2 => score = f32::from_le_bytes(value.try_into().expect("a float")),
                3 => kind = i32::from(value[0]),
                _ => {}
            }
        }
        scores.push(score);
        types.push(TokenType::from_code(kind).expect("a type"));
    }
    VocabSpec {
        kind: VocabKind::SentencePiece,
        pieces,
        types,
        scores,
        merges: Vec::new(),
        pre: "default".into(),
        bos: Some(1),
        eos: Some(2),
        eot: None,
        eom: None,
        unk: Some(0),
        add_bos: true,
        add_eos: false,
        add_space_prefix: true,
    }
}

#[test]
fn llama2_ids_are_those_of_llama_cpp() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Ok(model) = std::fs::read(here.join(MODEL)) else {
        eprintln!("skipped: the Llama-2 SentencePiece model is not beside the checkout ({MODEL})");
        return;
    };
    let golden = std::fs::read_to_string(here.join(GOLDEN)).expect("the golden file");
    let golden: Golden = serde_json::from_str(&golden).expect("JSON");
    let tokenizer = Tokenizer::new(vocabulary(&model)).expect("a vocabulary");
    assert_eq!((tokenizer.len(), golden.texts.len()), (32_000, 40));
    for Text { name, text, ids } in golden.texts {
        assert_eq!(tokenizer.encode(&[&text]).expect("encodes"), ids, "{name}: {text:?}");
    }
}
