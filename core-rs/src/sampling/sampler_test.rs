use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

fn sampler(params: SamplingParams, seed: u64) -> Sampler {
    Sampler::new(params, seed).expect("valid parameters")
}

fn greedy() -> SamplingParams {
    SamplingParams { temperature: 0.0, ..Default::default() }
}

fn plain(temperature: f32) -> SamplingParams {
    SamplingParams { temperature, top_k: 0, top_p: 1.0, min_p: 0.0, ..Default::default() }
}

/// Choose and observe, whatever is chosen.
fn next(sampler: &mut Sampler, logits: &mut [f32]) -> Result<u32> {
    let id = sampler.sample(logits, &mut |_| true)?;
    sampler.observe(id, false);
    Ok(id)
}

#[test]
fn greedy_takes_the_highest_and_the_lowest_id_among_equals() {
    assert_eq!(next(&mut sampler(greedy(), 0), &mut [0.0, 3.0, 3.0, -1.0]), Ok(1));
}

#[test]
fn nan_and_infinite_logits_are_never_chosen() {
    let mut logits = [f32::NAN, f32::INFINITY, 1.0, f32::NEG_INFINITY];
    assert_eq!(next(&mut sampler(greedy(), 0), &mut logits), Ok(2));
    assert_eq!(next(&mut sampler(plain(1.0), 0), &mut logits), Ok(2));
}

#[test]
fn no_finite_logit_is_an_error() {
    let mirostat = |mirostat| SamplingParams { mirostat, ..plain(1.0) };
    for params in [greedy(), plain(1.0), SamplingParams::default(), mirostat(1), mirostat(2)] {
        let error = next(&mut sampler(params.clone(), 0), &mut [f32::NAN; 3]).expect_err("nothing to choose");
        assert_eq!(error.kind(), crate::error::ErrorKind::Internal);
        assert!(next(&mut sampler(params, 0), &mut []).is_err());
    }
}

#[test]
fn the_same_seed_gives_the_same_choices_and_another_seed_others() {
    let run = |seed| {
        let mut s = sampler(plain(1.0), seed);
        (0..64).map(|_| next(&mut s, &mut [0.0; 50]).expect("finite")).collect::<Vec<_>>()
    };
    assert_eq!(run(42), run(42));
    assert_ne!(run(42), run(43));
}

#[test]
fn filters_that_are_off_do_not_change_what_a_seed_says() {
    let run = |samplers: Vec<Filter>| {
        let mut s = sampler(SamplingParams { samplers, xtc_threshold: 0.6, xtc_probability: 1.0, ..plain(0.8) }, 3);
        (0..64).map(|i| next(&mut s, &mut [0.0, 0.5, 1.0, i as f32 / 64.0]).expect("finite")).collect::<Vec<_>>()
    };
    assert_eq!(run(SamplingParams::default().samplers), run(vec![Filter::Temperature]));
}

#[test]
fn draws_follow_the_probabilities() {
    let mut s = sampler(plain(1.0), 7);
    let probabilities = [0.6f32, 0.3, 0.1];
    let mut counts = [0u32; 3];
    for _ in 0..20_000 {
        counts[next(&mut s, &mut probabilities.map(f32::ln)).expect("finite") as usize] += 1;
    }
    for (count, p) in counts.iter().zip(probabilities) {
        assert!((*count as f32 / 20_000.0 - p).abs() < 0.015, "{counts:?}");
    }
}

#[test]
fn a_high_temperature_flattens_and_a_low_one_sharpens() {
    let share = |t| {
        let mut s = sampler(plain(t), 1);
        (0..2000).filter(|_| next(&mut s, &mut [1.0, 0.0]) == Ok(0)).count()
    };
    assert!(share(100.0) < 1100 && share(0.05) == 2000);
}

#[test]
fn the_penalty_covers_prompt_and_reply() {
    let params = SamplingParams { repeat_penalty: 2.0, ..greedy() };
    let mut s = sampler(params, 0);
    s.observe(1, false);
    let logits = [1.4, 2.0, 0.9, -0.1];
    let chosen: Vec<_> = (0..3).map(|_| next(&mut s, &mut logits.clone()).expect("finite")).collect();
    // 2.0 / 2 < 1.4; then 1.4 / 2 < 1.0; then all three are halved and 1.0 leads.
    assert_eq!(chosen, [0, 1, 1]);
}

