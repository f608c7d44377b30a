//! The unigram model: of all ways to cut a text into pieces, the one with the largest sum of scores.
//!
//! Step by step SentencePiece's `EncodeOptimized`, also in the order and the precision of sums, so that ties and near
//! ties come out alike.

use crate::tokenizer::merge::{MAX_WORD_LEN, chunks};
use crate::tokenizer::spm::Sink;
use crate::tokenizer::trie::Trie;
use crate::tokenizer::vocab::{TokenType, Vocab};

/// How much worse an unknown character is than the worst piece.
const UNKNOWN_PENALTY: f32 = 10.0;

#[derive(Debug)]
pub(super) struct Unigram {
    pieces: Trie,
    /// The score of each id; none for user-defined symbols, which always win.
    scores: Vec<Option<f32>>,
    unknown_score: f32,
    max_score: f32,
}

/// The best way to cut the text in front of a position: the last piece and the sum.
#[derive(Clone, Copy)]
struct Best {
    /// The piece; none for an unknown character.
    id: Option<u32>,
    score: f32,
    /// Where the piece begins; nothing when no way leads here.
    start: Option<u32>,
}

impl Unigram {
    /// A model of the pieces for which `is_text` holds.
    pub fn new(vocab: &Vocab, scores: &[f32], is_text: impl Fn(u32, TokenType) -> bool) -> Self {
        let usable = vocab.iter().filter(|&(id, _, t)| t != TokenType::Unused && is_text(id, t));
        let normal = || vocab.iter().zip(scores).filter(|((_, _, t), _)| *t == TokenType::Normal).map(|(_, &s)| s);
        Self {
            pieces: Trie::new(usable.map(|(id, piece, _)| (id, piece))),
            scores: vocab
                .iter()
                .zip(scores)
                .map(|((_, _, t), &s)| (t != TokenType::UserDefined).then_some(s))
                .collect(),
            unknown_score: normal().fold(f32::MAX, f32::min) - UNKNOWN_PENALTY,
            // Where SentencePiece begins its search for the largest: a tiny number above 0, larger than most scores.
            max_score: normal().fold(f32::MIN_POSITIVE, f32::max),
        }
    }

    /// Gives the ids of `text`.
    pub fn encode(&self, text: &str, sink: &mut Sink) {
        // Memory is bounded by handling longer texts in pieces, as in BPE.
        for chunk in chunks(text, MAX_WORD_LEN) {
            let best = self.best(chunk);
            let mut ends = Vec::new();
            let mut end = chunk.len();
            while let Some(start) = best[end].start {
                ends.push((start as usize..end, best[end].id));
                end = start as usize;
            }
            ends.into_iter().rev().for_each(|(range, id)| sink.push(id, &chunk[range]));
        }
    }

    /// For each position the best way to it.
    fn best(&self, text: &str) -> Vec<Best> {
        let mut best = vec![Best { id: None, score: 0.0, start: None }; text.len() + 1];
        for (start, c) in text.char_indices() {
            let before = best[start].score;
            let mut offer = |len: usize, id, score: f32| {
                let best = &mut best[start + len];
                if best.start.is_none() || score > best.score {
                    *best = Best { id, score, start: Some(start as u32) };
                }
            };
            let mut is_known = false;
            for (len, id) in self.pieces.prefixes(&text.as_bytes()[start..]) {
                offer(len, Some(id), self.score(id, len) + before);
                is_known |= len == c.len_utf8();
            }
            if !is_known {
                offer(c.len_utf8(), None, self.unknown_score + before);
            }
        }
        best
    }

    fn score(&self, id: u32, len: usize) -> f32 {
        self.scores[id as usize].unwrap_or_else(|| (f64::from(len as f32 * self.max_score) - 0.1) as f32)
    }
}
