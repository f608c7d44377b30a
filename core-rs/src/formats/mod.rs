//! Bytes to named tensors and metadata.
//!
//! Absent: opening or mapping files, names of a model family, and panics. A reader takes bytes, so mapped files,
//! network prefixes, tests and fuzzers share one path; what it hands out has been checked and stays right.

mod archive;
mod cursor;
pub mod ggml_type;
pub mod gguf;
mod gguf_split;
mod gguf_write;
mod json;
pub mod metadata;
pub mod pdparams;
mod pickle;
pub mod safetensors;
pub mod sentencepiece;
pub mod shard_index;
pub mod stored;
pub mod torch;

#[cfg(test)]
pub(crate) mod gguf_testing;
