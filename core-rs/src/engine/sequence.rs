//! One reply on its way: its prompt, its cache, its sampler and what of its text may be shown.

use super::event::{EventKind, FinishReason, RequestId, Timings, Usage};
use super::grammar::{Grammar, mask};
use super::lm::CausalLm;
use super::logprobs::{Told, logprobs};
use super::request::Request;
use super::stop::{Shown, StopMatcher};
use super::watch::Watch;
use crate::error::Result;
use crate::sampling::Sampler;
use crate::tokenizer::{StreamDecoder, Tokenizer};

/// Most prompt tokens computed in one step: a neighbour's next token and a cancel wait no longer than this.
pub(super) const PREFILL_CHUNK: usize = 64;

pub(super) struct Sequence<M: CausalLm> {
    pub id: RequestId,
    prompt: Vec<u32>,
    cache: M::Cache,
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
    /// Prompt tokens already in the cache.
    prefilled: usize,
    generated: usize,
    /// The token to feed next, once the prompt is done.
    last: u32,
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
            prompt,
            prefilled: 0,
            generated: 0,
            last: 0,
            submitted_at: now,
            prefill_at: None,
            decode_at: None,
        };
        for at in 0..sequence.prompt.len() {
            sequence.observe(tokenizer, sequence.prompt[at])?;
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

    /// One piece of work: a chunk of the prompt, or one token. Returns whether the reply has ended.
    pub fn advance(
        &mut self,
        model: &M,
        tokenizer: &Tokenizer,
        now: &dyn Fn() -> f64,
        emit: &mut dyn FnMut(EventKind),
    ) -> Result<bool> {
        self.prefill_at.get_or_insert_with(now);
        let mut logits = if self.prefilled < self.prompt.len() {
            let end = self.prompt.len().min(self.prefilled + PREFILL_CHUNK);
            let logits = self.prefill(end, model, tokenizer, emit)?;
            self.prefilled = end;
            if end < self.prompt.len() {
                return Ok(false);
            }
            logits
        } else {
            model.forward(&[self.last], &mut self.cache)?
        };
        self.decode_at.get_or_insert_with(now);
        if self.is_finished() {
            self.finish(FinishReason::Stop, now(), emit);
            return Ok(true);
        }
        let kept = self.told.keep(&logits);
        self.last = self.choose(&mut logits, tokenizer)?;
        self.observe(tokenizer, self.last)?;
        self.generated += 1;
        let ended = self.has_ended(tokenizer);
        if let Some(grammar) = self.grammar.as_mut().filter(|_| !ended) {
            grammar.accept(self.last)?;
        }
        self.show(&kept, tokenizer, now, emit)
    }

    /// Compute the prompt up to token number `end`, and tell of its tokens what is asked for: the logits that follow.
    fn prefill(
        &mut self,
        end: usize,
        model: &M,
        tokenizer: &Tokenizer,
        emit: &mut dyn FnMut(EventKind),
    ) -> Result<Vec<f32>> {
        let from = self.prefilled;
        let Some(top) = self.prompt_logprobs else {
            return model.forward(&self.prompt[from..end], &mut self.cache);
        };
        let mut logits = model.forward_all(&self.prompt[from..end], &mut self.cache)?;
        if from == 0 {
            self.told.prompt(Vec::new(), emit);
        }
        let n_vocab = logits.len() / (end - from);
        // What follows the last token of the prompt is no token of the prompt.
        for (logits, &next) in logits.chunks_exact(n_vocab).zip(&self.prompt[from + 1..]) {
            self.told.prompt(logprobs(logits, next, top, tokenizer)?, emit);
        }
        Ok(logits.split_off(logits.len() - n_vocab))
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

    /// Whether the newest token ends the reply.
    fn has_ended(&self, tokenizer: &Tokenizer) -> bool {
        (tokenizer.is_end(self.last) && !self.ignore_eos) || self.stop_ids.contains(&self.last)
    }

    /// Turn the newest token into text and decide whether it is the last.
    fn show(
        &mut self,
        logits: &[f32],
        tokenizer: &Tokenizer,
        now: &dyn Fn() -> f64,
        emit: &mut dyn FnMut(EventKind),
    ) -> Result<bool> {
        let ended = self.has_ended(tokenizer);
        if !ended {
            let piece = self.decoder.push(tokenizer, self.last)?;
            let made = (piece.as_str(), self.decoder.is_waiting());
            self.told.push(self.last, logits, made, tokenizer)?;
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
        let usage = Usage { prompt_tokens: self.prompt.len(), completion_tokens: self.generated };
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
