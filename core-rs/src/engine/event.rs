//! What an engine tells about its requests.

use serde::Serialize;

use super::logprobs::TokenLogprob;
use crate::error::Error;

/// The number of a request, unique in one engine and never 0.
pub type RequestId = u32;

/// One thing that happened to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Whose event this is.
    pub request: RequestId,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to a request: `Started`, any number of `Text`, then one `Done`, or one `Embedding` where that was asked
/// for; or `Failed` at any point, as the last.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// The prompt is tokenised and fits; it waits for its turn.
    Started {
        /// Tokens of the prompt, with those that the vocabulary adds.
        prompt_tokens: usize,
    },
    /// What the model thought of a token, told before the `Text` whose text it makes up; of the prompt's tokens before
    /// the first.
    Logprobs {
        /// Whether the token stands in the prompt.
        of_prompt: bool,
        /// The token, then the most probable ones in its place; empty for the first of the prompt, which follows nothing.
        tokens: Vec<TokenLogprob>,
    },
    /// Whole characters of the reply; empty only where log probabilities were told and no text.
    Text {
        /// The characters.
        text: String,
        /// Tokens generated so far.
        completion_tokens: usize,
    },
    /// The vector of a text; the request ends with it.
    Embedding {
        /// Numbers of Euclidean length 1.
        values: Vec<f32>,
        /// Tokens of the prompt.
        prompt_tokens: usize,
    },
    /// The reply ended.
    Done {
        /// Why it ended.
        reason: FinishReason,
        /// The stop text that ended it, if one did.
        stop: Option<String>,
        /// Token counts.
        usage: Usage,
        /// Where the time went.
        timings: Timings,
    },
    /// The request failed.
    Failed(Error),
}

/// Why a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end-of-generation token or a stop text.
    Stop,
    /// The token limit of the request, or the end of the context.
    Length,
    /// The caller cancelled.
    Cancelled,
}

/// Token counts of a request; the end token counts as generated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
}

/// Milliseconds of a request's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Timings {
    /// From submission to the first piece of prefill.
    pub queue_ms: f64,
    /// From there to the first token.
    pub prefill_ms: f64,
    /// From the first token to the end.
    pub decode_ms: f64,
}
