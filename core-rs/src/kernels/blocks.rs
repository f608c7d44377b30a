//! Quantised blocks: how they lie in a GGUF file, and the one form in which all of them are multiplied.
//!
//! A block here is 32 values. Unpacked, a weight block reads `value = scale * q + side` with `q` in 0..=255, either with
//! one scale and side or (`Format::halves`) with one for each half of 16; an activation block reads `value = scale * q`
//! with `q` in -127..=127, and `side` is the sum of its values, `half_sides` those of its halves, so that
//!
//! ```text
//! dot(w, x) = Σ over blocks (or halves)  w.scale * x.scale * Σ w.q * x.q  +  w.side * x.side
//! ```
//!
//! Formats with signed values are shifted up until they have none, and their side takes the shift back. This is ggml's
//! arithmetic (`vec_dot_q4_1_q8_1` for all), except that the sum of activations stays f32 where ggml rounds it to f16, and
//! that activations have a scale for each 32 values where ggml's K types give them one for 256: half the error.
//!
//! Layouts: `block_q4_0` to `block_q6_K` of ggml's `ggml-common.h`, little-endian.

use std::ops::Range;

use candle_core::quantized::GgmlDType;

/// Values that share a scale.
pub(crate) const BLOCK: usize = 32;
/// Largest magnitude of a quantised activation.
const MAX_ACTIVATION: f32 = 127.0;

/// Weight formats multiplied in this room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl Format {
    /// The format of candle's `dtype`, if it is one of ours.
    pub(crate) fn of(dtype: GgmlDType) -> Option<Self> {
        Some(match dtype {
            GgmlDType::Q4_0 => Self::Q4_0,
            GgmlDType::Q4_1 => Self::Q4_1,
            GgmlDType::Q5_0 => Self::Q5_0,
            GgmlDType::Q5_1 => Self::Q5_1,
            GgmlDType::Q8_0 => Self::Q8_0,
            GgmlDType::Q2K => Self::Q2K,
            GgmlDType::Q3K => Self::Q3K,
            GgmlDType::Q4K => Self::Q4K,
            GgmlDType::Q5K => Self::Q5K,
            GgmlDType::Q6K => Self::Q6K,
            _ => return None,
        })
    }

    /// Bytes of a row of `k` values.
    pub(crate) const fn row_bytes(self, k: usize) -> usize {
        k / self.stored_values() * self.stored_bytes()
    }

    /// Values of a stored block: one block of ours, or eight.
    pub(crate) const fn stored_values(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => BLOCK,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 8 * BLOCK,
        }
    }

    /// Bytes of a stored block.
    pub(crate) const fn stored_bytes(self) -> usize {
        match self {
            Self::Q4_0 => Q4_0_BYTES,
            Self::Q4_1 => Q4_1_BYTES,
            Self::Q5_0 => Q5_0_BYTES,
            Self::Q5_1 => Q5_1_BYTES,
            Self::Q8_0 => Q8_0_BYTES,
            Self::Q2K => Q2K_BYTES,
            Self::Q3K => Q3K_BYTES,
            Self::Q4K => Q4K_BYTES,
            Self::Q5K => Q5K_BYTES,
            Self::Q6K => Q6K_BYTES,
        }
    }

    /// Whether each half of a block has a scale of its own.
    pub(crate) const fn halves(self) -> bool {
        matches!(self, Self::Q2K | Self::Q3K | Self::Q6K)
    }
}

/// Stored rows of `k` values each, next to one another.
#[derive(Clone, Copy)]
pub(crate) struct StoredRows<'a> {
    pub(crate) format: Format,
    pub(crate) bytes: &'a [u8],
    pub(crate) k: usize,
}

impl StoredRows<'_> {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / self.format.row_bytes(self.k)
    }
}

