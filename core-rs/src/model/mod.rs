//! The Llama family: token ids and caches handed in, logits out.
//!
//! A model never changes once made, so one set of weights serves many conversations, each with its own [`KvCache`]. The
//! model itself is `pass::run`, in steps that a device offers: the CPU on slices, with the kernels of this crate.
//!
//! Absent: files and their formats (tensors come by GGUF name from a [`TensorSource`]), text, sampling, and whose turn
//! it is.

mod attention;
mod batch;
mod config;
mod cpu;
mod kv_cache;
mod llama;
mod pass;
mod rope;
#[cfg(test)]
mod tests;

pub use batch::{Segment, Wanted, Workspace};
pub use config::{Config, RopeScaling, Yarn};
pub use kv_cache::{GROWTH_STEP, KvCache, token_bytes};
pub use llama::{Llama, TensorSource};
pub use rope::llama3_factors;
