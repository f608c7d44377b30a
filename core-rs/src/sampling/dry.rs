//! DRY, "don't repeat yourself": what would go on a sequence that stood there before is made less likely, the more so the
//! longer the sequence. After llama.cpp's sampler of that name; the idea is p-e-w's.

use std::collections::HashMap;

/// A token that was seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub id: u32,
    /// Whether a sequence breaker ends in it.
    pub breaks: bool,
}

/// For each token that would go on a repetition of what `seen` ends with: the most tokens that it would go on. A
/// repetition does not reach back to a token that breaks, and such a token is never held against anyone.
pub(super) fn repetitions(seen: &[Seen], allowed_length: usize) -> HashMap<u32, u32> {
    let mut longest = HashMap::new();
    let limit = seen.iter().rev().position(|token| token.breaks).unwrap_or(seen.len());
    if seen.len() <= allowed_length || limit < allowed_length {
        return longest;
    }
    let back = |i: usize| seen[seen.len() - 1 - i];
    for (at, length) in common_ends(seen).into_iter().enumerate().skip(1) {
        let (next, length) = (back(at - 1), length.min(limit));
        if length >= allowed_length && !next.breaks {
            let most: &mut u32 = longest.entry(next.id).or_default();
            *most = (*most).max(length as u32);
        }
    }
    longest
}

/// For each `i`: how many tokens before the last `i` equal those at the end (the Z-algorithm, backwards; linear).
fn common_ends(seen: &[Seen]) -> Vec<usize> {
    let n = seen.len();
    let back = |i: usize| seen[n - 1 - i].id;
    let mut ends = vec![0; n];
    // The match that reaches furthest, from `left` up to but without `right`.
    let (mut left, mut right) = (0, 0);
    for i in 1..n {
        let mut length = if i < right { ends[i - left].min(right - i) } else { 0 };
        while i + length < n && back(length) == back(i + length) {
            length += 1;
        }
        if i + length > right {
            (left, right) = (i, i + length);
        }
        ends[i] = length;
    }
    ends
}

/// What is subtracted from the logit of a token that would go on `length` repeated tokens.
pub(super) fn penalty(multiplier: f32, base: f32, length: u32, allowed_length: usize) -> f32 {
    // Exponents stop where f32 does.
    let most = if base > 1.000_001 { (f32::MAX.ln() / base.ln()) as u32 } else { u32::MAX };
    let exponent = (length - allowed_length as u32).min(most);
    multiplier * base.powf(exponent as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters are tokens; a dot breaks.
    fn check(text: &str, allowed_length: usize, want: &[(char, u32)]) {
        let seen: Vec<Seen> = text.bytes().map(|b| Seen { id: b.into(), breaks: b == b'.' }).collect();
        let mut got: Vec<_> = repetitions(&seen, allowed_length).into_iter().collect();
        got.sort_unstable();
        assert_eq!(got, want.iter().map(|&(c, n)| (c as u32, n)).collect::<Vec<_>>(), "{text}");
    }

    #[test]
    fn finds_what_would_go_on_a_repetition() {
        // The last three stood before the second c, the last one before b, the last two before y.
        check("abccbcyabc", 1, &[('b', 1), ('c', 3), ('y', 2)]);
        check("abccbcyabc", 2, &[('c', 3), ('y', 2)]);
        check("abccbcyabc", 4, &[]);
        check("aaaa", 2, &[('a', 3)]);
        check("ab", 2, &[]);
        check("", 0, &[]);
    }

    #[test]
    fn a_breaker_ends_repetitions_and_is_free() {
        check("xyab.zxyab", 2, &[]);
        check("abc.abc", 2, &[]);
        check("ab.cxab.c", 1, &[('x', 1)]);
        check("pab qpab", 2, &[(' ', 3)]);
        check("p.b qp.b", 1, &[(' ', 1)]);
        check("p.b qp.b", 2, &[]);
    }

    #[test]
    fn the_penalty_grows_with_the_length_and_ends_at_the_largest_number() {
        assert_eq!(penalty(0.8, 1.75, 2, 2), 0.8);
        assert_eq!(penalty(2.0, 1.5, 5, 2), 6.75);
        assert_eq!(penalty(2.0, 1.0, 5000, 2), 2.0);
        assert!(penalty(1.0, 10.0, 5000, 2).is_finite());
    }
}
