//! Ids of whole corpora against the programs that the vocabularies come from: sentencepiece, the tokenizers package,
//! transformers' Llama tokenizer, and llama.cpp for what a GGUF file carries. scripts/make_sentencepiece.py trained the
//! vocabularies; it and scripts/golden.py wrote the golden files.
//!
//! Llama-2's own vocabulary is not ours to publish. Its SentencePiece model is read where it lies beside the checkout,
//! its tokenizer.json from the path in `LLAMERO_LLAMA2_TOKENIZER_JSON` (`llamero test` sets it to the file of an npm
//! package); without them these checks say that they are skipped.

use std::path::{Path, PathBuf};

use llamero::checkpoint::vocab::{self, VocabFiles, Vocabulary};
use llamero::formats::gguf::Metadata;
use llamero::load::vocab::vocab_spec;
use llamero::tokenizer::Tokenizer;
use serde::Deserialize;
use serde::de::DeserializeOwned;

const N_LINES: usize = 10_240;
/// Lines of one hash.
const PER_HASH: usize = 8;
/// Ids without the begin of text that tokenizers add here.
const PLAIN: &[u8] = br#"{"add_bos_token": false}"#;

#[derive(Deserialize)]
struct Lines {
    ids: usize,
    /// Twelve hashes a row.
    hashes: Vec<String>,
    rows: Vec<(usize, Vec<u32>)>,
}

#[derive(Deserialize)]
struct Prompts {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    name: String,
    legacy: Vec<u32>,
    new: Vec<u32>,
}

/// Ids by llama.cpp of texts that stand beside them.
#[derive(Deserialize)]
struct LlamaTexts {
    texts: Vec<LlamaText>,
}

#[derive(Deserialize)]
struct LlamaText {
    name: String,
    text: String,
    ids: Vec<u32>,
}

/// Ids by llama.cpp of the prompts.
#[derive(Deserialize)]
struct LlamaPrompts {
    prompts: Vec<LlamaPrompt>,
}

#[derive(Deserialize)]
struct LlamaPrompt {
    name: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct PromptText {
    name: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(root().join(path)).unwrap_or_else(|e| panic!("reading {path}: {e}"))
}

fn json<T: DeserializeOwned>(path: &str) -> T {
    serde_json::from_slice(&read(path)).unwrap_or_else(|e| panic!("parsing {path}: {e}"))
}

fn fixture(name: &str) -> Vec<u8> {
    read(&format!("tests/fixtures/tokenizers/{name}"))
}

fn llama2_model() -> Option<Vec<u8>> {
    let model = std::fs::read(root().join("../shared/data/llama2/tokenizer.model")).ok();
    if model.is_none() {
        eprintln!("skipped: the Llama-2 SentencePiece model is not beside the checkout");
    }
    model
}

fn llama2_json() -> Option<Vec<u8>> {
    let path = std::env::var_os("LLAMERO_LLAMA2_TOKENIZER_JSON");
    if path.is_none() {
        eprintln!("skipped: LLAMERO_LLAMA2_TOKENIZER_JSON names no file; `llamero test` sets it");
    }
    path.map(|path| std::fs::read(&path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display())))
}

fn open(files: VocabFiles) -> Vocabulary {
    vocab::read(&files).expect("a vocabulary")
}

fn sentencepiece(model: &[u8], config: &[u8]) -> Vocabulary {
    open(VocabFiles { sentencepiece: Some(model), tokenizer_config: Some(config), ..Default::default() })
}

fn tokenizer_json(json: &[u8], config: &[u8]) -> Vocabulary {
    open(VocabFiles { tokenizer_json: Some(json), tokenizer_config: Some(config), ..Default::default() })
}

/// The tokenizer that a GGUF file with this vocabulary would have.
fn through_gguf(vocabulary: &Vocabulary) -> Tokenizer {
    assert_eq!(vocabulary.not_portable, None);
    let mut metadata = Metadata::new();
    for (key, value) in vocabulary.metadata.clone() {
        metadata.insert(key, value).expect("each key once");
    }
    Tokenizer::new(vocab_spec(&metadata).expect("a vocabulary")).expect("a tokenizer")
}

