//! Whether a token completes one of some texts, across the borders of tokens: words that must not come about, and texts
//! that break sequences. Texts are compared as bytes, since a token may be half a character.

/// Looks out for texts in a text that grows.
#[derive(Debug)]
pub(super) struct Watch {
    texts: Vec<String>,
    /// The end of the text so far, as far as one of the texts may begin in it.
    tail: Vec<u8>,
}

impl Watch {
    /// A look-out for these texts, none of them empty.
    pub fn new(texts: Vec<String>) -> Self {
        Self { texts, tail: Vec::new() }
    }

    /// Whether there is nothing to look out for.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Whether a text would end in `piece`, were it next.
    pub fn ends_in(&self, piece: &[u8]) -> bool {
        let ends_at = |text: &[u8], end: usize| match end.checked_sub(text.len()) {
            Some(start) => piece[start..end] == *text,
            None => {
                let (before, inside) = text.split_at(text.len() - end);
                piece[..end] == *inside && self.tail.ends_with(before)
            }
        };
        self.texts.iter().any(|text| (1..=piece.len()).any(|end| ends_at(text.as_bytes(), end)))
    }

    /// The next piece of the text.
    pub fn push(&mut self, piece: &[u8]) {
        let longest = self.texts.iter().map(String::len).max().unwrap_or(0);
        if longest > 0 {
            self.tail.extend_from_slice(piece);
            let past = self.tail.len().saturating_sub(longest - 1);
            self.tail.drain(..past);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each piece whether a text ends in it.
    fn run(texts: &[&str], pieces: &[&str]) -> Vec<bool> {
        let mut watch = Watch::new(texts.iter().map(|text| text.to_string()).collect());
        let mut ends = |piece: &&str| {
            let ends = watch.ends_in(piece.as_bytes());
            watch.push(piece.as_bytes());
            ends
        };
        pieces.iter().map(&mut ends).collect()
    }

    #[test]
    fn finds_a_text_inside_a_piece_and_across_several() {
        assert_eq!(run(&["ab"], &["xaby", "a", "", "b", "b"]), [true, false, false, true, false]);
        assert_eq!(run(&["abc", "€"], &["a", "b", "c", "€", "x€"]), [false, false, true, true, true]);
        assert_eq!(run(&["aa"], &["a", "a", "a"]), [false, true, true]);
        assert_eq!(run(&["a"], &["a", "b"]), [true, false]);
        assert_eq!(run(&[], &["a"]), [false]);
    }

    #[test]
    fn a_text_that_ended_before_does_not_end_again() {
        assert_eq!(run(&["ab", "long long text"], &["ab", "x", "", "y"]), [true, false, false, false]);
    }
}
