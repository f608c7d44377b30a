//! A small GGUF writer for tests: honest by default, and able to lie in every field.
//!
//! Absent: limits, quantisation, and padding after the last tensor, so that cutting any byte makes the file wrong.

use super::ggml_type::GgmlType;
use super::gguf_write::{write_string, write_value};
use super::metadata::Value;

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
