//! The filters: each narrows or reweighs a list of candidates. Candidates carry logits; once sorted they stand in
//! falling order, ties by rising id, so that results never depend on how a sort happened to break them.

/// A token that may be chosen: its id and its logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub id: u32,
    pub weight: f32,
}

/// The tokens that may still be chosen.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
    sorted: bool,
}

/// Below this temperature, which is as good as greedy, quotients may be too large for a number.
const COLDEST: f32 = 1e-6;

fn order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

impl Candidates {
    /// All finite logits.
    pub fn fill(&mut self, logits: &[f32]) {
        self.list.clear();
        let finite = logits.iter().enumerate().filter(|(_, logit)| logit.is_finite());
        self.list.extend(finite.map(|(id, &weight)| Candidate { id: id as u32, weight }));
        self.sorted = false;
    }

    /// The candidates in order.
    pub fn sorted(&mut self) -> &[Candidate] {
        if !self.sorted {
            self.list.sort_unstable_by(order);
            self.sorted = true;
        }
        &self.list
    }

    /// The candidates for a change of weights that may change their order.
    pub fn unsorted(&mut self) -> &mut [Candidate] {
        self.sorted = false;
        &mut self.list
    }

    /// Probabilities in order.
    pub fn softmax(&mut self) -> Vec<f32> {
        let list = self.sorted();
        let max = list.first().map_or(0.0, |c| c.weight);
        let mut weights: Vec<f32> = list.iter().map(|c| (c.weight - max).exp()).collect();
        let sum: f32 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= sum);
        weights
    }

    /// Keep the `k` highest; 0 keeps all.
    pub fn top_k(&mut self, k: usize) {
        if k > 0 && k < self.list.len() {
            if !self.sorted {
                self.list.select_nth_unstable_by(k - 1, order);
            }
            self.list.truncate(k);
        }
    }

    /// Keep the smallest head whose probability mass reaches `p` (Holtzman et al. 2019).
    pub fn top_p(&mut self, p: f32) {
        if p >= 1.0 {
            return;
        }
        let mut mass = 0.0;
        let last = self.softmax().iter().position(|x| {
            mass += x;
            mass >= p
        });
        self.list.truncate(last.map_or(self.list.len(), |last| last + 1));
    }

    /// Keep those whose probability is at least `p` times the highest (Nguyen et al. 2024).
    ///
    /// In logits: `l >= l_max + ln p`, so no softmax is needed.
    pub fn min_p(&mut self, p: f32) {
        if p > 0.0
            && let Some(first) = self.sorted().first()
        {
            let threshold = first.weight + p.ln();
            let keep = self.list.partition_point(|c| c.weight >= threshold);
            self.list.truncate(keep.max(1));
        }
    }

    /// Keep those whose surprise is nearest to the entropy, until their probability mass exceeds `p` (Meister et al.
    /// 2022).
    pub fn typical(&mut self, p: f32) {
        if p >= 1.0 {
            return;
        }
        let probabilities = self.softmax();
        let entropy = entropy(&probabilities);
        let mut nearest: Vec<(f32, usize)> =
            probabilities.iter().enumerate().map(|(i, p)| ((-p.ln() - entropy).abs(), i)).collect();
        nearest.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut mass = 0.0;
        let last = nearest.iter().position(|&(_, i)| {
            mass += probabilities[i];
            mass > p
        });
        nearest.truncate(last.map_or(nearest.len(), |last| last + 1));
        let mut keep: Vec<usize> = nearest.iter().map(|&(_, i)| i).collect();
        keep.sort_unstable();
        self.list = keep.iter().map(|&i| self.list[i]).collect();
    }

    /// Keep logits within `n` standard deviations of the highest (Tang et al. 2024).
    pub fn top_n_sigma(&mut self, n: f32) {
        if n <= 0.0 || self.list.len() < 2 {
            return;
        }
        let weights = || self.list.iter().map(|c| c.weight);
        let count = self.list.len() as f32;
        let mean = weights().sum::<f32>() / count;
        let sigma = (weights().map(|w| (w - mean) * (w - mean)).sum::<f32>() / count).sqrt();
        let threshold = weights().fold(f32::NEG_INFINITY, f32::max) - n * sigma;
        // Logits near the largest number have no deviation that is one.
        if threshold.is_finite() {
            self.list.retain(|c| c.weight >= threshold);
        }
    }

    /// Drop all but the last of those whose probability is at least `threshold` (Exclude Top Choices).
    pub fn xtc(&mut self, threshold: f32) {
        let probable = self.softmax().iter().take_while(|p| **p >= threshold).count();
        self.list.drain(..probable.saturating_sub(1));
    }

    /// Divide by the temperature. With a `range` it varies around that one: between both ends as the entropy to the
    /// power of `exponent` is between none and the most that so many candidates can have.
    pub fn temperature(&mut self, temperature: f32, range: f32, exponent: f32) {
        let mut temperature = temperature;
        if range > 0.0 && self.list.len() > 1 {
            let low = (temperature - range).max(0.0);
            let share = entropy(&self.softmax()) / (self.list.len() as f32).ln();
            temperature = low + (temperature + range - low) * share.powf(exponent);
        }
        if temperature >= COLDEST {
            self.list.iter_mut().for_each(|c| c.weight /= temperature);
        } else {
            self.sorted();
            self.list.truncate(1);
        }
    }

    /// Mirostat 1 (Basu et al. 2021): the top k that should have the surprise `mu`, by Zipf's law with an exponent
    /// estimated from the most probable ones.
    pub fn mirostat(&mut self, mu: f32, n_vocab: usize) {
        /// How many of the most probable ones the estimate looks at.
        const LOOKED_AT: usize = 100;
        let (mut t_b, mut t_t) = (0.0, 0.0);
        for (i, pair) in self.sorted().windows(2).take(LOOKED_AT - 1).enumerate() {
            let t = ((i + 2) as f32 / (i + 1) as f32).ln();
            t_b += t * (pair[0].weight - pair[1].weight);
            t_t += t * t;
        }
        let s = t_b / t_t;
        let epsilon = s - 1.0;
        let k = (epsilon * mu.exp2() / (1.0 - (n_vocab as f32).powf(-epsilon))).powf(1.0 / s);
        // What is no number becomes 0, what is too large the largest.
        self.top_k((k as usize).max(1));
    }

    /// Mirostat 2: those that surprise by at most `mu` bits.
    pub fn mirostat_2(&mut self, mu: f32) {
        let keep = self.softmax().iter().take_while(|p| -p.log2() <= mu).count();
        self.list.truncate(keep.max(1));
    }
}

