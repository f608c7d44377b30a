//! The stack machine: opcodes to values.

use std::collections::HashMap;
use std::ops::Range;

use super::super::cursor::Cursor;
use super::opcodes::*;
use super::values::expected;
use super::{Global, Id, MAX_GLOBAL_LEN, MAX_MEMO, MAX_OPCODES, MAX_STACK, Pickle, Value};
use crate::error::{Error, Result};

/// Reads a pickle that fills `bytes`. `persistent` says whether it may refer to what is kept outside it.
///
/// # Errors
/// `invalid_format` when the bytes break a rule of pickles or a limit of this module, `unsupported` for opcodes and
/// names that are not of plain data and arrays.
pub(in crate::formats) fn parse(bytes: &[u8], persistent: bool) -> Result<Pickle<'_>> {
    Machine::new(bytes, persistent).run().map_err(|e| e.context("reading pickle"))
}

struct Machine<'a> {
    cursor: Cursor<'a>,
    persistent: bool,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Stack lengths at the open marks.
    marks: Vec<usize>,
    /// A map, as a file chooses the numbers.
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8], persistent: bool) -> Self {
        Self {
            cursor: Cursor::at(bytes, 0),
            persistent,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    fn run(mut self) -> Result<Pickle<'a>> {
        self.protocol()?;
        for _ in 0..MAX_OPCODES {
            let at = self.cursor.pos;
            match self.u8()? {
                STOP => return self.stop(),
                code => self.step(code).map_err(|e| e.context(format_args!("byte {at}")))?,
            }
        }
        Err(Error::invalid_format(format!("expected at most {MAX_OPCODES} opcodes, got more")))
    }

    fn protocol(&mut self) -> Result<()> {
        match (self.u8()?, self.u8()?) {
            (PROTO, 2..=5) => Ok(()),
            (PROTO, n) => Err(Error::unsupported(format!("expected a pickle of protocol 2 to 5, got protocol {n}"))),
            (a, b) => Err(Error::unsupported(format!(
                "expected a pickle of protocol 2 to 5, got bytes {a:#04x} {b:#04x} (protocols 0 and 1 are not read)"
            ))),
        }
    }

    fn stop(mut self) -> Result<Pickle<'a>> {
        let root = self.pop()?;
        let rest = self.cursor.remaining();
        match (self.stack.len() + self.marks.len(), rest) {
            (0, 0) => Ok(Pickle { bytes: self.cursor.bytes, values: self.values, root }),
            (0, _) => Err(Error::invalid_format(format!("expected the end of the file after STOP, got {rest} bytes"))),
            (left, _) => Err(Error::invalid_format(format!("expected one value at STOP, got {left} more"))),
        }
    }

    fn step(&mut self, code: u8) -> Result<()> {
        match code {
            FRAME => self.frame(),
            MARK => self.mark(),
            NONE => self.push(Value::None),
            NEWTRUE => self.push(Value::Bool(true)),
            NEWFALSE => self.push(Value::Bool(false)),
            BININT => self.signed(4),
            BININT1 => self.unsigned(1),
            BININT2 => self.unsigned(2),
            LONG1 => self.long(1),
            LONG4 => self.long(4),
            BINFLOAT => {
                self.cursor.take(8)?;
                self.push(Value::Number("a float"))
            }
            SHORT_BINUNICODE => self.run_of_bytes(1, Value::Text),
            BINUNICODE => self.run_of_bytes(4, Value::Text),
            BINUNICODE8 => self.run_of_bytes(8, Value::Text),
            SHORT_BINSTRING | SHORT_BINBYTES => self.run_of_bytes(1, Value::Bytes),
            BINSTRING | BINBYTES => self.run_of_bytes(4, Value::Bytes),
            BINBYTES8 | BYTEARRAY8 => self.run_of_bytes(8, Value::Bytes),
            EMPTY_TUPLE => self.push(Value::Tuple(Vec::new())),
            TUPLE1 => self.tuple(1),
            TUPLE2 => self.tuple(2),
            TUPLE3 => self.tuple(3),
            TUPLE => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items))
            }
            EMPTY_LIST => self.push(Value::List(Vec::new())),
            APPEND => {
                let item = self.pop()?;
                self.append(vec![item])
            }
            APPENDS => {
                let items = self.since_mark()?;
                self.append(items)
            }
            EMPTY_DICT => self.push(Value::Dict { ordered: false, items: Vec::new() }),
            SETITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])
            }
            SETITEMS => {
                let items = self.since_mark()?;
                self.set_items(&items)
            }
            BINPUT => {
                let key = self.number(1)? as u32;
                self.put(key)
            }
            LONG_BINPUT => {
                let key = self.number(4)? as u32;
                self.put(key)
            }
            MEMOIZE => self.put(self.memo.len() as u32),
            BINGET => {
                let key = self.number(1)? as u32;
                self.recall(key)
            }
            LONG_BINGET => {
                let key = self.number(4)? as u32;
                self.recall(key)
            }
            GLOBAL => self.global(),
            STACK_GLOBAL => self.stack_global(),
            REDUCE => self.reduce(),
            BUILD => self.build(),
            BINPERSID if self.persistent => {
                let id = self.pop()?;
                self.push(Value::Persistent(id))
            }
            BINPERSID => Err(Error::unsupported("expected all data in this file, got a persistent id (BINPERSID)")),
            other => Err(refuse(other)),
        }
    }

    // Bytes

    fn number(&mut self, width: usize) -> Result<u64> {
        self.cursor.number(width)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.number(1)? as u8)
    }

    /// Frames only help a reader to buffer; ours has the whole file.
    fn frame(&mut self) -> Result<()> {
        let len = self.number(8)?;
        self.cursor.clone().take_range(len).map(drop).map_err(|e| e.context("frame"))
    }

    /// A line of a module or function name.
    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.cursor.bytes[self.cursor.pos..];
        let window = &rest[..rest.len().min(MAX_GLOBAL_LEN + 1)];
        let Some(len) = window.iter().position(|&byte| byte == b'\n') else {
            let what = if window.len() < rest.len() { "a name that is longer" } else { "the end of the file" };
            return Err(Error::invalid_format(format!(
                "expected a name of at most {MAX_GLOBAL_LEN} bytes and a line end, got {what}"
            )));
        };
        let line = self.cursor.take(len + 1)?;
        Ok(&line[..len])
    }

    // Stack

    fn push(&mut self, value: Value) -> Result<()> {
        // At most one value per opcode, so the number fits.
        let id = Id(self.values.len() as u32);
        self.values.push(value);
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<()> {
        if self.stack.len() >= MAX_STACK {
            return Err(Error::invalid_format(format!("expected at most {MAX_STACK} values on the stack, got more")));
        }
        self.stack.push(id);
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        if self.marks.len() >= MAX_STACK {
            return Err(Error::invalid_format(format!("expected at most {MAX_STACK} open marks, got more")));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// Where the values after the last open mark begin.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn top(&self) -> Result<Id> {
        self.stack[self.floor()..].last().copied().ok_or_else(|| Error::invalid_format("expected a value, got none"))
    }

    fn since_mark(&mut self) -> Result<Vec<Id>> {
        let start = self.marks.pop().ok_or_else(|| Error::invalid_format("expected a mark, got none"))?;
        Ok(self.stack.split_off(start))
    }

    fn value(&mut self, id: Id) -> &mut Value {
        &mut self.values[id.0 as usize]
    }

    // Data

    fn signed(&mut self, width: usize) -> Result<()> {
        let number = self.number(width)?;
        // The sign is the highest bit there is; no bytes are zero.
        let shift = 64 - 8 * width as u32;
        let value = if width == 0 { 0 } else { (number << shift) as i64 >> shift };
        self.push(Value::Int(value))
    }

    /// An integer of any length. No size is as long as a machine word, so longer ones are only kept as such.
    fn long(&mut self, len_width: usize) -> Result<()> {
        match self.number(len_width)? {
            width @ 0..=8 => self.signed(width as usize),
            width => {
                self.cursor.take_range(width)?;
                self.push(Value::Number("a large integer"))
            }
        }
    }

    fn unsigned(&mut self, width: usize) -> Result<()> {
        let number = self.number(width)?;
        self.push(Value::Int(number as i64))
    }

    fn run_of_bytes(&mut self, len_width: usize, value: fn(Range<usize>) -> Value) -> Result<()> {
        let len = self.number(len_width)?;
        let range = self.cursor.take_range(len)?;
        self.push(value(range))
    }

    fn tuple(&mut self, n: usize) -> Result<()> {
        let have = self.stack.len() - self.floor();
        if have < n {
            return Err(Error::invalid_format(format!("expected {n} values for a tuple, got {have}")));
        }
        let items = self.stack.split_off(self.stack.len() - n);
        self.push(Value::Tuple(items))
    }

    fn append(&mut self, new: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        match self.value(list) {
            Value::List(items) => {
                items.extend(new);
                Ok(())
            }
            other => Err(expected("a list to append to", other)),
        }
    }

    fn set_items(&mut self, new: &[Id]) -> Result<()> {
        let dict = self.top()?;
        let (pairs, rest) = new.as_chunks::<2>();
        match self.value(dict) {
            _ if !rest.is_empty() => Err(Error::invalid_format("expected a value for each key, got a key alone")),
            Value::Dict { items, .. } => {
                items.extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            other => Err(expected("a dictionary to fill", other)),
        }
    }

    fn put(&mut self, key: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        if self.memo.len() > MAX_MEMO {
            return Err(Error::invalid_format(format!("expected at most {MAX_MEMO} remembered values, got more")));
        }
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<()> {
        let id = self.memo.get(&key).copied();
        self.push_id(id.ok_or_else(|| Error::invalid_format(format!("expected a remembered value, got number {key}")))?)
    }

    // Names and calls

    fn global(&mut self) -> Result<()> {
        let (module, name) = (self.line()?, self.line()?);
        let global = Global::find(module, name)?;
        self.push(Value::Global(global))
    }

    fn stack_global(&mut self) -> Result<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        let global = Global::find(self.short_text(module)?, self.short_text(name)?)?;
        self.push(Value::Global(global))
    }

    fn short_text(&self, id: Id) -> Result<&'a [u8]> {
        match &self.values[id.0 as usize] {
            Value::Text(range) if range.len() <= MAX_GLOBAL_LEN => Ok(&self.cursor.bytes[range.clone()]),
            Value::Text(range) => Err(Error::invalid_format(format!(
                "expected a name of at most {MAX_GLOBAL_LEN} bytes, got {} bytes",
                range.len()
            ))),
            other => Err(expected("a name", other)),
        }
    }

    /// A call becomes a value that says so; the two whose results are plain data become that data.
    fn reduce(&mut self) -> Result<()> {
        let (args, function) = (self.pop()?, self.pop()?);
        let function = match self.value(function) {
            Value::Global(global) if global.is_function() => *global,
            other => return Err(expected("a function that rebuilds arrays", other)),
        };
        let Value::Tuple(items) = self.value(args) else {
            return Err(expected("a tuple of arguments", self.value(args)));
        };
        match (function, items.as_slice()) {
            (Global::OrderedDict, []) => self.push(Value::Dict { ordered: true, items: Vec::new() }),
            (Global::OrderedDict, _) => Err(Error::unsupported("expected OrderedDict without arguments, got some")),
            (Global::Tuple, &[only]) => match self.value(only) {
                Value::Tuple(_) => self.push_id(only),
                other => Err(expected("a tuple as the argument of tuple", other)),
            },
            (Global::Tuple, _) => Err(Error::invalid_format("expected one argument of tuple, got another number")),
            _ => self.push(Value::Call { function, args, state: None }),
        }
    }

    /// States belong to arrays and their types. Those of ordered dictionaries are attributes, which nobody reads.
    fn build(&mut self) -> Result<()> {
        let (new, target) = (self.pop()?, self.top()?);
        let is_tuple = matches!(self.value(new), Value::Tuple(_));
        let is_dict = matches!(self.value(new), Value::Dict { .. });
        match self.value(target) {
            Value::Call { function, state: state @ None, .. } if function.takes_state() && is_tuple => {
                *state = Some(new);
                Ok(())
            }
            Value::Dict { ordered: true, .. } if is_dict => Ok(()),
            other => {
                let other = other.describe();
                let state = self.value(new).describe();
                Err(Error::unsupported(format!(
                    "expected the state of an array or of an ordered dictionary (BUILD), got {state} for {other}"
                )))
            }
        }
    }
}

fn refuse(code: u8) -> Error {
    match refused_name(code) {
        Some(name) => Error::unsupported(format!(
            "expected an opcode of plain data or arrays, got {name} (refused; nothing was run)"
        )),
        None => Error::invalid_format(format!("expected a pickle opcode, got byte {code:#04x}")),
    }
}
