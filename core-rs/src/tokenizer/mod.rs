//! Text to token ids and back. Special tokens and the pieces of a vocabulary are handled here, whatever it is; what
//! becomes of the text between special tokens is the matter of a `Scheme`.
//!
//! The reference for ids of GGUF vocabularies is llama.cpp with special tokens parsed, for SentencePiece files
//! sentencepiece itself. Absent: file formats (see `load` and `checkpoint`), chat roles and templates, tensors.

mod byte_level;
mod merge;
mod pretokenize;
pub mod sentencepiece;
mod special;
mod spm;
mod stream;
mod trie;
mod vocab;

pub use merge::{MAX_WORD_LEN, Merger, chunks};
pub use pretokenize::PreTokenizer;
pub use stream::StreamDecoder;
pub use vocab::{MAX_PIECE_LEN, MAX_PIECES, TokenType, Vocab, VocabKind, VocabSpec, is_end_text};

use std::fmt::Debug;

use byte_level::ByteLevel;
use special::Specials;
use spm::{Llama, SPACE};

use crate::error::{Error, Result};

/// Most bytes of text in one call of `encode`: far beyond any context, and a bound on memory and positions.
pub const MAX_TEXT_LEN: usize = 64 << 20;

/// How text without special tokens becomes ids.
///
/// GGUF has two schemes, which `Tokenizer::new` builds; whoever reads other files brings others, so that a build that
/// reads none does not carry them.
pub trait Scheme: Debug + Send + Sync {
    /// Appends the ids of `text`, which is not empty and stands at the very start or after a special token.
    ///
    /// # Errors
    /// `invalid_request` for text that is beyond a limit.
    fn encode(&self, vocab: &Vocab, text: &str, place: Place, merger: &mut Merger, out: &mut Vec<u32>) -> Result<()>;

    /// How pieces spell text.
    fn spelling(&self) -> Spelling;

    /// Whether encoding puts a space in front of texts, which decoding has to drop again.
    fn has_space_prefix(&self) -> bool {
        false
    }

    /// Whether this user-defined piece is found by the scheme; then it is not cut out of the text before.
    fn finds(&self, _id: u32) -> bool {
        false
    }
}

/// Where a stretch of text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nothing is in front of it.
    Start,
    /// A special token is in front of it.
    AfterSpecial,
}

/// How the pieces of a vocabulary spell text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As it is, with `▁` for a space.
    Spaces,
    /// A stand-in character for each byte.
    Bytes,
}

/// A vocabulary ready to encode and decode. Immutable, so one serves all conversations.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: Vocab,
    scheme: Box<dyn Scheme>,
    specials: Specials,
}

/// A stretch of the text to encode.
enum Fragment {
    Text(String),
    Special(u32),
}

impl Tokenizer {
    /// Checks and indexes a vocabulary that is encoded by the rules of GGUF.
    ///
    /// # Errors
    /// `invalid_format` when lists differ in length, ids are out of range, pieces repeat or merges name no pieces;
    /// `unsupported` for a pre-tokenizer we do not know.
    pub fn new(spec: VocabSpec) -> Result<Self> {
        Self::with_scheme(spec, |vocab, spec| {
            Ok(match spec.kind {
                VocabKind::SentencePiece => Box::new(Llama::new(vocab, spec)?),
                VocabKind::ByteLevel => Box::new(ByteLevel::new(vocab, &spec.pre, &spec.merges)?),
            })
        })
    }

    /// Checks and indexes a vocabulary that is encoded by the rules that `scheme` makes for it. The pieces and types of
    /// the description have moved into the vocabulary by then.
    ///
    /// # Errors
    /// As `new`, and whatever `scheme` returns.
    pub fn with_scheme(
        mut spec: VocabSpec,
        scheme: impl FnOnce(&Vocab, &VocabSpec) -> Result<Box<dyn Scheme>>,
    ) -> Result<Self> {
        Self::build(&mut spec, scheme).map_err(|e| e.context("reading vocabulary"))
    }

    fn build(spec: &mut VocabSpec, scheme: impl FnOnce(&Vocab, &VocabSpec) -> Result<Box<dyn Scheme>>) -> Result<Self> {
        let vocab = Vocab::new(spec)?;
        // Byte pieces are checked for every kind: decoding relies on their spelling.
        vocab.byte_ids()?;
        let scheme = scheme(&vocab, spec)?;
        let is_special = |id, t: TokenType| t.is_special() && !(t == TokenType::UserDefined && scheme.finds(id));
        let specials = vocab.iter().filter(|&(id, _, t)| is_special(id, t)).map(|(id, piece, _)| (id, piece));
        Ok(Self { specials: Specials::new(specials), vocab, scheme })
    }

