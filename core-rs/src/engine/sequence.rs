//! One reply on its way: its tokens, its cache, its sampler and what of its text may be shown.

use super::draft::Draft;
use super::event::{EventKind, FinishReason, RequestId, Timings, Usage};
use super::grammar::{Grammar, mask};
use super::lm::CausalLm;
use super::logprobs::{Told, logprobs};
use super::request::Request;
use super::room::{PROMPT_TOLD, Room};
use super::speculate::Guesses;
use super::stop::{Shown, StopMatcher};
use super::watch::Watch;
use crate::error::Result;
use crate::model::{Segment, Wanted};
use crate::sampling::Sampler;
use crate::tokenizer::{StreamDecoder, Tokenizer};

pub(super) struct Sequence<M: CausalLm> {
    pub id: RequestId,
    /// Those of the prompt, then those of the reply.
    tokens: Vec<u32>,
    prompt_len: usize,
    cache: M::Cache,
    /// How many of the tokens are in the cache.
    cached: usize,
    /// How many that follow them go into the next pass; 0: it takes no part.
    share: usize,
    /// How it may go on: while a pass is made they stand behind its tokens.
    guesses: Guesses,
    /// How many of them came true in the last pass.
    right: usize,
    /// What the draft model has seen of it, if there is one and it has not failed.
    draft: Option<Draft<M::Cache>>,
    sampler: Sampler,
    decoder: StreamDecoder,
    stop: StopMatcher,
    stop_ids: Vec<u32>,
    min_tokens: usize,
    ignore_eos: bool,
    /// What the reply must stay in.
    grammar: Option<Box<dyn Grammar>>,
    /// Texts that must not come about in the reply.
    bad_words: Watch,
    /// Texts over which DRY finds no repetition, in prompt and reply.
    breakers: Watch,
    told: Told,
    /// How many rivals to tell of with each token of the prompt; none: tell nothing.
    prompt_logprobs: Option<usize>,
    /// Generated tokens at which the reply is cut.
    limit: usize,
    generated: usize,
    submitted_at: f64,
    prefill_at: Option<f64>,
    decode_at: Option<f64>,
}

impl<M: CausalLm> Sequence<M> {
    /// A sequence that has not run yet. `prompt` is not empty and shorter than the context; times in milliseconds.
    pub fn new(
        id: RequestId,
        request: Request,
        prompt: Vec<u32>,
        seed: u64,
        model: &M,
        tokenizer: &Tokenizer,
        now: f64,
    ) -> Result<Self> {
        let room = model.context_length() - prompt.len();
        let mut sequence = Self {
            id,
            cache: model.new_cache(),
            sampler: Sampler::new(request.sampling, seed)?,
            decoder: tokenizer.decoder(),
            stop: StopMatcher::new(request.stop),
            stop_ids: request.stop_ids,
            min_tokens: request.min_tokens,
            bad_words: Watch::new(request.bad_words),
            breakers: Watch::new(request.breakers),
            told: Told::new(request.logprobs),
            prompt_logprobs: request.prompt_logprobs,
            ignore_eos: request.ignore_eos,
            grammar: None,
            limit: request.max_tokens.map_or(room, |max| max.min(room)),
            generated: 0,
            prompt_len: prompt.len(),
            tokens: prompt,
            cached: 0,
            share: 0,
            guesses: Guesses::new(),
            right: 0,
            draft: None,
            submitted_at: now,
            prefill_at: None,
            decode_at: None,
        };
        for at in 0..sequence.prompt_len {
            sequence.observe(tokenizer, sequence.tokens[at])?;
        }
        Ok(sequence)
    }

    /// The same sequence in a grammar: end tokens always end it, and its text is told as the grammar has it.
    pub fn within(mut self, grammar: Option<Box<dyn Grammar>>, tokenizer: &Tokenizer) -> Self {
        if grammar.is_some() {
            self.ignore_eos = false;
            self.decoder = tokenizer.verbatim_decoder();
            self.grammar = grammar;
        }
        self
    }

