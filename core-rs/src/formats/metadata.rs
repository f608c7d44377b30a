//! Typed access to the key-value pairs of a model file.
//!
//! A getter returns nothing for an absent key and an error for a wrong type, so a caller's `?` tells the two apart.
//! Absent: which keys a model needs.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Unsigned 8-bit integer.
    U8(u8),
    /// Signed 8-bit integer.
    I8(i8),
    /// Unsigned 16-bit integer.
    U16(u16),
    /// Signed 16-bit integer.
    I16(i16),
    /// Unsigned 32-bit integer.
    U32(u32),
    /// Signed 32-bit integer.
    I32(i32),
    /// Unsigned 64-bit integer.
    U64(u64),
    /// Signed 64-bit integer.
    I64(i64),
    /// Single precision.
    F32(f32),
    /// Double precision.
    F64(f64),
    /// Truth value.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Values of one type.
    Array(Array),
}

/// An array value, stored as one vector of its element type.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Array {
    /// Unsigned 8-bit integers.
    U8(Vec<u8>),
    /// Signed 8-bit integers.
    I8(Vec<i8>),
    /// Unsigned 16-bit integers.
    U16(Vec<u16>),
    /// Signed 16-bit integers.
    I16(Vec<i16>),
    /// Unsigned 32-bit integers.
    U32(Vec<u32>),
    /// Signed 32-bit integers.
    I32(Vec<i32>),
    /// Unsigned 64-bit integers.
    U64(Vec<u64>),
    /// Signed 64-bit integers.
    I64(Vec<i64>),
    /// Single-precision numbers.
    F32(Vec<f32>),
    /// Double-precision numbers.
    F64(Vec<f64>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Texts.
    String(Vec<String>),
    /// Arrays, each with an element type of its own.
    Array(Vec<Array>),
}

impl Value {
    /// The name of this value's type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::Bool(_) => "a bool",
            Self::String(_) => "a string",
            Self::Array(array) => array.type_name(),
        }
    }

    /// Any integer type as `u64`; none for a negative number or another type.
    fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::U64(v) => Some(v),
            Self::I8(v) => v.try_into().ok(),
            Self::I16(v) => v.try_into().ok(),
            Self::I32(v) => v.try_into().ok(),
            Self::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// The value as part of a sentence: numbers are shown, everything else is only named.
    fn describe(&self) -> String {
        match self {
            Self::I8(v) => format!("i8 {v}"),
            Self::I16(v) => format!("i16 {v}"),
            Self::I32(v) => format!("i32 {v}"),
            Self::I64(v) => format!("i64 {v}"),
            Self::U64(v) => format!("u64 {v}"),
            other => other.type_name().into(),
        }
    }
}

impl Array {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
            Self::Array(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of this array's type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "an array of u8",
            Self::I8(_) => "an array of i8",
            Self::U16(_) => "an array of u16",
            Self::I16(_) => "an array of i16",
            Self::U32(_) => "an array of u32",
            Self::I32(_) => "an array of i32",
            Self::U64(_) => "an array of u64",
            Self::I64(_) => "an array of i64",
            Self::F32(_) => "an array of f32",
            Self::F64(_) => "an array of f64",
            Self::Bool(_) => "an array of bool",
            Self::String(_) => "an array of strings",
            Self::Array(_) => "an array of arrays",
        }
    }
}

