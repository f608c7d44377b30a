//! What the files of a folder say together, and what is refused. Ids of whole corpora are in tests/vocabularies.rs.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::error::ErrorKind;
use crate::formats::gguf::Metadata;
use crate::load::vocab::vocab_spec;

fn fixture(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()))
}

/// A tokenizer.json of the fixtures, to be changed.
fn json_file(name: &str) -> Json {
    serde_json::from_slice(&fixture(name)).unwrap()
}

/// The vocabulary of a model with `tokenizer_config.json` and other files.
fn with_model(model: &[u8], config: &str, others: VocabFiles) -> Result<Vocabulary> {
    read(&VocabFiles { sentencepiece: Some(model), tokenizer_config: Some(config.as_bytes()), ..others })
}

fn with_json(file: &Json, others: VocabFiles) -> Result<Vocabulary> {
    read(&VocabFiles { tokenizer_json: Some(file.to_string().as_bytes()), ..others })
}

fn key<'a>(vocabulary: &'a Vocabulary, key: &str) -> Option<&'a Value> {
    vocabulary.metadata.iter().find(|(k, _)| k == key).map(|(_, value)| value)
}

fn through_gguf(vocabulary: &Vocabulary) -> Tokenizer {
    let mut metadata = Metadata::new();
    vocabulary.metadata.iter().cloned().for_each(|(key, value)| metadata.insert(key, value).unwrap());
    Tokenizer::new(vocab_spec(&metadata).unwrap()).unwrap()
}

#[test]
fn a_model_alone_is_llamas() {
    let vocabulary = with_model(&fixture("sp-bpe.model"), "{}", VocabFiles::default()).unwrap();
    let t = &vocabulary.tokenizer;
    assert_eq!((vocabulary.source, t.len(), t.bos(), t.eos()), ("sentencepiece bpe", 640, Some(1), Some(2)));
    assert!(t.adds_bos() && t.is_end(2) && !t.is_end(1));
    // The symbol inside text keeps GGUF from carrying it; it is no special token.
    assert_eq!(
        vocabulary.not_portable.as_deref(),
        Some("the SentencePiece model has user-defined symbols inside text")
    );
    assert!(vocabulary.metadata.is_empty());
    assert_eq!(t.special_texts(), ["<unk>", "<s>", "</s>"]);
}

#[test]
fn what_gguf_cannot_say_is_named() {
    let reason = |name| with_model(&fixture(name), "{}", VocabFiles::default()).unwrap().not_portable.unwrap();
    assert_eq!(
        reason("sp-unigram.model"),
        "the SentencePiece model has a unigram model, no byte pieces, a table of normalisation, spaces that are removed, \
         user-defined symbols inside text"
    );
    assert!(reason("sp-bpe-suffix.model").contains("spaces written otherwise"));
    assert!(reason("sp-bpe-suffix.model").contains("pieces that are taken apart again"));
}

