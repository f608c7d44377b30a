//! The small operations around the matrix products: RMSNorm, the gate of SwiGLU, and sums.

use candle_core::{D, Tensor};

use crate::error::Result;
use crate::kernels::{self, Values, for_each_row, on_cpu};

/// An exponential costs about this many multiply-adds.
const EXP_WORK: usize = 16;

/// `x / √(mean(x²) + eps) * weight` for each row of `x [n, width]`.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    if on_cpu(x) { rms_norm_slices(x, weight, eps) } else { rms_norm_tensors(x, weight, eps) }
}

/// `x + y`, both `[n, width]`.
pub(super) fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if on_cpu(x) { add_slices(x, y) } else { Ok((x + y)?) }
}

/// `silu(gate) * up`, both `[n, width]`.
pub(super) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if on_cpu(gate) { swiglu_slices(gate, up) } else { Ok((gate.silu()? * up)?) }
}

fn rms_norm_slices(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let (values, weight) = (Values::of(x)?, Values::of(weight)?);
    let mut out = values.to_vec();
    for_each_row(&mut out, weight.len(), 2 * weight.len(), |_, row| {
        let scale = (mean_square(row) as f32 + eps).sqrt().recip();
        row.iter_mut().zip(&*weight).for_each(|(v, w)| *v = *v * scale * w);
    });
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

/// In f64 like ggml's, in four sums that need not wait for each other.
fn mean_square(row: &[f32]) -> f64 {
    let (fours, tail) = row.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for four in fours {
        sums.iter_mut().zip(four).for_each(|(sum, &v)| *sum += f64::from(v) * f64::from(v));
    }
    let tail: f64 = tail.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    (sums.iter().sum::<f64>() + tail) / row.len() as f64
}

fn rms_norm_tensors(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    Ok(x.broadcast_div(&(mean_square + f64::from(eps))?.sqrt()?)?.broadcast_mul(weight)?)
}

fn add_slices(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let (_, width) = x.dims2()?;
    let mut out = Values::of(x)?.to_vec();
    let ys = Values::of(y)?;
    for_each_row(&mut out, width, width, |i, row| {
        row.iter_mut().zip(&ys[i * width..][..width]).for_each(|(x, y)| *x += y);
    });
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

fn swiglu_slices(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let (_, width) = gate.dims2()?;
    let mut out = vec![0.0; gate.elem_count()];
    let (gates, ups) = (Values::of(gate)?, Values::of(up)?);
    for_each_row(&mut out, width, width * EXP_WORK, |i, row| {
        kernels::swiglu(&gates[i * width..][..width], &ups[i * width..][..width], row);
    });
    Ok(Tensor::from_vec(out, gate.shape(), gate.device())?)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_close, noise};
    use super::*;

    #[test]
    fn slices_and_tensors_agree() {
        let (x, y) = (noise((3, 50), 1), noise((3, 50), 2));
        let weight = noise((1, 50), 3).squeeze(0).unwrap();
        assert_close(&rms_norm_slices(&x, &weight, 1e-5).unwrap(), &rms_norm_tensors(&x, &weight, 1e-5).unwrap(), 1e-6);
        assert_close(&swiglu_slices(&x, &y).unwrap(), &(x.silu().unwrap() * &y).unwrap(), 1e-6);
        assert_close(&add_slices(&x, &y).unwrap(), &(&x + &y).unwrap(), 0.0);
    }

    #[test]
    fn a_row_of_zeros_stays_zero() {
        let x = noise((1, 8), 1).zeros_like().unwrap();
        let weight = noise((1, 8), 3).squeeze(0).unwrap();
        assert_close(&rms_norm(&x, &weight, 1e-5).unwrap(), &x, 0.0);
    }
}
