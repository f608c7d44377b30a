//! SentencePiece model files: one protobuf message with the pieces, how the model was trained and how text is
//! normalised.
//!
//! Only what decides ids is kept. Absent: what pieces mean for text (`tokenizer`), training settings, self tests and
//! denormalisation.

use prost::Message;

use crate::error::{Error, Result};

/// Largest file in bytes: four times the largest known. A piece may take two bytes here and some forty in memory.
pub const MAX_MODEL_LEN: usize = 16 << 20;

/// The numbers of piece types in the file.
mod piece_type {
    pub const NORMAL: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const BYTE: i32 = 6;
}

/// A model that follows the rules of the library.
#[derive(Debug, Clone, PartialEq)]
pub struct SentencePieceModel {
    /// The pieces by id.
    pub pieces: Vec<Piece>,
    /// How they are chosen.
    pub kind: ModelKind,
    /// Whether text without a piece is spelled in byte pieces.
    pub byte_fallback: bool,
    /// Whether the space that texts get goes behind them.
    pub treat_whitespace_as_suffix: bool,
    /// The piece of unknown text.
    pub unk: u32,
    /// The piece that begins a text.
    pub bos: Option<u32>,
    /// The piece that ends a text.
    pub eos: Option<u32>,
    /// The piece that pads texts.
    pub pad: Option<u32>,
    /// The compiled table of normalisation; empty for the identity.
    pub precompiled_charsmap: Vec<u8>,
    /// Whether texts get a space.
    pub add_dummy_prefix: bool,
    /// Whether spaces at the ends go, and runs of them become one.
    pub remove_extra_whitespaces: bool,
    /// Whether a space is written as `▁`.
    pub escape_whitespaces: bool,
}

/// One piece.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Its spelling.
    pub text: String,
    /// The higher, the sooner it is chosen.
    pub score: f32,
    /// The number of its type, 1 to 6.
    pub kind: i32,
}

/// How pieces are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// By joining pairs.
    Bpe,
    /// By the sum of scores.
    Unigram,
}

/// Reads a model file.
///
/// # Errors
/// `invalid_format` when it is no such message or breaks a rule of the library, `unsupported` for models of words or
/// characters.
pub fn parse(bytes: &[u8]) -> Result<SentencePieceModel> {
    read(bytes).map_err(|e| e.context("reading SentencePiece model"))
}

fn read(bytes: &[u8]) -> Result<SentencePieceModel> {
    if bytes.len() > MAX_MODEL_LEN {
        let len = bytes.len();
        return Err(Error::invalid_format(format!("expected at most {MAX_MODEL_LEN} bytes, got {len}")));
    }
    let message = proto::Model::decode(bytes).map_err(|e| Error::invalid_format(e.to_string()))?;
    // Every trained model has both. They follow the pieces, so a file that was cut there has not.
    let (Some(trainer), Some(normalizer)) = (message.trainer_spec, message.normalizer_spec) else {
        return Err(Error::invalid_format("expected pieces, trainer_spec and normalizer_spec, got less"));
    };
    let pieces = message.pieces.into_iter().enumerate().map(piece).collect::<Result<Vec<_>>>()?;
    let byte_fallback = trainer.byte_fallback.unwrap_or(false);
    check_bytes(&pieces, byte_fallback)?;
    let control = |given: Option<String>, default: &str| {
        let text = given.filter(|text| !text.is_empty()).unwrap_or_else(|| default.into());
        // An id the trainer was told to leave out has no piece.
        pieces.iter().position(|p| p.text == text && p.kind != piece_type::NORMAL).map(|id| id as u32)
    };
    Ok(SentencePieceModel {
        kind: kind(trainer.model_type)?,
        byte_fallback,
        treat_whitespace_as_suffix: trainer.treat_whitespace_as_suffix.unwrap_or(false),
        unk: unknown(&pieces)?,
        bos: control(trainer.bos_piece, "<s>"),
        eos: control(trainer.eos_piece, "</s>"),
        pad: control(trainer.pad_piece, "<pad>"),
        precompiled_charsmap: normalizer.precompiled_charsmap.unwrap_or_default(),
        add_dummy_prefix: normalizer.add_dummy_prefix.unwrap_or(true),
        remove_extra_whitespaces: normalizer.remove_extra_whitespaces.unwrap_or(true),
        escape_whitespaces: normalizer.escape_whitespaces.unwrap_or(true),
        pieces,
    })
}

