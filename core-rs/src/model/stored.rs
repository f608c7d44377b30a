//! Tensors as files store them, and their way to another device than the CPU: one by one, so that the CPU's memory holds
//! one of them at a time.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};

use super::on_device::Matrix;
use super::weights::{TensorSource, Weights, check_shape};
use crate::error::{Error, Result};
use crate::kernels::{Element, Format};

/// A tensor as a file stores it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// How values are stored.
    pub element: Element,
    /// Its shape, rows last.
    pub shape: Vec<usize>,
    /// All of its bytes.
    pub bytes: Vec<u8>,
}

impl Stored {
    /// A tensor of the same blocks on `device`. candle asks for bytes aligned as blocks are, which allocations of bytes are
    /// everywhere.
    ///
    /// # Errors
    /// `unsupported` for a type that candle does not multiply, `invalid_format` for too few or too many bytes, and
    /// `internal` when the device has no room.
    pub(super) fn on(&self, device: &Device) -> Result<QTensor> {
        let dtype = self.dtype()?;
        let blocks = self.shape.iter().product::<usize>() / dtype.block_size();
        let (expected, got) = (blocks * dtype.type_size(), self.bytes.len());
        if got != expected {
            return Err(Error::invalid_format(format!("expected {expected} bytes, got {got}")));
        }
        Ok(QTensor::new(QStorage::from_data((&self.bytes).into(), device, dtype)?, self.shape.as_slice())?)
    }

    fn dtype(&self) -> Result<GgmlDType> {
        Ok(match self.element {
            Element::F32 => GgmlDType::F32,
            Element::F16 => GgmlDType::F16,
            Element::Bf16 => GgmlDType::BF16,
            Element::Blocks(Format::Q4_0) => GgmlDType::Q4_0,
            Element::Blocks(Format::Q4_1) => GgmlDType::Q4_1,
            Element::Blocks(Format::Q5_0) => GgmlDType::Q5_0,
            Element::Blocks(Format::Q5_1) => GgmlDType::Q5_1,
            Element::Blocks(Format::Q8_0) => GgmlDType::Q8_0,
            Element::Blocks(Format::Q2K) => GgmlDType::Q2K,
            Element::Blocks(Format::Q3K) => GgmlDType::Q3K,
            Element::Blocks(Format::Q4K) => GgmlDType::Q4K,
            Element::Blocks(Format::Q5K) => GgmlDType::Q5K,
            Element::Blocks(Format::Q6K) => GgmlDType::Q6K,
            Element::Blocks(Format::Iq4Nl) => {
                let message = "type iq4_nl is not implemented on devices other than the CPU";
                return Err(Error::unsupported(message));
            }
        })
    }
}

/// Weights for `device`.
pub(super) struct OnDevice<'a> {
    pub(super) source: &'a mut dyn TensorSource,
    pub(super) device: &'a Device,
}

impl OnDevice<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize], device: &Device) -> Result<Option<QTensor>> {
        let Some(stored) = self.source.stored(name)? else { return Ok(None) };
        check_shape(name, shape, &stored.shape)?;
        stored.on(device).map(Some).map_err(|e| e.context(format_args!("reading tensor {name}")))
    }
}

impl Weights for OnDevice<'_> {
    type Matrix = Matrix;
    type Vector = Tensor;

    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Option<Matrix>> {
        self.tensor(name, &shape, self.device)?.map(|tensor| Matrix::new(Arc::new(tensor))).transpose()
    }

    fn floats(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.tensor(name, &[len], &Device::Cpu)? else { return Ok(None) };
        Ok(Some(tensor.dequantize(&Device::Cpu)?.to_vec1()?))
    }

    fn vector(&self, values: Vec<f32>) -> Result<Tensor> {
        let len = values.len();
        Ok(Tensor::from_vec(values, len, self.device)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn blocks_arrive_as_they_were_stored() {
        let values = Tensor::arange(0f32, 512.0, &Device::Cpu).unwrap().reshape((2, 256)).unwrap();
        for (element, dtype) in [
            (Element::F32, GgmlDType::F32),
            (Element::F16, GgmlDType::F16),
            (Element::Bf16, GgmlDType::BF16),
            (Element::Blocks(Format::Q4_0), GgmlDType::Q4_0),
            (Element::Blocks(Format::Q4_1), GgmlDType::Q4_1),
            (Element::Blocks(Format::Q5_0), GgmlDType::Q5_0),
            (Element::Blocks(Format::Q5_1), GgmlDType::Q5_1),
            (Element::Blocks(Format::Q8_0), GgmlDType::Q8_0),
            (Element::Blocks(Format::Q2K), GgmlDType::Q2K),
            (Element::Blocks(Format::Q3K), GgmlDType::Q3K),
            (Element::Blocks(Format::Q4K), GgmlDType::Q4K),
            (Element::Blocks(Format::Q5K), GgmlDType::Q5K),
            (Element::Blocks(Format::Q6K), GgmlDType::Q6K),
        ] {
            let file = QTensor::quantize(&values, dtype).unwrap();
            let stored = Stored { element, shape: vec![2, 256], bytes: file.data().unwrap().into_owned() };
            let moved = stored.on(&Device::Cpu).unwrap();
            assert_eq!((moved.dtype(), moved.shape()), (dtype, file.shape()));
            assert_eq!(moved.data().unwrap(), stored.bytes);
        }
    }

    #[test]
    fn what_no_device_takes_is_refused() {
        let stored = |element, bytes| Stored { element, shape: vec![1, 32], bytes: vec![0; bytes] }.on(&Device::Cpu);
        let error = stored(Element::Blocks(Format::Iq4Nl), 18).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        for bytes in [0, 33, 35, 68] {
            let error = stored(Element::Blocks(Format::Q8_0), bytes).unwrap_err();
            let expected = format!("expected 34 bytes, got {bytes}");
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidFormat, expected));
        }
    }
}
