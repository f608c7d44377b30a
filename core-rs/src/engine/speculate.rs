//! Guesses at how a reply goes on, checked in the pass that gives its next token anyway.
//!
//! A pass reads all weights whether a reply brings one token or ten, so guesses that come true are tokens for little. They
//! change no text: each is kept only where the sampler, asked as ever, chooses the same token. What is decided here is
//! when guessing pays: a guess is made while the chance that it and all before it come true is above the share of a
//! pass that its row costs. Looking up costs nothing, so a text that does not repeat itself is not slowed down.
//!
//! Absent: the other model that may guess (`draft`), and the check of guesses (`sequence`).

use serde::Deserialize;

/// Whether replies guess ahead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speculate {
    /// Where it pays: from the conversation's own tokens, and from a draft model where there is one.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Most guesses of one reply in one pass: a longer run of true ones goes on in the next pass, at little loss.
const MAX_GUESSES: usize = 16;
/// Most guesses of one pass, over all its replies: many replies fill a pass without them.
const PASS_GUESSES: usize = 32;
/// Shortest end of a text that is looked up in it: what follows one token alone is rarely the same twice.
const MIN_MATCH: usize = 2;
/// Longest end that is looked up; the search ends where it is found.
const MAX_MATCH: usize = 8;

/// Weight of older passes against the newest in what is trusted: the last ten or so count.
const MEMORY: f64 = 0.9;
/// Passes that a first opinion is worth: who is wrong at once is not trusted for long.
const OPINION: f64 = 1.0;
/// Chances for a guess that does not pay before it is tried again: ends that are found again, or, with a draft model,
/// passes, since that must first read what it has missed.
const REST: u32 = 16;
const DRAFT_REST: u32 = 256;
/// Failures in a row that double the rest.
const MAX_DOUBLINGS: u32 = 4;
/// Failures in a row after which a draft model that does not pay is not asked again: reading on costs even while it rests.
const DRAFT_TRIES: u32 = 3;

/// What a guess comes from. Longer ends that stood in the text before are trusted apart from shorter ones: in a text
/// that quotes, the former come true and the latter do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// What followed the last 2 or 3 tokens when they stood in the text before.
    Short,
    /// 4 to 7.
    Middle,
    /// 8 and more.
    Long,
    /// The draft model.
    Draft,
}

impl Source {
    fn of_match(len: usize) -> Self {
        match len {
            ..4 => Self::Short,
            4..MAX_MATCH => Self::Middle,
            _ => Self::Long,
        }
    }
}

/// How often the guesses of one source came true, lately.
#[derive(Debug)]
struct Trust {
    right: f64,
    wrong: f64,
    /// Chances to let pass before the next try of what does not pay.
    pause: u32,
    /// The first pause.
    rest: u32,
    /// Failures in a row, and how many of them end the tries of what does not pay.
    failures: u32,
    tries: u32,
}

impl Trust {
    /// A first opinion of a source.
    fn of(source: Source) -> Self {
        let (chance, rest, tries) = match source {
            Source::Short => (0.3, REST, u32::MAX),
            Source::Middle => (0.6, REST, u32::MAX),
            Source::Long => (0.8, REST, u32::MAX),
            Source::Draft => (0.5, DRAFT_REST, DRAFT_TRIES),
        };
        let (right, wrong) = (OPINION * chance, OPINION * (1.0 - chance));
        Self { right, wrong, pause: rest, rest, failures: 0, tries }
    }

    /// How many guesses pay at this price of a row, as a share of the pass.
    fn worth(&mut self, price: f64) -> usize {
        let chance = self.right / (self.right + self.wrong);
        if chance > price {
            // Not far beyond what has come true: an opinion alone is worth little.
            let proven = 1 + (2.0 * self.right) as usize;
            return ((price.ln() / chance.ln()) as usize).clamp(1, MAX_GUESSES.min(proven));
        }
        let again = self.pause == 0 && self.failures < self.tries;
        self.pause = self.pause.saturating_sub(1);
        usize::from(again)
    }

    /// Of some guesses the first `right` ones came true.
    fn learn(&mut self, guesses: usize, right: usize) {
        self.right = self.right * MEMORY + right as f64;
        self.wrong = self.wrong * MEMORY + f64::from(u8::from(right < guesses));
        if right > 0 {
            (self.pause, self.failures) = (0, 0);
        } else {
            self.pause = self.rest << self.failures.min(MAX_DOUBLINGS);
            self.failures = self.failures.saturating_add(1);
        }
    }
}

/// The guesses of one reply.
#[derive(Debug)]
pub(super) struct Guesses {
    /// Those of the next pass.
    tokens: Vec<u32>,
    source: Source,
    /// How many are wanted of the draft model.
    wanted: usize,
    /// By source.
    trust: [Trust; 4],
}

impl Guesses {
    /// None yet, and a first opinion of each source.
    pub fn new() -> Self {
        let trust = [Source::Short, Source::Middle, Source::Long, Source::Draft].map(Trust::of);
        Self { tokens: Vec::new(), source: Source::Short, wanted: 0, trust }
    }

