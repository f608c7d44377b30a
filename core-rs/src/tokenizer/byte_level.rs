//! Byte-level BPE as GGUF `gpt2` vocabularies carry it: every byte has a printable stand-in character, pieces are
//! spelled in stand-ins, and words from the pre-tokenizer are merged in the order of a list.

use std::collections::HashMap;

use super::merge::{MAX_WORD_LEN, Merge, Merger, chunks};
use super::pretokenize::PreTokenizer;
use super::vocab::{TokenType, Vocab};
use super::{Place, Scheme, Spelling};
use crate::error::{Error, Result};

#[derive(Debug)]
pub(super) struct ByteLevel {
    pre: PreTokenizer,
    merges: HashMap<(u32, u32), Merge>,
    /// The piece of each byte. Some vocabularies lack bytes that UTF-8 hardly uses; text loses these, as in the
    /// programs the models were trained with.
    byte_ids: [Option<u32>; 256],
}

impl ByteLevel {
    pub fn new(vocab: &Vocab, pre: &str, merges: &[String]) -> Result<Self> {
        let pre = PreTokenizer::from_name(pre)?;
        let mut byte_ids = [None; 256];
        for (byte, id) in (0u8..=255).zip(&mut byte_ids) {
            *id = vocab.id(stand_in(byte).encode_utf8(&mut [0; 4])).filter(|&id| is_text(vocab, id));
        }
        Ok(Self { pre, merges: index_merges(vocab, merges)?, byte_ids })
    }

    fn encode_word(&self, word: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        merger.clear();
        word.bytes().for_each(|byte| merger.push(1, self.byte_ids[usize::from(byte)]));
        merger.run(|left, right| self.merges.get(&(left.id?, right.id?)).copied());
        out.extend(merger.symbols().filter_map(|symbol| symbol.id));
    }
}

impl Scheme for ByteLevel {
    fn encode(&self, vocab: &Vocab, text: &str, _: Place, merger: &mut Merger, out: &mut Vec<u32>) -> Result<()> {
        let mut spelled = String::new();
        self.pre.split(text, |word| {
            if self.pre.takes_whole_words() {
                spelled.clear();
                spelled.extend(word.bytes().map(stand_in));
                if let Some(id) = vocab.id(&spelled).filter(|&id| is_text(vocab, id)) {
                    return out.push(id);
                }
            }
            for chunk in chunks(word, MAX_WORD_LEN) {
                self.encode_word(chunk, merger, out);
            }
        });
        Ok(())
    }

    fn spelling(&self) -> Spelling {
        Spelling::Bytes
    }
}

/// Whether plain text may become this piece: control tokens are never spelled by merging.
fn is_text(vocab: &Vocab, id: u32) -> bool {
    matches!(vocab.get(id), Some((_, TokenType::Normal | TokenType::Unused | TokenType::Undefined)))
}

/// The merge list by pair of ids. A merge into something that is not text can never apply and is left out.
fn index_merges(vocab: &Vocab, merges: &[String]) -> Result<HashMap<(u32, u32), Merge>> {
    let mut by_pair = HashMap::with_capacity(merges.len());
    for (rank, merge) in (0u32..).zip(merges) {
        // A piece never contains a space (its stand-in is Ġ), so the one after the first character parts the pair.
        let first = merge.chars().next().map_or(0, char::len_utf8);
        let halves = merge[first..].split_once(' ').map(|(left, right)| (&merge[..first + left.len()], right));
        let id = |text: &str| {
            vocab.id(text).ok_or_else(|| {
                Error::invalid_format(format!("expected merge {rank} to name pieces, got {merge:?} without {text:?}"))
            })
        };
        let Some((left, right)) = halves.filter(|(_, right)| !right.is_empty()) else {
            return Err(Error::invalid_format(format!("expected merge {rank} as \"left right\", got {merge:?}")));
        };
        let (key, joined) = ((id(left)?, id(right)?), id(&[left, right].concat())?);
        if is_text(vocab, joined) {
            by_pair.entry(key).or_insert(Merge { rank, id: joined });
        }
    }
    Ok(by_pair)
}

/// The character that stands for a byte: itself where that is printable Latin-1, else the next free one from U+0100.
pub(super) fn stand_in(byte: u8) -> char {
    let shift = match byte {
        0x00..=0x20 => u32::from(byte),
        0x7F..=0xA0 => u32::from(byte) - 0x7F + 33,
        0xAD => 67,
        _ => return char::from(byte),
    };
    // U+0100 to U+0143 are all characters.
    char::from_u32(0x100 + shift).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte a stand-in stands for.
pub(super) fn byte_of(stand_in: char) -> Option<u8> {
    match u32::from(stand_in) {
        c @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(c as u8),
        c @ 0x100..=0x120 => Some((c - 0x100) as u8),
        c @ 0x121..=0x142 => Some((c - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_its_own_stand_in() {
        let all: std::collections::BTreeSet<char> = (0..=255).map(stand_in).collect();
        assert_eq!(all.len(), 256);
        assert!((0..=255).all(|byte| byte_of(stand_in(byte)) == Some(byte)));
        assert_eq!([b' ', b'\n', 0x7F, 0xA0, 0xAD].map(stand_in), ['Ġ', 'Ċ', 'ġ', 'ł', 'Ń']);
        assert_eq!(byte_of(' '), None);
        assert_eq!(byte_of('ń'), None);
    }
}