/// A linear congruential generator, line by line the one of the script.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn char(&mut self, (first, last): (u32, u32)) -> char {
        char::from_u32(first + self.below((last - first + 1) as usize) as u32).expect("a character")
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn part(&mut self, script: (u32, u32), words: &[&str]) -> String {
        match self.below(16) {
            0..6 => self.pick(words).to_owned(),
            6..11 => (0..1 + self.below(8)).map(|_| self.char(script)).collect(),
            11 => {
                let n = 1 + self.below(4);
                (0..n)
                    .map(|_| {
                        let range = self.pick(CHANGED);
                        self.char(range)
                    })
                    .collect()
            }
            12 => {
                let range = if self.below(4) > 0 { (0, 0x20) } else { (0x7F, 0xA0) };
                self.char(range).into()
            }
            13 => self.pick(TEXTS).to_owned(),
            14 => {
                let c = self.char((0x20, 0x7E));
                c.to_string().repeat(1 + self.below(6))
            }
            _ => {
                let range = self.pick(SCRIPTS);
                self.char(range).into()
            }
        }
    }
}

/// First and last character of the scripts; every line is mostly of one.
const SCRIPTS: &[(u32, u32)] = &[
    (0x61, 0x7A),
    (0xC0, 0x17F),
    (0x370, 0x3FF),
    (0x400, 0x4FF),
    (0x531, 0x58F),
    (0x5D0, 0x5EA),
    (0x620, 0x6D3),
    (0x904, 0x94D),
    (0x985, 0x9CD),
    (0xB85, 0xBCD),
    (0xC05, 0xC4D),
    (0xE01, 0xE4E),
    (0x10A0, 0x10FF),
    (0x1200, 0x137C),
    (0x1780, 0x17D2),
    (0x3041, 0x3096),
    (0x30A1, 0x30FA),
    (0x4E00, 0x4FFF),
    (0xAC00, 0xAFFF),
    (0x1F300, 0x1F64F),
    (0x13A0, 0x13F5),
    (0x1820, 0x1878),
];
/// What normalisation changes.
const CHANGED: &[(u32, u32)] = &[
    (0xFF01, 0xFF9D),
    (0xFB00, 0xFB06),
    (0xFE70, 0xFEFC),
    (0x2070, 0x209C),
    (0x300, 0x345),
    (0x1100, 0x1175),
    (0x3300, 0x33FF),
    (0xFDF0, 0xFDFB),
    (0x2100, 0x214F),
    (0xF900, 0xFA10),
];
const SPACES: &[&str] =
    &[" ", "  ", "   ", "      ", "\t", "\n", "\r\n", "\u{a0}", "\u{3000}", "\u{2003}", "\u{200b}", "\u{2581}", ""];
const TEXTS: &[&str] = &[
    "<tool>",
    "<tool",
    "</s>",
    "<s>",
    "<unk>",
    "<0x41>",
    "<0x0A>",
    "\u{2581}the",
    "\u{2581}\u{2581}",
    "12345",
    "3.14",
    "...",
    "!?",
    "http://a.b/c?d=e",
    "it's",
    "WE'LL",
    "\u{feff}",
    "\u{200d}",
    "\u{e0041}",
    "\u{fffd}",
    "e\u{301}",
    "\u{10fffd}",
    "\u{2028}",
    "<tool><tool>",
    "the<tool>the",
];

fn lines() -> Vec<String> {
    let corpus = String::from_utf8(read("tests/fixtures/corpus.txt")).expect("UTF-8");
    let words: Vec<&str> = corpus.split_whitespace().collect();
    let mut random = Random(7);
    let line = |i: usize| {
        let mut line = String::new();
        for _ in 0..random.below(14) {
            line.push_str(&random.part(SCRIPTS[i % SCRIPTS.len()], &words));
            line.push_str(if random.below(3) > 0 { " " } else { random.pick(SPACES) });
        }
        line
    };
    (0..N_LINES).map(line).collect()
}

