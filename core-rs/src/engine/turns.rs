//! The two kinds of work that take turns on the model: replies and embeddings.

use super::embed::{EmbedRequest, Embedding};
use super::event::{EventKind, FinishReason, RequestId};
use super::grammar::{Constraint, Grammar};
use super::lm::CausalLm;
use super::request::Request;
use super::sequence::Sequence;
use crate::error::Result;
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
    Embedding(Embedding<M>),
}

impl<M: CausalLm> Turns<M> {
    pub fn id(&self) -> RequestId {
        match self {
            Self::Reply(sequence) => sequence.id,
            Self::Embedding(embedding) => embedding.id,
        }
    }

    /// Tokens generated so far.
    pub fn generated(&self) -> usize {
        match self {
            Self::Reply(sequence) => sequence.generated(),
            Self::Embedding(_) => 0,
        }
    }

    /// One piece of work. Returns whether it was the last.
    pub fn advance(
        &mut self,
        model: &M,
        tokenizer: &Tokenizer,
        now: &dyn Fn() -> f64,
        emit: &mut dyn FnMut(EventKind),
    ) -> Result<bool> {
        match self {
            Self::Reply(sequence) => sequence.advance(model, tokenizer, now, emit),
            Self::Embedding(embedding) => embedding.advance(model, emit),
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
