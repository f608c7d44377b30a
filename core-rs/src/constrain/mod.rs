//! What a reply must be, compiled into the grammar that the engine follows token by token.
//!
//! The parsing is the crate llguidance's; this room hands it a vocabulary and sources within limits, and keeps its panics
//! and its long messages in. Absent: threads (a host chooses where to compile, on a stack of `STACK_BYTES`), requests.

mod gbnf;
mod source;
mod vocabulary;

pub use source::{MAX_SCHEMA_DEPTH, MAX_SCHEMA_VALUES};
pub use vocabulary::Vocabulary;

/// Stack that `Vocabulary::compile` needs for the worst source within the limits, a chain of references, several times
/// over. Pages that are not touched cost nothing.
pub const STACK_BYTES: usize = 128 << 20;
