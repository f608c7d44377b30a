//! The Llama family on candle tensors: token ids and a cache handed in, logits out.
//!
//! A model never changes once made, so one set of weights serves many conversations, each with its own [`KvCache`].
//! On the CPU the small operations run on slices; each has a form in plain tensor operations for other devices, and
//! a test that the two agree.
//!
//! Absent: files and their formats (tensors come by GGUF name from a [`TensorSource`]), text, sampling, and whose turn
//! it is.

mod attention;
mod batch;
mod config;
mod kv_cache;
mod llama;
mod ops;
mod rope;
#[cfg(test)]
mod tests;

pub use batch::{Segment, Wanted, Workspace};
pub use config::{Config, RopeScaling, Yarn};
pub use kv_cache::{GROWTH_STEP, KvCache};
pub use llama::{Llama, TensorSource};
pub use rope::llama3_factors;
