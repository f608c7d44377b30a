//! numpy arrays as pickles hold them.
//!
//! Sources: numpy's `array_reduce`, `array_reduce_ex_picklebuffer` and `arraydescr_reduce` (multiarray/methods.c,
//! descriptor.c). Arrays of other things than little-endian numbers are described and not
//! read.

use std::ops::Range;

use super::super::ggml_type::GgmlType;
use super::super::stored::{self, Element, Encoding, MAX_DIMS};
use super::values::expected;
use super::{Global, Id, Pickle, Value};
use crate::error::{Error, Result};

/// One array: how its values are stored and where its bytes lie in the pickle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::formats) struct Array {
    pub element: Element,
    pub shape: Vec<usize>,
    pub column_major: bool,
    pub range: Range<usize>,
    pub encoding: Encoding,
}

/// Types by numpy's kind and width, with the bytes of one value.
const TYPES: &[(&str, Element, usize)] = &[
    ("f2", Element::Ggml(GgmlType::F16), 2),
    ("f4", Element::Ggml(GgmlType::F32), 4),
    ("f8", Element::Other("f64"), 8),
    ("b1", Element::Other("bool"), 1),
    ("i1", Element::Other("i8"), 1),
    ("i2", Element::Other("i16"), 2),
    ("i4", Element::Other("i32"), 4),
    ("i8", Element::Other("i64"), 8),
    ("u1", Element::Other("u8"), 1),
    ("u2", Element::Other("u16"), 2),
    ("u4", Element::Other("u32"), 4),
    ("u8", Element::Other("u64"), 8),
    ("c8", Element::Other("c64"), 8),
    ("c16", Element::Other("c128"), 16),
];

/// The array that a value is, or nothing for a value of another kind.
///
/// # Errors
/// `invalid_format` for an array whose parts do not fit together, `unsupported` for types and orders that are not read.
pub(in crate::formats) fn array(pickle: &Pickle, id: Id) -> Result<Option<Array>> {
    if let Some((args, state)) = pickle.call_of(Global::NumpyReconstruct, id) {
        return reconstructed(pickle, args, state).map(Some);
    }
    let from_buffer = pickle.call_of(Global::NumpyFromBuffer, id);
    from_buffer.map(|(args, _)| from_bytes(pickle, args)).transpose()
}

/// `_reconstruct(ndarray, (0,), b"b")` with the state `(1, shape, dtype, is_fortran, bytes)`.
fn reconstructed(pickle: &Pickle, args: &[Id], state: Option<Id>) -> Result<Array> {
    match *args {
        [class, _, _] if *pickle.get(class) == Value::Global(Global::NumpyArray) => {}
        _ => return Err(Error::unsupported("expected an array of the class numpy.ndarray, got another class")),
    }
    let state = state.ok_or_else(|| Error::invalid_format("expected an array with its state, got none"))?;
    let &[version, shape, dtype, fortran, bytes] = pickle.tuple(state)? else {
        return Err(expected("an array's state, a tuple of 5", pickle.get(state)));
    };
    if pickle.size(version)? != 1 {
        return Err(expected("an array's state of version 1", pickle.get(version)));
    }
    checked(pickle, shape, dtype, pickle.truth(fortran)?, bytes)
}

/// `_frombuffer(bytes, dtype, shape, order)`.
fn from_bytes(pickle: &Pickle, args: &[Id]) -> Result<Array> {
    let &[bytes, dtype, shape, order] = args else {
        return Err(Error::unsupported(format!("expected 4 arguments of _frombuffer, got {}", args.len())));
    };
    let fortran = match pickle.text(order)? {
        "C" => false,
        "F" => true,
        other => return Err(Error::unsupported(format!("expected an array in the order C or F, got {other:?}"))),
    };
    checked(pickle, shape, dtype, fortran, bytes)
}

fn checked(pickle: &Pickle, shape: Id, dtype: Id, fortran: bool, bytes: Id) -> Result<Array> {
    let shape = pickle.sizes(shape, MAX_DIMS).map_err(|e| e.context("shape"))?;
    let (element, value_size) = element(pickle, dtype).map_err(|e| e.context("dtype"))?;
    let (range, encoding) = pickle.byte_string(bytes)?;
    let len = stored::byte_len(&shape, value_size);
    if value_size > 0 && !len.is_some_and(|len| fits(len, &range, encoding)) {
        return Err(Error::invalid_format(format!(
            "expected the bytes of {shape:?} values of {value_size} bytes, got {}",
            range.len()
        )));
    }
    let element =
        if fortran && shape.len() > 2 { Element::Other("a column-major array of many axes") } else { element };
    Ok(Array { element, column_major: fortran && shape.len() == 2, shape, range, encoding })
}

/// Whether `len` bytes can be written in that range; how many a text holds is known when it is read.
fn fits(len: usize, range: &Range<usize>, encoding: Encoding) -> bool {
    match encoding {
        Encoding::Raw => range.len() == len,
        Encoding::Latin1 => (len..=len.saturating_mul(2)).contains(&range.len()),
    }
}

/// `dtype("f2", False, True)` with the state `(3, "<", None, None, None, -1, -1, 0)`: how a value is stored, and its
/// bytes, or zero for values that are no numbers.
fn element(pickle: &Pickle, id: Id) -> Result<(Element, usize)> {
    let Some((&[name, _, _], Some(state))) = pickle.call_of(Global::NumpyDtype, id) else {
        return Err(expected("dtype with 3 arguments and a state", pickle.get(id)));
    };
    let &[_version, order, ..] = pickle.tuple(state)? else {
        return Err(expected("a type's state, a tuple of 8", pickle.get(state)));
    };
    let name = pickle.text(name)?;
    match (pickle.text(order)?, TYPES.iter().find(|(known, ..)| *known == name)) {
        ("<" | "|", Some(&(_, element, size))) => Ok((element, size)),
        (">", Some(&(_, _, size))) => Ok((Element::Other("big-endian numbers"), size)),
        _ => Ok((Element::Other("an array that is not of numbers"), 0)),
    }
}
