//! The border as a C caller sees it, on a small model from tests/fixtures.

use std::time::{Duration, Instant};

use super::*;
use crate::engine::{Event, EventKind, MAX_TOKEN_BYTES, MAX_TOP, TokenLogprob};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tiny-llama2.gguf");
const PATIENCE: Duration = Duration::from_secs(60);

struct Record {
    request: u32,
    kind: u32,
    payload: Vec<u8>,
}

fn open(json: &str) -> i32 {
    // SAFETY: a valid buffer.
    unsafe { llamero_open(json.as_ptr(), json.len()) }
}

fn open_tiny() -> i32 {
    let engine = open(&serde_json::json!({ "path": MODEL }).to_string());
    assert!(engine > 0);
    until(engine, |record| record.kind == 2);
    engine
}

fn submit(engine: i32, json: &str) -> i32 {
    // SAFETY: a valid buffer.
    unsafe { llamero_submit(engine, json.as_ptr(), json.len()) }
}

fn stats_of(engine: i32) -> serde_json::Value {
    let mut buffer = [0u8; 1024];
    // SAFETY: a valid buffer.
    let n = unsafe { llamero_stats(engine, buffer.as_mut_ptr(), buffer.len()) };
    serde_json::from_slice(&buffer[..n as usize]).expect("stats")
}

fn last_error(engine: i32) -> String {
    let mut buffer = [0u8; 1024];
    // SAFETY: a valid buffer.
    let n = unsafe { llamero_last_error(engine, buffer.as_mut_ptr(), buffer.len()) };
    String::from_utf8_lossy(&buffer[..n as usize]).into_owned()
}

fn wait(engine: i32) -> std::result::Result<Vec<Record>, i32> {
    let mut buffer = vec![0u8; MIN_WAIT_BUFFER];
    // SAFETY: a valid buffer.
    let n = unsafe { llamero_wait(engine, buffer.as_mut_ptr(), buffer.len(), 1000) };
    let end = usize::try_from(n).map_err(|_| n)?;
    let word = |at: usize| u32::from_le_bytes(buffer[at..at + 4].try_into().expect("four bytes"));
    let mut records = Vec::new();
    let mut at = 0;
    while at < end {
        let payload = buffer[at + 16..at + 16 + word(at + 12) as usize].to_vec();
        records.push(Record { request: word(at + 4), kind: word(at + 8), payload });
        at += word(at) as usize;
    }
    Ok(records)
}

/// All records up to the first that `stop` accepts.
fn until(engine: i32, stop: impl Fn(&Record) -> bool) -> Vec<Record> {
    let start = Instant::now();
    let mut all = Vec::new();
    while start.elapsed() < PATIENCE {
        for record in wait(engine).expect("records") {
            let last = stop(&record);
            all.push(record);
            if last {
                return all;
            }
        }
    }
    panic!("no such record in {PATIENCE:?}");
}

