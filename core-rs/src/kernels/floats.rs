//! Product with weights stored as floats: f32, f16 and bf16, multiplied with f32 activations.
//!
//! Weights are read in their stored form, since a copy as f32 would take twice the memory of a 16-bit model. For a few
//! tokens they are widened in registers, each once, in the order they lie: that is as fast as memory. For many tokens a
//! panel of rows is widened into a scratch that stays in the first-level cache.
//!
//! A product is the sum, in order, of the sums over pieces of [`PIECE`] values, however many tokens there are: a row's
//! result never depends on the rows beside it.

use std::ops::Range;

use half::{bf16, f16};

use super::blocks::half_to_f32;
use super::dispatch::Isa;
use super::layout::PANEL;
use super::vector;

/// Weight rows multiplied at once: with three tokens, twelve of AVX2's sixteen registers hold sums.
pub(super) const PANEL_ROWS: usize = 4;
/// Values of a row multiplied at once: a widened panel takes half of a 32 KiB first-level cache.
const PIECE: usize = 1024;
/// Tokens of a tile: a piece of each, 256 KiB, is half of a common second-level cache.
const TILE_TOKENS: usize = 64;

/// Weights as they are stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Floats<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl Floats<'_> {
    fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }
}

/// Writes stored numbers as f32.
pub(super) fn widen<T: Stored>(from: &[T], to: &mut [f32]) {
    from.iter().zip(to).for_each(|(from, to)| *to = from.widen());
}

/// A stored number; implemented for the three floats below, of which all bits are a value, and nothing else.
pub(super) trait Stored: Copy {
    /// Exactly the same number.
    fn widen(self) -> f32;
}

impl Stored for f32 {
    fn widen(self) -> f32 {
        self
    }
}

impl Stored for f16 {
    fn widen(self) -> f32 {
        half_to_f32(self.to_bits())
    }
}

impl Stored for bf16 {
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// What a kernel multiplies at once: some columns of [`PANEL_ROWS`] weight rows, and the same ones of consecutive tokens.
pub(super) struct Piece<'a> {
    pub(super) weights: Floats<'a>,
    rows: [usize; PANEL_ROWS],
    /// Whole rows of activations.
    x: &'a [f32],
    k: usize,
    columns: Range<usize>,
}

impl<'a> Piece<'a> {
    pub(super) fn rows<T>(&self, weights: &'a [T]) -> [&'a [T]; PANEL_ROWS] {
        self.rows.map(|row| &weights[row * self.k..][self.columns.clone()])
    }

    pub(super) fn token(&self, i: usize) -> &'a [f32] {
        &self.x[i * self.k..][self.columns.clone()]
    }
}

/// Makes `scratch` the widened `rows`, and returns them.
#[inline(always)]
pub(super) fn widened<'a, T>(
    rows: [&[T]; PANEL_ROWS],
    scratch: &'a mut [f32],
    widen: impl Fn(&[T], &mut [f32]),
) -> [&'a [f32]; PANEL_ROWS] {
    let len = rows[0].len();
    for (row, to) in rows.iter().zip(scratch.chunks_exact_mut(len)) {
        widen(row, to);
    }
    std::array::from_fn(|r| &scratch[r * len..][..len])
}

