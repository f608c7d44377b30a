//! Tensors of checkpoints that are not GGUF: what each is called, how its values are stored, and where its bytes lie.
//!
//! Every reader of this room but GGUF's hands out this one type. Places have been checked against the length of their
//! file, and sizes against shapes. Bytes need not be aligned. Absent: reading files, and arithmetic on values.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use super::ggml_type::GgmlType;
use crate::error::{Error, Result};

/// Most dimensions of a tensor; what the formats allow is more than any model has.
pub const MAX_DIMS: usize = 8;

/// Most tensors of one file; a 70B model has about 700.
pub const MAX_TENSORS: usize = 1 << 16;

/// How one value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// As a type of ggml that has no blocks: f32, f16 or bf16.
    Ggml(GgmlType),
    /// In a way that no weight of ours is, by its name: a file may hold counters, masks and views that nobody reads.
    Other(&'static str),
}

impl Element {
    /// The name of the type, for messages and listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ggml(dtype) => dtype.name(),
            Self::Other(name) => name,
        }
    }
}

/// How the bytes of a piece are written in their file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Raw,
    /// As UTF-8 text whose characters, U+0000 to U+00FF, are the bytes: Python 3's `bytes` in pickle protocols below 3.
    Latin1,
}

/// A run of bytes of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which file, as the caller of the reader counts them.
    pub file: usize,
    /// Where in that file.
    pub range: Range<usize>,
    /// How the bytes are written there.
    pub encoding: Encoding,
}

/// One tensor: what it is called, how it is stored, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The name, unique in its file.
    pub name: String,
    /// How one value is stored.
    pub element: Element,
    /// Dimensions, outermost first: a matrix is `[rows, columns]`. Empty for a single value.
    pub shape: Vec<usize>,
    /// Whether the bytes are those of the transposed matrix: value (r, c) is at `c * rows + r`. Only for matrices.
    pub column_major: bool,
    /// Where the bytes lie: joined in this order, they are the tensor's.
    pub pieces: Vec<Piece>,
}

impl Stored {
    /// The type of the values.
    ///
    /// # Errors
    /// `unsupported` for a type that weights are not computed with.
    pub fn dtype(&self) -> Result<GgmlType> {
        match self.element {
            Element::Ggml(dtype) => Ok(dtype),
            Element::Other(name) => Err(Error::unsupported(format!(
                "tensor {}: expected values of f32, f16 or bf16, got {name}",
                self.name
            ))),
        }
    }

    /// The number of bytes that [`Stored::bytes`] returns.
    ///
    /// # Errors
    /// `unsupported` for a type that weights are not computed with.
    pub fn byte_len(&self) -> Result<usize> {
        let len = byte_len(&self.shape, self.dtype()?.type_size());
        len.ok_or_else(|| Error::internal(format!("tensor {} has a shape {:?} without a size", self.name, self.shape)))
    }

    /// The bytes of all values, little-endian: borrowed from the file where they lie there in one run as they are.
    ///
    /// `files` are the files that the pieces count.
    ///
    /// # Errors
    /// `unsupported` for a type that weights are not computed with, `invalid_format` for a text that is not one of
    /// bytes, or not of as many bytes as the shape takes.
    pub fn bytes<'a>(&self, files: &[&'a [u8]]) -> Result<Cow<'a, [u8]>> {
        let len = self.byte_len()?;
        let bytes = match self.pieces.as_slice() {
            [piece] if piece.encoding == Encoding::Raw => Cow::Borrowed(piece.written(files)?),
            pieces => {
                Cow::Owned(join(pieces, files, len).map_err(|e| e.context(format_args!("tensor {}", self.name)))?)
            }
        };
        if bytes.len() != len {
            return Err(wrong_len(len, bytes.len()).context(format_args!("tensor {}", self.name)));
        }
        Ok(bytes)
    }
}

/// The tensors of one file, each name once.
#[derive(Debug, Default)]
pub(super) struct Named(BTreeMap<String, Stored>);

