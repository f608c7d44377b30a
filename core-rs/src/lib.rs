//! llamero's core: Llama-family inference from a model file to streamed text.
//!
//! Rooms and the one-way rule between them are described in ARCHITECTURE.md and checked by `scripts/check_rooms.ts`.

pub mod error;

pub mod engine;
pub mod ffi;
pub mod formats;
pub mod kernels;
pub mod load;
pub mod model;
pub mod platform;
pub mod sampling;
pub mod tokenizer;
