//! PyTorch checkpoints (`torch.save` since 1.6): a zip archive with a pickle and one file of bytes per storage.
//!
//! `NAME/data.pkl` is a dictionary of tensors; each refers to its storage by a persistent id, `("storage", class, key,
//! location, values)`, whose bytes are the file `NAME/data/KEY`. Tensors may share a storage and lie in it with an
//! offset and strides. `NAME/byteorder` says how numbers are written.
//!
//! Sources: torch/serialization.py, torch/_utils.py. Absent: the format before 1.6, TorchScript, tensors that are no
//! dense arrays, dictionaries inside the dictionary.

use std::collections::BTreeMap;
use std::ops::Range;

use super::archive;
use super::pickle::{self, Global, Id, Pickle, TorchType, Value, expected};
use super::stored::{self, Element, Encoding, MAX_DIMS, Named, Piece, Stored};
use crate::error::{Error, Result};

/// How files of `torch.save` before 1.6 begin: a pickle (protocol 2) of the number 0x1950a86a20f9469cfc6c.
const OLD_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
const PICKLE: &str = "data.pkl";

/// The tensors of a checkpoint, in the order of their names. The pieces say `file` as their file.
///
/// Values that are no tensors are left out, and tensors that cannot be read are kept with [`Element::Other`].
///
/// # Errors
/// `invalid_format` when the bytes break a rule of the format or a limit of this room, `unsupported` for old files and
/// for whatever would have to be run.
pub fn parse(bytes: &[u8], file: usize) -> Result<Vec<Stored>> {
    Checkpoint::open(bytes).and_then(|c| c.tensors(file)).map_err(|e| e.context("reading PyTorch checkpoint"))
}

struct Checkpoint<'a> {
    pickle: Pickle<'a>,
    /// Ranges of storages by their keys.
    storages: BTreeMap<&'a str, Range<usize>>,
}

impl<'a> Checkpoint<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self> {
        if bytes.starts_with(OLD_MAGIC) {
            return Err(Error::unsupported(
                "expected a zip archive, got a file of PyTorch before 1.6: \
                 save it again with torch.save(torch.load(path, weights_only=True), path)",
            ));
        }
        let files = archive::files(bytes)?;
        let folder = folder(&files)?;
        let member = |name: &str| files.get(format!("{folder}/{name}").as_str()).map(|range| &bytes[range.clone()]);
        match member("byteorder") {
            None | Some(b"little") => {}
            Some(_) => return Err(Error::unsupported("expected the byte order little, got another")),
        }
        let Some(pickled) = member(PICKLE) else { return Err(no_pickle(0)) };
        let storage = |(name, range): (&&'a str, &Range<usize>)| {
            Some((name.strip_prefix(folder)?.strip_prefix("/data/")?, range.clone()))
        };
        Ok(Self { pickle: pickle::parse(pickled, true)?, storages: files.iter().filter_map(storage).collect() })
    }

    fn tensors(&self, file: usize) -> Result<Vec<Stored>> {
        let mut named = Named::default();
        for &(key, value) in self.pickle.dict(self.pickle.root())? {
            let Some(tensor) = self.tensor_call(value) else { continue };
            let name = self.pickle.text(key)?;
            let stored = self.tensor(tensor, name, file).map_err(|e| e.context(format_args!("tensor {name:?}")))?;
            named.insert(stored)?;
        }
        named.finish()
    }

    /// The value that rebuilds a tensor or is in a parameter, if it is one of the two.
    fn tensor_call(&self, value: Id) -> Option<Id> {
        let tensor = match self.pickle.call_of(Global::TorchParameter, value) {
            Some((&[tensor, ..], _)) => tensor,
            _ => value,
        };
        let is_tensor = |global| self.pickle.call_of(global, tensor).is_some();
        (is_tensor(Global::TorchTensor) || is_tensor(Global::TorchTensorOfType)).then_some(tensor)
    }

    fn tensor(&self, call: Id, name: &str, file: usize) -> Result<Stored> {
        let p = &self.pickle;
        let (args, of_type) = match p.call_of(Global::TorchTensorOfType, call) {
            Some((args @ &[_, _, _, _, _, _, of_type, ..], _)) => (args, Some(of_type)),
            _ => (p.call_of(Global::TorchTensor, call).map_or(&[][..], |(args, _)| args), None),
        };
        let &[storage, offset, shape, strides, ..] = args else {
            return Err(Error::invalid_format(format!("expected 6 arguments of a tensor, got {}", args.len())));
        };
        let (bytes, torch) = self.storage(storage, of_type).map_err(|e| e.context("storage"))?;
        let (shape, strides) = (p.sizes(shape, MAX_DIMS)?, p.sizes(strides, MAX_DIMS)?);
        let layout = Layout::of(&shape, &strides)?;
        let pieces = match layout {
            Layout::Strided => Vec::new(),
            _ => vec![Piece { file, range: place(&bytes, torch, p.size(offset)?, &shape)?, encoding: Encoding::Raw }],
        };
        let element = if layout == Layout::Strided { Element::Other("a strided view") } else { torch.element };
        Ok(Stored { name: name.into(), element, shape, column_major: layout == Layout::ColumnMajor, pieces })
    }

    /// The bytes of a storage, and the type of its values: `of_type`, or the one of its class.
    fn storage(&self, id: Id, of_type: Option<Id>) -> Result<(Range<usize>, &'static TorchType)> {
        let p = &self.pickle;
        let &Value::Persistent(id) = p.get(id) else { return Err(expected("a persistent id", p.get(id))) };
        let &[tag, class, key, _location, count] = p.tuple(id)? else {
            return Err(expected("a persistent id, a tuple of 5", p.get(id)));
        };
        if p.text(tag)? != "storage" {
            return Err(Error::unsupported("expected the persistent id of a storage, got another"));
        }
        let (torch, unit) = match (p.get(class), of_type.map(|of_type| p.get(of_type))) {
            (Value::Global(Global::TorchStorage(torch)), None) => (*torch, torch.size),
            (Value::Global(Global::TorchBytes), Some(Value::Global(Global::TorchType(torch)))) => (*torch, 1),
            (class, _) => return Err(expected("a storage of a known type", class)),
        };
        let (key, count) = (p.text(key)?, p.size(count)?);
        let range = self
            .storages
            .get(key)
            .ok_or_else(|| Error::invalid_format(format!("expected a file {key:?} of its bytes, got none")))?;
        if count.checked_mul(unit) != Some(range.len()) {
            return Err(Error::invalid_format(format!("expected {count} values of {unit} bytes, got {}", range.len())));
        }
        Ok((range.clone(), torch))
    }
}

