//! The sampler of one reply: parameters, a seeded generator and the tokens seen so far.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::dry::{self, Seen};
use super::filters::{Candidate, Candidates};
use super::params::{Filter, SamplingParams};
use crate::error::{Error, Result};

/// Chooses one token after another. Equal parameters, seed and logits give equal choices on every machine.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    /// How many filters of the order come first that only reweigh seen tokens: they need no list of candidates.
    leading: usize,
    rng: ChaCha8Rng,
    /// How often each token stands in the window of the penalties; empty when there are none.
    counts: HashMap<u32, u32>,
    /// All tokens, when a window or DRY looks back at them.
    seen: Vec<Seen>,
    candidates: Candidates,
    /// What surprise mirostat allows, in bits.
    mu: f32,
}

/// Choices that are refused one by one before all of a vocabulary are asked about.
const MAX_REFUSED: usize = 8;

/// The logits of a vocabulary, or of what filters have left of it.
enum Weights<'a> {
    All(&'a mut [f32]),
    Some(&'a mut [Candidate]),
}

impl Weights<'_> {
    /// Change the weights of those tokens that are `known`.
    fn change<T: Copy>(&mut self, known: &HashMap<u32, T>, change: impl Fn(&mut f32, T)) {
        match self {
            Self::All(logits) => {
                for (&id, &x) in known {
                    if let Some(weight) = logits.get_mut(id as usize) {
                        change(weight, x);
                    }
                }
            }
            Self::Some(list) => {
                for candidate in list.iter_mut() {
                    if let Some(&x) = known.get(&candidate.id) {
                        change(&mut candidate.weight, x);
                    }
                }
            }
        }
    }
}

impl Sampler {
    /// A sampler for one reply. `params` must be valid.
    ///
    /// # Errors
    /// `invalid_request` when a parameter is out of range.
    pub fn new(mut params: SamplingParams, seed: u64) -> Result<Self> {
        params.validate()?;
        if let Some(allowed) = &mut params.allowed {
            allowed.sort_unstable();
        }
        let order = &mut params.samplers;
        let reweighs = |filter: &Filter| matches!(filter, Filter::Penalties | Filter::Dry);
        if params.temperature == 0.0 {
            order.retain(reweighs);
        } else if params.mirostat > 0 {
            *order = vec![Filter::Temperature];
        }
        let leading = order.iter().take_while(|filter| reweighs(filter)).count();
        Ok(Self {
            leading,
            rng: ChaCha8Rng::seed_from_u64(seed),
            counts: HashMap::new(),
            seen: Vec::new(),
            candidates: Candidates::default(),
            mu: 2.0 * params.mirostat_tau,
            params,
        })
    }

    /// Whether `observe` wants to know what breaks sequences.
    pub fn has_dry(&self) -> bool {
        self.params.has_dry()
    }

    /// The next token of prompt or reply is `id`; `breaks` says whether a sequence breaker of DRY ends in it.
    pub fn observe(&mut self, id: u32, breaks: bool) {
        let Self { params, counts, seen, .. } = self;
        let penalises = params.penalises();
        if params.has_dry() || (penalises && params.repeat_last_n.is_some()) {
            seen.push(Seen { id, breaks });
        }
        if !penalises {
            return;
        }
        *counts.entry(id).or_default() += 1;
        if let Some(past) = params.repeat_last_n.and_then(|n| seen.len().checked_sub(n + 1))
            && let Some(count) = counts.get_mut(&seen[past].id)
        {
            *count -= 1;
            if *count == 0 {
                counts.remove(&seen[past].id);
            }
        }
    }

    /// Choose a token from `logits` (one per vocabulary entry) that `accept` takes. It is for the caller to `observe` it.
    ///
    /// # Errors
    /// `internal` when no logit is finite: the model's arithmetic broke; `invalid_request` when nothing may be chosen.
    pub fn sample(&mut self, logits: &mut [f32], accept: &mut dyn FnMut(u32) -> bool) -> Result<u32> {
        let some = logits.iter().any(|logit| logit.is_finite());
        self.bias(logits);
        self.penalise(logits);
        for refused in 1.. {
            let Some((id, probability)) = self.choose(logits) else { break };
            if accept(id) {
                let SamplingParams { mirostat_tau: tau, mirostat_eta: eta, .. } = self.params;
                self.mu -= eta * (-probability.log2() - tau);
                return Ok(id);
            }
            logits[id as usize] = f32::NEG_INFINITY;
            // Where one after another is refused, each at the price of all filters, all are asked about at once.
            if refused == MAX_REFUSED {
                let wrong = (0u32..).zip(&mut *logits).filter(|(id, logit)| logit.is_finite() && !accept(*id));
                wrong.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
            }
        }
        Err(if some {
            Error::invalid_request("expected at least one token that may be chosen, got none")
        } else {
            Error::internal("expected at least one finite logit, got none")
        })
    }