/// Rows of unpacked blocks: `k` numbers each, with a scale and a side term per block, or two.
#[derive(Default)]
pub(crate) struct Rows<T> {
    k: usize,
    /// Scales and sides per row.
    stride: usize,
    q: Vec<T>,
    scale: Vec<f32>,
    side: Vec<f32>,
    /// Of activations: the sides of both halves of each block.
    half_sides: Vec<[f32; 2]>,
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
    /// Makes them `rows` rows of `k` values, a multiple of [`BLOCK`], with `scales` scales per block. Memory is kept; what
    /// it held stays where nothing is written.
    pub(crate) fn reshape(&mut self, rows: usize, k: usize, scales: usize) {
        assert!(k.is_multiple_of(BLOCK), "row of {k} values is not whole blocks");
        (self.k, self.stride) = (k, k / BLOCK * scales);
        self.q.resize(rows * k, T::default());
        self.scale.resize(rows * self.stride, 0.0);
        self.side.resize(rows * self.stride, 0.0);
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
    /// Makes them the unpacked form of stored rows.
    pub(crate) fn unpack(&mut self, stored: StoredRows<'_>) {
        let StoredRows { format, bytes, k } = stored;
        self.reshape(stored.len(), k, if format.halves() { 2 } else { 1 });
        for (i, bytes) in bytes.chunks_exact(format.row_bytes(k)).enumerate() {
            let row = self.row_mut(i);
            match format {
                Format::Q4_0 => unpack_row(bytes, row, q4_0),
                Format::Q4_1 => unpack_row(bytes, row, q4_1),
                Format::Q5_0 => unpack_row(bytes, row, q5_0),
                Format::Q5_1 => unpack_row(bytes, row, q5_1),
                Format::Q8_0 => unpack_row(bytes, row, q8_0),
                Format::Q2K => unpack_row(bytes, row, q2_k),
                Format::Q3K => unpack_row(bytes, row, q3_k),
                Format::Q4K => unpack_row(bytes, row, q4_k),
                Format::Q5K => unpack_row(bytes, row, q5_k),
                Format::Q6K => unpack_row(bytes, row, q6_k),
            }
        }
    }
}

impl Rows<i8> {
    /// Quantises rows of `k` activations each. Inlined into each instruction set's own form.
    ///
    /// A block holding a NaN or an infinity becomes NaN as a whole: it must not turn into a plausible number.
    #[inline(always)]
    pub(crate) fn quantize(&mut self, values: &[f32], k: usize) {
        self.reshape(values.len() / k, k, 1);
        self.half_sides.resize(self.scale.len(), [0.0; 2]);
        let blocks = values.as_chunks::<BLOCK>().0.iter().zip(self.q.as_chunks_mut::<BLOCK>().0);
        let sides = self.scale.iter_mut().zip(&mut self.side).zip(&mut self.half_sides);
        for ((x, q), ((scale, side), halves)) in blocks.zip(sides) {
            let sums;
            (*scale, sums) = quantize_block(x, q);
            *side = *scale * (sums[0] + sums[1]) as f32;
            *halves = [*scale * sums[0] as f32, *scale * sums[1] as f32];
        }
    }