impl Named {
    /// Adds a tensor.
    pub fn insert(&mut self, tensor: Stored) -> Result<()> {
        if self.0.len() >= MAX_TENSORS {
            return Err(Error::invalid_format(format!("expected at most {MAX_TENSORS} tensors, got more")));
        }
        match self.0.insert(tensor.name.clone(), tensor) {
            None => Ok(()),
            Some(before) => {
                Err(Error::invalid_format(format!("expected each tensor once, got {:?} twice", before.name)))
            }
        }
    }

    /// Takes a tensor out again.
    pub fn take(&mut self, name: &str) -> Option<Stored> {
        self.0.remove(name)
    }

    /// All tensors in the order of their names.
    pub fn finish(self) -> Result<Vec<Stored>> {
        match self.0.is_empty() {
            true => Err(Error::invalid_format("expected a dictionary of tensors, got one without any")),
            false => Ok(self.0.into_values().collect()),
        }
    }
}

/// Bytes of a dense tensor, or none when they do not fit.
pub(super) fn byte_len(shape: &[usize], value_size: usize) -> Option<usize> {
    // Zeros first: a tensor of none times too many is one of none.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(value_size, |n, &dim| n.checked_mul(dim))
}

impl Piece {
    /// The bytes as written in the file.
    fn written<'a>(&self, files: &[&'a [u8]]) -> Result<&'a [u8]> {
        files.get(self.file).and_then(|file| file.get(self.range.clone())).ok_or_else(|| {
            Error::internal(format!("expected bytes {:?} in file {}, got another file", self.range, self.file))
        })
    }
}

fn join(pieces: &[Piece], files: &[&[u8]], len: usize) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(len);
    for piece in pieces {
        let written = piece.written(files)?;
        match piece.encoding {
            // Checked before it is copied, as the sum of all pieces is checked only at the end.
            Encoding::Raw if written.len() > len - out.len() => return Err(wrong_len(len, out.len() + written.len())),
            Encoding::Raw => out.extend_from_slice(written),
            Encoding::Latin1 => decode_latin1(written, len, &mut out)?,
        }
    }
    Ok(out)
}

/// Appends the bytes that a text stands for, until there are `len`.
///
/// Weights are noise, so branches on them would be guessed wrong half of the time: each byte of the text is decoded as
/// if it ended a character, and one that begins a character of two is overwritten by the next (1.8 times as fast).
fn decode_latin1(text: &[u8], len: usize, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    out.resize(len, 0);
    let slots = &mut out[start..];
    let (mut n, mut before, mut is_wrong) = (0, 0, false);
    for &byte in text {
        let Some(slot) = slots.get_mut(n) else {
            return Err(Error::invalid_format(format!("expected a text of {len} bytes, got more")));
        };
        // 110000ab 10cccccc is the character abcccccc, where a is 1; 0xC2 and 0xC3 differ in b.
        *slot = byte | u8::from(before == 0xC3) << 6;
        let (begins, ends) = (byte >= 0xC0, byte & 0xC0 == 0x80);
        is_wrong |= ends != (before >= 0xC0) || begins && byte & 0xFE != 0xC2;
        n += usize::from(!begins);
        before = byte;
    }
    out.truncate(start + n);
    if is_wrong || before >= 0xC0 {
        return Err(Error::invalid_format("expected a text of the characters U+0000 to U+00FF in UTF-8, got another"));
    }
    Ok(())
}

