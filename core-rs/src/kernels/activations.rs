//! Activations as the products take them: rows of 8-bit blocks of 32 values, `value = scale * q` with `q` in -127..=127.
//!
//! `side` is the sum of a block's values, `minus` that of its numbers, with the other sign; `half_sides` and `half_minus`
//! are those of its halves. So with a weight `scale * (q - zero) + side`
//!
//! ```text
//! dot(w, x) = Σ over blocks (or halves)  w.scale * x.scale * (w.zero * x.minus + Σ w.q * x.q)  +  w.side * x.side
//! ```
//!
//! This is ggml's arithmetic (`vec_dot_q4_1_q8_1` for all formats), except that the sum of activations stays f32 where
//! ggml rounds it to f16, and that activations have a scale for each 32 values where ggml's K types give them one for 256:
//! half the error.

use super::blocks::BLOCK;
use super::memory::Lines;
use super::parallel::Shared;

/// Largest magnitude of a quantised activation.
const MAX_ACTIVATION: f32 = 127.0;

/// Rows that lie side by side. One tile of AMX holds as many.
pub(super) const TILE: usize = 16;

/// Rows of quantised activations, tile by tile: for each block of 32 values what each row of the tile has there, so that
/// rows multiplied together are read together. The last tile may have fewer rows.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    k: usize,
    rows: usize,
    q: Lines<i8>,
    scale: Lines<f32>,
    side: Lines<f32>,
    half_sides: Lines<[f32; 2]>,
    minus: Lines<i32>,
    half_minus: Lines<[i32; 2]>,
}

/// A row of [`Activations`] by pointers to its first block.
#[derive(Clone, Copy)]
pub(super) struct Token {
    q: *const i8,
    scale: *const f32,
    side: *const f32,
    half_sides: *const [f32; 2],
    minus: *const i32,
    half_minus: *const [i32; 2],
    /// Rows of its tile, and so blocks from one of its own to the next.
    step: usize,
}

impl Token {
    /// The numbers of block `b`. Those of the tile's next row follow.
    #[inline(always)]
    pub(super) fn q(&self, b: usize) -> *const i8 {
        self.q.wrapping_add(b * self.step * BLOCK)
    }

    /// The scale of block `b`. That of the tile's next row follows, as with the others.
    #[inline(always)]
    pub(super) fn scale(&self, b: usize) -> *const f32 {
        self.scale.wrapping_add(b * self.step)
    }

    /// The side of block `b`.
    #[inline(always)]
    pub(super) fn side(&self, b: usize) -> *const f32 {
        self.side.wrapping_add(b * self.step)
    }

    /// The sides of both halves of block `b`.
    #[inline(always)]
    pub(super) fn half_sides(&self, b: usize) -> *const [f32; 2] {
        self.half_sides.wrapping_add(b * self.step)
    }

    /// Minus the sum of the numbers of block `b`.
    #[inline(always)]
    pub(super) fn minus(&self, b: usize) -> *const i32 {
        self.minus.wrapping_add(b * self.step)
    }

    /// Minus the sums of the numbers of both halves of block `b`.
    #[inline(always)]
    pub(super) fn half_minus(&self, b: usize) -> *const [i32; 2] {
        self.half_minus.wrapping_add(b * self.step)
    }
}

/// Where row `i` of `rows` lies: its first block, and how many blocks on its next one is.
#[inline(always)]
fn place(rows: usize, blocks: usize, i: usize) -> (usize, usize) {
    let first = i / TILE * TILE;
    let step = TILE.min(rows - first);
    (first * blocks + i % TILE, step)
}

