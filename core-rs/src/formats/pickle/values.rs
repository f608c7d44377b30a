//! What a pickle made: values that refer to each other by number, and typed access to them.

use std::ops::Range;

use super::super::stored::Encoding;
use super::{Global, MAX_TEXT_LEN};
use crate::error::{Error, Result};

/// The number of a value in its pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::formats) struct Id(pub(super) u32);

/// One value. Texts and bytes are ranges of the pickle, unread.
#[derive(Debug, PartialEq)]
pub(in crate::formats) enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A number that no reader here wants to know, by its kind.
    Number(&'static str),
    /// A text, claimed to be UTF-8.
    Text(Range<usize>),
    /// `bytes`, `bytearray`, or a Python 2 `str`.
    Bytes(Range<usize>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list.
    List(Vec<Id>),
    /// A dictionary in the order it was filled, keys perhaps twice.
    Dict {
        /// Whether it is a `collections.OrderedDict`, which may also have attributes.
        ordered: bool,
        /// Keys and values.
        items: Vec<(Id, Id)>,
    },
    /// A known name itself.
    Global(Global),
    /// What a known function would have made.
    Call {
        /// The function.
        function: Global,
        /// Its arguments, a tuple.
        args: Id,
        /// What completes the value, a tuple.
        state: Option<Id>,
    },
    /// What the writer keeps elsewhere, by the value that names it.
    Persistent(Id),
}

/// A pickle that was read to its end.
#[derive(Debug)]
pub(in crate::formats) struct Pickle<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) values: Vec<Value>,
    pub(super) root: Id,
}

impl<'a> Pickle<'a> {
    /// The value that the pickle is of.
    pub fn root(&self) -> Id {
        self.root
    }

    /// The value of a number.
    pub fn get(&self, id: Id) -> &Value {
        // Numbers are made by pushing values, which are never taken away.
        &self.values[id.0 as usize]
    }

    /// The items of a dictionary.
    ///
    /// # Errors
    /// `invalid_format` for another value.
    pub fn dict(&self, id: Id) -> Result<&[(Id, Id)]> {
        match self.get(id) {
            Value::Dict { items, .. } => Ok(items),
            other => Err(expected("a dictionary", other)),
        }
    }

    /// The members of a tuple.
    ///
    /// # Errors
    /// `invalid_format` for another value.
    pub fn tuple(&self, id: Id) -> Result<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) => Ok(items),
            other => Err(expected("a tuple", other)),
        }
    }

    /// The members of a tuple or list.
    ///
    /// # Errors
    /// `invalid_format` for another value.
    pub fn sequence(&self, id: Id) -> Result<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) | Value::List(items) => Ok(items),
            other => Err(expected("a tuple or list", other)),
        }
    }

    /// A size: an integer that is not negative.
    ///
    /// # Errors
    /// `invalid_format` for another value.
    pub fn size(&self, id: Id) -> Result<usize> {
        match self.get(id) {
            Value::Int(n) => n
                .to_owned()
                .try_into()
                .map_err(|_| Error::invalid_format(format!("expected a size from 0 to {}, got {n}", usize::MAX))),
            other => Err(expected("a size", other)),
        }
    }

    /// The sizes in a tuple or list of at most `max`.
    ///
    /// # Errors
    /// `invalid_format` for another value or more sizes.
    pub fn sizes(&self, id: Id, max: usize) -> Result<Vec<usize>> {
        let items = self.sequence(id)?;
        if items.len() > max {
            return Err(Error::invalid_format(format!("expected at most {max} sizes, got {}", items.len())));
        }
        items.iter().map(|&item| self.size(item)).collect()
    }

    /// A truth value, also as the number that Python takes for one.
    ///
    /// # Errors
    /// `invalid_format` for another value.
    pub fn truth(&self, id: Id) -> Result<bool> {
        match self.get(id) {
            Value::Bool(b) => Ok(*b),
            Value::Int(n @ (0 | 1)) => Ok(*n == 1),
            other => Err(expected("True or False", other)),
        }
    }

    /// A short text.
    ///
    /// # Errors
    /// `invalid_format` for another value, and for a text that is long or not UTF-8.
    pub fn text(&self, id: Id) -> Result<&'a str> {
        let (Value::Text(range) | Value::Bytes(range)) = self.get(id) else {
            return Err(expected("a text", self.get(id)));
        };
        if range.len() > MAX_TEXT_LEN {
            return Err(Error::invalid_format(format!(
                "expected a text of at most {MAX_TEXT_LEN} bytes, got {} bytes",
                range.len()
            )));
        }
        std::str::from_utf8(&self.bytes[range.clone()])
            .map_err(|e| Error::invalid_format(format!("expected a text in UTF-8 at byte {}, got {e}", range.start)))
    }

    /// Where bytes lie, and how they are written.
    ///
    /// # Errors
    /// `invalid_format` for another value.
    pub fn byte_string(&self, id: Id) -> Result<(Range<usize>, Encoding)> {
        match self.get(id) {
            Value::Bytes(range) => Ok((range.clone(), Encoding::Raw)),
            Value::Call { function: Global::Bytes, args, .. } if self.tuple(*args)?.is_empty() => {
                Ok((0..0, Encoding::Raw))
            }
            Value::Call { function: Global::Encode, args, .. } => match *self.tuple(*args)? {
                [text, codec] if self.text(codec)? == "latin1" => match self.get(text) {
                    Value::Text(range) => Ok((range.clone(), Encoding::Latin1)),
                    other => Err(expected("a text of bytes", other)),
                },
                _ => Err(Error::invalid_format("expected a text encoded as latin1, got other arguments")),
            },
            other => Err(expected("bytes", other)),
        }
    }

    /// Arguments and state of a call of `function`, or nothing for another value.
    pub fn call_of(&self, function: Global, id: Id) -> Option<(&[Id], Option<Id>)> {
        match self.get(id) {
            Value::Call { function: called, args, state } if *called == function => {
                Some((self.tuple(*args).ok()?, *state))
            }
            _ => None,
        }
    }
}

/// The sentence for a value of the wrong kind.
pub(in crate::formats) fn expected(what: &str, got: &Value) -> Error {
    Error::invalid_format(format!("expected {what}, got {}", got.describe()))
}

impl Value {
    /// What it is, for messages.
    pub fn describe(&self) -> String {
        match self {
            Self::None => "None".into(),
            Self::Bool(_) => "a bool".into(),
            Self::Int(n) => format!("the integer {n}"),
            Self::Number(kind) => (*kind).into(),
            Self::Text(_) => "a text".into(),
            Self::Bytes(_) => "bytes".into(),
            Self::Tuple(items) => format!("a tuple of {}", items.len()),
            Self::List(items) => format!("a list of {}", items.len()),
            Self::Dict { items, .. } => format!("a dictionary of {}", items.len()),
            Self::Global(global) => global.name().into(),
            Self::Call { function, .. } => format!("a value of {}", function.name()),
            Self::Persistent(_) => "a persistent id".into(),
        }
    }
}
