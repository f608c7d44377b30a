//! An engine without a thread: whoever has it pushes the model's bytes, hands in requests, and calls `step` until there
//! is nothing to do. Events wait here until they are taken.

use std::sync::Arc;

use serde::Deserialize;

use super::{monotonic_ms, random_seed};
use crate::engine::{Ask, Engine, Event, Limits, RequestId, Speculate};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels;
use crate::load::{ModelInfo, Stream};
use crate::model::Llama;
use crate::records::{HostEvent, Stats};
use crate::tokenizer::Tokenizer;

/// Most events that wait to be taken; `step` rests while that many do.
const MAX_PENDING_EVENTS: usize = 256;

/// What will be pushed, and how much work to take on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SteppedConfig {
    /// Bytes of the GGUF file.
    pub file_bytes: u64,
    /// Use less context than the model allows.
    pub context_length: Option<usize>,
    /// Conversations that share the model; see `Limits`.
    pub max_running: Option<usize>,
    /// Requests that may wait; see `Limits`.
    pub max_waiting: Option<usize>,
    /// Whether replies guess ahead.
    #[serde(default)]
    pub speculate: Speculate,
    /// Force a kernel (`scalar`, `simd128`) instead of the best this machine has.
    pub cpu: Option<String>,
}

/// An engine that its owner drives.
pub struct Stepped {
    limits: Limits,
    speculate: Speculate,
    phase: Phase,
    last_id: RequestId,
    events: Vec<HostEvent>,
}

enum Phase {
    Loading(Box<Stream>),
    Ready(Box<Ready>),
    Failed(Error),
}

struct Ready {
    engine: Engine<Llama>,
    info: Arc<ModelInfo>,
    tokenizer: Arc<Tokenizer>,
}

impl Stepped {
    /// An engine that waits for its model.
    ///
    /// # Errors
    /// `invalid_request` when the configuration is out of range.
    pub fn new(config: &SteppedConfig) -> Result<Self> {
        let limits = Limits::new(config.max_running, config.max_waiting)?;
        kernels::select(config.cpu.as_deref())?;
        let stream = Stream::new(config.file_bytes, config.context_length);
        let (phase, speculate) = (Phase::Loading(Box::new(stream)), config.speculate);
        Ok(Self { limits, speculate, phase, last_id: 0, events: Vec::new() })
    }

    /// Takes the next bytes of the model file.
    ///
    /// # Errors
    /// As `load::Stream::push`; after that everything fails the same way. `invalid_request` once loading is over.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let stream = match &mut self.phase {
            Phase::Loading(stream) => stream,
            Phase::Ready(_) => return Err(Error::invalid_request("the model is loaded, expected no more bytes")),
            Phase::Failed(error) => return Err(error.clone()),
        };
        if let Err(error) = stream.push(bytes) {
            return Err(self.fail(error));
        }
        let (done, total) = stream.progress();
        // Only the newest progress is worth reading.
        self.events.retain(|event| !matches!(event, HostEvent::Loading { .. }));
        self.events.push(HostEvent::Loading { done, total });
        Ok(())
    }

    /// All bytes are there: makes the model. Calling it again changes nothing.
    ///
    /// # Errors
    /// As `load::Stream::finish`; after that everything fails the same way.
    pub fn finish(&mut self) -> Result<Arc<ModelInfo>> {
        if let Phase::Loading(_) = self.phase {
            let unfinished = Phase::Failed(Error::internal("loading was left unfinished"));
            let Phase::Loading(stream) = std::mem::replace(&mut self.phase, unfinished) else { return self.info() };
            let loaded = stream.finish().map_err(|error| self.fail(error))?;
            let tokenizer = loaded.tokenizer;
            let engine = Engine::new(loaded.model, tokenizer.clone(), self.limits, monotonic_ms);
            let engine = engine.speculating(self.speculate, None);
            self.phase = Phase::Ready(Box::new(Ready { engine, info: Arc::new(loaded.info), tokenizer }));
            self.events.push(HostEvent::Ready);
        }
        self.info()
    }

    /// Hand in a request; its events come out of `take_events`.
    ///
    /// # Errors
    /// `overloaded` when too many wait, and what keeps the engine from serving.
    pub fn submit(&mut self, ask: impl Into<Ask>) -> Result<RequestId> {
        let (limit, id) = (self.limits.max_waiting, self.last_id % (i32::MAX as u32) + 1);
        let engine = &mut self.ready_mut()?.engine;
        if engine.waiting() >= limit {
            let message = format!("at most {limit} requests may wait, try again later");
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        let mut events = Vec::new();
        engine.submit(id, ask, random_seed(), &mut events);
        self.last_id = id;
        self.keep(events);
        Ok(id)
    }

    /// End a request; its `Done` follows. Ids that have ended are ignored.
    pub fn cancel(&mut self, id: RequestId) {
        let mut events = Vec::new();
        if let Ok(ready) = self.ready_mut() {
            ready.engine.cancel(id, &mut events);
        }
        self.keep(events);
    }

    /// One piece of work. Returns false when there is none, or when events must be taken first.
    pub fn step(&mut self) -> bool {
        let mut events = Vec::new();
        let rest = self.events.len() >= MAX_PENDING_EVENTS;
        let worked = match self.ready_mut() {
            Ok(ready) if !rest => ready.engine.step(&|_| false, &mut events),
            _ => false,
        };
        self.keep(events);
        worked
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<HostEvent> {
        std::mem::take(&mut self.events)
    }

    /// What was loaded.
    ///
    /// # Errors
    /// While loading and after a failure.
    pub fn info(&self) -> Result<Arc<ModelInfo>> {
        Ok(self.ready()?.info.clone())
    }

    /// The tokenizer of what was loaded.
    ///
    /// # Errors
    /// While loading and after a failure.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        Ok(&self.ready()?.tokenizer)
    }

    /// How busy the engine is.
    pub fn stats(&self) -> Stats {
        match self.ready() {
            Err(_) => Stats::default(),
            Ok(Ready { engine, .. }) => Stats {
                waiting: engine.waiting(),
                running: engine.running(),
                generated_tokens: engine.generated(),
                guessed: engine.guessed(),
                healthy: true,
            },
        }
    }

    fn ready(&self) -> Result<&Ready> {
        match &self.phase {
            Phase::Ready(ready) => Ok(ready),
            Phase::Loading(_) => Err(still_loading()),
            Phase::Failed(error) => Err(error.clone()),
        }
    }

    fn ready_mut(&mut self) -> Result<&mut Ready> {
        match &mut self.phase {
            Phase::Ready(ready) => Ok(ready),
            Phase::Loading(_) => Err(still_loading()),
            Phase::Failed(error) => Err(error.clone()),
        }
    }

    fn keep(&mut self, events: Vec<Event>) {
        self.events.extend(events.into_iter().map(HostEvent::Request));
    }

    fn fail(&mut self, error: Error) -> Error {
        self.phase = Phase::Failed(error.clone());
        error
    }
}

