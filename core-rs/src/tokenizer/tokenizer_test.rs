//! Both kinds on vocabularies small enough to work out by hand; ids of real ones are checked against golden files.

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

/// `<unk> <s> </s>`, the 256 bytes, then normal pieces and their scores.
fn sentencepiece_spec() -> VocabSpec {
    let normal = [
        ("▁", -9.0),
        ("a", -8.0),
        ("b", -8.5),
        ("ab", -2.0),
        ("▁a", -1.0),
        ("▁ab", -3.0),
        ("bb", -2.0),
        ("<", -10.0),
        ("/", -10.0),
        ("s", -10.0),
        (">", -10.0),
        ("</", -4.0),
        ("s>", -4.0),
        ("é", -10.0),
    ];
    let mut pieces: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    let mut types = vec![TokenType::Unknown, TokenType::Control, TokenType::Control];
    pieces.extend((0..=255).map(|b| format!("<0x{b:02X}>")));
    types.resize(pieces.len(), TokenType::Byte);
    let mut scores = vec![0.0; pieces.len()];
    pieces.extend(normal.iter().map(|(p, _)| p.to_string()));
    scores.extend(normal.iter().map(|(_, s)| s));
    types.resize(pieces.len(), TokenType::Normal);
    VocabSpec {
        kind: VocabKind::SentencePiece,
        pieces,
        types,
        scores,
        merges: vec![],
        pre: String::new(),
        bos: Some(1),
        eos: Some(2),
        eot: None,
        eom: None,
        unk: Some(0),
        add_bos: true,
        add_eos: false,
        add_space_prefix: true,
        legacy: true,
        ends: Vec::new(),
    }
}

/// All 256 bytes but 0xF1, a few merges, a control and a user-defined token.
fn byte_level_spec() -> VocabSpec {
    let merges = ["Ġ a", "a b", "Ġa b", "Ã ©", "< |", "| >", "<| x"];
    let mut pieces: Vec<String> = (0..=255).filter(|&b| b != 0xF1).map(|b| byte_level::stand_in(b).into()).collect();
    pieces.extend(merges.iter().map(|m| m.replace(' ', "")));
    let mut types = vec![TokenType::Normal; pieces.len()];
    pieces.extend(["<|im_end|>", "<tool>", "<|x|>"].map(String::from));
    types.extend([TokenType::Control, TokenType::UserDefined, TokenType::Control]);
    VocabSpec {
        kind: VocabKind::ByteLevel,
        pieces,
        types,
        scores: vec![],
        merges: merges.iter().map(|m| m.to_string()).chain(["<|x |>".into()]).collect(),
        pre: "smollm".into(),
        bos: None,
        eos: None,
        eot: None,
        eom: None,
        unk: None,
        add_bos: false,
        add_eos: false,
        add_space_prefix: false,
        legacy: true,
        ends: Vec::new(),
    }
}

fn sentencepiece() -> Tokenizer {
    Tokenizer::new(sentencepiece_spec()).unwrap()
}

fn byte_level() -> Tokenizer {
    Tokenizer::new(byte_level_spec()).unwrap()
}

fn pieces(tokenizer: &Tokenizer, parts: &[&str]) -> Vec<String> {
    let ids = tokenizer.encode(parts).unwrap();
    ids.iter().map(|&id| tokenizer.piece(id).unwrap().to_owned()).collect()
}

#[test]
fn sentencepiece_joins_by_score() {
    let check = |parts: &[&str], expected: &[&str]| assert_eq!(pieces(&sentencepiece(), parts), expected);
    check(&[], &["<s>"]);
    check(&[""], &["<s>"]);
    check(&["ab"], &["<s>", "▁ab"]);
    check(&["bbb"], &["<s>", "▁", "bb", "b"]);
    check(&[" ab  b"], &["<s>", "▁", "▁ab", "▁", "▁", "b"]);
    check(&["a\nz"], &["<s>", "▁a", "<0x0A>", "<0x7A>"]);
    check(&["é🦙"], &["<s>", "▁", "é", "<0xF0>", "<0x9F>", "<0xA6>", "<0x99>"]);
    check(&["<0x41>"], &["<s>", "▁", "<", "<0x30>", "<0x78>", "<0x34>", "<0x31>", ">"]);
}

