//! The sampler of one reply: parameters, a seeded generator and the tokens seen so far.

use std::collections::HashSet;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::filters::{Candidate, min_p, softmax, top_k, top_p};
use super::params::SamplingParams;
use crate::error::{Error, Result};

/// Chooses one token after another. Equal parameters, seed and logits give equal choices on every machine.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    rng: ChaCha8Rng,
    seen: HashSet<u32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler for one reply. `params` must be valid.
    ///
    /// # Errors
    /// `invalid_request` when a parameter is out of range.
    pub fn new(params: SamplingParams, seed: u64) -> Result<Self> {
        params.validate()?;
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Ok(Self { params, rng, seen: HashSet::new(), candidates: Vec::new() })
    }

    /// Tell the repetition penalty that `ids` stand in the prompt.
    pub fn observe(&mut self, ids: &[u32]) {
        if self.params.repeat_penalty != 1.0 {
            self.seen.extend(ids);
        }
    }

    /// Choose a token from `logits` (one per vocabulary entry) and remember it for the penalty.
    ///
    /// # Errors
    /// `internal` when no logit is finite: the model's arithmetic broke.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<u32> {
        self.penalise(logits);
        let id = if self.params.temperature == 0.0 { argmax(logits) } else { self.draw(logits) };
        let id = id.ok_or_else(|| Error::internal("expected at least one finite logit, got none"))?;
        self.observe(&[id]);
        Ok(id)
    }

    /// Divide positive and multiply negative logits of seen tokens (Keskar et al. 2019).
    fn penalise(&self, logits: &mut [f32]) {
        for &id in &self.seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit *= if *logit > 0.0 { 1.0 / self.params.repeat_penalty } else { self.params.repeat_penalty };
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> Option<u32> {
        let candidates = &mut self.candidates;
        candidates.clear();
        let finite = logits.iter().enumerate().filter(|(_, logit)| logit.is_finite());
        candidates.extend(finite.map(|(id, &weight)| Candidate { id: id as u32, weight }));
        top_k(candidates, self.params.top_k);
        top_p(candidates, self.params.top_p);
        min_p(candidates, self.params.min_p);
        candidates.iter_mut().for_each(|c| c.weight /= self.params.temperature);
        // 24 bits make an exact f32 in [0, 1).
        let mut coin = (self.rng.next_u32() >> 8) as f32 / (1 << 24) as f32;
        let probabilities = softmax(candidates);
        let chosen = probabilities.iter().position(|p| {
            coin -= p;
            coin < 0.0
        });
        // Rounding can leave a crumb of the coin behind the last candidate.
        candidates.get(chosen.unwrap_or(candidates.len().wrapping_sub(1))).map(|c| c.id)
    }
}

/// The highest finite logit, the lowest id among equals.
fn argmax(logits: &[f32]) -> Option<u32> {
    let finite = logits.iter().enumerate().filter(|(_, logit)| logit.is_finite());
    finite.reduce(|best, x| if x.1 > best.1 { x } else { best }).map(|(id, _)| id as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(params: SamplingParams, seed: u64) -> Sampler {
        Sampler::new(params, seed).expect("valid parameters")
    }

    fn greedy() -> SamplingParams {
        SamplingParams { temperature: 0.0, ..Default::default() }
    }

    fn plain(temperature: f32) -> SamplingParams {
        SamplingParams { temperature, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.0 }
    }

    #[test]
    fn greedy_takes_the_highest_and_the_lowest_id_among_equals() {
        assert_eq!(sampler(greedy(), 0).sample(&mut [0.0, 3.0, 3.0, -1.0]), Ok(1));
    }

    #[test]
    fn nan_and_infinite_logits_are_never_chosen() {
        let mut logits = [f32::NAN, f32::INFINITY, 1.0, f32::NEG_INFINITY];
        assert_eq!(sampler(greedy(), 0).sample(&mut logits), Ok(2));
        assert_eq!(sampler(plain(1.0), 0).sample(&mut logits), Ok(2));
    }

    #[test]
    fn no_finite_logit_is_an_error() {
        for params in [greedy(), plain(1.0), SamplingParams::default()] {
            assert!(sampler(params.clone(), 0).sample(&mut [f32::NAN; 3]).is_err());
            assert!(sampler(params, 0).sample(&mut []).is_err());
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_choices_and_another_seed_others() {
        let run = |seed| {
            let mut s = sampler(plain(1.0), seed);
            (0..64).map(|_| s.sample(&mut [0.0; 50]).expect("finite")).collect::<Vec<_>>()
        };
        assert_eq!(run(42), run(42));
        assert_ne!(run(42), run(43));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let mut s = sampler(plain(1.0), 7);
        let probabilities = [0.6f32, 0.3, 0.1];
        let mut counts = [0u32; 3];
        for _ in 0..20_000 {
            counts[s.sample(&mut probabilities.map(f32::ln)).expect("finite") as usize] += 1;
        }
        for (count, p) in counts.iter().zip(probabilities) {
            assert!((*count as f32 / 20_000.0 - p).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn a_high_temperature_flattens_and_a_low_one_sharpens() {
        let share = |t| {
            let mut s = sampler(plain(t), 1);
            (0..2000).filter(|_| s.sample(&mut [1.0, 0.0]) == Ok(0)).count()
        };
        assert!(share(100.0) < 1100 && share(0.05) == 2000);
    }

    #[test]
    fn the_penalty_covers_prompt_and_reply() {
        let params = SamplingParams { repeat_penalty: 2.0, ..greedy() };
        let mut s = sampler(params, 0);
        s.observe(&[1]);
        let logits = [1.4, 2.0, 0.9, -0.1];
        let chosen: Vec<_> = (0..3).map(|_| s.sample(&mut logits.clone()).expect("finite")).collect();
        // 2.0 / 2 < 1.4; then 1.4 / 2 < 1.0; then all three are halved and 1.0 leads.
        assert_eq!(chosen, [0, 1, 1]);
    }

    #[test]
    fn ids_beyond_the_vocabulary_are_ignored_by_the_penalty() {
        let mut s = sampler(SamplingParams { repeat_penalty: 2.0, ..greedy() }, 0);
        s.observe(&[u32::MAX]);
        assert_eq!(s.sample(&mut [0.0, 1.0]), Ok(1));
    }
}
