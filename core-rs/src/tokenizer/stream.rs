//! Ids to text, piece by piece: whole characters only.
//!
//! A token may end inside a UTF-8 character. Its bytes wait until the character is complete, or until it can no longer
//! become one, which is when U+FFFD is written; so streamed text equals the text of all ids decoded at once.

use super::Tokenizer;
use crate::error::Result;

/// The state of one decoded sequence.
#[derive(Debug, Clone)]
pub struct StreamDecoder {
    /// The beginning of a character whose end has not come: at most three bytes between calls.
    pending: Vec<u8>,
    /// Whether the space that encoding puts in front of a text is still to be dropped.
    drops_space: bool,
}

impl StreamDecoder {
    pub(super) fn new(drops_space: bool) -> Self {
        Self { pending: Vec::new(), drops_space }
    }

    /// The text that `id` makes certain; often a word, sometimes nothing.
    ///
    /// # Errors
    /// `invalid_request` when the id is not in the vocabulary; the decoder is as before.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String> {
        let start = self.pending.len();
        tokenizer.push_bytes(id, &mut self.pending)?;
        if self.drops_space && self.pending.len() > start {
            self.drops_space = false;
            if self.pending[start] == b' ' {
                self.pending.remove(start);
            }
        }
        Ok(self.take_certain())
    }

    /// Whether the beginning of a character waits for its end.
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What is left when no more ids come: an incomplete character becomes U+FFFD.
    #[must_use]
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    /// Moves everything but an incomplete character out of `pending`.
    fn take_certain(&mut self) -> String {
        let certain = match self.pending.utf8_chunks().last() {
            Some(chunk) if is_incomplete(chunk.invalid()) => self.pending.len() - chunk.invalid().len(),
            _ => self.pending.len(),
        };
        let rest = self.pending.split_off(certain);
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending = rest;
        text
    }
}

/// Whether more bytes could make these the beginning of a character.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}
