//! The model against the formula written out in f64, and against itself in other portions.

use std::collections::BTreeMap;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::*;
use crate::error::{ErrorKind, Result};
use crate::kernels::{CacheType, Element, Format, Weight, active};

mod device;

pub(super) fn config() -> Config {
    Config {
        n_layer: 2,
        n_embd: 64,
        n_ff: 96,
        n_head: 4,
        n_head_kv: 2,
        head_dim: 16,
        n_vocab: 50,
        n_ctx: 600,
        rope_dim: 16,
        rope_theta: 1e4,
        rope_scaling: RopeScaling::None,
        sliding_window: None,
        rms_eps: 1e-5,
    }
}

/// Numbers in -1..1 that depend on nothing but shape and seed (splitmix64).
pub(super) fn noise(shape: (usize, usize), seed: u64) -> Tensor {
    let number = |i: usize| {
        let mut z = (seed << 32 | i as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    Tensor::from_vec((0..shape.0 * shape.1).map(number).collect(), shape, &Device::Cpu).unwrap()
}

pub(super) fn assert_close(a: &Tensor, b: &Tensor, tolerance: f32) {
    assert_eq!(a.dims(), b.dims());
    let difference: f32 = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap();
    assert!(difference <= tolerance, "largest difference {difference}, allowed {tolerance}");
}

/// Seeded weights for a config: matrices stored as `dtype`, vectors as f32.
#[derive(Clone)]
struct Seeded {
    tensors: BTreeMap<String, Tensor>,
    dtype: GgmlDType,
}

impl Seeded {
    fn new(config: &Config, dtype: GgmlDType) -> Self {
        let mut seeded = Self { tensors: BTreeMap::new(), dtype };
        let Config { n_embd, n_ff, n_vocab, .. } = *config;
        let (n_q, n_kv) = (config.n_embd_q(), config.n_embd_kv());
        seeded.matrix("token_embd.weight", n_vocab, n_embd);
        seeded.vector("output_norm.weight", n_embd);
        for i in 0..config.n_layer {
            let name = |part: &str| format!("blk.{i}.{part}.weight");
            seeded.vector(&name("attn_norm"), n_embd);
            seeded.vector(&name("ffn_norm"), n_embd);
            let kv = [("attn_k", n_kv, n_embd), ("attn_v", n_kv, n_embd)];
            let rest = [("attn_q", n_q, n_embd), ("attn_output", n_embd, n_q)];
            let ffn = [("ffn_gate", n_ff, n_embd), ("ffn_up", n_ff, n_embd), ("ffn_down", n_embd, n_ff)];
            kv.into_iter().chain(rest).chain(ffn).for_each(|(part, out, n_in)| seeded.matrix(&name(part), out, n_in));
        }
        seeded
    }

    fn matrix(&mut self, name: &str, n_out: usize, n_in: usize) {
        let weight = (noise((n_out, n_in), self.tensors.len() as u64) * (3.0 / n_in as f64).sqrt()).unwrap();
        self.tensors.insert(name.to_owned(), weight);
    }

    fn vector(&mut self, name: &str, len: usize) {
        let weight = (noise((1, len), self.tensors.len() as u64) * 0.5).unwrap();
        self.tensors.insert(name.to_owned(), (weight + 1.0).unwrap().squeeze(0).unwrap());
    }

    fn insert(mut self, name: &str, values: Vec<f32>) -> Self {
        let shape = values.len();
        self.tensors.insert(name.to_owned(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
        self
    }

    fn model(&mut self, config: &Config) -> Llama {
        self.model_with(config, CacheType::F32)
    }

    fn model_with(&mut self, config: &Config, cache_type: CacheType) -> Llama {
        Llama::new(config.clone(), self, cache_type).unwrap()
    }

    fn quantized(&self, name: &str) -> Option<QTensor> {
        let dtype = |t: &Tensor| if t.rank() == 1 { GgmlDType::F32 } else { self.dtype };
        self.tensors.get(name).map(|t| QTensor::quantize(t, dtype(t)).unwrap())
    }

    /// What is stored, as rows of f64.
    fn rows(&mut self, name: &str) -> Option<Vec<Vec<f64>>> {
        let stored = self.quantized(name)?.dequantize(&Device::Cpu).unwrap();
        let width = stored.dim(candle_core::D::Minus1).unwrap();
        let values = stored.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        Some(values.chunks(width).map(|row| row.iter().map(|&v| f64::from(v)).collect()).collect())
    }
}

impl TensorSource for Seeded {
    fn tensor(&mut self, name: &str) -> Result<Option<Weight>> {
        let Some(Stored { element, shape, bytes }) = TensorSource::stored(self, name)? else { return Ok(None) };
        Weight::of(active(), element, &shape, &bytes).map(Some)
    }

    fn stored(&mut self, name: &str) -> Result<Option<Stored>> {
        let Some(tensor) = self.quantized(name) else { return Ok(None) };
        let element = match tensor.dtype() {
            GgmlDType::F32 => Element::F32,
            GgmlDType::F16 => Element::F16,
            GgmlDType::BF16 => Element::Bf16,
            GgmlDType::Q4_1 => Element::Blocks(Format::Q4_1),
            GgmlDType::Q5_0 => Element::Blocks(Format::Q5_0),
            GgmlDType::Q5_1 => Element::Blocks(Format::Q5_1),
            GgmlDType::Q8_0 => Element::Blocks(Format::Q8_0),
            other => panic!("no test has {other:?}"),
        };
        let (shape, bytes) = (tensor.shape().dims().to_vec(), tensor.data().unwrap().into_owned());
        Ok(Some(Stored { element, shape, bytes }))
    }
}

/// The logits after the last of `tokens`, each step as the papers write it: every position from the start, no cache,
/// no shared loops, f64.
fn reference(config: &Config, weights: &mut Seeded, tokens: &[u32]) -> Vec<f64> {
    let embedding = weights.rows("token_embd.weight").unwrap();
    let mut stream: Vec<Vec<f64>> = tokens.iter().map(|&id| embedding[id as usize].clone()).collect();
    for i in 0..config.n_layer {
        let mut weight = |part: &str| weights.rows(&format!("blk.{i}.{part}.weight")).unwrap();
        let (norm, output) = (weight("attn_norm"), weight("attn_output"));
        let (q, k, v) = (weight("attn_q"), weight("attn_k"), weight("attn_v"));
        let (ffn_norm, gate, up, down) = (weight("ffn_norm"), weight("ffn_gate"), weight("ffn_up"), weight("ffn_down"));
        let normed: Vec<_> = stream.iter().map(|x| ref_norm(x, &norm[0], config)).collect();
        let project = |w: &[Vec<f64>]| normed.iter().map(|x| ref_product(w, x)).collect::<Vec<_>>();
        let factors = weights.rows("rope_freqs.weight");
        let factors = factors.as_ref().map(|f| f[0].as_slice());
        let turn = |rows: Vec<Vec<f64>>| -> Vec<_> {
            rows.into_iter().enumerate().map(|(position, x)| ref_rope(x, position, factors, config)).collect()
        };
        let (q, k, v) = (turn(project(&q)), turn(project(&k)), project(&v));
        for (t, x) in stream.iter_mut().enumerate() {
            let oldest = (t + 1).saturating_sub(config.sliding_window.unwrap_or(usize::MAX));
            let attended = ref_attention(&q[t], &k[oldest..=t], &v[oldest..=t], config);
            add(x, &ref_product(&output, &attended));
            let normed = ref_norm(x, &ffn_norm[0], config);
            let silu = ref_product(&gate, &normed).into_iter().map(|g| g / (1.0 + (-g).exp()));
            let gated: Vec<f64> = silu.zip(ref_product(&up, &normed)).map(|(g, u)| g * u).collect();
            add(x, &ref_product(&down, &gated));
        }
    }
    let last = ref_norm(stream.last().unwrap(), &weights.rows("output_norm.weight").unwrap()[0], config);
    ref_product(&weights.rows("output.weight").unwrap_or(embedding), &last)
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn ref_product(w: &[Vec<f64>], x: &[f64]) -> Vec<f64> {
    w.iter().map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

fn ref_norm(x: &[f64], weight: &[f64], config: &Config) -> Vec<f64> {
    let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(v, w)| v / (mean + f64::from(config.rms_eps)).sqrt() * w).collect()
}

fn ref_rope(mut x: Vec<f64>, position: usize, factors: Option<&[f64]>, config: &Config) -> Vec<f64> {
    let stretch = if let RopeScaling::Linear(factor) = config.rope_scaling { f64::from(factor) } else { 1.0 };
    for head in 0..x.len() / config.head_dim {
        for i in 0..config.rope_dim / 2 {
            let frequency = f64::from(config.rope_theta).powf(-((2 * i) as f64) / config.rope_dim as f64);
            let angle = position as f64 / stretch * frequency / factors.map_or(1.0, |f| f[i]);
            let at = head * config.head_dim + 2 * i;
            let (a, b) = (x[at], x[at + 1]);
            x[at] = a * angle.cos() - b * angle.sin();
            x[at + 1] = a * angle.sin() + b * angle.cos();
        }
    }
    x
}

fn ref_attention(q: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>], config: &Config) -> Vec<f64> {
    let dim = config.head_dim;
    let mut out = Vec::new();
    for head in 0..config.n_head {
        let kv = head * config.n_head_kv / config.n_head * dim;
        let q = &q[head * dim..(head + 1) * dim];
        let score =
            |k: &Vec<f64>| q.iter().zip(&k[kv..kv + dim]).map(|(q, k)| q * k).sum::<f64>() / (dim as f64).sqrt();
        let weights: Vec<f64> = keys.iter().map(score).map(f64::exp).collect();
        let total: f64 = weights.iter().sum();
        out.extend((kv..kv + dim).map(|i| weights.iter().zip(values).map(|(w, v)| w * v[i]).sum::<f64>() / total));
    }
    out
}

fn run(model: &Llama, tokens: &[u32], cache: &mut KvCache, wanted: Wanted) -> Result<Vec<f32>> {
    let mut workspace = Workspace::default();
    model.forward(&mut [Segment { tokens, cache, wanted }], &mut workspace)?;
    Ok(workspace.output().to_vec())
}

fn each(model: &Llama, tokens: &[u32], cache: &mut KvCache) -> Result<Vec<f32>> {
    run(model, tokens, cache, Wanted::Each)
}

fn hidden(model: &Llama, tokens: &[u32], cache: &mut KvCache) -> Result<Vec<f32>> {
    run(model, tokens, cache, Wanted::Hidden)
}

const TOKENS: [u32; 9] = [3, 14, 15, 9, 26, 5, 35, 8, 49];

fn relative_error(got: &[f32], truth: &[f64]) -> f64 {
    assert_eq!(got.len(), truth.len());
    let largest = truth.iter().fold(0.0_f64, |max, v| max.max(v.abs()));
    got.iter().zip(truth).fold(0.0_f64, |max, (&g, t)| max.max((f64::from(g) - t).abs())) / largest
}

fn check_against_reference(config: &Config, mut weights: Seeded, tolerance: f64) {
    let model = weights.model(config);
    check_model(&model, config, &mut weights, tolerance);
}

fn check_model(model: &Llama, config: &Config, weights: &mut Seeded, tolerance: f64) {
    for n in [1, 2, TOKENS.len()] {
        let logits = model.logits(&TOKENS[..n], &mut model.new_cache()).unwrap();
        let error = relative_error(&logits, &reference(config, weights, &TOKENS[..n]));
        assert!(error <= tolerance, "{n} tokens: relative error {error}, allowed {tolerance}");
    }
}

/// f32 sums against f64 ones.
const F32_TOLERANCE: f64 = 1e-5;
/// Activations rounded to int8 in front of every product.
const Q8_TOLERANCE: f64 = 0.05;

#[test]
fn plain_grouped_and_single_key_heads_follow_the_formula() {
    for (n_head, n_head_kv) in [(4, 4), (4, 2), (6, 1)] {
        let config = Config { n_head, n_head_kv, ..config() };
        check_against_reference(&config, Seeded::new(&config, GgmlDType::F32), F32_TOLERANCE);
    }
}

#[test]
fn a_sliding_window_follows_the_formula() {
    for window in [1, 4, 100] {
        let config = Config { sliding_window: Some(window), ..config() };
        check_against_reference(&config, Seeded::new(&config, GgmlDType::F32), F32_TOLERANCE);
    }
}

#[test]
fn every_rope_follows_the_formula() {
    let factors = vec![1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0, 8.0];
    let weights = Seeded::new(&config(), GgmlDType::F32);
    check_against_reference(&config(), weights.clone().insert("rope_freqs.weight", factors), F32_TOLERANCE);
    let scaled = Config { rope_scaling: RopeScaling::Linear(4.0), rope_theta: 500.0, ..config() };
    check_against_reference(&scaled, weights.clone(), F32_TOLERANCE);
    check_against_reference(&Config { rope_dim: 8, ..config() }, weights, F32_TOLERANCE);
}

#[test]
fn a_separate_output_is_used_and_a_tied_one_is_the_embedding() {
    let mut separate = Seeded::new(&config(), GgmlDType::F32);
    separate.matrix("output.weight", config().n_vocab, config().n_embd);
    check_against_reference(&config(), separate.clone(), F32_TOLERANCE);
    let mut tied = Seeded::new(&config(), GgmlDType::F32);
    let mut copied = tied.clone();
    copied.tensors.insert("output.weight".to_owned(), tied.tensors["token_embd.weight"].clone());
    let logits = |weights: &mut Seeded| {
        let model = weights.model(&config());
        model.logits(&TOKENS, &mut model.new_cache()).unwrap()
    };
    assert_eq!(logits(&mut tied), logits(&mut copied));
    assert_ne!(logits(&mut tied), logits(&mut separate));
}

#[test]
fn stored_weights_follow_the_formula() {
    for dtype in [GgmlDType::Q4_1, GgmlDType::Q5_0, GgmlDType::Q5_1, GgmlDType::Q8_0] {
        check_against_reference(&config(), Seeded::new(&config(), dtype), Q8_TOLERANCE);
    }
    for dtype in [GgmlDType::F16, GgmlDType::BF16] {
        check_against_reference(&config(), Seeded::new(&config(), dtype), F32_TOLERANCE);
    }
}

#[test]
fn portions_do_not_matter() {
    let scaling = RopeScaling::Dynamic { factor: 4.0, original_context_length: 3 };
    let config = Config { rope_scaling: scaling, sliding_window: Some(5), ..config() };
    for dtype in [GgmlDType::Q4_1, GgmlDType::F16, GgmlDType::BF16, GgmlDType::F32] {
        let model = Seeded::new(&config, dtype).model(&config);
        let whole = model.logits(&TOKENS, &mut model.new_cache()).unwrap();
        for portion in [1, 2, 4, 8] {
            let mut cache = model.new_cache();
            let logits = TOKENS.chunks(portion).map(|tokens| model.logits(tokens, &mut cache).unwrap()).last().unwrap();
            assert_eq!(cache.len(), TOKENS.len());
            assert_eq!(logits, whole, "{dtype:?} in portions of {portion}");
        }
    }
}

#[test]
fn logits_of_all_tokens_are_those_of_each() {
    let model = Seeded::new(&config(), GgmlDType::Q4_1).model(&config());
    let (mut cache, mut one) = (model.new_cache(), model.new_cache());
    let one_by_one: Vec<f32> = TOKENS.iter().flat_map(|&token| model.logits(&[token], &mut one).unwrap()).collect();
    let (head, tail) = TOKENS.split_at(3);
    let all = [each(&model, head, &mut cache).unwrap(), each(&model, tail, &mut cache).unwrap()].concat();
    assert_eq!(all, one_by_one);
    assert!(each(&model, &[], &mut cache).is_err());
}

#[test]
fn segments_of_a_pass_are_as_each_alone_and_fail_together() {
    let model = Seeded::new(&config(), GgmlDType::Q4_1).model(&config());
    let wanted = [Wanted::Last, Wanted::Nothing, Wanted::Each, Wanted::Hidden];
    let parts: [&[u32]; 4] = [&TOKENS[..1], &TOKENS[1..4], &TOKENS[2..5], &TOKENS];
    let begun = || {
        parts.map(|tokens| {
            let mut cache = model.new_cache();
            each(&model, &tokens[..1], &mut cache).unwrap();
            cache
        })
    };
    let pass = |parts: [&[u32]; 4], caches: &mut [KvCache; 4], workspace: &mut Workspace| {
        let mut batch: Vec<_> = parts
            .into_iter()
            .zip(caches)
            .zip(wanted)
            .map(|((tokens, cache), wanted)| Segment { tokens, cache, wanted })
            .collect();
        model.forward(&mut batch, workspace)
    };
    let mut alone = begun();
    let rows: Vec<Vec<f32>> = (0..4).map(|i| run(&model, parts[i], &mut alone[i], wanted[i]).unwrap()).collect();
    let (mut together, mut workspace) = (begun(), Workspace::default());
    let bad = [parts[0], parts[1], &[50], parts[3]];
    assert!(pass(bad, &mut together, &mut workspace).is_err());
    assert!(together.iter().all(|cache| cache.len() == 1), "all are where they were");
    pass(parts, &mut together, &mut workspace).unwrap();
    assert_eq!(workspace.output(), rows.concat());
    assert_eq!(workspace.output().len(), (1 + 3) * 50 + 9 * 64);
    assert_eq!(together.map(|cache| cache.len()), parts.map(|tokens| tokens.len() + 1));
}

#[test]
fn truncating_forgets() {
    let model = Seeded::new(&config(), GgmlDType::Q4_1).model(&config());
    let mut cache = model.new_cache();
    let logits = model.logits(&TOKENS, &mut cache).unwrap();
    cache.truncate(4);
    model.logits(&[7, 7, 7], &mut cache).unwrap();
    cache.truncate(100);
    assert_eq!(cache.len(), 7);
    cache.truncate(4);
    assert_eq!(model.logits(&TOKENS[4..], &mut cache).unwrap(), logits);
}

#[test]
fn caches_are_independent() {
    let model = Seeded::new(&config(), GgmlDType::Q4_1).model(&config());
    let (mut one, mut other) = (model.new_cache(), model.new_cache());
    let mut logits = Vec::new();
    for (i, &token) in TOKENS.iter().enumerate() {
        logits = model.logits(&[token], &mut one).unwrap();
        model.logits(&[49 - token, i as u32], &mut other).unwrap();
    }
    assert_eq!(logits, model.logits(&TOKENS, &mut model.new_cache()).unwrap());
}

#[test]
fn a_cache_grows_in_steps_up_to_the_context() {
    let model = Seeded::new(&config(), GgmlDType::Q4_1).model(&config());
    let tokens: Vec<u32> = (0..600).map(|i| i * 7 % 50).collect();
    let (mut cache, row_bytes) = (model.new_cache(), 2 * 2 * 32 * 4);
    assert_eq!((cache.bytes(), cache.is_empty()), (0, true));
    let mut logits = Vec::new();
    for (portion, capacity) in [(0..31, 32), (31..32, 32), (32..33, 64), (33..600, 608)] {
        logits = model.logits(&tokens[portion], &mut cache).unwrap();
        assert_eq!(cache.bytes(), capacity * row_bytes);
    }
    assert_eq!(logits, model.logits(&tokens, &mut model.new_cache()).unwrap());
    let error = model.logits(&[1], &mut cache).unwrap_err();
    assert_eq!((error.kind(), cache.len()), (ErrorKind::ContextOverflow, 600));
    assert_eq!(error.to_string(), "extending the context: expected at most 600 tokens, got 600 and 1 more");
}

#[test]
fn bad_tokens_leave_the_cache_alone() {
    let model = Seeded::new(&config(), GgmlDType::Q4_1).model(&config());
    let mut cache = model.new_cache();
    model.logits(&TOKENS, &mut cache).unwrap();
    let error = model.logits(&[], &mut cache).unwrap_err();
    assert_eq!(error.to_string(), "running the model: expected at least one token, got none");
    let error = model.logits(&[1, 50], &mut cache).unwrap_err();
    assert_eq!(error.to_string(), "running the model: expected token ids below 50, got 50");
    assert_eq!((error.kind(), cache.len()), (ErrorKind::InvalidRequest, TOKENS.len()));
}

#[test]
fn a_cache_of_another_model_is_refused() {
    let model = Seeded::new(&config(), GgmlDType::Q4_1).model(&config());
    let smaller = Config { n_layer: 1, ..config() };
    let mut foreign = Seeded::new(&smaller, GgmlDType::Q4_1).model(&smaller).new_cache();
    let error = model.logits(&TOKENS, &mut foreign).unwrap_err();
    assert!(error.to_string().ends_with("= (2, 2, 16, 600), got (1, 2, 16, 600)"), "{error}");
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let whole = Seeded::new(&config(), GgmlDType::F32);
    let check = |mut weights: Seeded, expected: &str| {
        let error = Llama::new(config(), &mut weights, CacheType::F32).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidFormat, expected));
    };
    for name in whole.tensors.keys() {
        let shape = whole.tensors[name].dims();
        let mut weights = whole.clone();
        weights.tensors.remove(name);
        check(weights, &format!("reading tensor {name}: expected shape {shape:?}, got no such tensor"));
        check(
            whole.clone().insert(name, vec![1.0; 5]),
            &format!("reading tensor {name}: expected shape {shape:?}, got [5]"),
        );
    }
    let expected = "reading tensor rope_freqs.weight: expected shape [8], got [7]";
    check(whole.clone().insert("rope_freqs.weight", vec![1.0; 7]), expected);
    let expected = "reading tensor output.weight: expected shape [50, 64], got [50]";
    check(whole.clone().insert("output.weight", vec![1.0; 50]), expected);
    let config = Config { n_head_kv: 3, ..config() };
    assert!(Llama::new(config, &mut whole.clone(), CacheType::F32).unwrap_err().to_string().contains("n_head_kv"));
}

#[test]
fn hidden_states_are_what_logits_are_made_of_however_cut() {
    let mut seeded = Seeded::new(&config(), GgmlDType::F32);
    let model = seeded.model(&config());
    let tokens = [3, 1, 4, 1, 5, 9, 2];
    let whole = hidden(&model, &tokens, &mut model.new_cache()).unwrap();
    let mut cache = model.new_cache();
    let mut pieces = hidden(&model, &tokens[..3], &mut cache).unwrap();
    pieces.extend(hidden(&model, &tokens[3..], &mut cache).unwrap());
    assert_eq!((whole.len(), cache.len()), (tokens.len() * 64, tokens.len()));
    assert_eq!(whole, pieces);
    let last = Tensor::from_slice(&whole[6 * 64..], (1, 64), &Device::Cpu).unwrap();
    let output = &seeded.tensors["token_embd.weight"];
    let logits = Tensor::new(model.logits(&tokens, &mut model.new_cache()).unwrap(), &Device::Cpu).unwrap();
    assert_close(&last.matmul(&output.t().unwrap()).unwrap().squeeze(0).unwrap(), &logits, 1e-4);
    assert!(hidden(&model, &[], &mut cache).is_err() && hidden(&model, &[50], &mut cache).is_err());
}

/// Conversations of a model with heads that every cache type can keep, longer than a chunk of attention.
fn long_model(dtype: GgmlDType, kind: CacheType) -> Llama {
    let config = Config { head_dim: 32, rope_dim: 32, n_head_kv: 2, n_head: 4, ..config() };
    Seeded::new(&config, dtype).model_with(&config, kind)
}

fn text(seed: usize, len: usize) -> Vec<u32> {
    (0..len).map(|i| ((i * 31 + seed * 17 + i * i * seed) % 50) as u32).collect()
}

/// All logits of each text, cut into portions of `portions` in turn, and `at_once` texts in each pass.
fn all_logits(model: &Llama, texts: &[Vec<u32>], portions: &[usize], at_once: usize) -> Vec<Vec<u32>> {
    let mut workspace = Workspace::default();
    let mut bits = vec![Vec::new(); texts.len()];
    let mut caches: Vec<_> = texts.iter().map(|_| model.new_cache()).collect();
    let mut turn = 0;
    loop {
        let mut batch = Vec::new();
        let mut whose = Vec::new();
        for (i, (cache, text)) in caches.iter_mut().zip(texts).enumerate() {
            if batch.len() < at_once && cache.len() < text.len() {
                let end = text.len().min(cache.len() + portions[turn % portions.len()]);
                let tokens = &text[cache.len()..end];
                whose.push((i, tokens.len()));
                batch.push(Segment { tokens, cache, wanted: Wanted::Each });
                turn += 1;
            }
        }
        if batch.is_empty() {
            return bits;
        }
        model.forward(&mut batch, &mut workspace).unwrap();
        let mut rows = workspace.output().chunks(50);
        for (i, n) in whose {
            bits[i].extend(rows.by_ref().take(n).flatten().map(|v| v.to_bits()));
        }
    }
}

#[test]
fn results_do_not_depend_on_batch_or_portions() {
    let texts: Vec<_> = [300, 1, 40, 280, 33, 64, 7, 90].iter().enumerate().map(|(i, &n)| text(i + 1, n)).collect();
    for (dtype, kind) in
        [(GgmlDType::Q4_1, CacheType::F16), (GgmlDType::Q8_0, CacheType::Q8_0), (GgmlDType::F16, CacheType::F32)]
    {
        let model = long_model(dtype, kind);
        let alone = all_logits(&model, &texts, &[1], 1);
        for (portions, at_once) in [(&[1][..], 8), (&[512][..], 1), (&[64, 3, 17][..], 3), (&[1, 1, 50][..], 8)] {
            let other = all_logits(&model, &texts, portions, at_once);
            assert!(other == alone, "{dtype:?} {kind:?}: portions {portions:?}, {at_once} at once");
        }
    }
}

#[test]
fn smaller_caches_stay_close() {
    for (kind, tolerance) in [(CacheType::F16, 2e-3), (CacheType::Q8_0, 5e-2)] {
        let text = text(3, 300);
        let exact = long_model(GgmlDType::F32, CacheType::F32).logits_of(&text);
        let kept = long_model(GgmlDType::F32, kind).logits_of(&text);
        let exact: Vec<f64> = exact.iter().map(|&v| f64::from(v)).collect();
        let error = relative_error(&kept, &exact);
        assert!(error > 0.0 && error <= tolerance, "{kind:?}: relative error {error}");
    }
    let config = config();
    let error = Llama::new(config.clone(), &mut Seeded::new(&config, GgmlDType::F32), CacheType::Q8_0).unwrap_err();
    assert!(error.to_string().ends_with("expected heads of whole blocks of 32, got 16"), "{error}");
}

impl Llama {
    fn logits_of(&self, tokens: &[u32]) -> Vec<f32> {
        self.logits(tokens, &mut self.new_cache()).unwrap()
    }
}