impl Activations {
    /// Makes them `rows` rows of `k` values, a multiple of [`BLOCK`]. Memory is kept, and holds anything.
    pub(super) fn reshape(&mut self, rows: usize, k: usize) {
        assert!(k.is_multiple_of(BLOCK), "row of {k} values is not whole blocks");
        (self.k, self.rows) = (k, rows);
        // A tile is always read as a whole.
        let blocks = rows * k / BLOCK + TILE;
        // Only ever longer, so that shapes in turns write nothing.
        self.q.grow(blocks * BLOCK);
        self.scale.grow(blocks);
        self.side.grow(blocks);
        self.half_sides.grow(blocks);
        self.minus.grow(blocks);
        self.half_minus.grow(blocks);
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
        assert!(i < self.rows, "row {i} of {}", self.rows);
        let (first, step) = place(self.rows, self.k / BLOCK, i);
        Token {
            q: self.q[first * BLOCK..].as_ptr(),
            scale: self.scale[first..].as_ptr(),
            side: self.side[first..].as_ptr(),
            half_sides: self.half_sides[first..].as_ptr(),
            minus: self.minus[first..].as_ptr(),
            half_minus: self.half_minus[first..].as_ptr(),
            step,
        }
    }

    /// All rows, to be filled by several threads.
    pub(super) fn tokens(&mut self) -> Tokens<'_> {
        Tokens {
            k: self.k,
            rows: self.rows,
            q: Shared::new(&mut self.q),
            scale: Shared::new(&mut self.scale),
            side: Shared::new(&mut self.side),
            half_sides: Shared::new(&mut self.half_sides),
            minus: Shared::new(&mut self.minus),
            half_minus: Shared::new(&mut self.half_minus),
        }
    }

    /// What is multiplied, as floats.
    #[cfg(test)]
    pub(super) fn values(&self) -> Vec<f32> {
        let mut values = Vec::new();
        for (i, b) in (0..self.rows).flat_map(|i| (0..self.k / BLOCK).map(move |b| (i, b))) {
            let (first, step) = place(self.rows, self.k / BLOCK, i);
            let at = first + b * step;
            values.extend(self.q[at * BLOCK..][..BLOCK].iter().map(|q| f32::from(*q) * self.scale[at]));
        }
        values
    }

    /// Fills them with rows of `k` activations each.
    #[cfg(test)]
    pub(super) fn quantize(&mut self, values: &[f32], k: usize) {
        self.reshape(values.len() / k, k);
        let tokens = self.tokens();
        // SAFETY: one row at a time.
        values.chunks_exact(k).enumerate().for_each(|(i, row)| quantize_plain(row, unsafe { tokens.token_mut(i) }));
    }
}

/// Rows of [`Activations`] that several threads fill.
pub(super) struct Tokens<'a> {
    k: usize,
    rows: usize,
    q: Shared<'a, i8>,
    scale: Shared<'a, f32>,
    side: Shared<'a, f32>,
    half_sides: Shared<'a, [f32; 2]>,
    minus: Shared<'a, i32>,
    half_minus: Shared<'a, [i32; 2]>,
}

/// A row of [`Activations`], to be filled.
pub(super) struct TokenMut<'a> {
    tokens: &'a Tokens<'a>,
    first: usize,
    step: usize,
}

impl<'a> Tokens<'a> {
    /// Row `i`.
    ///
    /// # Safety
    /// While it lives, the row is nobody else's.
    pub(super) unsafe fn token_mut(&'a self, i: usize) -> TokenMut<'a> {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        let (first, step) = place(self.rows, self.k / BLOCK, i);
        TokenMut { tokens: self, first, step }
    }
}

/// A block of a row, to be filled.
struct BlockMut<'a> {
    q: &'a mut [i8; BLOCK],
    scale: &'a mut f32,
    side: &'a mut f32,
    half_sides: &'a mut [f32; 2],
    minus: &'a mut i32,
    half_minus: &'a mut [i32; 2],
}

impl TokenMut<'_> {
    /// Block `b`.
    #[inline(always)]
    fn block(&mut self, b: usize) -> BlockMut<'_> {
        let (at, tokens) = (self.first + b * self.step, self.tokens);
        // SAFETY: blocks do not overlap, and this row is the caller's of `token_mut`.
        unsafe {
            BlockMut {
                q: tokens.q.slice(at * BLOCK..(at + 1) * BLOCK).first_chunk_mut().expect("a block"),
                scale: &mut tokens.scale.slice(at..at + 1)[0],
                side: &mut tokens.side.slice(at..at + 1)[0],
                half_sides: &mut tokens.half_sides.slice(at..at + 1)[0],
                minus: &mut tokens.minus.slice(at..at + 1)[0],
                half_minus: &mut tokens.half_minus.slice(at..at + 1)[0],
            }
        }
    }
}

