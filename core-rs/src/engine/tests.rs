//! The step machine with a scripted model: after each letter comes the next of the alphabet, after `z` the end.

mod batch;
mod embed;
mod speculate;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::room::{PROMPT_BESIDE_REPLIES, PROMPT_TOLD};
use super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Segment, Wanted};
use crate::tokenizer::{TokenType, Tokenizer, VocabKind, VocabSpec};

const CONTEXT: usize = 200;
const END: u32 = 26;
/// A token that makes the scripted model fail; the letters of a draft model have their own.
const POISON: u32 = 27;

thread_local! {
    /// The longest run of tokens that a model was given at once, on this test's thread.
    static LONGEST: Cell<usize> = const { Cell::new(0) };
    /// The caches alive.
    static CACHES: Cell<isize> = const { Cell::new(0) };
    /// Tokens of each segment of each pass, until they are taken.
    static PASSES: RefCell<Vec<Vec<usize>>> = const { RefCell::new(Vec::new()) };
    /// Length of a hidden state.
    static EMBEDDING: Cell<usize> = const { Cell::new(2) };
    /// Milliseconds gone by, of a pass with one row, and of each further row.
    static CLOCK: Cell<f64> = const { Cell::new(0.0) };
    static COST: Cell<(f64, f64)> = const { Cell::new((0.0, 0.0)) };
}

/// The logits after some tokens.
type Script = fn(&[u32]) -> Vec<f32>;

/// A model that follows a script.
struct Scripted {
    script: Script,
    /// Part of `COST` that its passes take: below 1 it is a draft model.
    cost: f64,
    /// A token that makes it fail.
    poison: u32,
}

struct Cache {
    tokens: Vec<u32>,
    reserved: usize,
}

impl Drop for Cache {
    fn drop(&mut self) {
        CACHES.set(CACHES.get() - 1);
    }
}

impl CausalLm for Scripted {
    type Cache = Cache;
    type Workspace = Vec<f32>;

    fn context_length(&self) -> usize {
        CONTEXT
    }

    fn vocabulary_size(&self) -> usize {
        28
    }

    fn embedding_length(&self) -> usize {
        EMBEDDING.get()
    }

    fn new_cache(&self) -> Cache {
        CACHES.set(CACHES.get() + 1);
        Cache { tokens: Vec::new(), reserved: 0 }
    }

    fn reserve(&self, cache: &mut Cache, n: usize) -> Result<()> {
        cache.reserved = cache.tokens.len() + n;
        assert!(cache.reserved <= CONTEXT, "the engine overran the context");
        Ok(())
    }

    fn truncate(&self, cache: &mut Cache, len: usize) {
        cache.tokens.truncate(len);
    }

    fn forward(&self, batch: &mut [Segment<'_, Cache>], output: &mut Vec<f32>) -> Result<()> {
        let sizes: Vec<usize> = batch.iter().map(|segment| segment.tokens.len()).collect();
        LONGEST.set(sizes.iter().copied().fold(LONGEST.get(), usize::max));
        let (one, row) = COST.get();
        CLOCK.set(CLOCK.get() + self.cost * (one + row * (sizes.iter().sum::<usize>() - 1) as f64));
        if self.cost == 1.0 {
            PASSES.with_borrow_mut(|passes| passes.push(sizes));
        }
        output.clear();
        if batch.iter().any(|segment| segment.tokens.contains(&self.poison)) {
            return Err(Error::internal("poisoned"));
        }
        batch.iter_mut().for_each(|segment| self.append(segment, output));
        Ok(())
    }

    fn output<'a>(&self, output: &'a mut Vec<f32>) -> &'a mut [f32] {
        output
    }
}

