//! The rules on vocabularies small enough to work out by hand; real ones are checked against golden files.

use super::*;
use crate::tokenizer::{Tokenizer, VocabKind};

/// Pieces with scores and types; `<unk>` comes first and is no text.
fn tokenizer(pieces: &[(&str, f32, TokenType)], change: impl FnOnce(&mut VocabSpec, &mut Rules)) -> Tokenizer {
    let mut spec = VocabSpec {
        kind: VocabKind::SentencePiece,
        pieces: pieces.iter().map(|p| p.0.to_owned()).collect(),
        types: pieces.iter().map(|p| p.2).collect(),
        scores: pieces.iter().map(|p| p.1).collect(),
        merges: vec![],
        pre: String::new(),
        bos: None,
        eos: None,
        eot: None,
        eom: None,
        unk: Some(0),
        add_bos: false,
        add_eos: false,
        add_space_prefix: true,
        legacy: true,
        ends: vec![],
    };
    let mut rules = Rules {
        model: Model::Bpe,
        normalizer: NormalizerSpec { escape_whitespaces: true, ..NormalizerSpec::default() },
        is_text: vec![true; pieces.len()],
    };
    change(&mut spec, &mut rules);
    let scheme = |vocab: &Vocab, spec: &VocabSpec| -> Result<Box<dyn Scheme>> {
        Ok(Box::new(SentencePiece::new(vocab, spec, &rules)?))
    };
    Tokenizer::with_scheme(spec, scheme).unwrap()
}

use TokenType::{Control, Normal, Unknown, Unused, UserDefined};

const PIECES: [(&str, f32, TokenType); 12] = [
    ("<unk>", 0.0, Unknown),
    ("</s>", 0.0, Control),
    ("▁", -3.0, Normal),
    ("a", -4.0, Normal),
    ("b", -5.0, Normal),
    ("ab", -1.0, Normal),
    ("▁ab", -2.0, Unused),
    ("c", -6.0, Unused),
    ("<t>", 0.0, UserDefined),
    ("b<", -1.0, Normal),
    ("ba", -7.0, Normal),
    ("t", -7.5, Normal),
];

fn pieces(tokenizer: &Tokenizer, parts: &[&str]) -> Vec<String> {
    tokenizer.encode(parts).unwrap().iter().map(|&id| tokenizer.piece(id).unwrap().to_owned()).collect()
}

#[test]
fn bpe_by_hand() {
    let tokenizer = tokenizer(&PIECES, |_, _| {});
    let check = |text, expected: &[&str]| assert_eq!(pieces(&tokenizer, &[text]), expected, "{text}");
    check("", &[]);
    // The unused piece is built and taken apart; a single one is unknown, and unknowns in a row are one.
    check("ab", &["▁", "ab"]);
    check("acb", &["▁", "a", "<unk>", "b"]);
    check("xcyb", &["▁", "<unk>", "b"]);
    // A symbol inside text is whole, and nothing is joined to it.
    check("b<t>a", &["▁", "b", "<t>", "a"]);
    check("b<", &["▁", "b<"]);
    // Control tokens are found by the tokenizer, inside a part.
    check("a</s>b", &["▁", "a", "</s>", "▁", "b"]);
    assert_eq!(tokenizer.special_texts(), ["<unk>", "</s>"]);
    assert_eq!(pieces(&tokenizer, &["<", "t>"]), ["▁", "<t>"]);
    assert_eq!(tokenizer.decode(&[2, 5, 8]), Ok("ab<t>".into()));
}

#[test]
fn unigram_by_hand() {
    let tokenizer = tokenizer(&PIECES, |_, rules| rules.model = Model::Unigram);
    let check = |text, expected: &[&str]| assert_eq!(pieces(&tokenizer, &[text]), expected, "{text}");
    check("", &[]);
    check("ab", &["▁", "ab"]);
    check("ba", &["▁", "ba"]);
    check("aab", &["▁", "a", "ab"]);
    check("c", &["▁", "<unk>"]);
    check("xyb", &["▁", "<unk>", "b"]);
    check("b<t>a", &["▁", "b", "<t>", "a"]);
}