/// Products of the weight rows from `first` on, as many as a panel has or there are, with tokens of `k` values each.
/// `scratch` is for widened weights and for products.
pub(super) fn panel(
    isa: Isa,
    weights: Floats<'_>,
    k: usize,
    first: usize,
    x: &[f32],
    (widened, quads): (&mut Vec<f32>, &mut Vec<[f32; PANEL_ROWS]>),
    out: &mut [[f32; PANEL]],
) {
    let n = weights.len() / k;
    widened.resize(PANEL_ROWS * PIECE, 0.0);
    out.fill([0.0; PANEL]);
    for (x, out) in x.chunks(TILE_TOKENS * k).zip(out.chunks_mut(TILE_TOKENS)) {
        for quad in (0..PANEL).step_by(PANEL_ROWS).take_while(|quad| first + quad < n) {
            // The last rows stand in for those that are not there.
            let rows = std::array::from_fn(|r| (first + quad + r).min(n - 1));
            quads.resize(out.len(), [0.0; PANEL_ROWS]);
            let whole = k / vector::LANES * vector::LANES;
            for from in (0..whole).step_by(PIECE) {
                let piece = Piece { weights, rows, x, k, columns: from..whole.min(from + PIECE) };
                (isa.kernels().floats)(&piece, widened, quads);
                for (out, quad_sums) in out.iter_mut().zip(quads.iter()) {
                    out[quad..quad + PANEL_ROWS].iter_mut().zip(quad_sums).for_each(|(out, sum)| *out += sum);
                }
            }
            if whole < k {
                let tail = Piece { weights, rows, x, k, columns: whole..k };
                add_tail(&tail, quad, out);
            }
        }
    }
}

