//! Vocabulary data as plain values, and the checks that make it safe to index.
//!
//! Absent: file formats (whoever reads a file fills `VocabSpec`), merging, and text.

use std::collections::HashMap;

use crate::error::{Error, Result};

/// Most pieces of a vocabulary; the largest of today have about 260k.
pub const MAX_PIECES: usize = 1 << 22;
/// Longest piece in bytes; the longest known have 512. Every pair of SentencePiece symbols up to the longest piece is
/// looked up by its text, so one endless piece would make all encoding slow.
pub const MAX_PIECE_LEN: usize = 1 << 12;

/// Texts that end a turn or a document whatever the file calls them, as llama.cpp ends generation. Files often forget
/// to name the one their chat template uses, or mark it as ordinary text; it counts as a control token all the same.
const END_TEXTS: &[&str] = &[
    "</s>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|return|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    // Borders between files and repositories in code models: a reply that reaches one is over.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// Whether a piece with this text ends generation whatever its file calls it.
pub fn is_end_text(text: &str) -> bool {
    END_TEXTS.contains(&text)
}

/// How text becomes pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VocabKind {
    /// SentencePiece BPE: pairs joined by score, `▁` for a space, unknown characters as byte pieces (GGUF `llama`).
    SentencePiece,
    /// Byte-level BPE: words from a pre-tokenizer, pairs joined in the order of a merge list (GGUF `gpt2`).
    ByteLevel,
}

/// What a piece stands for; numbers as in SentencePiece and GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// No meaning (0).
    Undefined = 0,
    /// A run of text (1).
    Normal = 1,
    /// Stands for text that no piece covers (2).
    Unknown = 2,
    /// Steers the model and is no text: begin, end, roles (3).
    Control = 3,
    /// Text that is matched before any other encoding (4).
    UserDefined = 4,
    /// A place held free (5).
    Unused = 5,
    /// One byte, spelled `<0xXX>` (6).
    Byte = 6,
}

impl TokenType {
    /// The type with this number.
    pub const fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            0 => Self::Undefined,
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// The number of this type.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// Whether the text of such a piece is matched as a whole before other encoding.
    pub const fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::UserDefined | Self::Unknown)
    }
}

/// Everything a tokenizer is built from.
#[derive(Debug, Clone, PartialEq)]
pub struct VocabSpec {
    /// How text becomes pieces.
    pub kind: VocabKind,
    /// The text of each id.
    pub pieces: Vec<String>,
    /// The type of each id; empty means all normal.
    pub types: Vec<TokenType>,
    /// The score of each id; `SentencePiece` needs them, `ByteLevel` has none.
    pub scores: Vec<f32>,
    /// Pairs as `left right`, best first; `ByteLevel` needs them, `SentencePiece` has none.
    pub merges: Vec<String>,
    /// The name of the pre-tokenizer of a `ByteLevel` vocabulary.
    pub pre: String,
    /// Begin of text.
    pub bos: Option<u32>,
    /// End of text.
    pub eos: Option<u32>,
    /// End of turn.
    pub eot: Option<u32>,
    /// End of message.
    pub eom: Option<u32>,
    /// Text that no piece covers.
    pub unk: Option<u32>,
    /// Whether encoding begins with `bos`.
    pub add_bos: bool,
    /// Whether encoding ends with `eos`.
    pub add_eos: bool,
    /// Whether a `SentencePiece` text gets a space in front.
    pub add_space_prefix: bool,
    /// Whether text after a special token gets that space too, as in llama.cpp; otherwise only the very start does.
    pub legacy: bool,
    /// Ids that end generation besides `eos`, `eot` and `eom`.
    pub ends: Vec<u32>,
}

/// Checked pieces: every id stored here is below `len`.
#[derive(Debug)]
pub struct Vocab {
    pieces: Vec<String>,
    types: Vec<TokenType>,
    by_text: HashMap<String, u32>,
    /// Ids in ascending order.
    ends: Vec<u32>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unk: Option<u32>,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
}