fn wrong_len(wanted: usize, got: usize) -> Error {
    Error::invalid_format(format!("expected {wanted} bytes as the shape has, got {got}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    fn piece(file: usize, range: Range<usize>, encoding: Encoding) -> Piece {
        Piece { file, range, encoding }
    }

    fn stored(shape: &[usize], pieces: Vec<Piece>) -> Stored {
        let element = Element::Ggml(GgmlType::F16);
        Stored { name: "w".into(), element, shape: shape.into(), column_major: false, pieces }
    }

    #[test]
    fn one_raw_piece_is_borrowed_and_others_are_joined() {
        let (a, b) = ([1, 2, 3, 4, 5], "x\u{80}\u{ff}y".as_bytes());
        let files: [&[u8]; 2] = [&a, b];
        let one = stored(&[2], vec![piece(0, 1..5, Encoding::Raw)]);
        assert!(matches!(one.bytes(&files), Ok(Cow::Borrowed([2, 3, 4, 5]))));
        let two = stored(&[2, 2], vec![piece(1, 0..b.len(), Encoding::Latin1), piece(0, 0..4, Encoding::Raw)]);
        assert_eq!(two.bytes(&files).unwrap(), [b'x', 0x80, 0xFF, b'y', 1, 2, 3, 4].as_slice());
        assert_eq!(stored(&[0, 7], vec![]).bytes(&files).unwrap(), Vec::<u8>::new());
    }

    #[test]
    fn every_byte_survives_latin1() {
        let all: Vec<u8> = (0..=255).collect();
        let text: String = all.iter().map(|&b| char::from(b)).collect();
        let s = stored(&[128], vec![piece(0, 0..text.len(), Encoding::Latin1)]);
        assert_eq!(s.bytes(&[text.as_bytes()]).unwrap(), all.as_slice());
    }

    #[test]
    fn texts_that_are_no_bytes_are_refused() {
        let not_bytes = "expected a text of the characters U+0000 to U+00FF in UTF-8, got another";
        let cases: [(&[u8], &str); 9] = [
            (b"abc", "expected 4 bytes as the shape has, got 3"),
            (b"abcde", "expected a text of 4 bytes, got more"),
            (b"abcd\xC2\x80", "expected a text of 4 bytes, got more"),
            ("abc\u{100}".as_bytes(), not_bytes),
            (b"abc\xC3", not_bytes),
            (b"ab\xC0\x80", not_bytes),
            (b"ab\x80\x80", not_bytes),
            (b"ab\xC3a", not_bytes),
            (b"a\xC3\xC3\x80", not_bytes),
        ];
        for (text, wanted) in cases {
            let e = stored(&[2], vec![piece(0, 0..text.len(), Encoding::Latin1)]).bytes(&[text]).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidFormat);
            assert!(
                e.to_string().starts_with("tensor w: ") && e.to_string().contains(wanted),
                "{wanted:?} not in: {e}"
            );
        }
    }

    #[test]
    fn pieces_that_do_not_make_up_the_shape_are_refused() {
        let file = [0; 8];
        let raw = |a: usize, b: usize| vec![piece(0, 0..a, Encoding::Raw), piece(0, 0..b, Encoding::Raw)];
        for pieces in [raw(4, 1), raw(8, 8), raw(1, 2), vec![piece(0, 0..5, Encoding::Raw)]] {
            assert_eq!(stored(&[2], pieces).bytes(&[&file]).unwrap_err().kind(), ErrorKind::InvalidFormat);
        }
        for elsewhere in [piece(1, 0..4, Encoding::Raw), piece(0, 6..10, Encoding::Raw)] {
            assert_eq!(stored(&[2], vec![elsewhere]).bytes(&[&file]).unwrap_err().kind(), ErrorKind::Internal);
        }
    }

    #[test]
    fn other_types_are_refused_by_name_when_read() {
        let mut s = stored(&[2], vec![]);
        s.element = Element::Other("i64");
        let e = s.bytes(&[]).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert_eq!(e.to_string(), "tensor w: expected values of f32, f16 or bf16, got i64");
    }

    proptest! {
        /// The definition, which branches: characters up to U+00FF as bytes.
        #[test]
        fn any_text_is_decoded_as_its_characters_say(
            text in "[a\u{0}\u{7f}-\u{81}\u{bf}-\u{c1}\u{ff}\u{100}\u{7ff}]{0,9}",
            cut in 0usize..3,
        ) {
            let bytes = &text.as_bytes()[..text.len().saturating_sub(cut)];
            let chars = std::str::from_utf8(bytes).ok().map(|text| text.chars());
            let wanted = chars.and_then(|mut chars| chars.try_fold(Vec::new(), |mut bytes, c| {
                bytes.push(u8::try_from(c).ok()?);
                Some(bytes)
            }));
            let mut got = Vec::new();
            let result = decode_latin1(bytes, bytes.len(), &mut got);
            assert_eq!(result.ok().map(|()| got), wanted);
        }
    }
}
