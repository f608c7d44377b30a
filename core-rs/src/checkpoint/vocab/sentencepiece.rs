//! A SentencePiece model with the settings of Hugging Face's files.
//!
//! Ids are those of transformers' `LlamaTokenizer`; without its files they are sentencepiece's own.

use super::{Draft, Settings, Source};
use crate::error::{Error, Result};
use crate::formats::sentencepiece::{self, ModelKind, SentencePieceModel};
use crate::tokenizer::sentencepiece::{Model, NormalizerSpec, Rules, SentencePiece};
use crate::tokenizer::{TokenType, VocabKind, VocabSpec};

pub(super) fn read(bytes: &[u8], settings: &Settings, n_vocab: Option<usize>) -> Result<Source> {
    let mut model = sentencepiece::parse(bytes)?;
    let mut draft = Draft::default();
    for piece in std::mem::take(&mut model.pieces) {
        draft.push(piece.text, piece.score, token_type(piece.kind)?);
    }
    settings.added.iter().try_for_each(|added| draft.add(added))?;
    draft.fit(n_vocab);
    // Not legacy: the space is the tokenizer's own doing, whatever the model says.
    let legacy = settings.legacy.unwrap_or(true);
    let add_space_prefix = if legacy { model.add_dummy_prefix } else { settings.add_prefix_space.unwrap_or(true) };
    let bos = settings.id("bos", &draft).or(model.bos);
    let pad = settings.id("pad", &draft).or(model.pad).filter(|&id| (id as usize) < draft.pieces.len());
    let spec = VocabSpec {
        kind: VocabKind::SentencePiece,
        merges: Vec::new(),
        pre: "default".into(),
        bos,
        eos: settings.id("eos", &draft).or(model.eos),
        eot: None,
        eom: None,
        unk: Some(model.unk),
        add_bos: settings.add_bos.unwrap_or(bos.is_some()),
        add_eos: settings.add_eos.unwrap_or(false),
        add_space_prefix,
        legacy,
        ends: settings.ends(&draft),
        pieces: draft.pieces,
        types: draft.types,
        scores: draft.scores,
    };
    let not_portable = not_portable(&model, &spec.types, &draft.is_text);
    let (kind, name) = match model.kind {
        ModelKind::Bpe => (Model::Bpe, "sentencepiece bpe"),
        ModelKind::Unigram => (Model::Unigram, "sentencepiece unigram"),
    };
    let rules = Rules { model: kind, normalizer: normalizer(model), is_text: draft.is_text };
    Ok(Source {
        spec,
        scheme: Box::new(move |vocab, spec| Ok(Box::new(SentencePiece::new(vocab, spec, &rules)?))),
        pad,
        name,
        not_portable,
    })
}

fn normalizer(model: SentencePieceModel) -> NormalizerSpec {
    NormalizerSpec {
        precompiled_charsmap: model.precompiled_charsmap,
        remove_extra_whitespaces: model.remove_extra_whitespaces,
        escape_whitespaces: model.escape_whitespaces,
        treat_whitespace_as_suffix: model.treat_whitespace_as_suffix,
    }
}

/// SentencePiece numbers `Unused` and `Byte` as GGUF does.
fn token_type(number: i32) -> Result<TokenType> {
    TokenType::from_code(number)
        .ok_or_else(|| Error::internal(format!("reading SentencePiece model: expected a checked type, got {number}")))
}

/// What of a model GGUF's `llama` vocabularies cannot say.
fn not_portable(model: &SentencePieceModel, types: &[TokenType], is_text: &[bool]) -> Option<String> {
    let has = |wanted| types.iter().zip(is_text).any(|(&t, &is_text)| is_text && t == wanted);
    let reasons = [
        (model.kind == ModelKind::Unigram, "a unigram model"),
        (!model.byte_fallback, "no byte pieces"),
        (!model.precompiled_charsmap.is_empty(), "a table of normalisation"),
        (model.remove_extra_whitespaces, "spaces that are removed"),
        (model.treat_whitespace_as_suffix || !model.escape_whitespaces, "spaces written otherwise"),
        (has(TokenType::UserDefined), "user-defined symbols inside text"),
        (has(TokenType::Unused), "pieces that are taken apart again"),
    ];
    let reasons: Vec<_> = reasons.into_iter().filter(|(holds, _)| *holds).map(|(_, reason)| reason).collect();
    (!reasons.is_empty()).then(|| format!("the SentencePiece model has {}", reasons.join(", ")))
}
