//! Arithmetic that candle leaves open on CPUs, chosen once at run time.
//!
//! candle picks its Q4_1, Q5_0 and Q5_1 dot products when it is compiled, so a baseline x86-64 build runs them as
//! scalar loops, and its others leave half of what a processor can do; f16 and bf16 weights it copies to f32 beforehand,
//! twice their size. This room multiplies floats and all block formats itself (in WebAssembly those of 32 values but
//! Q8_0), and holds the few float loops (attention of one head, SwiGLU) whose speed also hangs
//! on the instruction set. [`Linear`] hides the split: other formats and other devices go to candle.
//!
//! Every kernel exists as portable code first (`scalar`, `vector`); a faster form (`x86`, `simd128`) must agree with it, exactly
//! where no sum is reordered and within a written tolerance where one is. A row's result never depends on the rows
//! beside it in a batch.
//!
//! Absent: files, environment variables, model shapes.

mod blocks;
mod dispatch;
mod floats;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod lanes_x86;
mod linear;
mod matmul;
#[cfg(any(test, feature = "cuda"))]
mod on_device;
mod parallel;
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
mod values;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
mod x86_blocks;

pub use dispatch::{Isa, active, available, select};
pub(crate) use dispatch::{attend, swiglu};
pub(crate) use lanes::{LaneWork, Lanes, WIDTH, nearest, on_lanes};
pub use linear::{Linear, forward_shared};
pub use parallel::try_for_each_chunk;
pub(crate) use parallel::{for_each_row, on_pool};
pub(crate) use values::{Values, on_cpu};
pub(crate) use vector::Head;

impl From<candle_core::Error> for crate::error::Error {
    /// candle fails on shapes and devices that we chose, so its errors are ours.
    fn from(error: candle_core::Error) -> Self {
        Self::internal(format!("tensor operation failed: {error}"))
    }
}
