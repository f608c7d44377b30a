//! tokenizer.json: BPE vocabularies, encoded by the crate that the file format belongs to.
//!
//! Special and added tokens are taken out of what the crate gets and found by our own `Tokenizer`, which knows the parts
//! of a prompt that must not become one. What the file may ask of the crate is an allow-list, so that no file makes it
//! panic or run for hours: a regular expression is one of those that model families really use (`patterns`), since
//! backtracking on others can take exponential time, and on an overrun the crate would end the text in silence.
//!
//! Absent: unigram, WordPiece and word models; the decoder of the file, since pieces are decoded by their spelling.

mod patterns;
mod portable;

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value as Json, json};
use tokenizers::models::bpe::{self, BPE};
use tokenizers::{
    Model as _, NormalizedString, Normalizer as _, NormalizerWrapper, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper,
};

pub(super) use portable::pre_tokenizer_steps;

use super::settings::{Added, AddedToken, parse};
use super::{Draft, Settings, Source};
use crate::error::{Error, Result};
use crate::tokenizer::{
    MAX_WORD_LEN, Merger, Place, Scheme, Spelling, TokenType, Vocab, VocabKind, VocabSpec, chunks, is_end_text,
};

const NAME: &str = "tokenizer.json";
/// Most steps of a normalizer, and how much longer each may make a text: together a bound on memory.
const MAX_NORMALIZERS: usize = 4;
const MAX_GROWTH: usize = 3;
/// Most steps of a pre-tokenizer; the longest known have four.
const MAX_PRE_TOKENIZERS: usize = 8;