/// FNV-1a of 32 bits over the ids of some lines.
fn hash(lines: &[Vec<u32>]) -> String {
    let numbers = lines.iter().flat_map(|ids| ids.iter().copied().chain([u32::MAX]));
    let bytes = numbers.flat_map(u32::to_le_bytes);
    let hash = bytes.fold(0x811C_9DC5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

/// One character a part, so that no text is taken for a special token.
fn plain(text: &str) -> Vec<String> {
    text.chars().map(String::from).collect()
}

fn encode_lines(tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
    lines().iter().map(|line| tokenizer.encode(&plain(line)).expect("ids")).collect()
}

fn check_lines(tokenizer: &Tokenizer, name: &str) {
    let golden: Lines = json(&format!("tests/golden/lines.{name}.json"));
    let (lines, ids) = (lines(), encode_lines(tokenizer));
    for (i, wanted) in &golden.rows {
        assert_eq!(&ids[*i], wanted, "{name}, line {i}: {:?}", lines[*i]);
    }
    let hashes: Vec<&str> = golden.hashes.iter().flat_map(|row| row.split(' ')).collect();
    assert_eq!(hashes.len(), N_LINES / PER_HASH);
    let differing: Vec<usize> =
        (0..hashes.len()).filter(|&i| hash(&ids[i * PER_HASH..][..PER_HASH]) != hashes[i]).collect();
    let first = differing.first().map(|&i| &lines[i * PER_HASH..][..PER_HASH]);
    assert!(
        differing.is_empty(),
        "{name}: {} of {} hashes differ, the first of {first:?}",
        differing.len(),
        hashes.len()
    );
    assert_eq!(ids.iter().map(Vec::len).sum::<usize>(), golden.ids);
}

fn prompts() -> Vec<PromptText> {
    json("tests/fixtures/vicuna_prompts.json")
}

fn check_prompts(golden: &str, legacy: &Tokenizer, new: &Tokenizer) {
    let golden: Prompts = json(&format!("tests/golden/{golden}"));
    let texts = prompts();
    assert_eq!((golden.prompts.len(), texts.len()), (9, 9));
    for (wanted, PromptText { name, text }) in golden.prompts.iter().zip(texts) {
        assert_eq!(wanted.name, name);
        assert_eq!(legacy.encode(&[&text]), Ok(wanted.legacy.clone()), "{name}, legacy");
        assert_eq!(new.encode(&[&text]), Ok(wanted.new.clone()), "{name}, not legacy");
    }
}

/// Llama-2's vocabulary as a GGUF file would have it.
fn check_llama_cpp(vocabulary: &Vocabulary) {
    let tokenizer = through_gguf(vocabulary);
    assert_eq!(tokenizer.len(), 32_000);
    let LlamaTexts { texts } = json("tests/golden/llama2.tokens.json");
    assert_eq!(texts.len(), 40);
    for LlamaText { name, text, ids } in texts {
        assert_eq!(tokenizer.encode(&[&text]), Ok(ids), "{name}: {text:?}");
    }
    let LlamaPrompts { prompts: golden } = json("tests/golden/vicuna.tokens.json");
    for (wanted, PromptText { name, text }) in golden.into_iter().zip(prompts()) {
        assert_eq!(wanted.name, name);
        assert_eq!(tokenizer.encode(&[&text]), Ok(wanted.ids), "{name}");
    }
}

#[test]
fn sentencepiece_models_give_the_ids_of_sentencepiece() {
    for name in ["sp-bpe", "sp-unigram", "sp-unigram-bytes", "sp-bpe-suffix"] {
        check_lines(&sentencepiece(&fixture(&format!("{name}.model")), PLAIN).tokenizer, name);
    }
}

#[test]
fn tokenizer_json_gives_the_ids_of_the_tokenizers_package() {
    for name in ["metaspace", "byte-level"] {
        let vocabulary = tokenizer_json(&fixture(&format!("{name}.json")), PLAIN);
        check_lines(&vocabulary.tokenizer, name);
        // What GGUF would carry is encoded by our own engines.
        check_lines(&through_gguf(&vocabulary), name);
    }
}

#[test]
fn prompts_give_the_ids_of_transformers() {
    let model = fixture("sp-bpe.model");
    let legacy = sentencepiece(&model, b"{}").tokenizer;
    let new = sentencepiece(&model, br#"{"legacy": false}"#).tokenizer;
    check_prompts("hf.sp-bpe.json", &legacy, &new);
}

#[test]
fn llama2_gives_the_ids_of_sentencepiece_and_transformers() {
    let Some(model) = llama2_model() else { return };
    let vocabulary = sentencepiece(&model, PLAIN);
    check_lines(&vocabulary.tokenizer, "llama2");
    check_lines(&through_gguf(&vocabulary), "llama2");
    let legacy = sentencepiece(&model, b"{}");
    let new = sentencepiece(&model, br#"{"legacy": false}"#);
    check_prompts("hf.llama2.json", &legacy.tokenizer, &new.tokenizer);
    check_prompts("hf.llama2.json", &through_gguf(&legacy), &through_gguf(&new));
    check_llama_cpp(&legacy);
}

#[test]
fn llama2_as_tokenizer_json_gives_the_same() {
    let Some(json) = llama2_json() else { return };
    let vocabulary = tokenizer_json(&json, PLAIN);
    check_lines(&vocabulary.tokenizer, "llama2");
    check_lines(&through_gguf(&vocabulary), "llama2");
    // The pieces of many spaces have their merges in another order than others.
    let gguf = through_gguf(&vocabulary);
    for n in 0..300 {
        let spaces = ["a", &" ".repeat(n), "b"];
        assert_eq!(gguf.encode(&spaces), vocabulary.tokenizer.encode(&spaces), "{n} spaces");
    }
    // The file has the rule that puts a space after special tokens too; the other one is as in `Metaspace`.
    let mut file: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    file["normalizer"] = serde_json::Value::Null;
    file["pre_tokenizer"] = serde_json::json!(
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false}
    );
    let new = tokenizer_json(file.to_string().as_bytes(), b"{}");
    let legacy = tokenizer_json(&json, b"{}");
    check_prompts("hf.llama2.json", &legacy.tokenizer, &through_gguf(&new));
    check_llama_cpp(&legacy);
}

/// Seconds for a text of one letter.
fn flood_seconds(tokenizer: &Tokenizer, len: usize) -> f64 {
    let flood = "e".repeat(len);
    let start = std::time::Instant::now();
    assert!(tokenizer.encode(&[&flood]).expect("ids").len() > len / 100);
    start.elapsed().as_secs_f64()
}

/// Ten times the text takes about ten times as long; the square would be a hundred times. The machine may be busy with
/// other things, so the best of some tries counts.
#[test]
fn encoding_takes_time_in_proportion_to_the_text() {
    let small = 1 << 20;
    for name in ["sp-bpe.model", "sp-unigram.model", "metaspace.json", "byte-level.json"] {
        let tokenizer = match name.ends_with(".json") {
            true => tokenizer_json(&fixture(name), PLAIN).tokenizer,
            false => sentencepiece(&fixture(name), PLAIN).tokenizer,
        };
        let base = flood_seconds(&tokenizer, small).min(flood_seconds(&tokenizer, small));
        let is_linear = (0..5).any(|_| {
            let ratio = flood_seconds(&tokenizer, 10 * small) / base;
            eprintln!("{name}: {base:.2} s for {small} bytes, {ratio:.1} times as long for ten times as much");
            ratio < 20.0
        });
        assert!(is_linear, "{name}");
    }
}