#[test]
fn equal_sums_go_to_the_way_found_first() {
    let pieces_ = [("<unk>", 0.0, Unknown), ("▁", -1.0, Normal), ("a", -1.0, Normal), ("aa", -2.0, Normal)];
    let tokenizer = tokenizer(&pieces_, |_, rules| rules.model = Model::Unigram);
    // The long piece was offered while its beginning was handled, before the last single letter.
    assert_eq!(pieces(&tokenizer, &["aaa"]), ["▁", "a", "aa"]);
}

#[test]
fn spaces_are_removed_and_added_where_the_model_says() {
    let with = |removes, suffix, prefix, text: &str| {
        let tokenizer = tokenizer(&PIECES, |spec, rules| {
            spec.add_space_prefix = prefix;
            rules.normalizer.remove_extra_whitespaces = removes;
            rules.normalizer.treat_whitespace_as_suffix = suffix;
        });
        pieces(&tokenizer, &[text]).concat()
    };
    assert_eq!(with(false, false, true, "  a  b "), "▁▁▁a▁▁b▁");
    assert_eq!(with(true, false, true, "  a  b "), "▁a▁b");
    assert_eq!(with(true, false, true, "   "), "");
    assert_eq!(with(true, true, true, " a"), "a▁");
    assert_eq!(with(false, true, true, "a"), "a▁");
    assert_eq!(with(false, false, false, "a b"), "a▁b");
}

#[test]
fn without_legacy_only_the_start_gets_a_space() {
    let with = |legacy, removes, parts: &[&str]| {
        let tokenizer = tokenizer(&PIECES, |spec, rules| {
            spec.legacy = legacy;
            rules.normalizer.remove_extra_whitespaces = removes;
        });
        pieces(&tokenizer, parts).join(" ")
    };
    assert_eq!(with(true, false, &["a</s>b</s>"]), "▁ a </s> ▁ b </s>");
    assert_eq!(with(false, false, &["a</s>b</s>"]), "▁ a </s> b </s>");
    assert_eq!(with(false, false, &["</s>a", "</s> b"]), "</s> a </s> ▁ b");
    assert_eq!(with(false, false, &["▁a"]), "▁ ▁ a");
    assert_eq!(with(true, true, &["a</s>  b"]), "▁ a </s> ▁ b");
    assert_eq!(with(false, true, &["  a</s>  b"]), "▁ ▁ a </s> ▁ b");
}

#[test]
fn what_no_piece_spells_needs_an_unknown_piece() {
    let mut spec = None;
    tokenizer(&PIECES, |s, rules| spec = Some((s.clone(), rules.clone())));
    let (spec, rules) = spec.unwrap();
    let build = |spec: VocabSpec, rules: Rules| {
        Tokenizer::with_scheme(spec, |vocab, spec| Ok(Box::new(SentencePiece::new(vocab, spec, &rules)?)))
            .unwrap_err()
            .to_string()
    };
    let e = build(VocabSpec { unk: None, ..spec.clone() }, rules.clone());
    assert_eq!(e, "reading vocabulary: expected a piece <0x00> or an unknown id, got neither");
    let e = build(spec.clone(), Rules { is_text: vec![true], ..rules.clone() });
    assert_eq!(e, "reading vocabulary: expected a score and a mark for each of 12 pieces");
    let mut broken = rules;
    broken.normalizer.precompiled_charsmap = vec![1];
    let e = build(spec, broken);
    assert_eq!(e, "reading vocabulary: reading the table of normalisation: expected 4 bytes of length");
}

#[test]
fn a_text_that_grows_without_end_is_refused() {
    // Each `a` becomes 128 of them: a table of one rule, as in the tests of `charsmap`.
    let mut units = vec![0u32; 0x300];
    (units[0], units[0x161], units[0x200]) = (0x100 << 10, 0x61 | 1 << 8 | (0x161 ^ 0x200) << 10, 1 << 31);
    let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let table = [&(trie.len() as u32).to_le_bytes()[..], &trie, &[b'a'; 128], b"\0"].concat();
    let tokenizer = tokenizer(&PIECES, |_, rules| rules.normalizer.precompiled_charsmap = table);
    assert_eq!(tokenizer.encode(&["a"]).unwrap().len(), 1 + 128);
    let e = tokenizer.encode(&["a".repeat(4 << 20)]).unwrap_err();
    assert_eq!(e.to_string(), "encoding text: expected at most 268435456 bytes when normalised");
}