#[test]
fn a_space_is_added_at_the_start_and_after_special_tokens() {
    let check = |parts: &[&str], expected: &[&str]| assert_eq!(pieces(&sentencepiece(), parts), expected);
    check(&["a</s>ab<s>"], &["<s>", "▁a", "</s>", "▁ab", "<s>"]);
    check(&["a</s>", "", "b"], &["<s>", "▁a", "</s>", "▁", "b"]);
    let mut spec = sentencepiece_spec();
    (spec.add_space_prefix, spec.add_bos, spec.add_eos) = (false, false, true);
    assert_eq!(pieces(&Tokenizer::new(spec).unwrap(), &["ab</s>b"]), ["ab", "</s>", "b", "</s>"]);
}

#[test]
fn special_tokens_are_found_inside_a_part_only() {
    assert_eq!(pieces(&sentencepiece(), &["</", "s>"]), ["<s>", "▁", "</", "s>"]);
    assert_eq!(pieces(&sentencepiece(), &["a", "b"]), ["<s>", "▁ab"]);
    let tokenizer = byte_level();
    assert_eq!(pieces(&tokenizer, &["a<|im_end|>b<tool>"]), ["a", "<|im_end|>", "b", "<tool>"]);
    assert_eq!(pieces(&tokenizer, &["<|x|>"]), ["<|x|>"]);
    assert!(!pieces(&tokenizer, &["<|", "im_end|>"]).contains(&"<|im_end|>".into()));
    assert!(!pieces(&tokenizer, &["<|x", "|>"]).contains(&"<|x|>".into()));
    assert_eq!(pieces(&tokenizer, &["a", "b"]), ["ab"]);
    assert_eq!(tokenizer.special_texts(), ["<|im_end|>", "<tool>", "<|x|>"]);
}

#[test]
fn a_control_token_is_never_the_result_of_a_merge() {
    // `</s>` has score 0, above all others: without a guard, `</` and `s>` would be joined first of all.
    assert_eq!(pieces(&sentencepiece(), &["a</", "s>"]), ["<s>", "▁a", "</", "s>"]);
    let mut spec = byte_level_spec();
    assert_eq!(pieces(&Tokenizer::new(spec.clone()).unwrap(), &["<", "|"]), ["<|"]);
    let at = spec.pieces.iter().position(|p| p == "<|").unwrap();
    spec.types[at] = TokenType::Control;
    assert_eq!(pieces(&Tokenizer::new(spec).unwrap(), &["<", "|"]), ["<", "|"]);
}

#[test]
fn byte_level_joins_by_merge_list() {
    let check = |text, expected: &[&str]| assert_eq!(pieces(&byte_level(), &[text]), expected);
    check("", &[]);
    check("ab ab", &["ab", "Ġab"]);
    check("é\n", &["Ã©", "Ċ"]);
    check(" 12", &["Ġ", "1", "2"]);
    // U+40000 begins with byte 0xF1, which has no piece.
    check("\u{40000}", &["Ģ", "Ģ", "Ģ"]);
}

#[test]
fn llama3_takes_a_word_that_is_a_piece() {
    let mut spec = byte_level_spec();
    spec.pieces.push("bab".into());
    spec.types.push(TokenType::Normal);
    assert_eq!(pieces(&Tokenizer::new(spec.clone()).unwrap(), &["bab"]), ["b", "ab"]);
    spec.pre = "llama-bpe".into();
    assert_eq!(pieces(&Tokenizer::new(spec).unwrap(), &["bab"]), ["bab"]);
}

#[test]
fn text_without_bytes_or_piece_is_unknown() {
    let mut spec = sentencepiece_spec();
    let at = spec.pieces.iter().position(|p| p == "<0x9F>").unwrap();
    spec.types[at] = TokenType::Normal;
    assert_eq!(pieces(&Tokenizer::new(spec.clone()).unwrap(), &["a🦙b"]), ["<s>", "▁a", "<unk>", "b"]);
    spec.unk = None;
    let e = Tokenizer::new(spec).unwrap_err();
    assert_eq!(e.to_string(), "reading vocabulary: expected a piece <0x9F> or an unknown id, got neither");
}

#[test]
fn pieces_that_cross_words_are_joined() {
    let mut spec = sentencepiece_spec();
    spec.pieces.extend(["b▁".into(), "b▁a".into()]);
    spec.scores.extend([-0.5, -0.4]);
    spec.types.extend([TokenType::Normal; 2]);
    assert_eq!(pieces(&Tokenizer::new(spec).unwrap(), &["b ab"]), ["<s>", "▁", "b▁a", "b"]);
}

