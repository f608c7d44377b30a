//! The small operations of a pass in plain tensor operations, for devices that have no kernels of this crate.

use candle_core::{D, DType, Device, Tensor};

use super::config::Config;
use crate::error::Result;

/// Cosines and sines of each row, `[n, rope_dim / 2]`.
pub(super) struct Angles {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

/// `x / √(mean(x²) + eps) * weight` for each row of `x [n, width]`.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    Ok(x.broadcast_div(&(mean_square + f64::from(eps))?.sqrt()?)?.broadcast_mul(weight)?)
}

/// `silu(gate) * up`, both `[n, width]`.
pub(super) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    Ok((gate.silu()? * up)?)
}

/// Rotates the neighbours (2i, 2i + 1) of every head of `x [n, heads * head_dim]`.
pub(super) fn rotate(config: &Config, x: &Tensor, angles: &Angles) -> Result<Tensor> {
    let Config { head_dim, rope_dim, .. } = *config;
    let (n, width) = x.dims2()?;
    let heads = width / head_dim;
    let x = x.reshape((n, heads, head_dim))?;
    let pairs = x.narrow(2, 0, rope_dim)?.reshape((n, heads, rope_dim / 2, 2))?;
    let (a, b) = (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?);
    let (cos, sin) = (angles.cos.unsqueeze(1)?, angles.sin.unsqueeze(1)?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
    let rotated = Tensor::stack(&[first, second], 3)?.reshape((n, heads, rope_dim))?;
    if rope_dim == head_dim {
        return Ok(rotated.reshape((n, width))?);
    }
    let rest = x.narrow(2, rope_dim, head_dim - rope_dim)?;
    Ok(Tensor::cat(&[rotated, rest], 2)?.reshape((n, width))?)
}

/// What tokens of a conversation may look at.
pub(super) struct Sight {
    /// First position that any of them sees.
    oldest: usize,
    /// Behind the last position.
    len: usize,
    /// `[n, len - oldest]`: zero where a token may look, minus infinity ahead of it and behind its window. None for a
    /// single token, which sees all.
    mask: Option<Tensor>,
}

impl Sight {
    /// Of tokens at positions `first..first + n`.
    pub(super) fn new(config: &Config, first: usize, n: usize, device: &Device) -> Result<Self> {
        let len = first + n;
        let oldest_of = |position: usize| (position + 1).saturating_sub(config.sliding_window.unwrap_or(usize::MAX));
        let oldest = oldest_of(first);
        let hidden = |position: usize| {
            let seen = oldest_of(position)..=position;
            (oldest..len).map(move |j| if seen.contains(&j) { 0.0 } else { f32::NEG_INFINITY })
        };
        let mask = || Tensor::from_vec((first..len).flat_map(hidden).collect(), (n, len - oldest), device);
        Ok(Self { oldest, len, mask: (n > 1).then(mask).transpose()? })
    }
}

/// Attends with rotated `queries [n, n_head * head_dim]` to what they see of `keys` and `values
/// [capacity, n_head_kv * head_dim]`; returns `[n, n_head * head_dim]`. Query heads of one key head are folded into its
/// rows, `[n_head_kv, group * n, head_dim]`: keys and values are never repeated.
pub(super) fn attention(
    config: &Config,
    queries: &Tensor,
    (keys, values): &(Tensor, Tensor),
    sight: &Sight,
) -> Result<Tensor> {
    let Config { n_head, n_head_kv, head_dim, .. } = *config;
    let (n, group, seen) = (queries.dim(0)?, n_head / n_head_kv, sight.len - sight.oldest);
    let heads = |rows: &Tensor| {
        let rows = rows.narrow(0, sight.oldest, seen)?.to_dtype(DType::F32)?;
        rows.reshape((seen, n_head_kv, head_dim))?.transpose(0, 1)?.contiguous()
    };
    let (keys, values) = (heads(keys)?, heads(values)?);
    let queries = queries.reshape((n, n_head_kv, group, head_dim))?.permute((1, 2, 0, 3))?;
    let queries = queries.contiguous()?.reshape((n_head_kv, group * n, head_dim))?;
    let scores = (queries.matmul(&keys.t()?)? / (head_dim as f64).sqrt())?.reshape((n_head_kv, group, n, seen))?;
    let scores = match &sight.mask {
        Some(mask) => scores.broadcast_add(mask)?,
        None => scores,
    };
    let out = softmax(&scores)?.reshape((n_head_kv, group * n, seen))?.matmul(&values)?;
    let out = out.reshape((n_head_kv, group, n, head_dim))?.permute((2, 0, 1, 3))?;
    Ok(out.contiguous()?.reshape((n, n_head * head_dim))?)
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    Ok(exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?)
}
