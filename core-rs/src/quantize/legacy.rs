//! f32, f16, bf16 and the older quantisations: blocks of 32 values with one scale, found by the extremes alone.
//!
//! Formulas are those of ggml's `quantize_row_*_ref`, also where a block is so small that its scale's inverse is
//! infinite: there C's conversion to an integer gives 0, and so does [`low_byte`].

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Values of a block.
const QK: usize = 32;
/// Values converted to f16 at a time.
const CHUNK: usize = 64;

/// Row of f16, rounded to nearest even.
pub(super) fn f16_row(values: &[f32], out: &mut [u8]) {
    for (values, out) in values.chunks(CHUNK).zip(out.chunks_mut(2 * CHUNK)) {
        let mut halves = [f16::ZERO; CHUNK];
        halves[..values.len()].convert_from_f32_slice(values);
        for (out, half) in out.as_chunks_mut().0.iter_mut().zip(halves) {
            *out = half.to_le_bytes();
        }
    }
}

/// As it is.
#[inline(always)]
pub(super) fn f32([x]: &[f32; 1], y: &mut [u8; 4]) {
    *y = x.to_le_bytes();
}

/// A finite value's upper half, rounded to nearest even.
#[inline(always)]
pub(super) fn bf16([x]: &[f32; 1], y: &mut [u8; 2]) {
    let bits = x.to_bits();
    *y = (((bits + (0x7fff + (bits >> 16 & 1))) >> 16) as u16).to_le_bytes();
}

/// `{ f16 d; u8 nibbles[16] }`: `d * (q - 8)`
#[inline(always)]
pub(super) fn q4_0(x: &[f32; QK], [d0, d1, nibbles @ ..]: &mut [u8; 2 + QK / 2]) {
    let (d, inverse) = scale_and_inverse(signed_max(x) / -8.0);
    [*d0, *d1] = d;
    pack_nibbles(nibbles, |i| low_byte(x[i] * inverse + 8.5).min(15) as u8);
}

/// `{ f16 d, min; u8 nibbles[16] }`: `d * q + min`
#[inline(always)]
pub(super) fn q4_1(x: &[f32; QK], [d0, d1, m0, m1, nibbles @ ..]: &mut [u8; 4 + QK / 2]) {
    let (min, max) = min_max(x);
    let (d, inverse) = scale_and_inverse((max - min) / 15.0);
    ([*d0, *d1], [*m0, *m1]) = (d, half(min));
    pack_nibbles(nibbles, |i| low_byte((x[i] - min) * inverse + 0.5).min(15) as u8);
}

/// `{ f16 d; u32 fifth bits; u8 nibbles[16] }`: `d * (q - 16)`
#[inline(always)]
pub(super) fn q5_0(x: &[f32; QK], [d0, d1, h0, h1, h2, h3, nibbles @ ..]: &mut [u8; 6 + QK / 2]) {
    let (d, inverse) = scale_and_inverse(signed_max(x) / -16.0);
    [*d0, *d1] = d;
    [*h0, *h1, *h2, *h3] = pack_fives(nibbles, |i| low_byte(x[i] * inverse + 16.5).min(31) as u8);
}

/// `{ f16 d, min; u32 fifth bits; u8 nibbles[16] }`: `d * q + min`
#[inline(always)]
pub(super) fn q5_1(x: &[f32; QK], [d0, d1, m0, m1, h0, h1, h2, h3, nibbles @ ..]: &mut [u8; 8 + QK / 2]) {
    let (min, max) = min_max(x);
    let (d, inverse) = scale_and_inverse((max - min) / 31.0);
    ([*d0, *d1], [*m0, *m1]) = (d, half(min));
    [*h0, *h1, *h2, *h3] = pack_fives(nibbles, |i| low_byte((x[i] - min) * inverse + 0.5) as u8);
}

/// `{ f16 d; i8 q[32] }`: `d * q`
#[inline(always)]
pub(super) fn q8_0(x: &[f32; QK], [d0, d1, q @ ..]: &mut [u8; 2 + QK]) {
    /// The largest float below one half: added before truncating, it rounds halves away from zero as `roundf` does.
    const BELOW_HALF: f32 = 0.499_999_97;
    let max = x.iter().fold(0.0, |max: f32, v| if max > v.abs() { max } else { v.abs() });
    let (d, inverse) = scale_and_inverse(max / 127.0);
    [*d0, *d1] = d;
    for (q, x) in q.iter_mut().zip(x) {
        let v = x * inverse;
        *q = low_byte(v + BELOW_HALF.copysign(v)) as u8;
    }
}

/// The little-endian f16 nearest to `v`.
#[inline(always)]
pub(super) fn half(v: f32) -> [u8; 2] {
    f16::from_f32(v).to_le_bytes()
}

/// The stored scale, and the inverse of the exact one.
#[inline(always)]
fn scale_and_inverse(d: f32) -> ([u8; 2], f32) {
    (half(d), if d == 0.0 { 0.0 } else { 1.0 / d })
}

/// The first value of the largest magnitude, with its sign.
#[inline(always)]
fn signed_max(x: &[f32; QK]) -> f32 {
    x.iter().fold((0.0, 0.0), |(top, max), &v| if top < v.abs() { (v.abs(), v) } else { (top, max) }).1
}

#[inline(always)]
fn min_max(x: &[f32; QK]) -> (f32, f32) {
    x.iter()
        .fold((f32::MAX, -f32::MAX), |(min, max), &v| (if v < min { v } else { min }, if v > max { v } else { max }))
}

/// `v` truncated; of what does not fit an `i32`, and of NaN, the low byte is 0.
#[inline(always)]
fn low_byte(v: f32) -> i8 {
    /// 2^31.
    const TOO_LARGE: f32 = 2_147_483_648.0;
    if v < TOO_LARGE { v as i32 as i8 } else { 0 }
}

/// Values 0..16 go into low nibbles, 16..32 into high ones.
#[inline(always)]
fn pack_nibbles(nibbles: &mut [u8; QK / 2], q: impl Fn(usize) -> u8) {
    for (i, nibble) in nibbles.iter_mut().enumerate() {
        *nibble = q(i) | q(i + QK / 2) << 4;
    }
}

/// As [`pack_nibbles`]; returns the fifth bits as a little-endian word whose bit i is that of value i.
#[inline(always)]
fn pack_fives(nibbles: &mut [u8; QK / 2], q: impl Fn(usize) -> u8) -> [u8; 4] {
    let q: [u8; QK] = std::array::from_fn(q);
    pack_nibbles(nibbles, |i| q[i] & 15);
    q.iter().enumerate().fold(0, |word, (i, q)| word | u32::from(q >> 4 & 1) << i).to_le_bytes()
}
