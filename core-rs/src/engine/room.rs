//! What one forward pass has room for. A cancel, a new request and the neighbours' next tokens wait for a pass to end, so
//! its length is bounded here.

/// Most prompt tokens of a pass that also gives replies their next token.
pub(super) const PROMPT_BESIDE_REPLIES: usize = 64;
/// Most prompt tokens of a pass without replies: weights are read once for more tokens, and nobody is being read to.
pub(super) const PROMPT_ALONE: usize = 512;
/// What such a pass may take, in milliseconds: on a slow machine it has fewer tokens, as few as beside replies.
const PROMPT_ALONE_MS: f64 = 2000.0;
/// Tokens that kernels multiply at once: a pass has whole ones.
const TOGETHER: usize = 16;
/// Most tokens of one prompt whose logits are all wanted: a row of them has as many numbers as the vocabulary.
pub(super) const PROMPT_TOLD: usize = 64;

/// The room of one pass, dealt out to replies first.
#[derive(Debug)]
pub(super) struct Room {
    /// Most prompt tokens, if there are no replies.
    alone: usize,
    /// Replies that get their next token.
    pub replies: usize,
    /// Prompt tokens dealt out.
    pub prompt: usize,
}

impl Room {
    /// The room of a pass in which a token of a prompt takes so many milliseconds; 0: that is not known.
    pub fn new(token_ms: f64) -> Self {
        let fast = if token_ms > 0.0 { (PROMPT_ALONE_MS / token_ms) as usize } else { 0 };
        let whole = fast / TOGETHER * TOGETHER;
        Self { alone: whole.clamp(PROMPT_BESIDE_REPLIES, PROMPT_ALONE), replies: 0, prompt: 0 }
    }

    /// Room for the next token of a reply: always there, since a place among those running is.
    pub fn reply(&mut self) -> usize {
        self.replies += 1;
        1
    }

    /// Room for up to `wanted` tokens of a prompt. Prompts that get none are first in the next pass.
    pub fn prompt(&mut self, wanted: usize) -> usize {
        let most = if self.replies > 0 { PROMPT_BESIDE_REPLIES } else { self.alone };
        let share = wanted.min(most.saturating_sub(self.prompt));
        self.prompt += share;
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_share_what_replies_leave_them() {
        let mut room = Room::new(0.1);
        assert_eq!([500, 100, 1].map(|wanted| room.prompt(wanted)), [500, 12, 0]);
        for (token_ms, most) in [(0.0, 64), (100.0, 64), (10.0, 192)] {
            assert_eq!(Room::new(token_ms).prompt(1000), most, "{token_ms} ms");
        }
        let mut room = Room::new(0.1);
        assert_eq!((room.reply(), room.reply()), (1, 1));
        assert_eq!([10, 500, 1].map(|wanted| room.prompt(wanted)), [10, 54, 0]);
    }
}
