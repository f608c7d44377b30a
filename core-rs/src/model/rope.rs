//! Rotary position embedding as llama.cpp's `LLAMA_ROPE_TYPE_NORM` does it: neighbours (2i, 2i+1) of a head form the
//! pair that is rotated by `position * frequency[i]`. GGUF files of the `llama` architecture have their query and key
//! rows permuted for exactly this pairing; the halves of Hugging Face's checkpoints (i, i + dim/2) would be wrong.
//!
//! Angles are computed in f64, once per step for all layers: llama.cpp multiplies up powers in f32, which at position
//! 8000 differs by some 1e-3 radians in the fast frequencies.

use candle_core::{Device, Tensor};

use super::config::{Config, RopeScaling};
use crate::error::{Error, Result};
use crate::kernels::{Values, for_each_row};

/// Rotation frequencies of a model.
#[derive(Debug, Clone)]
pub(super) struct Rope {
    /// Radians per position of pair i; `rope_dim / 2` of them.
    frequencies: Vec<f64>,
    head_dim: usize,
}

/// Cosines and sines `[n, rope_dim / 2]` of `n` consecutive positions.
pub(super) struct Angles {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// `factors` divide the frequencies one by one (`rope_freqs.weight` of Llama 3.1 and later).
    pub(super) fn new(config: &Config, factors: Option<&[f32]>) -> Result<Self> {
        let stretch = match config.rope_scaling {
            RopeScaling::None => 1.0,
            RopeScaling::Linear(factor) => f64::from(factor),
        };
        let frequency = |i: usize| {
            let exponent = -2.0 * i as f64 / config.rope_dim as f64;
            f64::from(config.rope_theta).powf(exponent) / stretch / factors.map_or(1.0, |f| f64::from(f[i]))
        };
        let frequencies: Vec<f64> = (0..config.rope_dim / 2).map(frequency).collect();
        if let Some(i) = frequencies.iter().position(|f| !f.is_finite()) {
            let message = format!("computing rope frequencies: expected finite ones, got {} at {i}", frequencies[i]);
            return Err(Error::invalid_format(message));
        }
        Ok(Self { frequencies, head_dim: config.head_dim })
    }

    /// Angles of positions `first..first + n`.
    pub(super) fn angles(&self, first: usize, n: usize, device: &Device) -> Result<Angles> {
        let angle = |position: usize| self.frequencies.iter().map(move |f| position as f64 * f);
        let (sin, cos): (Vec<f32>, Vec<f32>) =
            (first..first + n).flat_map(angle).map(f64::sin_cos).map(|(s, c)| (s as f32, c as f32)).unzip();
        let shape = (n, self.frequencies.len());
        Ok(Angles { cos: Tensor::from_vec(cos, shape, device)?, sin: Tensor::from_vec(sin, shape, device)? })
    }

    /// Rotates every head of `x [n, heads * head_dim]`.
    pub(super) fn rotate(&self, x: &Tensor, angles: &Angles) -> Result<Tensor> {
        if x.device().is_cpu() { self.rotate_slices(x, angles) } else { self.rotate_tensors(x, angles) }
    }

    fn rotate_slices(&self, x: &Tensor, angles: &Angles) -> Result<Tensor> {
        let (_, width) = x.dims2()?;
        let (cos, sin) = (Values::of(&angles.cos)?, Values::of(&angles.sin)?);
        let half = self.frequencies.len();
        let mut out = Values::of(x)?.to_vec();
        for_each_row(&mut out, width, 2 * width, |i, row| {
            let (cos, sin) = (&cos[i * half..][..half], &sin[i * half..][..half]);
            for head in row.chunks_exact_mut(self.head_dim) {
                for (([a, b], cos), sin) in head.as_chunks_mut().0.iter_mut().zip(cos).zip(sin) {
                    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                }
            }
        });
        Ok(Tensor::from_vec(out, x.shape(), x.device())?)
    }

    fn rotate_tensors(&self, x: &Tensor, angles: &Angles) -> Result<Tensor> {
        let (n, width) = x.dims2()?;
        let (heads, half) = (width / self.head_dim, self.frequencies.len());
        let x = x.reshape((n, heads, self.head_dim))?;
        let pairs = x.narrow(2, 0, 2 * half)?.reshape((n, heads, half, 2))?;
        let (a, b) = (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?);
        let (cos, sin) = (angles.cos.unsqueeze(1)?, angles.sin.unsqueeze(1)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
        let rotated = Tensor::stack(&[first, second], 3)?.reshape((n, heads, 2 * half))?;
        let rest = x.narrow(2, 2 * half, self.head_dim - 2 * half)?;
        Ok(Tensor::cat(&[rotated, rest], 2)?.reshape((n, width))?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_close, config, noise};
    use super::*;

    #[test]
    fn slices_and_tensors_agree() {
        for rope_dim in [8, 4] {
            let config = Config { head_dim: 8, rope_dim, ..config() };
            let rope = Rope::new(&config, Some(&[1.0, 2.0, 4.0, 8.0])).unwrap();
            let (x, angles) = (noise((5, 24), 3), rope.angles(11, 5, &Device::Cpu).unwrap());
            assert_close(&rope.rotate_slices(&x, &angles).unwrap(), &rope.rotate_tensors(&x, &angles).unwrap(), 1e-6);
        }
    }

    #[test]
    fn neighbours_turn_and_the_rest_passes() {
        let config = Config { head_dim: 6, rope_dim: 4, rope_theta: 100.0, ..config() };
        let rope = Rope::new(&config, None).unwrap();
        let x = Tensor::from_vec(vec![1f32, 0.0, 0.0, 1.0, 5.0, 6.0], (1, 6), &Device::Cpu).unwrap();
        let turned = rope.rotate(&x, &rope.angles(3, 1, &Device::Cpu).unwrap()).unwrap();
        let (fast, slow) = (3f32, 0.3f32); // 3 * 100^0 and 3 * 100^(-2/4)
        let expected = vec![fast.cos(), fast.sin(), -slow.sin(), slow.cos(), 5.0, 6.0];
        assert_close(&turned, &Tensor::from_vec(expected, (1, 6), &Device::Cpu).unwrap(), 1e-6);
    }

    #[test]
    fn linear_scaling_divides_positions() {
        let plain = Rope::new(&config(), None).unwrap();
        let scaled = Rope::new(&Config { rope_scaling: RopeScaling::Linear(4.0), ..config() }, None).unwrap();
        let (a, b) = (plain.angles(5, 1, &Device::Cpu).unwrap(), scaled.angles(20, 1, &Device::Cpu).unwrap());
        assert_close(&a.cos, &b.cos, 1e-6);
        assert_close(&a.sin, &b.sin, 1e-6);
    }

    #[test]
    fn a_zero_factor_is_refused() {
        let error = Rope::new(&config(), Some(&[1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])).unwrap_err();
        assert!(error.to_string().ends_with("got inf at 1"), "{error}");
    }
}
