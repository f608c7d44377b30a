//! Conversations that share passes: none is touched by another, whatever the others do and whenever they come.

use super::*;

/// A model with a mind: what comes next hangs on the last two tokens, and mostly on where in the text they stand.
fn minded(tokens: &[u32]) -> Vec<f32> {
    let last = tokens.iter().rev().take(2).fold(tokens.len() as u64 / 16, |hash, &id| hash * 31 + u64::from(id));
    let logit = |id: u64| {
        let mixed = (last * 64 + id + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as f32 / 64.0
    };
    (0..28).map(|id| if id == u64::from(POISON) { f32::NEG_INFINITY } else { logit(id) }).collect()
}

/// What can be asked of a reply: each changes what its sequence does in a pass.
pub(super) const RESTS: [&str; 9] = [
    "",
    r#","temperature":1.2"#,
    r#","temperature":0.8,"top_k":8,"repeat_penalty":1.3"#,
    r#","logprobs":2,"max_tokens":9"#,
    r#","prompt_logprobs":1,"temperature":1"#,
    r#","stop":["ab","q"],"temperature":1"#,
    r#","dry_multiplier":1,"min_tokens":6"#,
    r#","bad_words":["e","ab"],"temperature":1"#,
    // Within a grammar.
    r#","temperature":1,"logprobs":1"#,
];

fn ask(which: usize, prompt: &str) -> Ask {
    let rest = RESTS[which];
    let greedy = if rest.contains("temperature") { "" } else { r#","temperature":0"# };
    // The first goes on to the end of the context.
    let limit = if which == 0 || rest.contains("max_tokens") { "" } else { r#","max_tokens":40"# };
    let json = format!(r#"{{"prompt":[{prompt:?}]{greedy}{limit}{rest}}}"#);
    let request = Request::from_json(json.as_bytes()).expect("valid");
    let places = || Places { left: ["abc", "bcde!", "a"].into_iter().cycle().take(20).collect(), bits: [0] };
    let grammar = (which == RESTS.len() - 1).then(|| Box::new(places()) as Box<dyn Grammar>);
    Ask::Reply(Box::new(request), grammar)
}

/// What one of the requests is told when it is alone and nothing is guessed.
fn alone(script: Script, which: usize, prompt: &str, seed: u64) -> Vec<EventKind> {
    let mut engine = engine_of(script, Limits::default());
    let mut events = Vec::new();
    engine.submit(1, ask(which, prompt), seed, &mut events);
    finish(&mut engine, events).remove(&1).expect("events")
}

/// Every request in order, and whatever else may happen between passes.
pub(super) fn actions() -> impl Strategy<Value = Vec<(usize, u32)>> {
    proptest::collection::vec((0usize..12, 0u32..512), 9..60)
}

/// Conversations arrive, rest and leave as the actions say: every event of each is as if it were alone.
pub(super) fn check_among_others(
    mut engine: Engine<Scripted>,
    script: Script,
    prompts: &[String],
    actions: Vec<(usize, u32)>,
    seed: u64,
) {
    let (mut events, mut next, mut cancelled) = (Vec::new(), 0, BTreeSet::new());
    for (action, n) in actions {
        match action {
            0..4 if next < prompts.len() => {
                engine.submit(next as u32, ask(next, &prompts[next]), seed, &mut events);
                next += 1;
            }
            4 if n < 9 => {
                engine.cancel(n, &mut events);
                cancelled.insert(n);
            }
            _ => {
                engine.step(&|id| n >> id & 1 == 1, &mut events);
            }
        }
    }
    let all = finish(&mut engine, events);
    for (id, kinds) in all.iter().filter(|(id, _)| !cancelled.contains(id)) {
        let which = *id as usize;
        assert_eq!(kinds, &alone(script, which, &prompts[which], seed), "{}", RESTS[which]);
    }
    assert_eq!((engine.running(), engine.waiting(), CACHES.get()), (0, 0, 0));
}

proptest! {
    #[test]
    fn a_reply_is_the_same_among_others(
        prompts in proptest::collection::vec("[a-e]{1,150}", RESTS.len()),
        actions in actions(),
        seed: u64,
    ) {
        let engine = engine_of(minded, Limits { max_running: 5, max_waiting: 64 });
        check_among_others(engine, minded, &prompts, actions, seed);
    }
}

/// Several requests at once; what each said, and the tokens of each segment of each pass.
fn together(prompts: &[&str], rests: &[&str]) -> (BTreeMap<RequestId, Vec<EventKind>>, Vec<Vec<usize>>) {
    let mut engine = engine(Limits::default());
    let mut events = Vec::new();
    PASSES.take();
    for (id, (prompt, rest)) in (1..).zip(prompts.iter().zip(rests)) {
        engine.submit(id, request(prompt, rest), 0, &mut events);
    }
    (finish(&mut engine, events), PASSES.take())
}

#[test]
fn one_pass_serves_all() {
    let (all, passes) = together(&["ab", "c", "def"], &[r#","max_tokens":4"#; 3]);
    assert_eq!([1, 2, 3].map(|id| text(&all[&id])), ["cdef", "defg", "ghij"]);
    assert_eq!(passes, [vec![2, 1, 3], vec![1; 3], vec![1; 3], vec![1; 3]]);
}

#[test]
fn who_ends_early_leaves_the_pass() {
    let (_, passes) = together(&["a", "y", "b"], &[r#","max_tokens":3"#, "", r#","max_tokens":1"#]);
    assert_eq!(passes, [vec![1; 3], vec![1; 2], vec![1]]);
}

#[test]
fn who_fails_fails_alone() {
    // One allows nothing, one fails in the pass itself.
    let rests = ["", r#","bad_words":["b"],"allowed_token_ids":[1]"#, ""];
    let (all, _) = together(&["x", "a", "y"], &rests);
    assert_eq!(failure(&all[&2]).kind(), ErrorKind::InvalidRequest);
    assert_eq!((text(&all[&1]), text(&all[&3])), ("yz".into(), "z".into()));
    let (all, passes) = together(&["x", "a<poison>", "w"], &[""; 3]);
    assert_eq!(failure(&all[&2]).to_string(), "poisoned");
    assert_eq!((text(&all[&1]), text(&all[&3])), ("yz".into(), "xyz".into()));
    // The pass, each of it alone, then one for both that are left.
    assert_eq!(passes[..5], [vec![1, 2, 1], vec![1], vec![2], vec![1], vec![1, 1]]);
    let (all, passes) = together(&["<poison>"], &[""]);
    assert_eq!((failure(&all[&1]).to_string().as_str(), passes.len()), ("poisoned", 1));
}

#[test]
fn who_rests_stays_out_and_who_leaves_is_gone_before_the_next_pass() {
    let mut engine = engine(Limits::default());
    let mut events = Vec::new();
    (1..=3).for_each(|id| engine.submit(id, request("a", ""), 0, &mut events));
    engine.step(&|_| false, &mut events);
    PASSES.take();
    engine.step(&|id| id == 2, &mut events);
    engine.cancel(3, &mut events);
    engine.step(&|_| false, &mut events);
    assert_eq!(PASSES.take(), [[1, 1], [1, 1]]);
    let all = finish(&mut engine, events);
    assert_eq!((text(&all[&3]).as_str(), end(&all[&3]).0), ("bc", FinishReason::Cancelled));
    assert_eq!(text(&all[&2]), text(&all[&1]));
}

#[test]
fn prompts_take_turns_where_replies_leave_little_room() {
    let mut engine = engine(Limits::default());
    let mut events = Vec::new();
    engine.submit(1, request("a", ""), 0, &mut events);
    engine.step(&|_| false, &mut events);
    PASSES.take();
    engine.submit(2, request(&"a".repeat(150), ""), 0, &mut events);
    engine.submit(3, request(&"a".repeat(60), ""), 0, &mut events);
    (0..4).for_each(|_| assert!(engine.step(&|_| false, &mut events)));
    // 64 of the long one, all of the short one and 4 of the long one, and so on.
    assert_eq!(PASSES.take(), [vec![1, 64], vec![1, 60, 4], vec![1, 1, 64], vec![1, 1, 18]]);
}

#[test]
fn a_prompt_alone_comes_in_chunks_of_a_second() {
    // The first chunk tells how fast the machine is: at once, 10 ms and 100 ms for a token.
    for (cost, rest) in [((1.0, 0.1), vec![86]), ((10.0, 10.0), vec![86]), ((100.0, 100.0), vec![64, 22])] {
        COST.set(cost);
        let (_, passes) = together(&[&"a".repeat(150)], &[r#","max_tokens":1"#]);
        assert_eq!(passes.concat(), [vec![64], rest].concat(), "{cost:?}");
    }
    COST.set((0.0, 0.0));
}

#[test]
fn a_prompt_that_is_told_of_comes_in_small_chunks() {
    let (_, passes) = together(&[&"a".repeat(150)], &[r#","prompt_logprobs":0,"max_tokens":1"#]);
    assert_eq!(passes, [[PROMPT_TOLD], [PROMPT_TOLD], [150 - 2 * PROMPT_TOLD]]);
}
