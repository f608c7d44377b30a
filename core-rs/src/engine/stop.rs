//! Stop texts: cut the reply before the earliest, and hold back what may turn out to be the first half of one.

/// Watches the text of one reply.
#[derive(Debug)]
pub(super) struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

/// What may be shown after a piece of text.
#[derive(Debug, PartialEq)]
pub(super) enum Shown {
    /// This text is safe to show (maybe empty) and the reply goes on.
    Text(String),
    /// This text is the last; the stop text behind it ended the reply.
    Stopped { text: String, stop: String },
}

impl StopMatcher {
    /// A matcher for these stop texts, none of them empty.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Take the next piece of the reply.
    pub fn push(&mut self, piece: &str) -> Shown {
        self.held.push_str(piece);
        if let Some((at, stop)) = self.earliest() {
            let stop = stop.to_owned();
            self.held.truncate(at);
            return Shown::Stopped { text: std::mem::take(&mut self.held), stop };
        }
        let keep = self.held.len() - self.longest_half_stop();
        let rest = self.held.split_off(keep);
        Shown::Text(std::mem::replace(&mut self.held, rest))
    }

    /// The reply ended by itself: what was held back is text after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The stop text that begins first; the longest of several at one place.
    fn earliest(&self) -> Option<(usize, &str)> {
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.as_str())));
        found.min_by_key(|(at, stop)| (*at, std::cmp::Reverse(stop.len())))
    }

    /// Bytes of the longest end of `held` that is the beginning of a stop text.
    fn longest_half_stop(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest);
        let starts = self.held.char_indices().map(|(at, _)| at).filter(|&at| at >= from);
        let half = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        starts.into_iter().find(half).map_or(0, |at| self.held.len() - at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, Option<String>) {
        let mut matcher = StopMatcher::new(stops.iter().map(|s| s.to_string()).collect());
        let mut shown = Vec::new();
        for piece in pieces {
            match matcher.push(piece) {
                Shown::Text(text) => shown.push(text),
                Shown::Stopped { text, stop } => {
                    shown.push(text);
                    return (shown, Some(stop));
                }
            }
        }
        shown.push(matcher.finish());
        (shown, None)
    }

    #[test]
    fn cuts_before_the_stop_text_and_names_it() {
        assert_eq!(run(&["###"], &["a", "b### c"]), (vec!["a".into(), "b".into()], Some("###".into())));
    }

    #[test]
    fn holds_back_half_a_stop_text_across_pieces() {
        let (shown, stop) = run(&["USER:"], &["hi US", "ER", ": x"]);
        assert_eq!((shown, stop.as_deref()), (vec!["hi ".into(), "".into(), "".into()], Some("USER:")));
    }

    #[test]
    fn shows_what_was_held_when_it_turns_out_otherwise_or_the_reply_ends() {
        assert_eq!(run(&["###"], &["a#", "b", "##"]).0, ["a", "#b", "", "##"]);
    }

    #[test]
    fn the_earliest_wins_and_the_longest_of_equals() {
        assert_eq!(run(&["lo", "hello", "hel"], &["say hello"]).1.as_deref(), Some("hello"));
        assert_eq!(run(&["b", "a"], &["xab"]), (vec!["x".into()], Some("a".into())));
    }

    #[test]
    fn a_repeated_beginning_is_not_lost() {
        assert_eq!(
            run(&["aab"], &["a", "a", "a", "b"]),
            (vec!["".into(), "".into(), "a".into(), "".into()], Some("aab".into()))
        );
    }

    proptest! {
        /// However the text is cut into pieces, what is shown is the text before the earliest stop.
        #[test]
        fn pieces_do_not_matter(text in "[ab€]{0,24}", stop in "[ab€]{1,4}", cuts in proptest::collection::vec(0usize..24, 0..6)) {
            let chars: Vec<char> = text.chars().collect();
            let mut borders: Vec<usize> = cuts.iter().map(|c| c % (chars.len() + 1)).collect();
            borders.extend([0, chars.len()]);
            borders.sort_unstable();
            let pieces: Vec<String> = borders.windows(2).map(|w| chars[w[0]..w[1]].iter().collect()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (shown, stopped) = run(&[&stop], &pieces);
            let want = text.find(&stop).map_or(text.as_str(), |at| &text[..at]);
            prop_assert_eq!(shown.concat(), want);
            prop_assert_eq!(stopped.is_some(), text.contains(&stop));
        }
    }
}
