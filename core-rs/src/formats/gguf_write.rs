//! GGUF headers, version 3: everything before the tensors' bytes, and where those go.
//!
//! The limits are those of the reader, so that what is written here is read there. Absent: the bytes of tensors, and
//! files.

use std::collections::HashSet;

use super::ggml_type::GgmlType;
use super::gguf::{
    self, MAGIC, MAX_ARRAY_DEPTH, MAX_ARRAY_LEN, MAX_DIMS, MAX_HEADER_LEN, MAX_KEY_LEN, MAX_KEYS, MAX_STRING_LEN,
    MAX_TENSOR_NAME_LEN, MAX_TENSORS,
};
use super::metadata::{Array, Metadata, Value};
use crate::error::{Error, Result};

const VERSION: u32 = 3;

/// A tensor that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTensor {
    /// The name, unique in its file.
    pub name: String,
    /// How values are stored.
    pub dtype: GgmlType,
    /// Dimensions, outermost first. One to four, none of them zero.
    pub shape: Vec<usize>,
}

/// A header, and where the bytes of the tensors go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The first bytes of the file, up to where the tensors begin.
    pub bytes: Vec<u8>,
    /// The first byte of each tensor, counted from the start of the file. Bytes between tensors are zero.
    pub offsets: Vec<usize>,
    /// The length of the whole file: the last tensor is padded like the others, as ggml's writer does it.
    pub file_len: usize,
}

/// The header of a file with these keys and tensors. `general.alignment` is obeyed when it is among the keys.
///
/// # Errors
/// `invalid_format` when the reader would refuse the file.
pub fn write_header(metadata: &Metadata, tensors: &[NewTensor]) -> Result<Header> {
    header(metadata, tensors).map_err(|e| e.context("writing GGUF"))
}

fn header(metadata: &Metadata, tensors: &[NewTensor]) -> Result<Header> {
    let alignment = gguf::alignment(metadata)? as usize;
    within("tensors", tensors.len(), MAX_TENSORS as usize)?;
    within("metadata keys", metadata.len(), MAX_KEYS as usize)?;
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        write_pair(&mut out, key, value).map_err(|e| e.context(format_args!("metadata {key}")))?;
    }
    let mut names = HashSet::with_capacity(tensors.len());
    if let Some(twice) = tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
        return Err(Error::invalid_format(format!("expected each tensor once, got {} twice", twice.name)));
    }
    // Offsets are counted from the end of the header, whose length they do not change.
    let mut end = 0;
    let mut offsets = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        offsets.push(end);
        end = write_info(&mut out, tensor, end, alignment)
            .map_err(|e| e.context(format_args!("tensor {}", tensor.name)))?;
    }
    within("bytes of the header", out.len(), MAX_HEADER_LEN)?;
    out.resize(out.len().next_multiple_of(alignment), 0);
    let start = out.len();
    let file_len = start.checked_add(end).ok_or_else(too_large)?;
    Ok(Header { bytes: out, offsets: offsets.into_iter().map(|offset| start + offset).collect(), file_len })
}

fn too_large() -> Error {
    Error::invalid_format("expected a file whose bytes can be counted, got a larger one")
}

fn within(what: &str, got: usize, max: usize) -> Result<()> {
    if got > max {
        return Err(Error::invalid_format(format!("expected at most {max} {what}, got {got}")));
    }
    Ok(())
}

/// Writes what the header says of a tensor that begins `start` bytes into the data, and returns where the next can.
fn write_info(out: &mut Vec<u8>, tensor: &NewTensor, start: usize, alignment: usize) -> Result<usize> {
    let NewTensor { name, dtype, shape } = tensor;
    within("bytes of a tensor name", name.len(), MAX_TENSOR_NAME_LEN)?;
    if !(1..=MAX_DIMS).contains(&shape.len()) {
        return Err(Error::invalid_format(format!("expected 1 to {MAX_DIMS} dims, got {}", shape.len())));
    }
    let dims: Vec<u64> = shape.iter().rev().map(|&dim| dim as u64).collect();
    let (_, len) = gguf::shape_and_len(&dims, *dtype)?;
    write_string(out, name);
    out.extend((dims.len() as u32).to_le_bytes());
    out.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
    out.extend(dtype.id().to_le_bytes());
    out.extend((start as u64).to_le_bytes());
    let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len)?.checked_next_multiple_of(alignment));
    end.ok_or_else(too_large)
}