/// The file, as far as it is used.
#[derive(Debug, Deserialize)]
struct File {
    model: Model,
    #[serde(default)]
    normalizer: Json,
    #[serde(default)]
    pre_tokenizer: Json,
    #[serde(default)]
    post_processor: Json,
    #[serde(default)]
    decoder: Json,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

/// A BPE model.
#[derive(Debug, Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    merges: Vec<MergeText>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(default)]
    dropout: Option<f32>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum MergeText {
    Pair(String, String),
    Joined(String),
}

/// The kind of a model, which decides how the rest of it is written.
#[derive(Deserialize)]
struct Kind {
    model: ModelKind,
}

#[derive(Deserialize)]
struct ModelKind {
    #[serde(rename = "type", default)]
    name: Option<String>,
    #[serde(default)]
    merges: Option<IgnoredAny>,
}

/// Two pieces that are joined.
type Pair = (String, String);

pub(super) fn read(bytes: &[u8], settings: &Settings, n_vocab: Option<usize>) -> Result<Source> {
    let Kind { model } = parse(NAME, Some(bytes))?;
    let kind = model.name.or(model.merges.map(|_| "BPE".into())).unwrap_or_default();
    if kind != "BPE" {
        return Err(Error::unsupported(format!("reading {NAME}: expected a model of type BPE, got {kind:?}")));
    }
    let mut file: File = parse(NAME, Some(bytes))?;
    build(&mut file, settings, n_vocab).map_err(|e| e.context(format!("reading {NAME}")))
}

fn build(file: &mut File, settings: &Settings, n_vocab: Option<usize>) -> Result<Source> {
    check_model(&file.model)?;
    let spelling = spelling(&file.decoder, &file.pre_tokenizer)?;
    let mut draft = draft(file, settings)?;
    let mut merges = pairs(std::mem::take(&mut file.model.merges), &draft)?;
    draft.fit(n_vocab);
    keep_text(&mut merges, &draft);
    let form = portable::recognise(file, spelling, &draft, &merges);
    let scheme = JsonScheme::new(file, spelling, form.has_space_prefix, &draft, merges.clone())?;
    let (begins, ends) = template(&file.post_processor);
    let id = |role| settings.id(role, &draft);
    let pad = id("pad");
    let bos = id("bos").or(begins.as_deref().and_then(|text| draft.id(text)));
    let spec = VocabSpec {
        kind: if spelling == Spelling::Bytes { VocabKind::ByteLevel } else { VocabKind::SentencePiece },
        pre: form.pre.unwrap_or_default().into(),
        merges: match spelling {
            Spelling::Bytes => merges.iter().map(|(left, right)| format!("{left} {right}")).collect(),
            Spelling::Spaces => Vec::new(),
        },
        bos,
        eos: id("eos"),
        eot: None,
        eom: None,
        unk: id("unk").or(file.model.unk_token.as_deref().and_then(|text| draft.id(text))),
        add_bos: settings.add_bos.unwrap_or(begins.is_some() || (settings.is_llama && bos.is_some())),
        add_eos: settings.add_eos.unwrap_or(ends),
        add_space_prefix: form.has_space_prefix,
        legacy: form.legacy,
        ends: settings.ends(&draft),
        scores: form.scores,
        pieces: draft.pieces,
        types: draft.types,
    };
    Ok(Source {
        spec,
        scheme: Box::new(move |_, _| Ok(Box::new(scheme))),
        pad,
        name: if spelling == Spelling::Bytes { "tokenizer.json byte-level bpe" } else { "tokenizer.json bpe" },
        not_portable: form.not_portable.map(|reason| format!("{NAME} has {reason}")),
    })
}

/// Refuses what changes how pieces are spelled, or draws lots.
fn check_model(model: &Model) -> Result<()> {
    let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let cases = [
        ("continuing_subword_prefix", is_set(&model.continuing_subword_prefix)),
        ("end_of_word_suffix", is_set(&model.end_of_word_suffix)),
        ("dropout", model.dropout.is_some_and(|p| p != 0.0)),
    ];
    match cases.into_iter().find(|(_, is_set)| *is_set) {
        Some((name, _)) => Err(Error::unsupported(format!("expected a model without {name}, got one"))),
        None => Ok(()),
    }
}

/// The pieces of the model and the tokens that this file and those beside it add.
fn draft(file: &mut File, settings: &Settings) -> Result<Draft> {
    let mut by_id: Vec<(u32, String)> = file.model.vocab.drain().map(|(text, id)| (id, text)).collect();
    by_id.sort_unstable();
    let mut draft = Draft::default();
    for (id, text) in by_id {
        draft.skip_to(id as usize)?;
        if draft.pieces.len() > id as usize {
            return Err(Error::invalid_format(format!("expected each id once, got {id} for {text:?} too")));
        }
        let is_byte = file.model.byte_fallback && is_byte_piece(&text);
        let token_type = match () {
            () if is_end_text(&text) => TokenType::Control,
            () if file.model.unk_token.as_ref() == Some(&text) => TokenType::Unknown,
            () if is_byte => TokenType::Byte,
            () => TokenType::Normal,
        };
        draft.push(text, 0.0, token_type);
    }
    let own = file.added_tokens.iter().filter(|t| !t.content.is_empty());
    for token in own {
        draft.add(&Added { id: token.id, text: token.content.clone(), is_special: token.special })?;
    }
    settings.added.iter().try_for_each(|added| draft.add(added))?;
    Ok(draft)
}

/// `<0x0A>` in the spelling that the crate looks up.
fn is_byte_piece(text: &str) -> bool {
    let hex = text.strip_prefix("<0x").and_then(|text| text.strip_suffix('>'));
    hex.is_some_and(|hex| hex.len() == 2 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')))
}

/// The pairs of the file; the crate fails on a merge that names no piece.
fn pairs(merges: Vec<MergeText>, draft: &Draft) -> Result<Vec<Pair>> {
    let known: HashSet<&str> = draft.pieces.iter().map(String::as_str).collect();
    let pair = |(rank, merge)| {
        let (left, right) = match merge {
            MergeText::Pair(left, right) => (left, right),
            MergeText::Joined(text) => match text.split_once(' ') {
                Some((left, right)) => (left.into(), right.into()),
                None => {
                    let message = format!("expected merge {rank} as \"left right\", got {text:?}");
                    return Err(Error::invalid_format(message));
                }
            },
        };
        let joined = [left.as_str(), &right].concat();
        if let Some(missing) = [&left, &right, &joined].into_iter().find(|text| !known.contains(text.as_str())) {
            let message = format!("expected merge {rank} to name pieces, got {missing:?}, which is none");
            return Err(Error::invalid_format(message));
        }
        Ok((left, right))
    };
    merges.into_iter().enumerate().map(pair).collect()
}

/// Leaves the pairs that join text to text: it must not become a token that was added, or one without a row.
fn keep_text(pairs: &mut Vec<Pair>, draft: &Draft) {
    let text: HashSet<&str> = text_pieces(draft).map(|(_, piece)| piece).collect();
    pairs.retain(|(left, right)| {
        let joined = [left.as_str(), right].concat();
        [left, right, &joined].into_iter().all(|piece| text.contains(piece.as_str()))
    });
}

/// Ids and texts of the pieces that text becomes by joining.
fn text_pieces(draft: &Draft) -> impl Iterator<Item = (u32, &str)> {
    let pieces = (0..).zip(&draft.pieces).zip(draft.types.iter().zip(&draft.is_text));
    let text = pieces.filter(|(_, (t, is_text))| **is_text && **t == TokenType::Normal);
    text.map(|((id, piece), _)| (id, piece.as_str()))
}

/// How pieces are spelled, as the decoder says.
fn spelling(decoder: &Json, pre_tokenizer: &Json) -> Result<Spelling> {
    let steps = |value: &Json, list: &str| -> Vec<Json> {
        value[list].as_array().cloned().unwrap_or_else(|| vec![value.clone()])
    };
    let is = |step: &Json, name: &str| step["type"] == name;
    let decoders = steps(decoder, "decoders");
    if decoders.iter().any(|step| is(step, "ByteLevel")) {
        return match steps(pre_tokenizer, "pretokenizers").iter().any(|step| is(step, "ByteLevel")) {
            true => Ok(Spelling::Bytes),
            false => Err(Error::unsupported("expected a pre_tokenizer ByteLevel for the decoder ByteLevel, got none")),
        };
    }
    let is_space = |step: &Json| step["pattern"]["String"] == "▁" && step["content"] == " ";
    if decoders.iter().any(|step| is(step, "Metaspace") || (is(step, "Replace") && is_space(step))) {
        return Ok(Spelling::Spaces);
    }
    let got = &decoder["type"];
    Err(Error::unsupported(format!("expected a decoder ByteLevel, Metaspace or Replace of ▁, got {got}")))
}

/// What a template puts in front of a text, and whether it puts something behind.
fn template(post_processor: &Json) -> (Option<String>, bool) {
    let list = post_processor["processors"].as_array().cloned().unwrap_or_else(|| vec![post_processor.clone()]);
    let single = list.iter().filter(|step| step["type"] == "TemplateProcessing").find_map(|s| s["single"].as_array());
    let special = |item: Option<&Json>| item.and_then(|item| item["SpecialToken"]["id"].as_str().map(str::to_owned));
    single.map_or((None, false), |single| (special(single.first()), special(single.last()).is_some()))
}

/// The crate's way from text to ids.
#[derive(Debug)]
struct JsonScheme {
    model: BPE,
    /// For text at the start, after a special token, and for the rest of a text that is handled in pieces.
    pipelines: [Pipeline; 3],
    spelling: Spelling,
    has_space_prefix: bool,
}

/// What is done to text before its words are joined.
#[derive(Debug)]
struct Pipeline {
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
}

impl JsonScheme {
    fn new(file: &File, spelling: Spelling, has_space_prefix: bool, draft: &Draft, merges: Vec<Pair>) -> Result<Self> {
        check_normalizer(&file.normalizer)?;
        check_pre_tokenizer(&file.pre_tokenizer)?;
        let others = draft.types.iter().map(|t| matches!(t, TokenType::Unknown | TokenType::Byte));
        let others = (0..).zip(&draft.pieces).zip(others).filter(|(_, is_needed)| *is_needed);
        let others = others.map(|((id, piece), _)| (id, piece.as_str()));
        let vocab = text_pieces(draft).chain(others).map(|(id, piece)| (piece.to_owned(), id));
        let mut builder = BPE::builder()
            .vocab_and_merges(vocab.collect::<bpe::Vocab>(), merges)
            .byte_fallback(file.model.byte_fallback)
            .fuse_unk(file.model.fuse_unk)
            .ignore_merges(file.model.ignore_merges)
            // The cache lives as long as the thread: it would outlive the model.
            .cache_capacity(0);
        // Some files name the token that ends a text; unknown characters must not.
        if let Some(unk) = file.model.unk_token.clone().filter(|unk| draft.is_unknown(unk)) {
            builder = builder.unk_token(unk);
        }
        let model = builder.build().map_err(|e| Error::invalid_format(e.to_string()))?;
        let after_special = without_first(&file.pre_tokenizer);
        let pipelines = [
            Pipeline::new(&file.normalizer, &file.pre_tokenizer)?,
            Pipeline::new(&file.normalizer, &after_special)?,
            Pipeline::new(&without_prefix(&file.normalizer), &without_prefix(&file.pre_tokenizer))?,
        ];
        Ok(Self { model, pipelines, spelling, has_space_prefix })
    }
}

impl Scheme for JsonScheme {
    fn encode(&self, _: &Vocab, text: &str, place: Place, _: &mut Merger, out: &mut Vec<u32>) -> Result<()> {
        let first = if place == Place::Start { 0 } else { 1 };
        for (i, chunk) in chunks(text, MAX_WORD_LEN).enumerate() {
            let pipeline = &self.pipelines[if i == 0 { first } else { 2 }];
            pipeline.encode(&self.model, chunk, out).map_err(|e| Error::internal(format!("encoding text: {e}")))?;
        }
        Ok(())
    }

    fn spelling(&self) -> Spelling {
        self.spelling
    }

    fn has_space_prefix(&self) -> bool {
        self.has_space_prefix
    }
}

impl Pipeline {
    fn new(normalizer: &Json, pre_tokenizer: &Json) -> Result<Self> {
        let wrong = |what: &str, e: serde_json::Error| Error::invalid_format(format!("expected a {what}: {e}"));
        Ok(Self {
            normalizer: Option::deserialize(normalizer).map_err(|e| wrong("normalizer", e))?,
            pre_tokenizer: Option::deserialize(pre_tokenizer).map_err(|e| wrong("pre_tokenizer", e))?,
        })
    }

    fn encode(&self, model: &BPE, text: &str, out: &mut Vec<u32>) -> tokenizers::Result<()> {
        let mut normalized = NormalizedString::from(text);
        if let Some(normalizer) = &self.normalizer {
            normalizer.normalize(&mut normalized)?;
        }
        let mut words = PreTokenizedString::from(normalized);
        if let Some(pre_tokenizer) = &self.pre_tokenizer {
            pre_tokenizer.pre_tokenize(&mut words)?;
        }
        words.tokenize(|word| model.tokenize(word.get()))?;
        let splits = words.get_splits(OffsetReferential::Normalized, OffsetType::None);
        out.extend(splits.into_iter().filter_map(|(.., tokens)| tokens.as_ref()).flatten().map(|token| token.id));
        Ok(())
    }
}

/// The steps of sequences within sequences, as they are done; none when there is none.
fn leaves<'a>(step: &'a Json, list: &str) -> Vec<&'a Json> {
    match step["type"].as_str() {
        None if step.is_null() => Vec::new(),
        Some("Sequence") => step[list].as_array().into_iter().flatten().flat_map(|step| leaves(step, list)).collect(),
        _ => vec![step],
    }
}

