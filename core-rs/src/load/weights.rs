//! The bytes of a file, in order and in any pieces, to its tensors. Absent: the header's meaning, a second copy.

use std::collections::HashMap;

use super::blocks;
use crate::error::{Error, Result};
use crate::formats::gguf::TensorInfo;
use crate::kernels::{Filling, Weight};
use crate::model::TensorSource;

/// Tensors on their way; a [`TensorSource`] once all bytes have been pushed.
pub(super) struct Weights {
    /// In the order of their bytes, which need not be that of the header.
    tensors: Vec<TensorInfo>,
    /// Index of the tensor whose bytes come next, after padding.
    next: usize,
    /// That tensor, once its first byte has come.
    filling: Option<Filling>,
    /// Bytes of the file seen.
    position: u64,
    done: u64,
    total: u64,
    built: HashMap<String, Weight>,
}

impl Weights {
    /// Nothing pushed yet.
    ///
    /// # Errors
    /// `unsupported` for a tensor of a type that nothing multiplies: better now than after a download.
    pub(super) fn new(mut tensors: Vec<TensorInfo>) -> Result<Self> {
        tensors.iter().try_for_each(|info| blocks::element(info).map(drop))?;
        tensors.sort_by_key(|info| info.offset);
        let total = tensors.iter().map(|info| info.len as u64).sum();
        Ok(Self { tensors, next: 0, filling: None, position: 0, done: 0, total, built: HashMap::new() })
    }

    /// Bytes of weights taken, and in total.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.done, self.total)
    }

    /// Takes the next bytes of the file, counted from its very first: header, padding and weights as they lie.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let Some(info) = self.tensors.get(self.next) else {
                self.position += bytes.len() as u64;
                return Ok(());
            };
            let gap = usize::try_from((info.offset as u64).saturating_sub(self.position)).unwrap_or(usize::MAX);
            let taken = if gap > 0 { gap.min(bytes.len()) } else { self.fill(bytes)? };
            self.position += taken as u64;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Gives bytes to the next tensor and returns how many it took.
    fn fill(&mut self, bytes: &[u8]) -> Result<usize> {
        let info = &self.tensors[self.next];
        let mut filling = match self.filling.take() {
            Some(filling) => filling,
            None => blocks::open(info)?,
        };
        let taken = filling.push(bytes);
        self.done += taken as u64;
        if filling.is_full() {
            self.built.insert(info.name.clone(), filling.finish()?);
            self.next += 1;
        } else {
            self.filling = Some(filling);
        }
        Ok(taken)
    }

    /// Fails while bytes of a tensor are missing.
    pub(super) fn check_complete(&self) -> Result<()> {
        match self.tensors.get(self.next) {
            None => Ok(()),
            Some(info) => {
                let (end, got) = (info.offset + info.len, self.position);
                Err(Error::invalid_format(format!("tensor {}: expected bytes up to {end}, got {got}", info.name)))
            }
        }
    }
}

impl TensorSource for Weights {
    fn tensor(&mut self, name: &str) -> Result<Option<Weight>> {
        Ok(self.built.remove(name))
    }
}
