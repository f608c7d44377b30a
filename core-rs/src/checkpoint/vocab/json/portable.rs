//! Which vocabularies of tokenizer.json GGUF can carry: those whose steps our own pre-tokenizers know, and those joined
//! by score as SentencePiece does.

use std::collections::{HashMap, HashSet};

use serde_json::{Value as Json, json};

use super::patterns::{GPT2, PATTERNS};
use super::{Draft, File, Pair, text_pieces};
use crate::tokenizer::{PreTokenizer, Spelling, TokenType};

/// Longest piece in bytes whose halves are looked at.
const MAX_CHECKED_LEN: usize = 256;

/// A vocabulary as GGUF sees it.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// The name of the pre-tokenizer.
    pub pre: Option<&'static str>,
    /// Scores by id, when pairs are joined by score; else nothing, or zeros.
    pub scores: Vec<f32>,
    /// Whether text gets a space in front.
    pub has_space_prefix: bool,
    /// Whether it gets one after special tokens too.
    pub legacy: bool,
    /// What GGUF cannot say.
    pub not_portable: Option<&'static str>,
}

/// Finds the form of a file's vocabulary.
pub(super) fn recognise(file: &File, spelling: Spelling, draft: &Draft, merges: &[Pair]) -> Form {
    match spelling {
        Spelling::Bytes => byte_level(file, draft, merges),
        Spelling::Spaces => spaces(file, draft, merges),
    }
}

/// Where a vocabulary lacks a byte, the crate joins what is left and right of it and llama.cpp does not: ids of such text
/// (rare control characters) may differ.
fn byte_level(file: &File, draft: &Draft, merges: &[Pair]) -> Form {
    let pre = pre_tokenizer(&file.pre_tokenizer);
    let is_composed = file.normalizer["type"] == "NFC" && pre == Some(PreTokenizer::Qwen2);
    let reasons = [
        (pre.is_none(), "a pre-tokenizer that llamero's GGUF reader does not know"),
        // llama.cpp leaves Qwen's composition of characters out as well.
        (!(file.normalizer.is_null() || is_composed), "a normalizer"),
        (pre.is_some_and(|pre| pre.takes_whole_words() != file.model.ignore_merges), "an unusual ignore_merges"),
        (merges.iter().any(|(left, right)| left.contains(' ') || right.contains(' ')), "merges of spaces"),
        (draft.types.contains(&TokenType::Byte), "byte pieces"),
    ];
    Form {
        pre: pre.and_then(PreTokenizer::name),
        legacy: true,
        not_portable: reasons.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason),
        ..Form::default()
    }
}

/// The pre-tokenizer of ours that gives the words of these steps.
fn pre_tokenizer(value: &Json) -> Option<PreTokenizer> {
    let steps = value["pretokenizers"].as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let (byte_level, before) = steps.split_last()?;
    if byte_level["type"] != "ByteLevel" || byte_level["add_prefix_space"] != false {
        return None;
    }
    let splits_words = byte_level["use_regex"].as_bool().unwrap_or(true);
    match before {
        [] if splits_words => Some(PreTokenizer::Gpt2),
        [step] if splits_words => {
            let is_digits = step["type"] == "Digits" && step["individual_digits"] == true;
            is_digits.then_some(PreTokenizer::Smollm)
        }
        [step] => {
            let regex = step["pattern"]["Regex"].as_str()?;
            let is_split = step["type"] == "Split" && step["behavior"] == "Isolated" && step["invert"] == false;
            PATTERNS.iter().find(|(known, _)| is_split && *known == regex)?.1
        }
        [digits, words] if !splits_words => {
            let is_gpt2 = words["pattern"]["Regex"] == GPT2 && words["behavior"] == "Isolated";
            (is_gpt2 && digits["type"] == "Digits" && digits["individual_digits"] == true)
                .then_some(PreTokenizer::Smollm)
        }
        _ => None,
    }
}

/// The steps of a file that give the words of `pre`, if its own steps can; [`pre_tokenizer`] reads them back.
pub(in super::super) fn pre_tokenizer_steps(pre: PreTokenizer) -> Option<Json> {
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let sequence = |steps: [Json; 2]| json!({"type": "Sequence", "pretokenizers": steps});
    let split =
        |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let digits = || json!({"type": "Digits", "individual_digits": true});
    Some(match pre {
        PreTokenizer::Default => return None,
        PreTokenizer::Gpt2 => byte_level(true),
        PreTokenizer::Smollm => sequence([digits(), byte_level(true)]),
        PreTokenizer::Llama3 | PreTokenizer::Qwen2 => {
            let (regex, _) = PATTERNS.iter().find(|(_, known)| *known == Some(pre))?;
            sequence([split(regex), byte_level(false)])
        }
    })
}