    /// The guesses of the next pass.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Make none.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.wanted = 0;
    }

    /// Guess up to `most` tokens behind `text` from the text itself; or want them of a draft model, where that has a price
    /// and the text does not quote at length.
    pub fn make(&mut self, text: &[u32], most: usize, price: f64, draft_price: Option<f64>) {
        let found = look_up(text);
        let source = found.map(|(_, len)| Source::of_match(len));
        let quotes = source.filter(|&source| source != Source::Short || draft_price.is_none());
        if let (Some((from, len)), Some(source)) = (found, quotes) {
            // What has just begun to repeat itself may not go on for long.
            let pays = self.trust[source as usize].worth(price).min(2 * len).min(most);
            self.copy(text, from, pays);
            self.source = source;
        }
        if let Some(price) = draft_price.filter(|_| self.tokens.is_empty()) {
            self.source = Source::Draft;
            self.wanted = self.trust[Source::Draft as usize].worth(price).min(most);
        }
    }

    /// `n` tokens of the text from `from` on; a text that repeats itself at its end goes on doing so.
    fn copy(&mut self, text: &[u32], from: usize, n: usize) {
        let period = text.len() - from;
        self.tokens.extend((0..n).map(|i| text[from + i % period]));
    }

    /// Whether the draft model is to guess on.
    pub fn wants_more(&self) -> bool {
        self.tokens.len() < self.wanted
    }

    /// What the draft model guesses; without a guess it is not asked again in this pass.
    pub fn push(&mut self, guess: Option<u32>) {
        match guess {
            Some(id) => self.tokens.push(id),
            None => self.wanted = 0,
        }
    }

    /// The first `right` guesses came true.
    pub fn learn(&mut self, right: usize) {
        if !self.tokens.is_empty() {
            self.trust[self.source as usize].learn(self.tokens.len(), right);
        }
    }
}

/// Guesses that each of so many replies may make in one pass.
pub(super) fn most_guesses(replies: usize) -> usize {
    (PASS_GUESSES / replies.max(1)).min(MAX_GUESSES)
}

/// Where the text goes on after the longest of its ends that stood in it before, the latest of equals, and how long that
/// end is.
fn look_up(text: &[u32]) -> Option<(usize, usize)> {
    let (&last, before) = text.split_last()?;
    let mut best = None;
    for at in (0..before.len()).rev().filter(|&at| before[at] == last) {
        let pairs = text[..=at].iter().rev().zip(text.iter().rev()).take(MAX_MATCH);
        let len = pairs.take_while(|(a, b)| a == b).count();
        if len >= MIN_MATCH && best.is_none_or(|(_, longest)| len > longest) {
            best = Some((at + 1, len));
        }
        if len == MAX_MATCH {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_end_that_came_before_is_found_and_the_latest_of_equals() {
        for (text, want) in [
            (&[][..], None),
            (&[1, 2, 3], None),
            (&[1, 2, 1], None),
            (&[1, 2, 3, 1, 2], Some((2, 2))),
            (&[1, 2, 3, 1, 2, 4, 1, 2], Some((5, 2))),
            (&[9, 1, 2, 3, 1, 2, 9, 1, 2], Some((3, 3))),
            (&[5, 5, 5, 5], Some((3, 3))),
        ] {
            assert_eq!(look_up(text), want, "{text:?}");
        }
        let long: Vec<u32> = (0..20).chain(0..12).collect();
        assert_eq!(look_up(&long), Some((12, MAX_MATCH)));
    }

    #[test]
    fn a_text_goes_on_as_before_and_repeats_itself_at_its_end() {
        let guess = |text: &[u32], n| {
            let mut guesses = Guesses::new();
            guesses.copy(text, look_up(text).expect("a match").0, n);
            guesses.tokens
        };
        assert_eq!(guess(&[1, 2, 3, 4, 5, 1, 2], 2), [3, 4]);
        assert_eq!(guess(&[7, 8, 7, 8, 7, 8], 6), [7, 8, 7, 8, 7, 8]);
        let mut none = Guesses::new();
        none.make(&[1, 2, 3], 9, 0.01, None);
        none.make(&[7, 8, 7, 8], 0, 0.01, None);
        assert!(none.tokens().is_empty());
    }

    #[test]
    fn what_comes_true_is_guessed_further_and_what_does_not_is_tried_seldom() {
        let mut good = Trust::of(Source::Middle);
        let first = good.worth(0.1);
        (0..10).for_each(|_| good.learn(4, 3));
        assert!(first == 2 && good.worth(0.1) > 5 && good.worth(0.7) == 1);
        let mut bad = Trust::of(Source::Middle);
        let tries = (0..1000)
            .filter(|_| {
                bad.worth(0.4) > 0 && {
                    bad.learn(1, 0);
                    true
                }
            })
            .count();
        assert!((5..20).contains(&tries), "{tries} tries in 1000 chances");
    }

    #[test]
    fn a_draft_is_wanted_where_the_text_does_not_quote() {
        let mut guesses = Guesses::new();
        guesses.make(&[1, 2, 3, 1, 2], 4, 0.1, Some(0.1));
        assert!(guesses.tokens().is_empty() && guesses.wants_more());
        guesses.push(Some(9));
        guesses.push(None);
        assert!(guesses.tokens() == [9] && !guesses.wants_more());
        let mut guesses = Guesses::new();
        guesses.make(&[1, 2, 3, 4, 5, 1, 2, 3, 4], 4, 0.1, Some(0.1));
        assert!(guesses.tokens().starts_with(&[5]) && !guesses.wants_more());
    }

    #[test]
    fn many_replies_guess_less() {
        assert_eq!([0, 1, 2, 8, 32, 33].map(most_guesses), [16, 16, 16, 4, 1, 0]);
    }
}
