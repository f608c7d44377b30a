//! The pieces of a vocabulary while files add to them.

use super::settings::Added;
use crate::error::{Error, Result};
use crate::tokenizer::{MAX_PIECES, TokenType};

/// The score of pieces that no text becomes; what llama.cpp's converter writes.
const NO_SCORE: f32 = -10_000.0;

/// Most ids without a piece before the last piece, so that no small file asks for a large vocabulary.
const MAX_GAPS: usize = 1 << 16;

/// Pieces by id.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub pieces: Vec<String>,
    pub scores: Vec<f32>,
    pub types: Vec<TokenType>,
    /// Whether the model itself makes this piece of text; added tokens are found before it sees a text.
    pub is_text: Vec<bool>,
    gaps: usize,
}

impl Draft {
    /// Appends a piece of the model.
    pub fn push(&mut self, text: String, score: f32, token_type: TokenType) {
        self.pieces.push(text);
        self.scores.push(score);
        self.types.push(token_type);
        self.is_text.push(true);
    }

    /// Holds ids free in front of a piece.
    pub fn skip_to(&mut self, id: usize) -> Result<()> {
        self.gaps = self.gaps.saturating_add(id.saturating_sub(self.pieces.len()));
        if id >= MAX_PIECES || self.gaps > MAX_GAPS {
            let message = format!("expected ids below {MAX_PIECES} with at most {MAX_GAPS} left out, got {id}");
            return Err(Error::invalid_format(message));
        }
        self.pad(id);
        Ok(())
    }

    /// Appends places held free up to `len` pieces, which have names as llama.cpp's converter gives them.
    fn pad(&mut self, len: usize) {
        for id in self.pieces.len()..len {
            self.push(format!("[PAD{id}]"), NO_SCORE, TokenType::Unused);
            self.is_text[id] = false;
        }
    }

    /// Adds a token, or gives the piece that has its id another meaning.
    pub fn add(&mut self, added: &Added) -> Result<()> {
        let id = added.id as usize;
        self.skip_to(id).map_err(|e| e.context("reading added tokens"))?;
        self.pad(id + 1);
        let token_type = match self.types[id] {
            TokenType::Unknown => TokenType::Unknown,
            _ if added.is_special => TokenType::Control,
            TokenType::Control => TokenType::Control,
            _ => TokenType::UserDefined,
        };
        if self.pieces[id] != added.text {
            self.pieces[id].clone_from(&added.text);
            self.scores[id] = NO_SCORE;
        }
        (self.types[id], self.is_text[id]) = (token_type, false);
        Ok(())
    }

    /// Pads or cuts to the rows of the embedding: files pad it to round numbers, and name tokens it has no row for.
    pub fn fit(&mut self, n_vocab: Option<usize>) {
        let Some(n) = n_vocab.map(|n| n.min(MAX_PIECES)) else { return };
        self.pad(n);
        self.pieces.truncate(n);
        self.scores.truncate(n);
        self.types.truncate(n);
        self.is_text.truncate(n);
    }

    /// Whether this is the piece of unknown text.
    pub fn is_unknown(&self, text: &str) -> bool {
        self.id(text).is_some_and(|id| self.types[id as usize] == TokenType::Unknown)
    }

    /// The id of a piece.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.pieces.iter().position(|piece| piece == text).map(|id| id as u32)
    }
}