/// Adds products of fewer columns than a vector has.
fn add_tail(piece: &Piece<'_>, quad: usize, out: &mut [[f32; PANEL]]) {
    for (token, out) in out.iter_mut().enumerate() {
        for (r, out) in out[quad..quad + PANEL_ROWS].iter_mut().enumerate() {
            let x = piece.token(token).iter();
            *out += match piece.weights {
                Floats::F32(weights) => x.zip(piece.rows(weights)[r]).map(|(x, w)| x * w.widen()).sum::<f32>(),
                Floats::F16(weights) => x.zip(piece.rows(weights)[r]).map(|(x, w)| x * w.widen()).sum(),
                Floats::Bf16(weights) => x.zip(piece.rows(weights)[r]).map(|(x, w)| x * w.widen()).sum(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::dispatch::available;
    use super::super::vector::LANES;
    use super::*;

    /// Relative to the sum of the magnitudes of all terms: the order of additions differs, not their number.
    const TOLERANCE: f64 = 1e-6;

    /// Weights of every type with the same bits at their start, and activations.
    #[derive(Debug, Clone)]
    struct Case {
        m: usize,
        n: usize,
        k: usize,
        f32: Vec<f32>,
        f16: Vec<f16>,
        bf16: Vec<bf16>,
        x: Vec<f32>,
    }

    impl Case {
        /// With `wild`, one weight in sixteen and one activation in sixty-four may be anything.
        fn new(m: usize, n: usize, k: usize, seed: u64, wild: bool) -> Self {
            let bits = |i: usize| (seed ^ i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) as u32;
            let usual = |i: usize| bits(i) as f32 / (1u32 << 31) as f32 - 1.0;
            let any = |i: usize, every: u32| wild && (bits(i) >> 3).is_multiple_of(every);
            let weight = |i: usize| if any(i, 16) { f32::from_bits(bits(!i)) } else { usual(i) };
            let half = |i: usize| if any(i, 16) { f16::from_bits(bits(!i) as u16) } else { f16::from_f32(usual(i)) };
            Self {
                m,
                n,
                k,
                f32: (0..n * k).map(weight).collect(),
                f16: (0..n * k).map(half).collect(),
                bf16: (0..n * k).map(weight).map(bf16::from_f32).collect(),
                x: (n * k..(n + m) * k).map(|i| if any(i, 64) { f32::from_bits(bits(!i)) } else { usual(i) }).collect(),
            }
        }

        fn weights(&self) -> [Floats<'_>; 3] {
            [Floats::F32(&self.f32), Floats::F16(&self.f16), Floats::Bf16(&self.bf16)]
        }

        fn product(&self, isa: Isa, weights: Floats<'_>, tokens: Range<usize>) -> Vec<f32> {
            let mut out = vec![f32::MIN; tokens.len() * self.n];
            let x = &self.x[tokens.start * self.k..tokens.end * self.k];
            for first in (0..self.n).step_by(PANEL) {
                let (mut widened, mut quads) = (Vec::new(), Vec::new());
                let mut products = vec![[f32::MIN; PANEL]; tokens.len()];
                panel(isa, weights, self.k, first, x, (&mut widened, &mut quads), &mut products);
                for (out, products) in out.chunks_mut(self.n).zip(products) {
                    out.iter_mut().skip(first).zip(products).for_each(|(out, product)| *out = product);
                }
            }
            out
        }

        /// Products in f64 and, beside each, the sum of its terms' magnitudes.
        fn truth(&self, weights: Floats<'_>) -> Vec<(f64, f64)> {
            let weight = |i: usize| match weights {
                Floats::F32(w) => f64::from(w[i]),
                Floats::F16(w) => w[i].to_f64(),
                Floats::Bf16(w) => w[i].to_f64(),
            };
            let product = |(i, j)| {
                let terms = || (0..self.k).map(move |c| weight(j * self.k + c) * f64::from(self.x[i * self.k + c]));
                (terms().sum(), terms().map(f64::abs).sum())
            };
            (0..self.m).flat_map(|i| (0..self.n).map(move |j| (i, j))).map(product).collect()
        }

        fn check(&self, tolerance: f64) {
            for (isa, weights) in available().into_iter().flat_map(|isa| self.weights().map(|w| (isa, w))) {
                let (product, truth) = (self.product(isa, weights, 0..self.m), self.truth(weights));
                for (i, (got, (truth, magnitude))) in product.into_iter().zip(truth).enumerate() {
                    // Where a sum may overflow or meets infinities, no number is right, and none may look so.
                    let wild = !magnitude.is_finite();
                    let close = (f64::from(got) - truth).abs() <= tolerance * magnitude + 1e-37;
                    let huge = magnitude > f64::from(f32::MAX) / 2.0 && !got.is_finite();
                    assert!(if wild { !got.is_finite() } else { close || huge }, "{isa} {i}: {got}, truth {truth}");
                }
            }
        }
    }

    /// Ordinary values average out; a large one among small ones is rounded at every addition of its lane.
    fn worst(terms_per_lane: usize) -> f64 {
        (terms_per_lane + LANES) as f64 * f64::from(f32::EPSILON)
    }

    #[test]
    fn one_large_term_is_rounded_at_every_addition() {
        Case::new(2, 7, 104 * LANES, 16_054_914_983_688_951_552, true).check(worst(104));
    }

    proptest! {
        #[test]
        fn products_are_close_to_the_truth(
            m in 1..12_usize, n in 1..10_usize, k in 1..300_usize, seed in any::<u64>(), wild in any::<bool>(),
        ) {
            Case::new(m, n, k * LANES + k % 5, seed, wild).check(if wild { worst(k) } else { TOLERANCE });
        }

        #[test]
        fn a_row_is_the_same_alone_and_in_a_batch(
            m in 1..80_usize, n in 1..6_usize, k in 120..260_usize, seed in any::<u64>(), portion in 1..70_usize,
        ) {
            let case = Case::new(m, n, k * 8 + k % 8, seed, false);
            for (isa, weights) in available().into_iter().flat_map(|isa| case.weights().map(|w| (isa, w))) {
                let portions = (0..m).step_by(portion).map(|i| i..m.min(i + portion));
                let apart: Vec<_> = portions.flat_map(|tokens| case.product(isa, weights, tokens)).collect();
                prop_assert_eq!(case.product(isa, weights, 0..m), apart);
            }
        }
    }

    /// Several tiles of tokens, several pieces, a short last panel and several threads at once.
    #[test]
    fn tiles_and_threads_cover_everything() {
        Case::new(TILE_TOKENS + 5, 33, 2 * PIECE + 8, 1, false).check(TOLERANCE);
    }
}
