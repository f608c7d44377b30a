//! A linear layer over a stored weight matrix, on whichever product serves its format and device.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};

use super::blocks::{BLOCK, Format, Rows};
use super::dispatch::{Isa, active};
use super::floats::{self, Floats};
use super::matmul::{Weights, matmul, quantize};
#[cfg(feature = "cuda")]
use super::on_device::Matrix;
use super::values::Values;
use crate::error::{Error, Result};

/// `x [.., n_in] -> x · weightᵀ [.., n_out]`, the weight `[n_out, n_in]` staying in its stored form.
///
/// What the CPU's kernels multiply (f16, bf16, f32 and most blocks) is multiplied here, everything else by candle. That is
/// asked for its stored product alone: its dense one, for every pair of types, would be a tenth of a WebAssembly module.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    n_in: usize,
    n_out: usize,
}

#[derive(Debug, Clone)]
enum Weight {
    Blocks {
        stored: Arc<QTensor>,
        format: Format,
        isa: Isa,
    },
    Floats {
        stored: Arc<QTensor>,
        isa: Isa,
    },
    Candle(Arc<QTensor>),
    #[cfg(feature = "cuda")]
    OnDevice(Matrix),
}

impl Linear {
    /// A layer of `weight`, which must have two dimensions. Uses the kernels of [`active`].
    pub fn new(weight: Arc<QTensor>) -> Result<Self> {
        Self::with_isa(weight, active())
    }

    /// As [`Linear::new`], with kernels of a named instruction set.
    pub fn with_isa(stored: Arc<QTensor>, isa: Isa) -> Result<Self> {
        let (n_out, n_in) = match *stored.shape().dims() {
            [n_out, n_in] if n_out > 0 && n_in > 0 => (n_out, n_in),
            ref dims => {
                let message = format!("making a linear layer: expected a weight [out, in] without zeros, got {dims:?}");
                return Err(Error::invalid_format(message));
            }
        };
        #[cfg(feature = "cuda")]
        if !stored.device().is_cpu() {
            return Ok(Self { weight: Weight::OnDevice(Matrix::new(stored)?), n_in, n_out });
        }
        let ours = n_in.is_multiple_of(BLOCK);
        let weight = match Format::of(stored.dtype()) {
            Some(format) if ours && isa.multiplies(format) && n_in.is_multiple_of(format.stored_values()) => {
                Weight::Blocks { stored, format, isa }
            }
            None if ours && floats_of(&stored, &stored.data()?).is_ok() => Weight::Floats { stored, isa },
            _ => Weight::Candle(widened(stored)?),
        };
        Ok(Self { weight, n_in, n_out })
    }

    /// Length of an input row.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Length of an output row.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Applies the layer to rows `[.., n_in]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [y] = forward_shared([self], x)?;
        Ok(y)
    }

    /// One product; `rows` keeps the quantised form of `x` for the next layer that wants it.
    fn product(&self, x: &Tensor, rows: &mut Option<Rows<i8>>) -> Result<Tensor> {
        let shape = self.output_shape(x)?;
        let mut out = Vec::new();
        match &self.weight {
            Weight::Candle(weight) => return Ok(x.apply_op1_no_bwd(weight.as_ref())?),
            #[cfg(feature = "cuda")]
            Weight::OnDevice(weight) => return weight.forward(x),
            Weight::Blocks { stored, format, isa } => {
                let rows = match rows {
                    Some(rows) => rows,
                    None => rows.insert(quantize(*isa, &Values::of(x)?, self.n_in)),
                };
                let bytes = stored.data()?;
                let weights = Weights { format: *format, bytes: &bytes, n: self.n_out, k: self.n_in };
                out.resize(rows.len() * self.n_out, 0.0);
                matmul(*isa, weights, rows, &mut out);
            }
            Weight::Floats { stored, isa } => {
                let (bytes, x) = (stored.data()?, Values::of(x)?);
                out.resize(x.len() / self.n_in * self.n_out, 0.0);
                floats::matmul(*isa, floats_of(stored, &bytes)?, self.n_in, &x, &mut out);
            }
        }
        Ok(Tensor::from_vec(out, shape, x.device())?)
    }

    fn output_shape(&self, x: &Tensor) -> Result<Vec<usize>> {
        let mut shape = x.dims().to_vec();
        match shape.last_mut() {
            Some(last) if *last == self.n_in => *last = self.n_out,
            _ => {
                let message = format!("applying a linear layer: expected rows of {}, got {:?}", self.n_in, x.dims());
                return Err(Error::internal(message));
            }
        }
        Ok(shape)
    }
}

/// 16-bit floats as f32: candle would round activations to the 16 bits of the weights.
fn widened(stored: Arc<QTensor>) -> Result<Arc<QTensor>> {
    if !matches!(stored.dtype(), GgmlDType::F16 | GgmlDType::BF16) {
        return Ok(stored);
    }
    let values = stored.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(Arc::new(QTensor::new(QStorage::Cpu(Box::new(values)), stored.shape())?))
}