    fn bias(&self, logits: &mut [f32]) {
        let SamplingParams { logit_bias, allowed, banned, .. } = &self.params;
        for &(id, bias) in logit_bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit += bias;
            }
        }
        if let Some(allowed) = allowed {
            let others = (0u32..).zip(&mut *logits).filter(|(id, _)| allowed.binary_search(id).is_err());
            others.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        }
        for &id in banned {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// What the order has before anything that needs a list.
    fn penalise(&self, logits: &mut [f32]) {
        for &filter in &self.params.samplers[..self.leading] {
            self.reweigh(filter, &mut Weights::All(logits));
        }
    }

    /// Apply penalties or DRY to the tokens that they know.
    fn reweigh(&self, filter: Filter, weights: &mut Weights<'_>) {
        let p = &self.params;
        if filter == Filter::Penalties {
            weights.change(&self.counts, |weight, count| {
                // Keskar et al. 2019, and for negative logits the other way round.
                *weight *= if *weight > 0.0 { 1.0 / p.repeat_penalty } else { p.repeat_penalty };
                *weight -= count as f32 * p.frequency_penalty + p.presence_penalty;
            });
        } else if p.has_dry() {
            let window = p.dry_penalty_last_n.unwrap_or(usize::MAX).min(self.seen.len());
            let seen = &self.seen[self.seen.len() - window..];
            weights.change(&dry::repetitions(seen, p.dry_allowed_length), |weight, length| {
                *weight -= dry::penalty(p.dry_multiplier, p.dry_base, length, p.dry_allowed_length);
            });
        }
    }

    /// A token and its probability among those that the filters left.
    fn choose(&mut self, logits: &[f32]) -> Option<(u32, f32)> {
        if self.params.temperature == 0.0 {
            return argmax(logits).map(|id| (id, 1.0));
        }
        self.narrow(logits);
        let mut coin = self.coin();
        let probabilities = self.candidates.softmax();
        let chosen = probabilities.iter().position(|p| {
            coin -= p;
            coin < 0.0
        });
        // Rounding can leave a crumb of the coin behind the last candidate.
        let chosen = chosen.unwrap_or(probabilities.len().wrapping_sub(1));
        self.candidates.sorted().get(chosen).map(|c| (c.id, probabilities[chosen]))
    }

    /// Make candidates of what the filters leave.
    fn narrow(&mut self, logits: &[f32]) {
        self.candidates.fill(logits);
        for at in self.leading..self.params.samplers.len() {
            self.apply(self.params.samplers[at]);
        }
        match self.params.mirostat {
            0 => {}
            1 => self.candidates.mirostat(self.mu, logits.len()),
            _ => self.candidates.mirostat_2(self.mu),
        }
    }

    fn apply(&mut self, filter: Filter) {
        let Self { params: p, candidates, .. } = self;
        match filter {
            Filter::Penalties | Filter::Dry => {
                let mut candidates = std::mem::take(candidates);
                self.reweigh(filter, &mut Weights::Some(candidates.unsorted()));
                self.candidates = candidates;
            }
            Filter::TopNSigma => candidates.top_n_sigma(p.top_n_sigma),
            Filter::TopK => candidates.top_k(p.top_k),
            Filter::TypicalP => candidates.typical(p.typical_p),
            Filter::TopP => candidates.top_p(p.top_p),
            Filter::MinP => candidates.min_p(p.min_p),
            Filter::Xtc => {
                let (probability, threshold) = (p.xtc_probability, p.xtc_threshold);
                // No coin is thrown for nothing: it would change what a seed says.
                if probability > 0.0 && threshold <= 0.5 && self.coin() < probability {
                    self.candidates.xtc(threshold);
                }
            }
            Filter::Temperature => candidates.temperature(p.temperature, p.dynatemp_range, p.dynatemp_exponent),
        }
    }

    /// 24 bits make an exact f32 in [0, 1).
    fn coin(&mut self) -> f32 {
        (self.rng.next_u32() >> 8) as f32 / (1 << 24) as f32
    }
}

/// The highest finite logit, the lowest id among equals.
fn argmax(logits: &[f32]) -> Option<u32> {
    let finite = logits.iter().enumerate().filter(|(_, logit)| logit.is_finite());
    finite.reduce(|best, x| if x.1 > best.1 { x } else { best }).map(|(id, _)| id as u32)
}

#[cfg(test)]
#[path = "sampler_test.rs"]
mod tests;
