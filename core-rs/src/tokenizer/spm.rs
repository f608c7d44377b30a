//! BPE as SentencePiece does it: pairs joined by score, bytes where no piece fits. `ScoreBpe` is the engine of both
//! kinds of file; `Llama` are llama.cpp's rules around it, for GGUF `llama` vocabularies.
//!
//! Absent: the Unicode normalisation of SentencePiece. Llama's models were trained with the identity, and llama.cpp,
//! whose ids are the reference here, does none; `sentencepiece` has it.

use std::collections::HashMap;
use std::ops::Range;

use super::merge::{MAX_WORD_LEN, Merge, Merger, chunks};
use super::vocab::{TokenType, Vocab, VocabSpec};
use super::{Place, Scheme, Spelling};
use crate::error::{Error, Result};

/// What SentencePiece writes for a space.
pub(super) const SPACE: &str = "▁";

/// The rules of llama.cpp.
#[derive(Debug)]
pub(super) struct Llama {
    bpe: ScoreBpe,
    fallback: Fallback,
    prefix: SpacePrefix,
}

impl Llama {
    pub fn new(vocab: &Vocab, spec: &VocabSpec) -> Result<Self> {
        let fallback = Fallback::new(vocab, false)?;
        let is_text = |_, t| !matches!(t, TokenType::Control | TokenType::Unknown | TokenType::Byte);
        Ok(Self { bpe: ScoreBpe::new(vocab, &spec.scores, is_text), fallback, prefix: SpacePrefix::new(spec) })
    }
}

impl Scheme for Llama {
    fn encode(&self, vocab: &Vocab, text: &str, place: Place, merger: &mut Merger, out: &mut Vec<u32>) -> Result<()> {
        let prefix = if self.prefix.applies(place) { SPACE } else { "" };
        let text = [prefix, &text.replace(' ', SPACE)].concat();
        self.bpe.encode(vocab, &text, |_| Vec::new(), merger, &mut Sink::new(&self.fallback, out));
        Ok(())
    }

    fn spelling(&self) -> Spelling {
        Spelling::Spaces
    }

    fn has_space_prefix(&self) -> bool {
        self.prefix != SpacePrefix::Never
    }
}

/// Which texts get a space in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpacePrefix {
    /// At the start and after special tokens.
    Always,
    /// At the very start of all.
    Start,
    Never,
}

impl SpacePrefix {
    pub fn new(spec: &VocabSpec) -> Self {
        match (spec.add_space_prefix, spec.legacy) {
            (true, true) => Self::Always,
            (true, false) => Self::Start,
            (false, _) => Self::Never,
        }
    }

    pub fn applies(self, place: Place) -> bool {
        self == Self::Always || (self == Self::Start && place == Place::Start)
    }
}

/// What text without a piece becomes.
#[derive(Debug)]
pub(super) struct Fallback {
    byte_ids: [Option<u32>; 256],
    unk: Option<u32>,
    /// Whether unknown characters in a row are one unknown piece.
    is_fused: bool,
}

impl Fallback {
    pub fn new(vocab: &Vocab, is_fused: bool) -> Result<Self> {
        let (byte_ids, unk) = (vocab.byte_ids()?, vocab.unk);
        if let (Some(byte), None) = (byte_ids.iter().position(Option::is_none), unk) {
            return Err(Error::invalid_format(format!(
                "expected a piece <0x{byte:02X}> or an unknown id, got neither"
            )));
        }
        Ok(Self { byte_ids, unk, is_fused })
    }
}

/// Takes the ids of one stretch of text.
pub(super) struct Sink<'a> {
    fallback: &'a Fallback,
    out: &'a mut Vec<u32>,
    is_after_unknown: bool,
}

impl<'a> Sink<'a> {
    pub fn new(fallback: &'a Fallback, out: &'a mut Vec<u32>) -> Self {
        Self { fallback, out, is_after_unknown: false }
    }

    pub fn push(&mut self, id: Option<u32>, text: &str) {
        match id {
            Some(id) => self.out.push(id),
            None => return self.push_unknown(text),
        }
        self.is_after_unknown = false;
    }

    /// One character as bytes, or as the unknown piece when one of its bytes has no piece.
    fn push_unknown(&mut self, text: &str) {
        let len = self.out.len();
        self.out.extend(text.bytes().map_while(|byte| self.fallback.byte_ids[usize::from(byte)]));
        let is_unknown = self.out.len() - len < text.len();
        if is_unknown {
            self.out.truncate(len);
            self.out.extend(self.fallback.unk.filter(|_| !(self.fallback.is_fused && self.is_after_unknown)));
        }
        self.is_after_unknown = is_unknown;
    }
}

/// Pairs joined by score.
#[derive(Debug)]
pub(super) struct ScoreBpe {
    /// For each id the merge that makes it, or none for pieces that text must never become.
    merges: Vec<Option<Merge>>,
    /// Longest piece in bytes: longer pairs need no lookup.
    max_piece_len: usize,
    /// Whether merges never cross from a word into the next, so that words can be merged one by one with the same
    /// result: no piece has a space after another character, and none is taken apart again (see `split_unused`).
    has_whole_words: bool,
    /// Whether pieces of type `Unused` are built but not given out, as in SentencePiece: what they were joined from is.
    splits_unused: bool,
}

