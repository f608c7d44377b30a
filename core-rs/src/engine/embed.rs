//! A text as one vector: what may be asked for, and its way through the model in the same pieces as the prompt of a
//! reply. Hidden states are pooled as they come, so that memory does not grow with the text (its cache does).
//!
//! Absent: several texts in one request; whoever has several asks several times.

use super::event::{EventKind, RequestId};
use super::lm::CausalLm;
use super::request::{Fields, wanted};
use super::room::Room;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Segment, Wanted};

/// Longest vector: it leaves in one record, and every record fits into the reader's buffer.
pub const MAX_EMBEDDING: usize = 60_000;

/// How the last hidden states of all tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over all tokens.
    Mean,
    /// That of the last token, which has seen all others.
    Last,
}

/// What to embed. Made only by `EmbedRequest::from_json`.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedRequest {
    pub(super) prompt: Vec<String>,
    /// The prompt itself, in place of `prompt`.
    pub(super) prompt_ids: Option<Vec<u32>>,
    pub(super) pooling: Pooling,
}

impl EmbedRequest {
    /// Read and check a request in JSON (fields as `EmbedRequest` of src/engine/engine.ts, in snake case).
    ///
    /// # Errors
    /// `invalid_request` naming the field, what was wanted and what came.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let mut fields = Fields::from_json(json)?;
        let prompt_ids = fields.ids("prompt_ids", usize::MAX)?;
        let prompt = fields.prompt(prompt_ids.is_some())?;
        let pooling = match fields.take("pooling") {
            None => Pooling::Mean,
            Some(name) if name == "mean" => Pooling::Mean,
            Some(name) if name == "last" => Pooling::Last,
            Some(other) => return Err(wanted("pooling", "mean or last", &other)),
        };
        fields.end()?;
        Ok(Self { prompt, prompt_ids, pooling })
    }
}

/// A prompt on its way to its vector.
pub(super) struct Embedding<M: CausalLm> {
    pub id: RequestId,
    prompt: Vec<u32>,
    pooling: Pooling,
    cache: M::Cache,
    /// Prompt tokens already in the cache.
    done: usize,
    /// How many that follow them go into the next pass; 0: it takes no part.
    share: usize,
    /// What has been pooled of them, in f64: thousands of tokens are added up.
    pooled: Vec<f64>,
}

impl<M: CausalLm> Embedding<M> {
    /// One that has not run yet. `prompt` is not empty and fits into the context.
    pub fn new(id: RequestId, request: EmbedRequest, prompt: Vec<u32>, model: &M) -> Result<Self> {
        let length = model.embedding_length();
        if length > MAX_EMBEDDING {
            let message = format!("embedding: expected vectors of at most {MAX_EMBEDDING} numbers, got {length}");
            return Err(Error::unsupported(message));
        }
        let pooled = vec![0.0; length];
        Ok(Self { id, prompt, pooling: request.pooling, cache: model.new_cache(), done: 0, share: 0, pooled })
    }

    /// Settle which chunk of the prompt it brings to the next pass; none if it `rests`.
    pub fn join(&mut self, rests: bool, model: &M, room: &mut Room) -> Result<()> {
        self.share = 0;
        let share = if rests { 0 } else { room.prompt(self.prompt.len() - self.done) };
        model.reserve(&mut self.cache, share)?;
        self.share = share;
        Ok(())
    }

    /// Rows of hidden states that its part of the pass gives.
    pub fn rows(&self) -> usize {
        self.share
    }

    /// Its part of the pass, if it takes part.
    pub fn segment(&mut self) -> Option<Segment<'_, M::Cache>> {
        let tokens = &self.prompt[self.done..][..self.share];
        (!tokens.is_empty()).then_some(Segment { tokens, cache: &mut self.cache, wanted: Wanted::Hidden })
    }

    /// The pass is done and gave these states. Returns whether it was the last.
    pub fn take(&mut self, states: &[f32], emit: &mut dyn FnMut(EventKind)) -> Result<bool> {
        self.done += self.share;
        states.chunks_exact(self.pooled.len()).for_each(|state| self.pool(state));
        if self.done < self.prompt.len() {
            return Ok(false);
        }
        emit(EventKind::Embedding { values: normalised(&self.pooled)?, prompt_tokens: self.prompt.len() });
        Ok(true)
    }

    fn pool(&mut self, state: &[f32]) {
        let adds = self.pooling == Pooling::Mean;
        for (pooled, &value) in self.pooled.iter_mut().zip(state) {
            *pooled = f64::from(value) + if adds { *pooled } else { 0.0 };
        }
    }

    /// What a cancelled one ends with: half a vector is of no use.
    pub fn cancelled() -> EventKind {
        EventKind::Failed(Error::new(ErrorKind::Closed, "embedding: the request was cancelled"))
    }
}

/// The vector of length 1 in the same direction, which a sum shares with its mean; zeros have none and stay.
fn normalised(values: &[f64]) -> Result<Vec<f32>> {
    let norm = values.iter().map(|v| v * v).sum::<f64>().sqrt();
    if !norm.is_finite() {
        return Err(Error::internal(format!("embedding: expected finite hidden states, got a length of {norm}")));
    }
    let scale = if norm > 0.0 { norm.recip() } else { 0.0 };
    Ok(values.iter().map(|v| (v * scale) as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_and_wrong_ones_named() {
        let parse = |json: &str| EmbedRequest::from_json(json.as_bytes());
        assert_eq!(parse(r#"{"prompt":["a"]}"#).expect("valid").pooling, Pooling::Mean);
        let ids = parse(r#"{"prompt":[],"prompt_ids":[4294967295],"pooling":"last"}"#).expect("valid");
        assert_eq!((ids.prompt_ids, ids.pooling), (Some(vec![u32::MAX]), Pooling::Last));
        for (bad, word) in [
            ("{}", "prompt"),
            (r#"{"prompt":"a"}"#, "an array of texts"),
            (r#"{"prompt":["a"],"prompt_ids":[1]}"#, "prompt must be empty"),
            (r#"{"prompt":[],"prompt_ids":[-1]}"#, "token ids, got -1"),
            (r#"{"prompt":[],"prompt_ids":[4294967296]}"#, "token ids, got 4294967296"),
            (r#"{"prompt":[],"prompt_ids":[0.5]}"#, "token ids, got 0.5"),
            (r#"{"prompt":["a"],"pooling":"max"}"#, "mean or last, got \"max\""),
            (r#"{"prompt":["a"],"max_tokens":1}"#, "max_tokens"),
        ] {
            let error = parse(bad).expect_err(bad);
            assert!(error.kind() == ErrorKind::InvalidRequest && error.to_string().contains(word), "{bad}: {error}");
        }
    }

    #[test]
    fn vectors_have_length_one_but_for_zeros() {
        assert_eq!(normalised(&[3.0, -4.0]).expect("finite"), [0.6, -0.8]);
        assert_eq!(normalised(&[0.0, 0.0]).expect("finite"), [0.0, 0.0]);
        assert!(normalised(&[f64::NAN]).is_err() && normalised(&[f64::INFINITY]).is_err());
    }
}
