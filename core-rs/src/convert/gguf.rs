//! One GGUF file, laid out: llama.cpp opens it, and so do we.

use super::{Plan, WeightFile, WeightTensor};
use crate::checkpoint::{Checkpoint, row_shape};
use crate::error::{Error, Result};
use crate::formats::gguf::{self, Metadata, NewTensor, TensorInfo, Value};
use crate::quantize::{FileType, ModelShape, QUANTIZATION_VERSION, tensor_type};

/// Keys that describe the file and not the model: they are written anew.
const OF_THE_FILE: [&str; 3] = ["general.file_type", "general.quantization_version", "general.alignment"];

/// Lays out `checkpoint` as one file whose weights have `file_type`.
///
/// # Errors
/// `unsupported` when GGUF cannot carry its vocabulary; as [`Checkpoint::plan`] when its numbers do not fit together.
pub fn plan(checkpoint: &Checkpoint, file_type: FileType) -> Result<Plan> {
    if let Some(reason) = &checkpoint.origin().not_portable {
        return Err(Error::unsupported(format!("converting to GGUF: {reason}")));
    }
    let shape = shape(checkpoint)?;
    let head = checkpoint.head();
    let typed = |info: &TensorInfo| NewTensor {
        name: info.name.clone(),
        dtype: tensor_type(file_type, &info.name, &info.shape, &shape),
        shape: info.shape.clone(),
    };
    let new: Vec<_> = head.tensors.iter().map(typed).collect();
    let header = gguf::write_header(&metadata(&head.metadata, file_type)?, &new)?;
    let place = |((index, info), &start): ((usize, &NewTensor), &usize)| {
        let (n_rows, row_len) = row_shape(&info.shape);
        let len = info.dtype.byte_len(row_len as u64, n_rows as u64);
        let len = len.ok_or_else(|| Error::internal(format!("expected {} to fill blocks", info.name)))?;
        Ok(WeightTensor { index, dtype: info.dtype, start: start as u64, len, rotary: None })
    };
    let tensors = new.iter().enumerate().zip(&header.offsets).map(place).collect::<Result<_>>()?;
    let file = WeightFile { name: String::new(), head: header.bytes, tensors, len: header.file_len as u64 };
    Ok(Plan { files: vec![file], companions: Vec::new() })
}

fn shape(checkpoint: &Checkpoint) -> Result<ModelShape> {
    let plan = checkpoint.plan(None)?;
    let config = plan.config();
    Ok(ModelShape {
        n_layer: config.n_layer,
        n_head: config.n_head,
        n_head_kv: config.n_head_kv,
        n_expert: 0,
        tied: checkpoint.head().tensor("output.weight").is_none(),
    })
}

fn metadata(of_model: &Metadata, file_type: FileType) -> Result<Metadata> {
    let mut metadata = Metadata::new();
    for (key, value) in of_model.iter().filter(|(key, _)| !OF_THE_FILE.contains(key)) {
        metadata.insert(key.to_owned(), value.clone())?;
    }
    metadata.insert("general.file_type".into(), Value::U32(file_type.id()))?;
    metadata.insert("general.quantization_version".into(), Value::U32(QUANTIZATION_VERSION))?;
    Ok(metadata)
}
