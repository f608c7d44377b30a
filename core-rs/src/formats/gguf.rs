//! The GGUF container, versions 2 and 3, little-endian: header, metadata, and where each tensor lies.
//!
//! Layout (all numbers little-endian): `"GGUF"`, u32 version, u64 tensors, u64 keys; per key: string, u32 value type,
//! value; per tensor: string name, u32 dims, u64 each dim (innermost first), u32 type, u64 offset; padding to
//! `general.alignment`; tensor data, offsets counted from here. A string is u64 length and UTF-8.
//!
//! Everything is checked here, once: lengths before they are allocated, arithmetic before it can wrap, tensors against
//! the end of the file and against each other. Absent: opening files, reading tensor data, meaning of keys beyond
//! `general.alignment`.

use std::collections::HashMap;

pub use super::ggml_type::GgmlType;
pub use super::gguf_split::{Joined, join_splits};
pub use super::gguf_write::{Header, NewTensor, write_header};
pub use super::metadata::{Array, Metadata, Value};
use crate::error::{Error, Result};

/// Most bytes of header, metadata and tensor infos together. A vocabulary of 256k pieces takes about 12 MB.
pub const MAX_HEADER_LEN: usize = 256 << 20;
/// Most metadata pairs; files of today have about 40.
pub const MAX_KEYS: u64 = 1 << 16;
/// Most tensors; a 70B model has about 700.
pub const MAX_TENSORS: u64 = 1 << 16;
/// Longest metadata key in bytes, from the GGUF specification.
pub const MAX_KEY_LEN: usize = (1 << 16) - 1;
/// Longest tensor name in bytes, from the GGUF specification.
pub const MAX_TENSOR_NAME_LEN: usize = 64;
/// Longest string value in bytes; chat templates stay below 100 kB.
pub const MAX_STRING_LEN: usize = 16 << 20;
/// Most elements of one array; the longest known are merge lists of about 500k.
pub const MAX_ARRAY_LEN: usize = 1 << 24;
/// Deepest nesting of arrays inside arrays; no known file nests at all.
pub const MAX_ARRAY_DEPTH: usize = 4;
/// Most dimensions of a tensor, as in ggml.
pub const MAX_DIMS: usize = 4;
/// Smallest alignment of tensor data in bytes, from the GGUF specification.
pub const MIN_ALIGNMENT: u64 = 8;
/// Largest alignment of tensor data in bytes.
pub const MAX_ALIGNMENT: u64 = 1 << 20;
/// Alignment when the file does not state one, from the GGUF specification.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// In front of every sentence of this module.
const CONTEXT: &str = "reading GGUF";
pub(super) const MAGIC: &[u8; 4] = b"GGUF";
const ALIGNMENT_KEY: &str = "general.alignment";
/// Bytes of the shortest key (length, type, one-byte value) and the shortest tensor info (length, dims, one dim, type,
/// offset): counts that could not fit are refused before anything is reserved.
const MIN_KEY_BYTES: usize = 8 + 4 + 1;
const MIN_TENSOR_BYTES: usize = 8 + 4 + 8 + 4 + 8;

/// One tensor: what it is called, how it is stored, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name, unique in its file.
    pub name: String,
    /// How values are stored.
    pub dtype: GgmlType,
    /// Dimensions, outermost first: a weight matrix is `[rows, columns]`. One to four, none of them zero.
    pub shape: Vec<usize>,
    /// The first byte, counted from the start of the file.
    pub offset: usize,
    /// The number of bytes.
    pub len: usize,
}

/// A parsed header: every tensor lies inside the file and none overlaps another.
#[derive(Debug, Clone, PartialEq)]
pub struct Gguf {
    /// The container version, 2 or 3.
    pub version: u32,
    /// The key-value pairs.
    pub metadata: Metadata,
    /// The tensors in the order of the file.
    pub tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

impl Gguf {
    /// Reads the header of a file of `file_len` bytes. `head` is the file, or a prefix that holds all tensor infos.
    ///
    /// # Errors
    /// `invalid_format` when the bytes break a rule of the format or a limit of this module, `unsupported` for
    /// versions, byte orders and tensor types this build does not read.
    pub fn parse(head: &[u8], file_len: u64) -> Result<Self> {
        Reader::new(head, file_len).and_then(|mut reader| Self::read(&mut reader)).map_err(|e| e.context(CONTEXT))
    }

    /// As [`Gguf::parse`], for bytes that are still arriving: nothing when more of them are needed to say.
    ///
    /// # Errors
    /// As [`Gguf::parse`], as soon as a rule is broken, or when the whole file or [`MAX_HEADER_LEN`] was not enough.
    pub fn parse_prefix(head: &[u8], file_len: u64) -> Result<Option<Self>> {
        let mut reader = Reader::new(head, file_len).map_err(|e| e.context(CONTEXT))?;
        match Self::read(&mut reader) {
            Ok(gguf) => Ok(Some(gguf)),
            Err(_) if reader.starved && (head.len() as u64) < file_len && head.len() < MAX_HEADER_LEN => Ok(None),
            Err(error) => Err(error.context(CONTEXT)),
        }
    }