impl Vocab {
    /// Takes the pieces out of `spec` and checks what all kinds share.
    pub(super) fn new(spec: &mut VocabSpec) -> Result<Self> {
        check_lengths(spec)?;
        check_ids(spec)?;
        let pieces = std::mem::take(&mut spec.pieces);
        let mut types = std::mem::take(&mut spec.types);
        types.resize(pieces.len(), TokenType::Normal);
        let by_text = index(&pieces)?;
        let ends = find_ends(spec, &by_text, &mut types);
        Ok(Self {
            pieces,
            types,
            by_text,
            ends,
            bos: spec.bos,
            eos: spec.eos,
            unk: spec.unk,
            add_bos: spec.add_bos,
            add_eos: spec.add_eos,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The piece of an id, and its type.
    pub fn get(&self, id: u32) -> Option<(&str, TokenType)> {
        let i = id as usize;
        Some((self.pieces.get(i)?, self.types[i]))
    }

    /// The id of a piece.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.by_text.get(text).copied()
    }

    pub(super) fn ends(&self) -> &[u32] {
        &self.ends
    }

    pub(super) fn is_end(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// Ids, texts and types in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str, TokenType)> {
        (0u32..).zip(&self.pieces).zip(&self.types).map(|((id, piece), &t)| (id, piece.as_str(), t))
    }

    /// The ids of the byte pieces by byte; a spelling in lower case counts too, the first of two wins.
    pub(super) fn byte_ids(&self) -> Result<[Option<u32>; 256]> {
        let mut ids = [None; 256];
        for (id, piece, _) in self.iter().filter(|&(_, _, t)| t == TokenType::Byte) {
            let byte = parse_byte(piece).ok_or_else(|| {
                Error::invalid_format(format!("expected byte piece {id} to look like <0x0A>, got {piece:?}"))
            })?;
            ids[usize::from(byte)].get_or_insert(id);
        }
        Ok(ids)
    }
}

/// The byte that `<0xXX>` stands for.
pub(super) fn parse_byte(piece: &str) -> Option<u8> {
    let hex = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() != 2 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(hex, 16).ok()
}

fn check_lengths(spec: &VocabSpec) -> Result<()> {
    let n = spec.pieces.len();
    if n == 0 || n > MAX_PIECES {
        return Err(Error::invalid_format(format!("expected 1 to {MAX_PIECES} pieces, got {n}")));
    }
    if let Some((id, piece)) = spec.pieces.iter().enumerate().find(|(_, p)| p.len() > MAX_PIECE_LEN) {
        return Err(Error::invalid_format(format!(
            "expected pieces of at most {MAX_PIECE_LEN} bytes, got {} bytes for piece {id}",
            piece.len()
        )));
    }
    let is_sentencepiece = spec.kind == VocabKind::SentencePiece;
    let lists = [("types", spec.types.len(), false), ("scores", spec.scores.len(), is_sentencepiece)];
    for (what, len, is_needed) in lists {
        if len != n && (is_needed || len != 0) {
            return Err(Error::invalid_format(format!("expected as many {what} as pieces, {n}, got {len}")));
        }
    }
    match spec.scores.iter().position(|s| s.is_nan()) {
        Some(id) => Err(Error::invalid_format(format!("expected scores that are numbers, got NaN for piece {id}"))),
        None => Ok(()),
    }
}

fn check_ids(spec: &VocabSpec) -> Result<()> {
    let n = spec.pieces.len();
    let ids = [("bos", spec.bos), ("eos", spec.eos), ("eot", spec.eot), ("eom", spec.eom), ("unknown", spec.unk)];
    for (what, id) in ids {
        if let Some(id) = id.filter(|&id| id as usize >= n) {
            return Err(Error::invalid_format(format!("expected the {what} id below {n}, got {id}")));
        }
    }
    if let Some(id) = spec.ends.iter().find(|&&id| id as usize >= n) {
        return Err(Error::invalid_format(format!("expected ids that end generation below {n}, got {id}")));
    }
    for (what, is_added, id) in [("bos", spec.add_bos, spec.bos), ("eos", spec.add_eos, spec.eos)] {
        if is_added && id.is_none() {
            return Err(Error::invalid_format(format!("expected the {what} id, since texts get one, got none")));
        }
    }
    Ok(())
}

/// Ids by text. Empty pieces are padding and have no text to be found by.
fn index(pieces: &[String]) -> Result<HashMap<String, u32>> {
    let mut by_text = HashMap::with_capacity(pieces.len());
    for (id, piece) in (0u32..).zip(pieces).filter(|(_, p)| !p.is_empty()) {
        if let Some(first) = by_text.insert(piece.clone(), id) {
            return Err(Error::invalid_format(format!("expected each piece once, got {piece:?} as {first} and {id}")));
        }
    }
    Ok(by_text)
}

/// The ids that end generation, ascending. Those known by their text become control tokens.
fn find_ends(spec: &VocabSpec, by_text: &HashMap<String, u32>, types: &mut [TokenType]) -> Vec<u32> {
    let mut ends: Vec<u32> = END_TEXTS.iter().filter_map(|text| by_text.get(*text).copied()).collect();
    for &id in &ends {
        types[id as usize] = TokenType::Control;
    }
    ends.extend([spec.eos, spec.eot, spec.eom].into_iter().flatten().chain(spec.ends.iter().copied()));
    ends.sort_unstable();
    ends.dedup();
    ends
}
