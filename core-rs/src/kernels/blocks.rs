//! Quantised blocks: how Q4_1, Q5_0 and Q5_1 lie in a GGUF file, and the one form in which all of them are multiplied.
//!
//! A block is 32 values sharing a scale. Unpacked, a weight block reads `value = scale * q + side` with `q` in 0..=31,
//! and an activation block `value = scale * q` with `q` in -127..=127 and `side` the sum of its values, so that
//!
//! ```text
//! dot(w, x) = Σ over blocks  w.scale * x.scale * Σ w.q * x.q  +  w.side * x.side
//! ```
//!
//! which is ggml's `vec_dot_q4_1_q8_1`, except that scale and sum of activations stay f32 here where ggml rounds them
//! to f16. Rows are unpacked once and used for every token of a batch.
//!
//! Layouts: `block_q4_1`, `block_q5_0`, `block_q5_1` of ggml's `ggml-common.h`, little-endian.

use std::ops::Range;

use candle_core::quantized::GgmlDType;

/// Values that share a scale.
pub(crate) const BLOCK: usize = 32;
/// Scales are padded with zeros to a multiple of this, so that vector loops over them need no tail.
pub(crate) const LANES: usize = 8;
/// Q5_0 stores `q - 16` shifted up by 16: its constant term is `-16 * scale`.
pub(super) const Q5_0_ZERO: f32 = 16.0;
/// Largest magnitude of a quantised activation.
const MAX_ACTIVATION: f32 = 127.0;

/// Weight formats multiplied in this room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Q4_1,
    Q5_0,
    Q5_1,
}

impl Format {
    /// The format of candle's `dtype`, if it is one of ours.
    pub(crate) fn of(dtype: GgmlDType) -> Option<Self> {
        match dtype {
            GgmlDType::Q4_1 => Some(Self::Q4_1),
            GgmlDType::Q5_0 => Some(Self::Q5_0),
            GgmlDType::Q5_1 => Some(Self::Q5_1),
            _ => None,
        }
    }

    /// Bytes of a row of `k` values.
    pub(crate) const fn row_bytes(self, k: usize) -> usize {
        k / BLOCK * self.block_bytes()
    }

    const fn block_bytes(self) -> usize {
        match self {
            Self::Q4_1 => Q4_1_BYTES,
            Self::Q5_0 => Q5_0_BYTES,
            Self::Q5_1 => Q5_1_BYTES,
        }
    }
}

/// Rows of unpacked blocks: `k` numbers each, with a scale and a side term per block.
pub(crate) struct Rows<T> {
    k: usize,
    /// Scales and sides per row: blocks rounded up to [`LANES`], the rest zero.
    stride: usize,
    q: Vec<T>,
    scale: Vec<f32>,
    side: Vec<f32>,
}

/// One row of [`Rows`].
#[derive(Clone, Copy)]
pub(crate) struct Row<'a, T> {
    pub(crate) q: &'a [[T; BLOCK]],
    pub(crate) scale: &'a [f32],
    pub(crate) side: &'a [f32],
}

/// One row of [`Rows`], to be filled.
pub(crate) struct RowMut<'a, T> {
    pub(crate) q: &'a mut [[T; BLOCK]],
    pub(crate) scale: &'a mut [f32],
    pub(crate) side: &'a mut [f32],
}

impl<T: Copy + Default> Rows<T> {
    /// `rows` rows of zeros. `k` is a multiple of [`BLOCK`].
    pub(crate) fn zeros(rows: usize, k: usize) -> Self {
        assert!(k.is_multiple_of(BLOCK), "row of {k} values is not whole blocks");
        let stride = (k / BLOCK).next_multiple_of(LANES);
        let sides = vec![0.0; rows * stride];
        Self { k, stride, q: vec![T::default(); rows * k], scale: sides.clone(), side: sides }
    }

    pub(crate) fn k(&self) -> usize {
        self.k
    }

    pub(crate) fn len(&self) -> usize {
        self.q.len().checked_div(self.k).unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn row(&self, i: usize) -> Row<'_, T> {
        let (q, sides) = self.ranges(i);
        Row { q: self.q[q].as_chunks().0, scale: &self.scale[sides.clone()], side: &self.side[sides] }
    }

    #[inline(always)]
    pub(crate) fn row_mut(&mut self, i: usize) -> RowMut<'_, T> {
        let (q, sides) = self.ranges(i);
        let scale = &mut self.scale[sides.clone()];
        RowMut { q: self.q[q].as_chunks_mut().0, scale, side: &mut self.side[sides] }
    }

    #[inline(always)]
    fn ranges(&self, i: usize) -> (Range<usize>, Range<usize>) {
        (i * self.k..(i + 1) * self.k, i * self.stride..(i + 1) * self.stride)
    }
}

