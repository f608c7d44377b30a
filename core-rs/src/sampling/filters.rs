//! The filters: each narrows or reweighs a list of candidates. Candidates carry logits until `softmax` turns them
//! into probabilities; after `sort` they stand in falling order, ties by rising id, so that results never depend on
//! how a sort happened to break them.

/// A token that may be chosen: its id and its logit (or probability after `softmax`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub id: u32,
    pub weight: f32,
}

fn order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

/// Keep the `k` highest, sorted; 0 keeps (and sorts) all.
pub(super) fn top_k(candidates: &mut Vec<Candidate>, k: usize) {
    if k > 0 && k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, order);
        candidates.truncate(k);
    }
    candidates.sort_unstable_by(order);
}

/// Keep the smallest head of a sorted list whose probability mass reaches `p` (Holtzman et al. 2019).
pub(super) fn top_p(candidates: &mut Vec<Candidate>, p: f32) {
    if p >= 1.0 {
        return;
    }
    let mut mass = 0.0;
    let probabilities = softmax(candidates);
    let keep = probabilities.iter().position(|x| {
        mass += x;
        mass >= p
    });
    candidates.truncate(keep.map_or(candidates.len(), |last| last + 1));
}

/// Keep those of a sorted list whose probability is at least `p` times the highest (Nguyen et al. 2024).
///
/// In logits: `l >= l_max + ln p`, so no softmax is needed.
pub(super) fn min_p(candidates: &mut Vec<Candidate>, p: f32) {
    if let (true, Some(first)) = (p > 0.0, candidates.first()) {
        let threshold = first.weight + p.ln();
        let keep = candidates.partition_point(|c| c.weight >= threshold);
        candidates.truncate(keep.max(1));
    }
}

/// Probabilities of a sorted list of logits.
pub(super) fn softmax(candidates: &[Candidate]) -> Vec<f32> {
    let max = candidates.first().map_or(0.0, |c| c.weight);
    let mut weights: Vec<f32> = candidates.iter().map(|c| (c.weight - max).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Candidates with the probabilities 0.5, 0.25, 0.15, 0.1 (as logits), shuffled.
    fn four() -> Vec<Candidate> {
        [(7, 0.15f32), (3, 0.5), (9, 0.1), (1, 0.25)].map(|(id, p)| Candidate { id, weight: p.ln() }).to_vec()
    }

    fn ids(candidates: &[Candidate]) -> Vec<u32> {
        candidates.iter().map(|c| c.id).collect()
    }

    #[test]
    fn top_k_keeps_the_highest_in_order() {
        for (k, want) in [(0, vec![3, 1, 7, 9]), (1, vec![3]), (3, vec![3, 1, 7]), (99, vec![3, 1, 7, 9])] {
            let mut c = four();
            top_k(&mut c, k);
            assert_eq!(ids(&c), want, "k = {k}");
        }
    }

    #[test]
    fn equal_logits_stand_by_rising_id() {
        let mut c: Vec<_> = [5, 2, 8].map(|id| Candidate { id, weight: 1.0 }).to_vec();
        top_k(&mut c, 2);
        assert_eq!(ids(&c), [2, 5]);
    }

    #[test]
    fn top_p_keeps_the_token_that_crosses_the_line() {
        for (p, want) in [(0.01, 1), (0.49, 1), (0.51, 2), (0.76, 3), (0.95, 4), (1.0, 4)] {
            let mut c = four();
            top_k(&mut c, 0);
            top_p(&mut c, p);
            assert_eq!(c.len(), want, "p = {p}");
        }
    }

    #[test]
    fn min_p_is_relative_to_the_highest() {
        for (p, want) in [(0.0, 4), (0.19, 4), (0.21, 3), (0.31, 2), (0.51, 1), (1.0, 1)] {
            let mut c = four();
            top_k(&mut c, 0);
            min_p(&mut c, p);
            assert_eq!(c.len(), want, "p = {p}");
        }
    }
}
