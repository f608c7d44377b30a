//! The numbers that make a Llama a particular one, and the rules they must keep before anything is sized by them.

use crate::error::{Error, Result};

/// Shape and constants of a model. Names follow GGUF's keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Transformer layers (`block_count`).
    pub n_layer: usize,
    /// Width of the residual stream (`embedding_length`).
    pub n_embd: usize,
    /// Width of the feed-forward layer (`feed_forward_length`).
    pub n_ff: usize,
    /// Query heads (`attention.head_count`).
    pub n_head: usize,
    /// Key and value heads (`attention.head_count_kv`); each serves `n_head / n_head_kv` query heads.
    pub n_head_kv: usize,
    /// Width of a head (`attention.key_length`, else `n_embd / n_head`).
    pub head_dim: usize,
    /// Rows of the token embedding.
    pub n_vocab: usize,
    /// Most tokens a cache may hold.
    pub n_ctx: usize,
    /// Leading values of a head that are rotated (`rope.dimension_count`); the rest pass through.
    pub rope_dim: usize,
    /// Base of the rotation frequencies (`rope.freq_base`).
    pub rope_theta: f32,
    /// How positions are stretched beyond the trained context.
    pub rope_scaling: RopeScaling,
    /// Added to the mean square in RMSNorm (`attention.layer_norm_rms_epsilon`).
    pub rms_eps: f32,
}

/// How positions are stretched beyond the trained context. Factors per frequency (`rope_freqs.weight`) come as a
/// tensor and combine with either.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Positions as they are.
    None,
    /// Positions divided by this factor.
    Linear(f32),
}

/// Bounds on a config, far above any published model: what lies beyond is a damaged file, and sizes computed from it
/// must not overflow.
const LIMITS: Config = Config {
    n_layer: 1 << 10,
    n_embd: 1 << 17,
    n_ff: 1 << 20,
    n_head: 1 << 10,
    n_head_kv: 1 << 10,
    head_dim: 1 << 12,
    n_vocab: 1 << 22,
    n_ctx: 1 << 24,
    rope_dim: 1 << 12,
    rope_theta: f32::MAX,
    rope_scaling: RopeScaling::Linear(f32::MAX),
    rms_eps: 1.0,
};

impl Config {
    /// Checks every number alone and against the others.
    pub fn validate(&self) -> Result<()> {
        for ((name, got), (_, limit)) in self.sizes().into_iter().zip(LIMITS.sizes()) {
            ensure((1..=limit).contains(&got), || format!("{name} in 1..={limit}, got {got}"))?;
        }
        let (heads, kv, rope, dim) = (self.n_head, self.n_head_kv, self.rope_dim, self.head_dim);
        ensure(heads.is_multiple_of(kv), || format!("n_head to be a multiple of n_head_kv, got {heads} and {kv}"))?;
        ensure(rope.is_multiple_of(2) && rope <= dim, || format!("an even rope_dim of at most {dim}, got {rope}"))?;
        self.validate_floats()
    }

    fn validate_floats(&self) -> Result<()> {
        let positive =
            |name: &str, got: f32| ensure(got.is_finite() && got > 0.0, || format!("a positive {name}, got {got}"));
        positive("rope_theta", self.rope_theta)?;
        if let RopeScaling::Linear(factor) = self.rope_scaling {
            positive("linear rope factor", factor)?;
        }
        let (eps, limit) = (self.rms_eps, LIMITS.rms_eps);
        ensure((0.0..=limit).contains(&eps), || format!("rms_eps in 0..={limit}, got {eps}"))
    }

    /// Width of all query heads together.
    pub fn n_embd_q(&self) -> usize {
        self.n_head * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn n_embd_kv(&self) -> usize {
        self.n_head_kv * self.head_dim
    }

    fn sizes(&self) -> [(&'static str, usize); 9] {
        [
            ("n_layer", self.n_layer),
            ("n_embd", self.n_embd),
            ("n_ff", self.n_ff),
            ("n_head", self.n_head),
            ("n_head_kv", self.n_head_kv),
            ("head_dim", self.head_dim),
            ("n_vocab", self.n_vocab),
            ("n_ctx", self.n_ctx),
            ("rope_dim", self.rope_dim),
        ]
    }
}

fn ensure(holds: bool, expected_and_got: impl FnOnce() -> String) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::invalid_format(format!("checking the model's config: expected {}", expected_and_got())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn smol() -> Config {
        Config {
            n_layer: 30,
            n_embd: 576,
            n_ff: 1536,
            n_head: 9,
            n_head_kv: 3,
            head_dim: 64,
            n_vocab: 49152,
            n_ctx: 8192,
            rope_dim: 64,
            rope_theta: 1e5,
            rope_scaling: RopeScaling::None,
            rms_eps: 1e-5,
        }
    }

    #[test]
    fn a_published_model_passes() {
        smol().validate().unwrap();
        Config { rope_dim: 32, rope_scaling: RopeScaling::Linear(4.0), rms_eps: 0.0, ..smol() }.validate().unwrap();
    }

    #[test]
    fn each_broken_rule_is_a_sentence() {
        let check = |config: Config, expected: &str| {
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidFormat);
            assert_eq!(error.to_string(), format!("checking the model's config: expected {expected}"));
        };
        check(Config { n_layer: 0, ..smol() }, "n_layer in 1..=1024, got 0");
        check(Config { n_ff: usize::MAX, ..smol() }, "n_ff in 1..=1048576, got 18446744073709551615");
        check(Config { n_head_kv: 2, ..smol() }, "n_head to be a multiple of n_head_kv, got 9 and 2");
        check(Config { n_head_kv: 18, ..smol() }, "n_head to be a multiple of n_head_kv, got 9 and 18");
        check(Config { rope_dim: 63, ..smol() }, "an even rope_dim of at most 64, got 63");
        check(Config { rope_dim: 66, ..smol() }, "an even rope_dim of at most 64, got 66");
        check(Config { rope_theta: 0.0, ..smol() }, "a positive rope_theta, got 0");
        check(Config { rope_theta: f32::NAN, ..smol() }, "a positive rope_theta, got NaN");
        let scaling = RopeScaling::Linear(-2.0);
        check(Config { rope_scaling: scaling, ..smol() }, "a positive linear rope factor, got -2");
        check(Config { rms_eps: f32::NAN, ..smol() }, "rms_eps in 0..=1, got NaN");
    }
}
