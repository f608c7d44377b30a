//! Storage that a tensor's bytes are written into as they come, and that the model then keeps: weights are never in
//! memory twice, neither from a mapped file nor from a download.

use candle_core::quantized::k_quants::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, BlockQ8K,
    GgmlType as Block,
};
use candle_core::quantized::{QStorage, QTensor, QuantizedType};
use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::formats::gguf::{GgmlType, TensorInfo};

/// A tensor whose bytes are still coming.
pub trait Filling: Send {
    /// Takes the next bytes and returns how many it took: all, or what was missing.
    fn push(&mut self, bytes: &[u8]) -> usize;
    /// Whether no byte is missing.
    fn is_full(&self) -> bool;
    /// The blocks, of which those that are still missing are left out.
    fn finish(self: Box<Self>) -> Box<dyn QuantizedType>;
}

/// Makes room for one tensor.
type Open = fn(&TensorInfo) -> Result<Box<dyn Filling>>;

/// Room for `info`, all of it at once.
///
/// # Errors
/// `unsupported` for a type without arithmetic, and for more memory than there is.
pub fn open(info: &TensorInfo) -> Result<Box<dyn Filling>> {
    opener(info)?(info)
}

/// The tensor of `info` with its blocks.
pub fn tensor(info: &TensorInfo, filling: Box<dyn Filling>) -> Result<QTensor> {
    Ok(QTensor::new(QStorage::Cpu(filling.finish()), info.shape.as_slice())?)
}

/// How to make room for `info`; an error when nothing multiplies its type.
pub(super) fn opener(info: &TensorInfo) -> Result<Open> {
    Ok(match info.dtype {
        GgmlType::F32 => Blocks::<f32>::open,
        GgmlType::F16 => Blocks::<f16>::open,
        GgmlType::BF16 => Blocks::<bf16>::open,
        GgmlType::Q4_0 => Blocks::<BlockQ4_0>::open,
        GgmlType::Q4_1 => Blocks::<BlockQ4_1>::open,
        GgmlType::Q5_0 => Blocks::<BlockQ5_0>::open,
        GgmlType::Q5_1 => Blocks::<BlockQ5_1>::open,
        GgmlType::Q8_0 => Blocks::<BlockQ8_0>::open,
        GgmlType::Q2K => Blocks::<BlockQ2K>::open,
        GgmlType::Q3K => Blocks::<BlockQ3K>::open,
        GgmlType::Q4K => Blocks::<BlockQ4K>::open,
        GgmlType::Q5K => Blocks::<BlockQ5K>::open,
        GgmlType::Q6K => Blocks::<BlockQ6K>::open,
        GgmlType::Q8K => Blocks::<BlockQ8K>::open,
        other => {
            let known = "f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0 and q2_k to q8_k";
            let message = format!("tensor {}: type {} is not implemented; known are {known}", info.name, other.name());
            return Err(Error::unsupported(message));
        }
    })
}

/// Blocks of one type, the first `filled` bytes of them written.
struct Blocks<T> {
    /// Reserved for all blocks; its length stays 0 until they are there.
    blocks: Vec<T>,
    filled: usize,
    /// Bytes of the whole tensor, a multiple of the block's.
    len: usize,
}

impl<T: Block + Send + Sync + 'static> Blocks<T> {
    fn open(info: &TensorInfo) -> Result<Box<dyn Filling>> {
        let len = info.len;
        if !len.is_multiple_of(size_of::<T>()) {
            let message = format!("tensor {}: expected blocks of {} bytes, got {len}", info.name, size_of::<T>());
            return Err(Error::internal(message));
        }
        let mut blocks = Vec::new();
        blocks.try_reserve_exact(len / size_of::<T>()).map_err(|_| {
            Error::unsupported(format!("tensor {}: expected {len} bytes of memory, got none", info.name))
        })?;
        Ok(Box::new(Self { blocks, filled: 0, len }))
    }
}

impl<T: Block + Send + Sync + 'static> Filling for Blocks<T> {
    fn push(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.len - self.filled);
        // SAFETY: `open` reserved `len` bytes and filled + n <= len; `bytes` is borrowed, so it cannot be our own memory.
        unsafe {
            let to = self.blocks.as_mut_ptr().cast::<u8>().add(self.filled);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, n);
        }
        self.filled += n;
        n
    }

    fn is_full(&self) -> bool {
        self.filled == self.len
    }

    fn finish(mut self: Box<Self>) -> Box<dyn QuantizedType> {
        // SAFETY: these blocks have been written whole, and candle's block types are `repr(C)` structs of integers and
        // halves (or floats), for which all bits are values.
        unsafe { self.blocks.set_len(self.filled / size_of::<T>()) };
        Box::new(self.blocks)
    }
}
