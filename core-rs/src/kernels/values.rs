//! The floats of a CPU tensor as a slice, without a copy.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, Storage, StorageRef, Tensor};

use crate::error::{Error, Result};

/// Whether `tensor` is on the CPU. WebAssembly has nothing else, so it is not asked there: what is for other devices, two
/// fifths of a module, is then left out of it.
pub(crate) fn on_cpu(tensor: &Tensor) -> bool {
    cfg!(target_family = "wasm") || tensor.device().is_cpu()
}

/// The values of a contiguous f32 tensor on the CPU, in row-major order, under candle's read lock.
pub(crate) struct Values<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

impl<'a> Values<'a> {
    /// Fails for another device, type or layout: callers make tensors contiguous where they cut them.
    pub(crate) fn of(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let range = layout.contiguous_offsets().map(|(start, end)| start..end);
        match (&*storage, range) {
            (Storage::Cpu(CpuStorage::F32(_)), Some(range)) => Ok(Self { storage, range }),
            _ => Err(Error::internal(format!(
                "reading a tensor's values: expected contiguous f32 on the CPU, got {:?} {:?} on {:?}",
                tensor.dtype(),
                layout,
                tensor.device()
            ))),
        }
    }
}

impl Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            _ => unreachable!("`of` looked, and the lock is still held"),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn a_narrowed_row_reads_as_itself_and_a_column_is_refused() {
        let t = Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap().reshape((3, 4)).unwrap();
        assert_eq!(Values::of(&t.narrow(0, 1, 1).unwrap()).unwrap()[..], [4.0, 5.0, 6.0, 7.0]);
        assert!(Values::of(&t.narrow(1, 0, 2).unwrap()).is_err());
        assert!(Values::of(&t.to_dtype(DType::F64).unwrap()).is_err());
    }
}