impl Scripted {
    fn append(&self, Segment { tokens, cache, wanted }: &mut Segment<'_, Cache>, output: &mut Vec<f32>) {
        assert!(!tokens.is_empty());
        for (i, &id) in tokens.iter().enumerate() {
            let at = cache.tokens.len();
            cache.tokens.push(id);
            match wanted {
                Wanted::Each => output.extend((self.script)(&cache.tokens)),
                Wanted::Last if i + 1 == tokens.len() => output.extend((self.script)(&cache.tokens)),
                // The token's number in the first place, its position in the second.
                Wanted::Hidden => {
                    output.extend([id as f32, at as f32]);
                    output.resize(output.len() + EMBEDDING.get() - 2, 0.0);
                }
                _ => {}
            }
        }
        assert!(cache.tokens.len() <= cache.reserved, "more tokens than were reserved");
    }
}

fn alphabet(tokens: &[u32]) -> Vec<f32> {
    logits_after(*tokens.last().expect("at least one token"))
}

fn logits_after(token: u32) -> Vec<f32> {
    let mut logits = vec![0.0; 28];
    logits[if token == END { 0 } else { token as usize + 1 }] = 10.0;
    logits
}

fn engine(limits: Limits) -> Engine<Scripted> {
    engine_of(alphabet, limits)
}

fn engine_of(script: Script, limits: Limits) -> Engine<Scripted> {
    let mut pieces: Vec<String> = ('a'..='z').map(String::from).collect();
    pieces.extend(["<end>".into(), "<poison>".into()]);
    let mut types = vec![TokenType::Normal; 26];
    types.extend([TokenType::Control; 2]);
    let spec = VocabSpec {
        kind: VocabKind::ByteLevel,
        pieces,
        types,
        scores: Vec::new(),
        merges: Vec::new(),
        pre: "default".into(),
        bos: None,
        eos: Some(END),
        eot: None,
        eom: None,
        unk: None,
        add_bos: false,
        add_eos: false,
        add_space_prefix: false,
        legacy: true,
        ends: Vec::new(),
    };
    let tokenizer = Arc::new(Tokenizer::new(spec).expect("vocabulary"));
    Engine::new(Scripted { script, cost: 1.0, poison: POISON }, tokenizer, limits, || CLOCK.get())
}