fn spaces(file: &File, draft: &Draft, merges: &[Pair]) -> Form {
    let prefix = space_prefix(&file.normalizer, &file.pre_tokenizer);
    let scores = scores(draft, merges);
    let n_bytes = draft.types.iter().filter(|t| **t == TokenType::Byte).count();
    let reasons = [
        (prefix.is_none(), "steps that SentencePiece does not have"),
        (n_bytes != 256, "no byte pieces"),
        (file.model.ignore_merges, "ignore_merges"),
        (scores.is_none(), "merges that are not in the order of scores"),
    ];
    let (has_space_prefix, legacy) = prefix.unwrap_or((true, true));
    Form {
        pre: Some("default"),
        // Where they mean nothing they are there for their number.
        scores: scores.unwrap_or_else(|| vec![0.0; draft.pieces.len()]),
        has_space_prefix,
        legacy,
        not_portable: reasons.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason),
    }
}

/// Whether text gets a space in front, and whether after special tokens too; nothing for other steps than those that
/// transformers writes for Llama. `Metaspace` adds none to text that begins with a space; GGUF always does.
fn space_prefix(normalizer: &Json, pre_tokenizer: &Json) -> Option<(bool, bool)> {
    let steps = normalizer["normalizers"].as_array().map_or(std::slice::from_ref(normalizer), Vec::as_slice);
    let is_prepend = |step: &Json| step["type"] == "Prepend" && step["prepend"] == "▁";
    let is_replace =
        |step: &Json| step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == "▁";
    let is_metaspace = pre_tokenizer["type"] == "Metaspace" && pre_tokenizer["replacement"] == "▁";
    match (steps, pre_tokenizer) {
        ([prepend, replace], Json::Null) if is_prepend(prepend) && is_replace(replace) => Some((true, true)),
        ([replace], Json::Null) if is_replace(replace) => Some((false, true)),
        ([Json::Null], _) if is_metaspace && pre_tokenizer["split"] == false => {
            match pre_tokenizer["prepend_scheme"].as_str() {
                Some("always") => Some((true, true)),
                Some("first") => Some((true, false)),
                Some("never") => Some((false, true)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Scores that join pairs in the order of the merges: every pair of pieces that makes a piece must be there, and all
/// pairs that make the same piece must follow each other. Runs of one character are let off the second: Llama's own file
/// has those of `▁` in turns, and gives the ids of its SentencePiece model all the same.
fn scores(draft: &Draft, merges: &[Pair]) -> Option<Vec<f32>> {
    let ids: HashMap<&str, u32> = text_pieces(draft).map(|(id, piece)| (piece, id)).collect();
    let mut ranks: HashMap<u32, usize> = HashMap::new();
    let mut last = None;
    for (left, right) in merges {
        let piece = [left.as_str(), right].concat();
        let id = *ids.get(piece.as_str())?;
        let rank = ranks.len();
        if last != Some(id) && *ranks.entry(id).or_insert(rank) != rank && !is_run(&piece) {
            return None;
        }
        last = Some(id);
    }
    let pairs: HashSet<(&str, &str)> = merges.iter().map(|(left, right)| (left.as_str(), right.as_str())).collect();
    let is_complete = |piece: &str| {
        let mut halves = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
        piece.len() <= MAX_CHECKED_LEN
            && halves.all(|(l, r)| !(ids.contains_key(l) && ids.contains_key(r)) || pairs.contains(&(l, r)))
    };
    if !ids.keys().all(|piece| is_complete(piece)) {
        return None;
    }
    let score = |id: u32| ranks.get(&id).map_or(-(ranks.len() as f32), |&rank| -(rank as f32));
    Some((0..draft.pieces.len() as u32).map(score).collect())
}

/// Whether all characters are the same.
fn is_run(piece: &str) -> bool {
    let mut chars = piece.chars();
    chars.next().is_some_and(|first| chars.all(|c| c == first))
}