    /// The sides of both halves of each block of row `i`.
    pub(crate) fn half_sides(&self, i: usize) -> &[[f32; 2]] {
        &self.half_sides[i * self.stride..(i + 1) * self.stride]
    }
}

/// The scale of a block, and the sums of its halves' numbers.
#[inline(always)]
fn quantize_block(x: &[f32; BLOCK], q: &mut [i8; BLOCK]) -> (f32, [i32; 2]) {
    let bits = x.iter().fold(0, |max, v| max.max(v.to_bits() & F32_MAGNITUDE));
    let top = if bits < F32_INFINITE { f32::from_bits(bits) } else { f32::NAN };
    let scale = top / MAX_ACTIVATION;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut sums = [0; 2];
    for i in 0..BLOCK {
        q[i] = round_to_i8(x[i] * inverse);
        sums[i / (BLOCK / 2)] += i32::from(q[i]);
    }
    (to_eleven_bits(scale), sums)
}

/// The nearest number of eleven bits, ties to even: what an f16 keeps, over f32's range. ggml stores scales of activations
/// as f16; rounding ours like that quartered the mean distance of a small model's logits from llama.cpp's.
#[inline(always)]
fn to_eleven_bits(v: f32) -> f32 {
    let bits = v.to_bits();
    f32::from_bits((bits + 0xfff + (bits >> 13 & 1)) & !0x1fff)
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

pub(super) const Q4_0_BYTES: usize = 2 + 16;
pub(super) const Q4_1_BYTES: usize = 2 + 2 + 16;
pub(super) const Q5_0_BYTES: usize = 2 + 4 + 16;
pub(super) const Q5_1_BYTES: usize = 2 + 2 + 4 + 16;
pub(super) const Q8_0_BYTES: usize = 2 + 32;
pub(super) const Q2K_BYTES: usize = 16 + 64 + 2 + 2;
pub(super) const Q3K_BYTES: usize = 32 + 64 + 12 + 2;
pub(super) const Q4K_BYTES: usize = 2 + 2 + 12 + 128;
pub(super) const Q5K_BYTES: usize = 2 + 2 + 12 + 32 + 128;
pub(super) const Q6K_BYTES: usize = 128 + 64 + 16 + 2;

/// What stored values are shifted up by to have no sign.
pub(super) const Q4_0_ZERO: f32 = 8.0;
pub(super) const Q5_0_ZERO: f32 = 16.0;
pub(super) const Q8_0_ZERO: f32 = 128.0;
pub(super) const Q3K_ZERO: f32 = 4.0;
pub(super) const Q6K_ZERO: f32 = 32.0;

/// Unpacks stored blocks of `N` bytes. `unpack` gives block `i` of the stored one: its numbers, scales and sides.
fn unpack_row<const N: usize, const S: usize>(
    bytes: &[u8],
    row: RowMut<'_, u8>,
    unpack: impl Fn(&[u8; N], usize) -> ([u8; BLOCK], [(f32, f32); S]),
) {
    let stored = bytes.as_chunks::<N>().0;
    let per_stored = row.q.len() / stored.len().max(1);
    let scales = row.scale.as_chunks_mut::<S>().0.iter_mut().zip(row.side.as_chunks_mut::<S>().0);
    for (b, (q, (scale, side))) in row.q.iter_mut().zip(scales).enumerate() {
        let sides;
        (*q, sides) = unpack(&stored[b / per_stored], b % per_stored);
        (*scale, *side) = (sides.map(|s| s.0), sides.map(|s| s.1));
    }
}

/// `{ f16 scale, u8 nibbles[16] }`
fn q4_0(block: &[u8; Q4_0_BYTES], _: usize) -> ([u8; BLOCK], [(f32, f32); 1]) {
    let scale = half_at(block, 0);
    (nibbles(bytes_at(block, 2)), [(scale, -Q4_0_ZERO * scale)])
}

/// `{ f16 scale, f16 min, u8 nibbles[16] }`
fn q4_1(block: &[u8; Q4_1_BYTES], _: usize) -> ([u8; BLOCK], [(f32, f32); 1]) {
    (nibbles(bytes_at(block, 4)), [(half_at(block, 0), half_at(block, 2))])
}

/// `{ f16 scale, u32 fifth bits, u8 nibbles[16] }`
fn q5_0(block: &[u8; Q5_0_BYTES], _: usize) -> ([u8; BLOCK], [(f32, f32); 1]) {
    let scale = half_at(block, 0);
    (with_fifth_bits(nibbles(bytes_at(block, 6)), bytes_at(block, 2)), [(scale, -Q5_0_ZERO * scale)])
}

/// `{ f16 scale, f16 min, u32 fifth bits, u8 nibbles[16] }`
fn q5_1(block: &[u8; Q5_1_BYTES], _: usize) -> ([u8; BLOCK], [(f32, f32); 1]) {
    (with_fifth_bits(nibbles(bytes_at(block, 8)), bytes_at(block, 4)), [(half_at(block, 0), half_at(block, 2))])
}

/// `{ f16 scale, i8 values[32] }`
fn q8_0(block: &[u8; Q8_0_BYTES], _: usize) -> ([u8; BLOCK], [(f32, f32); 1]) {
    let scale = half_at(block, 0);
    (bytes_at(block, 2).map(|q: u8| q ^ 0x80), [(scale, -Q8_0_ZERO * scale)])
}

/// `{ u8 scales[16] (4 bits scale, 4 bits min), u8 pairs[64], f16 d, f16 d_min }`
fn q2_k(block: &[u8; Q2K_BYTES], i: usize) -> ([u8; BLOCK], [(f32, f32); 2]) {
    let (d, d_min) = (half_at(block, 80), half_at(block, 82));
    let sides = [block[2 * i], block[2 * i + 1]];
    (pairs(&block[16..80], i), sides.map(|s| (d * f32::from(s & 15), -(d_min * f32::from(s >> 4)))))
}

/// `{ u8 third bits[32], u8 pairs[64], u8 scales[12] (6 bits each), f16 d }`
fn q3_k(block: &[u8; Q3K_BYTES], i: usize) -> ([u8; BLOCK], [(f32, f32); 2]) {
    let mut q = pairs(&block[32..96], i);
    for (q, third) in q.iter_mut().zip(block) {
        *q |= (third >> i & 1) << 2;
    }
    let (d, scales) = (half_at(block, 108), q3_k_scales(bytes_at(block, 96)));
    let half = |k: usize| {
        let scale = d * (f32::from(scales[2 * i + k]) - 32.0);
        (scale, -Q3K_ZERO * scale)
    };
    (q, [half(0), half(1)])
}

/// Sixteen scales of 6 bits: low nibbles in eight bytes, the other two bits in four.
pub(super) fn q3_k_scales(bytes: [u8; 12]) -> [u8; 16] {
    std::array::from_fn(|k| {
        let low = if k < 8 { bytes[k] & 15 } else { bytes[k - 8] >> 4 };
        low | (bytes[8 + k % 4] >> (k / 4 * 2) & 3) << 4
    })
}

/// `{ f16 d, f16 d_min, u8 scales[12], u8 nibbles[128] }`
fn q4_k(block: &[u8; Q4K_BYTES], i: usize) -> ([u8; BLOCK], [(f32, f32); 1]) {
    (long_nibbles(&block[16..], i), [long_side(half_at(block, 0), half_at(block, 2), bytes_at(block, 4), i)])
}

/// `{ f16 d, f16 d_min, u8 scales[12], u8 fifth bits[32], u8 nibbles[128] }`
fn q5_k(block: &[u8; Q5K_BYTES], i: usize) -> ([u8; BLOCK], [(f32, f32); 1]) {
    let mut q = long_nibbles(&block[48..], i);
    for (q, fifth) in q.iter_mut().zip(&block[16..]) {
        *q |= (fifth >> i & 1) << 4;
    }
    (q, [long_side(half_at(block, 0), half_at(block, 2), bytes_at(block, 4), i)])
}

fn long_side(d: f32, d_min: f32, scales: [u8; 12], i: usize) -> (f32, f32) {
    let [scale, min] = long_scales(scales).map(|scales| scales[i]);
    (d * f32::from(scale), -(d_min * f32::from(min)))
}

/// Eight scales and eight minimums of 6 bits each, as Q4_K and Q5_K store them: the first four of both in the low bits of
/// eight bytes, the others' nibbles in four, and their other bits on top of the eight.
pub(super) fn long_scales(bytes: [u8; 12]) -> [[u8; 8]; 2] {
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (low_scales, low_mins, high) = (word(0), word(4), word(8));
    let top = |word: u32| word >> 2 & 0x3030_3030;
    let eight = |first: u32, second: u32| (u64::from(first) | u64::from(second) << 32).to_le_bytes();
    [
        eight(low_scales & 0x3f3f_3f3f, high & 0x0f0f_0f0f | top(low_scales)),
        eight(low_mins & 0x3f3f_3f3f, high >> 4 & 0x0f0f_0f0f | top(low_mins)),
    ]
}

/// `{ u8 nibbles[128], u8 pairs[64], i8 scales[16], f16 d }`
fn q6_k(block: &[u8; Q6K_BYTES], i: usize) -> ([u8; BLOCK], [(f32, f32); 2]) {
    let (low, shift, high) = (&block[i / 4 * 64 + i % 2 * 32..], i % 4 / 2 * 4, pairs(&block[128..192], i));
    let d = half_at(block, 208);
    let half = |k: usize| {
        let scale = d * f32::from(block[192 + 2 * i + k] as i8);
        (scale, -Q6K_ZERO * scale)
    };
    (std::array::from_fn(|j| low[j] >> shift & 15 | high[j] << 4), [half(0), half(1)])
}

/// The 2-bit pairs of block `i` of eight: 32 apart in a byte, half by half.
fn pairs(bytes: &[u8], i: usize) -> [u8; BLOCK] {
    let (bytes, shift) = (&bytes[i / 4 * BLOCK..], i % 4 * 2);
    std::array::from_fn(|j| bytes[j] >> shift & 3)
}

/// The nibbles of block `i` of eight: 32 apart in a byte, of each 64.
fn long_nibbles(bytes: &[u8], i: usize) -> [u8; BLOCK] {
    let (bytes, shift) = (&bytes[i / 2 * BLOCK..], i % 2 * 4);
    std::array::from_fn(|j| bytes[j] >> shift & 15)
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
        const K: usize = 512;
        let values: Vec<f32> = (0..2 * K).map(|i| ((i * 37 % 101) as f32 - 40.0) / 17.0).collect();
        let tensor = Tensor::from_vec(values, (2, K), &Device::Cpu).unwrap();
        use GgmlDType::*;
        for dtype in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K] {
            let stored = QTensor::quantize(&tensor, dtype).unwrap();
            let format = Format::of(dtype).unwrap();
            let (bytes, truth) = (stored.data().unwrap(), stored.dequantize(&Device::Cpu).unwrap());
            for (i, truth) in truth.to_vec2::<f32>().unwrap().iter().enumerate() {
                let mut rows = Rows::default();
                rows.unpack(StoredRows {
                    format,
                    bytes: &bytes[i * format.row_bytes(K)..][..format.row_bytes(K)],
                    k: K,
                });
                let row = rows.row(0);
                let per_scale = K / row.scale.len();
                let value = |(j, &q): (usize, &u8)| row.scale[j / per_scale] * f32::from(q) + row.side[j / per_scale];
                let ours = row.q.as_flattened().iter().enumerate().map(value);
                for (ours, truth) in ours.zip(truth) {
                    assert!((ours - truth).abs() <= 1e-6 * truth.abs().max(1.0), "{dtype:?}: {ours} != {truth}");
                }
            }
        }
    }