impl ScoreBpe {
    /// A merger into all pieces for which `is_text` holds.
    pub fn new(vocab: &Vocab, scores: &[f32], is_text: impl Fn(u32, TokenType) -> bool) -> Self {
        let pieces = || vocab.iter().filter(|&(id, _, t)| is_text(id, t));
        let mut merges = vec![None; vocab.len()];
        pieces().for_each(|(id, ..)| merges[id as usize] = Some(Merge { rank: rank(scores[id as usize]), id }));
        Self {
            merges,
            max_piece_len: vocab.iter().map(|(_, piece, _)| piece.len()).max().unwrap_or(0),
            has_whole_words: !pieces().any(|(_, piece, _)| piece.trim_start_matches(SPACE).contains(SPACE)),
            splits_unused: false,
        }
    }

    /// The same, with unused pieces taken apart again.
    pub fn splitting_unused(self, vocab: &Vocab) -> Self {
        let splits_unused = vocab.iter().any(|(id, _, t)| t == TokenType::Unused && self.merges[id as usize].is_some());
        Self { splits_unused, has_whole_words: self.has_whole_words && !splits_unused, ..self }
    }

    /// Gives the ids of `text`, in which spaces are `▁` already. `whole` says which stretches of a word are symbols
    /// that nothing is joined to.
    pub fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        whole: impl Fn(&str) -> Vec<Range<usize>>,
        merger: &mut Merger,
        sink: &mut Sink,
    ) {
        let mut rest = text;
        while !rest.is_empty() {
            let (word, tail) = rest.split_at(if self.has_whole_words { word_len(rest) } else { rest.len() });
            for chunk in chunks(word, MAX_WORD_LEN) {
                self.encode_word(vocab, chunk, &whole(chunk), merger, sink);
            }
            rest = tail;
        }
    }

    fn encode_word(&self, vocab: &Vocab, word: &str, whole: &[Range<usize>], merger: &mut Merger, sink: &mut Sink) {
        merger.clear();
        for range in symbols(word, whole) {
            let id = self.merge(vocab, &word[range.clone()]).map(|m| m.id);
            merger.push(range.len(), id);
        }
        let is_whole = |start: u32| whole.binary_search_by_key(&(start as usize), |r| r.start).is_ok();
        let mut halves = HashMap::new();
        merger.run(|left, right| {
            if is_whole(left.start) || is_whole(right.start) {
                return None;
            }
            let text = &word[left.joined(right)];
            let merge = self.merge(vocab, text)?;
            if self.is_unused(vocab, merge.id) {
                halves.insert(text, left.len as usize);
            }
            Some(merge)
        });
        for symbol in merger.symbols() {
            let text = &word[symbol.range()];
            match symbol.id {
                Some(id) if self.is_unused(vocab, id) => self.split_unused(vocab, text, &halves, sink),
                id => sink.push(id, text),
            }
        }
    }

    /// The pieces that an unused one was last seen to be joined from, down to used ones and unknown characters.
    fn split_unused(&self, vocab: &Vocab, text: &str, halves: &HashMap<&str, usize>, sink: &mut Sink) {
        let mut stack = vec![text];
        while let Some(text) = stack.pop() {
            let id = self.merge(vocab, text).map(|m| m.id).filter(|&id| !self.is_unused(vocab, id));
            match halves.get(text) {
                Some(&at) if id.is_none() => {
                    let (left, right) = text.split_at(at);
                    stack.extend([right, left]);
                }
                _ => sink.push(id, text),
            }
        }
    }

    fn is_unused(&self, vocab: &Vocab, id: u32) -> bool {
        self.splits_unused && matches!(vocab.get(id), Some((_, TokenType::Unused)))
    }

    fn merge(&self, vocab: &Vocab, text: &str) -> Option<Merge> {
        if text.len() > self.max_piece_len {
            return None;
        }
        self.merges[vocab.id(text)? as usize]
    }
}

/// The symbols of a word before any are joined: its characters, but for stretches that stay whole.
fn symbols(word: &str, whole: &[Range<usize>]) -> impl Iterator<Item = Range<usize>> {
    let mut whole = whole.iter().cloned().peekable();
    let mut at = 0;
    std::iter::from_fn(move || {
        let range = match whole.next_if(|r| r.start == at) {
            Some(range) => range,
            None => at..at + word[at..].chars().next()?.len_utf8(),
        };
        at = range.end;
        Some(range)
    })
}

/// Bytes up to the next `▁` that follows another character.
fn word_len(text: &str) -> usize {
    let spaces = text.len() - text.trim_start_matches(SPACE).len();
    text[spaces..].find(SPACE).map_or(text.len(), |at| spaces + at)
}

/// Scores as ranks: the higher the score, the smaller the number, and equal (also 0 and -0) stay equal.
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_fall_as_scores_rise() {
        let scores = [f32::INFINITY, 3.5, 0.0, -1e-9, -1.0, -31999.0, f32::NEG_INFINITY];
        assert!(scores.windows(2).all(|s| rank(s[0]) < rank(s[1])));
        assert_eq!(rank(0.0), rank(-0.0));
    }

    #[test]
    fn words_begin_at_spaces() {
        assert_eq!(word_len("▁▁ab▁c"), "▁▁ab".len());
        assert_eq!(word_len("ab"), 2);
        assert_eq!(word_len("▁▁"), "▁▁".len());
    }
}