/// A file that [`parse`] reads back to `model`.
pub fn write(model: &SentencePieceModel) -> Vec<u8> {
    let text = |id: Option<u32>| id.and_then(|id| model.pieces.get(id as usize)).map(|piece| piece.text.clone());
    let piece = |piece: &Piece| proto::Piece {
        piece: Some(piece.text.clone()),
        score: Some(piece.score),
        kind: Some(piece.kind),
    };
    let message = proto::Model {
        pieces: model.pieces.iter().map(piece).collect(),
        trainer_spec: Some(proto::TrainerSpec {
            model_type: Some(if model.kind == ModelKind::Unigram { 1 } else { 2 }),
            treat_whitespace_as_suffix: Some(model.treat_whitespace_as_suffix),
            byte_fallback: Some(model.byte_fallback),
            bos_piece: text(model.bos),
            eos_piece: text(model.eos),
            pad_piece: text(model.pad),
        }),
        normalizer_spec: Some(proto::NormalizerSpec {
            precompiled_charsmap: Some(model.precompiled_charsmap.clone()),
            add_dummy_prefix: Some(model.add_dummy_prefix),
            remove_extra_whitespaces: Some(model.remove_extra_whitespaces),
            escape_whitespaces: Some(model.escape_whitespaces),
        }),
    };
    message.encode_to_vec()
}

fn piece((id, piece): (usize, proto::Piece)) -> Result<Piece> {
    let (text, kind) = (piece.piece.unwrap_or_default(), piece.kind.unwrap_or(piece_type::NORMAL));
    if text.is_empty() {
        return Err(Error::invalid_format(format!("expected a text for piece {id}, got none")));
    }
    if !(piece_type::NORMAL..=piece_type::BYTE).contains(&kind) {
        return Err(Error::invalid_format(format!("expected a type from 1 to 6 for piece {id}, got {kind}")));
    }
    Ok(Piece { text, score: piece.score.unwrap_or(0.0), kind })
}

fn kind(number: Option<i32>) -> Result<ModelKind> {
    Ok(match number.unwrap_or(1) {
        1 => ModelKind::Unigram,
        2 => ModelKind::Bpe,
        other => {
            let name = ["word", "char"].get(other.wrapping_sub(3) as usize).copied().unwrap_or("an unknown type");
            return Err(Error::unsupported(format!("expected a model of type unigram or bpe, got {name} ({other})")));
        }
    })
}

fn unknown(pieces: &[Piece]) -> Result<u32> {
    let mut unknown = (0..).zip(pieces).filter(|(_, p)| p.kind == piece_type::UNKNOWN).map(|(id, _)| id);
    match (unknown.next(), unknown.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(Error::invalid_format("expected a piece for unknown text, got none")),
        (Some(first), Some(second)) => {
            Err(Error::invalid_format(format!("expected one piece for unknown text, got {first} and {second}")))
        }
    }
}

/// Byte pieces come all or not at all. How they are spelled is for the tokenizer to check.
fn check_bytes(pieces: &[Piece], byte_fallback: bool) -> Result<()> {
    let texts: std::collections::BTreeSet<_> =
        pieces.iter().filter(|p| p.kind == piece_type::BYTE).map(|p| &p.text).collect();
    let wanted = if byte_fallback { 256 } else { 0 };
    if texts.len() != wanted {
        return Err(Error::invalid_format(format!("expected {wanted} byte pieces, got {}", texts.len())));
    }
    Ok(())
}