/// What quantising asks of an instruction set. All give the same numbers.
///
/// # Safety
/// All functions ask that the CPU has the instructions.
pub(super) trait Rounding {
    /// The bits of the largest magnitude.
    unsafe fn largest(x: &[f32; BLOCK]) -> u32;
    /// The nearest integers of `x * factor`, ties to even, and the sums of both halves. Of what is not a number, anything.
    unsafe fn round(x: &[f32; BLOCK], factor: f32, q: &mut [i8; BLOCK]) -> [i32; 2];
}

/// Any CPU.
pub(super) struct Plain;

#[allow(clippy::undocumented_unsafe_blocks)] // There are none: any CPU will do.
impl Rounding for Plain {
    #[inline(always)]
    unsafe fn largest(x: &[f32; BLOCK]) -> u32 {
        x.iter().fold(0, |max, v| max.max(v.to_bits() & F32_MAGNITUDE))
    }

    #[inline(always)]
    unsafe fn round(x: &[f32; BLOCK], factor: f32, q: &mut [i8; BLOCK]) -> [i32; 2] {
        let mut sums = [0; 2];
        for i in 0..BLOCK {
            q[i] = (x[i] * factor + ROUND).to_bits() as i8;
            sums[i / (BLOCK / 2)] += i32::from(q[i]);
        }
        sums
    }
}

/// Quantises one row. Inlined into each instruction set's own form.
///
/// A block holding a NaN or an infinity becomes NaN as a whole: it must not turn into a plausible number.
///
/// # Safety
/// The CPU has the instructions of `R`.
#[inline(always)]
pub(super) unsafe fn quantize<R: Rounding>(values: &[f32], mut to: TokenMut<'_>) {
    for (b, x) in values.as_chunks::<BLOCK>().0.iter().enumerate() {
        let block = to.block(b);
        // SAFETY: as this function asks.
        let bits = unsafe { R::largest(x) };
        let top = if bits < F32_INFINITE { f32::from_bits(bits) } else { f32::NAN };
        let scale = top / MAX_ACTIVATION;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        // SAFETY: as this function asks.
        let sums = unsafe { R::round(x, inverse, block.q) };
        let scale = to_eleven_bits(scale);
        *block.scale = scale;
        *block.side = scale * (sums[0] + sums[1]) as f32;
        *block.half_sides = [scale * sums[0] as f32, scale * sums[1] as f32];
        *block.minus = -(sums[0] + sums[1]);
        *block.half_minus = [-sums[0], -sums[1]];
    }
}

/// [`quantize`] for any CPU.
pub(super) fn quantize_plain(values: &[f32], to: TokenMut<'_>) {
    // SAFETY: any CPU will do.
    unsafe { quantize::<Plain>(values, to) }
}

/// The nearest number of eleven bits, ties to even: what an f16 keeps, over f32's range. ggml stores scales of activations
/// as f16; rounding ours like that quartered the mean distance of a small model's logits from llama.cpp's.
#[inline(always)]
fn to_eleven_bits(v: f32) -> f32 {
    let bits = v.to_bits();
    f32::from_bits((bits + 0xfff + (bits >> 13 & 1)) & !0x1fff)
}

/// Bits of an f32 without its sign; their order as integers is the order of magnitudes.
pub(super) const F32_MAGNITUDE: u32 = 0x7fff_ffff;
/// From here on, magnitude bits mean infinity or NaN.
const F32_INFINITE: u32 = 0x7f80_0000;
/// Adding 1.5 * 2^23 leaves a small float's nearest integer (ties to even) in the low bits: no library call, no
/// rounding instruction, and the same on every machine.
pub(super) const ROUND: f32 = 12_582_912.0;

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
