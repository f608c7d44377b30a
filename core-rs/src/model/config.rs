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
    /// Most positions that a token sees, itself and those before it (`attention.sliding_window`); all if there is none.
    pub sliding_window: Option<usize>,
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
    /// The base grows with the position, so that the slowest frequency is divided by how far the position lies beyond
    /// the trained context, in the measure of `factor` ("dynamic NTK").
    ///
    /// Position `p` takes the base of a text that ends with it, `p + 1` tokens long. That is what Hugging Face computes
    /// token by token; for a prompt it takes the base of the whole prompt, so that a text's result there depends on how
    /// it was cut. Here it does not.
    Dynamic {
        /// Growth of the base per trained context.
        factor: f32,
        /// Tokens up to which nothing is stretched.
        original_context_length: usize,
    },
    /// Slow frequencies divided by a factor, fast ones left alone, and a ramp between them.
    Yarn(Yarn),
}

/// YaRN (arXiv 2309.00071) as llama.cpp and Hugging Face agree on it. Names follow GGUF's keys `rope.scaling.*`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    /// What slow frequencies are divided by.
    pub factor: f32,
    /// Context that the model was first trained with.
    pub original_context_length: usize,
    /// How much of a fast frequency is left alone, 0 to 1 (`yarn_ext_factor`).
    pub ext_factor: f32,
    /// What cosines and sines are multiplied by in the end; [`Yarn::magnitude`] of the factor unless a model says
    /// otherwise.
    pub attention_factor: f32,
    /// Frequencies with more turns than this in the original context are fast (`yarn_beta_fast`).
    pub beta_fast: f32,
    /// Frequencies with fewer turns than this in the original context are slow (`yarn_beta_slow`).
    pub beta_slow: f32,
}

impl Yarn {
    /// The paper's constants for everything else.
    pub fn new(factor: f32, original_context_length: usize) -> Self {
        let attention_factor = Self::magnitude(factor, 1.0);
        Self { factor, original_context_length, ext_factor: 1.0, attention_factor, beta_fast: 32.0, beta_slow: 1.0 }
    }

    /// `0.1 * scale * ln(factor) + 1`, or 1 where nothing is stretched. A config with `mscale` and `mscale_all_dim` means
    /// the quotient of the two.
    pub fn magnitude(factor: f32, scale: f32) -> f32 {
        if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
    }
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
    sliding_window: None,
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
        ensure(self.sliding_window != Some(0), || "a sliding_window of at least one token, got 0".into())?;
        positive("rope_theta", self.rope_theta)?;
        self.validate_scaling()?;
        let (eps, limit) = (self.rms_eps, LIMITS.rms_eps);
        ensure((0.0..=limit).contains(&eps), || format!("rms_eps in 0..={limit}, got {eps}"))
    }

    fn validate_scaling(&self) -> Result<()> {
        let trained = |got: usize| {
            let most = LIMITS.n_ctx;
            ensure((1..=most).contains(&got), || format!("original_context_length in 1..={most}, got {got}"))
        };
        match self.rope_scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear(factor) => positive("linear rope factor", factor),
            RopeScaling::Dynamic { factor, original_context_length } => {
                ensure(factor.is_finite() && factor >= 1.0, || format!("a dynamic rope factor from 1, got {factor}"))?;
                ensure(self.rope_dim > 2, || format!("a rope_dim above 2 for a dynamic rope, got {}", self.rope_dim))?;
                trained(original_context_length)
            }
            RopeScaling::Yarn(yarn) => {
                positive("yarn rope factor", yarn.factor)?;
                positive("yarn attention_factor", yarn.attention_factor)?;
                positive("yarn beta_fast", yarn.beta_fast)?;
                positive("yarn beta_slow", yarn.beta_slow)?;
                let share = yarn.ext_factor;
                ensure((0.0..=1.0).contains(&share), || format!("a yarn ext_factor in 0..=1, got {share}"))?;
                ensure(self.rope_theta != 1.0, || "a rope_theta other than 1 for yarn, got 1".into())?;
                trained(yarn.original_context_length)
            }
        }
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

fn positive(name: &str, got: f32) -> Result<()> {
    ensure(got.is_finite() && got > 0.0, || format!("a positive {name}, got {got}"))
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
            sliding_window: None,
            rms_eps: 1e-5,
        }
    }

    #[test]
    fn a_published_model_passes() {
        smol().validate().unwrap();
        Config { rope_dim: 32, rope_scaling: RopeScaling::Linear(4.0), rms_eps: 0.0, ..smol() }.validate().unwrap();
        Config { rope_scaling: RopeScaling::Yarn(Yarn::new(16.0, 4096)), ..smol() }.validate().unwrap();
        let scaling = RopeScaling::Dynamic { factor: 2.0, original_context_length: 2048 };
        Config { rope_scaling: scaling, sliding_window: Some(4096), ..smol() }.validate().unwrap();
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
        check(Config { sliding_window: Some(0), ..smol() }, "a sliding_window of at least one token, got 0");
        let scaled = |rope_scaling| Config { rope_scaling, ..smol() };
        let dynamic = |factor, original_context_length| RopeScaling::Dynamic { factor, original_context_length };
        check(scaled(dynamic(0.5, 1)), "a dynamic rope factor from 1, got 0.5");
        check(scaled(dynamic(2.0, 0)), "original_context_length in 1..=16777216, got 0");
        check(Config { rope_dim: 2, ..scaled(dynamic(2.0, 1)) }, "a rope_dim above 2 for a dynamic rope, got 2");
        let yarn = Yarn::new(4.0, 4096);
        for (yarn, expected) in [
            (Yarn { factor: 0.0, ..yarn }, "a positive yarn rope factor, got 0"),
            (Yarn { attention_factor: f32::INFINITY, ..yarn }, "a positive yarn attention_factor, got inf"),
            (Yarn { beta_fast: -1.0, ..yarn }, "a positive yarn beta_fast, got -1"),
            (Yarn { beta_slow: f32::NAN, ..yarn }, "a positive yarn beta_slow, got NaN"),
            (Yarn { ext_factor: 1.5, ..yarn }, "a yarn ext_factor in 0..=1, got 1.5"),
            (Yarn { original_context_length: 0, ..yarn }, "original_context_length in 1..=16777216, got 0"),
        ] {
            check(scaled(RopeScaling::Yarn(yarn)), expected);
        }
        let flat = Config { rope_theta: 1.0, ..scaled(RopeScaling::Yarn(yarn)) };
        check(flat, "a rope_theta other than 1 for yarn, got 1");
    }
}
