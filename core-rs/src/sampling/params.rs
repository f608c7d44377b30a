//! Sampling parameters and their ranges.

use crate::error::{Error, Result};

/// How tokens are chosen. Fields are public; `validate` is the gate that every request passes.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Softmax temperature, 0 to 100; 0 is greedy.
    pub temperature: f32,
    /// Keep this many most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probability reaches this, above 0 up to 1.
    pub top_p: f32,
    /// Drop tokens below this share of the highest probability, 0 to 1.
    pub min_p: f32,
    /// Divide (positive) or multiply (negative) the logits of seen tokens, above 0 up to 10; 1 is off.
    pub repeat_penalty: f32,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self { temperature: 0.7, top_k: 40, top_p: 0.95, min_p: 0.05, repeat_penalty: 1.0 }
    }
}

impl SamplingParams {
    /// Highest accepted temperature.
    pub const MAX_TEMPERATURE: f32 = 100.0;
    /// Highest accepted repetition penalty.
    pub const MAX_REPEAT_PENALTY: f32 = 10.0;

    /// Refuse values outside the documented ranges, NaN included.
    ///
    /// # Errors
    /// `invalid_request` naming the field, its range and the value.
    pub fn validate(&self) -> Result<()> {
        check("temperature", self.temperature, 0.0..=Self::MAX_TEMPERATURE, false)?;
        check("top_p", self.top_p, 0.0..=1.0, true)?;
        check("min_p", self.min_p, 0.0..=1.0, false)?;
        check("repeat_penalty", self.repeat_penalty, 0.0..=Self::MAX_REPEAT_PENALTY, true)
    }
}

fn check(name: &str, value: f32, range: std::ops::RangeInclusive<f32>, above_start: bool) -> Result<()> {
    if range.contains(&value) && !(above_start && value == *range.start()) {
        return Ok(());
    }
    let from = if above_start { "a number above" } else { "a number from" };
    Err(Error::invalid_request(format!("{name} must be {from} {} up to {}, got {value}", range.start(), range.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(SamplingParams::default().validate(), Ok(()));
    }

    #[test]
    fn each_field_refuses_both_sides_of_its_range_and_nan() {
        let ok = SamplingParams::default;
        type Set = fn(&mut SamplingParams, f32);
        let set: [(&str, Set); 4] = [
            ("temperature", |p, v| p.temperature = v),
            ("top_p", |p, v| p.top_p = v),
            ("min_p", |p, v| p.min_p = v),
            ("repeat_penalty", |p, v| p.repeat_penalty = v),
        ];
        for (name, set) in set {
            for bad in [-1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 100.5] {
                let mut params = ok();
                set(&mut params, bad);
                let message = params.validate().expect_err(name).to_string();
                assert!(message.starts_with(name), "{message}");
            }
        }
        assert!(SamplingParams { top_p: 0.0, ..ok() }.validate().is_err());
        assert!(SamplingParams { repeat_penalty: 0.0, ..ok() }.validate().is_err());
    }
}
