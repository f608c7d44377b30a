//! Pieces found by the text that begins with them.

/// No piece ends here.
const NONE: u32 = u32::MAX;

/// One byte of one or more pieces. The children of a node stand side by side, in the order of their bytes.
#[derive(Debug)]
struct Node {
    byte: u8,
    /// The piece that ends with this byte.
    id: u32,
    first_child: u32,
    n_children: u16,
}

/// A set of pieces, as a tree of their bytes.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
}

impl Trie {
    /// Holds `pieces`, which differ from each other and are not empty.
    pub fn new<'a>(pieces: impl Iterator<Item = (u32, &'a str)>) -> Self {
        let mut sorted: Vec<_> = pieces.map(|(id, piece)| (piece.as_bytes(), id)).collect();
        sorted.sort_unstable();
        let mut nodes = vec![Node { byte: 0, id: NONE, first_child: 0, n_children: 0 }];
        // Node by node, the pieces that have its bytes in front; there are `depth` of these.
        let mut rows = vec![(&sorted[..], 0)];
        let mut at = 0;
        while let Some(&(mut row, depth)) = rows.get(at) {
            if let Some(((_, id), rest)) = row.split_first().filter(|((piece, _), _)| piece.len() == depth) {
                (nodes[at].id, row) = (*id, rest);
            }
            nodes[at].first_child = nodes.len() as u32;
            for children in row.chunk_by(|a, b| a.0[depth] == b.0[depth]) {
                nodes.push(Node { byte: children[0].0[depth], id: NONE, first_child: 0, n_children: 0 });
                rows.push((children, depth + 1));
                nodes[at].n_children += 1;
            }
            at += 1;
        }
        Self { nodes }
    }

    /// The length and id of each piece that `text` begins with, the shortest first.
    pub fn prefixes(&self, text: &[u8]) -> impl Iterator<Item = (usize, u32)> {
        let mut node = &self.nodes[0];
        let ends = text.iter().enumerate().map_while(move |(at, byte)| {
            node = self.child(node, *byte)?;
            Some((at + 1, node.id))
        });
        ends.filter(|&(_, id)| id != NONE)
    }

    fn child(&self, node: &Node, byte: u8) -> Option<&Node> {
        let first = node.first_child as usize;
        let children = &self.nodes[first..first + usize::from(node.n_children)];
        children.binary_search_by_key(&byte, |n| n.byte).ok().map(|i| &children[i])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIECES: [&str; 7] = ["b", "a", "abc", "ab", "é", "bca", "\0"];

    #[test]
    fn every_piece_in_front_is_found() {
        let trie = Trie::new((0..).zip(PIECES));
        let check = |text: &str, expected: &[(usize, u32)]| {
            assert_eq!(trie.prefixes(text.as_bytes()).collect::<Vec<_>>(), expected, "{text:?}");
        };
        check("", &[]);
        check("x", &[]);
        check("abcd", &[(1, 1), (2, 3), (3, 2)]);
        check("bc", &[(1, 0)]);
        check("é", &[(2, 4)]);
        check("è", &[]);
        check("\0a", &[(1, 6)]);
        assert_eq!(Trie::new(std::iter::empty()).prefixes(b"a").count(), 0);
    }

    proptest! {
        #[test]
        fn the_tree_agrees_with_a_list(pieces in prop::collection::btree_set("[ab]{1,4}", 0..12), text in "[ab]{0,8}") {
            let trie = Trie::new((0..).zip(pieces.iter().map(String::as_str)));
            let mut expected: Vec<_> = (0..).zip(&pieces).filter(|(_, p)| text.starts_with(p.as_str())).collect();
            expected.sort_by_key(|(_, p)| p.len());
            let expected: Vec<_> = expected.into_iter().map(|(id, p)| (p.len(), id)).collect();
            prop_assert_eq!(trie.prefixes(text.as_bytes()).collect::<Vec<_>>(), expected);
        }
    }
}
