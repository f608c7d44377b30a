//! The product with a stored weight matrix on another device than the CPU, by candle's kernels there.

use std::sync::Arc;

use candle_core::Tensor;
use candle_core::quantized::{GgmlDType, QTensor};

use crate::error::{Error, Result};

/// A weight `[n_out, n_in]`.
#[derive(Debug, Clone)]
pub(super) enum Matrix {
    /// Blocks, multiplied as they are stored; candle quantises the activations to int8.
    Blocks(Arc<QTensor>),
    /// `[n_in, n_out]` f32, whatever was stored: candle's stored product on CUDA knows no floats, and its dense one of 16
    /// bits would round activations to them.
    Floats(Tensor),
}

impl Matrix {
    pub(super) fn new(stored: Arc<QTensor>) -> Result<Self> {
        Ok(match stored.dtype() {
            GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 => {
                Self::Floats(stored.dequantize(&stored.device())?.t()?)
            }
            _ => Self::Blocks(stored),
        })
    }

    /// The values of rows `ids`, `[ids, n_in]`; of blocks no others are unpacked.
    pub(super) fn rows(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Blocks(stored) => stored.embedding(ids)?,
            Self::Floats(weight) => weight.t()?.index_select(ids, 0)?,
        })
    }

    /// Length of an output row.
    pub(super) fn n_out(&self) -> Result<usize> {
        Ok(match self {
            Self::Blocks(stored) => stored.shape().dims2()?.0,
            Self::Floats(weight) => weight.dim(1)?,
        })
    }

    /// `x [n, n_in]`, contiguous, to `[n, n_out]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Blocks(stored) => x.apply_op1_no_bwd(stored.as_ref())?,
            Self::Floats(weight) => x.matmul(weight)?,
        })
    }
}

impl From<candle_core::Error> for Error {
    /// candle fails on shapes and devices that we chose, so its errors are ours.
    fn from(error: candle_core::Error) -> Self {
        Self::internal(format!("tensor operation failed: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn all_that_is_stored_is_multiplied() {
        let numbers = |n: usize, seed: f64| {
            // Bare sines would cancel in a product, and leave little to compare the rounding with.
            let values: Vec<f32> =
                (0..n * 256).map(|i| (((i as f64 * seed).sin() * 4e4).fract() * 2.0) as f32).collect();
            Tensor::from_vec(values, (n, 256), &Device::Cpu).unwrap()
        };
        let (x, w) = (numbers(3, 0.37), numbers(5, 0.91));
        let largest = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        for (dtype, tolerance) in [
            (GgmlDType::F32, 1e-5),
            (GgmlDType::F16, 1e-5),
            (GgmlDType::BF16, 1e-5),
            (GgmlDType::Q4_0, 0.02),
            (GgmlDType::Q6K, 0.02),
        ] {
            let stored = Arc::new(QTensor::quantize(&w, dtype).unwrap());
            let truth = x.matmul(&stored.dequantize(&Device::Cpu).unwrap().t().unwrap()).unwrap();
            let matrix = Matrix::new(stored.clone()).unwrap();
            let y = matrix.forward(&x).unwrap();
            assert_eq!(y.dims(), [3, matrix.n_out().unwrap()]);
            let error = largest(&(y - &truth).unwrap()) / largest(&truth);
            assert!(error < tolerance, "{dtype:?}: relative error {error}");
            let rows = matrix.rows(&Tensor::new(&[4u32, 0, 4], &Device::Cpu).unwrap()).unwrap();
            let values = stored.dequantize(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(rows.to_vec2::<f32>().unwrap(), [4, 0, 4].map(|i: usize| values[i].clone()));
        }
    }
}
