//! Which element types of a file are multiplied, and room for their tensors.

use crate::error::{Error, Result};
use crate::formats::gguf::{GgmlType, TensorInfo};
use crate::kernels::{Element, Filling, Format, Weight};

/// Room for `info`, all of it at once; its bytes are put in their place as they come.
///
/// # Errors
/// `unsupported` for a type without arithmetic, and for more memory than there is.
pub fn open(info: &TensorInfo) -> Result<Filling> {
    Weight::open(element(info)?, &info.shape).map_err(|e| e.context(format_args!("tensor {}", info.name)))
}

/// How `info` is stored.
///
/// # Errors
/// `unsupported` for a type without arithmetic.
pub fn element(info: &TensorInfo) -> Result<Element> {
    Ok(match info.dtype {
        GgmlType::F32 => Element::F32,
        GgmlType::F16 => Element::F16,
        GgmlType::BF16 => Element::Bf16,
        GgmlType::Q4_0 => Element::Blocks(Format::Q4_0),
        GgmlType::Q4_1 => Element::Blocks(Format::Q4_1),
        GgmlType::Q5_0 => Element::Blocks(Format::Q5_0),
        GgmlType::Q5_1 => Element::Blocks(Format::Q5_1),
        GgmlType::Q8_0 => Element::Blocks(Format::Q8_0),
        GgmlType::IQ4NL => Element::Blocks(Format::Iq4Nl),
        GgmlType::Q2K => Element::Blocks(Format::Q2K),
        GgmlType::Q3K => Element::Blocks(Format::Q3K),
        GgmlType::Q4K => Element::Blocks(Format::Q4K),
        GgmlType::Q5K => Element::Blocks(Format::Q5K),
        GgmlType::Q6K => Element::Blocks(Format::Q6K),
        GgmlType::Q8_1 | GgmlType::Q8K => {
            let known = "f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, iq4_nl and q2_k to q6_k";
            let message =
                format!("tensor {}: type {} is not implemented; known are {known}", info.name, info.dtype.name());
            return Err(Error::unsupported(message));
        }
    })
}
