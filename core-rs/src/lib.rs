//! llamero's core: Llama-family inference from a model file to streamed text.
//!
//! Rooms and the one-way rule between them are described in ARCHITECTURE.md and checked by `scripts/check_rooms.ts`.

pub mod error;

pub mod engine;
pub mod formats;
pub mod kernels;
pub mod load;
pub mod model;
pub mod platform;
pub mod quantize;
pub mod records;
pub mod sampling;
pub mod tokenizer;

// What the edge does without: files of other formats, conversion, and grammars.
#[cfg(not(target_family = "wasm"))]
pub mod checkpoint;
#[cfg(not(target_family = "wasm"))]
pub mod constrain;
#[cfg(not(target_family = "wasm"))]
pub mod convert;
#[cfg(not(target_family = "wasm"))]
pub mod inspect;

// One border per machine: symbols that a linker finds, or JavaScript glue.
#[cfg(not(target_family = "wasm"))]
pub mod ffi;
#[cfg(target_family = "wasm")]
pub mod wasm;
