//! How K-quants choose a scale (and a minimum) for a sub-block: ggml's `make_qkx2_quants`, `make_qx_quants` and
//! `make_q3_quants`, for as many sub-blocks at once as there are lanes.
//!
//! Each tries a handful of scales and keeps the one with the least weighted error. The sums of one sub-block must be
//! taken in order for ggml's bits, so lane k of every vector here belongs to sub-block k, and does exactly what the
//! scalar code does for it; what that skips, a lane computes and does not keep.

use crate::kernels::{Lanes, WIDTH};

/// A sub-block whose magnitudes stay below this counts as zeros (`GROUP_MAX_EPS`).
pub(super) const ZERO: f32 = 1e-15;

/// Value i of each sub-block side by side, from [`WIDTH`] sub-blocks of `N` values one after the other.
#[inline(always)]
pub(super) fn transposed<V: Lanes, const N: usize>(x: &[f32]) -> [V; N] {
    let mut out = [V::splat(0.0); N];
    for (i, out) in out.iter_mut().enumerate() {
        let mut lanes = [0.0; WIDTH];
        for (k, lane) in lanes.iter_mut().enumerate() {
            *lane = x[k * N + i];
        }
        *out = V::load(lanes);
    }
    out
}

/// The level nearest to `v` within `low..=high`.
#[inline(always)]
pub(super) fn level<V: Lanes>(v: V, low: f32, high: f32) -> V {
    v.nearest().max(V::splat(low)).min(V::splat(high))
}

/// `value ≈ scale * l - min` with `l` in `0..=max`.
pub(super) struct Affine<V> {
    pub(super) scale: V,
    /// The minimum with its sign turned: what is subtracted.
    pub(super) min: V,
    /// `l = nearest(inverse * (value - base))`.
    inverse: V,
    base: V,
}

/// Which inverse scales [`Affine::search`] tries: `(first + step * i + max) / range` for `i` in `0..=last`.
#[derive(Clone, Copy)]
pub(super) struct Tries {
    pub(super) max: f32,
    pub(super) first: f32,
    pub(super) step: f32,
    pub(super) last: usize,
}

/// What a difference counts in [`Affine::search`], before its weight.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Count {
    Square,
    Magnitude,
}

impl<V: Lanes> Affine<V> {
    /// `make_qkx2_quants`: the scale and minimum with the least weighted error.
    #[inline(always)]
    pub(super) fn search<const N: usize>(x: &[V; N], weights: &[V; N], tries: Tries, count: Count) -> Self {
        let zero = V::splat(0.0);
        let (low, high) = extremes(x);
        let mut min = V::select(zero.lt(low), zero, low);
        let flat = high.eq(min);
        let sums = Sums::of(x, weights);
        let (mut inverse, mut base) = (V::splat(tries.max) / (high - min), min);
        let mut scale = V::splat(1.0) / inverse;
        let mut levels = [zero; N];
        set_levels(&mut levels, x, inverse, min, tries.max);
        let mut best = error(x, weights, &levels, scale, min, count);
        for i in 0..=tries.last {
            let trial = V::splat(tries.first + tries.step * i as f32 + tries.max) / (high - min);
            let solved = sums.least_squares(x, weights, &mut levels, trial, min, tries.max);
            let new = error(x, weights, &levels, solved.scale, solved.min, count);
            let better = V::both(zero.lt(solved.determinant), new.lt(best));
            inverse = V::select(better, trial, inverse);
            base = V::select(better, min, base);
            scale = V::select(better, solved.scale, scale);
            min = V::select(better, solved.min, min);
            best = V::select(better, new, best);
        }
        Self { scale: V::select(flat, zero, scale), min: -min, inverse: V::select(flat, zero, inverse), base }
    }

    /// The levels that the search gave to values `v`, one of each sub-block.
    #[inline(always)]
    pub(super) fn levels(&self, v: V, max: f32) -> V {
        level(self.inverse * (v - self.base), 0.0, max)
    }
}

