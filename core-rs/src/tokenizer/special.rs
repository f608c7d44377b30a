//! Finding special tokens in text: the longest special anywhere in a part is taken first, then the next longest in what
//! is left, as llama.cpp does. That is not leftmost-longest: of two that overlap, the longer wins even if it starts later.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

/// A byte trie of special texts.
#[derive(Debug, Default)]
pub(super) struct Specials {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<u8, usize>,
    id: Option<u32>,
}

impl Specials {
    /// A trie of the texts that are not empty.
    pub fn new<'a>(texts: impl Iterator<Item = (u32, &'a str)>) -> Self {
        let mut specials = Self { nodes: vec![Node::default()] };
        for (id, text) in texts.filter(|(_, text)| !text.is_empty()) {
            specials.insert(id, text);
        }
        specials
    }

    /// The specials in `text`, apart from each other and in order.
    pub fn find(&self, text: &str) -> Vec<(Range<usize>, u32)> {
        let mut hits: Vec<_> = (0..text.len()).flat_map(|at| self.at(text.as_bytes(), at)).collect();
        hits.sort_by_key(|(range, id)| (Reverse(range.len()), *id, range.start));
        let mut taken: BTreeMap<usize, (usize, u32)> = BTreeMap::new();
        for (range, id) in hits {
            let before = taken.range(..range.end).next_back();
            if before.is_none_or(|(_, &(end, _))| end <= range.start) {
                taken.insert(range.start, (range.end, id));
            }
        }
        taken.into_iter().map(|(start, (end, id))| (start..end, id)).collect()
    }

    fn insert(&mut self, id: u32, text: &str) {
        let mut node = 0;
        for byte in text.bytes() {
            let new = self.nodes.len();
            node = *self.nodes[node].children.entry(byte).or_insert(new);
            if node == new {
                self.nodes.push(Node::default());
            }
        }
        self.nodes[node].id = Some(id);
    }

    /// All specials that begin at byte `at`.
    fn at<'a>(&'a self, text: &'a [u8], at: usize) -> impl Iterator<Item = (Range<usize>, u32)> + 'a {
        let mut node = &self.nodes[0];
        text[at..]
            .iter()
            .map_while(move |byte| {
                node = &self.nodes[*node.children.get(byte)?];
                Some(node.id)
            })
            .enumerate()
            .filter_map(move |(i, id)| Some((at..at + i + 1, id?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, u32)]) {
        let specials = Specials::new((0..).zip(["<s>", "<s><s>", "", "s>x", "éa", "<long>", "g>!!!!!!"]));
        let found: Vec<_> = specials.find(text).into_iter().map(|(range, id)| (&text[range], id)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_longest_wins_and_the_rest_is_searched_again() {
        check("", &[]);
        check("<s", &[]);
        check("a<s>b", &[("<s>", 0)]);
        check("<s><s><s>", &[("<s><s>", 1), ("<s>", 0)]);
        check("<s>x", &[("<s>", 0)]);
        check("<long>!!!!!!", &[("g>!!!!!!", 6)]);
        check("ééaé", &[("éa", 4)]);
    }
}
