//! Causal attention over the cache, all of it or a window. Query heads that share a key head read the same rows: keys and values are never
//! repeated.

use candle_core::{D, Tensor};

use super::config::Config;
use crate::error::Result;
use crate::kernels::{Head, Values, attend, for_each_row, on_cpu};

/// Attends with `queries [n, n_head * head_dim]` of positions `first..first + n` to the first `first + n` rows of
/// `keys` and `values [capacity, n_head_kv * head_dim]`; behind a sliding window none of them. Returns `[n, n_head * head_dim]`.
pub(super) fn attention(
    config: &Config,
    queries: &Tensor,
    (keys, values): &(Tensor, Tensor),
    first: usize,
) -> Result<Tensor> {
    if on_cpu(queries) {
        by_slices(config, queries, keys, values, first)
    } else {
        by_tensors(config, queries, keys, values, first)
    }
}

/// A task per token and head, so that a token's result does not depend on its neighbours.
fn by_slices(config: &Config, queries: &Tensor, keys: &Tensor, values: &Tensor, first: usize) -> Result<Tensor> {
    let Config { n_head, n_head_kv, head_dim, sliding_window, .. } = *config;
    let (shape, stride) = (queries.shape(), n_head_kv * head_dim);
    let (queries, keys, values) = (Values::of(queries)?, Values::of(keys)?, Values::of(values)?);
    let mut out = vec![0.0; queries.len()];
    let window = sliding_window.unwrap_or(usize::MAX);
    let work = 2 * head_dim * window.min(first + queries.len() / (n_head * head_dim));
    for_each_row(&mut out, head_dim, work, |row, out| {
        let (token, head) = (row / n_head, row % n_head);
        let column = head / (n_head / n_head_kv) * head_dim;
        let query = &queries[row * head_dim..][..head_dim];
        let len = first + token + 1;
        let visible = len.min(window);
        let oldest = (len - visible) * stride + column;
        attend(&Head { query, keys: &keys[oldest..], values: &values[oldest..], stride, visible }, out);
    });
    Ok(Tensor::from_vec(out, shape, &candle_core::Device::Cpu)?)
}

/// Query heads of one key head are folded into its rows: `[n_head_kv, group * n, head_dim]`.
fn by_tensors(config: &Config, queries: &Tensor, keys: &Tensor, values: &Tensor, first: usize) -> Result<Tensor> {
    let Config { n_head, n_head_kv, head_dim, .. } = *config;
    let (n, group) = (queries.dim(0)?, n_head / n_head_kv);
    let len = first + n;
    let heads =
        |rows: &Tensor| rows.narrow(0, 0, len)?.reshape((len, n_head_kv, head_dim))?.transpose(0, 1)?.contiguous();
    let (keys, values) = (heads(keys)?, heads(values)?);
    let queries = queries.reshape((n, n_head_kv, group, head_dim))?.permute((1, 2, 0, 3))?;
    let queries = queries.contiguous()?.reshape((n_head_kv, group * n, head_dim))?;
    let scores = (queries.matmul(&keys.t()?)? / (head_dim as f64).sqrt())?.reshape((n_head_kv, group, n, len))?;
    let weights = softmax(&scores.broadcast_add(&mask(n, len, config.sliding_window, queries.device())?)?)?;
    let out = weights.reshape((n_head_kv, group * n, len))?.matmul(&values)?;
    let out = out.reshape((n_head_kv, group, n, head_dim))?.permute((2, 0, 1, 3))?;
    Ok(out.contiguous()?.reshape((n, n_head * head_dim))?)
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    Ok(exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?)
}

/// `[n, len]`: zero where a token may look, minus infinity ahead of it and behind its window.
fn mask(n: usize, len: usize, window: Option<usize>, device: &candle_core::Device) -> Result<Tensor> {
    let hidden = |token: usize| {
        let position = len - n + token;
        let oldest = (position + 1).saturating_sub(window.unwrap_or(usize::MAX));
        (0..len).map(move |j| if (oldest..=position).contains(&j) { 0.0 } else { f32::NEG_INFINITY })
    };
    Ok(Tensor::from_vec((0..n).flat_map(hidden).collect(), (n, len), device)?)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_close, config, noise};
    use super::*;

    #[test]
    fn slices_and_tensors_agree() {
        let heads = [(4, 4), (4, 2), (6, 1)];
        let windows = [None, Some(1), Some(5), Some(16)];
        for ((n_head, n_head_kv), sliding_window) in heads.into_iter().flat_map(|heads| windows.map(|w| (heads, w))) {
            let config = Config { n_head, n_head_kv, head_dim: 12, sliding_window, ..config() };
            let kept = (noise((16, n_head_kv * 12), 1), noise((16, n_head_kv * 12), 2));
            for (first, n) in [(0, 1), (0, 5), (7, 1), (7, 9)] {
                let queries = noise((n, n_head * 12), 3);
                let slices = by_slices(&config, &queries, &kept.0, &kept.1, first).unwrap();
                assert_close(&slices, &by_tensors(&config, &queries, &kept.0, &kept.1, first).unwrap(), 1e-5);
            }
        }
    }
}
