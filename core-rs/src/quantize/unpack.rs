//! Blocks back to floats: ggml's `dequantize_row_*`, the same products in the same order.

use std::array;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::formats::gguf::GgmlType;
use crate::kernels::IQ4_NL_VALUES;

/// Fills `out` with the values of `bytes`, whole blocks of `dtype`.
///
/// # Errors
/// `unsupported` for a type that is not one of weights (q8_1), `internal` for lengths that do not fit together.
pub fn dequantize(dtype: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let (block, size) = (dtype.block_size(), dtype.type_size());
    if !bytes.len().is_multiple_of(size) || bytes.len() / size * block != out.len() {
        return Err(Error::internal(format!(
            "reading {}: expected blocks of {size} bytes and {block} values, got {} bytes and {} values",
            dtype.name(),
            bytes.len(),
            out.len()
        )));
    }
    match dtype {
        GgmlType::F32 => each_block(bytes, out, |x, [y]| *y = f32::from_le_bytes(*x)),
        GgmlType::F16 => f16_row(bytes, out),
        GgmlType::BF16 => each_block(bytes, out, |x, [y]| *y = bf16::from_le_bytes(*x).to_f32()),
        GgmlType::Q4_0 => each_block(bytes, out, q4_0),
        GgmlType::Q4_1 => each_block(bytes, out, q4_1),
        GgmlType::Q5_0 => each_block(bytes, out, q5_0),
        GgmlType::Q5_1 => each_block(bytes, out, q5_1),
        GgmlType::Q8_0 => each_block(bytes, out, q8_0),
        GgmlType::IQ4NL => each_block(bytes, out, iq4_nl),
        GgmlType::Q2K => each_block(bytes, out, q2_k),
        GgmlType::Q3K => each_block(bytes, out, q3_k),
        GgmlType::Q4K => each_block(bytes, out, q4_k),
        GgmlType::Q5K => each_block(bytes, out, q5_k),
        GgmlType::Q6K => each_block(bytes, out, q6_k),
        GgmlType::Q8K => each_block(bytes, out, q8_k),
        GgmlType::Q8_1 => return Err(Error::unsupported("reading q8_1: it holds activations, not weights")),
    }
    Ok(())
}

#[inline(always)]
fn each_block<const B: usize, const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn(&[u8; B], &mut [f32; N])) {
    for (x, y) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        f(x, y);
    }
}

#[inline(always)]
fn half(low: u8, high: u8) -> f32 {
    f16::from_le_bytes([low, high]).to_f32()
}

/// Converted a few at a time, for which there are instructions.
fn f16_row(bytes: &[u8], out: &mut [f32]) {
    const CHUNK: usize = 64;
    for (bytes, out) in bytes.chunks(2 * CHUNK).zip(out.chunks_mut(CHUNK)) {
        let mut halves = [f16::ZERO; CHUNK];
        for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
            *half = f16::from_le_bytes(*bytes);
        }
        halves[..out.len()].convert_to_f32_slice(out);
    }
}

fn q4_0([d0, d1, q @ ..]: &[u8; 18], y: &mut [f32; 32]) {
    let d = half(*d0, *d1);
    *y = array::from_fn(|i| (f32::from(nibble(q, i)) - 8.0) * d);
}

fn iq4_nl([d0, d1, q @ ..]: &[u8; 18], y: &mut [f32; 32]) {
    let d = half(*d0, *d1);
    *y = array::from_fn(|i| d * f32::from(IQ4_NL_VALUES[usize::from(nibble(q, i))]));
}

fn q4_1([d0, d1, m0, m1, q @ ..]: &[u8; 20], y: &mut [f32; 32]) {
    let (d, min) = (half(*d0, *d1), half(*m0, *m1));
    *y = array::from_fn(|i| f32::from(nibble(q, i)) * d + min);
}

fn q5_0([d0, d1, h0, h1, h2, h3, q @ ..]: &[u8; 22], y: &mut [f32; 32]) {
    let (d, fifth) = (half(*d0, *d1), u32::from_le_bytes([*h0, *h1, *h2, *h3]));
    *y = array::from_fn(|i| (f32::from(five(q, fifth, i)) - 16.0) * d);
}

fn q5_1([d0, d1, m0, m1, h0, h1, h2, h3, q @ ..]: &[u8; 24], y: &mut [f32; 32]) {
    let (d, min, fifth) = (half(*d0, *d1), half(*m0, *m1), u32::from_le_bytes([*h0, *h1, *h2, *h3]));
    *y = array::from_fn(|i| f32::from(five(q, fifth, i)) * d + min);
}

fn q8_0([d0, d1, q @ ..]: &[u8; 34], y: &mut [f32; 32]) {
    let d = half(*d0, *d1);
    *y = q.map(|q| f32::from(q as i8) * d);
}

/// Value `i` of a block of 32: low nibbles first.
#[inline(always)]
fn nibble(q: &[u8; 16], i: usize) -> u8 {
    if i < 16 { q[i] & 15 } else { q[i - 16] >> 4 }
}

