//! The one error type of the core: a kind with a stable code, and a sentence.
//!
//! A message says what was attempted, what was expected and what came, without a final period. Kinds cross the
//! C border as numbers (`ErrorKind::code`) and names (`ErrorKind::name`), so both are append-only.

use std::fmt;

/// What went wrong, as far as a caller can act on it. Codes and names are stable across releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file could not be opened or read.
    Io,
    /// Bytes that claim to be a known format break its rules (truncated, overlapping, out of range).
    InvalidFormat,
    /// A well-formed model or file uses something this build does not implement.
    Unsupported,
    /// A request has a value outside its documented range.
    InvalidRequest,
    /// A prompt does not fit into the model's context.
    ContextOverflow,
    /// A named limit on waiting or running work is reached; try again later.
    Overloaded,
    /// A handle or request id is not (or no longer) known.
    NotFound,
    /// The engine is closed or closing.
    Closed,
    /// A mistake of ours: a caught panic or a broken invariant.
    Internal,
    /// The machine has less memory or space on disk than the work needs.
    InsufficientResources,
}

impl ErrorKind {
    /// The negative number that crosses the C border.
    pub const fn code(self) -> i32 {
        match self {
            Self::Io => -1,
            Self::InvalidFormat => -2,
            Self::Unsupported => -3,
            Self::InvalidRequest => -4,
            Self::ContextOverflow => -5,
            Self::Overloaded => -6,
            Self::NotFound => -7,
            Self::Closed => -8,
            Self::Internal => -9,
            Self::InsufficientResources => -10,
        }
    }

    /// The snake_case name that crosses borders inside JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::InvalidFormat => "invalid_format",
            Self::Unsupported => "unsupported",
            Self::InvalidRequest => "invalid_request",
            Self::ContextOverflow => "context_overflow",
            Self::Overloaded => "overloaded",
            Self::NotFound => "not_found",
            Self::Closed => "closed",
            Self::Internal => "internal",
            Self::InsufficientResources => "insufficient_resources",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error value: its kind and one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` whose sentence is `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Bytes break the rules of their format.
    pub fn invalid_format(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidFormat, message)
    }

    /// A well-formed input asks for something this build does not implement.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// A request value is outside its documented range.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message)
    }

    /// A broken invariant of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error with `context: ` in front of its sentence.
    #[must_use]
    pub fn context(self, context: impl fmt::Display) -> Self {
        Self { kind: self.kind, message: format!("{context}: {}", self.message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_distinct() {
        use ErrorKind::*;
        let all = [
            Io,
            InvalidFormat,
            Unsupported,
            InvalidRequest,
            ContextOverflow,
            Overloaded,
            NotFound,
            Closed,
            Internal,
            InsufficientResources,
        ];
        let codes: std::collections::BTreeSet<_> = all.iter().map(|k| k.code()).collect();
        let names: std::collections::BTreeSet<_> = all.iter().map(|k| k.name()).collect();
        assert_eq!((codes.len(), names.len()), (all.len(), all.len()));
        assert!(codes.iter().all(|&c| c < 0));
    }

    #[test]
    fn context_keeps_the_kind() {
        let e = Error::invalid_format("expected 4 bytes, got 3").context("reading magic");
        assert_eq!(e.kind(), ErrorKind::InvalidFormat);
        assert_eq!(e.to_string(), "reading magic: expected 4 bytes, got 3");
    }
}