#[test]
fn ends_are_known_by_id_and_by_text() {
    let mut spec = byte_level_spec();
    let [turn, message, normal] = [0, 1, 2];
    (spec.eot, spec.eom) = (Some(turn), Some(message));
    spec.types[spec.pieces.len() - 3] = TokenType::Normal;
    let end = spec.pieces.len() as u32 - 3;
    let tokenizer = Tokenizer::new(spec).unwrap();
    assert_eq!([turn, message, end, normal, 1 << 30].map(|id| tokenizer.is_end(id)), [true, true, true, false, false]);
    assert_eq!(tokenizer.decode(&[end]), Ok(String::new()));
    assert!(sentencepiece().is_end(2) && !sentencepiece().is_end(1));
}

#[test]
fn decoding_drops_the_space_that_encoding_added() {
    let tokenizer = sentencepiece();
    for text in ["ab b", " ab", "", "é\n🦙", "a\0b"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(&[text]).unwrap()).unwrap(), text);
    }
    let ab = tokenizer.encode(&["ab"]).unwrap();
    assert_eq!(tokenizer.decode(&[&ab[..], &[2], &ab[1..]].concat()), Ok("ab ab".into()));
    assert_eq!(byte_level().decode(&byte_level().encode(&[" a<tool>"]).unwrap()), Ok(" a<tool>".into()));
}

#[test]
fn a_stream_never_gives_half_a_character() {
    let tokenizer = sentencepiece();
    let byte = |b: u8| 3 + u32::from(b);
    let mut decoder = tokenizer.decoder();
    let mut push = |id| decoder.push(&tokenizer, id).unwrap();
    assert_eq!([byte(0xF0), byte(0x9F), byte(0xA6)].map(&mut push), ["", "", ""]);
    assert_eq!(push(byte(0x99)), "🦙");
    // A byte that cannot go on: the two before it are certainly wrong, and it begins anew.
    assert_eq!([byte(0xE2), byte(0x96)].map(&mut push), ["", ""]);
    assert_eq!(push(byte(0xC3)), "\u{FFFD}");
    assert_eq!(push(1), "");
    assert_eq!(push(byte(0xA9)), "é");
    assert_eq!(push(byte(0x80)), "\u{FFFD}");
    assert_eq!(push(byte(0xE2)), "");
    assert_eq!(decoder.push(&tokenizer, 99_999).unwrap_err().kind(), ErrorKind::InvalidRequest);
    assert_eq!(decoder.finish(), "\u{FFFD}");
}

#[test]
fn only_the_first_space_of_a_stream_is_dropped() {
    let tokenizer = sentencepiece();
    let ids = tokenizer.encode(&[" a"]).unwrap();
    let mut decoder = tokenizer.decoder();
    let texts: Vec<_> = ids.iter().map(|&id| decoder.push(&tokenizer, id).unwrap()).collect();
    assert_eq!(texts, ["", "", " a"]);
}

