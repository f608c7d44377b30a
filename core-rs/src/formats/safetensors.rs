//! The safetensors container: a JSON header, then the bytes of all tensors without gaps.
//!
//! Layout: u64 little-endian length of the header; the header, an object of name → `{"dtype", "shape", "data_offsets"}`
//! (offsets from the end of the header) and `__metadata__` (name → text), perhaps filled with spaces; the data. As in
//! the reference implementation, tensors must cover the data exactly: no byte is in two of them or in none. Absent: opening
//! files, and which tensors a model has.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::cursor::Cursor;
use super::ggml_type::GgmlType;
use super::json::{Object, Shape};
use super::stored::{self, Element, Encoding, Piece, Stored};
use crate::error::{Error, Result};

/// Longest header in bytes, from the reference implementation.
pub const MAX_HEADER_LEN: u64 = 100_000_000;

const METADATA: &str = "__metadata__";

/// Types by their names, with the bits of one value.
const TYPES: &[(&str, Element, usize)] = &[
    ("F16", Element::Ggml(GgmlType::F16), 16),
    ("BF16", Element::Ggml(GgmlType::BF16), 16),
    ("F32", Element::Ggml(GgmlType::F32), 32),
    ("F64", Element::Other("f64"), 64),
    ("BOOL", Element::Other("bool"), 8),
    ("U8", Element::Other("u8"), 8),
    ("I8", Element::Other("i8"), 8),
    ("U16", Element::Other("u16"), 16),
    ("I16", Element::Other("i16"), 16),
    ("U32", Element::Other("u32"), 32),
    ("I32", Element::Other("i32"), 32),
    ("U64", Element::Other("u64"), 64),
    ("I64", Element::Other("i64"), 64),
    ("C64", Element::Other("c64"), 64),
    ("F8_E5M2", Element::Other("f8_e5m2"), 8),
    ("F8_E4M3", Element::Other("f8_e4m3"), 8),
    ("F8_E5M2FNUZ", Element::Other("f8_e5m2fnuz"), 8),
    ("F8_E4M3FNUZ", Element::Other("f8_e4m3fnuz"), 8),
    ("F8_E8M0", Element::Other("f8_e8m0"), 8),
    ("F6_E2M3", Element::Other("f6_e2m3"), 6),
    ("F6_E3M2", Element::Other("f6_e3m2"), 6),
    ("F4", Element::Other("f4"), 4),
];

/// A parsed header: every tensor lies inside the file, and together they are its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Safetensors {
    /// The tensors in the order of their bytes.
    pub tensors: Vec<Stored>,
    /// What the writer noted.
    pub metadata: BTreeMap<String, String>,
}

/// Reads the header of a file that is all of `bytes`. The pieces say `file` as their file.
///
/// # Errors
/// `invalid_format` when the bytes break a rule of the format or a limit of this module, `unsupported` for types that
/// have no known size.
pub fn parse(bytes: &[u8], file: usize) -> Result<Safetensors> {
    read(bytes, file).map_err(|e| e.context("reading safetensors"))
}

fn read(bytes: &[u8], file: usize) -> Result<Safetensors> {
    let mut cursor = Cursor::at(bytes, 0);
    let len = cursor.number(8)?;
    if len > MAX_HEADER_LEN {
        return Err(Error::invalid_format(format!("expected a header of at most {MAX_HEADER_LEN} bytes, got {len}")));
    }
    let text = cursor.take(len as usize)?;
    if text.first() != Some(&b'{') {
        return Err(Error::invalid_format("expected a header that begins with {, got another"));
    }
    let header: Header = serde_json::from_slice(text).map_err(|e| Error::invalid_format(format!("header: {e}")))?;
    let data = cursor.pos..bytes.len();
    let placed = header.tensors.0.into_iter().map(|(name, info)| {
        let context = format!("tensor {name:?}");
        info.place(name, data.start, data.len(), file).map_err(|e| e.context(context))
    });
    let mut tensors = placed.collect::<Result<Vec<_>>>()?;
    tensors.sort_by_key(|tensor| (tensor.pieces[0].range.start, tensor.pieces[0].range.end));
    check_coverage(&tensors, data)?;
    Ok(Safetensors { tensors, metadata: header.metadata })
}

struct Header {
    tensors: Object<Info>,
    metadata: BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Shape,
    data_offsets: [usize; 2],
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// What a member is depends on its key.
struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<Header, A::Error> {
        let (mut tensors, mut metadata) = (Object(BTreeMap::new()), None);
        while let Some(key) = access.next_key::<String>()? {
            if key != METADATA {
                tensors.insert(key, access.next_value()?)?;
            } else if metadata.replace(access.next_value::<Object<String>>()?.0).is_some() {
                return Err(A::Error::duplicate_field(METADATA));
            }
        }
        Ok(Header { tensors, metadata: metadata.unwrap_or_default() })
    }
}

impl Info {
    /// The tensor, whose bytes are among the `data_len` from `data_start` on.
    fn place(self, name: String, data_start: usize, data_len: usize, file: usize) -> Result<Stored> {
        let Self { dtype, shape: Shape(shape), data_offsets: [start, end] } = self;
        let known = TYPES.iter().find(|(known, ..)| *known == dtype);
        let &(_, element, bits) =
            known.ok_or_else(|| Error::unsupported(format!("expected a known type, got {dtype:?}")))?;
        let Some(len) = end.checked_sub(start).filter(|_| end <= data_len) else {
            return Err(Error::invalid_format(format!("expected bytes within {data_len}, got {start} to {end}")));
        };
        let wanted = stored::byte_len(&shape, bits).filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8);
        if wanted != Some(len) {
            return Err(Error::invalid_format(format!("expected the bytes of {shape:?} values of {dtype}, got {len}")));
        }
        let range = data_start + start..data_start + end;
        let pieces = vec![Piece { file, range, encoding: Encoding::Raw }];
        Ok(Stored { name, element, shape, column_major: false, pieces })
    }
}

/// Refuses bytes that are in two tensors or in none, given tensors in the order of their bytes.
fn check_coverage(tensors: &[Stored], data: Range<usize>) -> Result<()> {
    let mut at = data.start;
    for tensor in tensors {
        let range = &tensor.pieces[0].range;
        if range.start != at {
            return Err(Error::invalid_format(format!(
                "expected tensor {:?} at byte {at}, where the one before ends, got byte {}",
                tensor.name, range.start
            )));
        }
        at = range.end;
    }
    if at != data.end {
        return Err(Error::invalid_format(format!("expected tensors to the end at byte {}, got byte {at}", data.end)));
    }
    Ok(())
}
