//! The merging engine of both vocabulary kinds: join the best neighbouring pair until none is left.
//!
//! A word of n symbols takes O(n log n): a linked list of symbols, and a heap of candidate pairs whose outdated entries
//! are skipped when they surface. Absent: what makes a pair good; the caller's `lookup` says so.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Longest word in bytes that is merged in one go; longer ones are cut between characters. It bounds the memory of a
/// merge (about 44 bytes a symbol) and keeps it near the cache: 10 MB of one letter take about 4 s. Words of real texts
/// are far shorter; where a script has no spaces, SentencePiece words of some 80,000 characters still stay whole.
pub const MAX_WORD_LEN: usize = 1 << 18;

/// No neighbour on this side.
const NONE: u32 = u32::MAX;

/// A run of bytes that is, or will become, one token.
#[derive(Debug, Clone, Copy)]
pub struct Symbol {
    /// First byte in the word.
    pub start: u32,
    /// Bytes; zero once it has been joined to its left neighbour.
    pub len: u32,
    /// The token this run spells, if any.
    pub id: Option<u32>,
    prev: u32,
    next: u32,
}

impl Symbol {
    /// The bytes of the word this symbol and its right neighbour `right` cover.
    pub fn joined(&self, right: &Self) -> std::ops::Range<usize> {
        self.start as usize..(right.start + right.len) as usize
    }

    /// The bytes of the word this symbol covers.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.joined(self)
    }
}

/// What joining a pair would give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merge {
    /// Smaller is joined sooner; equal ones from left to right.
    pub rank: u32,
    /// The token of the joined run.
    pub id: u32,
}

/// A pair in the heap, ordered by rank, then position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: u32,
    right: u32,
    /// Bytes of both when the pair was seen: a different sum now means it is outdated.
    len: u32,
    id: u32,
}

/// Reusable buffers of one word's merge.
#[derive(Debug, Default)]
pub struct Merger {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Forgets the last word.
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.heap.clear();
    }

    /// Appends a symbol of `len` bytes to the word. Words stay within `MAX_WORD_LEN`, so positions fit 32 bits.
    pub fn push(&mut self, len: usize, id: Option<u32>) {
        let at = self.symbols.len() as u32;
        let start = self.symbols.last_mut().map_or(0, |last| {
            last.next = at;
            last.start + last.len
        });
        self.symbols.push(Symbol { start, len: len as u32, id, prev: at.wrapping_sub(1), next: NONE });
    }

    /// Joins pairs for which `lookup` knows a merge, best first.
    pub fn run(&mut self, mut lookup: impl FnMut(&Symbol, &Symbol) -> Option<Merge>) {
        for right in 1..self.symbols.len() as u32 {
            self.offer(right - 1, right, &mut lookup);
        }
        while let Some(Reverse(pair)) = self.heap.pop() {
            if self.is_current(&pair) {
                let (prev, next) = self.join(&pair);
                self.offer(prev, pair.left, &mut lookup);
                self.offer(pair.left, next, &mut lookup);
            }
        }
    }

    /// The symbols that are left, in order.
    pub fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|s| s.len > 0)
    }

    /// Runs only grow, so a pair is as it was when both still live and their lengths add up to the same.
    fn is_current(&self, pair: &Candidate) -> bool {
        let (left, right) = (&self.symbols[pair.left as usize], &self.symbols[pair.right as usize]);
        left.len > 0 && right.len > 0 && left.len + right.len == pair.len
    }

    fn offer(&mut self, left: u32, right: u32, lookup: &mut impl FnMut(&Symbol, &Symbol) -> Option<Merge>) {
        if left == NONE || right == NONE {
            return;
        }
        let (l, r) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some(Merge { rank, id }) = lookup(l, r) {
            self.heap.push(Reverse(Candidate { rank, left, right, len: l.len + r.len, id }));
        }
    }

    /// Gives the bytes of the right symbol to the left one; returns the neighbours of the joined symbol.
    fn join(&mut self, pair: &Candidate) -> (u32, u32) {
        let right = &mut self.symbols[pair.right as usize];
        let next = right.next;
        right.len = 0;
        let left = &mut self.symbols[pair.left as usize];
        (left.len, left.id, left.next) = (pair.len, Some(pair.id), next);
        let prev = left.prev;
        if next != NONE {
            self.symbols[next as usize].prev = pair.left;
        }
        (prev, next)
    }
}

/// `text` in pieces of at most `max` bytes (four or more), cut between characters.
pub fn chunks(text: &str, max: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (chunk, tail) = rest.split_at(rest.floor_char_boundary(max));
        rest = tail;
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Joined runs and their ranks.
    const RANKS: [(&str, u32); 6] = [("ab", 2), ("bc", 1), ("abc", 4), ("aa", 3), ("aaaa", 0), ("ca", 2)];

    fn rank(text: &str) -> Option<Merge> {
        RANKS.iter().find(|(t, _)| *t == text).map(|&(_, rank)| Merge { rank, id: rank })
    }

    fn merged(word: &str) -> Vec<&str> {
        let mut merger = Merger::default();
        word.bytes().for_each(|_| merger.push(1, None));
        merger.run(|l, r| rank(&word[l.joined(r)]));
        merger.symbols().map(|s| &word[s.range()]).collect()
    }

    /// The definition: join the best pair of all, leftmost first, until there is none.
    fn naive(word: &str) -> Vec<String> {
        let mut parts: Vec<String> = word.chars().map(String::from).collect();
        while let Some((_, i)) =
            (1..parts.len()).filter_map(|i| Some((rank(&(parts[i - 1].clone() + &parts[i]))?.rank, i))).min()
        {
            let right = parts.remove(i);
            parts[i - 1].push_str(&right);
        }
        parts
    }

    #[test]
    fn the_best_pair_goes_first_and_ties_go_left() {
        assert_eq!(merged("aab"), ["a", "ab"]);
        assert_eq!(merged("abc"), ["abc"]);
        assert_eq!(merged("aaa"), ["aa", "a"]);
        assert_eq!(merged("aaaaa"), ["aaaa", "a"]);
        assert_eq!(merged(""), [""; 0]);
    }

    #[test]
    fn chunks_cut_between_characters() {
        assert_eq!(chunks("aééb", 4).collect::<Vec<_>>(), ["aé", "éb"]);
        assert_eq!(chunks("", 4).count(), 0);
        assert_eq!(chunks("🦙🦙", 5).collect::<Vec<_>>(), ["🦙", "🦙"]);
    }

    proptest! {
        #[test]
        fn the_heap_agrees_with_the_definition(word in "[abc]{0,24}") {
            prop_assert_eq!(merged(&word), naive(&word));
        }
    }
}
