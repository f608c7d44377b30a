//! Python pickles, protocols 2 to 5, read without running anything.
//!
//! A pickle is a program for a stack machine whose general form calls any function of any module. This machine knows
//! the opcodes that make plain data, and names only the few functions that rebuild arrays ([`Global`]); what those
//! would have made stays a [`Value::Call`] that says function and arguments. Nothing is looked up, called or imported,
//! because there is nothing here that could. All else is refused by name: other functions, objects of classes,
//! extension codes, sets, buffers outside the file, the text opcodes of protocols 0 and 1.
//!
//! Texts and byte strings stay ranges of the file, so a pickle of 13 GB is read by its opcodes alone. Values refer to
//! each other by number: what the file shares is shared here, and what it nests is not nested here, so neither a memo
//! bomb nor a deep list costs more than its own opcodes.
//!
//! Opcodes: Python's `Lib/pickletools.py`. Absent: which tensors a value holds (`pdparams`, `torch`).

mod globals;
mod machine;
pub(super) mod numpy;
mod opcodes;
mod torch_types;
mod values;

pub(super) use globals::Global;
pub(super) use machine::parse;
pub(super) use torch_types::TorchType;
pub(super) use values::{Id, Pickle, Value, expected};

/// Most opcodes of one pickle, and so most values: a tensor takes about 40, and a 70B model has 723.
const MAX_OPCODES: usize = 1 << 21;
/// Most values on the stack. Python's pickler leaves at most two thousand there, and a list more per level of nesting.
const MAX_STACK: usize = 1 << 16;
/// Most remembered values; Python's picklers remember most of what they write.
const MAX_MEMO: usize = 1 << 20;
/// Longest text that is read: names of tensors, and small words of numpy and torch. Longer ones stay ranges.
const MAX_TEXT_LEN: usize = 1 << 12;
/// Longest module or function name.
const MAX_GLOBAL_LEN: usize = 128;
