//! Rotary position embedding as llama.cpp's `LLAMA_ROPE_TYPE_NORM` does it: neighbours (2i, 2i+1) of a head form the
//! pair that is rotated by `position * frequency[i]`. GGUF files of the `llama` architecture have their query and key
//! rows permuted for exactly this pairing; the halves of Hugging Face's checkpoints (i, i + dim/2) would be wrong.
//!
//! Angles are computed in f64, once per step for all layers: llama.cpp multiplies up powers in f32, which at position
//! 8000 differs by some 1e-3 radians in the fast frequencies.

use std::f64::consts::TAU;

use super::config::{Config, RopeScaling, Yarn};
use crate::error::{Error, Result};

/// Rotation frequencies of a model.
#[derive(Debug, Clone)]
pub(super) struct Rope {
    /// Radians per position of pair i within the trained context; `rope_dim / 2` of them.
    frequencies: Vec<f64>,
    /// For [`RopeScaling::Dynamic`]: factor and trained context.
    dynamic: Option<(f64, usize)>,
    /// What cosines and sines are multiplied by.
    magnitude: f64,
}

impl Rope {
    /// `factors` divide the frequencies one by one (`rope_freqs.weight` of Llama 3.1 and later).
    pub(super) fn new(config: &Config, factors: Option<&[f32]>) -> Result<Self> {
        let Config { rope_dim, rope_theta, rope_scaling, .. } = *config;
        let divided = |i: usize| frequency(i, rope_dim, rope_theta) / factors.map_or(1.0, |f| f64::from(f[i]));
        let mut frequencies: Vec<f64> = (0..rope_dim / 2).map(divided).collect();
        let (mut dynamic, mut magnitude) = (None, 1.0);
        match rope_scaling {
            RopeScaling::None => {}
            RopeScaling::Linear(factor) => frequencies.iter_mut().for_each(|f| *f /= f64::from(factor)),
            RopeScaling::Dynamic { factor, original_context_length } => {
                dynamic = Some((f64::from(factor), original_context_length));
            }
            RopeScaling::Yarn(yarn) => {
                stretch(&mut frequencies, &yarn, f64::from(rope_theta));
                magnitude = f64::from(yarn.attention_factor);
            }
        }
        if let Some(i) = frequencies.iter().position(|&f| !f.is_finite() || f <= 0.0) {
            let message = format!("computing rope frequencies: expected positive ones, got {} at {i}", frequencies[i]);
            return Err(Error::invalid_format(message));
        }
        Ok(Self { frequencies, dynamic, magnitude })
    }

    /// Pairs of a head that are rotated.
    pub(super) fn pairs(&self) -> usize {
        self.frequencies.len()
    }

    /// Cosines and sines of each pair at `position`.
    pub(super) fn angles_at(&self, position: usize, cos: &mut [f32], sin: &mut [f32]) {
        for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(self.frequencies_at(position)) {
            let (s, c) = (position as f64 * frequency).sin_cos();
            (*cos, *sin) = ((c * self.magnitude) as f32, (s * self.magnitude) as f32);
        }
    }

    /// A base that is `growth^(dim / (dim - 2))` times as large leaves the fastest frequency and divides the slowest by
    /// `growth`.
    fn frequencies_at(&self, position: usize) -> impl Iterator<Item = f64> {
        let growth = self.dynamic.map_or(1.0, |(factor, trained)| {
            factor * (position + 1).max(trained) as f64 / trained as f64 - (factor - 1.0)
        });
        let slowest = (self.frequencies.len() - 1).max(1) as f64;
        self.frequencies.iter().enumerate().map(move |(i, f)| f * growth.powf(-(i as f64) / slowest))
    }
}

fn frequency(i: usize, rope_dim: usize, theta: f32) -> f64 {
    f64::from(theta).powf(-2.0 * i as f64 / rope_dim as f64)
}

