//! Our ids, tokens and logits against llama.cpp's: the files in tests/golden say how they were made and what may differ.
//!
//! The small model is a fixture. SmolLM2 is not in the repository: `LLAMERO_TEST_MODEL` names the file (`llamero test`
//! fetches it and sets the variable), and without it these checks say that they are skipped.

use std::path::{Path, PathBuf};

use llamero::load::{self, Loaded};
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct Tokens {
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    name: String,
    text: String,
    ids: Vec<u32>,
    /// The ids when special tokens in the text are left as text; absent when there are none.
    plain_ids: Option<Vec<u32>>,
}

#[derive(Deserialize)]
struct Greedy {
    tolerance: Tolerance,
    prefill: Prefill,
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Tolerance {
    near_tie: f32,
    logit: f32,
    differing_steps: usize,
}

#[derive(Deserialize)]
struct Prefill {
    prompt: String,
    top: Vec<(u32, f32)>,
}

#[derive(Deserialize)]
struct Prompt {
    name: String,
    text: String,
    ids: Vec<u32>,
    /// Chosen id, its logit, runner-up, its logit.
    steps: Vec<(u32, f32, u32, f32)>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn golden<T: DeserializeOwned>(name: &str) -> T {
    let path = root().join("tests/golden").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("parsing {}: {e}", path.display()))
}

fn open(path: &Path) -> Loaded {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
    load::gguf(&bytes, None, &mut |_, _| Ok(())).expect("a model that loads")
}

fn tiny() -> Loaded {
    open(&root().join("tests/fixtures/tiny-llama2.gguf"))
}

fn smollm2() -> Option<Loaded> {
    let path = std::env::var_os("LLAMERO_TEST_MODEL");
    if path.is_none() {
        eprintln!("skipped: LLAMERO_TEST_MODEL does not name SmolLM2-135M-Instruct.Q4_1.gguf; `llamero test` sets it");
    }
    path.map(|path| open(Path::new(&path)))
}

/// `text` in parts of one character, so that no special token stands inside a part.
fn as_plain(text: &str) -> Vec<String> {
    text.chars().map(String::from).collect()
}

fn check_tokens(loaded: &Loaded, file: &str) {
    let golden: Tokens = golden(file);
    assert_eq!(golden.texts.len(), 40);
    for Text { name, text, ids, plain_ids } in golden.texts {
        assert_eq!(loaded.tokenizer.encode(&[&text]).expect("encodes"), ids, "{name}: {text:?}");
        let plain = plain_ids.unwrap_or(ids);
        assert_eq!(loaded.tokenizer.encode(&as_plain(&text)).expect("encodes"), plain, "plain {name}: {text:?}");
    }
}

/// Feed the golden ids and compare each choice; returns the steps that differ, all of them near ties.
fn check_prompt(loaded: &Loaded, prompt: &Prompt, tolerance: &Tolerance) -> usize {
    let Prompt { name, text, ids, steps } = prompt;
    assert_eq!(&loaded.tokenizer.encode(&[text]).expect("encodes"), ids, "{name}");
    assert_eq!(steps.len(), 64);
    let mut cache = loaded.model.new_cache();
    let mut logits = loaded.model.forward(ids, &mut cache).expect("prefill");
    let mut differing = 0;
    for (at, &(id, logit, second, second_logit)) in steps.iter().enumerate() {
        for (id, want) in [(id, logit), (second, second_logit)] {
            let got = logits[id as usize];
            assert!((got - want).abs() <= tolerance.logit, "{name}, step {at}, id {id}: expected {want}, got {got}");
        }
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
        if best != Some(id as usize) {
            assert!(logit - second_logit < tolerance.near_tie, "{name}, step {at}: expected {id}, got {best:?}");
            differing += 1;
        }
        logits = loaded.model.forward(&[id], &mut cache).expect("a step");
    }
    differing
}

fn check_greedy(loaded: &Loaded, file: &str) {
    let golden: Greedy = golden(file);
    assert_eq!(golden.prompts.len(), 8);
    let differing: usize = golden.prompts.iter().map(|p| check_prompt(loaded, p, &golden.tolerance)).sum();
    assert!(differing <= golden.tolerance.differing_steps, "{differing} steps differ");
    eprintln!("{file}: {differing} of 512 greedy steps differ, all near ties");
    check_prefill(loaded, &golden);
}

fn check_prefill(loaded: &Loaded, golden: &Greedy) {
    let Prefill { prompt: name, top } = &golden.prefill;
    let prompt = golden.prompts.iter().find(|p| &p.name == name).expect("the prompt of the prefill check");
    let logits = loaded.model.forward(&prompt.ids, &mut loaded.model.new_cache()).expect("prefill");
    assert_eq!(top.len(), 20);
    for &(id, want) in top {
        let got = logits[id as usize];
        assert!((got - want).abs() <= golden.tolerance.logit, "{name}, id {id}: expected {want}, got {got}");
    }
}

#[test]
fn tiny_llama2_ids_are_those_of_llama_cpp() {
    check_tokens(&tiny(), "tiny-llama2.tokens.json");
}

#[test]
fn tiny_llama2_greedy_tokens_are_those_of_llama_cpp() {
    check_greedy(&tiny(), "tiny-llama2.greedy.json");
}

#[test]
fn smollm2_ids_are_those_of_llama_cpp() {
    if let Some(loaded) = smollm2() {
        check_tokens(&loaded, "smollm2.tokens.json");
    }
}

#[test]
fn smollm2_greedy_tokens_are_those_of_llama_cpp() {
    if let Some(loaded) = smollm2() {
        check_greedy(&loaded, "smollm2.greedy.json");
    }
}
