//! Keys and values of the tokens a conversation has seen, kept outside the model.
//!
//! Rows are tokens: `[capacity, n_embd_kv]` per layer for keys and for values, f32, so that a step appends rows in
//! place and attention reads the first `len` of them. f32 costs twice the memory of llama.cpp's f16 and keeps the
//! cache exact.

use candle_core::{DType, Device, Tensor};

use super::config::Config;
use crate::error::{Error, ErrorKind, Result};

/// Tokens by which a cache's memory grows; a growth copies what is there.
pub const GROWTH_STEP: usize = 256;

/// The attention state of one conversation with one model.
#[derive(Debug)]
pub struct KvCache {
    /// Keys and values per layer; empty until the first token.
    layers: Vec<(Tensor, Tensor)>,
    n_layer: usize,
    n_embd_kv: usize,
    n_ctx: usize,
    len: usize,
    capacity: usize,
    device: Device,
}

impl KvCache {
    pub(super) fn new(config: &Config, device: &Device) -> Self {
        Self {
            layers: Vec::new(),
            n_layer: config.n_layer,
            n_embd_kv: config.n_embd_kv(),
            n_ctx: config.n_ctx,
            len: 0,
            capacity: 0,
            device: device.clone(),
        }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all tokens but the first `len`; does nothing if there are no more. Memory is kept.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Bytes of memory held, used or not.
    pub fn bytes(&self) -> usize {
        2 * self.n_layer * self.capacity * self.n_embd_kv * size_of::<f32>()
    }

    /// Makes room for `n` more tokens, and fails without a change if the context has none: a conversation that has
    /// reserved its part cannot make a pass of several fail for want of room.
    ///
    /// # Errors
    /// `context_overflow` when the context has no room.
    pub fn reserve(&mut self, n: usize) -> Result<()> {
        let wanted = self.len.saturating_add(n);
        if wanted > self.n_ctx {
            let message =
                format!("extending the context: expected at most {} tokens, got {} and {n} more", self.n_ctx, self.len);
            return Err(Error::new(ErrorKind::ContextOverflow, message));
        }
        if wanted > self.capacity {
            self.grow(wanted.next_multiple_of(GROWTH_STEP).min(self.n_ctx))?;
        }
        Ok(())
    }

    /// Writes `[n, n_embd_kv]` keys and values of a layer behind the tokens held, and returns the layer's whole
    /// `[capacity, n_embd_kv]` tensors. [`KvCache::advance`] makes the rows count once all layers have theirs.
    pub(super) fn write(&self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<&(Tensor, Tensor)> {
        let kept = &self.layers[layer];
        kept.0.slice_set(keys, 0, self.len)?;
        kept.1.slice_set(values, 0, self.len)?;
        Ok(kept)
    }

    pub(super) fn advance(&mut self, n: usize) {
        self.len += n;
        debug_assert!(self.len <= self.capacity, "advanced past the reserved rows");
    }

    /// Fails if the cache was made by a model of another shape.
    pub(super) fn check(&self, config: &Config) -> Result<()> {
        let got = (self.n_layer, self.n_embd_kv, self.n_ctx);
        let wanted = (config.n_layer, config.n_embd_kv(), config.n_ctx);
        if got == wanted {
            return Ok(());
        }
        Err(Error::internal(format!(
            "using a cache: expected one of (n_layer, n_embd_kv, n_ctx) = {wanted:?}, got {got:?}"
        )))
    }

    /// Layer by layer, so that at most one layer is held twice.
    fn grow(&mut self, capacity: usize) -> Result<()> {
        let larger = |old: Option<&Tensor>| -> Result<Tensor> {
            let new = Tensor::zeros((capacity, self.n_embd_kv), DType::F32, &self.device)?;
            if let Some(old) = old {
                new.slice_set(old, 0, 0)?;
            }
            Ok(new)
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
}