impl Rows<u8> {
    /// Unpacks stored rows into the first rows.
    pub(crate) fn unpack(&mut self, format: Format, bytes: &[u8]) {
        for (i, bytes) in bytes.chunks_exact(format.row_bytes(self.k)).enumerate() {
            match format {
                Format::Q4_1 => unpack_row(bytes, self.row_mut(i), q4_1),
                Format::Q5_0 => unpack_row(bytes, self.row_mut(i), q5_0),
                Format::Q5_1 => unpack_row(bytes, self.row_mut(i), q5_1),
            }
        }
    }
}

impl Rows<i8> {
    /// Quantises rows of activations. Inlined into each instruction set's own form.
    ///
    /// A block holding a NaN or an infinity becomes NaN as a whole: it must not turn into a plausible number.
    #[inline(always)]
    pub(crate) fn quantize(&mut self, values: &[f32]) {
        for (i, values) in values.chunks_exact(self.k).enumerate() {
            quantize_row(values, self.row_mut(i));
        }
    }
}

#[inline(always)]
fn quantize_row(values: &[f32], row: RowMut<'_, i8>) {
    let blocks = values.as_chunks::<BLOCK>().0;
    for (((x, q), scale), side) in blocks.iter().zip(row.q).zip(row.scale).zip(row.side) {
        let bits = x.iter().fold(0, |max, v| max.max(v.to_bits() & F32_MAGNITUDE));
        let top = if bits < F32_INFINITE { f32::from_bits(bits) } else { f32::NAN };
        *scale = top / MAX_ACTIVATION;
        let inverse = if *scale == 0.0 { 0.0 } else { 1.0 / *scale };
        let mut sum = 0;
        for (q, v) in q.iter_mut().zip(x) {
            *q = round_to_i8(v * inverse);
            sum += i32::from(*q);
        }
        *side = *scale * sum as f32;
    }
}

/// Bits of an f32 without its sign; their order as integers is the order of magnitudes.
const F32_MAGNITUDE: u32 = 0x7fff_ffff;
/// From here on, magnitude bits mean infinity or NaN.
const F32_INFINITE: u32 = 0x7f80_0000;
/// Adding 1.5 * 2^23 leaves a small float's nearest integer (ties to even) in the low bits: no library call, no
/// rounding instruction, and the same on every machine.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
fn round_to_i8(v: f32) -> i8 {
    (v + ROUND).to_bits() as i8
}

pub(super) const Q4_1_BYTES: usize = 2 + 2 + 16;
pub(super) const Q5_0_BYTES: usize = 2 + 4 + 16;
pub(super) const Q5_1_BYTES: usize = 2 + 2 + 4 + 16;

fn unpack_row<const N: usize>(
    bytes: &[u8],
    row: RowMut<'_, u8>,
    unpack: impl Fn(&[u8; N], &mut [u8; BLOCK]) -> (f32, f32),
) {
    let blocks = bytes.as_chunks::<N>().0;
    for (((block, q), scale), side) in blocks.iter().zip(row.q).zip(row.scale).zip(row.side) {
        (*scale, *side) = unpack(block, q);
    }
}

/// `{ f16 scale, f16 min, u8 nibbles[16] }`
fn q4_1(block: &[u8; Q4_1_BYTES], q: &mut [u8; BLOCK]) -> (f32, f32) {
    *q = nibbles(bytes_at(block, 4));
    (half_at(block, 0), half_at(block, 2))
}

/// `{ f16 scale, u32 fifth bits, u8 nibbles[16] }`
fn q5_0(block: &[u8; Q5_0_BYTES], q: &mut [u8; BLOCK]) -> (f32, f32) {
    *q = with_fifth_bits(nibbles(bytes_at(block, 6)), bytes_at(block, 2));
    let scale = half_at(block, 0);
    (scale, -Q5_0_ZERO * scale)
}

/// `{ f16 scale, f16 min, u32 fifth bits, u8 nibbles[16] }`
fn q5_1(block: &[u8; Q5_1_BYTES], q: &mut [u8; BLOCK]) -> (f32, f32) {
    *q = with_fifth_bits(nibbles(bytes_at(block, 8)), bytes_at(block, 4));
    (half_at(block, 0), half_at(block, 2))
}

