//! Quantised blocks as they lie in a GGUF file.
//!
//! Layouts: `block_q4_0` to `block_q6_K` and `block_iq4_nl` of ggml's `ggml-common.h`, little-endian. Numbers are given
//! without sign where the format shifts them up, and as they are stored where it does not (Q8_0).

/// Values that share a scale.
pub(crate) const BLOCK: usize = 32;

/// Block formats, by the names of ggml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names are ggml's own.
pub enum Format {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Iq4Nl,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl Format {
    /// Bytes of a row of `k` values.
    pub(crate) const fn row_bytes(self, k: usize) -> usize {
        k / self.stored_values() * self.stored_bytes()
    }

    /// Values of a stored block: one block of ours, or eight.
    pub(crate) const fn stored_values(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::Iq4Nl => BLOCK,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 8 * BLOCK,
        }
    }

    /// Bytes of a stored block.
    pub(crate) const fn stored_bytes(self) -> usize {
        match self {
            Self::Q4_0 | Self::Iq4Nl => 2 + 16,
            Self::Q4_1 => 2 + 2 + 16,
            Self::Q5_0 => 2 + 4 + 16,
            Self::Q5_1 => 2 + 2 + 4 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Q2K => 16 + 64 + 2 + 2,
            Self::Q3K => 32 + 64 + 12 + 2,
            Self::Q4K => 2 + 2 + 12 + 128,
            Self::Q5K => 2 + 2 + 12 + 32 + 128,
            Self::Q6K => 128 + 64 + 16 + 2,
        }
    }
}

/// Stored rows of `k` values each, next to one another.
#[derive(Clone, Copy)]
pub(crate) struct StoredRows<'a> {
    pub(crate) format: Format,
    pub(crate) bytes: &'a [u8],
    pub(crate) k: usize,
}

/// What the nibbles of IQ4_NL stand for (`kvalues_iq4nl`).
pub(crate) const IQ4_NL_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The numbers of `{ .., u8 nibbles[16] }` from byte `at` on: low nibbles are the first half of a block, high ones the
/// second.
#[inline(always)]
pub(super) fn nibbles(block: &[u8], at: usize) -> [u8; BLOCK] {
    let bytes: [u8; BLOCK / 2] = bytes_at(block, at);
    let mut q = [0; BLOCK];
    for i in 0..BLOCK / 2 {
        q[i] = bytes[i] & 15;
        q[i + BLOCK / 2] = bytes[i] >> 4;
    }
    q
}

/// The numbers of `{ .., u32 fifth bits, u8 nibbles[16] }` from byte `at` on: bit i of the word is bit 4 of value i.
#[inline(always)]
pub(super) fn fives(block: &[u8], at: usize) -> [u8; BLOCK] {
    let (word, mut q) = (u32::from_le_bytes(bytes_at(block, at)), nibbles(block, at + 4));
    for (i, q) in q.iter_mut().enumerate() {
        *q |= ((word >> i & 1) << 4) as u8;
    }
    q
}

/// The numbers of `{ .., i8 values[32] }` from byte `at` on.
#[inline(always)]
pub(super) fn bytes_at<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&block[at..at + N]);
    bytes
}

/// Block `i` of `{ u8 scales[16] (4 bits scale, 4 bits min), u8 pairs[64], f16 d, f16 d_min }`.
#[inline(always)]
pub(super) fn q2_k(block: &[u8], i: usize) -> [u8; BLOCK] {
    pairs(&block[16..80], i)
}

/// The scales of both halves of block `i` of Q2_K, with their minimums.
#[inline(always)]
pub(super) fn q2_k_sides(block: &[u8], i: usize) -> [u8; 2] {
    [block[2 * i], block[2 * i + 1]]
}

/// Block `i` of `{ u8 third bits[32], u8 pairs[64], u8 scales[12] (6 bits each), f16 d }`.
#[inline(always)]
pub(super) fn q3_k(block: &[u8], i: usize) -> [u8; BLOCK] {
    let (mut q, third) = (pairs(&block[32..96], i), down(bytes_at(block, 0), i, 1));
    for j in 0..BLOCK {
        q[j] |= third[j] << 2;
    }
    q
}

/// The scales of both halves of block `i` of Q3_K, with sign. Sixteen of 6 bits, shifted up by 32: low nibbles in eight
/// bytes, the other two bits in four.
#[inline(always)]
pub(super) fn q3_k_sides(block: &[u8], i: usize) -> [u8; 2] {
    let bytes: [u8; 12] = bytes_at(block, 96);
    let scale = |k: usize| {
        let low = if k < 8 { bytes[k] & 15 } else { bytes[k - 8] >> 4 };
        (low | (bytes[8 + k % 4] >> (k / 4 * 2) & 3) << 4).wrapping_sub(32)
    };
    [scale(2 * i), scale(2 * i + 1)]
}