fn still_loading() -> Error {
    Error::invalid_request("the model is still loading, wait for it to be ready")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EventKind, FinishReason, Guessed, Request};

    fn file() -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tiny-llama2.gguf")).expect("fixture")
    }

    fn config(json: serde_json::Value) -> SteppedConfig {
        serde_json::from_value(json).expect("configuration")
    }

    fn request(json: &str) -> Request {
        Request::from_json(json.as_bytes()).expect("request")
    }

    fn ready(max_waiting: usize) -> Stepped {
        let file = file();
        let mut engine =
            Stepped::new(&config(serde_json::json!({ "file_bytes": file.len(), "max_waiting": max_waiting }))).unwrap();
        file.chunks(4096).for_each(|piece| engine.push(piece).expect("room"));
        engine.finish().expect("loads");
        engine
    }

    /// Text and end of each request, by id.
    fn outcome(events: &[HostEvent], id: RequestId) -> (String, Option<FinishReason>) {
        let mut outcome = (String::new(), None);
        for event in events {
            match event {
                HostEvent::Request(Event { request, kind: EventKind::Text { text, .. } }) if *request == id => {
                    outcome.0 += text;
                }
                HostEvent::Request(Event { request, kind: EventKind::Done { reason, .. } }) if *request == id => {
                    outcome.1 = Some(*reason);
                }
                _ => {}
            }
        }
        outcome
    }

    #[test]
    fn loading_reports_progress_once_and_then_ready() {
        let events = ready(1).take_events();
        let [HostEvent::Loading { done, total }, HostEvent::Ready] = events[..] else { panic!("{events:?}") };
        assert!(done == total && total > 0);
    }

    #[test]
    fn several_replies_share_passes_and_one_may_be_cancelled() {
        let mut engine = ready(8);
        let greedy = r#"{"prompt":["Hello"],"temperature":0,"ignore_eos":true,"max_tokens":12}"#;
        let ids = [0; 3].map(|_| engine.submit(request(greedy)).expect("room"));
        let stats = |waiting, generated_tokens| Stats { waiting, generated_tokens, healthy: true, ..Stats::default() };
        assert_eq!(engine.stats(), stats(3, 0));
        assert!(engine.step());
        engine.cancel(ids[1]);
        engine.cancel(99);
        let mut events = Vec::new();
        while engine.step() {
            events.extend(engine.take_events());
        }
        let [first, second, third] = ids.map(|id| outcome(&events, id));
        assert_eq!((first.1, second.1), (Some(FinishReason::Length), Some(FinishReason::Cancelled)));
        assert_eq!(first, third, "the same question has the same answer");
        assert_eq!(Stats { guessed: Guessed::default(), ..engine.stats() }, stats(0, 12 + 1 + 12));
    }

    #[test]
    fn unread_events_make_the_engine_rest() {
        let mut engine = ready(MAX_PENDING_EVENTS);
        for _ in 0..MAX_PENDING_EVENTS {
            engine.submit(request(r#"{"prompt":["a"],"max_tokens":1}"#)).expect("room");
        }
        assert!(!engine.step());
        assert!(!engine.take_events().is_empty() && engine.step());
        let error = (0..MAX_PENDING_EVENTS).find_map(|_| engine.submit(request(r#"{"prompt":["a"]}"#)).err());
        assert_eq!(error.map(|e| e.kind()), Some(ErrorKind::Overloaded));
    }

    #[test]
    fn what_comes_at_the_wrong_time_is_refused() {
        let mut engine = Stepped::new(&config(serde_json::json!({ "file_bytes": 8 }))).unwrap();
        assert!(!engine.step() && engine.tokenizer().is_err() && !engine.stats().healthy);
        let error = engine.submit(request(r#"{"prompt":["a"]}"#)).expect_err("too early");
        assert!(error.to_string().contains("still loading"), "{error}");
        let broken = engine.push(b"nonsense").expect_err("no model");
        assert_eq!((engine.push(b"GGUF"), engine.finish().err()), (Err(broken.clone()), Some(broken)));
        let mut engine = ready(1);
        assert!(engine.push(b"x").expect_err("too late").to_string().contains("expected no more bytes"));
        assert_eq!(engine.finish(), engine.info(), "finishing twice changes nothing");
        assert!(Stepped::new(&config(serde_json::json!({ "file_bytes": 1, "max_running": 0 }))).is_err());
    }
}