/// The parts of sentencepiece_model.proto that are read.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Model {
        #[prost(message, repeated, tag = "1")]
        pub pieces: Vec<Piece>,
        #[prost(message, optional, tag = "2")]
        pub trainer_spec: Option<TrainerSpec>,
        #[prost(message, optional, tag = "3")]
        pub normalizer_spec: Option<NormalizerSpec>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Piece {
        #[prost(string, optional, tag = "1")]
        pub piece: Option<String>,
        #[prost(float, optional, tag = "2")]
        pub score: Option<f32>,
        #[prost(int32, optional, tag = "3")]
        pub kind: Option<i32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TrainerSpec {
        #[prost(int32, optional, tag = "3")]
        pub model_type: Option<i32>,
        #[prost(bool, optional, tag = "24")]
        pub treat_whitespace_as_suffix: Option<bool>,
        #[prost(bool, optional, tag = "35")]
        pub byte_fallback: Option<bool>,
        #[prost(string, optional, tag = "46")]
        pub bos_piece: Option<String>,
        #[prost(string, optional, tag = "47")]
        pub eos_piece: Option<String>,
        #[prost(string, optional, tag = "48")]
        pub pad_piece: Option<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct NormalizerSpec {
        #[prost(bytes = "vec", optional, tag = "2")]
        pub precompiled_charsmap: Option<Vec<u8>>,
        #[prost(bool, optional, tag = "3")]
        pub add_dummy_prefix: Option<bool>,
        #[prost(bool, optional, tag = "4")]
        pub remove_extra_whitespaces: Option<bool>,
        #[prost(bool, optional, tag = "5")]
        pub escape_whitespaces: Option<bool>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn model() -> proto::Model {
        let piece = |text: &str, kind| proto::Piece { piece: Some(text.into()), score: Some(-1.5), kind };
        proto::Model {
            pieces: vec![piece("<unk>", Some(2)), piece("<s>", Some(3)), piece("</s>", Some(3)), piece("▁a", None)],
            trainer_spec: Some(proto::TrainerSpec { model_type: Some(2), ..Default::default() }),
            normalizer_spec: Some(proto::NormalizerSpec {
                add_dummy_prefix: Some(false),
                precompiled_charsmap: Some(vec![1, 2, 3]),
                ..Default::default()
            }),
        }
    }

    #[test]
    fn what_is_absent_has_the_defaults_of_the_library() {
        let model = parse(&model().encode_to_vec()).unwrap();
        assert_eq!(model.pieces[3], Piece { text: "▁a".into(), score: -1.5, kind: 1 });
        assert_eq!((model.unk, model.bos, model.eos, model.pad), (0, Some(1), Some(2), None));
        assert_eq!((model.kind, model.byte_fallback, model.add_dummy_prefix), (ModelKind::Bpe, false, false));
        assert!(model.remove_extra_whitespaces && model.escape_whitespaces && !model.treat_whitespace_as_suffix);
        assert_eq!(model.precompiled_charsmap, [1, 2, 3]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let model = parse(&model().encode_to_vec()).unwrap();
        assert_eq!(parse(&write(&model)).unwrap(), model);
    }

    #[test]
    fn control_pieces_go_by_the_names_the_trainer_was_given() {
        let mut message = model();
        message.pieces[1].piece = Some("[BOS]".into());
        message.trainer_spec.as_mut().unwrap().bos_piece = Some("[BOS]".into());
        assert_eq!(parse(&message.encode_to_vec()).unwrap().bos, Some(1));
        message.trainer_spec.as_mut().unwrap().bos_piece = Some(String::new());
        assert_eq!(parse(&message.encode_to_vec()).unwrap().bos, None);
    }

    #[test]
    fn models_that_break_a_rule_are_refused() {
        type Case = (fn(&mut proto::Model), &'static str);
        let invalid: [Case; 8] = [
            (|m| m.trainer_spec = None, "expected pieces, trainer_spec and normalizer_spec, got less"),
            (|m| m.normalizer_spec = None, "got less"),
            (|m| m.pieces[3].piece = None, "expected a text for piece 3, got none"),
            (|m| m.pieces[3].kind = Some(7), "expected a type from 1 to 6 for piece 3, got 7"),
            (|m| m.pieces[0].kind = None, "expected a piece for unknown text, got none"),
            (|m| m.pieces[2].kind = Some(2), "expected one piece for unknown text, got 0 and 2"),
            (|m| m.pieces[3].kind = Some(6), "expected 0 byte pieces, got 1"),
            (|m| m.trainer_spec.as_mut().unwrap().byte_fallback = Some(true), "expected 256 byte pieces, got 0"),
        ];
        for (change, wanted) in invalid {
            let mut message = model();
            change(&mut message);
            let e = parse(&message.encode_to_vec()).expect_err(wanted);
            assert_eq!(e.kind(), ErrorKind::InvalidFormat, "{e}");
            assert!(
                e.to_string().starts_with("reading SentencePiece model: ") && e.to_string().ends_with(wanted),
                "{e}"
            );
        }
        for (number, name) in [(3, "word (3)"), (4, "char (4)"), (i32::MIN, "an unknown type (-2147483648)")] {
            let mut message = model();
            message.trainer_spec.as_mut().unwrap().model_type = Some(number);
            let e = parse(&message.encode_to_vec()).unwrap_err();
            assert!(e.kind() == ErrorKind::Unsupported && e.to_string().ends_with(name), "{e}");
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = model().encode_to_vec();
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len]).unwrap_err().kind(), ErrorKind::InvalidFormat, "{len} bytes");
        }
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error() {
        let bytes = model().encode_to_vec();
        // Every byte changed in turn: whatever comes out, nothing panics.
        for at in 0..bytes.len() {
            for change in [0x01, 0x80, 0xFF] {
                let mut bytes = bytes.clone();
                bytes[at] ^= change;
                let _ = parse(&bytes);
            }
        }
        let cases: [&[u8]; 7] = [
            // A piece of 2^63 bytes, a length without an end, a piece whose text is no UTF-8.
            b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x0a\x04\x0a\x02\xff\xff",
            // A field with number 0, an unknown wire type, an end of a group that never began, a wrong wire type.
            b"\x02\x00",
            b"\x0e\x00",
            b"\x0c",
            b"\x0d\x00\x00\x00\x00",
        ];
        for bytes in cases {
            assert_eq!(parse(bytes).unwrap_err().kind(), ErrorKind::InvalidFormat, "{bytes:x?}");
        }
        // Groups within groups, as deep as the file is long.
        assert!(parse(&[0x7b; 1 << 20]).is_err());
        let e = parse(&vec![0; MAX_MODEL_LEN + 1]).unwrap_err();
        assert!(e.to_string().ends_with("expected at most 16777216 bytes, got 16777217"), "{e}");
    }
}
