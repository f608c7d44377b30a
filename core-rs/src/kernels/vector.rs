//! Float loops written so that a compiler can vectorise them for any instruction set: fixed lanes, no reassociation,
//! no fused multiply-add. Each instruction set inlines the same bodies, so their results agree bit for bit.

/// Floats that vector loops take at once.
pub(super) const LANES: usize = 8;

/// What one query head needs to attend: its query, and the keys and values of the cache as rows `stride` apart.
/// Key and value `j` are `[j * stride..][..query.len()]` of their slices.
pub(crate) struct Head<'a> {
    pub(crate) query: &'a [f32],
    pub(crate) keys: &'a [f32],
    pub(crate) values: &'a [f32],
    pub(crate) stride: usize,
    /// Number of cache rows this token may see.
    pub(crate) visible: usize,
}

/// `out = softmax(query · keysᵀ / √dim) · values`. `visible` is at least one. `dots` multiplies the query with some
/// keys: [`dots`] or the same sums in the same order.
#[inline(always)]
pub(super) fn attend(head: &Head<'_>, out: &mut [f32], dots: impl Fn(&[f32], [&[f32]; TOGETHER]) -> [f32; TOGETHER]) {
    let dim = head.query.len();
    let scale = 1.0 / (dim as f32).sqrt();
    let mut scores = vec![0.0; head.visible];
    for (j, scores) in scores.chunks_mut(TOGETHER).enumerate() {
        let keys = head.rows(head.keys, j * TOGETHER);
        for (score, dot) in scores.iter_mut().zip(dots(head.query, keys)) {
            *score = dot * scale;
        }
    }
    let total = exp_minus_max(&mut scores);
    out.fill(0.0);
    for (j, weights) in scores.chunks(TOGETHER).enumerate() {
        let values = head.rows(head.values, j * TOGETHER);
        add_weighted(out, std::array::from_fn(|i| weights.get(i).copied().unwrap_or(0.0)), values);
    }
    out.iter_mut().for_each(|out| *out /= total);
}

/// Cache rows handled at once: fewer passes over query and output, and sums that need not wait for each other.
pub(super) const TOGETHER: usize = 4;

impl<'a> Head<'a> {
    /// Rows `first..first + TOGETHER`, the last visible one again in place of any beyond it.
    #[inline(always)]
    fn rows(&self, from: &'a [f32], first: usize) -> [&'a [f32]; TOGETHER] {
        let row = |i: usize| &from[(first + i).min(self.visible - 1) * self.stride..][..self.query.len()];
        [row(0), row(1), row(2), row(3)]
    }
}

/// Products of the query with each row: lane by lane, then the lanes, then what is left of the row.
pub(super) fn dots(query: &[f32], rows: [&[f32]; TOGETHER]) -> [f32; TOGETHER] {
    rows.map(|row| dot(query, row))
}

/// Lane by lane, then the lanes, then what is left.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    sum_lanes(sums) + dot_tail(a_tail, b_tail)
}

/// The sum of fewer than [`LANES`] products.
#[inline(always)]
pub(super) fn dot_tail(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[inline(always)]
fn add_weighted(out: &mut [f32], w: [f32; TOGETHER], [a, b, c, d]: [&[f32]; TOGETHER]) {
    for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *out += (w[0] * a + w[1] * b) + (w[2] * c + w[3] * d);
    }
}

/// `out = gate / (1 + e^-gate) * up`.
#[inline(always)]
pub(super) fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate / (1.0 + exp(-gate)) * up;
    }
}

/// Replaces scores by `e^(score - max)` and returns their sum.
#[inline(always)]
fn exp_minus_max(scores: &mut [f32]) -> f32 {
    let max = scores.iter().fold(f32::NEG_INFINITY, |max, &s| if s > max { s } else { max });
    let (chunks, tail) = scores.as_chunks_mut::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, s) in lanes.iter_mut().zip(chunk) {
            *s = exp(*s - max);
            *lane += *s;
        }
    }
    let mut sum = sum_lanes(lanes);
    for s in tail {
        *s = exp(*s - max);
        sum += *s;
    }
    sum
}

#[inline(always)]
fn sum_lanes(l: [f32; LANES]) -> f32 {
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

/// `e^x` within 2 ulp, clamped to the normal floats; NaN stays NaN. Cephes' `expf`: the power of two is split off and
/// a polynomial does the rest.
#[inline(always)]
#[allow(clippy::excessive_precision)] // Cephes' constants as published.
pub(super) fn exp(x: f32) -> f32 {
    const LOW: f32 = -87.336_54;
    const HIGH: f32 = 88.0;
    const LN2_HIGH: f32 = 0.693_359_375;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// 1.5 * 2^23: see `blocks::ROUND`.
    const ROUND: f32 = 12_582_912.0;
    const ONE: u32 = 1.0_f32.to_bits();
    let x = x.clamp(LOW, HIGH);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut y = 1.987_569_150_0e-4;
    for c in [1.398_199_950_7e-3, 8.333_451_907_3e-3, 4.166_579_589_4e-2, 1.666_666_545_9e-1, 5.000_000_120_1e-1] {
        y = y * r + c;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(ONE));
    (y * r * r + r + 1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_library() {
        for i in -8_700..8_800 {
            let x = i as f32 / 100.0;
            let truth = f64::from(x).exp();
            let error = (f64::from(exp(x)) - truth).abs() / truth;
            assert!(error < 3e-7, "e^{x}: relative error {error}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(f32::INFINITY) > 1e38);
    }

    #[test]
    fn swiglu_holds_at_the_ends() {
        let gate = [0.0, 1.0, -1.0, 100.0, -100.0, f32::NAN];
        let mut out = [0.0; 6];
        swiglu(&gate, &[2.0; 6], &mut out);
        let sigmoid = 1.0 / (1.0 + (-1.0_f32).exp());
        let expected = [0.0, 2.0 * sigmoid, -2.0 * (1.0 - sigmoid), 200.0, 0.0];
        for (out, expected) in out.iter().zip(expected) {
            assert!((out - expected).abs() < 1e-6, "{out} != {expected}");
        }
        assert!(out[5].is_nan());
    }

    #[test]
    fn attend_matches_a_plain_softmax() {
        const STRIDE: usize = 24;
        for (dim, visible) in [(8, 1), (12, 3), (16, 19)] {
            let numbers =
                |seed: usize| (0..STRIDE * visible).map(move |i| ((i * 31 + seed * 17) % 23) as f32 / 7.0 - 1.5);
            let (keys, values) = (numbers(1).collect::<Vec<_>>(), numbers(2).collect::<Vec<_>>());
            let query: Vec<f32> = numbers(3).take(dim).collect();
            let mut out = vec![7.0; dim];
            attend(&Head { query: &query, keys: &keys, values: &values, stride: STRIDE, visible }, &mut out, dots);
            let weights: Vec<f64> = (0..visible)
                .map(|j| {
                    (0..dim).map(|i| f64::from(query[i] * keys[j * STRIDE + i])).sum::<f64>() / (dim as f64).sqrt()
                })
                .map(f64::exp)
                .collect();
            for (i, out) in out.iter().enumerate() {
                let sum: f64 = weights.iter().enumerate().map(|(j, w)| w * f64::from(values[j * STRIDE + i])).sum();
                assert!((f64::from(*out) - sum / weights.iter().sum::<f64>()).abs() < 1e-5);
            }
        }
    }
}
