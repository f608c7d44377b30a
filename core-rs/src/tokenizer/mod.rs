//! Text to token ids and back, for both kinds of vocabulary that Llama-family files carry.
//!
//! The reference for ids is llama.cpp with special tokens parsed. Absent: file formats (see `load`), chat roles and
//! templates, tensors.

mod byte_level;
mod merge;
mod pretokenize;
mod special;
mod spm;
mod stream;
mod vocab;

pub use merge::MAX_WORD_LEN;
pub use pretokenize::PreTokenizer;
pub use stream::StreamDecoder;
pub use vocab::{MAX_PIECE_LEN, MAX_PIECES, TokenType, VocabKind, VocabSpec};

use byte_level::ByteLevel;
use merge::Merger;
use special::Specials;
use spm::{SPACE, SentencePiece};
use vocab::Vocab;

use crate::error::{Error, Result};

/// Most bytes of text in one call of `encode`: far beyond any context, and a bound on memory and positions.
pub const MAX_TEXT_LEN: usize = 64 << 20;

/// A vocabulary ready to encode and decode. Immutable, so one serves all conversations.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: Vocab,
    scheme: Scheme,
    specials: Specials,
}

#[derive(Debug)]
enum Scheme {
    SentencePiece(SentencePiece),
    ByteLevel(ByteLevel),
}

/// A stretch of the text to encode.
enum Fragment {
    Text(String),
    Special(u32),
}

impl Tokenizer {
    /// Checks and indexes a vocabulary.
    ///
    /// # Errors
    /// `invalid_format` when lists differ in length, ids are out of range, pieces repeat or merges name no pieces;
    /// `unsupported` for a pre-tokenizer we do not know.
    pub fn new(mut spec: VocabSpec) -> Result<Self> {
        Self::build(&mut spec).map_err(|e| e.context("reading vocabulary"))
    }

    fn build(spec: &mut VocabSpec) -> Result<Self> {
        let vocab = Vocab::new(spec)?;
        // Byte pieces are checked for both kinds: decoding relies on their spelling.
        vocab.byte_ids()?;
        let scheme = match spec.kind {
            VocabKind::SentencePiece => Scheme::SentencePiece(SentencePiece::new(&vocab, &spec.scores)?),
            VocabKind::ByteLevel => Scheme::ByteLevel(ByteLevel::new(&vocab, &spec.pre, &spec.merges)?),
        };
        let specials = Specials::new(vocab.iter().filter(|(.., t)| t.is_special()).map(|(id, piece, _)| (id, piece)));
        Ok(Self { vocab, scheme, specials })
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
        for fragment in self.fragments(parts) {
            match fragment {
                Fragment::Special(id) => out.push(id),
                Fragment::Text(text) => self.encode_text(text, &mut merger, &mut out),
            }
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
        let start = usize::from(self.has_space_prefix() && bytes.first() == Some(&b' '));
        Ok(String::from_utf8_lossy(&bytes[start..]).into_owned())
    }

    /// A decoder for ids that come one by one.
    pub fn decoder(&self) -> StreamDecoder {
        StreamDecoder::new(self.has_space_prefix())
    }

    /// Whether this id ends generation.
    pub fn is_end(&self, id: u32) -> bool {
        self.vocab.is_end(id)
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
        let specials = self.vocab.iter().filter(|(_, piece, t)| t.is_special() && !piece.is_empty());
        specials.map(|(_, piece, _)| piece.to_owned()).collect()
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

    /// Whether encoding puts a space in front of texts, which decoding has to drop again.
    fn has_space_prefix(&self) -> bool {
        matches!(self.scheme, Scheme::SentencePiece(_)) && self.vocab.add_space_prefix
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

    fn encode_text(&self, text: String, merger: &mut Merger, out: &mut Vec<u32>) {
        match &self.scheme {
            Scheme::ByteLevel(scheme) => scheme.encode(&self.vocab, &text, merger, out),
            Scheme::SentencePiece(scheme) => {
                // Fragments of text never touch, so each follows the start or a special token.
                let prefix = if self.has_space_prefix() { SPACE } else { "" };
                let text = [prefix, &text.replace(' ', SPACE)].concat();
                scheme.encode(&self.vocab, &text, merger, out);
            }
        }
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
            TokenType::Normal => match self.scheme {
                Scheme::SentencePiece(_) => out.extend(piece.replace(SPACE, " ").bytes()),
                Scheme::ByteLevel(_) => piece.chars().for_each(|c| match byte_level::byte_of(c) {
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
