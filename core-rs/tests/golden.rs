//! Our ids, tokens and logits against llama.cpp's: the files in tests/golden say how they were made and what may differ.
//!
//! The small model is a fixture. SmolLM2 is not in the repository: `LLAMERO_TEST_MODEL` names the file (`llamero test`
//! fetches it and sets the variable), and without it these checks say that they are skipped.

use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use llamero::engine::{EmbedRequest, Engine, EventKind, Limits};
use llamero::formats::gguf::{GgmlType, Gguf, Value};
use llamero::kernels::{CacheType, Element, Weight};
use llamero::load::{Loaded, config, vocab};
use llamero::model::{Llama, TensorSource};
use llamero::platform::Source;
use llamero::tokenizer::Tokenizer;
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
    logit_mean: f64,
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

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()))
}

fn open(path: &Path) -> Loaded {
    let checkpoint = Source::new(path).open().expect("a model's files");
    let plan = checkpoint.plan(None).expect("a plan");
    // As llama.cpp kept them for the golden files.
    checkpoint.load(plan, CacheType::F32, &mut |_, _| Ok(())).expect("a model that loads")
}

fn tiny() -> Loaded {
    open(&root().join("tests/fixtures/tiny-llama2.gguf"))
}

fn smollm2() -> Option<PathBuf> {
    let path = std::env::var_os("LLAMERO_TEST_MODEL").map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: LLAMERO_TEST_MODEL does not name SmolLM2-135M-Instruct.Q4_1.gguf; `llamero test` sets it");
    }
    path
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

/// How far a model was from the golden logits and choices.
#[derive(Default)]
struct Distance {
    /// Steps that chose otherwise, all of them near ties.
    differing: usize,
    largest: f32,
    sum: f64,
    count: usize,
}

impl Distance {
    fn add(&mut self, difference: f32) {
        self.largest = self.largest.max(difference.abs());
        self.sum += f64::from(difference.abs());
        self.count += 1;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }
}

/// Feed the golden ids, whatever the model would choose, and compare its choice and logits at each step.
fn check_prompt(tokenizer: &Tokenizer, model: &Llama, prompt: &Prompt, near_tie: f32, distance: &mut Distance) {
    let Prompt { name, text, ids, steps } = prompt;
    assert_eq!(&tokenizer.encode(&[text]).expect("encodes"), ids, "{name}");
    assert_eq!(steps.len(), 64);
    let mut cache = model.new_cache();
    let mut logits = model.logits(ids, &mut cache).expect("prefill");
    for (at, &(id, logit, second, second_logit)) in steps.iter().enumerate() {
        distance.add(logits[id as usize] - logit);
        distance.add(logits[second as usize] - second_logit);
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
        if best != Some(id as usize) {
            assert!(logit - second_logit < near_tie, "{name}, step {at}: expected {id}, got {best:?}");
            distance.differing += 1;
        }
        logits = model.logits(&[id], &mut cache).expect("a step");
    }
}

fn check_greedy(tokenizer: &Tokenizer, model: &Llama, file: &str) {
    let golden: Greedy = golden(file);
    let Tolerance { near_tie, logit, logit_mean, differing_steps } = golden.tolerance;
    assert_eq!(golden.prompts.len(), 8);
    let mut distance = Distance::default();
    golden.prompts.iter().for_each(|prompt| check_prompt(tokenizer, model, prompt, near_tie, &mut distance));
    let (differing, largest, mean) = (distance.differing, distance.largest, distance.mean());
    eprintln!("{file}: {differing} of 512 steps differ, logits by {largest} at most and {mean} on average");
    assert!(differing <= differing_steps && largest <= logit && mean <= logit_mean);
    check_prefill(model, &golden);
}

fn check_prefill(model: &Llama, golden: &Greedy) {
    let Prefill { prompt: name, top } = &golden.prefill;
    let prompt = golden.prompts.iter().find(|p| &p.name == name).expect("the prompt of the prefill check");
    let logits = model.logits(&prompt.ids, &mut model.new_cache()).expect("prefill");
    assert_eq!(top.len(), 20);
    for &(id, want) in top {
        let got = logits[id as usize];
        assert!((got - want).abs() <= golden.tolerance.logit, "{name}, id {id}: expected {want}, got {got}");
    }
}

#[derive(Deserialize)]
struct Embeddings {
    tolerance: EmbeddingTolerance,
    prompts: Vec<Vectors>,
}

#[derive(Deserialize)]
struct EmbeddingTolerance {
    cosine: f64,
}

#[derive(Deserialize)]
struct Vectors {
    name: String,
    text: String,
    mean: Vec<f64>,
    last: Vec<f64>,
}

fn check_embeddings(loaded: Loaded, file: &str) {
    let Embeddings { tolerance, prompts } = golden(file);
    assert_eq!(prompts.len(), 8);
    let mut engine = Engine::new(loaded.model, loaded.tokenizer, Limits::default(), || 0.0);
    let mut worst = 0f64;
    for (prompt, (pooling, want)) in prompts.iter().flat_map(|p| [(p, ("mean", &p.mean)), (p, ("last", &p.last))]) {
        let got = embed(&mut engine, &prompt.text, pooling);
        assert_eq!(got.len(), want.len());
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        assert!((dot(&got, &got) - 1.0).abs() < 1e-5, "{} {pooling}: not of length 1", prompt.name);
        let distance = 1.0 - dot(&got, want) / dot(want, want).sqrt();
        assert!(distance <= tolerance.cosine, "{} {pooling}: {distance} from llama.cpp's", prompt.name);
        worst = worst.max(distance);
    }
    eprintln!("{file}: cosine distances up to {worst}");
}

