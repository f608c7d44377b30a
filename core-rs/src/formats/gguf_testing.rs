//! A small GGUF writer for tests: honest by default, and able to lie in every field.
//!
//! Absent: speed, quantisation, and padding after the last tensor, so that cutting any byte makes the file wrong.

use super::ggml_type::GgmlType;
use super::metadata::{Array, Value};

/// A tensor as it will be written; fields are open so that tests can lie.
pub(crate) struct TensorSpec {
    pub name: String,
    /// Innermost first, as in the file.
    pub dims: Vec<u64>,
    pub type_id: u32,
    /// From the start of the data.
    pub offset: u64,
}

/// What to write. Change any field before `bytes` to make a file that is wrong there.
pub(crate) struct GgufWriter {
    pub magic: [u8; 4],
    pub version: u32,
    pub n_tensors: Option<u64>,
    pub n_keys: Option<u64>,
    pub alignment: u64,
    keys: Vec<u8>,
    key_count: u64,
    pub tensors: Vec<TensorSpec>,
    data: Vec<u8>,
}

impl GgufWriter {
    /// An empty file of version 3.
    pub fn new() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            n_tensors: None,
            n_keys: None,
            alignment: 32,
            keys: Vec::new(),
            key_count: 0,
            tensors: Vec::new(),
            data: Vec::new(),
        }
    }

    /// Adds a metadata pair.
    pub fn key(self, key: &str, value: &Value) -> Self {
        let mut bytes = Vec::new();
        let id = write_value(&mut bytes, value);
        self.raw_key(key, id, &bytes)
    }

    /// Adds a metadata pair with any type number and any bytes for a value.
    pub fn raw_key(mut self, key: &str, type_id: u32, value: &[u8]) -> Self {
        write_string(&mut self.keys, key);
        self.keys.extend(type_id.to_le_bytes());
        self.keys.extend(value);
        self.key_count += 1;
        self
    }

    /// Adds a tensor (dims outermost first) after those that are there.
    pub fn tensor(mut self, name: &str, dtype: GgmlType, shape: &[u64], data: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment as usize), 0);
        let dims = shape.iter().rev().copied().collect();
        self.tensors.push(TensorSpec { name: name.into(), dims, type_id: dtype.id(), offset: self.data.len() as u64 });
        self.data.extend(data);
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.head();
        if !self.data.is_empty() {
            out.resize(out.len().next_multiple_of(self.alignment as usize), 0);
            out.extend(&self.data);
        }
        out
    }

    /// The file up to the end of the tensor infos.
    pub fn head(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_keys.unwrap_or(self.key_count).to_le_bytes());
        out.extend(&self.keys);
        for t in &self.tensors {
            write_string(&mut out, &t.name);
            out.extend((t.dims.len() as u32).to_le_bytes());
            out.extend(t.dims.iter().flat_map(|d| d.to_le_bytes()));
            out.extend(t.type_id.to_le_bytes());
            out.extend(t.offset.to_le_bytes());
        }
        out
    }
}

/// Length and bytes of a string.
pub(crate) fn write_string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

/// Writes a value and returns its type number.
fn write_value(out: &mut Vec<u8>, value: &Value) -> u32 {
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
pub(crate) fn array_head(out: &mut Vec<u8>, type_id: u32, len: usize) {
    out.extend(type_id.to_le_bytes());
    out.extend((len as u64).to_le_bytes());
}
