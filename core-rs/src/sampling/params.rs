//! Sampling parameters and their ranges.

use std::ops::RangeInclusive;

use crate::error::{Error, Result};

/// A filter: it narrows or reweighs what may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Repetition, presence and frequency.
    Penalties,
    /// Don't Repeat Yourself: against sequences that stood there before.
    Dry,
    /// Logits near the highest, in standard deviations.
    TopNSigma,
    /// The most probable ones, by number.
    TopK,
    /// The locally typical ones.
    TypicalP,
    /// The most probable ones, by their mass.
    TopP,
    /// Those near the most probable one, in proportion.
    MinP,
    /// Exclude Top Choices.
    Xtc,
    /// How flat the distribution is.
    Temperature,
}

impl Filter {
    /// All filters by name in the order in which they apply by default, which is llama.cpp's.
    pub const ALL: [(&str, Self); 9] = [
        ("penalties", Self::Penalties),
        ("dry", Self::Dry),
        ("top_n_sigma", Self::TopNSigma),
        ("top_k", Self::TopK),
        ("typical_p", Self::TypicalP),
        ("top_p", Self::TopP),
        ("min_p", Self::MinP),
        ("xtc", Self::Xtc),
        ("temperature", Self::Temperature),
    ];
}

/// How tokens are chosen. Fields are public; `validate` is the gate that every request passes.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Softmax temperature; 0 is greedy.
    pub temperature: f32,
    /// The temperature varies by entropy between itself minus and plus this; 0 is off.
    pub dynatemp_range: f32,
    /// How entropy becomes a dynamic temperature.
    pub dynatemp_exponent: f32,
    /// Keep this many most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probability reaches this.
    pub top_p: f32,
    /// Drop tokens below this share of the highest probability.
    pub min_p: f32,
    /// Keep the locally typical tokens whose probability reaches this; 1 is off.
    pub typical_p: f32,
    /// Keep logits within this many standard deviations of the highest; 0 is off.
    pub top_n_sigma: f32,
    /// Divide (positive) or multiply (negative) the logits of seen tokens; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted from logits of seen tokens.
    pub presence_penalty: f32,
    /// Subtracted from logits of tokens for each time seen.
    pub frequency_penalty: f32,
    /// How many of the last tokens the three penalties look at; none: all.
    pub repeat_last_n: Option<usize>,
    /// Strength of DRY; 0 is off.
    pub dry_multiplier: f32,
    /// How fast DRY's penalty grows with the length repeated.
    pub dry_base: f32,
    /// Repeated sequences up to this length, the new token among them, are free.
    pub dry_allowed_length: usize,
    /// How many of the last tokens DRY looks at; none: all.
    pub dry_penalty_last_n: Option<usize>,
    /// How likely XTC drops the most probable tokens; 0 is off.
    pub xtc_probability: f32,
    /// XTC drops all but the last of the tokens at least this probable; above 0.5 it does nothing.
    pub xtc_threshold: f32,
    /// Version of mirostat, which takes the place of all filters but the temperature; 0 is off.
    pub mirostat: usize,
    /// The surprise that mirostat holds, in bits.
    pub mirostat_tau: f32,
    /// How fast mirostat learns.
    pub mirostat_eta: f32,
    /// The filters in the order in which they apply; those left out are off.
    pub samplers: Vec<Filter>,
    /// Added to the logits of these ids.
    pub logit_bias: Vec<(u32, f32)>,
    /// Only these ids may be chosen.
    pub allowed: Option<Vec<u32>>,
    /// These ids are never chosen.
    pub banned: Vec<u32>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repeat_last_n: None,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: None,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            samplers: Filter::ALL.map(|(_, filter)| filter).to_vec(),
            logit_bias: Vec::new(),
            allowed: None,
            banned: Vec::new(),
        }
    }
}

