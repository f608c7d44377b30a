//! From a slice of logits and a seed to a token id.
//!
//! Order: bias, allowed and banned ids; then the filters, by default as in llama.cpp: penalties, DRY, top-n-sigma, top-k,
//! typical, top-p, min-p, XTC, temperature; then the draw. A temperature of 0 takes the highest logit after penalties and
//! DRY, whatever the other filters say. Mirostat takes the place of all filters but the temperature.
//!
//! Absent here: tensors, text, clocks, hidden randomness; the seed is an argument.

mod dry;
mod filters;
mod params;
mod sampler;

pub use params::{Filter, NumberField, SamplingParams};
pub use sampler::Sampler;