#[inline(always)]
fn extremes<V: Lanes, const N: usize>(x: &[V; N]) -> (V, V) {
    let (mut low, mut high) = (x[0], x[0]);
    for &x in &x[1..] {
        low = V::select(x.lt(low), x, low);
        high = V::select(high.lt(x), x, high);
    }
    (low, high)
}

#[inline(always)]
fn set_levels<V: Lanes, const N: usize>(levels: &mut [V; N], x: &[V; N], inverse: V, base: V, max: f32) {
    for (l, &x) in levels.iter_mut().zip(x) {
        *l = level(inverse * (x - base), 0.0, max);
    }
}

#[inline(always)]
fn error<V: Lanes, const N: usize>(x: &[V; N], weights: &[V; N], levels: &[V; N], scale: V, min: V, count: Count) -> V {
    let mut sum = V::splat(0.0);
    for i in 0..N {
        let difference = scale * levels[i] + min - x[i];
        let counted = if count == Count::Square { difference * difference } else { difference.abs() };
        sum = sum + weights[i] * counted;
    }
    sum
}

/// Weighted sums that do not change with the levels.
struct Sums<V> {
    w: V,
    x: V,
}

/// The scale and the minimum (at most 0) that fit some levels best; they exist where the determinant is positive.
struct Solved<V> {
    scale: V,
    min: V,
    determinant: V,
}

impl<V: Lanes> Sums<V> {
    #[inline(always)]
    fn of<const N: usize>(x: &[V; N], weights: &[V; N]) -> Self {
        let mut sums = Self { w: weights[0], x: weights[0] * x[0] };
        for i in 1..N {
            sums.w = sums.w + weights[i];
            sums.x = sums.x + weights[i] * x[i];
        }
        sums
    }

    /// Sets the levels under an inverse scale, and solves for the scale and minimum that suit them.
    #[inline(always)]
    fn least_squares<const N: usize>(
        &self,
        x: &[V; N],
        weights: &[V; N],
        levels: &mut [V; N],
        inverse: V,
        base: V,
        max: f32,
    ) -> Solved<V> {
        let zero = V::splat(0.0);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (zero, zero, zero);
        for i in 0..N {
            let l = level(inverse * (x[i] - base), 0.0, max);
            let wl = weights[i] * l;
            sum_l = sum_l + wl;
            sum_l2 = sum_l2 + wl * l;
            sum_xl = sum_xl + wl * x[i];
            levels[i] = l;
        }
        let determinant = self.w * sum_l2 - sum_l * sum_l;
        let scale = (self.w * sum_xl - self.x * sum_l) / determinant;
        let min = (sum_l2 * self.x - sum_l * sum_xl) / determinant;
        let above = zero.lt(min);
        let scale = V::select(above, sum_xl / sum_l2, scale);
        Solved { scale, min: V::select(above, zero, min), determinant }
    }
}

/// `value ≈ scale * l` with `l` in `-half..half`.
pub(super) struct Symmetric<V> {
    pub(super) scale: V,
    /// `l = nearest(inverse * value)`.
    inverse: V,
    /// The largest magnitude: below [`ZERO`], all is zero.
    top: V,
}

impl<V: Lanes> Symmetric<V> {
    /// `make_qx_quants` with squares as weights: the scale with the least weighted square error.
    #[inline(always)]
    pub(super) fn search<const N: usize>(x: &[V; N], half: f32) -> Self {
        let zero = V::splat(0.0);
        let (top, max) = signed_max(x);
        let mut inverse = V::splat(-half) / max;
        let (sum_lx, sum_l2) = products(x, inverse, half);
        let mut scale = V::select(sum_l2.eq(zero), zero, sum_lx / sum_l2);
        let mut best = scale * sum_lx;
        for i in (-9..=9i8).filter(|&i| i != 0) {
            let trial = V::splat(-(half + 0.1 * f32::from(i))) / max;
            let (sum_lx, sum_l2) = products(x, trial, half);
            let better = V::both(zero.lt(sum_l2), (best * sum_l2).lt(sum_lx * sum_lx));
            inverse = V::select(better, trial, inverse);
            scale = V::select(better, sum_lx / sum_l2, scale);
            best = V::select(better, scale * sum_lx, best);
        }
        Self { scale: V::select(top.lt(V::splat(ZERO)), zero, scale), inverse, top }
    }