/// Low nibbles are the first half of a block, high nibbles the second.
fn nibbles(bytes: [u8; BLOCK / 2]) -> [u8; BLOCK] {
    let mut q = [0; BLOCK];
    for i in 0..BLOCK / 2 {
        q[i] = bytes[i] & 15;
        q[i + BLOCK / 2] = bytes[i] >> 4;
    }
    q
}

/// Bit i of the little-endian word becomes bit 4 of value i.
fn with_fifth_bits(mut q: [u8; BLOCK], word: [u8; 4]) -> [u8; BLOCK] {
    let word = u32::from_le_bytes(word);
    for (i, q) in q.iter_mut().enumerate() {
        *q |= ((word >> i & 1) << 4) as u8;
    }
    q
}

fn bytes_at<const N: usize, const M: usize>(block: &[u8; N], at: usize) -> [u8; M] {
    std::array::from_fn(|i| block[at + i])
}

pub(super) fn half_at<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    half_to_f32(u16::from_le_bytes(bytes_at(block, at)))
}

/// f16 bits to f32 without branches: shifting aligns the fraction, the product moves the exponent's bias and also
/// normalises subnormals. `half` would ask for CPU features at each of these calls.
pub(super) fn half_to_f32(bits: u16) -> f32 {
    const BIAS: f32 = f32::from_bits((127 + 127 - 15) << 23);
    const HALF_INFINITE: f32 = 65536.0;
    let sign = u32::from(bits & 0x8000) << 16;
    let value = f32::from_bits(u32::from(bits & 0x7fff) << 13) * BIAS;
    let exponent = if value >= HALF_INFINITE { F32_INFINITE } else { 0 };
    f32::from_bits(value.to_bits() | exponent | sign)
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::QTensor;
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn half_matches_the_half_crate_for_all_bits() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (half_to_f32(bits), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{bits:#06x}");
        }
    }

    #[test]
    fn unpacked_rows_are_what_candle_dequantizes() {
        const K: usize = 96;
        let values: Vec<f32> = (0..2 * K).map(|i| ((i * 37 % 101) as f32 - 40.0) / 17.0).collect();
        let tensor = Tensor::from_vec(values, (2, K), &Device::Cpu).unwrap();
        for dtype in [GgmlDType::Q4_1, GgmlDType::Q5_0, GgmlDType::Q5_1] {
            let stored = QTensor::quantize(&tensor, dtype).unwrap();
            let format = Format::of(dtype).unwrap();
            let (bytes, truth) = (stored.data().unwrap(), stored.dequantize(&Device::Cpu).unwrap());
            for (i, truth) in truth.to_vec2::<f32>().unwrap().iter().enumerate() {
                let mut rows = Rows::zeros(1, K);
                rows.unpack(format, &bytes[i * format.row_bytes(K)..][..format.row_bytes(K)]);
                let row = rows.row(0);
                let ours =
                    row.q.iter().enumerate().flat_map(|(b, q)| q.map(|q| row.scale[b] * f32::from(q) + row.side[b]));
                for (ours, truth) in ours.zip(truth) {
                    assert!((ours - truth).abs() <= 1e-6 * truth.abs().max(1.0), "{dtype:?}: {ours} != {truth}");
                }
            }
        }
    }

    #[test]
    fn activations_round_to_the_nearest_step() {
        let values: Vec<f32> = (0..BLOCK).map(|i| i as f32 * 0.37 - 5.0).collect();
        let mut rows = Rows::zeros(1, BLOCK);
        rows.quantize(&values);
        let row = rows.row(0);
        for (q, v) in row.q[0].iter().zip(&values) {
            assert!((row.scale[0] * f32::from(*q) - v).abs() <= row.scale[0] * 0.5001);
        }
        let sum: f32 = row.q[0].iter().map(|&q| row.scale[0] * f32::from(q)).sum();
        assert!((row.side[0] - sum).abs() < 1e-4);
        assert_eq!(row.scale[1..], [0.0; LANES - 1], "padding stays zero");
    }

    #[test]
    fn activations_that_are_not_numbers_stay_visible() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; BLOCK];
            values[7] = bad;
            let mut rows = Rows::zeros(1, BLOCK);
            rows.quantize(&values);
            assert!(rows.row(0).scale[0].is_nan() && rows.row(0).side[0].is_nan(), "{bad}");
        }
        let mut rows = Rows::zeros(1, BLOCK);
        rows.quantize(&[f32::from_bits(1); BLOCK]);
        assert_eq!(rows.row(0).side[0], 0.0, "a subnormal block has no scale and counts as zero");
    }
}