fn request(prompt: &str, rest: &str) -> Request {
    Request::from_json(format!(r#"{{"prompt":[{prompt:?}],"temperature":0{rest}}}"#).as_bytes()).expect("valid")
}

/// Everything said about each request, in order.
fn finish(engine: &mut Engine<Scripted>, mut events: Vec<Event>) -> BTreeMap<RequestId, Vec<EventKind>> {
    let mut steps = 0;
    while engine.step(&|_| false, &mut events) {
        steps += 1;
        assert!(steps < 10_000, "the engine does not come to an end");
    }
    let mut by_request = BTreeMap::<_, Vec<_>>::new();
    events.into_iter().for_each(|event| by_request.entry(event.request).or_default().push(event.kind));
    by_request
}

fn run(prompt: &str, rest: &str) -> Vec<EventKind> {
    let mut engine = engine(Limits::default());
    let mut events = Vec::new();
    engine.submit(1, request(prompt, rest), 0, &mut events);
    finish(&mut engine, events).remove(&1).expect("events")
}

fn text(events: &[EventKind]) -> String {
    let piece = |kind: &EventKind| if let EventKind::Text { text, .. } = kind { text.clone() } else { String::new() };
    events.iter().map(piece).collect()
}

/// The reason, stop text and token counts of the one `Done`, which must be the last.
fn end(events: &[EventKind]) -> (FinishReason, Option<String>, usize, usize) {
    let ends = events.iter().filter(|kind| matches!(kind, EventKind::Done { .. } | EventKind::Failed(_))).count();
    assert_eq!(ends, 1, "{events:?}");
    match events.last() {
        Some(EventKind::Done { reason, stop, usage, .. }) => {
            (*reason, stop.clone(), usage.prompt_tokens, usage.completion_tokens)
        }
        other => panic!("expected done, got {other:?}"),
    }
}

fn failure(events: &[EventKind]) -> &Error {
    match events {
        [EventKind::Failed(error)] | [EventKind::Started { .. }, EventKind::Failed(error)] => error,
        other => panic!("expected a failure, got {other:?}"),
    }
}

#[test]
fn a_reply_starts_streams_and_ends_at_the_end_token() {
    let events = run("abc", "");
    assert_eq!(events[0], EventKind::Started { prompt_tokens: 3 });
    assert_eq!(text(&events), "defghijklmnopqrstuvwxyz");
    assert_eq!(end(&events), (FinishReason::Stop, None, 3, 24));
}

#[test]
fn the_token_limit_ends_it() {
    for limit in [1, 2, 5] {
        let events = run("a", &format!(r#","max_tokens":{limit}"#));
        assert_eq!(text(&events).len(), limit);
        assert_eq!(end(&events), (FinishReason::Length, None, 1, limit));
    }
}

#[test]
fn a_stop_text_is_cut_off_and_named() {
    let events = run("a", r#","stop":["xyz","fgh"]"#);
    assert_eq!(text(&events), "bcde");
    assert_eq!(end(&events), (FinishReason::Stop, Some("fgh".into()), 1, 7));
}

#[test]
fn half_a_stop_text_is_shown_when_the_reply_ends_there() {
    let events = run("a", r#","stop":["yz!"]"#);
    assert_eq!(text(&events), "bcdefghijklmnopqrstuvwxyz");
    assert_eq!(end(&events).0, FinishReason::Stop);
}

#[test]
fn the_end_token_can_be_ignored_until_the_context_is_full() {
    let events = run("a", r#","ignore_eos":true"#);
    assert_eq!(end(&events), (FinishReason::Length, None, 1, CONTEXT - 1));
}

#[test]
fn prompts_at_the_edges_of_the_context() {
    for (len, fits) in [(CONTEXT - 1, true), (CONTEXT, false), (CONTEXT + 1, false), (10 * CONTEXT, false)] {
        let events = run(&"a".repeat(len), "");
        if fits {
            assert_eq!(end(&events), (FinishReason::Length, None, len, 1));
        } else {
            let error = failure(&events);
            assert_eq!(error.kind(), ErrorKind::ContextOverflow);
            assert!(error.to_string().contains(&len.to_string()) && error.to_string().contains("200"), "{error}");
        }
    }
}

#[test]
fn an_empty_prompt_is_refused() {
    assert_eq!(failure(&run("", "")).kind(), ErrorKind::InvalidRequest);
}

#[test]
fn prefill_comes_in_chunks_and_neighbours_run_beside() {
    let mut engine = engine(Limits::default());
    let mut events = Vec::new();
    engine.submit(1, request("a", ""), 0, &mut events);
    engine.step(&|_| false, &mut events);
    LONGEST.set(0);
    engine.submit(2, request(&"a".repeat(2 * PROMPT_BESIDE_REPLIES + 1), ""), 0, &mut events);
    let texts = |events: &[Event], id| {
        events.iter().filter(|e| e.request == id && matches!(e.kind, EventKind::Text { .. })).count()
    };
    for step in 1..=3 {
        engine.step(&|_| false, &mut events);
        assert_eq!((texts(&events, 1), texts(&events, 2)), (1 + step, step / 3));
    }
    assert_eq!(LONGEST.get(), PROMPT_BESIDE_REPLIES);
}

#[test]
fn a_failing_forward_fails_its_request_only() {
    let mut engine = engine(Limits::default());
    let mut events = Vec::new();
    engine.submit(1, request("a<poison>", ""), 0, &mut events);
    engine.submit(2, request("x", ""), 0, &mut events);
    let all = finish(&mut engine, events);
    assert_eq!(failure(&all[&1]).to_string(), "poisoned");
    assert_eq!(text(&all[&2]), "yz");
}

#[test]
fn more_than_may_wait_is_overloaded() {
    let mut engine = engine(Limits { max_running: 1, max_waiting: 2 });
    let mut events = Vec::new();
    (1..=3).for_each(|id| engine.submit(id, request("x", ""), 0, &mut events));
    let all = finish(&mut engine, events);
    assert_eq!(failure(&all[&3]).kind(), ErrorKind::Overloaded);
    assert_eq!((text(&all[&1]), text(&all[&2])), ("yz".into(), "yz".into()));
}

#[test]
fn a_blocked_reader_rests_while_others_run() {
    let mut engine = engine(Limits::default());
    let mut events = Vec::new();
    engine.submit(1, request("x", ""), 0, &mut events);
    engine.submit(2, request("x", ""), 0, &mut events);
    events.clear();
    while engine.step(&|id| id == 1, &mut events) {}
    assert!(events.iter().all(|event| event.request == 2) && !engine.has_work(&|id| id == 1));
    assert!(engine.has_work(&|_| false));
    assert_eq!(text(&finish(&mut engine, events)[&1]), "yz");
}

/// What is told of tokens of the prompt or the reply: the ids of the token and its rivals, and the probability.
fn told(events: &[EventKind], prompt: bool) -> Vec<(Vec<u32>, f32)> {
    let of = |kind: &EventKind| match kind {
        EventKind::Logprobs { of_prompt, tokens } if *of_prompt == prompt => {
            Some((tokens.iter().map(|token| token.id).collect(), tokens.first().map_or(0.0, |token| token.logprob)))
        }
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

/// The log probabilities of the letter that the model has in mind, and of any other.
fn likely() -> (f32, f32) {
    let sum = (10f64.exp() + 27.0).ln();
    ((10.0 - sum) as f32, -sum as f32)
}

#[test]
fn token_ids_are_a_prompt_and_must_be_in_the_vocabulary() {
    let ask = |json: &str| {
        let mut engine = engine(Limits::default());
        let mut events = Vec::new();
        engine.submit(1, Request::from_json(json.as_bytes()).expect("valid"), 0, &mut events);
        finish(&mut engine, events).remove(&1).expect("events")
    };
    let events = ask(r#"{"prompt_ids":[3,26,0],"temperature":0,"max_tokens":2}"#);
    assert_eq!((text(&events).as_str(), end(&events).2), ("bc", 3));
    for (field, ids) in [
        ("prompt_ids", "[0,28]"),
        ("stop_token_ids", "[28]"),
        ("logit_bias", "[[28,1]]"),
        ("allowed_token_ids", "[0,4000000000]"),
        ("banned_token_ids", "[28]"),
    ] {
        let prompt = if field == "prompt_ids" { "" } else { r#""prompt":["a"],"# };
        let events = ask(&format!("{{{prompt}\"{field}\":{ids}}}"));
        let error = failure(&events);
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().starts_with(field) && error.to_string().contains("below 28"), "{error}");
    }
    assert_eq!(failure(&ask(r#"{"prompt_ids":[]}"#)).kind(), ErrorKind::InvalidRequest);
}

#[test]
fn a_stop_token_ends_the_reply_unseen() {
    let events = run("a", r#","stop_token_ids":[3],"ignore_eos":true"#);
    assert_eq!((text(&events).as_str(), end(&events)), ("bc", (FinishReason::Stop, None, 1, 3)));
}

#[test]
fn end_and_stop_tokens_wait_for_the_least_number_of_tokens() {
    // Where the end is ruled out, all others are alike and the first letter comes.
    let events = run("x", r#","min_tokens":4,"stop_token_ids":[2]"#);
    assert_eq!((text(&events).as_str(), end(&events)), ("yzab", (FinishReason::Stop, None, 1, 5)));
    let events = run("x", r#","min_tokens":9,"max_tokens":3"#);
    assert_eq!((text(&events).as_str(), end(&events).0), ("yza", FinishReason::Length));
}

#[test]
fn a_bad_word_never_comes_about() {
    let events = run("a", r#","bad_words":["cd","x","ab"],"max_tokens":6"#);
    // After "bc" no d, so the first letter; after "a" no b, so the first letter again.
    assert_eq!(text(&events), "bcaaaa");
    let events = run("a", r#","bad_words":["b"],"allowed_token_ids":[1]"#);
    assert_eq!(failure(&events).kind(), ErrorKind::InvalidRequest);
}

#[test]
fn dry_sees_prompt_and_reply_and_stops_at_breakers() {
    for (rest, want) in [
        ("", "b"),
        (r#","dry_multiplier":10"#, "a"),
        (r#","dry_multiplier":10,"dry_sequence_breakers":["ca"]"#, "b"),
        (r#","dry_multiplier":10,"dry_sequence_breakers":["xy"]"#, "a"),
        (r#","dry_multiplier":10,"dry_penalty_last_n":3"#, "b"),
    ] {
        assert_eq!(text(&run("bcabca", &format!(r#","max_tokens":1{rest}"#))), want, "{rest}");
    }
}

#[test]
fn probabilities_are_told_before_the_text_that_their_tokens_make_up() {
    let events = run("a", r#","logprobs":2,"max_tokens":3"#);
    assert_eq!(told(&events, false), [1, 2, 3].map(|id| (vec![id, id, 0], likely().0)));
    let shape: String = events
        .iter()
        .map(|kind| match kind {
            EventKind::Logprobs { .. } => 'p',
            EventKind::Text { .. } => 't',
            _ => '.',
        })
        .collect();
    assert_eq!(shape, ".ptptpt.");
}

#[test]
fn tokens_that_a_stop_text_cuts_off_are_not_told_of() {
    let events = run("a", r#","logprobs":0,"stop":["fgh","zzz"]"#);
    assert_eq!(told(&events, false).into_iter().map(|(ids, _)| ids).collect::<Vec<_>>(), [[1], [2], [3], [4]]);
    let held = run("a", r#","logprobs":0,"stop":["efx"],"max_tokens":5"#);
    assert_eq!((told(&held, false).len(), text(&held).as_str()), (5, "bcdef"));
}

#[test]
fn a_token_without_text_is_told_of_with_an_empty_one() {
    let events = run("y", r#","logprobs":0,"ignore_eos":true,"max_tokens":2"#);
    assert_eq!(told(&events, false), [(vec![25], likely().0), (vec![END], likely().0)]);
    assert!(matches!(&events[4], EventKind::Text { text, completion_tokens: 2 } if text.is_empty()), "{events:?}");
}

#[test]
fn bias_and_filters_do_not_change_what_is_told() {
    let events = run("a", r#","logprobs":1,"max_tokens":1,"logit_bias":[[5,100]],"top_k":1"#);
    assert_eq!(told(&events, false), [(vec![5, 1], likely().1)]);
}

#[test]
fn the_prompt_is_told_of_token_by_token() {
    let prompt = "abcx".to_owned() + &"ab".repeat(PROMPT_TOLD);
    let events = run(&prompt, r#","prompt_logprobs":1,"max_tokens":1"#);
    let all = told(&events, true);
    assert_eq!(all.len(), prompt.len());
    let (expected, other) = likely();
    let start = [(vec![], 0.0), (vec![1, 1], expected), (vec![2, 2], expected), (vec![23, 3], other)];
    assert_eq!(all[..4], start);
    assert!(all[5..].iter().step_by(2).all(|one| *one == (vec![1, 1], expected)));
    assert_eq!((told(&events, false).len(), text(&events).as_str()), (0, "c"));
    // A reply without text still has a text event to carry them.
    let events = run("az", r#","prompt_logprobs":0"#);
    assert!(matches!(&events[3], EventKind::Text { text, .. } if text.is_empty()), "{events:?}");
}

/// A grammar of some texts in order: at each place one of some letters; `!` allows the end as well, `?` fails.
struct Places {
    left: std::collections::VecDeque<&'static str>,
    bits: [u32; 1],
}

impl Grammar for Places {
    fn allowed(&mut self) -> Result<&[u32]> {
        let letters = self.left.front().expect("not finished");
        if letters.contains('?') {
            return Err(Error::invalid_request("too complex"));
        }
        let ids = letters.bytes().map(|c| if c == b'!' { END } else { u32::from(c - b'a') });
        self.bits = [ids.fold(0, |bits, id| bits | 1 << id)];
        Ok(&self.bits)
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        assert!(self.bits[0] >> token & 1 == 1 && token != END, "only what is allowed");
        self.left.pop_front();
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.left.is_empty()
    }
}

fn run_within(places: &[&'static str], rest: &str) -> Vec<EventKind> {
    let mut engine = engine(Limits::default());
    let mut events = Vec::new();
    let grammar = Box::new(Places { left: places.iter().copied().collect(), bits: [0] });
    engine.submit(1, Ask::Reply(Box::new(request("a", rest)), Some(grammar)), 0, &mut events);
    finish(&mut engine, events).remove(&1).expect("events")
}

#[test]
fn a_reply_stays_in_its_grammar_and_ends_with_it() {
    // The model would say bcdef; among tokens of equal logits the first is chosen.
    for (places, said, reason, tokens) in [
        (&["bx", "zy", "c"][..], "byc", FinishReason::Stop, 3),
        (&["b", "c!", "z!"], "bcz", FinishReason::Stop, 3),
        (&["b", "!", "c"], "b", FinishReason::Stop, 2),
        (&[], "", FinishReason::Stop, 0),
        (&["b"; 10], "bbbbb", FinishReason::Length, 5),
    ] {
        for rest in [r#","max_tokens":5"#, r#","max_tokens":5,"ignore_eos":true"#] {
            let events = run_within(places, rest);
            assert_eq!(text(&events), said, "{places:?}");
            assert_eq!(end(&events), (reason, None, 1, tokens), "{places:?}");
        }
    }
}

#[test]
fn a_grammar_that_fails_ends_its_reply() {
    let events = run_within(&["b", "?"], "");
    assert!(matches!(events.last(), Some(EventKind::Failed(error)) if error.kind() == ErrorKind::InvalidRequest));
    assert_eq!(text(&events), "b");
}

#[test]
fn a_constraint_that_nobody_compiled_is_unsupported() {
    let events = run("a", r#","constraint":{"type":"regex","pattern":"a"}"#);
    assert_eq!(failure(&events).kind(), ErrorKind::Unsupported);
}

proptest! {
    /// Whatever is submitted, cancelled and stepped in whatever order: every request ends exactly once, nobody's text
    /// is touched by another, and every cache is freed.
    #[test]
    fn random_cancels_leave_nothing_behind(actions in proptest::collection::vec((0u8..5, 0u32..12), 1..120)) {
        let mut engine = engine(Limits { max_running: 3, max_waiting: 64 });
        let mut events = Vec::new();
        let mut last_id = 0;
        let (mut cancelled, mut embeddings) = (BTreeSet::new(), BTreeSet::new());
        for (action, n) in actions {
            match action {
                0 if last_id < 60 => {
                    last_id += 1;
                    engine.submit(last_id, request("p", ""), 0, &mut events);
                }
                4 if last_id < 60 => {
                    last_id += 1;
                    engine.submit(last_id, embed::request("pp", ""), 0, &mut events);
                    embeddings.insert(last_id);
                }
                1 => {
                    engine.cancel(n, &mut events);
                    cancelled.insert(n);
                }
                _ => {
                    engine.step(&|_| false, &mut events);
                }
            }
        }
        let all = finish(&mut engine, events);
        prop_assert_eq!(all.len() as u32, last_id);
        for (id, kinds) in &all {
            if embeddings.contains(id) {
                let whole = matches!(kinds[..], [EventKind::Started { .. }, EventKind::Embedding { .. }]);
                prop_assert!(whole || (cancelled.contains(id) && failure(kinds).kind() == ErrorKind::Closed));
                continue;
            }
            let reason = end(kinds).0;
            prop_assert!("qrstuvwxyz".starts_with(&text(kinds)));
            prop_assert!(cancelled.contains(id) || (reason == FinishReason::Stop && text(kinds) == "qrstuvwxyz"));
        }
        prop_assert_eq!((engine.running(), engine.waiting(), CACHES.get()), (0, 0, 0));
    }
}