    /// The same sequence with a draft model's cache.
    pub fn drafted(mut self, cache: Option<M::Cache>) -> Self {
        self.draft = cache.map(Draft::new);
        self
    }

    /// Tell the sampler of a token of prompt or reply.
    fn observe(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<()> {
        let mut breaks = false;
        if self.sampler.has_dry() {
            let piece = tokenizer.bytes(id)?;
            breaks = self.breakers.ends_in(&piece);
            self.breakers.push(&piece);
        }
        self.sampler.observe(id, breaks);
        Ok(())
    }

    /// Tokens generated so far.
    pub fn generated(&self) -> usize {
        self.generated
    }

    /// Whether the prompt is done and each pass gives a token.
    pub fn is_replying(&self) -> bool {
        self.cached >= self.prompt_len
    }

    /// Settle what it brings to the next pass: a chunk of its prompt or its newest token, or nothing if it `rests`.
    pub fn join(&mut self, rests: bool, model: &M, room: &mut Room, now: &dyn Fn() -> f64) -> Result<()> {
        self.share = 0;
        self.guesses.clear();
        let left = self.tokens.len() - self.cached;
        let share = match self.prompt_logprobs {
            _ if rests => 0,
            _ if self.is_replying() => room.reply(),
            None => room.prompt(left),
            Some(_) => room.prompt(left.min(PROMPT_TOLD)),
        };
        if share > 0 {
            self.prefill_at.get_or_insert_with(now);
            model.reserve(&mut self.cache, share)?;
            self.share = share;
        }
        Ok(())
    }

    /// Guess up to `most` tokens, where a row of the pass has this price, and one with a token of a draft model that.
    pub fn guess(&mut self, most: usize, price: f64, draft_price: Option<f64>) {
        if self.share > 0 && self.is_replying() {
            let most = most.min(self.limit.saturating_sub(self.generated + 1));
            self.guesses.make(&self.tokens, most, price, draft_price.filter(|_| self.draft.is_some()));
            self.tokens.extend_from_slice(self.guesses.tokens());
        }
    }

    /// Its part of the next pass of the draft model, if it wants a guess.
    pub fn draft_segment(&mut self, model: &M) -> Option<Segment<'_, M::Cache>> {
        let draft = self.draft.as_mut().filter(|_| self.guesses.wants_more())?;
        draft.segment(&self.tokens, model)
    }

    /// The draft model's pass is done and gave these guesses, one for each that was asked for one; none: it failed.
    pub fn take_draft(&mut self, guesses: Option<&mut dyn Iterator<Item = u32>>) {
        let Some(asked) = self.draft.as_mut().and_then(|draft| draft.asked.take()) else { return };
        if guesses.is_none() {
            self.draft = None;
        }
        let guess = guesses.filter(|_| asked == Wanted::Last).and_then(Iterator::next);
        self.tokens.extend(guess);
        self.guesses.push(guess);
    }

    /// Bring the guesses to the next pass, if its cache has room for them.
    pub fn join_guesses(&mut self, model: &M) {
        let guesses = self.guesses.tokens().len();
        if guesses > 0 {
            match model.reserve(&mut self.cache, self.share + guesses) {
                Ok(()) => self.share += guesses,
                Err(_) => {
                    self.tokens.truncate(self.cached + self.share);
                    self.guesses.clear();
                }
            }
        }
    }

    /// How many guesses the last pass checked, and how many of them came true.
    pub fn guessed(&self) -> (usize, usize) {
        (self.guesses.tokens().len(), self.right)
    }

    fn wanted(&self) -> Wanted {
        let in_prompt = !self.is_replying();
        match self.share {
            0 => Wanted::Nothing,
            _ if in_prompt && self.prompt_logprobs.is_some() => Wanted::Each,
            share if in_prompt && self.cached + share < self.prompt_len => Wanted::Nothing,
            _ if self.guesses.tokens().is_empty() => Wanted::Last,
            _ => Wanted::Each,
        }
    }