/// A parameter that is a number: its name, its place and its range.
pub struct NumberField {
    /// As requests spell it.
    pub name: &'static str,
    /// Its place.
    pub of: fn(&mut SamplingParams) -> &mut f32,
    range: RangeInclusive<f32>,
    /// The start of the range is not allowed.
    above: bool,
}

const fn from(name: &'static str, range: RangeInclusive<f32>, of: fn(&mut SamplingParams) -> &mut f32) -> NumberField {
    NumberField { name, of, range, above: false }
}

const fn above(name: &'static str, range: RangeInclusive<f32>, of: fn(&mut SamplingParams) -> &mut f32) -> NumberField {
    NumberField { name, of, range, above: true }
}

impl SamplingParams {
    /// The parameters that are numbers.
    pub const NUMBERS: [NumberField; 16] = [
        from("temperature", 0.0..=100.0, |p| &mut p.temperature),
        from("dynatemp_range", 0.0..=100.0, |p| &mut p.dynatemp_range),
        from("dynatemp_exponent", 0.0..=100.0, |p| &mut p.dynatemp_exponent),
        above("top_p", 0.0..=1.0, |p| &mut p.top_p),
        from("min_p", 0.0..=1.0, |p| &mut p.min_p),
        above("typical_p", 0.0..=1.0, |p| &mut p.typical_p),
        from("top_n_sigma", 0.0..=100.0, |p| &mut p.top_n_sigma),
        above("repeat_penalty", 0.0..=10.0, |p| &mut p.repeat_penalty),
        from("presence_penalty", -2.0..=2.0, |p| &mut p.presence_penalty),
        from("frequency_penalty", -2.0..=2.0, |p| &mut p.frequency_penalty),
        from("dry_multiplier", 0.0..=100.0, |p| &mut p.dry_multiplier),
        from("dry_base", 1.0..=100.0, |p| &mut p.dry_base),
        from("xtc_probability", 0.0..=1.0, |p| &mut p.xtc_probability),
        from("xtc_threshold", 0.0..=1.0, |p| &mut p.xtc_threshold),
        from("mirostat_tau", 0.0..=100.0, |p| &mut p.mirostat_tau),
        from("mirostat_eta", 0.0..=1.0, |p| &mut p.mirostat_eta),
    ];

    /// Refuse numbers outside their ranges, NaN included.
    ///
    /// # Errors
    /// `invalid_request` naming the field, its range and the value.
    pub fn validate(&mut self) -> Result<()> {
        for NumberField { name, of, range, above } in &Self::NUMBERS {
            let value = *of(self);
            if !range.contains(&value) || (*above && value == *range.start()) {
                let from = if *above { "a number above" } else { "a number from" };
                let (start, end) = (range.start(), range.end());
                return Err(Error::invalid_request(format!("{name} must be {from} {start} up to {end}, got {value}")));
            }
        }
        Ok(())
    }

    /// Whether any of the three penalties does something.
    pub(super) fn penalises(&self) -> bool {
        self.repeat_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// Whether DRY does something.
    pub(super) fn has_dry(&self) -> bool {
        self.dry_multiplier != 0.0 && self.samplers.contains(&Filter::Dry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(SamplingParams::default().validate(), Ok(()));
    }

    #[test]
    fn each_number_takes_the_ends_of_its_range_and_refuses_what_is_beyond_and_nan() {
        for field in &SamplingParams::NUMBERS {
            let with = |value: f32| {
                let mut params = SamplingParams::default();
                *(field.of)(&mut params) = value;
                params.validate()
            };
            let (start, end) = (*field.range.start(), *field.range.end());
            assert_eq!(with(start).is_ok(), !field.above, "{}", field.name);
            assert_eq!((with(start + 0.01), with(end)), (Ok(()), Ok(())), "{}", field.name);
            for bad in [start - 0.5, end + 0.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let message = with(bad).expect_err(field.name).to_string();
                assert!(message.starts_with(field.name), "{message}");
            }
        }
    }
}