/// Refuses steps that are too many or not among those we know.
fn check_steps(steps: &[&Json], what: &str, max: usize, is_known: impl Fn(&Json) -> bool) -> Result<()> {
    if steps.len() > max {
        return Err(Error::unsupported(format!("expected at most {max} steps of the {what}, got {}", steps.len())));
    }
    match steps.iter().find(|step| !is_known(step)) {
        Some(step) => Err(Error::unsupported(format!("expected a known step of the {what}, got {}", brief(step)))),
        None => Ok(()),
    }
}

fn check_normalizer(normalizer: &Json) -> Result<()> {
    check_steps(&leaves(normalizer, "normalizers"), "normalizer", MAX_NORMALIZERS, |step| {
        let text = |key: &str| step[key].as_str().unwrap_or_default().len();
        match step["type"].as_str() {
            Some("NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase") => true,
            Some("Prepend") => text("prepend") <= MAX_GROWTH,
            // An empty pattern is everywhere.
            Some("Replace") => match step["pattern"]["String"].as_str() {
                Some(pattern) => !pattern.is_empty() && text("content") <= MAX_GROWTH * pattern.len(),
                None => false,
            },
            _ => false,
        }
    })
}

fn check_pre_tokenizer(pre_tokenizer: &Json) -> Result<()> {
    let steps = leaves(pre_tokenizer, "pretokenizers");
    check_steps(&steps, "pre_tokenizer", MAX_PRE_TOKENIZERS, |step| match step["type"].as_str() {
        // Each one writes two bytes for many a byte.
        Some("ByteLevel") => steps.iter().filter(|other| other["type"] == "ByteLevel").count() == 1,
        Some("Digits" | "Metaspace") => true,
        Some("Split") => match (step["pattern"]["String"].as_str(), step["pattern"]["Regex"].as_str()) {
            (Some(text), None) => !text.is_empty(),
            (None, Some(regex)) => patterns::is_known(regex),
            _ => false,
        },
        _ => false,
    })
}