/// YaRN's mixture of frequencies left alone and divided ones, pair by pair.
fn stretch(frequencies: &mut [f64], yarn: &Yarn, theta: f64) {
    let rope_dim = 2.0 * frequencies.len() as f64;
    // The pair, as a fraction, that makes so many turns in the original context.
    let pair_of = |turns: f32| {
        rope_dim * (yarn.original_context_length as f64 / (f64::from(turns) * TAU)).ln() / (2.0 * theta.ln())
    };
    let low = pair_of(yarn.beta_fast).floor().max(0.0);
    let high = pair_of(yarn.beta_slow).ceil().min(rope_dim - 1.0);
    for (i, f) in frequencies.iter_mut().enumerate() {
        let ramp = ((i as f64 - low) / (high - low).max(STEEPEST_RAMP)).clamp(0.0, 1.0);
        let kept = (1.0 - ramp) * f64::from(yarn.ext_factor);
        *f *= (1.0 - kept) / f64::from(yarn.factor) + kept;
    }
}

/// Width in pairs of a ramp between bounds that coincide, in both programs that define YaRN for us.
const STEEPEST_RAMP: f64 = 0.001;

/// What the frequencies of Llama 3.1 and later are divided by (`rope_freqs.weight`), from the numbers of a `config.json`
/// whose `rope_type` is `llama3`: slow ones by `factor`, fast ones by 1, and a ramp between them, where slow and fast
/// mean fewer than `low_freq_factor` and more than `high_freq_factor` turns in the original context.
pub fn llama3_factors(
    rope_dim: usize,
    theta: f32,
    factor: f32,
    low_freq_factor: f32,
    high_freq_factor: f32,
    original_context_length: usize,
) -> Vec<f32> {
    let (factor, low, high) = (f64::from(factor), f64::from(low_freq_factor), f64::from(high_freq_factor));
    let divisor = |i: usize| {
        let turns = original_context_length as f64 * frequency(i, rope_dim, theta) / TAU;
        let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - kept) / factor + kept)) as f32
    };
    (0..rope_dim / 2).map(divisor).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::tests::config;
    use super::*;

    fn angles(rope: &Rope, position: usize) -> (Vec<f32>, Vec<f32>) {
        let (mut cos, mut sin) = (vec![0.0; rope.pairs()], vec![0.0; rope.pairs()]);
        rope.angles_at(position, &mut cos, &mut sin);
        (cos, sin)
    }

    #[test]
    fn angles_are_positions_times_frequencies() {
        let config = Config { head_dim: 6, rope_dim: 4, rope_theta: 100.0, ..config() };
        let (cos, sin) = angles(&Rope::new(&config, None).unwrap(), 3);
        let (fast, slow) = (3f32, 0.3f32); // 3 * 100^0 and 3 * 100^(-2/4)
        assert_eq!((cos, sin), (vec![fast.cos(), slow.cos()], vec![fast.sin(), slow.sin()]));
    }

    #[test]
    fn linear_scaling_divides_positions() {
        let plain = Rope::new(&config(), None).unwrap();
        let scaled = Rope::new(&Config { rope_scaling: RopeScaling::Linear(4.0), ..config() }, None).unwrap();
        assert_eq!(angles(&plain, 5), angles(&scaled, 20));
    }

    #[test]
    fn factors_that_are_not_positive_are_refused() {
        let error = Rope::new(&config(), Some(&[1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])).unwrap_err();
        assert!(error.to_string().ends_with("got inf at 1"), "{error}");
        let error = Rope::new(&config(), Some(&[1.0, 1.0, -2.0, 1.0, 1.0, 1.0, 1.0, 1.0])).unwrap_err();
        assert!(error.to_string().ends_with("got -0.05 at 2"), "{error}");
    }

    /// `tests/golden/rope.json`: what Hugging Face's transformers compute; the file names its command.
    #[derive(Deserialize)]
    struct Golden {
        tolerance: f64,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        head_dim: usize,
        rope_theta: f32,
        max_position_embeddings: usize,
        rope_scaling: serde_json::Value,
        /// Length of the text, where frequencies depend on it.
        seq_len: Option<usize>,
        inv_freq: Vec<f64>,
        attention_factor: f64,
    }

    impl Case {
        fn number(&self, key: &str) -> Option<f32> {
            self.rope_scaling[key].as_f64().map(|v| v as f32)
        }

        fn rope(&self) -> Rope {
            let number = |key| self.number(key).unwrap();
            let factor = self.number("factor").unwrap_or(1.0);
            let original = &self.rope_scaling["original_max_position_embeddings"];
            let original_context_length = original.as_u64().map_or(self.max_position_embeddings, |n| n as usize);
            let (mut rope_scaling, mut factors) = (RopeScaling::None, None);
            match self.rope_scaling["rope_type"].as_str().unwrap() {
                "default" => {}
                "linear" => rope_scaling = RopeScaling::Linear(factor),
                "dynamic" => rope_scaling = RopeScaling::Dynamic { factor, original_context_length },
                "llama3" => {
                    let (low, high) = (number("low_freq_factor"), number("high_freq_factor"));
                    factors = Some(llama3_factors(
                        self.head_dim,
                        self.rope_theta,
                        factor,
                        low,
                        high,
                        original_context_length,
                    ));
                }
                "yarn" => {
                    let mut yarn = Yarn::new(factor, original_context_length);
                    yarn.beta_fast = self.number("beta_fast").unwrap_or(yarn.beta_fast);
                    yarn.beta_slow = self.number("beta_slow").unwrap_or(yarn.beta_slow);
                    if let (Some(mscale), Some(all)) = (self.number("mscale"), self.number("mscale_all_dim")) {
                        yarn.attention_factor = Yarn::magnitude(factor, mscale) / Yarn::magnitude(factor, all);
                    }
                    rope_scaling = RopeScaling::Yarn(yarn);
                }
                other => panic!("a case of {other}"),
            }
            let Case { head_dim, rope_theta, .. } = *self;
            let config = Config { head_dim, rope_dim: head_dim, rope_theta, rope_scaling, ..config() };
            config.validate().unwrap();
            Rope::new(&config, factors.as_deref()).unwrap()
        }
    }

    #[test]
    fn frequencies_are_those_of_transformers() {
        let golden: Golden = serde_json::from_str(include_str!("../../../tests/golden/rope.json")).unwrap();
        assert_eq!(golden.cases.len(), 12);
        for case in golden.cases {
            let rope = case.rope();
            let ours: Vec<_> = rope.frequencies_at(case.seq_len.map_or(0, |n| n - 1)).collect();
            assert_eq!(ours.len(), case.inv_freq.len());
            for (i, (ours, theirs)) in ours.iter().zip(&case.inv_freq).enumerate() {
                assert!((ours / theirs - 1.0).abs() <= golden.tolerance, "{} {i}: {ours}, {theirs}", case.name);
            }
            assert!((rope.magnitude / case.attention_factor - 1.0).abs() <= golden.tolerance, "{}", case.name);
        }
    }

    #[test]
    fn a_magnitude_scales_what_is_rotated() {
        let yarn = Yarn { ext_factor: 0.0, attention_factor: 1.5, ..Yarn::new(4.0, 64) };
        let scaled = Rope::new(&Config { rope_scaling: RopeScaling::Yarn(yarn), ..config() }, None).unwrap();
        // Without `ext_factor` what is left of YaRN is linear scaling.
        let linear = Rope::new(&Config { rope_scaling: RopeScaling::Linear(4.0), ..config() }, None).unwrap();
        let (scaled, linear) = (angles(&scaled, 9), angles(&linear, 9));
        for (scaled, linear) in scaled.0.iter().zip(&linear.0).chain(scaled.1.iter().zip(&linear.1)) {
            assert!((scaled - linear * 1.5).abs() < 1e-6);
        }
    }

    #[test]
    fn dynamic_scaling_begins_behind_the_trained_context() {
        let scaling = RopeScaling::Dynamic { factor: 2.0, original_context_length: 8 };
        let dynamic = Rope::new(&Config { rope_scaling: scaling, ..config() }, None).unwrap();
        let plain = Rope::new(&config(), None).unwrap();
        for position in 0..12 {
            assert_eq!(angles(&dynamic, position) == angles(&plain, position), position < 8, "position {position}");
        }
    }
}
