//! Log probabilities: what a model thought of a token and of its rivals, and when that may be told.
//!
//! They are natural logarithms of the model's own distribution, before bias, filters and temperature.

use std::collections::VecDeque;

use super::event::EventKind;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Most rivals that may be asked for.
pub const MAX_TOP: usize = 20;
/// Most numbers that one prompt may ask for, over all its tokens: they wait in the reader until the reply begins.
pub const MAX_PROMPT_LOGPROBS: usize = 1 << 18;
/// Most bytes of one token that are told, so that a record of a token and its rivals fits into the reader's buffer.
pub const MAX_TOKEN_BYTES: usize = 2048;

/// A token and its log probability.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// What it adds to a text.
    pub bytes: Vec<u8>,
}

/// The log probability of token `id` behind `logits`, and the `top` most probable ones in falling order, ties by rising
/// id: the token itself comes first in the list.
pub(super) fn logprobs(logits: &[f32], id: u32, top: usize, tokenizer: &Tokenizer) -> Result<Vec<TokenLogprob>> {
    let finite = || logits.iter().copied().filter(|logit| logit.is_finite());
    let max = finite().fold(f32::MIN, f32::max);
    let sum: f64 = finite().map(|logit| f64::from(logit - max).exp()).sum();
    let entry = |id: u32| {
        let logit = logits.get(id as usize).copied().filter(|logit| logit.is_finite());
        // A token that the model rules out has the lowest number there is, since JSON knows no infinity.
        let logprob = logit.map_or(f32::MIN, |logit| (f64::from(logit - max) - sum.ln()) as f32);
        let mut bytes = tokenizer.bytes(id)?;
        bytes.truncate(MAX_TOKEN_BYTES);
        Ok(TokenLogprob { id, logprob, bytes })
    };
    std::iter::once(id).chain(highest(logits, top)).map(entry).collect()
}

/// Refuse to tell more of a prompt than a reader should hold.
pub(super) fn check_prompt(tokens: usize, top: Option<usize>) -> Result<()> {
    match top.map(|top| top + 1) {
        Some(each) if tokens * each > MAX_PROMPT_LOGPROBS => Err(Error::invalid_request(format!(
            "prompt_logprobs must not ask for more than {MAX_PROMPT_LOGPROBS} numbers, got {tokens} tokens with {each} each"
        ))),
        _ => Ok(()),
    }
}

/// The ids of the `n` highest finite logits.
fn highest(logits: &[f32], n: usize) -> Vec<u32> {
    let mut best: Vec<u32> = Vec::with_capacity(n + 1);
    for (id, logit) in (0u32..).zip(logits).filter(|(_, logit)| n > 0 && logit.is_finite()) {
        if best.len() < n || *logit > logits[best[n - 1] as usize] {
            let at = best.partition_point(|&other| logits[other as usize] >= *logit);
            best.insert(at, id);
            best.truncate(n);
        }
    }
    best
}

/// The log probabilities of a reply on their way: they are told with the text that their tokens make up.
#[derive(Debug)]
pub(super) struct Told {
    /// How many rivals are asked for; none: nothing is told.
    top: Option<usize>,
    /// Tokens whose text is not shown yet: where it begins and ends in the reply.
    waiting: VecDeque<(usize, usize, Vec<TokenLogprob>)>,
    /// The logits of the next token, before sampling changes them.
    kept: Vec<f32>,
    /// Bytes of the reply decoded and shown so far.
    decoded: usize,
    shown: usize,
    /// Something was told since the last text.
    unsaid: bool,
}

impl Told {
    /// Nothing yet; `top` rivals are asked for.
    pub fn new(top: Option<usize>) -> Self {
        Self { top, waiting: VecDeque::new(), kept: Vec::new(), decoded: 0, shown: 0, unsaid: false }
    }

    /// Keep the logits of the next token, where they will be needed after sampling has changed them.
    pub fn keep(&mut self, logits: &[f32]) {
        if self.top.is_some() {
            self.kept.clear();
            self.kept.extend_from_slice(logits);
        }
    }

    /// The next token is `id`, whose logits were kept; it has made `text`, and more text if it is `incomplete`.
    pub fn push(&mut self, id: u32, (text, incomplete): (&str, bool), tokenizer: &Tokenizer) -> Result<()> {
        let Some(top) = self.top else { return Ok(()) };
        let start = self.decoded;
        self.decoded += text.len();
        let end = self.decoded + usize::from(incomplete);
        self.waiting.push_back((start, end, logprobs(&self.kept, id, top, tokenizer)?));
        Ok(())
    }

    /// A token of the prompt; none for the first, which follows nothing.
    pub fn prompt(&mut self, tokens: Vec<TokenLogprob>, emit: &mut dyn FnMut(EventKind)) {
        self.unsaid = true;
        emit(EventKind::Logprobs { of_prompt: true, tokens });
    }

    /// `bytes` more of the reply are about to be shown: tell of the tokens that end there, or, when these are the last,
    /// of those that begin before. Returns whether a text must follow even if it is empty.
    pub fn show(&mut self, bytes: usize, last: bool, emit: &mut dyn FnMut(EventKind)) -> bool {
        self.shown += bytes;
        while let Some(&(start, end, _)) = self.waiting.front()
            && (end <= self.shown || (last && start < self.shown))
            && let Some((.., tokens)) = self.waiting.pop_front()
        {
            self.unsaid = true;
            emit(EventKind::Logprobs { of_prompt: false, tokens });
        }
        std::mem::take(&mut self.unsaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_prompt_may_ask_for_few_numbers_only() {
        assert!(check_prompt(usize::MAX, None).is_ok() && check_prompt(12_000, Some(20)).is_ok());
        let error = check_prompt(13_000, Some(20)).expect_err("too many").to_string();
        assert!(error.contains("262144") && error.contains("13000 tokens with 21 each"), "{error}");
    }

    #[test]
    fn the_highest_stand_in_order_and_equals_by_rising_id() {
        let logits = [1.0, 3.0, f32::NAN, 3.0, -2.0, f32::INFINITY, 2.0];
        for (n, want) in [(0, vec![]), (1, vec![1]), (2, vec![1, 3]), (4, vec![1, 3, 6, 0]), (9, vec![1, 3, 6, 0, 4])] {
            assert_eq!(highest(&logits, n), want, "{n}");
        }
    }
}