    /// A header of these parts, which no file needs to have.
    ///
    /// # Errors
    /// `invalid_format` when two tensors share a name.
    pub fn new(metadata: Metadata, tensors: Vec<TensorInfo>) -> Result<Self> {
        let by_name = index_by_name(&tensors)?;
        Ok(Self { version: 3, metadata, tensors, by_name })
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&i| &self.tensors[i])
    }

    fn read(reader: &mut Reader) -> Result<Self> {
        let file_len = reader.file_len;
        let version = reader.magic_and_version()?;
        let n_tensors = reader.count("tensors", MAX_TENSORS, MIN_TENSOR_BYTES)?;
        let n_keys = reader.count("metadata keys", MAX_KEYS, MIN_KEY_BYTES)?;
        let metadata = reader.metadata(n_keys)?;
        let alignment = alignment(&metadata)?;
        let infos = reader.tensor_infos(n_tensors)?;
        let data_start = (reader.pos as u64).next_multiple_of(alignment);
        let tensors =
            infos.into_iter().map(|i| i.place(data_start, alignment, file_len)).collect::<Result<Vec<_>>>()?;
        check_overlap(&tensors)?;
        let by_name = index_by_name(&tensors)?;
        Ok(Self { version, metadata, tensors, by_name })
    }
}

/// The checked value of `general.alignment`.
pub(super) fn alignment(metadata: &Metadata) -> Result<u64> {
    let alignment = metadata.u64(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment.is_power_of_two() && (MIN_ALIGNMENT..=MAX_ALIGNMENT).contains(&alignment) {
        return Ok(alignment);
    }
    Err(Error::invalid_format(format!(
        "expected {ALIGNMENT_KEY} to be a power of two from {MIN_ALIGNMENT} to {MAX_ALIGNMENT}, got {alignment}"
    )))
}

fn index_by_name(tensors: &[TensorInfo]) -> Result<HashMap<String, usize>> {
    let mut by_name = HashMap::with_capacity(tensors.len());
    for (i, tensor) in tensors.iter().enumerate() {
        if by_name.insert(tensor.name.clone(), i).is_some() {
            return Err(Error::invalid_format(format!("expected each tensor once, got {} twice", tensor.name)));
        }
    }
    Ok(by_name)
}

/// Refuses tensors that share bytes: no writer makes them, and a reader that patches one would change another.
fn check_overlap(tensors: &[TensorInfo]) -> Result<()> {
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|t| t.offset);
    for pair in order.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        if a.offset + a.len > b.offset {
            return Err(Error::invalid_format(format!(
                "expected tensors apart, got {} at bytes {}..{} and {} from byte {}",
                a.name,
                a.offset,
                a.offset + a.len,
                b.name,
                b.offset
            )));
        }
    }
    Ok(())
}

/// A tensor info as the file states it: dims innermost first, offset from the start of the data.
struct RawInfo {
    name: String,
    dims: Vec<u64>,
    type_id: u32,
    offset: u64,
}

impl RawInfo {
    /// Checks type, size and place.
    fn place(self, data_start: u64, alignment: u64, file_len: u64) -> Result<TensorInfo> {
        let Self { name, dims, type_id, offset } = self;
        let context = |e: Error| e.context(format_args!("tensor {name}"));
        let dtype = GgmlType::require(type_id).map_err(context)?;
        let (shape, len) = shape_and_len(&dims, dtype).map_err(context)?;
        if !offset.is_multiple_of(alignment) {
            return Err(context(Error::invalid_format(format!(
                "expected an offset that is a multiple of {alignment}, got {offset}"
            ))));
        }
        let start = data_start.checked_add(offset);
        let range = start.and_then(|s| Some((s, s.checked_add(len)?))).filter(|&(_, end)| end <= file_len);
        let Some((start, end)) = range else {
            return Err(context(Error::invalid_format(format!(
                "file ends early: wanted {len} bytes at byte {data_start} + {offset}, got a file of {file_len} bytes"
            ))));
        };
        let end = host_size(end).map_err(context)?;
        Ok(TensorInfo { name, dtype, shape, offset: start as usize, len: end - start as usize })
    }
}