/// In nats.
fn entropy(probabilities: &[f32]) -> f32 {
    probabilities.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(list: &[(u32, f32)]) -> Candidates {
        let list = list.iter().map(|&(id, weight)| Candidate { id, weight }).collect();
        Candidates { list, sorted: false }
    }

    /// Candidates with the probabilities 0.5, 0.25, 0.15, 0.1 (as logits), shuffled.
    fn four() -> Candidates {
        candidates(&[(7, 0.15f32.ln()), (3, 0.5f32.ln()), (9, 0.1f32.ln()), (1, 0.25f32.ln())])
    }

    #[track_caller]
    fn check(filter: impl Fn(&mut Candidates), ids: &[u32]) {
        let mut kept = four();
        filter(&mut kept);
        assert_eq!(kept.sorted().iter().map(|c| c.id).collect::<Vec<_>>(), ids);
    }

    #[test]
    fn top_k_keeps_the_highest_in_order() {
        for (k, want) in [(0, vec![3, 1, 7, 9]), (1, vec![3]), (3, vec![3, 1, 7]), (99, vec![3, 1, 7, 9])] {
            check(|c| c.top_k(k), &want);
        }
    }

    #[test]
    fn equal_logits_stand_by_rising_id() {
        let mut c = candidates(&[(5, 1.0), (2, 1.0), (8, 1.0)]);
        c.top_k(2);
        assert_eq!(c.sorted().iter().map(|c| c.id).collect::<Vec<_>>(), [2, 5]);
    }

    #[test]
    fn top_p_keeps_the_token_that_crosses_the_line() {
        for (p, want) in [(0.01, 1), (0.49, 1), (0.51, 2), (0.76, 3), (0.95, 4), (1.0, 4)] {
            check(|c| c.top_p(p), &[3, 1, 7, 9][..want]);
        }
    }

    #[test]
    fn min_p_is_relative_to_the_highest() {
        for (p, want) in [(0.0, 4), (0.19, 4), (0.21, 3), (0.31, 2), (0.51, 1), (1.0, 1)] {
            check(|c| c.min_p(p), &[3, 1, 7, 9][..want]);
        }
    }

    #[test]
    fn typical_begins_at_the_entropy() {
        // The entropy is 1.208 nats; the surprises 0.693, 1.386, 1.897, 2.303 are 0.515, 0.178, 0.689, 1.094 away.
        for (p, want) in [(0.2, vec![1]), (0.3, vec![3, 1]), (0.7, vec![3, 1]), (0.8, vec![3, 1, 7])] {
            check(|c| c.typical(p), &want);
        }
        check(|c| c.typical(1.0), &[3, 1, 7, 9]);
    }

    #[test]
    fn top_n_sigma_counts_standard_deviations_of_logits() {
        // Mean 2, population deviation sqrt(2.5): the threshold is 4 - n * 1.5811.
        let kept = |n| {
            let mut c = candidates(&[(0, 0.0), (1, 1.0), (2, 3.0), (3, 4.0)]);
            c.top_n_sigma(n);
            c.list.len()
        };
        assert_eq!([0.0, 0.5, 0.7, 1.8, 1.95, 2.6].map(kept), [4, 1, 2, 2, 3, 4]);
    }

    #[test]
    fn xtc_drops_all_but_the_last_probable_one() {
        for (threshold, want) in [(0.3, vec![3, 1, 7, 9]), (0.2, vec![1, 7, 9]), (0.12, vec![7, 9]), (0.0, vec![9])] {
            check(|c| c.xtc(threshold), &want);
        }
    }

    #[test]
    fn the_dynamic_temperature_is_low_for_the_certain_and_high_for_the_uncertain() {
        // Equal logits have the highest entropy there is: 1 + 0.5.
        let mut c = candidates(&[(0, 3.0), (1, 3.0)]);
        c.temperature(1.0, 0.5, 1.0);
        assert_eq!(c.list[0].weight, 2.0);
        // Probabilities 0.8 and 0.2: entropy 0.5004 of 0.6931, so 0.5 + 1 * 0.7219 ^ 2 = 1.0212.
        let mut c = candidates(&[(0, 4f32.ln()), (1, 0.0)]);
        c.temperature(1.0, 0.5, 2.0);
        assert!((c.list[0].weight - 4f32.ln() / 1.0212).abs() < 1e-4, "{c:?}");
        let mut c = candidates(&[(0, 1.0), (1, 2.0)]);
        c.temperature(1e-40, 0.0, 1.0);
        assert_eq!((c.list.len(), c.list[0].id), (1, 1));
        // Nothing to choose from leaves the temperature alone; a temperature of nothing leaves one.
        let mut c = candidates(&[(0, 3.0)]);
        c.temperature(2.0, 0.5, 1.0);
        assert_eq!(c.list[0].weight, 1.5);
        let mut c = candidates(&[(0, 0.0), (1, 1000.0)]);
        c.temperature(0.5, 1.0, 1.0);
        assert_eq!((c.list.len(), c.list[0].id), (1, 1));
    }

    #[test]
    fn mirostat_2_keeps_what_surprises_little_enough() {
        // Surprises in bits: 1, 2, 2.74, 3.32.
        for (mu, want) in [(0.5, 1), (1.1, 1), (2.1, 2), (3.0, 3), (4.0, 4)] {
            check(|c| c.mirostat_2(mu), &[3, 1, 7, 9][..want]);
        }
    }

    #[test]
    fn mirostat_keeps_some_where_its_estimate_is_no_number() {
        for (list, mu, want) in [(&[][..], 10.0, 0), (&[1.0], 10.0, 1), (&[1.0, 1.0], 10.0, 2), (&[1.0, 1.0], -1.0, 1)]
        {
            let list: Vec<_> = (0..).zip(list.iter().copied()).collect();
            let mut c = candidates(&list);
            c.mirostat(mu, 4);
            assert_eq!(c.list.len(), want, "{list:?} {mu}");
        }
    }
}