fn embed(engine: &mut Engine<Llama>, text: &str, pooling: &str) -> Vec<f64> {
    let request = serde_json::json!({ "prompt": [text], "pooling": pooling }).to_string();
    let mut events = Vec::new();
    engine.submit(1, EmbedRequest::from_json(request.as_bytes()).expect("a request"), 0, &mut events);
    while engine.step(&|_| false, &mut events) {}
    match events.pop().expect("events").kind {
        EventKind::Embedding { values, .. } => values.into_iter().map(f64::from).collect(),
        other => panic!("expected a vector, got {other:?}"),
    }
}

#[test]
fn tiny_llama2_embeddings_are_those_of_llama_cpp() {
    check_embeddings(tiny(), "tiny-llama2.embed.json");
}

#[test]
fn smollm2_embeddings_are_those_of_llama_cpp() {
    if let Some(path) = smollm2() {
        check_embeddings(open(&path), "smollm2.embed.json");
    }
}

#[test]
fn tiny_llama2_ids_are_those_of_llama_cpp() {
    check_tokens(&tiny(), "tiny-llama2.tokens.json");
}

#[test]
fn tiny_llama2_greedy_tokens_are_those_of_llama_cpp() {
    let Loaded { tokenizer, model, .. } = tiny();
    check_greedy(&tokenizer, &model, "tiny-llama2.greedy.json");
}

#[test]
fn smollm2_ids_are_those_of_llama_cpp() {
    if let Some(path) = smollm2() {
        check_tokens(&open(&path), "smollm2.tokens.json");
    }
}

#[test]
fn smollm2_greedy_tokens_are_those_of_llama_cpp() {
    if let Some(path) = smollm2() {
        let Loaded { tokenizer, model, .. } = open(&path);
        check_greedy(&tokenizer, &model, "smollm2.greedy.json");
    }
}

#[test]
fn smollm2_in_f32_computes_what_llama_cpp_does() {
    if let Some(path) = smollm2() {
        check_unpacked(&path, &[], "smollm2-f32.greedy.json");
    }
}

/// The metadata is what scripts/golden.py adds, and the golden file says it too.
#[test]
fn yarn_computes_what_llama_cpp_does() {
    let added = [
        ("type", Value::String("yarn".into())),
        ("factor", Value::F32(4.0)),
        ("original_context_length", Value::U32(128)),
        ("attn_factor", Value::F32(1.25)),
    ];
    check_unpacked(&root().join("tests/fixtures/tiny-llama2.gguf"), &added, "tiny-llama2-yarn.greedy.json");
}

/// The same weights unpacked to f32 leave only the order of additions to differ: the sharp comparison. `scaling` are
/// keys to add to the file's.
fn check_unpacked(path: &Path, scaling: &[(&str, Value)], golden: &str) {
    let bytes = read(path);
    let mut file = Gguf::parse(&bytes, bytes.len() as u64).expect("a GGUF file");
    for (key, value) in scaling {
        file.metadata.insert(format!("llama.rope.scaling.{key}"), value.clone()).expect("a new key");
    }
    let config = config::from_metadata(&file, None).expect("a Llama");
    let tokenizer = Tokenizer::new(vocab::vocab_spec(&file.metadata).expect("a vocabulary"));
    let model = Llama::new(config, &mut Unpacked(file, bytes), CacheType::F32).expect("a model");
    check_greedy(&tokenizer.expect("a tokenizer"), &model, golden);
}

/// Hands out the tensors of a file unpacked to f32, by candle's own unpacking.
struct Unpacked(Gguf, Vec<u8>);

impl TensorSource for Unpacked {
    fn tensor(&mut self, name: &str) -> llamero::error::Result<Option<Weight>> {
        let Some(info) = self.0.tensor(name) else { return Ok(None) };
        let dtype = match info.dtype {
            GgmlType::F32 => GgmlDType::F32,
            GgmlType::Q4_1 => GgmlDType::Q4_1,
            GgmlType::Q8_0 => GgmlDType::Q8_0,
            other => panic!("neither model has {}", other.name()),
        };
        let data = &self.1[info.offset..info.offset + info.len];
        let data = QStorage::from_data(data.into(), &Device::Cpu, dtype).expect("whole blocks");
        let stored = QTensor::new(data, info.shape.as_slice()).expect("a tensor");
        let values = stored.dequantize(&Device::Cpu).and_then(|t| t.flatten_all()?.to_vec1::<f32>()).expect("floats");
        let mut filling = Weight::open(Element::F32, &info.shape)?;
        values.iter().for_each(|v| assert_eq!(filling.push(&v.to_le_bytes()), 4));
        filling.finish().map(Some)
    }
}