#[test]
fn ids_beyond_the_vocabulary_are_ignored_by_the_penalties() {
    let mut s = sampler(SamplingParams { repeat_penalty: 2.0, ..greedy() }, 0);
    s.observe(u32::MAX, false);
    assert_eq!(next(&mut s, &mut [0.0, 1.0]), Ok(1));
}

#[test]
fn a_window_forgets_what_is_further_back() {
    let at = |last_n| {
        let params = SamplingParams { presence_penalty: 1.0, repeat_last_n: last_n, ..greedy() };
        let mut s = sampler(params, 0);
        [0, 1, 1, 0, 2].iter().for_each(|&id| s.observe(id, false));
        let mut logits = [0.0; 4];
        s.penalise(&mut logits);
        logits
    };
    assert_eq!(at(None), [-1.0, -1.0, -1.0, 0.0]);
    assert_eq!(at(Some(2)), [-1.0, 0.0, -1.0, 0.0]);
    assert_eq!(at(Some(3)), [-1.0, -1.0, -1.0, 0.0]);
    assert_eq!(at(Some(0)), [0.0; 4]);
}

#[test]
fn a_token_that_is_not_accepted_gives_way_to_the_next() {
    for params in [greedy(), SamplingParams { top_k: 1, ..plain(1.0) }, SamplingParams { mirostat: 2, ..plain(0.1) }] {
        let mut refused = Vec::new();
        let mut accept = |id| {
            refused.push(id);
            id == 1
        };
        assert_eq!(sampler(params, 0).sample(&mut [9.0, 1.0, 5.0], &mut accept), Ok(1));
        assert_eq!(refused, [0, 2, 1]);
    }
    let (mut logits, mut asked) = ((0..1000).map(|i| i as f32).collect::<Vec<_>>(), 0);
    let mut accept = |id| {
        asked += 1;
        id == 0
    };
    assert_eq!(sampler(plain(1.0), 0).sample(&mut logits, &mut accept), Ok(0));
    assert!(asked <= 1000 + 1 + MAX_REFUSED, "{asked}");
    let error = sampler(greedy(), 0).sample(&mut [9.0, 1.0], &mut |_| false).expect_err("all refused");
    assert_eq!(error.kind(), crate::error::ErrorKind::InvalidRequest);
}

#[test]
fn bias_and_lists_of_ids_come_before_everything() {
    let choice = |params: SamplingParams| next(&mut sampler(params, 0), &mut [3.0, 2.0, 1.0]);
    assert_eq!(choice(SamplingParams { logit_bias: vec![(2, 2.5), (9, 100.0)], ..greedy() }), Ok(2));
    assert_eq!(choice(SamplingParams { logit_bias: vec![(0, f32::NEG_INFINITY)], ..plain(0.01) }), Ok(1));
    assert_eq!(choice(SamplingParams { banned: vec![1, 0, 9], ..greedy() }), Ok(2));
    assert_eq!(choice(SamplingParams { allowed: Some(vec![9, 2, 1]), ..greedy() }), Ok(1));
    let nothing = choice(SamplingParams { allowed: Some(vec![1]), banned: vec![1], ..greedy() }).expect_err("nothing");
    assert_eq!(nothing.kind(), crate::error::ErrorKind::InvalidRequest);
}

#[test]
fn mirostat_learns_from_what_it_chooses() {
    for mirostat in [1, 2] {
        let params = SamplingParams { mirostat, mirostat_tau: 2.0, mirostat_eta: 0.5, ..plain(1.0) };
        let mut s = sampler(params, 0);
        // The only candidate is no surprise: mu grows from 2 tau by eta tau.
        next(&mut s, &mut [1.0]).expect("finite");
        assert_eq!(s.mu, 5.0);
        // One of eight equals surprises by 3 bits, one more than is wanted.
        next(&mut s, &mut [1.0; 8]).expect("finite");
        assert_eq!(s.mu, 4.5);
    }
}

