//! Bytes to named tensors and metadata.
//!
//! Absent: opening or mapping files, names of a model family, and panics. A reader takes bytes, so mapped files,
//! network prefixes, tests and fuzzers share one path; what it hands out has been checked and stays right.

pub mod ggml_type;
pub mod gguf;
pub mod metadata;

#[cfg(test)]
pub(crate) mod gguf_testing;