/// The key-value pairs of a file, each key once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// No pairs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pair.
    ///
    /// # Errors
    /// `invalid_format` when the key is there already: two readers could believe different values.
    pub fn insert(&mut self, key: String, value: Value) -> Result<()> {
        use std::collections::btree_map::Entry;
        match self.values.entry(key) {
            Entry::Occupied(e) => Err(Error::invalid_format(format!("expected each key once, got {} twice", e.key()))),
            Entry::Vacant(e) => {
                e.insert(value);
                Ok(())
            }
        }
    }

    /// The pairs but those of these keys.
    #[must_use]
    pub fn without(mut self, keys: &[&str]) -> Self {
        self.values.retain(|key, _| !keys.contains(&key.as_str()));
        self
    }

    /// The value of a key, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All pairs in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The error for a key that a caller cannot do without.
    pub fn missing(key: &str) -> Error {
        Error::invalid_format(format!("reading metadata: expected a value for {key}, got none"))
    }

    /// A non-negative integer of any width.
    ///
    /// # Errors
    /// `invalid_format` for a negative number or another type.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a non-negative integer", Value::as_u64)
    }

    /// A non-negative integer that fits 32 bits.
    ///
    /// # Errors
    /// `invalid_format` for a number outside that range or another type.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "an integer from 0 to 4294967295", |v| v.as_u64()?.try_into().ok())
    }

    /// A single-precision number.
    ///
    /// # Errors
    /// `invalid_format` for another type.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "f32", |v| if let Value::F32(v) = v { Some(*v) } else { None })
    }

    /// A truth value.
    ///
    /// # Errors
    /// `invalid_format` for another type.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", |v| if let Value::Bool(v) = v { Some(*v) } else { None })
    }

    /// A text.
    ///
    /// # Errors
    /// `invalid_format` for another type.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |v| if let Value::String(v) = v { Some(v.as_str()) } else { None })
    }

    /// An array of texts.
    ///
    /// # Errors
    /// `invalid_format` for another type.
    pub fn str_array(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "an array of strings", |v| match v {
            Value::Array(Array::String(v)) => Some(v.as_slice()),
            _ => None,
        })
    }

    /// An array of single-precision numbers.
    ///
    /// # Errors
    /// `invalid_format` for another type.
    pub fn f32_array(&self, key: &str) -> Result<Option<&[f32]>> {
        self.typed(key, "an array of f32", |v| match v {
            Value::Array(Array::F32(v)) => Some(v.as_slice()),
            _ => None,
        })
    }

    /// An array of signed 32-bit integers.
    ///
    /// # Errors
    /// `invalid_format` for another type.
    pub fn i32_array(&self, key: &str) -> Result<Option<&[i32]>> {
        self.typed(key, "an array of i32", |v| match v {
            Value::Array(Array::I32(v)) => Some(v.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(&'a self, key: &str, wanted: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| {
            Error::invalid_format(format!("reading metadata: expected {key} to be {wanted}, got {}", value.describe()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: Value) -> Metadata {
        let mut metadata = Metadata::new();
        metadata.insert("k".into(), value).unwrap();
        metadata
    }

    #[test]
    fn integers_of_any_width_are_read_and_negative_ones_refused() {
        for v in [Value::U8(7), Value::I8(7), Value::U16(7), Value::I16(7), Value::U32(7), Value::I32(7)] {
            assert_eq!(one(v).u32("k"), Ok(Some(7)));
        }
        assert_eq!(one(Value::U64(1 << 40)).u64("k"), Ok(Some(1 << 40)));
        let e = one(Value::U64(1 << 40)).u32("k").unwrap_err();
        assert_eq!(
            e.to_string(),
            "reading metadata: expected k to be an integer from 0 to 4294967295, got u64 1099511627776"
        );
        let e = one(Value::I32(-1)).u64("k").unwrap_err();
        assert_eq!(e.to_string(), "reading metadata: expected k to be a non-negative integer, got i32 -1");
    }

    #[test]
    fn an_absent_key_is_not_a_wrong_type() {
        assert_eq!(Metadata::new().str("k"), Ok(None));
        let e = one(Value::Array(Array::U8(vec![1]))).str_array("k").unwrap_err();
        assert_eq!(e.to_string(), "reading metadata: expected k to be an array of strings, got an array of u8");
        for wrong in [Value::F64(1.0), Value::U32(1)] {
            let metadata = one(wrong);
            assert!(metadata.f32("k").is_err() && metadata.bool("k").is_err() && metadata.str("k").is_err());
            assert!(metadata.f32_array("k").is_err() && metadata.i32_array("k").is_err());
        }
    }

    #[test]
    fn a_key_comes_once() {
        let mut metadata = one(Value::Bool(true));
        let e = metadata.insert("k".into(), Value::Bool(false)).unwrap_err();
        assert_eq!(e.to_string(), "expected each key once, got k twice");
    }
}