/// The shape, outermost first, and the bytes of a tensor of one dim or more.
pub(super) fn shape_and_len(dims: &[u64], dtype: GgmlType) -> Result<(Vec<usize>, u64)> {
    let rows = dims[1..].iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    let len = rows.and_then(|rows| dtype.byte_len(dims[0], rows)).filter(|&len| len > 0);
    let len = len.ok_or_else(|| {
        Error::invalid_format(format!(
            "expected dims that are not zero, fill blocks of {} and fit 64 bits, got {dims:?} of {}",
            dtype.block_size(),
            dtype.name()
        ))
    })?;
    let shape = dims.iter().rev().map(|&d| host_size(d)).collect::<Result<_>>()?;
    Ok((shape, len))
}

/// A size as this machine counts them: 32-bit hosts cannot address every file.
fn host_size(n: u64) -> Result<usize> {
    n.try_into().map_err(|_| Error::unsupported(format!("expected sizes up to {} bytes, got {n}", usize::MAX)))
}

/// A position in the head that never passes its end.
struct Reader<'a> {
    head: &'a [u8],
    pos: usize,
    file_len: u64,
    /// Whether a read failed for want of bytes.
    starved: bool,
}

/// Types with a fixed little-endian form.
trait Scalar: Sized {
    const SIZE: usize;
    fn read(bytes: &[u8]) -> Result<Self>;
}

macro_rules! scalars {
    ($($t:ty),*) => {$(
        impl Scalar for $t {
            const SIZE: usize = size_of::<$t>();
            fn read(bytes: &[u8]) -> Result<Self> {
                let bytes = bytes.try_into().map_err(|_| Error::internal("reading a number of the wrong width"))?;
                Ok(<$t>::from_le_bytes(bytes))
            }
        }
    )*};
}
scalars!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

impl Scalar for bool {
    const SIZE: usize = 1;
    fn read(bytes: &[u8]) -> Result<Self> {
        match bytes {
            [0] => Ok(false),
            [1] => Ok(true),
            other => Err(Error::invalid_format(format!("expected a bool of 0 or 1, got {other:?}"))),
        }
    }
}

impl<'a> Reader<'a> {
    fn new(head: &'a [u8], file_len: u64) -> Result<Self> {
        if head.len() as u64 > file_len {
            return Err(Error::internal(format!("expected a head within {file_len} bytes, got {} bytes", head.len())));
        }
        Ok(Self { head: &head[..head.len().min(MAX_HEADER_LEN)], pos: 0, file_len, starved: false })
    }

