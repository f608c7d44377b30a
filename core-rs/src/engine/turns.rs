//! The two kinds of work that share passes of the model: replies and embeddings.

use super::embed::{EmbedRequest, Embedding};
use super::event::{EventKind, FinishReason, RequestId};
use super::grammar::{Constraint, Grammar};
use super::lm::CausalLm;
use super::request::Request;
use super::room::Room;
use super::sequence::Sequence;
use crate::error::Result;
use crate::model::Segment;
use crate::tokenizer::Tokenizer;

/// What may be asked of an engine.
pub enum Ask {
    /// A reply to a prompt, within a grammar if there is one: the request's constraint, compiled and taken out of it.
    Reply(Box<Request>, Option<Box<dyn Grammar>>),
    /// A text as a vector.
    Embedding(EmbedRequest),
}

impl Ask {
    /// Takes out the constraint of a reply, for whoever compiles it.
    pub fn take_constraint(&mut self) -> Option<Constraint> {
        match self {
            Self::Reply(request, _) => request.take_constraint(),
            Self::Embedding(_) => None,
        }
    }
}

impl From<Request> for Ask {
    fn from(request: Request) -> Self {
        Self::Reply(Box::new(request), None)
    }
}

impl From<EmbedRequest> for Ask {
    fn from(request: EmbedRequest) -> Self {
        Self::Embedding(request)
    }
}

/// One of them on its way.
pub(super) enum Turns<M: CausalLm> {
    Reply(Box<Sequence<M>>),
    Embedding(Box<Embedding<M>>),
}

impl<M: CausalLm> Turns<M> {
    pub fn id(&self) -> RequestId {
        match self {
            Self::Reply(sequence) => sequence.id,
            Self::Embedding(embedding) => embedding.id,
        }
    }

    /// The reply, if it is one.
    pub fn reply(&mut self) -> Option<&mut Sequence<M>> {
        match self {
            Self::Reply(sequence) => Some(sequence),
            Self::Embedding(_) => None,
        }
    }

    /// Tokens generated so far.
    pub fn generated(&self) -> usize {
        match self {
            Self::Reply(sequence) => sequence.generated(),
            Self::Embedding(_) => 0,
        }
    }

    /// Whether each pass gives it a token; if not, it brings a chunk of its prompt.
    pub fn is_replying(&self) -> bool {
        matches!(self, Self::Reply(sequence) if sequence.is_replying())
    }

    /// Settle what it brings to the next pass; nothing if it `rests`.
    ///
    /// # Errors
    /// When its cache has no room.
    pub fn join(&mut self, rests: bool, model: &M, room: &mut Room, now: &dyn Fn() -> f64) -> Result<()> {
        match self {
            Self::Reply(sequence) => sequence.join(rests, model, room, now),
            Self::Embedding(embedding) => embedding.join(rests, model, room),
        }
    }

    /// How many guesses the last pass checked, and how many of them came true.
    pub fn guessed(&self) -> (usize, usize) {
        match self {
            Self::Reply(sequence) => sequence.guessed(),
            Self::Embedding(_) => (0, 0),
        }
    }

    /// Its part of the pass, if it takes part.
    pub fn segment(&mut self) -> Option<Segment<'_, M::Cache>> {
        match self {
            Self::Reply(sequence) => sequence.segment(),
            Self::Embedding(embedding) => embedding.segment(),
        }
    }

    /// Numbers that its part of the pass gives.
    pub fn output_len(&self, model: &M) -> usize {
        match self {
            Self::Reply(sequence) => sequence.rows() * model.vocabulary_size(),
            Self::Embedding(embedding) => embedding.rows() * model.embedding_length(),
        }
    }

    /// The pass is done and gave this. Returns whether it was the last.
    pub fn take(
        &mut self,
        output: &mut [f32],
        model: &M,
        tokenizer: &Tokenizer,
        now: &dyn Fn() -> f64,
        emit: &mut dyn FnMut(EventKind),
    ) -> Result<bool> {
        match self {
            Self::Reply(sequence) => sequence.take(output, model, tokenizer, now, emit),
            Self::Embedding(embedding) => embedding.take(output, emit),
        }
    }

    /// End it now.
    pub fn cancel(&mut self, now: f64, emit: &mut dyn FnMut(EventKind)) {
        match self {
            Self::Reply(sequence) => sequence.finish(FinishReason::Cancelled, now, emit),
            Self::Embedding(_) => emit(Embedding::<M>::cancelled()),
        }
    }
}
