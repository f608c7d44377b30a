//! PaddlePaddle checkpoints (`paddle.save`): a pickle of a dictionary of numpy arrays.
//!
//! Three layouts are written. Names to arrays, with the names that the framework gave them under
//! `StructuredToParameterName@@`. The same with arrays of more than a gigabyte cut into flat slices `NAME@@.0`, … that
//! `UnpackBigParamInfor@@` names, in protocols 2 and 3. Names to pairs `(name, array)`, where a tensor was not saved as
//! part of a plain state. numpy has no bfloat16, so Paddle stores its bits as uint16.
//!
//! Source: python/paddle/framework/io.py and io_utils.py. Absent: programs, the binary format of single variables, and
//! `paddle.save` of static variables inside other values, which would have to call `eval`.

use std::collections::HashSet;

use super::ggml_type::GgmlType;
use super::pickle::{self, Id, Pickle, Value, numpy};
use super::stored::{self, Element, MAX_DIMS, Named, Piece, Stored};
use crate::error::{Error, Result};

/// The key of what says which slices make up which array; the spelling is Paddle's.
const SLICES: &str = "UnpackBigParamInfor@@";

/// The tensors of a checkpoint, in the order of their names. The pieces say `file` as their file.
///
/// Values that are no arrays are left out, and arrays that cannot be read are kept with [`Element::Other`].
///
/// # Errors
/// `invalid_format` when the bytes break a rule of the format or a limit of this room, `unsupported` for whatever would
/// have to be run.
pub fn parse(bytes: &[u8], file: usize) -> Result<Vec<Stored>> {
    let pickle = pickle::parse(bytes, false).map_err(context)?;
    tensors(&pickle, file).map_err(context)
}

fn context(error: Error) -> Error {
    error.context("reading Paddle checkpoint")
}

fn tensors(pickle: &Pickle, file: usize) -> Result<Vec<Stored>> {
    let (mut named, mut slices) = (Named::default(), None);
    for &(key, value) in pickle.dict(pickle.root())? {
        if let Value::Dict { .. } = pickle.get(value) {
            // The other dictionary has the framework's own names, under `StructuredToParameterName@@`.
            if pickle.text(key).is_ok_and(|key| key == SLICES) {
                slices = Some(value);
            }
        } else if let Some(array) = tensor(pickle, value).map_err(|e| at_key(pickle, key, e))? {
            named.insert(array_as_stored(array, pickle.text(key)?, file))?;
        }
    }
    for &(name, parts) in slices.map_or(Ok(&[][..]), |slices| pickle.dict(slices))? {
        let name = pickle.text(name)?;
        let joined =
            join(pickle, parts, name, &mut named).map_err(|e| e.context(format_args!("slices of {name:?}")))?;
        named.insert(joined)?;
    }
    named.finish()
}

fn at_key(pickle: &Pickle, key: Id, error: Error) -> Error {
    match pickle.text(key) {
        Ok(name) => error.context(format_args!("tensor {name:?}")),
        Err(_) => error,
    }
}

/// An array, alone or with its name.
fn tensor(pickle: &Pickle, value: Id) -> Result<Option<numpy::Array>> {
    match pickle.get(value) {
        Value::Tuple(pair) => match **pair {
            [_name, array] => numpy::array(pickle, array),
            _ => Ok(None),
        },
        _ => numpy::array(pickle, value),
    }
}

fn array_as_stored(array: numpy::Array, name: &str, file: usize) -> Stored {
    let numpy::Array { element, shape, column_major, range, encoding } = array;
    let element = if element == Element::Other("u16") { Element::Ggml(GgmlType::BF16) } else { element };
    Stored { name: name.into(), element, shape, column_major, pieces: vec![Piece { file, range, encoding }] }
}

/// The tensor of `{"OriginShape": shape, "slices": names}`; its slices are taken from `named`.
fn join(pickle: &Pickle, parts: Id, name: &str, named: &mut Named) -> Result<Stored> {
    let (mut shape, mut names) = (None, None);
    for &(key, value) in pickle.dict(parts)? {
        match pickle.text(key)? {
            "OriginShape" => shape = Some(pickle.sizes(value, MAX_DIMS)?),
            "slices" => names = Some(pickle.sequence(value)?),
            other => return Err(Error::invalid_format(format!("expected OriginShape and slices, got {other:?}"))),
        }
    }
    let (Some(shape), Some(names)) = (shape, names) else {
        return Err(Error::invalid_format("expected OriginShape and slices, got one of them"));
    };
    let slices = names.iter().map(|&slice| take_slice(pickle, slice, named)).collect::<Result<Vec<_>>>()?;
    let elements: HashSet<_> = slices.iter().map(|slice| slice.element.name()).collect();
    let values = slices.iter().try_fold(0usize, |n, slice| n.checked_add(slice.shape[0]));
    let (Some(first), 1) = (slices.first(), elements.len()) else {
        return Err(Error::invalid_format(format!("expected slices of one type, got {}", elements.len())));
    };
    if stored::byte_len(&shape, 1) != values {
        return Err(Error::invalid_format(format!("expected slices that make up {shape:?}, got {values:?} values")));
    }
    let element = first.element;
    let pieces = slices.into_iter().flat_map(|slice| slice.pieces).collect();
    Ok(Stored { name: name.into(), element, shape, column_major: false, pieces })
}

fn take_slice(pickle: &Pickle, name: Id, named: &mut Named) -> Result<Stored> {
    let name = pickle.text(name)?;
    let slice =
        named.take(name).ok_or_else(|| Error::invalid_format(format!("expected a slice {name:?}, got none")))?;
    match slice.shape.len() {
        1 => Ok(slice),
        n => Err(Error::invalid_format(format!("expected the slice {name:?} to have 1 dimension, got {n}"))),
    }
}
