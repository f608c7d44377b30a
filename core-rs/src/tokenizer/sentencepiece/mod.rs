//! The rules of SentencePiece itself, for its own model files: normalisation, user-defined symbols inside text, and
//! both of its models, BPE and unigram. The ids are those of the library, text by text.
//!
//! GGUF files are encoded by llama.cpp's simpler rules (`super::spm`) and never come here. Absent: reading the file
//! (`formats`), sampling, words and characters as models.

mod charsmap;
mod normalizer;
mod unigram;

pub use normalizer::NormalizerSpec;

use std::ops::Range;

use normalizer::Normalizer;
use unigram::Unigram;

use super::merge::Merger;
use super::spm::{Fallback, SPACE, ScoreBpe, Sink, SpacePrefix};
use super::trie::Trie;
use super::vocab::{TokenType, Vocab, VocabSpec};
use super::{Place, Scheme, Spelling};
use crate::error::{Error, Result};

/// How pieces are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Pairs are joined by score.
    Bpe,
    /// The pieces whose scores have the largest sum.
    Unigram,
}

/// What a model file says besides its pieces. Their scores, `legacy` and `add_space_prefix` are in the `VocabSpec`.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How pieces are chosen.
    pub model: Model,
    /// What is done to text before.
    pub normalizer: NormalizerSpec,
    /// For each id, whether the model itself has it as text; tokens that other files add or rename are none of its.
    pub is_text: Vec<bool>,
}

/// SentencePiece's way from text to ids.
#[derive(Debug)]
pub struct SentencePiece {
    normalizer: Normalizer,
    engine: Engine,
    fallback: Fallback,
    prefix: SpacePrefix,
    /// Whether a text is a part of one, as to Hugging Face's `LlamaTokenizer` without `legacy`, rather than a whole
    /// one, as to SentencePiece itself.
    is_part: bool,
    /// User-defined symbols that are part of text, and their ids in ascending order.
    symbols: Trie,
    symbol_ids: Vec<u32>,
}

#[derive(Debug)]
enum Engine {
    Bpe(ScoreBpe),
    Unigram(Unigram),
}

impl SentencePiece {
    /// The rules for `vocab`, whose pieces were described by `spec`.
    ///
    /// # Errors
    /// `invalid_format` when the table of normalisation or a list is broken, or when nothing stands for unknown text.
    pub fn new(vocab: &Vocab, spec: &VocabSpec, rules: &Rules) -> Result<Self> {
        if rules.is_text.len() != vocab.len() || spec.scores.len() != vocab.len() {
            let message = format!("expected a score and a mark for each of {} pieces", vocab.len());
            return Err(Error::invalid_format(message));
        }
        let usable = |t| matches!(t, TokenType::Normal | TokenType::UserDefined | TokenType::Unused);
        let is_text = |id: u32, t| rules.is_text[id as usize] && usable(t);
        let is_symbol = |&(id, _, t): &(u32, &str, TokenType)| is_text(id, t) && t == TokenType::UserDefined;
        let symbols = || vocab.iter().filter(is_symbol);
        Ok(Self {
            normalizer: Normalizer::new(&rules.normalizer)?,
            engine: match rules.model {
                Model::Bpe => Engine::Bpe(ScoreBpe::new(vocab, &spec.scores, is_text).splitting_unused(vocab)),
                Model::Unigram => Engine::Unigram(Unigram::new(vocab, &spec.scores, is_text)),
            },
            fallback: Fallback::new(vocab, true)?,
            prefix: SpacePrefix::new(spec),
            is_part: !spec.legacy,
            symbols: Trie::new(symbols().map(|(id, piece, _)| (id, piece))),
            symbol_ids: symbols().map(|(id, ..)| id).collect(),
        })
    }

    /// The user-defined symbols in `text`.
    fn find_symbols(&self, text: &str) -> Vec<Range<usize>> {
        if self.symbol_ids.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(c) = text[at..].chars().next() {
            let len = self.symbol_len(&text[at..]);
            found.extend(len.map(|len| at..at + len));
            at += len.unwrap_or(c.len_utf8());
        }
        found
    }

    /// Bytes of the longest user-defined symbol in front.
    fn symbol_len(&self, text: &str) -> Option<usize> {
        self.symbols.prefixes(text.as_bytes()).last().map(|(len, _)| len)
    }
}

impl Scheme for SentencePiece {
    fn encode(&self, vocab: &Vocab, text: &str, place: Place, merger: &mut Merger, out: &mut Vec<u32>) -> Result<()> {
        let has_space = self.prefix.applies(place);
        let symbol_len = |rest: &str| self.symbol_len(rest);
        let text = if self.is_part {
            let text = [if has_space { SPACE } else { "" }, &text.replace(SPACE, " ")].concat();
            self.normalizer.normalize(&text, false, text.starts_with([' ', '▁']), symbol_len)
        } else {
            self.normalizer.normalize(text, has_space, false, symbol_len)
        }?;
        let mut sink = Sink::new(&self.fallback, out);
        match &self.engine {
            Engine::Bpe(bpe) => bpe.encode(vocab, &text, |word| self.find_symbols(word), merger, &mut sink),
            Engine::Unigram(unigram) => unigram.encode(&text, &mut sink),
        }
        Ok(())
    }

    fn spelling(&self) -> Spelling {
        Spelling::Spaces
    }

    fn has_space_prefix(&self) -> bool {
        self.normalizer.drops_space() || self.prefix != SpacePrefix::Never
    }

    fn finds(&self, id: u32) -> bool {
        self.symbol_ids.binary_search(&id).is_ok()
    }
}

#[cfg(test)]
mod tests;