    /// The levels that the search gave to values `v`, one of each sub-block, plus `half`; 0 in sub-blocks of zeros.
    #[inline(always)]
    pub(super) fn levels(&self, v: V, half: f32) -> V {
        let levels = level(self.inverse * v, -half, half - 1.0) + V::splat(half);
        V::select(self.top.lt(V::splat(ZERO)), V::splat(0.0), levels)
    }
}

/// The largest magnitude, and the first value that has it.
#[inline(always)]
fn signed_max<V: Lanes, const N: usize>(x: &[V; N]) -> (V, V) {
    let (mut top, mut max) = (V::splat(0.0), V::splat(0.0));
    for &x in x {
        let larger = top.lt(x.abs());
        top = V::select(larger, x.abs(), top);
        max = V::select(larger, x, max);
    }
    (top, max)
}

/// `Σ x² · x · l` and `Σ x² · l · l`.
#[inline(always)]
fn products<V: Lanes, const N: usize>(x: &[V; N], inverse: V, half: f32) -> (V, V) {
    let (mut sum_lx, mut sum_l2) = (V::splat(0.0), V::splat(0.0));
    for &x in x {
        let (l, w) = (level(inverse * x, -half, half - 1.0), x * x);
        sum_lx = sum_lx + w * x * l;
        sum_l2 = sum_l2 + w * l * l;
    }
    (sum_lx, sum_l2)
}

/// Passes of [`Refined::search`] over a sub-block.
const PASSES: usize = 5;

/// `value ≈ scale * l` with `l` in `-half..half`, each level moved as long as the error shrinks.
pub(super) struct Refined<V, const N: usize> {
    pub(super) scale: V,
    /// Levels plus `half`; 0 in a sub-block of zeros.
    pub(super) levels: [V; N],
}

impl<V: Lanes, const N: usize> Refined<V, N> {
    /// `make_q3_quants`. A pass that moves nothing would only repeat itself, so ggml's early end has no counterpart.
    #[inline(always)]
    pub(super) fn search(x: &[V; N], half: f32) -> Self {
        let zero = V::splat(0.0);
        let (top, max) = signed_max(x);
        let inverse = V::splat(-half) / max;
        let mut sums = products(x, inverse, half);
        let mut levels = [zero; N];
        for i in 0..N {
            levels[i] = level(inverse * x[i], -half, half - 1.0);
        }
        for _ in 0..PASSES {
            for i in 0..N {
                (levels[i], sums) = refined(x[i], levels[i], sums, half);
            }
        }
        let empty = top.lt(V::splat(ZERO));
        for l in &mut levels {
            *l = V::select(empty, zero, *l + V::splat(half));
        }
        let (sum_lx, sum_l2) = sums;
        let scale = V::select(zero.lt(sum_l2), sum_lx / sum_l2, zero);
        Self { scale: V::select(empty, zero, scale), levels }
    }
}

/// The level of one value, moved to where the others' best scale puts it if that lessens the error, and the sums of
/// [`products`] with it.
#[inline(always)]
fn refined<V: Lanes>(x: V, l: V, (sum_lx, sum_l2): (V, V), half: f32) -> (V, (V, V)) {
    let (zero, w) = (V::splat(0.0), x * x);
    let (rest_lx, rest_l2) = (sum_lx - w * x * l, sum_l2 - w * l * l);
    let new = level(x * rest_l2 / rest_lx, -half, half - 1.0);
    let (lx, l2) = (rest_lx + w * x * new, rest_l2 + w * new * new);
    let positive = V::both(zero.lt(rest_lx), zero.lt(l2));
    let better = V::both(positive, (sum_lx * sum_lx * l2).lt(lx * lx * sum_l2));
    let same = new.eq(l);
    let sum_lx = V::select(same, sum_lx, V::select(better, lx, sum_lx));
    let sum_l2 = V::select(same, sum_l2, V::select(better, l2, sum_l2));
    (V::select(better, new, l), (sum_lx, sum_l2))
}
