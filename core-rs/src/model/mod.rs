//! The Llama family: token ids and caches handed in, logits out.
//!
//! A model never changes once made, so one set of weights serves many conversations, each with its own [`KvCache`]. The
//! model itself is `pass::run`, in steps that a device offers: the CPU on slices, with the kernels of this crate
//! (`cpu`), and another device on candle's tensors (`device`, which is there with the feature `cuda` and in tests).
//!
//! Absent: files and their formats (tensors come by GGUF name from a [`TensorSource`]), text, sampling, and whose turn
//! it is.

mod attention;
mod batch;
mod config;
mod cpu;
#[cfg(any(test, feature = "cuda"))]
mod device;
mod kv_cache;
#[cfg(any(test, feature = "cuda"))]
mod kv_rows;
mod llama;
#[cfg(any(test, feature = "cuda"))]
mod on_device;
mod pass;
mod rope;
#[cfg(any(test, feature = "cuda"))]
mod stored;
#[cfg(any(test, feature = "cuda"))]
mod tensors;
#[cfg(test)]
mod tests;
mod weights;

pub use batch::{Segment, Wanted, Workspace};
pub use config::{Config, RopeScaling, Yarn};
pub use kv_cache::KvCache;
pub use llama::Llama;
pub use rope::llama3_factors;
#[cfg(any(test, feature = "cuda"))]
pub use stored::Stored;
pub use weights::TensorSource;
