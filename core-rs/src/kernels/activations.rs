//! Activations as the products take them: rows of 8-bit blocks of 32 values, `value = scale * q` with `q` in -127..=127.
//!
//! `side` is the sum of a block's values, `half_sides` those of its halves, so that with a weight `scale * q + side`
//!
//! ```text
//! dot(w, x) = Σ over blocks (or halves)  w.scale * x.scale * Σ w.q * x.q  +  w.side * x.side
//! ```
//!
//! This is ggml's arithmetic (`vec_dot_q4_1_q8_1` for all formats), except that the sum of activations stays f32 where
//! ggml rounds it to f16, and that activations have a scale for each 32 values where ggml's K types give them one for 256:
//! half the error.

use super::blocks::BLOCK;
use super::parallel::Shared;

/// Largest magnitude of a quantised activation.
const MAX_ACTIVATION: f32 = 127.0;

/// Rows of quantised activations.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    k: usize,
    rows: usize,
    q: Vec<i8>,
    scale: Vec<f32>,
    side: Vec<f32>,
    half_sides: Vec<[f32; 2]>,
}

/// A row of [`Activations`] by pointers: its numbers, and per block its scale, side and half sides.
#[derive(Clone, Copy)]
pub(super) struct Token {
    pub(super) q: *const i8,
    pub(super) scale: *const f32,
    pub(super) side: *const f32,
    pub(super) half_sides: *const [f32; 2],
}

/// A row of [`Activations`], to be filled.
pub(super) struct TokenMut<'a> {
    q: &'a mut [i8],
    scale: &'a mut [f32],
    side: &'a mut [f32],
    half_sides: &'a mut [[f32; 2]],
}

impl Activations {
    /// Makes them `rows` rows of `k` values, a multiple of [`BLOCK`]. Memory is kept, and holds anything.
    pub(super) fn reshape(&mut self, rows: usize, k: usize) {
        assert!(k.is_multiple_of(BLOCK), "row of {k} values is not whole blocks");
        (self.k, self.rows) = (k, rows);
        let blocks = rows * k / BLOCK;
        // Only ever longer, so that shapes in turns write nothing.
        if self.scale.len() < blocks {
            self.q.resize(blocks * BLOCK, 0);
            self.scale.resize(blocks, 0.0);
            self.side.resize(blocks, 0.0);
            self.half_sides.resize(blocks, [0.0; 2]);
        }
    }

    pub(super) fn k(&self) -> usize {
        self.k
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// Row `i`.
    #[inline(always)]
    pub(super) fn token(&self, i: usize) -> Token {
        let blocks = i * self.k / BLOCK..(i + 1) * self.k / BLOCK;
        Token {
            q: self.q[i * self.k..(i + 1) * self.k].as_ptr(),
            scale: self.scale[blocks.clone()].as_ptr(),
            side: self.side[blocks.clone()].as_ptr(),
            half_sides: self.half_sides[blocks].as_ptr(),
        }
    }

    /// All rows, to be filled by several threads.
    pub(super) fn tokens(&mut self) -> Tokens<'_> {
        Tokens {
            k: self.k,
            q: Shared::new(&mut self.q),
            scale: Shared::new(&mut self.scale),
            side: Shared::new(&mut self.side),
            half_sides: Shared::new(&mut self.half_sides),
        }
    }

    /// What is multiplied, as floats.
    #[cfg(test)]
    pub(super) fn values(&self) -> Vec<f32> {
        let scales = self.scale.iter().flat_map(|scale| [scale; BLOCK]);
        self.q.iter().zip(scales).map(|(q, scale)| f32::from(*q) * scale).take(self.rows * self.k).collect()
    }

    /// Fills them with rows of `k` activations each.
    #[cfg(test)]
    pub(super) fn quantize(&mut self, values: &[f32], k: usize) {
        self.reshape(values.len() / k, k);
        let tokens = self.tokens();
        // SAFETY: one row at a time.
        values.chunks_exact(k).enumerate().for_each(|(i, row)| quantize(row, unsafe { tokens.token_mut(i) }));
    }
}

/// Rows of [`Activations`] that several threads fill.
pub(super) struct Tokens<'a> {
    k: usize,
    q: Shared<'a, i8>,
    scale: Shared<'a, f32>,
    side: Shared<'a, f32>,
    half_sides: Shared<'a, [f32; 2]>,
}

impl Tokens<'_> {
    /// Row `i`.
    ///
    /// # Safety
    /// While it lives, the row is nobody else's.
    pub(super) unsafe fn token_mut(&self, i: usize) -> TokenMut<'_> {
        let blocks = i * self.k / BLOCK..(i + 1) * self.k / BLOCK;
        // SAFETY: rows do not overlap, and this one is the caller's.
        unsafe {
            TokenMut {
                q: self.q.slice(i * self.k..(i + 1) * self.k),
                scale: self.scale.slice(blocks.clone()),
                side: self.side.slice(blocks.clone()),
                half_sides: self.half_sides.slice(blocks),
            }
        }
    }
}

/// Quantises one row. Inlined into each instruction set's own form.
///
/// A block holding a NaN or an infinity becomes NaN as a whole: it must not turn into a plausible number.
#[inline(always)]
pub(super) fn quantize(values: &[f32], to: TokenMut<'_>) {
    let blocks = values.as_chunks::<BLOCK>().0.iter().zip(to.q.as_chunks_mut::<BLOCK>().0);
    let sides = to.scale.iter_mut().zip(to.side).zip(to.half_sides);
    for ((x, q), ((scale, side), halves)) in blocks.zip(sides) {
        let sums;
        (*scale, sums) = quantize_block(x, q);
        *side = *scale * (sums[0] + sums[1]) as f32;
        *halves = [*scale * sums[0] as f32, *scale * sums[1] as f32];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_round_to_the_nearest_step() {
        let values: Vec<f32> = (0..BLOCK).map(|i| i as f32 * 0.37 - 5.0).collect();
        let mut rows = Activations::default();
        rows.quantize(&values, BLOCK);
        let scale = rows.scale[0];
        for (q, v) in rows.q.iter().zip(&values) {
            assert!((scale * f32::from(*q) - v).abs() <= scale * 0.54);
        }
        let sum: f32 = rows.q.iter().map(|&q| scale * f32::from(q)).sum();
        assert!((rows.side[0] - sum).abs() < 1e-4);
        let [low, high] = rows.half_sides[0];
        assert!((low + high - sum).abs() < 1e-4);
    }

    #[test]
    fn activations_that_are_not_numbers_stay_visible() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; BLOCK];
            values[7] = bad;
            let mut rows = Activations::default();
            rows.quantize(&values, BLOCK);
            assert!(rows.scale[0].is_nan() && rows.side[0].is_nan(), "{bad}");
        }
        let mut rows = Activations::default();
        rows.quantize(&[f32::from_bits(1); BLOCK], BLOCK);
        assert_eq!(rows.side[0], 0.0, "a subnormal block has no scale and counts as zero");
    }
}
