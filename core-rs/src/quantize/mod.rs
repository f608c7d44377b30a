//! Floats to the blocks that GGUF files store, and back: bit for bit what ggml's reference quantiser writes
//! (`quantize_row_*_ref` of its `ggml-quants.c`, without an importance matrix) and what its `dequantize_row_*` reads.
//!
//! Bits agree because every sum is taken in ggml's order, in f32, without fused multiply-add. Speed comes from the
//! other direction: sums of eight sub-blocks run side by side in vector lanes, where ggml takes one after the other.
//!
//! Everything works on the caller's slices and on one thread; the caller splits a tensor by rows. Absent: files,
//! threads, tensors with names, importance matrices, the `iq` types.

mod file_type;
mod legacy;
mod pack;
mod search;
mod unpack;

#[cfg(test)]
mod quantize_test;

use crate::error::{Error, Result};
use crate::formats::gguf::GgmlType;
use crate::kernels::{self, Isa, LaneWork, Lanes, on_lanes};

pub use file_type::{FileType, ModelShape, QUANTIZATION_VERSION, tensor_type};
pub use unpack::dequantize;

/// From this magnitude on, no quantised block could hold a value: its f16 scale is at most 65504, with at most 2^12
/// steps of it. ggml writes zeros or infinite scales there.
pub const MAX_QUANTIZED: f32 = (1u32 << 28) as f32;

/// Types that [`rows`] writes.
pub const WRITTEN: [GgmlType; 13] = {
    use GgmlType::*;
    [F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2K, Q3K, Q4K, Q5K, Q6K]
};

/// Writes `values`, whole rows of `row_len`, as blocks of `dtype` into `out`, which they fill.
///
/// `first_row` is the number of the first row in its tensor; errors name rows by it.
///
/// # Errors
/// `invalid_format` for a value that is not finite or that the type cannot hold, `unsupported` for a type that is not
/// in [`WRITTEN`], `internal` for lengths that do not fit together.
pub fn rows(dtype: GgmlType, values: &[f32], row_len: usize, first_row: usize, out: &mut [u8]) -> Result<()> {
    rows_on(kernels::active(), dtype, values, row_len, first_row, out)
}

fn rows_on(isa: Isa, dtype: GgmlType, values: &[f32], row_len: usize, first_row: usize, out: &mut [u8]) -> Result<()> {
    if !WRITTEN.contains(&dtype) {
        let known = WRITTEN.map(GgmlType::name).join(" ");
        return Err(Error::unsupported(format!("quantising: expected one of {known}, got {}", dtype.name())));
    }
    check_lengths(dtype, values.len(), row_len, out.len())?;
    let place = |at: usize| (first_row + at / row_len, at % row_len);
    if let Some(at) = first_at_least(values, limit(dtype)) {
        return Err(refused(dtype, values[at], place(at)));
    }
    on_lanes(isa, Encode { dtype, values, out: &mut *out });
    match first_overflow(dtype, out) {
        Some(at) => Err(refused(dtype, largest(&values[at..at + dtype.block_size()]), place(at))),
        None => Ok(()),
    }
}

fn check_lengths(dtype: GgmlType, values: usize, row_len: usize, bytes: usize) -> Result<()> {
    let block = dtype.block_size();
    let whole = row_len > 0 && row_len.is_multiple_of(block) && values.is_multiple_of(row_len);
    let wanted = values / block * dtype.type_size();
    if whole && bytes == wanted {
        return Ok(());
    }
    Err(Error::internal(format!(
        "quantising to {}: expected whole rows of blocks of {block} values and {wanted} bytes for them, got {values} \
         values in rows of {row_len} and {bytes} bytes",
        dtype.name()
    )))
}

/// The least magnitude that `dtype` cannot hold whatever its scale.
fn limit(dtype: GgmlType) -> f32 {
    match dtype {
        GgmlType::F32 => f32::INFINITY,
        // Halfway from the largest to what would be the next.
        GgmlType::F16 => 65_520.0,
        GgmlType::BF16 => f32::from_bits(0x7f7f_8000),
        _ => MAX_QUANTIZED,
    }
}

/// The place of the first value that is NaN or not below `limit` in magnitude.
fn first_at_least(values: &[f32], limit: f32) -> Option<usize> {
    /// Looked at together, without a branch for each.
    const CHUNK: usize = 256;
    let bad = |v: &f32| v.is_nan() || v.abs() >= limit;
    let at = values.chunks(CHUNK).position(|chunk| chunk.iter().fold(false, |any, v| any | bad(v)))? * CHUNK;
    values[at..].iter().position(bad).map(|i| at + i)
}

/// The error for a value, or for the largest of a block, with the place of its first value.
#[cold]
fn refused(dtype: GgmlType, value: f32, (row, column): (usize, usize)) -> Error {
    Error::invalid_format(format!(
        "quantising to {}: expected finite values that its blocks can hold, got {value:e} in row {row} at \
         column {column}",
        dtype.name()
    ))
}

fn largest(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |max: f32, v| if v.abs() > max.abs() { *v } else { max })
}

/// What [`rows`] does once all is checked.
struct Encode<'a> {
    dtype: GgmlType,
    values: &'a [f32],
    out: &'a mut [u8],
}

impl LaneWork for Encode<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { dtype, values, out } = self;
        // A macro, since a function handed to another one was not always inlined, and then not compiled for AVX2.
        macro_rules! each_block {
            ($($f:tt)*) => {
                for (x, y) in values.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
                    $($f)*(x, y);
                }
            };
        }
        match dtype {
            GgmlType::F32 => each_block!(legacy::f32),
            GgmlType::F16 => legacy::f16_row(values, out),
            GgmlType::BF16 => each_block!(legacy::bf16),
            GgmlType::Q4_0 => each_block!(legacy::q4_0),
            GgmlType::Q4_1 => each_block!(legacy::q4_1),
            GgmlType::Q5_0 => each_block!(legacy::q5_0),
            GgmlType::Q5_1 => each_block!(legacy::q5_1),
            GgmlType::Q8_0 => each_block!(legacy::q8_0),
            GgmlType::Q2K => each_block!(pack::q2_k::<V>),
            GgmlType::Q3K => each_block!(pack::q3_k::<V>),
            GgmlType::Q4K => each_block!(pack::q4_k::<V>),
            GgmlType::Q5K => each_block!(pack::q5_k::<V>),
            GgmlType::Q6K => each_block!(pack::q6_k::<V>),
            GgmlType::IQ4NL | GgmlType::Q8_1 | GgmlType::Q8K => {
                unreachable!("`rows` refuses types that are not written")
            }
        }
    }
}

/// The first value of the first block whose scale or minimum became infinite.
fn first_overflow(dtype: GgmlType, out: &[u8]) -> Option<usize> {
    const INFINITE: u16 = 0x7c00;
    let halves: &[usize] = match dtype {
        GgmlType::Q4_0 | GgmlType::Q5_0 | GgmlType::Q8_0 => &[0],
        GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4K | GgmlType::Q5K => &[0, 2],
        GgmlType::Q2K => &[80, 82],
        GgmlType::Q3K => &[108],
        GgmlType::Q6K => &[208],
        _ => return None,
    };
    let bits = |block: &[u8], at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    let overflows = |block: &[u8]| halves.iter().any(|&at| bits(block, at) & INFINITE == INFINITE);
    out.chunks_exact(dtype.type_size()).position(overflows).map(|block| block * dtype.block_size())
}