/// Block `i` of `{ f16 d, f16 d_min, u8 scales[12], u8 nibbles[128] }`.
#[inline(always)]
pub(super) fn q4_k(block: &[u8], i: usize) -> [u8; BLOCK] {
    long_nibbles(&block[16..144], i)
}

/// Block `i` of `{ f16 d, f16 d_min, u8 scales[12], u8 fifth bits[32], u8 nibbles[128] }`.
#[inline(always)]
pub(super) fn q5_k(block: &[u8], i: usize) -> [u8; BLOCK] {
    let (mut q, fifth) = (long_nibbles(&block[48..176], i), down(bytes_at(block, 16), i, 1));
    for j in 0..BLOCK {
        q[j] |= fifth[j] << 4;
    }
    q
}

/// Scale and minimum of block `i` of Q4_K and Q5_K, 6 bits each: the first four of both in the low bits of eight bytes,
/// the others' nibbles in four, and their other bits on top of the eight.
#[inline(always)]
pub(super) fn long_sides(block: &[u8], i: usize) -> [u8; 2] {
    let bytes: [u8; 12] = bytes_at(block, 4);
    if i < 4 {
        return [bytes[i] & 63, bytes[4 + i] & 63];
    }
    let (both, top) = (bytes[4 + i], |byte: u8| byte >> 6 << 4);
    [both & 15 | top(bytes[i - 4]), both >> 4 | top(bytes[i])]
}

/// Block `i` of `{ u8 nibbles[128], u8 pairs[64], i8 scales[16], f16 d }`.
#[inline(always)]
pub(super) fn q6_k(block: &[u8], i: usize) -> [u8; BLOCK] {
    let low = down(bytes_at(block, i / 4 * 64 + i % 2 * 32), i % 4 / 2 * 4, 15);
    let mut q = pairs(&block[128..192], i);
    for j in 0..BLOCK {
        q[j] = q[j] << 4 | low[j];
    }
    q
}

/// The scales of both halves of block `i` of Q6_K, with sign.
#[inline(always)]
pub(super) fn q6_k_sides(block: &[u8], i: usize) -> [u8; 2] {
    [block[192 + 2 * i], block[193 + 2 * i]]
}

/// Bytes moved down by `n` bits and masked. Word by word, since processors move no bytes: what comes from the next byte
/// is above the mask.
#[inline(always)]
fn down(bytes: [u8; BLOCK], n: usize, mask: u8) -> [u8; BLOCK] {
    let mut out = [0; BLOCK];
    for (out, word) in out.as_chunks_mut().0.iter_mut().zip(bytes.as_chunks().0) {
        *out = (u64::from_le_bytes(*word) >> n & u64::from_ne_bytes([mask; 8])).to_le_bytes();
    }
    out
}

/// The 2-bit pairs of block `i` of eight: 32 apart in a byte, half by half.
#[inline(always)]
fn pairs(bytes: &[u8], i: usize) -> [u8; BLOCK] {
    down(bytes_at(bytes, i / 4 * BLOCK), i % 4 * 2, 3)
}

/// The nibbles of block `i` of eight: 32 apart in a byte, of each 64.
#[inline(always)]
fn long_nibbles(bytes: &[u8], i: usize) -> [u8; BLOCK] {
    down(bytes_at(bytes, i / 2 * BLOCK), i % 2 * 4, 15)
}

/// f16 bits to f32 without branches: shifting aligns the fraction, the product moves the exponent's bias and also
/// normalises subnormals. `half` would ask for CPU features at each of these calls.
pub(super) fn half_to_f32(bits: u16) -> f32 {
    const BIAS: f32 = f32::from_bits((127 + 127 - 15) << 23);
    const INFINITE: u32 = 0x7f80_0000;
    const TOO_LARGE: f32 = 65536.0;
    let sign = u32::from(bits & 0x8000) << 16;
    let value = f32::from_bits(u32::from(bits & 0x7fff) << 13) * BIAS;
    let exponent = if value >= TOO_LARGE { INFINITE } else { 0 };
    f32::from_bits(value.to_bits() | exponent | sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_matches_the_half_crate_for_all_bits() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (half_to_f32(bits), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{bits:#06x}");
        }
    }
}