#[test]
fn a_conversation_over_the_border() {
    let engine = open_tiny();
    let request = submit(engine, r#"{"prompt":["Hello"],"max_tokens":8,"temperature":0,"ignore_eos":true}"#);
    assert!(request > 0);
    let records = until(engine, |record| record.kind >= 5 && record.kind <= 6);
    assert!(records.iter().all(|record| record.request == request as u32));
    assert_eq!(records[0].kind, 7);
    let done: serde_json::Value = serde_json::from_slice(&records.last().expect("done").payload).expect("JSON");
    assert_eq!((&done["reason"], &done["completion_tokens"]), (&"length".into(), &8.into()));
    assert_eq!(llamero_close(engine), 0);
}

#[test]
fn a_vector_over_the_border() {
    let engine = open_tiny();
    let embed = |json: &str| {
        // SAFETY: a valid buffer.
        unsafe { llamero_embed(engine, json.as_ptr(), json.len()) }
    };
    let request = embed(r#"{"prompt":["Hello"],"pooling":"last"}"#);
    assert!(request > 0);
    let records = until(engine, |record| record.kind != 7);
    let [started, vector] = &records[records.len() - 2..] else { panic!("two records") };
    assert_eq!((started.kind, vector.kind, vector.request), (7, 10, request as u32));
    assert_eq!(started.payload[..4], vector.payload[..4], "tokens of the prompt");
    let values: Vec<f32> = vector.payload[4..].as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let norm: f32 = values.iter().map(|v| v * v).sum();
    assert!(values.len() > 1 && (norm - 1.0).abs() < 1e-5, "{} numbers, {norm}", values.len());
    assert_eq!(embed(r#"{"prompt":["a"],"pooling":"max"}"#), ErrorKind::InvalidRequest.code());
    assert_eq!(llamero_close(engine), 0);
}

fn tokenize(engine: i32, prompt: &str, out: &mut [u32]) -> i32 {
    // SAFETY: valid buffers.
    unsafe { llamero_tokenize(engine, prompt.as_ptr(), prompt.len(), out.as_mut_ptr(), out.len()) }
}

fn detokenize(engine: i32, ids: &[u32], out: &mut [u8]) -> i32 {
    // SAFETY: valid buffers.
    unsafe { llamero_detokenize(engine, ids.as_ptr(), ids.len(), out.as_mut_ptr(), out.len()) }
}

#[test]
fn tokens_there_and_back_and_small_buffers() {
    let engine = open_tiny();
    let (mut ids, mut text) = ([7u32; 64], [0u8; 64]);
    let n = tokenize(engine, r#"["Hello world"]"#, &mut ids[..1]);
    assert!(n > 1 && ids[0] == 7, "too small a buffer is left alone");
    assert_eq!(tokenize(engine, r#"["Hello world"]"#, &mut ids), n);
    let bytes = detokenize(engine, &ids[..n as usize], &mut text);
    assert_eq!(&text[..bytes as usize], b"Hello world");
    assert!(detokenize(engine, &[u32::MAX], &mut text) < 0);
    // SAFETY: null is one of the pointers that the border must refuse.
    assert_eq!(unsafe { llamero_tokenize(engine, std::ptr::null(), 4, ids.as_mut_ptr(), ids.len()) }, -4);
    llamero_close(engine);
}

#[test]
fn handles_that_are_not_open_are_not_found() {
    let engine = open_tiny();
    llamero_close(engine);
    for id in [engine, 0, -1, i32::MAX, i32::MIN] {
        assert_eq!(submit(id, r#"{"prompt":["a"]}"#), ErrorKind::NotFound.code());
        assert_eq!(llamero_cancel(id, 1), ErrorKind::NotFound.code());
        assert_eq!(wait(id).err(), Some(ErrorKind::NotFound.code()));
        assert_eq!(llamero_close(id), 0, "closing is idempotent");
    }
    assert!(last_error(0).contains("expected an open engine"));
}

#[test]
fn bad_requests_come_back_with_their_sentence() {
    let engine = open_tiny();
    assert_eq!(submit(engine, r#"{"prompt":["a"],"top_p":-1}"#), ErrorKind::InvalidRequest.code());
    assert!(last_error(engine).starts_with("top_p must be"), "{}", last_error(engine));
    assert_eq!(llamero_cancel(engine, -5), 0);
    let mut small = [0u8; 16];
    // SAFETY: a valid buffer.
    let n = unsafe { llamero_wait(engine, small.as_mut_ptr(), small.len(), 0) };
    assert_eq!(n, ErrorKind::InvalidRequest.code());
    llamero_close(engine);
}

#[test]
fn loading_failures_are_events() {
    for (config, kind, word) in [
        (r#"{"path":"/nonexistent.gguf"}"#.to_string(), "io", "/nonexistent.gguf"),
        (
            serde_json::json!({ "path": concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml") }).to_string(),
            "unsupported",
            "*.gguf",
        ),
    ] {
        let engine = open(&config);
        let records = until(engine, |record| record.kind == 3);
        let text = String::from_utf8_lossy(&records.last().expect("failed").payload).into_owned();
        assert!(text.contains(kind) && text.contains(word), "{text}");
        assert_eq!(submit(engine, r#"{"prompt":["a"]}"#), if kind == "io" { -1 } else { -3 });
        llamero_close(engine);
    }
    assert_eq!(open(r#"{"path":"x","max_running":0}"#), ErrorKind::InvalidRequest.code());
    assert_eq!(open(r#"{"path":"x","draft":"y","speculate":"off"}"#), ErrorKind::InvalidRequest.code());
    assert_eq!(open(r#"{"path":"x","speculate":"always"}"#), ErrorKind::InvalidRequest.code());
    assert_eq!(open("nonsense"), ErrorKind::InvalidRequest.code());
}

#[test]
fn a_draft_must_have_the_same_vocabulary_and_changes_no_text() {
    let text = |config: serde_json::Value| {
        let engine = open(&config.to_string());
        assert!(until(engine, |record| record.kind <= 3 && record.kind >= 2).last().expect("an end").kind == 2);
        let id = submit(engine, r#"{"prompt":["Once upon"],"temperature":0.9,"seed":5,"max_tokens":60}"#) as u32;
        let records = until(engine, |record| record.request == id && record.kind == 5);
        let texts = records.iter().filter(|record| record.kind == 4).map(|record| &record.payload[4..]);
        let (said, stats) = (texts.collect::<Vec<_>>().concat(), stats_of(engine));
        llamero_close(engine);
        (said, stats["proposed_tokens"].as_u64().expect("a count"), stats["accepted_tokens"].as_u64().expect("a count"))
    };
    let (plain, none, _) = text(serde_json::json!({ "path": MODEL, "speculate": "off" }));
    let (drafted, proposed, accepted) = text(serde_json::json!({ "path": MODEL, "draft": MODEL }));
    assert!(plain == drafted && none == 0 && proposed > 0 && accepted <= proposed, "{proposed} {accepted}");
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/checkpoints/f16.gguf");
    let engine = open(&serde_json::json!({ "path": MODEL, "draft": other }).to_string());
    let records = until(engine, |record| record.kind == 3);
    let error = String::from_utf8_lossy(&records.last().expect("failed").payload).into_owned();
    assert!(error.contains("invalid_request") && error.contains("f16.gguf as a draft"), "{error}");
    llamero_close(engine);
}

#[test]
fn closing_ends_a_waiting_call_and_a_running_reply() {
    let engine = open_tiny();
    submit(engine, r#"{"prompt":["Hello"],"ignore_eos":true}"#);
    let waiting = std::thread::spawn(move || {
        loop {
            if let Err(code) = wait(engine) {
                return code;
            }
        }
    });
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(llamero_close(engine), 0);
    let code = waiting.join().expect("no panic crosses");
    assert!(code == ErrorKind::Closed.code() || code == ErrorKind::NotFound.code());
}

#[test]
fn a_cancelled_reply_says_so_and_others_go_on() {
    let engine = open_tiny();
    let one = submit(engine, r#"{"prompt":["Hello"],"ignore_eos":true,"temperature":0}"#);
    let two = submit(engine, r#"{"prompt":["Hello"],"ignore_eos":true,"temperature":0,"max_tokens":20}"#);
    let mut reasons = HashMap::new();
    // Every record is looked at: the second may be done before the first says a word.
    while reasons.len() < 2 {
        for record in wait(engine).expect("records") {
            if record.request == one as u32 && record.kind == 4 {
                assert_eq!(llamero_cancel(engine, one), 0);
            }
            if record.kind == 5 {
                let done: serde_json::Value = serde_json::from_slice(&record.payload).expect("JSON");
                reasons.insert(record.request as i32, done["reason"].as_str().expect("reason").to_owned());
            }
        }
    }
    assert_eq!((reasons[&one].as_str(), reasons[&two].as_str()), ("cancelled", "length"));
    llamero_close(engine);
}

/// Random enough that an unconstrained reply of this model is never JSON.
fn constrained(constraint: serde_json::Value, seed: u64) -> String {
    serde_json::json!({
        "prompt": ["Hello"], "max_tokens": 200, "ignore_eos": true, "constraint": constraint,
        "temperature": 2, "top_k": 0, "top_p": 1, "min_p": 0, "seed": seed,
    })
    .to_string()
}

fn reply(records: &[Record], request: i32) -> String {
    let texts = records.iter().filter(|record| record.request as i32 == request && record.kind == 4);
    texts.map(|record| String::from_utf8_lossy(&record.payload[4..]).into_owned()).collect()
}

#[test]
fn constrained_replies_are_json_at_a_high_temperature_and_fail_alone() {
    let engine = open_tiny();
    let schema = serde_json::json!({
        "type": "object",
        "properties": { "n": { "enum": ["één", "🦙"] }, "of": { "type": "array", "maxItems": 2, "items": { "type": "boolean" } } },
        "required": ["n", "of"],
        "additionalProperties": false,
    });
    let constraint = serde_json::json!({ "type": "json_schema", "schema": schema.to_string() });
    let good: Vec<i32> = (0..6).map(|seed| submit(engine, &constrained(constraint.clone(), seed))).collect();
    let bad = submit(engine, &constrained(serde_json::json!({ "type": "regex", "pattern": "(" }), 1));
    let plain = submit(engine, r#"{"prompt":["Hello"],"max_tokens":3}"#);
    let mut open = good.len() + 2;
    let mut records = Vec::new();
    while open > 0 {
        records.extend(wait(engine).expect("records"));
        open = good.len() + 2 - records.iter().filter(|record| matches!(record.kind, 5 | 6)).count();
    }
    let kinds = |request: i32| {
        records.iter().filter(|record| record.request as i32 == request).map(|record| record.kind).collect::<Vec<_>>()
    };
    for request in good {
        let text = reply(&records, request);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(["één", "🦙"].contains(&value["n"].as_str().expect("text")) && value["of"].is_array(), "{text}");
        let last = records.iter().rfind(|record| record.request as i32 == request).expect("done");
        assert!(String::from_utf8_lossy(&last.payload).contains(r#""reason":"stop""#));
        assert_eq!((kinds(request)[0], last.kind), (7, 5));
    }
    let failed = records.iter().find(|record| record.request as i32 == bad).expect("a record");
    assert_eq!(kinds(bad), [6], "nothing has begun");
    assert!(String::from_utf8_lossy(&failed.payload).contains("invalid_request"));
    assert_eq!(kinds(plain).last(), Some(&5));
    llamero_close(engine);
}

#[test]
fn constrained_requests_are_cancelled_and_closed_while_they_are_compiled() {
    let engine = open_tiny();
    let slow = serde_json::json!({ "type": "json_schema", "schema": serde_json::json!({
        "type": "object",
        "properties": (0..1000).map(|i| (format!("p{i}"), serde_json::json!({ "type": "string" }))).collect::<serde_json::Map<_, _>>(),
    }).to_string() });
    let requests: Vec<i32> = (0..6).map(|seed| submit(engine, &constrained(slow.clone(), seed))).collect();
    requests.iter().for_each(|&request| assert_eq!(llamero_cancel(engine, request), 0));
    let mut records = Vec::new();
    while records.iter().filter(|record: &&Record| record.kind == 5).count() < requests.len() {
        records.extend(wait(engine).expect("records"));
    }
    for request in requests {
        let of: Vec<&Record> = records.iter().filter(|record| record.request as i32 == request).collect();
        assert_eq!((of[0].kind, of.last().expect("done").kind), (7, 5));
        assert!(String::from_utf8_lossy(&of[of.len() - 1].payload).contains("cancelled"));
    }
    (0..6).for_each(|seed| assert!(submit(engine, &constrained(slow.clone(), seed)) > 0));
    assert_eq!(llamero_close(engine), 0, "which waits for the threads");
}

#[test]
fn constraints_beyond_their_limits_are_refused_at_the_door() {
    let engine = open_tiny();
    for (constraint, word) in [
        (serde_json::json!({ "type": "xml" }), "unknown variant"),
        (serde_json::json!({ "type": "regex" }), "pattern"),
        (serde_json::json!({ "type": "json_object", "schema": "{}" }), "unknown field"),
        (serde_json::json!({ "type": "grammar", "syntax": "ebnf", "grammar": "x" }), "ebnf"),
        (serde_json::json!({ "type": "choice", "choices": [] }), "choices"),
        (serde_json::json!({ "type": "json_schema", "schema": "x".repeat(10 << 20) }), "at most 524288"),
        (serde_json::json!({ "type": "x".repeat(10 << 20) }), "unknown variant"),
        (serde_json::json!("regex"), "constraint"),
    ] {
        assert_eq!(submit(engine, &constrained(constraint, 1)), ErrorKind::InvalidRequest.code());
        let said = last_error(engine);
        assert!(said.contains(word) && said.len() < 400, "{said}");
    }
    llamero_close(engine);
}

#[test]
fn a_panic_becomes_a_code_and_a_sentence() {
    assert_eq!(export(0, || panic!("on purpose")), ErrorKind::Internal.code());
    assert!(last_error(0).contains("on purpose"), "{}", last_error(0));
}

#[test]
fn the_longest_tokens_and_all_their_rivals_fit_into_the_smallest_buffer() {
    let token = TokenLogprob { id: 1, logprob: -1.0, bytes: vec![0; MAX_TOKEN_BYTES] };
    let kind = EventKind::Logprobs { of_prompt: true, tokens: vec![token; MAX_TOP + 1] };
    let mut bytes = Vec::new();
    assert!(records::append(&HostEvent::Request(Event { request: 1, kind }), &mut bytes, MIN_WAIT_BUFFER));
}
