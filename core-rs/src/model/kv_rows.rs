//! Keys and values of a conversation on another device than the CPU: a tensor of rows for each layer, so that a step
//! appends rows in place and attention reads the first of them.

use candle_core::{DType, Device, Tensor};

use super::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::CacheType;

/// Tokens by which memory grows; a growth copies what is there.
const STEP: usize = 256;

/// Rows of tokens, `[capacity, n_embd_kv]` per layer for keys and for values.
#[derive(Debug)]
pub(super) struct KvRows {
    /// Empty until the first token.
    layers: Vec<(Tensor, Tensor)>,
    dtype: DType,
    n_layer: usize,
    n_embd_kv: usize,
    n_ctx: usize,
    capacity: usize,
    device: Device,
}

/// How values of `kind` are stored on a device.
///
/// # Errors
/// `unsupported` for blocks.
pub(super) fn element_type(kind: CacheType) -> Result<DType> {
    match kind {
        CacheType::F32 => Ok(DType::F32),
        CacheType::F16 => Ok(DType::F16),
        CacheType::Q8_0 => Err(Error::unsupported(
            "keeping keys and values as q8_0: expected f32 or f16 on a device other than the CPU",
        )),
    }
}

impl KvRows {
    pub(super) fn new(config: &Config, dtype: DType, device: &Device) -> Self {
        let (n_layer, n_embd_kv, n_ctx) = (config.n_layer, config.n_embd_kv(), config.n_ctx);
        Self { layers: Vec::new(), dtype, n_layer, n_embd_kv, n_ctx, capacity: 0, device: device.clone() }
    }

    /// Tokens that there is room for.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of memory held, used or not.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |rows: &Tensor| rows.elem_count() * self.dtype.size_in_bytes();
        self.layers.iter().map(|(keys, values)| bytes(keys) + bytes(values)).sum()
    }

    /// Makes room for `wanted` tokens, of which the first `len` are kept.
    ///
    /// # Errors
    /// `overloaded` if the device has no memory for them; all rows are there then.
    pub(super) fn reserve(&mut self, len: usize, wanted: usize) -> Result<()> {
        if wanted <= self.capacity {
            return Ok(());
        }
        let capacity = wanted.next_multiple_of(STEP).min(self.n_ctx);
        self.grow(len, capacity).map_err(|e| {
            let message = format!("extending the context: expected memory for {capacity} tokens, got {e}");
            Error::new(ErrorKind::Overloaded, message)
        })
    }

    /// Layer by layer, so that at most one layer is held twice.
    fn grow(&mut self, len: usize, capacity: usize) -> candle_core::Result<()> {
        let larger = |old: Option<&Tensor>| {
            let new = Tensor::zeros((capacity, self.n_embd_kv), self.dtype, &self.device)?;
            if let Some(old) = old.filter(|_| len > 0) {
                new.slice_set(&old.narrow(0, 0, len)?, 0, 0)?;
            }
            Ok::<_, candle_core::Error>(new)
        };
        for layer in 0..self.n_layer {
            let old = self.layers.get(layer);
            let new = (larger(old.map(|old| &old.0))?, larger(old.map(|old| &old.1))?);
            match self.layers.get_mut(layer) {
                Some(slot) => *slot = new,
                None => self.layers.push(new),
            }
        }
        self.capacity = capacity;
        Ok(())
    }

    /// Writes `[n, n_embd_kv]` keys and values of a layer behind `len` others, for which there is room, and returns the
    /// layer's whole tensors.
    pub(super) fn write(&self, layer: usize, len: usize, keys: &Tensor, values: &Tensor) -> Result<&(Tensor, Tensor)> {
        let kept = &self.layers[layer];
        kept.0.slice_set(&keys.to_dtype(self.dtype)?, 0, len)?;
        kept.1.slice_set(&values.to_dtype(self.dtype)?, 0, len)?;
        Ok(kept)
    }
}