/// The beginning of a value, for messages.
fn brief(value: &Json) -> String {
    value.to_string().chars().take(200).collect()
}

/// The same, for text that is not at the start.
fn without_first(step: &Json) -> Json {
    each_object(step, &|object| {
        if object.get("prepend_scheme").is_some_and(|scheme| scheme == "first") {
            object.insert("prepend_scheme".into(), json!("never"));
        }
    })
}

/// The same without anything that puts a space in front.
fn without_prefix(step: &Json) -> Json {
    each_object(step, &|object| match object.get("type").and_then(Json::as_str) {
        Some("Metaspace") => {
            object.remove("add_prefix_space");
            object.insert("prepend_scheme".into(), json!("never"));
        }
        Some("ByteLevel") => {
            object.insert("add_prefix_space".into(), json!(false));
        }
        Some("Prepend") => {
            object.insert("prepend".into(), json!(""));
        }
        _ => {}
    })
}

/// A copy of `value` in which `change` has seen every object.
fn each_object(value: &Json, change: &impl Fn(&mut serde_json::Map<String, Json>)) -> Json {
    match value {
        Json::Array(list) => list.iter().map(|value| each_object(value, change)).collect(),
        Json::Object(object) => {
            let pairs = object.iter().map(|(key, value)| (key.clone(), each_object(value, change)));
            let mut object = pairs.collect();
            change(&mut object);
            Json::Object(object)
        }
        other => other.clone(),
    }
}
