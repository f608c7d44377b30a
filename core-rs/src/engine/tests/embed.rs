//! Texts as vectors, with the scripted model: hidden states are a token's number and its position.

use super::*;

pub(super) fn request(prompt: &str, rest: &str) -> EmbedRequest {
    EmbedRequest::from_json(format!(r#"{{"prompt":[{prompt:?}]{rest}}}"#).as_bytes()).expect("valid")
}

fn run(request: EmbedRequest) -> Vec<EventKind> {
    let mut engine = engine(Limits::default());
    let mut events = Vec::new();
    engine.submit(1, request, 0, &mut events);
    let kinds = finish(&mut engine, events).remove(&1).expect("events");
    assert_eq!((CACHES.get(), engine.generated()), (0, 0));
    kinds
}

fn vector(events: &[EventKind]) -> (&[f32], usize) {
    match events {
        [EventKind::Started { prompt_tokens: started }, EventKind::Embedding { values, prompt_tokens }] => {
            assert_eq!(started, prompt_tokens);
            (values, *prompt_tokens)
        }
        other => panic!("expected a vector, got {other:?}"),
    }
}

fn check(request: EmbedRequest, (x, y): (f32, f32), tokens: usize) {
    check_events(&run(request), (x, y), tokens);
}

/// The vector must have length 1 and point to (x, y).
fn check_events(events: &[EventKind], (x, y): (f32, f32), tokens: usize) {
    let (values, prompt_tokens) = vector(events);
    let off = (values[0] - x / x.hypot(y)).hypot(values[1] - y / x.hypot(y));
    assert!(off < 1e-6 && values.len() == 2 && prompt_tokens == tokens, "{values:?} for {prompt_tokens} tokens");
}

#[test]
fn vectors_are_the_mean_or_the_last_state_at_length_one() {
    check(request("bd", ""), (2.0, 0.5), 2);
    check(request("bd", r#","pooling":"last""#), (3.0, 1.0), 2);
    let ids = EmbedRequest::from_json(br#"{"prompt":[],"prompt_ids":[1,3]}"#).expect("valid");
    check(ids, (2.0, 0.5), 2);
}

#[test]
fn long_prompts_come_in_chunks_and_neighbours_run_beside() {
    let (len, mut events) = (2 * PROMPT_BESIDE_REPLIES + 1, Vec::new());
    let mut engine = engine(Limits::default());
    engine.submit(2, super::request("a", ""), 0, &mut events);
    engine.step(&|_| false, &mut events);
    LONGEST.set(0);
    engine.submit(1, request(&"c".repeat(len), ""), 0, &mut events);
    for _ in 0..2 {
        engine.step(&|_| false, &mut events);
    }
    let texts = events.iter().filter(|event| matches!(event.kind, EventKind::Text { .. })).count();
    assert_eq!((LONGEST.get(), texts), (PROMPT_BESIDE_REPLIES, 3));
    let all = finish(&mut engine, events);
    check_events(&all[&1], (2.0, (len - 1) as f32 / 2.0), len);
}

#[test]
fn a_cancel_between_chunks_ends_it_as_closed() {
    for steps in 0..2 {
        let mut engine = engine(Limits::default());
        let mut events = Vec::new();
        engine.submit(2, super::request("a", ""), 0, &mut events);
        engine.step(&|_| false, &mut events);
        engine.submit(1, request(&"c".repeat(PROMPT_BESIDE_REPLIES + 1), ""), 0, &mut events);
        for _ in 0..steps {
            engine.step(&|_| false, &mut events);
        }
        engine.cancel(1, &mut events);
        let all = finish(&mut engine, events);
        assert_eq!(failure(&all[&1]).kind(), ErrorKind::Closed);
        assert_eq!((engine.running(), engine.waiting(), CACHES.get()), (0, 0, 0));
    }
}

#[test]
fn a_text_may_fill_the_context_and_no_more() {
    assert_eq!(vector(&run(request(&"c".repeat(CONTEXT), ""))).1, CONTEXT);
    let error = run(request(&"c".repeat(CONTEXT + 1), ""));
    assert_eq!(failure(&error).kind(), ErrorKind::ContextOverflow);
    assert!(failure(&error).to_string().ends_with("room for at most 200"), "{error:?}");
}

#[test]
fn what_cannot_be_embedded_is_refused() {
    assert_eq!(failure(&run(request("", ""))).kind(), ErrorKind::InvalidRequest);
    let unknown = EmbedRequest::from_json(br#"{"prompt":[],"prompt_ids":[1,28]}"#).expect("valid");
    assert_eq!(failure(&run(unknown)).to_string(), "prompt_ids must have token ids below 28, got 28");
    assert_eq!(failure(&run(request("a<poison>", ""))).to_string(), "poisoned");
    EMBEDDING.set(MAX_EMBEDDING + 1);
    assert_eq!(failure(&run(request("a", ""))).kind(), ErrorKind::Unsupported);
    EMBEDDING.set(2);
}
