//! Finding special tokens in text: the longest special anywhere in a part is taken first, then the next longest in
//! what is left, as llama.cpp does. That is not leftmost-longest: of two that overlap, the longer wins even if it
//! comes later.
//!
//! Memory stays proportional to text and specials, whatever they are: of all specials that begin at one byte only the
//! longest is held, and a shorter one is looked for when that one turns out to be blocked.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;

/// The special texts of a vocabulary, sorted by their bytes.
#[derive(Debug)]
pub(super) struct Specials {
    sorted: Vec<(Box<str>, u32)>,
    /// Whether a special begins with this byte.
    is_first: [bool; 256],
}

impl Specials {
    /// Holds the texts that are not empty.
    pub fn new<'a>(texts: impl Iterator<Item = (u32, &'a str)>) -> Self {
        let mut sorted: Vec<(Box<str>, u32)> =
            texts.filter(|(_, text)| !text.is_empty()).map(|(id, text)| (text.into(), id)).collect();
        sorted.sort();
        let mut is_first = [false; 256];
        sorted.iter().for_each(|(text, _)| is_first[usize::from(text.as_bytes()[0])] = true);
        Self { sorted, is_first }
    }

    /// Ids and texts, sorted by text.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        self.sorted.iter().map(|(text, id)| (*id, &**text))
    }

    /// The specials in `text`, apart from each other and in order.
    pub fn find(&self, text: &str) -> Vec<(Range<usize>, u32)> {
        let bytes = text.as_bytes();
        // Longest first; of equal length the lower id, then the one further left.
        let hit = |at: usize, max: usize| {
            let (len, id) = self.longest(&bytes[at..], max)?;
            Some((len, Reverse(id), Reverse(at)))
        };
        let starts = (0..bytes.len()).filter(|&at| self.is_first[usize::from(bytes[at])]);
        let mut heap: BinaryHeap<_> = starts.filter_map(|at| hit(at, usize::MAX)).collect();
        let mut taken: BTreeMap<usize, (usize, u32)> = BTreeMap::new();
        while let Some((len, Reverse(id), Reverse(at))) = heap.pop() {
            match taken.range(..at + len).next_back() {
                Some((&start, &(end, _))) if end > at => {
                    // A shorter one may fit before `start`; if this byte is taken itself, none does.
                    heap.extend(start.checked_sub(at).filter(|&room| room > 0).and_then(|room| hit(at, room)));
                }
                _ => {
                    taken.insert(at, (at + len, id));
                }
            }
        }
        taken.into_iter().map(|(start, (end, id))| (start..end, id)).collect()
    }

    /// The longest special, of at most `max` bytes, that `text` begins with.
    fn longest(&self, text: &[u8], max: usize) -> Option<(usize, u32)> {
        let mut range = &self.sorted[..];
        let mut found = None;
        for (depth, byte) in text.iter().take(max).enumerate() {
            // All in `range` begin with the `depth` bytes before; a special that ends there sorts first, as none.
            let low = range.partition_point(|(t, _)| t.as_bytes().get(depth) < Some(byte));
            let high = range.partition_point(|(t, _)| t.as_bytes().get(depth) <= Some(byte));
            range = &range[low..high];
            let Some((first, id)) = range.first() else { break };
            if first.len() == depth + 1 {
                found = Some((first.len(), *id));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXTS: [&str; 9] = ["<s>", "<s><s>", "", "s>x", "éa", "<long>", "g>!!!!!!", "<", "<lo"];

    fn found(text: &str) -> Vec<(&str, u32)> {
        let specials = Specials::new((0..).zip(TEXTS));
        specials.find(text).into_iter().map(|(range, id)| (&text[range], id)).collect()
    }

    /// A stretch of text, and the special it is.
    type Fragment<'t> = (&'t str, Option<u32>);

    /// What is left and right of the first `special` in `text`, and itself.
    fn split<'t>((text, taken): Fragment<'t>, id: u32, special: &str) -> Vec<Fragment<'t>> {
        let Some(at) = text.find(special).filter(|_| taken.is_none()) else { return vec![(text, taken)] };
        let (left, rest) = text.split_at(at);
        let (middle, right) = rest.split_at(special.len());
        vec![(left, None), (middle, Some(id)), (right, None)]
    }

    /// The definition: for each special, longest first, every occurrence in what is left, from the left.
    fn naive(text: &str) -> Vec<(&str, u32)> {
        let mut specials: Vec<_> = (0..).zip(TEXTS).filter(|(_, t)| !t.is_empty()).collect();
        specials.sort_by_key(|(id, t)| (Reverse(t.len()), *id));
        let mut fragments = vec![(text, None)];
        for (id, special) in specials {
            let mut len = 0;
            while len != fragments.len() {
                len = fragments.len();
                fragments = fragments.into_iter().flat_map(|f| split(f, id, special)).collect();
            }
        }
        fragments.into_iter().filter_map(|(text, id)| Some((text, id?))).collect()
    }

    #[test]
    fn the_longest_wins_and_the_rest_is_searched_again() {
        let check = |text, expected: &[(&str, u32)]| assert_eq!(found(text), expected);
        check("", &[]);
        check("s", &[]);
        check("a<s>b", &[("<s>", 0)]);
        check("<s><s><s>", &[("<s><s>", 1), ("<s>", 0)]);
        check("<s>x", &[("<s>", 0)]);
        check("ééaé", &[("éa", 4)]);
        check("<long>!!!!!!", &[("<lo", 8), ("g>!!!!!!", 6)]);
    }

    proptest! {
        #[test]
        fn the_heap_agrees_with_the_definition(text in "(<|s|>|<s>|x|éa|é|<lo|<long|g>!!!!!!|!){0,16}") {
            prop_assert_eq!(found(&text), naive(&text));
        }
    }
}
