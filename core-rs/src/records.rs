//! What leaves an engine's host, and its bytes: both borders hand out the same records, so one reader serves both.
//!
//! Records are little-endian, one after another, each a multiple of four bytes long:
//!
//! ```text
//! u32 length of the whole record   u32 request (0: the engine itself)   u32 kind   u32 payload length   payload, zeros
//! ```
//!
//! | kind | payload |
//! |---|---|
//! | 1 loading | u64 bytes done, u64 bytes in total |
//! | 2 ready | none; the border has a call for the description |
//! | 3 failed | JSON `{code, message}`: loading failed or the engine died |
//! | 4 text | u32 completion tokens so far, then UTF-8 |
//! | 5 done | JSON `{reason, stop?, prompt_tokens, completion_tokens, queue_ms, prefill_ms, decode_ms}` |
//! | 6 error | JSON `{code, message}` of one request |
//! | 7 started | u32 prompt tokens |
//! | 8 logprobs | of a token of the reply, before the text record that it belongs to: entries as below |
//! | 9 prompt logprobs | of a token of the prompt, before the first text record: entries, none for the first token |
//! | 10 embedding | u32 prompt tokens, then f32 numbers |
//!
//! An entry is `u32 id, f32 log probability, u32 length, bytes of the token`; the token comes first, then the most probable
//! ones in its place.
//!
//! Absent: who waits for records and how they cross a border.

use serde::Serialize;

use crate::engine::{Event, EventKind, FinishReason, Guessed, Timings, TokenLogprob, Usage};
use crate::error::Error;

const HEADER: usize = 16;
/// Longest sentence of a failure: a file may put anything into it, and a record must fit into the reader's buffer.
const MAX_MESSAGE_BYTES: usize = 4096;

/// What comes out of an engine's host.
#[derive(Debug, Clone, PartialEq)]
pub enum HostEvent {
    /// Loading goes on: bytes of weights done and in total.
    Loading {
        /// Bytes done.
        done: u64,
        /// Bytes in total.
        total: u64,
    },
    /// The model is loaded.
    Ready,
    /// Loading failed, or the engine died. Nothing else will come but the end.
    Failed(Error),
    /// Something happened to a request.
    Request(Event),
}

/// How busy a host is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Requests that wait for a place.
    pub waiting: usize,
    /// Requests that share the model.
    pub running: usize,
    /// Tokens generated since the host was opened.
    pub generated_tokens: u64,
    /// Tokens guessed ahead since then.
    #[serde(flatten)]
    pub guessed: Guessed,
    /// Whether it can serve.
    pub healthy: bool,
}

#[derive(Serialize)]
struct Failure<'a> {
    code: &'a str,
    message: String,
}

#[derive(Serialize)]
struct Done<'a> {
    reason: FinishReason,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<&'a str>,
    #[serde(flatten)]
    usage: Usage,
    #[serde(flatten)]
    timings: Timings,
}

/// The JSON of one of our own types.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our own types have string keys and finite numbers")
}

/// Append the record of `event`, unless `bytes` would grow beyond `capacity`; returns whether it fitted.
pub(crate) fn append(event: &HostEvent, bytes: &mut Vec<u8>, capacity: usize) -> bool {
    let (request, kind, payload) = encode(event);
    let length = (HEADER + payload.len()).next_multiple_of(4);
    if bytes.len() + length > capacity {
        return false;
    }
    let end = bytes.len() + length;
    for number in [length as u32, request, kind, payload.len() as u32] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&payload);
    bytes.resize(end, 0);
    true
}

fn encode(event: &HostEvent) -> (u32, u32, Vec<u8>) {
    match event {
        HostEvent::Loading { done, total } => (0, 1, [done.to_le_bytes(), total.to_le_bytes()].concat()),
        HostEvent::Ready => (0, 2, Vec::new()),
        HostEvent::Failed(error) => (0, 3, failure(error).into_bytes()),
        HostEvent::Request(Event { request, kind }) => {
            let (kind, payload) = encode_kind(kind);
            (*request, kind, payload)
        }
    }
}

fn encode_kind(kind: &EventKind) -> (u32, Vec<u8>) {
    match kind {
        EventKind::Text { text, completion_tokens } => {
            (4, [&(*completion_tokens as u32).to_le_bytes(), text.as_bytes()].concat())
        }
        EventKind::Done { reason, stop, usage, timings } => {
            let stop = stop.as_deref();
            (5, json(&Done { reason: *reason, stop, usage: *usage, timings: *timings }).into_bytes())
        }
        EventKind::Failed(error) => (6, failure(error).into_bytes()),
        EventKind::Embedding { values, prompt_tokens } => {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes());
            (10, (*prompt_tokens as u32).to_le_bytes().into_iter().chain(bytes).collect())
        }
        EventKind::Logprobs { of_prompt, tokens } => {
            let mut bytes = Vec::new();
            for TokenLogprob { id, logprob, bytes: token } in tokens {
                for word in [*id, logprob.to_bits(), token.len() as u32] {
                    bytes.extend_from_slice(&word.to_le_bytes());
                }
                bytes.extend_from_slice(token);
            }
            (if *of_prompt { 9 } else { 8 }, bytes)
        }
        EventKind::Started { prompt_tokens } => (7, (*prompt_tokens as u32).to_le_bytes().to_vec()),
    }
}

/// `{code, message}`: how an error is written wherever it crosses as JSON.
pub(crate) fn failure(error: &Error) -> String {
    let mut message = error.to_string();
    message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
    json(&Failure { code: error.kind().name(), message })
}