#[inline(always)]
fn five(q: &[u8; 16], fifth: u32, i: usize) -> u8 {
    nibble(q, i) | ((fifth >> i & 1) << 4) as u8
}

/// The 2-bit pairs of sub-block `k` of 16: 32 apart in a byte, half by half.
#[inline(always)]
fn pairs(q: &[u8], k: usize) -> [u8; 16] {
    let (q, shift) = (&q[k / 8 * 32 + k % 2 * 16..][..16], k % 8 / 2 * 2);
    array::from_fn(|i| q[i] >> shift & 3)
}

/// The nibbles of sub-block `k` of 32: 32 apart in a byte, of each 64.
#[inline(always)]
fn long_nibbles(q: &[u8], k: usize) -> [u8; 32] {
    let (q, shift) = (&q[k / 2 * 32..][..32], k % 2 * 4);
    array::from_fn(|i| q[i] >> shift & 15)
}

/// Fills sub-blocks of `N` values: `f(k)` are those of sub-block k.
#[inline(always)]
fn by_sub_block<const N: usize>(y: &mut [f32; 256], f: impl Fn(usize) -> [f32; N]) {
    for (k, y) in y.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        *y = f(k);
    }
}

fn q2_k(x: &[u8; 84], y: &mut [f32; 256]) {
    let (scales, q) = x.split_at(16);
    let (d, d_min) = (half(x[80], x[81]), half(x[82], x[83]));
    by_sub_block::<16>(y, |k| {
        let (scale, min) = (d * f32::from(scales[k] & 15), d_min * f32::from(scales[k] >> 4));
        pairs(q, k).map(|q| scale * f32::from(q) - min)
    });
}

fn q3_k(x: &[u8; 110], y: &mut [f32; 256]) {
    let (third, rest) = x.split_at(32);
    let (q, scales) = rest.split_at(64);
    let d = half(x[108], x[109]);
    by_sub_block::<16>(y, |k| {
        let low = if k < 8 { scales[k] & 15 } else { scales[k - 8] >> 4 };
        let scale = low | (scales[8 + k % 4] >> (k / 4 * 2) & 3) << 4;
        let scale = d * (f32::from(scale) - 32.0);
        let (low, third) = (pairs(q, k), &third[k % 2 * 16..][..16]);
        array::from_fn(|i| scale * (f32::from(low[i] | (third[i] >> (k / 2) & 1) << 2) - 4.0))
    });
}

/// Scale and minimum of sub-block `k`, 6 bits each.
#[inline(always)]
fn scale_and_min(scales: &[u8], k: usize) -> (f32, f32) {
    let (scale, min) = if k < 4 {
        (scales[k] & 63, scales[k + 4] & 63)
    } else {
        (scales[k + 4] & 15 | scales[k - 4] >> 6 << 4, scales[k + 4] >> 4 | scales[k] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(x: &[u8; 144], y: &mut [f32; 256]) {
    let (header, q) = x.split_at(16);
    long(header, y, |k| long_nibbles(q, k));
}

fn q5_k(x: &[u8; 176], y: &mut [f32; 256]) {
    let (header, rest) = x.split_at(16);
    let (fifth, q) = rest.split_at(32);
    long(header, y, |k| {
        let low = long_nibbles(q, k);
        array::from_fn(|i| low[i] | (fifth[i] >> k & 1) << 4)
    });
}

/// What 4-bit and 5-bit blocks share: `{ f16 d, dmin; u8 scales[12] }` and `d * scale * q - dmin * min`.
#[inline(always)]
fn long(header: &[u8], y: &mut [f32; 256], q: impl Fn(usize) -> [u8; 32]) {
    let (d, d_min) = (half(header[0], header[1]), half(header[2], header[3]));
    by_sub_block::<32>(y, |k| {
        let (scale, min) = scale_and_min(&header[4..], k);
        let (scale, min) = (d * scale, d_min * min);
        q(k).map(|q| scale * f32::from(q) - min)
    });
}

fn q6_k(x: &[u8; 210], y: &mut [f32; 256]) {
    let (low, rest) = x.split_at(128);
    let (high, rest) = rest.split_at(64);
    let d = half(x[208], x[209]);
    by_sub_block::<16>(y, |k| {
        let scale = d * f32::from(rest[k] as i8);
        let (low, shift, high) = (&low[k / 8 * 64 + k % 4 * 16..][..16], k % 8 / 4 * 4, pairs(high, k));
        array::from_fn(|i| scale * (f32::from(low[i] >> shift & 15 | high[i] << 4) - 32.0))
    });
}

fn q8_k(x: &[u8; 292], y: &mut [f32; 256]) {
    let [d0, d1, d2, d3, q @ ..] = x;
    let d = f32::from_le_bytes([*d0, *d1, *d2, *d3]);
    for (y, q) in y.iter_mut().zip(q) {
        *y = d * f32::from(*q as i8);
    }
}