    #[test]
    fn activations_round_to_the_nearest_step() {
        let values: Vec<f32> = (0..BLOCK).map(|i| i as f32 * 0.37 - 5.0).collect();
        let mut rows = Rows::default();
        rows.quantize(&values, BLOCK);
        let row = rows.row(0);
        for (q, v) in row.q[0].iter().zip(&values) {
            assert!((row.scale[0] * f32::from(*q) - v).abs() <= row.scale[0] * 0.54);
        }
        let sum: f32 = row.q[0].iter().map(|&q| row.scale[0] * f32::from(q)).sum();
        assert!((row.side[0] - sum).abs() < 1e-4);
        let [low, high] = rows.half_sides(0)[0];
        assert!((low + high - sum).abs() < 1e-4);
    }

    #[test]
    fn activations_that_are_not_numbers_stay_visible() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; BLOCK];
            values[7] = bad;
            let mut rows = Rows::default();
            rows.quantize(&values, BLOCK);
            assert!(rows.row(0).scale[0].is_nan() && rows.row(0).side[0].is_nan(), "{bad}");
        }
        let mut rows = Rows::default();
        rows.quantize(&[f32::from_bits(1); BLOCK], BLOCK);
        assert_eq!(rows.row(0).side[0], 0.0, "a subnormal block has no scale and counts as zero");
    }
}