    /// The next `n` bytes.
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let rest = &self.head[self.pos..];
        let Some(bytes) = rest.get(..n) else { return Err(self.ends_early(n, rest.len())) };
        self.pos += n;
        Ok(bytes)
    }

    /// The sentence for bytes that are not there: because of the file, of the prefix, or of our limit.
    fn ends_early(&mut self, wanted: usize, got: usize) -> Error {
        self.starved = true;
        let what = if self.head.len() as u64 == self.file_len { "file ends early" } else { "header ends early" };
        Error::invalid_format(format!(
            "{what}: wanted {wanted} bytes at byte {}, got {got} (header bytes {}, file bytes {})",
            self.pos,
            self.head.len(),
            self.file_len
        ))
    }

    fn scalar<T: Scalar>(&mut self) -> Result<T> {
        T::read(self.take(T::SIZE)?)
    }

    fn magic_and_version(&mut self) -> Result<u32> {
        let magic = self.take(MAGIC.len())?;
        if magic != MAGIC {
            return Err(Error::invalid_format(format!(
                "expected the file to begin with \"GGUF\", got \"{}\"",
                magic.escape_ascii()
            )));
        }
        match self.scalar::<u32>()? {
            version @ (2 | 3) => Ok(version),
            1 => Err(Error::unsupported("expected version 2 or 3, got version 1: convert the model again")),
            v if matches!(v.swap_bytes(), 1..=3) => Err(Error::unsupported(format!(
                "expected a little-endian file, got a big-endian one of version {}",
                v.swap_bytes()
            ))),
            v => Err(Error::unsupported(format!("expected version 2 or 3, got version {v}"))),
        }
    }

    /// A number of things that take at least `min_bytes` each.
    fn count(&mut self, what: &str, max: u64, min_bytes: usize) -> Result<usize> {
        let n = self.scalar::<u64>()?;
        if n > max {
            return Err(Error::invalid_format(format!("expected at most {max} {what}, got {n}")));
        }
        self.reserve(n as usize, min_bytes).map_err(|e| e.context(format_args!("{n} {what}")))
    }

    /// `n`, if `n` things of `min_bytes` each can still follow.
    fn reserve(&mut self, n: usize, min_bytes: usize) -> Result<usize> {
        let wanted = n.saturating_mul(min_bytes);
        let got = self.head.len() - self.pos;
        if wanted > got { Err(self.ends_early(wanted, got)) } else { Ok(n) }
    }

    fn string(&mut self, what: &str, max: usize) -> Result<&'a str> {
        let len = self.scalar::<u64>()?;
        let len = usize::try_from(len).ok().filter(|&len| len <= max).ok_or_else(|| {
            Error::invalid_format(format!("expected a {what} of at most {max} bytes, got {len} bytes"))
        })?;
        let at = self.pos;
        std::str::from_utf8(self.take(len)?)
            .map_err(|e| Error::invalid_format(format!("expected a {what} in UTF-8 at byte {at}, got {e}")))
    }

    fn metadata(&mut self, n: usize) -> Result<Metadata> {
        let mut metadata = Metadata::new();
        for i in 0..n {
            let context = |e: Error| e.context(format_args!("metadata key {} of {n}", i + 1));
            let key = self.string("key", MAX_KEY_LEN).map_err(context)?;
            let value = self.value().map_err(|e| e.context(format_args!("metadata {key}")))?;
            metadata.insert(key.to_owned(), value)?;
        }
        Ok(metadata)
    }

    fn value(&mut self) -> Result<Value> {
        Ok(match self.scalar::<u32>()? {
            0 => Value::U8(self.scalar()?),
            1 => Value::I8(self.scalar()?),
            2 => Value::U16(self.scalar()?),
            3 => Value::I16(self.scalar()?),
            4 => Value::U32(self.scalar()?),
            5 => Value::I32(self.scalar()?),
            6 => Value::F32(self.scalar()?),
            7 => Value::Bool(self.scalar()?),
            8 => Value::String(self.string("string", MAX_STRING_LEN)?.to_owned()),
            9 => Value::Array(self.array(1)?),
            10 => Value::U64(self.scalar()?),
            11 => Value::I64(self.scalar()?),
            12 => Value::F64(self.scalar()?),
            id => return Err(unknown_value_type(id)),
        })
    }

    /// An array at nesting level `depth`, the outermost being 1.
    fn array(&mut self, depth: usize) -> Result<Array> {
        if depth > MAX_ARRAY_DEPTH {
            return Err(Error::invalid_format(format!(
                "expected arrays nested at most {MAX_ARRAY_DEPTH} deep, got more"
            )));
        }
        let type_id = self.scalar::<u32>()?;
        let len = self.scalar::<u64>()?;
        let len = usize::try_from(len).ok().filter(|&len| len <= MAX_ARRAY_LEN).ok_or_else(|| {
            Error::invalid_format(format!("expected an array of at most {MAX_ARRAY_LEN} elements, got {len}"))
        })?;
        Ok(match type_id {
            0 => Array::U8(self.scalars(len)?),
            1 => Array::I8(self.scalars(len)?),
            2 => Array::U16(self.scalars(len)?),
            3 => Array::I16(self.scalars(len)?),
            4 => Array::U32(self.scalars(len)?),
            5 => Array::I32(self.scalars(len)?),
            6 => Array::F32(self.scalars(len)?),
            7 => Array::Bool(self.scalars(len)?),
            8 => {
                let n = self.reserve(len, 8)?;
                let strings = (0..n).map(|_| Ok(self.string("string", MAX_STRING_LEN)?.to_owned()));
                Array::String(strings.collect::<Result<_>>()?)
            }
            9 => {
                let n = self.reserve(len, 4 + 8)?;
                Array::Array((0..n).map(|_| self.array(depth + 1)).collect::<Result<_>>()?)
            }
            10 => Array::U64(self.scalars(len)?),
            11 => Array::I64(self.scalars(len)?),
            12 => Array::F64(self.scalars(len)?),
            id => return Err(unknown_value_type(id)),
        })
    }

    fn scalars<T: Scalar>(&mut self, len: usize) -> Result<Vec<T>> {
        self.take(len.saturating_mul(T::SIZE))?.chunks_exact(T::SIZE).map(T::read).collect()
    }

    fn tensor_infos(&mut self, n: usize) -> Result<Vec<RawInfo>> {
        (0..n)
            .map(|i| self.tensor_info().map_err(|e| e.context(format_args!("tensor info {} of {n}", i + 1))))
            .collect()
    }

    fn tensor_info(&mut self) -> Result<RawInfo> {
        let name = self.string("tensor name", MAX_TENSOR_NAME_LEN)?.to_owned();
        let n_dims = self.scalar::<u32>()? as usize;
        if !(1..=MAX_DIMS).contains(&n_dims) {
            return Err(Error::invalid_format(format!("expected 1 to {MAX_DIMS} dims, got {n_dims}")));
        }
        let dims = self.scalars(n_dims)?;
        Ok(RawInfo { name, dims, type_id: self.scalar()?, offset: self.scalar()? })
    }
}

fn unknown_value_type(id: u32) -> Error {
    Error::invalid_format(format!("expected a value type from 0 to 12, got {id}"))
}

#[cfg(test)]
#[path = "gguf_test.rs"]
mod tests;