/// The one folder of the archive that has a pickle.
fn folder<'a>(files: &BTreeMap<&'a str, Range<usize>>) -> Result<&'a str> {
    let folders = files.keys().filter_map(|name| name.strip_suffix(PICKLE)?.strip_suffix('/'));
    let folders: Vec<_> = folders.filter(|folder| !folder.contains('/')).collect();
    match folders.as_slice() {
        [folder] => Ok(folder),
        more => Err(no_pickle(more.len())),
    }
}

fn no_pickle(got: usize) -> Error {
    Error::invalid_format(format!("expected one file NAME/{PICKLE} in the archive, got {got}"))
}

/// The bytes of a dense tensor that begins `offset` values into its storage.
fn place(storage: &Range<usize>, torch: &TorchType, offset: usize, shape: &[usize]) -> Result<Range<usize>> {
    let start = offset.checked_mul(torch.size);
    let end = start.and_then(|start| start.checked_add(stored::byte_len(shape, torch.size)?));
    match (start, end.filter(|&end| end <= storage.len())) {
        (Some(start), Some(end)) => Ok(storage.start + start..storage.start + end),
        _ => Err(Error::invalid_format(format!(
            "expected {shape:?} values of {} bytes from value {offset} in its storage, got {} bytes",
            torch.size,
            storage.len()
        ))),
    }
}

/// How a tensor lies in its storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    RowMajor,
    ColumnMajor,
    /// With gaps or repetitions, or with more than two axes in another order.
    Strided,
}

impl Layout {
    fn of(shape: &[usize], strides: &[usize]) -> Result<Self> {
        if shape.len() != strides.len() {
            return Err(Error::invalid_format(format!(
                "expected a stride for each dimension of {shape:?}, got {strides:?}"
            )));
        }
        Ok(match (shape, strides) {
            _ if is_dense(shape.iter().zip(strides).rev()) => Self::RowMajor,
            (&[_, _], _) if is_dense(shape.iter().zip(strides)) => Self::ColumnMajor,
            _ => Self::Strided,
        })
    }
}

/// Whether values lie one after another, given sizes and strides from the innermost dimension on.
fn is_dense<'a>(innermost_first: impl Iterator<Item = (&'a usize, &'a usize)> + Clone) -> bool {
    let mut values = 1usize;
    // A stride along one value is never walked, and nothing is in a tensor of none.
    innermost_first.clone().any(|(&dim, _)| dim == 0)
        || innermost_first.filter(|&(&dim, _)| dim > 1).all(|(&dim, &stride)| {
            let follows = stride == values;
            values = values.saturating_mul(dim);
            follows
        })
}