    /// Rows of logits that its part of the pass gives.
    pub fn rows(&self) -> usize {
        self.wanted().rows(self.share)
    }

    /// Its part of the pass, if it takes part.
    pub fn segment(&mut self) -> Option<Segment<'_, M::Cache>> {
        let wanted = self.wanted();
        let tokens = &self.tokens[self.cached..][..self.share];
        (!tokens.is_empty()).then_some(Segment { tokens, cache: &mut self.cache, wanted })
    }

    /// The pass is done and gave these logits. Returns whether the reply has ended.
    pub fn take(
        &mut self,
        logits: &mut [f32],
        model: &M,
        tokenizer: &Tokenizer,
        now: &dyn Fn() -> f64,
        emit: &mut dyn FnMut(EventKind),
    ) -> Result<bool> {
        let n_vocab = model.vocabulary_size();
        let (first, guesses) = (self.cached, self.guesses.tokens().len());
        self.cached += self.share - guesses;
        self.right = 0;
        if first < self.prompt_len {
            self.tell_prompt(first, logits, n_vocab, tokenizer, emit)?;
        }
        if !self.is_replying() {
            return Ok(false);
        }
        self.decode_at.get_or_insert_with(now);
        self.tokens.truncate(self.cached);
        let rows = logits.len() - (guesses + 1) * n_vocab..;
        let ended = self.check(&mut logits[rows], n_vocab, tokenizer, now, emit)?;
        if !ended && guesses > 0 {
            self.guesses.learn(self.right);
            model.truncate(&mut self.cache, self.cached);
        }
        if let Some(draft) = &mut self.draft {
            draft.cached = draft.cached.min(self.cached);
        }
        Ok(ended)
    }

    /// Choose the next token, and go on while guesses come true: then the row behind is that of the token after it. What
    /// is chosen does not hang on the guesses. Returns whether the reply has ended.
    fn check(
        &mut self,
        logits: &mut [f32],
        n_vocab: usize,
        tokenizer: &Tokenizer,
        now: &dyn Fn() -> f64,
        emit: &mut dyn FnMut(EventKind),
    ) -> Result<bool> {
        for row in logits.chunks_exact_mut(n_vocab) {
            if self.next(row, tokenizer, now, emit)? {
                return Ok(true);
            }
            if self.guesses.tokens().get(self.right) != self.tokens.last() {
                break;
            }
            self.right += 1;
            self.cached += 1;
        }
        Ok(false)
    }

    /// Tell of the prompt's tokens behind number `first` what is asked for.
    fn tell_prompt(
        &mut self,
        first: usize,
        logits: &[f32],
        n_vocab: usize,
        tokenizer: &Tokenizer,
        emit: &mut dyn FnMut(EventKind),
    ) -> Result<()> {
        let Some(top) = self.prompt_logprobs else { return Ok(()) };
        if first == 0 {
            self.told.prompt(Vec::new(), emit);
        }
        // What follows the last token of the prompt is no token of the prompt.
        for (logits, &next) in logits.chunks_exact(n_vocab).zip(&self.tokens[first + 1..self.prompt_len]) {
            self.told.prompt(logprobs(logits, next, top, tokenizer)?, emit);
        }
        Ok(())
    }

    /// Choose the next token and tell of it. Returns whether the reply has ended.
    fn next(
        &mut self,
        logits: &mut [f32],
        tokenizer: &Tokenizer,
        now: &dyn Fn() -> f64,
        emit: &mut dyn FnMut(EventKind),
    ) -> Result<bool> {
        if self.is_finished() {
            self.finish(FinishReason::Stop, now(), emit);
            return Ok(true);
        }
        self.told.keep(logits);
        let id = self.choose(logits, tokenizer)?;
        self.observe(tokenizer, id)?;
        self.tokens.push(id);
        self.generated += 1;
        let ended = self.ends_with(id, tokenizer);
        if let Some(grammar) = self.grammar.as_mut().filter(|_| !ended) {
            grammar.accept(id)?;
        }
        self.show(id, ended, tokenizer, now, emit)
    }

    /// Whether the grammar, if there is one, leaves nothing but the end.
    fn is_finished(&self) -> bool {
        self.grammar.as_ref().is_some_and(|grammar| grammar.is_finished())
    }

    fn choose(&mut self, logits: &mut [f32], tokenizer: &Tokenizer) -> Result<u32> {
        if let Some(grammar) = &mut self.grammar {
            mask(logits, grammar.allowed()?);
        }
        if self.generated < self.min_tokens {
            for &id in tokenizer.ends().iter().chain(&self.stop_ids) {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        let Self { sampler, bad_words, .. } = self;
        if bad_words.is_empty() {
            return sampler.sample(logits, &mut |_| true);
        }
        let bytes = |id| tokenizer.bytes(id).unwrap_or_default();
        let id = sampler.sample(logits, &mut |id| !bad_words.ends_in(&bytes(id)))?;
        bad_words.push(&bytes(id));
        Ok(id)
    }

    /// Whether token `id` ends the reply.
    fn ends_with(&self, id: u32, tokenizer: &Tokenizer) -> bool {
        (tokenizer.is_end(id) && !self.ignore_eos) || self.stop_ids.contains(&id)
    }

    /// Turn the newest token into text, unless it `ended` the reply, and decide whether it is the last.
    fn show(
        &mut self,
        id: u32,
        ended: bool,
        tokenizer: &Tokenizer,
        now: &dyn Fn() -> f64,
        emit: &mut dyn FnMut(EventKind),
    ) -> Result<bool> {
        if !ended {
            let piece = self.decoder.push(tokenizer, id)?;
            self.told.push(id, (piece.as_str(), self.decoder.is_waiting()), tokenizer)?;
            match self.stop.push(&piece) {
                Shown::Text(text) => self.emit_text(text, false, emit),
                Shown::Stopped { text, stop } => {
                    self.emit_text(text, true, emit);
                    emit(self.done(FinishReason::Stop, Some(stop), now()));
                    return Ok(true);
                }
            }
        }
        let ended = ended || self.is_finished();
        if ended || self.generated >= self.limit {
            let reason = if ended { FinishReason::Stop } else { FinishReason::Length };
            self.finish(reason, now(), emit);
            return Ok(true);
        }
        Ok(false)
    }

    /// End the reply now: show what was held back, then say done.
    pub fn finish(&mut self, reason: FinishReason, now: f64, emit: &mut dyn FnMut(EventKind)) {
        let rest = self.decoder.finish();
        match self.stop.push(&rest) {
            Shown::Text(text) => {
                let text = text + &self.stop.finish();
                self.emit_text(text, true, emit);
                emit(self.done(reason, None, now));
            }
            Shown::Stopped { text, stop } => {
                self.emit_text(text, true, emit);
                emit(self.done(FinishReason::Stop, Some(stop), now));
            }
        }
    }

    fn emit_text(&mut self, text: String, last: bool, emit: &mut dyn FnMut(EventKind)) {
        if self.told.show(text.len(), last, emit) || !text.is_empty() {
            emit(EventKind::Text { text, completion_tokens: self.generated });
        }
    }

    fn done(&self, reason: FinishReason, stop: Option<String>, now: f64) -> EventKind {
        let usage = Usage { prompt_tokens: self.prompt_len, completion_tokens: self.generated };
        let prefill_at = self.prefill_at.unwrap_or(now);
        let decode_at = self.decode_at.unwrap_or(now);
        let timings = Timings {
            queue_ms: prefill_at - self.submitted_at,
            prefill_ms: decode_at - prefill_at,
            decode_ms: now - decode_at,
        };
        EventKind::Done { reason, stop, usage, timings }
    }
}