#[test]
fn wrong_vocabularies_are_refused() {
    type Case = (fn(&mut VocabSpec), VocabSpec, &'static str);
    let cases: Vec<Case> = vec![
        (|s| s.pieces.clear(), byte_level_spec(), "1 to 4194304 pieces, got 0"),
        (|s| s.pieces[9] = "x".repeat(1 << 20), byte_level_spec(), "at most 4096 bytes, got 1048576 bytes for piece 9"),
        (|s| s.types.truncate(5), byte_level_spec(), "as many types as pieces, 265, got 5"),
        (|s| s.scores.push(0.0), byte_level_spec(), "as many scores as pieces, 265, got 1"),
        (|s| s.scores.clear(), sentencepiece_spec(), "as many scores as pieces, 273, got 0"),
        (|s| s.scores[9] = f32::NAN, sentencepiece_spec(), "got NaN for piece 9"),
        (|s| s.bos = Some(273), sentencepiece_spec(), "the bos id below 273, got 273"),
        (|s| s.eos = Some(u32::MAX), sentencepiece_spec(), "the eos id below 273, got 4294967295"),
        (|s| s.eot = Some(265), byte_level_spec(), "the eot id below 265"),
        (|s| s.eom = Some(265), byte_level_spec(), "the eom id below 265"),
        (|s| s.unk = Some(265), byte_level_spec(), "the unknown id below 265"),
        (|s| s.bos = None, sentencepiece_spec(), "the bos id, since"),
        (|s| s.add_eos = true, byte_level_spec(), "the eos id, since texts get one, got none"),
        (|s| s.pieces[7] = "a".into(), sentencepiece_spec(), "got \"a\" as 7 and 260"),
        (|s| s.pieces[7] = "<0x1>".into(), sentencepiece_spec(), "byte piece 7 to look like <0x0A>, got \"<0x1>\""),
        (|s| s.pieces[7] = "<0x+1>".into(), sentencepiece_spec(), "got \"<0x+1>\""),
        (|s| s.types[0] = TokenType::Byte, byte_level_spec(), "byte piece 0 to look like"),
        (|s| s.merges[1] = "ab".into(), byte_level_spec(), "merge 1 as \"left right\", got \"ab\""),
        (|s| s.merges[1] = String::new(), byte_level_spec(), "merge 1 as \"left right\", got \"\""),
        (|s| s.merges[1] = "é".into(), byte_level_spec(), "merge 1 as \"left right\", got \"é\""),
        (|s| s.merges[1] = "a ".into(), byte_level_spec(), "merge 1 as \"left right\", got \"a \""),
        (|s| s.merges[1] = "a c".into(), byte_level_spec(), "got \"a c\" without \"ac\""),
        (|s| s.merges[1] = "zz c".into(), byte_level_spec(), "got \"zz c\" without \"zz\""),
        (|s| s.pre = "tekken".into(), byte_level_spec(), "got \"tekken\""),
    ];
    for (change, mut spec, wanted) in cases {
        change(&mut spec);
        let e = Tokenizer::new(spec).expect_err(wanted);
        assert!(
            e.to_string().starts_with("reading vocabulary: ") && e.to_string().contains(wanted),
            "{wanted} not in {e}"
        );
    }
}

#[test]
fn empty_pieces_are_padding() {
    let mut spec = byte_level_spec();
    spec.pieces.extend([String::new(), String::new()]);
    spec.types.extend([TokenType::Control, TokenType::Normal]);
    let tokenizer = Tokenizer::new(spec).unwrap();
    assert_eq!(tokenizer.decode(&[265, 266]), Ok(String::new()));
    assert_eq!(pieces(&tokenizer, &["ab"]), ["ab"]);
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    let e = byte_level().decode(&[0, 265]).unwrap_err();
    assert_eq!(e.to_string(), "decoding token: expected an id below 265, got 265");
    assert_eq!(e.kind(), ErrorKind::InvalidRequest);
}

#[test]
fn a_flood_of_one_letter_is_encoded_and_a_larger_one_refused() {
    let flood = "b".repeat(10_000_000);
    for tokenizer in [sentencepiece(), byte_level()] {
        let ids = tokenizer.encode(&[&flood]).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), flood);
    }
    let parts = vec!["a".repeat(1 << 20); 65];
    let e = byte_level().encode(&parts).unwrap_err();
    assert_eq!(e.to_string(), "encoding text: expected at most 67108864 bytes, got 68157440");
}

proptest! {
    #[test]
    fn streamed_equals_whole(ids in prop::collection::vec(0u32..265, 0..40)) {
        for tokenizer in [sentencepiece(), byte_level()] {
            let mut decoder = tokenizer.decoder();
            let mut text: String = ids.iter().map(|&id| decoder.push(&tokenizer, id).unwrap()).collect();
            text.push_str(&decoder.finish());
            prop_assert_eq!(text, tokenizer.decode(&ids).unwrap());
        }
    }

    #[test]
    fn bytes_split_anywhere_stream_as_a_whole(bytes in prop::collection::vec(prop::sample::select(
        vec![0x20u8, 0x41, 0x80, 0x9F, 0xA6, 0xBF, 0xC3, 0xE2, 0xED, 0xF0, 0xF4, 0xFF]), 0..24)) {
        let tokenizer = sentencepiece();
        let mut decoder = tokenizer.decoder();
        let mut text: String =
            bytes.iter().map(|&b| decoder.push(&tokenizer, 3 + u32::from(b)).unwrap()).collect();
        text.push_str(&decoder.finish());
        let bytes = bytes.strip_prefix(b" ").unwrap_or(&bytes);
        prop_assert_eq!(text, String::from_utf8_lossy(bytes));
    }

    #[test]
    fn text_comes_back(text in "(\\PC|\\s|[ab </s>]{1,6}){0,24}") {
        // `▁` is how SentencePiece writes a space, and byte 0xF1 has no piece: both are lost by design.
        prop_assume!(!text.contains(['▁', '\u{40000}']) && !text.bytes().any(|b| b == 0xF1));
        for tokenizer in [sentencepiece(), byte_level()] {
            // One character a part: no special token is found.
            let parts: Vec<String> = text.chars().map(String::from).collect();
            let ids = tokenizer.encode(&parts).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text.as_str());
        }
    }
}
