//! A position in bytes that never passes their end.

use std::ops::Range;

use crate::error::{Error, Result};

/// Bytes, and how many of them have been read.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub pos: usize,
}

impl<'a> Cursor<'a> {
    /// At the byte `pos`, which may be anywhere: reading beyond the end fails.
    pub fn at(bytes: &'a [u8], pos: usize) -> Self {
        Self { bytes, pos: pos.min(bytes.len()) }
    }

    /// How many bytes follow.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.pos
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let range = self.take_range(n as u64)?;
        Ok(&self.bytes[range])
    }

    /// Where the next `n` bytes lie.
    pub fn take_range(&mut self, n: u64) -> Result<Range<usize>> {
        let (start, rest) = (self.pos, self.remaining());
        if n > rest as u64 {
            return Err(Error::invalid_format(format!(
                "file ends early: wanted {n} bytes at byte {start}, got {rest}"
            )));
        }
        self.pos += n as usize;
        Ok(start..self.pos)
    }

    /// An unsigned little-endian number of at most eight bytes.
    pub fn number(&mut self, width: usize) -> Result<u64> {
        Ok(self.take(width)?.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    }
}
