//! Float loops written so that a compiler can vectorise them for any instruction set: fixed lanes, no reassociation,
//! no fused multiply-add. Each instruction set inlines the same bodies, so their results agree bit for bit.

/// Floats that vector loops take at once.
pub(super) const LANES: usize = 8;

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

/// `gate = gate / (1 + e^-gate) * up`.
#[inline(always)]
pub(super) fn swiglu(gate: &mut [f32], up: &[f32]) {
    for (gate, &up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

/// The sum of all lanes.
#[inline(always)]
pub(super) fn sum_lanes(l: [f32; LANES]) -> f32 {
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
    /// 1.5 * 2^23: see `activations::ROUND`.
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
        let mut out = gate;
        swiglu(&mut out, &[2.0; 6]);
        let sigmoid = 1.0 / (1.0 + (-1.0_f32).exp());
        let expected = [0.0, 2.0 * sigmoid, -2.0 * (1.0 - sigmoid), 200.0, 0.0];
        for (out, expected) in out.iter().zip(expected) {
            assert!((out - expected).abs() < 1e-6, "{out} != {expected}");
        }
        assert!(out[5].is_nan());
    }
}