fn floats_of<'a>(stored: &QTensor, bytes: &'a [u8]) -> Result<Floats<'a>> {
    Floats::of(stored.dtype(), bytes)
        .ok_or_else(|| Error::internal(format!("multiplying: expected f32, f16 or bf16, got {:?}", stored.dtype())))
}

/// Applies several layers to the same rows, which are quantised once for all of them.
pub fn forward_shared<const N: usize>(layers: [&Linear; N], x: &Tensor) -> Result<[Tensor; N]> {
    let (x, mut rows) = (x.contiguous()?, None);
    let outputs = layers.iter().map(|layer| layer.product(&x, &mut rows)).collect::<Result<Vec<_>>>()?;
    outputs.try_into().map_err(|_| Error::internal("expected one output per layer"))
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::super::available;
    use super::*;
    use crate::error::ErrorKind;

    fn numbers(shape: (usize, usize), seed: f64) -> Tensor {
        let n = shape.0 * shape.1;
        let values: Vec<f32> = (0..n).map(|i| (((i as f64 * seed).sin() * 4e4).fract() * 2.0) as f32).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn largest(t: &Tensor) -> f32 {
        t.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn every_format_multiplies_what_it_stores() {
        use GgmlDType::*;
        let (x, w) = (numbers((5, 256), 0.37), numbers((7, 256), 0.91));
        for dtype in [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K] {
            let stored = Arc::new(QTensor::quantize(&w, dtype).unwrap());
            let truth = x.matmul(&stored.dequantize(&Device::Cpu).unwrap().t().unwrap()).unwrap();
            for isa in available() {
                let y = Linear::with_isa(stored.clone(), isa).unwrap().forward(&x).unwrap();
                // Activations lose up to 1/254 of a block's largest value each; over 256 terms that averages out.
                let error = largest(&(y - &truth).unwrap()) / largest(&truth);
                assert!(error < 0.02, "{dtype:?} on {isa}: relative error {error}");
            }
        }
    }

    #[test]
    fn floats_in_rows_of_any_length_keep_their_activations_exact() {
        let (x, w) = ((numbers((5, 100), 0.37) * 1e5).unwrap(), numbers((7, 100), 0.91));
        for dtype in [GgmlDType::F32, GgmlDType::F16, GgmlDType::BF16] {
            let stored = Arc::new(QTensor::quantize(&w, dtype).unwrap());
            let truth = x.matmul(&stored.dequantize(&Device::Cpu).unwrap().t().unwrap()).unwrap();
            let y = Linear::new(stored).unwrap().forward(&x).unwrap();
            let error = largest(&(y - &truth).unwrap()) / largest(&truth);
            assert!(error < 1e-5, "{dtype:?}: relative error {error}");
        }
    }

    #[test]
    fn leading_dimensions_and_cut_inputs_are_kept() {
        let stored = Arc::new(QTensor::quantize(&numbers((6, 64), 0.7), GgmlDType::Q4_1).unwrap());
        let linear = Linear::new(stored).unwrap();
        let x = numbers((6, 128), 0.3);
        let left = x.narrow(1, 0, 64).unwrap();
        let folded = left.contiguous().unwrap().reshape((2, 3, 64)).unwrap();
        let (y, folded) = (linear.forward(&left).unwrap(), linear.forward(&folded).unwrap());
        assert_eq!(folded.dims(), [2, 3, 6]);
        assert_eq!(y.to_vec2::<f32>().unwrap(), folded.reshape((6, 6)).unwrap().to_vec2::<f32>().unwrap());
    }

    #[test]
    fn shared_inputs_give_what_single_ones_give() {
        let layer =
            |dtype, seed| Linear::new(Arc::new(QTensor::quantize(&numbers((4, 64), seed), dtype).unwrap())).unwrap();
        let layers = [layer(GgmlDType::Q4_1, 0.2), layer(GgmlDType::Q8_0, 0.4), layer(GgmlDType::Q5_0, 0.6)];
        let x = numbers((3, 64), 0.8);
        let shared = forward_shared(layers.each_ref(), &x).unwrap();
        for (layer, shared) in layers.iter().zip(shared) {
            assert_eq!(layer.forward(&x).unwrap().to_vec2::<f32>().unwrap(), shared.to_vec2::<f32>().unwrap());
        }
    }

    #[test]
    fn wrong_shapes_are_named() {
        let vector = QTensor::quantize(&Tensor::zeros(32, DType::F32, &Device::Cpu).unwrap(), GgmlDType::F32).unwrap();
        let error = Linear::new(Arc::new(vector)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidFormat);
        assert!(error.to_string().ends_with("got [32]"), "{error}");
        let matrix = Arc::new(QTensor::quantize(&numbers((2, 64), 0.1), GgmlDType::Q4_1).unwrap());
        let error = Linear::new(matrix).unwrap().forward(&numbers((1, 32), 0.1)).unwrap_err();
        assert!(error.to_string().contains("rows of 64, got [1, 32]"), "{error}");
    }
}
