//! SentencePiece BPE as GGUF `llama` vocabularies carry it: pairs joined by score, bytes where no piece fits.
//!
//! Absent: the Unicode normalisation of SentencePiece. Llama's models were trained with the identity, and llama.cpp,
//! whose ids are the reference, does none.

use super::merge::{MAX_WORD_LEN, Merge, Merger, chunks};
use super::vocab::{TokenType, Vocab};
use crate::error::{Error, Result};

/// What SentencePiece writes for a space.
pub(super) const SPACE: &str = "▁";

#[derive(Debug)]
pub(super) struct SentencePiece {
    /// For each id the merge that makes it, or none for pieces that text must never become.
    merges: Vec<Option<Merge>>,
    byte_ids: [Option<u32>; 256],
    /// Longest piece in bytes: longer pairs need no lookup.
    max_piece_len: usize,
    /// Whether no piece has a space after another character. Then merges never cross from a word into the next, and
    /// words can be merged one by one with the same result.
    has_whole_words: bool,
}

impl SentencePiece {
    pub fn new(vocab: &Vocab, scores: &[f32]) -> Result<Self> {
        let byte_ids = vocab.byte_ids()?;
        if let (Some(byte), None) = (byte_ids.iter().position(Option::is_none), vocab.unk) {
            return Err(Error::invalid_format(format!(
                "expected a piece <0x{byte:02X}> or an unknown id, got neither"
            )));
        }
        let mergeable = |t| !matches!(t, TokenType::Control | TokenType::Unknown | TokenType::Byte);
        let merges = vocab
            .iter()
            .zip(scores)
            .map(|((id, _, t), &score)| mergeable(t).then_some(Merge { rank: rank(score), id }));
        Ok(Self {
            merges: merges.collect(),
            byte_ids,
            max_piece_len: vocab.iter().map(|(_, piece, _)| piece.len()).max().unwrap_or(0),
            has_whole_words: !vocab.iter().any(|(_, p, t)| mergeable(t) && p.trim_start_matches(SPACE).contains(SPACE)),
        })
    }

    /// Appends the ids of `text`, in which spaces are `▁` already.
    pub fn encode(&self, vocab: &Vocab, text: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        let mut rest = text;
        while !rest.is_empty() {
            let (word, tail) = rest.split_at(if self.has_whole_words { word_len(rest) } else { rest.len() });
            for chunk in chunks(word, MAX_WORD_LEN) {
                self.encode_word(vocab, chunk, merger, out);
            }
            rest = tail;
        }
    }

    fn encode_word(&self, vocab: &Vocab, word: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        merger.clear();
        let mut utf8 = [0; 4];
        for c in word.chars() {
            let id = self.merge(vocab, c.encode_utf8(&mut utf8)).map(|m| m.id);
            merger.push(c.len_utf8(), id);
        }
        merger.run(|left, right| self.merge(vocab, &word[left.joined(right)]));
        for symbol in merger.symbols() {
            match symbol.id {
                Some(id) => out.push(id),
                None => self.push_bytes(vocab, &word[symbol.range()], out),
            }
        }
    }

    fn merge(&self, vocab: &Vocab, text: &str) -> Option<Merge> {
        if text.len() > self.max_piece_len {
            return None;
        }
        self.merges[vocab.id(text)? as usize]
    }

    /// One character as bytes, or as the unknown piece when one of its bytes has no piece.
    fn push_bytes(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        let len = out.len();
        for byte in text.bytes() {
            let Some(id) = self.byte_ids[usize::from(byte)] else {
                out.truncate(len);
                out.extend(vocab.unk);
                return;
            };
            out.push(id);
        }
    }
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
