//! Guesses change no text, and cost next to nothing where they do not come true. Time is counted, not measured: passes
//! take what `COST` says.

use super::batch::{RESTS, actions, check_among_others};
use super::*;
use crate::engine::step::Guessed;

/// Numbers that hang on all of some others (splitmix64).
fn mixed(of: impl IntoIterator<Item = u64>) -> u64 {
    of.into_iter().fold(1, |hash: u64, x| {
        let z = (hash ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (z ^ z >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ z >> 32
    })
}

/// Logits of letters up to f and, seldom, of the end, from what is mixed with each.
fn logits(of: u64) -> Vec<f32> {
    let letter = |id: u64| (mixed([of, id]) % 256) as f32 / 40.0;
    let mut logits = vec![f32::NEG_INFINITY; 28];
    (0..6).for_each(|id| logits[id] = letter(id as u64));
    logits[END as usize] = letter(26) - 3.0;
    logits
}

/// What comes next hangs on the last two tokens: the text falls into circles, out of which a sampler may leap.
fn forgetful(tokens: &[u32]) -> Vec<f32> {
    logits(mixed(tokens.iter().rev().take(2).map(|&id| u64::from(id))))
}

/// What comes next hangs on where it stands: what stood in the text before says nothing.
fn fickle(tokens: &[u32]) -> Vec<f32> {
    logits(tokens.len() as u64)
}

/// Says the last 50 tokens again and again.
fn quoting(tokens: &[u32]) -> Vec<f32> {
    let mut logits = vec![0.0; 28];
    logits[tokens[tokens.len().saturating_sub(50)] as usize] = 10.0;
    logits
}

/// Says the end.
fn ending(_: &[u32]) -> Vec<f32> {
    logits_after(END - 1)
}

/// a, b, c, a, …
fn circle(tokens: &[u32]) -> Vec<f32> {
    logits_after(match tokens[tokens.len() - 1] {
        2 => END,
        other => other,
    })
}

/// A draft model with another letter makes it fail at that.
fn speculating(script: Script, draft: Option<Script>, poison: u32, limits: Limits) -> Engine<Scripted> {
    let draft = draft.map(|script| Scripted { script, cost: 0.1, poison });
    engine_of(script, limits).speculating(Speculate::Auto, draft)
}

proptest! {
    /// Whatever is sampled, in whatever grammar, until whatever stop, among whomever; whether the draft model is mostly
    /// right, mostly wrong, says the end or fails at some letter.
    #[test]
    fn guesses_change_nothing(
        prompts in proptest::collection::vec("([a-c]{1,30}|(ab){1,20}|(fedcba){1,9})", RESTS.len()),
        actions in actions(),
        draft in 0usize..5,
        seed: u64,
    ) {
        let (script, poison) = [
            (None, POISON),
            (Some(forgetful as Script), POISON),
            (Some(fickle as Script), POISON),
            (Some(ending as Script), POISON),
            (Some(forgetful as Script), 5),
        ][draft];
        let engine = speculating(forgetful, script, poison, Limits { max_running: 4, max_waiting: 64 });
        check_among_others(engine, forgetful, &prompts, actions, seed);
    }
}

/// Milliseconds that some replies took, alone or together, what they said, and what was guessed.
fn timed(
    mut engine: Engine<Scripted>,
    prompts: &[String],
    rest: &str,
    cost: (f64, f64),
) -> (f64, Vec<String>, Guessed) {
    COST.set(cost);
    CLOCK.set(0.0);
    let mut events = Vec::new();
    for (id, prompt) in (1..).zip(prompts) {
        engine.submit(id, request(prompt, rest), 0, &mut events);
    }
    let all = finish(&mut engine, events);
    COST.set((0.0, 0.0));
    (CLOCK.get(), all.values().map(|kinds| text(kinds)).collect(), engine.guessed())
}

/// How much faster it is to guess ahead; what is said must be the same.
fn speedup(script: Script, draft: Option<Script>, prompts: &[String], rest: &str, cost: (f64, f64)) -> (f64, Guessed) {
    let (plain, said, none) = timed(engine_of(script, Limits::default()), prompts, rest, cost);
    let (ahead, same, guessed) = timed(speculating(script, draft, POISON, Limits::default()), prompts, rest, cost);
    assert_eq!((said, none), (same, Guessed::default()));
    (plain / ahead, guessed)
}

/// A text of so many letters up to f in which nothing is to be found twice but by chance.
fn letters(n: usize, seed: u64) -> String {
    (0..n).map(|i| char::from(b'a' + (mixed([seed, i as u64]) % 6) as u8)).collect()
}

/// Passes whose time goes into reading weights, as those of large models, and into arithmetic, as those of small ones.
const COSTS: [(f64, f64); 4] = [(140.0, 17.0), (4.0, 1.0), (4.0, 2.0), (4.0, 4.0)];
const LONG: &str = r#","max_tokens":140"#;

#[test]
fn a_text_that_quotes_is_faster() {
    for (cost, least) in COSTS.into_iter().zip([3.0, 2.0, 1.3, 0.97]) {
        let (faster, guessed) = speedup(quoting, None, &[letters(50, 1)], LONG, cost);
        assert!(faster > least, "{faster} times with {cost:?}, {guessed:?}");
    }
}

#[test]
fn a_text_without_repeats_is_not_slower() {
    for cost in COSTS {
        for seed in 0..5 {
            let (faster, guessed) = speedup(fickle, None, &[letters(50, seed)], LONG, cost);
            assert!(faster > 0.97, "{faster} times with {cost:?}, {guessed:?}");
            let (faster, guessed) = speedup(fickle, Some(forgetful), &[letters(50, seed)], LONG, cost);
            assert!(faster > 0.95, "{faster} times with {cost:?} and a draft, {guessed:?}");
        }
    }
}

#[test]
fn many_that_decode_together_guess_less_and_are_not_slower() {
    let prompts: Vec<String> = (0..8).map(|seed| letters(50, seed)).collect();
    for cost in COSTS {
        let (faster, guessed) = speedup(fickle, None, &prompts, LONG, cost);
        assert!(faster > 0.97, "{faster} times with {cost:?}, {guessed:?}");
    }
    let (faster, together) = speedup(quoting, None, &prompts, LONG, COSTS[0]);
    let (_, alone) = speedup(quoting, None, &prompts[..1], LONG, COSTS[0]);
    assert!(faster > 1.2 && together.proposed < 8 * alone.proposed, "{faster} times, {together:?}");
}

#[test]
fn a_draft_model_that_is_right_makes_it_faster() {
    let (faster, guessed) = speedup(fickle, Some(fickle), &[letters(50, 1)], LONG, COSTS[0]);
    assert!(faster > 1.8 && 10 * guessed.accepted > 9 * guessed.proposed, "{faster} times, {guessed:?}");
}

#[test]
fn a_run_of_true_guesses_ends_where_the_reply_does() {
    for (rest, said, reason) in [
        (r#","max_tokens":7"#, "abcabca", FinishReason::Length),
        (r#","max_tokens":20,"stop":["cab"]"#, "ab", FinishReason::Stop),
        (r#","max_tokens":1"#, "a", FinishReason::Length),
    ] {
        let mut engine = speculating(circle, None, POISON, Limits::default());
        let mut events = Vec::new();
        engine.submit(1, request("abcabcabcabc", rest), 0, &mut events);
        let all = finish(&mut engine, events);
        assert_eq!((text(&all[&1]).as_str(), end(&all[&1]).0), (said, reason), "{rest}");
    }
}

#[test]
fn nothing_is_guessed_where_that_is_off() {
    let mut engine = engine_of(quoting, Limits::default()).speculating(Speculate::Off, None);
    let mut events = Vec::new();
    engine.submit(1, request(&letters(60, 1), r#","max_tokens":20"#), 0, &mut events);
    finish(&mut engine, events);
    assert_eq!(engine.guessed(), Guessed::default());
}
