//! Arithmetic of the forward pass on CPUs, chosen once at run time.
//!
//! candle picks its products when it is compiled, so a baseline x86-64 build runs some as scalar loops, and the others
//! leave half of what a processor can do. This room has its own: weights in panels of sixteen rows ([`Weight`]), int8
//! products of all block formats, products of floats, attention over a paged cache, and the threads that share the work.
//! The model uses candle's tensors on other devices.
//!
//! A kernel is written once, over the registers of `simd`; each instruction set compiles it for itself. A row's result
//! never depends on the rows beside it in a batch.
//!
//! Absent: files, environment variables, model shapes.

mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attend;
mod blocks;
mod dispatch;
mod floats;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod lanes_x86;
mod layout;
#[cfg(not(target_family = "wasm"))]
mod limits;
mod memory;
mod multiply;
#[cfg(target_arch = "aarch64")]
mod neon;
mod parallel;
mod place;
mod pool;
mod product;
mod scalar;
mod simd;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd_wasm;
#[cfg(target_arch = "x86_64")]
mod simd_x86;
#[cfg(test)]
mod tests;
mod vector;
mod weight;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use attend::CacheType;
pub(crate) use attend::{CHUNK_PAGES, Gathered, NOTHING, PAGE, PageJob, QUERIES, add_chunk, look};
pub use blocks::Format;
pub(crate) use blocks::IQ4_NL_VALUES;
pub use dispatch::{Isa, active, available, select};
pub(crate) use lanes::{LaneWork, Lanes, WIDTH, nearest, on_lanes};
#[cfg(not(target_family = "wasm"))]
pub use limits::Loops;
pub use memory::Held;
pub(crate) use memory::{Lines, Memory};
pub(crate) use multiply::{Input, Product, multiply, multiply_gated};
pub use parallel::try_for_each_chunk;
pub(crate) use parallel::{Shared, for_each_piece};
pub(crate) use pool::Pool;
pub use weight::{Element, Filling, Weight};