#[test]
fn added_tokens_extend_and_rename_the_pieces() {
    let model = fixture("sp-bpe.model");
    let tool = with_model(&model, "{}", VocabFiles::default()).unwrap().tokenizer;
    let tool = (0..640).find(|&id| tool.piece(id) == Some("<tool>")).unwrap();
    let config = json!({"added_tokens_decoder": {
        "1": {"content": "<s>", "special": true},
        (tool.to_string()): {"content": "<tool>", "special": true},
        "641": {"content": "<|im_start|>", "special": true},
        "643": {"content": "<think>", "special": false},
    }, "eos_token": {"content": "<|im_end|>"}, "bos_token": null});
    let others = VocabFiles { added_tokens: Some(br#"{"<|im_end|>": 642, "<more>": 644}"#), ..Default::default() };
    let vocabulary = with_model(&model, &config.to_string(), others).unwrap();
    let t = &vocabulary.tokenizer;
    let pieces = |text: &str| -> Vec<String> {
        t.encode(&[text]).unwrap().iter().map(|&id| t.piece(id).unwrap().to_owned()).collect()
    };
    assert_eq!(
        (t.len(), t.piece(640), t.eos(), vocabulary.not_portable.as_deref()),
        (645, Some("[PAD640]"), Some(642), None)
    );
    assert_eq!(pieces("<|im_start|><think>")[1..], ["<|im_start|>", "<think>"]);
    assert_eq!(pieces("[PAD640]").len(), 1 + "▁[PAD640]".chars().count());
    // A special token leaves no text, one that is only added does.
    assert_eq!(t.decode(&[641, 643, tool, 644]), Ok("<think><more>".into()));
    assert!(t.is_end(642));
    let gguf = through_gguf(&vocabulary);
    let text = "a <tool><think>b<|im_end|>c [PAD640]";
    assert_eq!(gguf.encode(&[text]), t.encode(&[text]));
    assert_eq!(gguf.special_texts(), t.special_texts());
    assert!(gguf.is_end(642));
}

#[test]
fn the_vocabulary_has_as_many_pieces_as_the_embedding_rows() {
    let model = fixture("sp-bpe.model");
    let with_rows = |n| {
        let added = Some(&br#"{"[PAD]": 640}"#[..]);
        with_model(&model, "{}", VocabFiles { added_tokens: added, n_vocab: Some(n), ..Default::default() })
    };
    let more = with_rows(648).unwrap().tokenizer;
    assert_eq!((more.len(), more.piece(640), more.piece(647)), (648, Some("[PAD]"), Some("[PAD647]")));
    assert_eq!(with_rows(640).unwrap().tokenizer.special_texts(), ["<unk>", "<s>", "</s>"]);
    // Letters come last: without rows for them, they are spelled in bytes.
    let fewer = with_rows(300).unwrap().tokenizer;
    assert_eq!((fewer.len(), fewer.decode(&fewer.encode(&["llama"]).unwrap())), (300, Ok("llama".into())));
    assert_eq!(with_rows(1).unwrap_err().kind(), ErrorKind::InvalidFormat);
    let json = json_file("byte-level.json");
    let plain = Some(&br#"{"add_bos_token": false}"#[..]);
    let files = |n| VocabFiles { n_vocab: Some(n), tokenizer_config: plain, ..Default::default() };
    let rows = |n| with_json(&json, files(n)).unwrap().tokenizer;
    assert_eq!((rows(512).len(), rows(512).piece(511)), (512, Some("[PAD511]")));
    let fewer = rows(300);
    assert_eq!(fewer.decode(&fewer.encode(&["The llama"]).unwrap()), Ok("The llama".into()));
}

#[test]
fn roles_come_from_texts_before_numbers() {
    let model = fixture("sp-bpe.model");
    let generation = Some(&br#"{"eos_token_id": [2, 5, 7, 99999], "pad_token_id": 9}"#[..]);
    let config = Some(&br#"{"eos_token_id": 11, "bos_token_id": 3, "pad_token_id": -1}"#[..]);
    let map = Some(&br#"{"unk_token": "<unk>", "bos_token": {"content": "<s>"}}"#[..]);
    let files = VocabFiles { generation_config: generation, config, special_tokens_map: map, ..Default::default() };
    let t = with_model(&model, r#"{"add_bos_token": false, "add_eos_token": true}"#, files).unwrap().tokenizer;
    assert_eq!((t.bos(), t.eos(), t.adds_bos()), (Some(1), Some(2), false));
    assert_eq!([2, 5, 7, 11].map(|id| t.is_end(id)), [true, true, true, false]);
    assert_eq!(t.encode(&[""]), Ok(vec![2]));
    let only_config = VocabFiles { config, ..Default::default() };
    let t = with_model(&model, "{}", only_config).unwrap().tokenizer;
    assert!(t.is_end(11) && t.eos() == Some(11) && t.bos() == Some(3));
}

#[test]
fn keys_are_those_of_gguf() {
    let config = r#"{"legacy": false, "add_prefix_space": true, "pad_token": "<unk>", "chat_template": "T"}"#;
    let generation = Some(&br#"{"eos_token_id": [2, 5]}"#[..]);
    let files =
        VocabFiles { generation_config: generation, tokenizer_config: Some(config.as_bytes()), ..Default::default() };
    let vocabulary = with_json(&json_file("metaspace.json"), files).unwrap();
    let value = |name: &str| key(&vocabulary, &format!("tokenizer.ggml.{name}"));
    assert_eq!(value("model"), Some(&Value::String("llama".into())));
    assert_eq!(value("pre"), Some(&Value::String("default".into())));
    assert_eq!((value("bos_token_id"), value("padding_token_id")), (Some(&Value::U32(1)), Some(&Value::U32(0))));
    assert_eq!(
        (value("add_bos_token"), value("add_space_prefix")),
        (Some(&Value::Bool(true)), Some(&Value::Bool(true)))
    );
    assert_eq!(value("merges"), None);
    assert_eq!(key(&vocabulary, EOS_IDS), Some(&Value::Array(Array::I32(vec![2, 5]))));
    // The file has its own rule, whatever the settings of the other tokenizer say.
    assert_eq!(key(&vocabulary, LEGACY), None);
    assert_eq!(key(&vocabulary, "tokenizer.chat_template"), Some(&Value::String("T".into())));
    let vocabulary = with_json(&json_file("byte-level.json"), VocabFiles::default()).unwrap();
    let value = |name: &str| key(&vocabulary, &format!("tokenizer.ggml.{name}"));
    assert_eq!(value("model"), Some(&Value::String("gpt2".into())));
    assert_eq!(value("pre"), Some(&Value::String("llama-bpe".into())));
    assert_eq!((value("scores"), value("add_space_prefix")), (None, None));
    assert_eq!(vocabulary.tokenizer.bos(), Some(500));
    assert!(vocabulary.tokenizer.adds_bos() && through_gguf(&vocabulary).adds_bos());
}

#[test]
fn templates_come_from_the_settings_or_their_own_file() {
    let keys = |config: &str, file: Option<&[u8]>| {
        let files = VocabFiles { chat_template: file, ..Default::default() };
        let metadata = with_model(&fixture("sp-bpe.model"), config, files).unwrap().metadata;
        metadata.into_iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys("{}", None), "");
    assert_eq!(keys(r#"{"chat_template": "A"}"#, None), r#"tokenizer.chat_template=String("A")"#);
    assert_eq!(keys(r#"{"chat_template": "A"}"#, Some(b"B")), r#"tokenizer.chat_template=String("B")"#);
    let list = r#"{"chat_template": [{"name": "default", "template": "A"}, {"name": "rag", "template": "C"}]}"#;
    assert_eq!(
        keys(list, None),
        r#"tokenizer.chat_template=String("A") tokenizer.chat_template.rag=String("C") tokenizer.chat_templates=Array(String(["rag"]))"#
    );
}

#[test]
fn special_texts_of_json_files_are_cut_out_by_parts() {
    for (name, special) in [("metaspace.json", "</s>"), ("byte-level.json", "<|eot_id|>")] {
        let t = with_json(&json_file(name), VocabFiles::default()).unwrap().tokenizer;
        let id = (0..t.len() as u32).find(|&id| t.piece(id) == Some(special)).unwrap();
        assert!(t.encode(&[special]).unwrap().contains(&id), "{name}");
        let (left, right) = special.split_at(2);
        let ids = t.encode(&[left, right]).unwrap();
        assert!(!ids.contains(&id), "{name}");
        assert_eq!(t.decode(&ids), Ok(special.into()));
    }
}

#[test]
fn unknown_characters_do_not_end_a_text() {
    let mut file = json_file("byte-level.json");
    file["model"]["unk_token"] = json!("<|end_of_text|>");
    file["model"]["vocab"]["<|end_of_text|>"] = json!(501);
    // The stand-in of byte 0x14.
    file["model"]["vocab"].as_object_mut().unwrap().remove("Ĕ").unwrap();
    let t = with_json(&file, VocabFiles::default()).unwrap().tokenizer;
    assert_eq!(t.encode(&["\u{14}"]), Ok(vec![500]));
}

/// A special token that merges and whole words would lead to.
#[test]
fn text_never_becomes_a_token_that_was_added() {
    let mut file = json_file("byte-level.json");
    let (left, right) = ("<|", "x|>");
    let vocab = file["model"]["vocab"].as_object_mut().unwrap();
    vocab.extend([(left.into(), json!(505)), (right.into(), json!(506)), ("<|x|>".into(), json!(507))]);
    let merges = [["<", "|"], ["x", "|>"], ["|", ">"], [left, right]].map(|pair| json!(pair));
    vocab.insert("|>".into(), json!(508));
    file["model"]["merges"].as_array_mut().unwrap().extend(merges);
    file["added_tokens"].as_array_mut().unwrap().push(json!({"id": 507, "content": "<|x|>", "special": true}));
    let vocabulary = with_json(&file, VocabFiles::default()).unwrap();
    for t in [&vocabulary.tokenizer, &through_gguf(&vocabulary)] {
        assert_eq!(t.encode(&["<|x|>"]), Ok(vec![500, 507]));
        let ids = t.encode(&["<", "|x|>"]).unwrap();
        assert!(!ids.contains(&507) && t.decode(&ids) == Ok("<|x|>".into()), "{ids:?}");
    }
}

#[test]
fn pre_tokenizers_that_gguf_has_are_recognised() {
    let words = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true, "trim_offsets": true});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false, "trim_offsets": true});
    let digits = json!({"type": "Digits", "individual_digits": true});
    let split =
        |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let sequence = |steps: &[&Json]| json!({"type": "Sequence", "pretokenizers": steps});
    let qwen = split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    );
    let other = split(r"\p{N}{1,3}");
    let prefixed = json!({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true, "trim_offsets": true});
    let cases = [
        (words.clone(), Json::Null, Some("gpt-2")),
        (sequence(&[&digits, &words]), Json::Null, Some("smollm")),
        (sequence(&[&qwen, &bytes]), json!({"type": "NFC"}), Some("qwen2")),
        (sequence(&[&other, &bytes]), Json::Null, None),
        (words, json!({"type": "NFC"}), None),
        (prefixed, Json::Null, None),
    ];
    for (pre_tokenizer, normalizer, wanted) in cases {
        let mut file = json_file("byte-level.json");
        file["model"]["ignore_merges"] = json!(false);
        (file["pre_tokenizer"], file["normalizer"]) = (pre_tokenizer.clone(), normalizer);
        let vocabulary = with_json(&file, VocabFiles::default()).unwrap();
        let pre = key(&vocabulary, "tokenizer.ggml.pre");
        assert_eq!(pre, wanted.map(|name| Value::String(name.into())).as_ref(), "{pre_tokenizer}");
        assert_eq!(vocabulary.not_portable.is_none(), wanted.is_some());
        if wanted.is_some() {
            let text = "It's 2024, isn't it?  ab\n\n\tWE'LL see 12345 `x`... é½";
            assert_eq!(through_gguf(&vocabulary).encode(&[text]), vocabulary.tokenizer.encode(&[text]), "{wanted:?}");
        }
    }
}

#[test]
fn the_space_prefix_of_a_json_file_is_its_own() {
    let metaspace =
        |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
    let pieces = |scheme: &str, text: &str| {
        let mut file = json_file("metaspace.json");
        (file["normalizer"], file["pre_tokenizer"]) = (Json::Null, metaspace(scheme));
        let vocabulary = with_json(&file, VocabFiles::default()).unwrap();
        let t = &vocabulary.tokenizer;
        assert_eq!(through_gguf(&vocabulary).encode(&[text]), t.encode(&[text]), "{scheme}");
        t.encode(&[text]).unwrap()[1..].iter().map(|&id| t.piece(id).unwrap().to_owned()).collect::<Vec<_>>().concat()
    };
    assert_eq!(pieces("always", "a</s>b"), "▁a</s>▁b");
    assert_eq!(pieces("first", "a</s>b"), "▁a</s>b");
    assert_eq!(pieces("never", "a</s>b"), "a</s>b");
    let mut file = json_file("metaspace.json");
    file["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let not_portable = with_json(&file, VocabFiles::default()).unwrap().not_portable;
    assert_eq!(not_portable.as_deref(), Some("tokenizer.json has steps that SentencePiece does not have"));
}

#[test]
fn merges_in_another_order_than_scores_are_not_carried() {
    let reason = |change: fn(&mut Vec<Json>)| {
        let mut file = json_file("metaspace.json");
        change(file["model"]["merges"].as_array_mut().unwrap());
        with_json(&file, VocabFiles::default()).unwrap().not_portable
    };
    assert_eq!(reason(|_| {}), None);
    let wanted = Some("tokenizer.json has merges that are not in the order of scores".to_owned());
    // A pair that is missing, and the pairs of one piece apart from each other.
    assert_eq!(reason(|merges| drop(merges.remove(0))), wanted);
    assert_eq!(
        reason(|merges| {
            let joined = |m: &Json| [m[0].as_str().unwrap(), m[1].as_str().unwrap()].concat();
            let is_again = |i: &usize| merges[..*i].iter().any(|m| joined(m) == joined(&merges[*i]));
            let again = (0..merges.len()).find(is_again).unwrap();
            let merge = merges.remove(again);
            merges.insert(0, merge);
        }),
        wanted
    );
}

#[test]
fn files_that_break_their_rules_are_refused() {
    type Case = (&'static str, fn(&mut Json), &'static str);
    let unsupported: [Case; 14] = [
        ("metaspace", |f| f["model"]["type"] = json!("Unigram"), "a model of type BPE, got \"Unigram\""),
        ("metaspace", |f| f["model"] = json!({}), "a model of type BPE, got \"\""),
        ("metaspace", |f| f["model"]["dropout"] = json!(0.1), "a model without dropout, got one"),
        ("metaspace", |f| f["model"]["end_of_word_suffix"] = json!("</w>"), "without end_of_word_suffix, got one"),
        ("metaspace", |f| f["model"]["continuing_subword_prefix"] = json!("##"), "without continuing_subword_prefix"),
        ("metaspace", |f| f["decoder"] = json!({"type": "WordPiece"}), "or Replace of ▁, got \"WordPiece\""),
        (
            "byte-level",
            |f| f["pre_tokenizer"] = Json::Null,
            "a pre_tokenizer ByteLevel for the decoder ByteLevel, got none",
        ),
        (
            "metaspace",
            |f| f["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": ""}),
            "of the normalizer, got {",
        ),
        (
            "metaspace",
            |f| f["normalizer"] = json!({"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}),
            "of the normalizer",
        ),
        // Steps that make a text longer and longer.
        (
            "metaspace",
            |f| f["normalizer"] = json!({"content": "four", "pattern": {"String": " "}, "type": "Replace"}),
            "expected a known step of the normalizer, got {",
        ),
        (
            "metaspace",
            |f| {
                let step = json!({"type": "NFC"});
                f["normalizer"] = json!({"type": "Sequence", "normalizers": [step, step, step,
                    {"type": "Sequence", "normalizers": [step, step]}]});
            },
            "at most 4 steps of the normalizer, got 5",
        ),
        (
            "byte-level",
            |f| {
                let steps = f["pre_tokenizer"]["pretokenizers"].as_array_mut().unwrap();
                steps.push(steps[1].clone());
            },
            "expected a known step of the pre_tokenizer, got {",
        ),
        // An expression that takes exponential time, and an empty text that is everywhere.
        (
            "byte-level",
            |f| f["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("(a+)+$"),
            "expected a known step of the pre_tokenizer, got {",
        ),
        (
            "byte-level",
            |f| f["pre_tokenizer"]["pretokenizers"][0]["pattern"] = json!({"String": ""}),
            "expected a known step of the pre_tokenizer",
        ),
    ];
    let invalid: [Case; 8] = [
        ("metaspace", |f| f["model"]["vocab"] = json!({"a": 0, "b": 0}), "expected each id once, got 0 for"),
        (
            "metaspace",
            |f| f["model"]["vocab"]["x"] = json!(4_194_304),
            "ids below 4194304 with at most 65536 left out, got 4194304",
        ),
        ("metaspace", |f| f["model"]["vocab"]["x"] = json!(-1), "invalid value"),
        ("metaspace", |f| f["model"]["merges"][0] = json!("ab"), "merge 0 as \"left right\", got \"ab\""),
        (
            "metaspace",
            |f| f["model"]["merges"][0] = json!(["▁", "zz"]),
            "merge 0 to name pieces, got \"zz\", which is none",
        ),
        ("metaspace", |f| f["added_tokens"][0]["id"] = json!(u32::MAX), "left out, got 4294967295"),
        ("metaspace", |f| f["normalizer"] = json!({"type": "Prepend"}), "expected a normalizer: "),
        ("metaspace", |f| f["pre_tokenizer"] = json!({"type": "Metaspace"}), "expected a pre_tokenizer: "),
    ];
    for (kind, cases) in [(ErrorKind::Unsupported, &unsupported[..]), (ErrorKind::InvalidFormat, &invalid)] {
        for (name, change, wanted) in cases {
            let mut file = json_file(&format!("{name}.json"));
            change(&mut file);
            let e = with_json(&file, VocabFiles::default()).expect_err(wanted);
            assert!(e.kind() == kind && e.to_string().contains(wanted), "{wanted} not in {e}");
        }
    }
}

#[test]
fn settings_that_break_their_rules_are_refused() {
    let model = fixture("sp-bpe.model");
    let deep = format!("{}{}", "[".repeat(1 << 16), "]".repeat(1 << 16));
    let files: [(VocabFiles, &str); 7] = [
        (VocabFiles { tokenizer_config: Some(b"{"), ..Default::default() }, "reading tokenizer_config.json: EOF"),
        (
            VocabFiles { tokenizer_config: Some(br#"{"added_tokens_decoder": {"x": {}}}"#), ..Default::default() },
            "expected ids of added tokens, got \"x\"",
        ),
        (
            VocabFiles { added_tokens: Some(br#"{"a": -1}"#), ..Default::default() },
            "reading added_tokens.json: invalid",
        ),
        (VocabFiles { added_tokens: Some(br#"{"a": 4194304}"#), ..Default::default() }, "left out, got 4194304"),
        (VocabFiles { generation_config: Some(deep.as_bytes()), ..Default::default() }, "recursion limit exceeded"),
        (
            VocabFiles { chat_template: Some(b"\xff"), ..Default::default() },
            "reading chat_template.jinja: expected UTF-8",
        ),
        (
            VocabFiles { special_tokens_map: Some(&vec![b' '; MAX_FILE_LEN + 1]), ..Default::default() },
            "expected at most 67108864 bytes, got 67108865",
        ),
    ];
    for (files, wanted) in files {
        let e = read(&VocabFiles { sentencepiece: Some(&model), ..files }).expect_err(wanted);
        assert!(e.kind() == ErrorKind::InvalidFormat && e.to_string().contains(wanted), "{wanted} not in {e}");
    }
    let e = read(&VocabFiles::default()).unwrap_err();
    assert_eq!(e.to_string(), "reading vocabulary: expected a SentencePiece model or tokenizer.json, got neither");
}

#[test]
fn every_truncation_of_a_file_is_an_error() {
    let model = fixture("sp-bpe.model");
    for len in 0..model.len() {
        let result = with_model(&model[..len], "{}", VocabFiles::default());
        // What follows the last field that counts may go.
        assert!(result.is_err() || len > model.len() - 8, "{len} of {} bytes", model.len());
    }
    let json = fixture("byte-level.json");
    for len in 0..json.len() {
        assert!(read(&VocabFiles { tokenizer_json: Some(&json[..len]), ..Default::default() }).is_err(), "{len} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever a file holds, reading and encoding end without a panic.
    #[test]
    fn damaged_models_do_no_harm(at in 0usize..4000, change in 1u8.., len in 1usize..64) {
        let mut model = fixture("sp-bpe-suffix.model");
        let end = (at + len).min(model.len());
        model[at..end].iter_mut().for_each(|byte| *byte ^= change);
        if let Ok(vocabulary) = with_model(&model, "{}", VocabFiles::default()) {
            let ids = vocabulary.tokenizer.encode(&["The llama <tool> é\n"]);
            prop_assert!(ids.is_ok());
        }
    }

    #[test]
    fn damaged_tables_do_no_harm(at in 0usize..240_000, change in 1u8.., len in 1usize..256) {
        let mut model = fixture("sp-unigram.model");
        // The table lies at the end of the file.
        let at = model.len() - 1 - at;
        let end = (at + len).min(model.len());
        model[at..end].iter_mut().for_each(|byte| *byte ^= change);
        if let Ok(vocabulary) = with_model(&model, "{}", VocabFiles::default()) {
            let _ = vocabulary.tokenizer.encode(&["The ﬁne ㍿ ＡＢＣ é \u{fdfa} 한국"]);
        }
    }

    #[test]
    fn damaged_json_does_no_harm(at in 0usize..9000, change in 1u8..0x80, len in 1usize..8) {
        let mut json = fixture("byte-level.json");
        let end = (at + len).min(json.len());
        json[at.min(end)..end].iter_mut().for_each(|byte| *byte ^= change);
        if let Ok(vocabulary) = read(&VocabFiles { tokenizer_json: Some(&json), ..Default::default() }) {
            prop_assert!(vocabulary.tokenizer.encode(&["The llama's <|eot_id|> é\n"]).is_ok());
        }
    }
}