    /// The ids of the joined `parts`, with begin and end tokens if the vocabulary adds them.
    ///
    /// Texts of special tokens are recognised inside a part and never across two: whoever must keep a user's text from
    /// becoming a special token cuts it inside such a text. Other text is encoded as if the parts were one.
    ///
    /// # Errors
    /// `invalid_request` for more than `MAX_TEXT_LEN` bytes.
    pub fn encode<S: AsRef<str>>(&self, parts: &[S]) -> Result<Vec<u32>> {
        let len: usize = parts.iter().map(|p| p.as_ref().len()).sum();
        if len > MAX_TEXT_LEN {
            return Err(Error::invalid_request(format!(
                "encoding text: expected at most {MAX_TEXT_LEN} bytes, got {len}"
            )));
        }
        let mut out = Vec::new();
        out.extend(self.vocab.bos.filter(|_| self.vocab.add_bos));
        let mut merger = Merger::default();
        let mut place = Place::Start;
        for fragment in self.fragments(parts) {
            match fragment {
                Fragment::Special(id) => out.push(id),
                // Fragments of text never touch, so each follows the start or a special token.
                Fragment::Text(text) => self.scheme.encode(&self.vocab, &text, place, &mut merger, &mut out)?,
            }
            place = Place::AfterSpecial;
        }
        out.extend(self.vocab.eos.filter(|_| self.vocab.add_eos));
        Ok(out)
    }

    /// The text of `ids`. Control tokens are no text; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// `invalid_request` when an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut bytes = Vec::new();
        for &id in ids {
            self.push_bytes(id, &mut bytes)?;
        }
        let start = usize::from(self.scheme.has_space_prefix() && bytes.first() == Some(&b' '));
        Ok(String::from_utf8_lossy(&bytes[start..]).into_owned())
    }

    /// A decoder for ids that come one by one.
    pub fn decoder(&self) -> StreamDecoder {
        StreamDecoder::new(self.scheme.has_space_prefix())
    }

    /// A decoder that keeps every byte, also a space in front.
    pub fn verbatim_decoder(&self) -> StreamDecoder {
        StreamDecoder::new(false)
    }

    /// The bytes that an id adds to a text; none for ids that are no plain text, such as special tokens.
    pub fn text_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let (_, token_type) = self.vocab.get(id)?;
        let is_text = matches!(token_type, TokenType::Normal | TokenType::Byte) && !self.is_end(id);
        self.bytes(id).ok().filter(|_| is_text)
    }

    /// Whether this id ends generation.
    pub fn is_end(&self, id: u32) -> bool {
        self.vocab.is_end(id)
    }

    /// The ids that end generation, in ascending order.
    pub fn ends(&self) -> &[u32] {
        self.vocab.ends()
    }

    /// The bytes that an id adds to a running text; control tokens add none.
    ///
    /// # Errors
    /// `invalid_request` when the id is not in the vocabulary.
    pub fn bytes(&self, id: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.push_bytes(id, &mut bytes)?;
        Ok(bytes)
    }

    /// Begin of text.
    pub fn bos(&self) -> Option<u32> {
        self.vocab.bos
    }

    /// End of text.
    pub fn eos(&self) -> Option<u32> {
        self.vocab.eos
    }

    /// The piece of an id as the vocabulary spells it.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.vocab.get(id).map(|(piece, _)| piece)
    }

    /// The texts that `encode` recognises as a whole, in the order of their ids.
    pub fn special_texts(&self) -> Vec<String> {
        let mut specials: Vec<_> = self.specials.iter().collect();
        specials.sort_unstable();
        specials.into_iter().map(|(_, text)| text.to_owned()).collect()
    }

    /// The number of ids.
    #[expect(clippy::len_without_is_empty, reason = "a vocabulary without pieces is refused")]
    pub fn len(&self) -> usize {
        self.vocab.len()
    }

    /// Whether `encode` begins with `bos`.
    pub fn adds_bos(&self) -> bool {
        self.vocab.add_bos
    }

    /// Special tokens and the text between them, joined across parts.
    fn fragments<S: AsRef<str>>(&self, parts: &[S]) -> Vec<Fragment> {
        let mut out = Vec::new();
        for part in parts {
            let part = part.as_ref();
            let mut at = 0;
            for (range, id) in self.specials.find(part) {
                push_text(&mut out, &part[at..range.start]);
                out.push(Fragment::Special(id));
                at = range.end;
            }
            push_text(&mut out, &part[at..]);
        }
        out
    }

    /// Appends the bytes an id stands for.
    fn push_bytes(&self, id: u32, out: &mut Vec<u8>) -> Result<()> {
        let Some((piece, token_type)) = self.vocab.get(id) else {
            let len = self.len();
            return Err(Error::invalid_request(format!("decoding token: expected an id below {len}, got {id}")));
        };
        match token_type {
            TokenType::Control | TokenType::Unknown | TokenType::Unused | TokenType::Undefined => {}
            TokenType::UserDefined => out.extend(piece.bytes()),
            TokenType::Byte => out.extend(vocab::parse_byte(piece)),
            TokenType::Normal => match self.scheme.spelling() {
                Spelling::Spaces => out.extend(piece.replace(SPACE, " ").bytes()),
                Spelling::Bytes => piece.chars().for_each(|c| match byte_level::byte_of(c) {
                    Some(byte) => out.push(byte),
                    None => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
                }),
            },
        }
        Ok(())
    }
}

fn push_text(fragments: &mut Vec<Fragment>, text: &str) {
    match fragments.last_mut() {
        _ if text.is_empty() => {}
        Some(Fragment::Text(before)) => before.push_str(text),
        _ => fragments.push(Fragment::Text(text.to_owned())),
    }
}

#[cfg(test)]
#[path = "tokenizer_test.rs"]
mod tests;