fn write_pair(out: &mut Vec<u8>, key: &str, value: &Value) -> Result<()> {
    within("bytes of a key", key.len(), MAX_KEY_LEN)?;
    check(value)?;
    write_string(out, key);
    let at = out.len();
    out.extend([0; 4]);
    let id = write_value(out, value);
    out[at..at + 4].copy_from_slice(&id.to_le_bytes());
    Ok(())
}

fn check(value: &Value) -> Result<()> {
    match value {
        Value::String(text) => within("bytes of a string", text.len(), MAX_STRING_LEN),
        Value::Array(array) => check_array(array, 1),
        _ => Ok(()),
    }
}

fn check_array(array: &Array, depth: usize) -> Result<()> {
    within("levels of arrays", depth, MAX_ARRAY_DEPTH)?;
    within("elements of an array", array.len(), MAX_ARRAY_LEN)?;
    match array {
        Array::String(texts) => {
            texts.iter().try_for_each(|text| within("bytes of a string", text.len(), MAX_STRING_LEN))
        }
        Array::Array(arrays) => arrays.iter().try_for_each(|inner| check_array(inner, depth + 1)),
        _ => Ok(()),
    }
}

/// Length and bytes of a string.
pub(super) fn write_string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

/// Writes a value and returns its type number.
pub(super) fn write_value(out: &mut Vec<u8>, value: &Value) -> u32 {
    macro_rules! put {
        ($id:literal, $v:expr) => {{
            out.extend($v.to_le_bytes());
            $id
        }};
    }
    match value {
        Value::U8(v) => put!(0, v),
        Value::I8(v) => put!(1, v),
        Value::U16(v) => put!(2, v),
        Value::I16(v) => put!(3, v),
        Value::U32(v) => put!(4, v),
        Value::I32(v) => put!(5, v),
        Value::F32(v) => put!(6, v),
        Value::Bool(v) => put!(7, u8::from(*v)),
        Value::String(v) => {
            write_string(out, v);
            8
        }
        Value::Array(v) => {
            write_array(out, v);
            9
        }
        Value::U64(v) => put!(10, v),
        Value::I64(v) => put!(11, v),
        Value::F64(v) => put!(12, v),
    }
}

fn write_array(out: &mut Vec<u8>, array: &Array) {
    macro_rules! put {
        ($id:literal, $v:expr) => {{
            array_head(out, $id, $v.len());
            $v.iter().for_each(|v| out.extend(v.to_le_bytes()));
        }};
    }
    match array {
        Array::U8(v) => put!(0, v),
        Array::I8(v) => put!(1, v),
        Array::U16(v) => put!(2, v),
        Array::I16(v) => put!(3, v),
        Array::U32(v) => put!(4, v),
        Array::I32(v) => put!(5, v),
        Array::F32(v) => put!(6, v),
        Array::Bool(v) => {
            array_head(out, 7, v.len());
            out.extend(v.iter().map(|&b| u8::from(b)));
        }
        Array::String(v) => {
            array_head(out, 8, v.len());
            v.iter().for_each(|s| write_string(out, s));
        }
        Array::Array(v) => {
            array_head(out, 9, v.len());
            v.iter().for_each(|a| write_array(out, a));
        }
        Array::U64(v) => put!(10, v),
        Array::I64(v) => put!(11, v),
        Array::F64(v) => put!(12, v),
    }
}

/// Element type and length of an array.
pub(super) fn array_head(out: &mut Vec<u8>, type_id: u32, len: usize) {
    out.extend(type_id.to_le_bytes());
    out.extend((len as u64).to_le_bytes());
}

#[cfg(test)]
#[path = "gguf_write_test.rs"]
mod tests;
