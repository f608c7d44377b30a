//! From a slice of logits and a seed to a token id.
//!
//! Order of the filters, as in llama.cpp: repetition penalty, then (when the temperature is not 0) top-k, top-p, min-p,
//! temperature, draw. Absent here: tensors, clocks, hidden randomness; the seed is an argument.

mod filters;
mod params;
mod sampler;

pub use params::SamplingParams;
pub use sampler::Sampler;
