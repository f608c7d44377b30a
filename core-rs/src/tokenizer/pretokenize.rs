//! Pre-tokenizers of byte-level vocabularies: text to words that merges never cross.
//!
//! Each is defined by a regular expression; these scanners give the same words without a regex engine, whose tables
//! would be most of a small WebAssembly build. All run once over the text and keep no state.
//!
//! Absent: pre-tokenizers of model families we do not serve. Using a near relative would give wrong ids in silence, so
//! an unknown name is an error.

use unicode_general_category::{GeneralCategory as Category, get_general_category};

use crate::error::{Error, Result};

/// How text is cut into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreTokenizer {
    /// What llama.cpp does for files that name none: punctuation apart, then GPT-2's words, then digits in threes.
    Default,
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// Every `\p{N}` apart, then GPT-2's words.
    Smollm,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*`
    /// `|\s*[\r\n]+|\s+(?!\S)|\s+`
    Llama3,
    /// As Llama 3, with single digits.
    Qwen2,
}

/// Names in `tokenizer.ggml.pre`; several models share an expression.
const NAMES: &[(&str, PreTokenizer)] = &[
    ("default", PreTokenizer::Default),
    ("gpt-2", PreTokenizer::Gpt2),
    ("smollm", PreTokenizer::Smollm),
    ("starcoder", PreTokenizer::Smollm),
    ("refact", PreTokenizer::Smollm),
    ("llama-bpe", PreTokenizer::Llama3),
    ("llama3", PreTokenizer::Llama3),
    ("llama-v3", PreTokenizer::Llama3),
    ("falcon3", PreTokenizer::Llama3),
    ("qwen2", PreTokenizer::Qwen2),
    ("deepseek-r1-qwen", PreTokenizer::Qwen2),
];

impl PreTokenizer {
    /// The pre-tokenizer with this name; no name means `default`.
    ///
    /// # Errors
    /// `unsupported` for a name we do not know, listing those we do.
    pub fn from_name(name: &str) -> Result<Self> {
        let name = if name.is_empty() { "default" } else { name };
        NAMES.iter().find(|(known, _)| *known == name).map(|&(_, pre)| pre).ok_or_else(|| {
            let known: Vec<_> = NAMES.iter().map(|(known, _)| *known).collect();
            Error::unsupported(format!("expected a pre-tokenizer of {}, got {name:?}", known.join(" ")))
        })
    }

    /// The name that files give it, the most usual where there are several.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(_, pre)| *pre == self).map(|(name, _)| *name)
    }

    /// Whether a word that is a piece as it stands is taken without merging.
    pub const fn takes_whole_words(self) -> bool {
        matches!(self, Self::Llama3)
    }

    /// Hands each word of `text` to `word`, in order; together they are the text.
    pub fn split<'t>(self, text: &'t str, mut word: impl FnMut(&'t str)) {
        match self {
            Self::Default => runs(text, is_default_punctuation, |run| {
                each(run, gpt2_len, |w| runs(w, is_number, |digits| runs_of_three(digits, &mut word)));
            }),
            Self::Gpt2 => each(text, gpt2_len, word),
            Self::Smollm => each(text, single_number_len, |run| each(run, gpt2_len, &mut word)),
            Self::Llama3 => each(text, |rest| llama3_len(rest, 3), word),
            Self::Qwen2 => each(text, |rest| llama3_len(rest, 1), word),
        }
    }
}

/// Cuts `text` where `len` says, at least one character at a time.
fn each<'t>(text: &'t str, len: impl Fn(&str) -> usize, mut word: impl FnMut(&'t str)) {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (head, tail) = rest.split_at(len(rest).max(first.len_utf8()));
        word(head);
        rest = tail;
    }
}

/// Cuts `text` where `is_in` changes.
fn runs<'t>(text: &'t str, is_in: impl Fn(char) -> bool, word: impl FnMut(&'t str)) {
    let len = |rest: &str| {
        let is_first_in = rest.chars().next().is_some_and(&is_in);
        while_len(rest, |c| is_in(c) == is_first_in)
    };
    each(text, len, word);
}

/// Cuts every three ASCII digits in a row apart from what surrounds them, as `[0-9][0-9][0-9]` does.
fn runs_of_three<'t>(text: &'t str, mut word: impl FnMut(&'t str)) {
    let mut start = 0;
    let mut at = 0;
    while let Some(three) = text.as_bytes().get(at..at + 3) {
        if three.iter().all(u8::is_ascii_digit) {
            [&text[start..at], &text[at..at + 3]].into_iter().filter(|w| !w.is_empty()).for_each(&mut word);
            at += 3;
            start = at;
        } else {
            at += 1;
        }
    }
    if start < text.len() {
        word(&text[start..]);
    }
}

/// Bytes of one numeral, or up to the next.
fn single_number_len(rest: &str) -> usize {
    match rest.chars().next() {
        Some(c) if is_number(c) => c.len_utf8(),
        _ => while_len(rest, |c| !is_number(c)),
    }
}

/// Bytes of the first word by GPT-2's expression.
fn gpt2_len(rest: &str) -> usize {
    if let Some(len) = contraction_len(rest, false) {
        return len;
    }
    let space = usize::from(rest.starts_with(' '));
    match class_at(rest, space) {
        Some(Class::Space) | None => space_len(rest),
        Some(class) => space + while_len(&rest[space..], |c| Class::of(c) == class),
    }
}

/// Bytes of the first word by Llama 3's expression, with up to `max_digits` numerals a word.
fn llama3_len(rest: &str, max_digits: usize) -> usize {
    if let Some(len) = contraction_len(rest, true) {
        return len;
    }
    let Some(first) = rest.chars().next() else { return 0 };
    let lead = if Class::of(first) == Class::Letter { 0 } else { first.len_utf8() };
    if !matches!(first, '\r' | '\n') && !is_number(first) && class_at(rest, lead) == Some(Class::Letter) {
        return lead + while_len(&rest[lead..], |c| Class::of(c) == Class::Letter);
    }
    if is_number(first) {
        return rest.chars().take(max_digits).take_while(|&c| is_number(c)).map(char::len_utf8).sum();
    }
    let space = usize::from(first == ' ');
    if class_at(rest, space) == Some(Class::Other) {
        let len = space + while_len(&rest[space..], |c| Class::of(c) == Class::Other);
        return len + while_len(&rest[len..], |c| matches!(c, '\r' | '\n'));
    }
    let spaces = &rest[..while_len(rest, char::is_whitespace)];
    spaces.rfind(['\r', '\n']).map_or_else(|| space_len(rest), |last| last + 1)
}

/// Bytes of `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d` at the start.
fn contraction_len(rest: &str, is_any_case: bool) -> Option<usize> {
    let tail = rest.as_bytes().strip_prefix(b"'")?;
    ["s", "t", "m", "d", "re", "ve", "ll"].into_iter().find_map(|ending| {
        let found = tail.get(..ending.len())?;
        let is_same =
            if is_any_case { found.eq_ignore_ascii_case(ending.as_bytes()) } else { found == ending.as_bytes() };
        is_same.then_some(1 + ending.len())
    })
}

/// `\s+(?!\S)|\s+`: a run of spaces keeps its last one for the word behind it, unless it is the only one.
fn space_len(rest: &str) -> usize {
    let len = while_len(rest, char::is_whitespace);
    let last = rest[..len].chars().next_back().map_or(0, char::len_utf8);
    if len == rest.len() || len == last { len } else { len - last }
}

/// Bytes of the characters in front for which `keep` holds.
fn while_len(text: &str, keep: impl Fn(char) -> bool) -> usize {
    text.find(|c| !keep(c)).unwrap_or(text.len())
}

/// The four classes the expressions tell apart: `\s`, `\p{L}`, `\p{N}`, the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Letter,
    Number,
    Other,
}

impl Class {
    fn of(c: char) -> Self {
        use Category::*;
        if c.is_ascii() {
            return match c {
                'a'..='z' | 'A'..='Z' => Self::Letter,
                '0'..='9' => Self::Number,
                '\t'..='\r' | ' ' => Self::Space,
                _ => Self::Other,
            };
        }
        match get_general_category(c) {
            _ if c.is_whitespace() => Self::Space,
            UppercaseLetter | LowercaseLetter | TitlecaseLetter | ModifierLetter | OtherLetter => Self::Letter,
            DecimalNumber | LetterNumber | OtherNumber => Self::Number,
            _ => Self::Other,
        }
    }
}

fn class_at(text: &str, at: usize) -> Option<Class> {
    text.get(at..)?.chars().next().map(Class::of)
}

fn is_number(c: char) -> bool {
    Class::of(c) == Class::Number
}

/// `[\p{P}\$\+<=>\^~\|]`: all ASCII signs but the backtick, and Unicode punctuation.
fn is_default_punctuation(c: char) -> bool {
    use Category::*;
    if c.is_ascii() {
        return c.is_ascii_punctuation() && c != '`';
    }
    matches!(
        get_general_category(c),
        ConnectorPunctuation
            | DashPunctuation
            | OpenPunctuation
            | ClosePunctuation
            | InitialPunctuation
            | FinalPunctuation
            | OtherPunctuation
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    fn words(pre: PreTokenizer, text: &str) -> Vec<&str> {
        let mut out = Vec::new();
        pre.split(text, |word| out.push(word));
        out
    }

    #[test]
    fn gpt2_words() {
        let check = |text, expected: &[&str]| assert_eq!(words(PreTokenizer::Gpt2, text), expected);
        check("", &[]);
        check("Hello  world 12!", &["Hello", " ", " world", " 12", "!"]);
        check("it's they'LL 'x", &["it", "'s", " they", "'", "LL", " '", "x"]);
        check("a\n\n b  ", &["a", "\n\n", " b", "  "]);
        check("\t\tx", &["\t", "\t", "x"]);
        check("日本語。é\u{301}x", &["日本語", "。", "é", "\u{301}", "x"]);
    }

    #[test]
    fn smollm_digits_stand_alone() {
        let check = |text, expected: &[&str]| assert_eq!(words(PreTokenizer::Smollm, text), expected);
        check("in 2024", &["in", " ", "2", "0", "2", "4"]);
        check("a  1", &["a", "  ", "1"]);
        check("½٣", &["½", "٣"]);
    }

    #[test]
    fn llama3_words() {
        let check = |text, expected: &[&str]| assert_eq!(words(PreTokenizer::Llama3, text), expected);
        check("I'M 12345 (ok)\n\nx", &["I", "'M", " ", "123", "45", " (", "ok", ")\n\n", "x"]);
        check("a \n \n  b", &["a", " \n \n", " ", " b"]);
        check("\tx !?\r\ny", &["\tx", " !?\r\n", "y"]);
        check("1\nx", &["1", "\n", "x"]);
        check(" ", &[" "]);
    }

    #[test]
    fn qwen2_digits_stand_alone() {
        assert_eq!(words(PreTokenizer::Qwen2, "ab 12c"), ["ab", " ", "1", "2", "c"]);
    }

    #[test]
    fn default_parts_punctuation_and_threes() {
        let check = |text, expected: &[&str]| assert_eq!(words(PreTokenizer::Default, text), expected);
        check("x=12345 `y", &["x", "=", "123", "45", " `", "y"]);
        check(" 7٣22", &[" ", "7٣22"]);
        check("1٣222", &["1٣", "222"]);
        check("don't", &["don", "'", "t"]);
    }

    #[test]
    fn an_unknown_name_lists_the_known() {
        assert_eq!(PreTokenizer::from_name(""), Ok(PreTokenizer::Default));
        let e = PreTokenizer::from_name("tekken").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(e.to_string().contains("smollm") && e.to_string().ends_with("got \"tekken\""), "{e}");
    }

    proptest! {
        #[test]
        fn words_are_the_text(text in "(\\PC|\\s|'[a-z]{0,2}|[0-9]{1,5}|[a-z]{1,3}| ){0,24}") {
            for (_, pre) in NAMES {
                let words = words(*pre, &text);
                prop_assert!(words.iter().all(|w| !w.is_empty()));
                prop_assert_eq!(words.concat(), text.as_str());
            }
        }
    }
}
