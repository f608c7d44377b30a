//! Who runs next, and when a reply ends.
//!
//! `Engine` is a step machine: `submit`, `cancel` and `step` do a bounded piece of work each and push events into a
//! list; a step is one forward pass for all conversations that can run. It knows no threads, no clocks of its own (the host hands one in), no C and no JavaScript types; the native
//! host runs it on a thread, WebAssembly calls `step` itself.

mod costs;
mod draft;
mod embed;
mod event;
mod grammar;
mod lm;
mod logprobs;
mod request;
mod room;
mod sequence;
mod speculate;
mod step;
mod stop;
mod turns;
mod watch;

pub use embed::{EmbedRequest, MAX_EMBEDDING};
pub use event::{Event, EventKind, FinishReason, RequestId, Timings, Usage};
pub use grammar::{Constraint, Grammar, Syntax};
pub use lm::CausalLm;
pub use logprobs::{MAX_TOKEN_BYTES, MAX_TOP, TokenLogprob};
pub use request::{Limits, Request};
pub use speculate::Speculate;
pub use step::{Engine, Guessed};
pub use turns::Ask;

#[cfg(test)]
mod tests;