#[test]
fn mirostat_holds_its_surprise() {
    let logits: Vec<f32> = (1..2000).map(|rank| -1.1 * (rank as f32).ln()).collect();
    for (mirostat, tau) in [(1, 3.0), (2, 3.0), (2, 5.0)] {
        let params = SamplingParams { mirostat, mirostat_tau: tau, ..plain(1.0) };
        let mut s = sampler(params, 5);
        let mut surprise = 0.0;
        for _ in 0..400 {
            let before = s.mu;
            next(&mut s, &mut logits.clone()).expect("finite");
            surprise += (before - s.mu) / 0.1 + tau;
        }
        assert!((surprise / 400.0 - tau).abs() < 0.3, "version {mirostat}: {} for {tau}", surprise / 400.0);
    }
}

#[test]
fn xtc_happens_as_often_as_it_is_asked_to() {
    let params = SamplingParams { xtc_probability: 0.3, xtc_threshold: 0.2, ..plain(1.0) };
    let mut s = sampler(params, 1);
    let mut lost = 0;
    for _ in 0..4000 {
        s.narrow(&[0.0, 0.0, -9.0]);
        lost += u32::from(s.candidates.sorted().len() < 3);
    }
    assert!((lost as f32 / 4000.0 - 0.3).abs() < 0.03, "{lost}");
}

#[test]
fn an_order_that_is_asked_for_is_kept() {
    let kept = |samplers: &[Filter]| {
        let params = SamplingParams { samplers: samplers.to_vec(), top_k: 2, presence_penalty: 2.0, ..plain(1.0) };
        let mut s = sampler(params, 0);
        s.observe(0, false);
        let mut logits = [3.0, 2.0, 1.5];
        s.penalise(&mut logits);
        s.narrow(&logits);
        s.candidates.sorted().iter().map(|c| (c.id, c.weight)).collect::<Vec<_>>()
    };
    assert_eq!(kept(&[Filter::Penalties, Filter::TopK]), [(1, 2.0), (2, 1.5)]);
    assert_eq!(kept(&[Filter::TopK, Filter::Penalties]), [(1, 2.0), (0, 1.0)]);
    assert_eq!(kept(&[]), [(0, 3.0), (1, 2.0), (2, 1.5)]);
}

/// What llama.cpp's samplers of the same names leave of the same logits.
#[test]
fn llama_cpp_keeps_the_same() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/sampling.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).expect("golden file")).expect("JSON");
    let (mut all, mut narrowed) = (BTreeSet::new(), BTreeSet::new());
    for case in golden["cases"].as_array().expect("cases") {
        let mut s = sampler(params(&case["params"]), 0);
        for seen in case["seen"].as_array().expect("ids") {
            let id = seen.as_u64().expect("an id");
            s.observe(id as u32, case["breaks"].as_array().expect("ids").contains(seen));
        }
        let mut logits: Vec<f32> = numbers(&golden["logits"][case["logits"].as_str().expect("a name")]);
        s.penalise(&mut logits);
        s.narrow(&logits);
        let mut kept = s.candidates.sorted().to_vec();
        kept.sort_unstable_by_key(|c| c.id);
        let want: Vec<u32> = numbers(&case["ids"]).into_iter().map(|id| id as u32).collect();
        assert_eq!(kept.iter().map(|c| c.id).collect::<Vec<_>>(), want, "{case}");
        for (c, want) in kept.iter().zip(numbers(&case["weights"])) {
            assert!((c.weight - want).abs() <= 2e-4 * want.abs().max(1.0), "{} is not {want}: {case}", c.weight);
        }
        all.insert(case["name"].to_string());
        if kept.len() < logits.len() {
            narrowed.insert(case["name"].to_string());
        }
    }
    assert!(all.len() >= 12 && narrowed.len() >= 8, "{all:?} {narrowed:?}");
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().expect("numbers").iter().map(|x| x.as_f64().expect("a number") as f32).collect()
}

fn params(fields: &Value) -> SamplingParams {
    let mut params = plain(1.0);
    for field in &SamplingParams::NUMBERS {
        if let Some(value) = fields[field.name].as_f64() {
            *(field.of)(&mut params) = value as f32;
        }
    }
    let count = |name: &str| fields[name].as_u64().map(|n| n as usize);
    params.top_k = count("top_k").unwrap_or(0);
    params.mirostat = count("mirostat").unwrap_or(0);
    params.dry_allowed_length = count("dry_allowed_length").unwrap_or(params.dry_allowed_length);
    params.repeat_last_n = count("repeat_last_n");
    params.dry_penalty_last_n = count("dry_penalty_last_n");
    params
}
