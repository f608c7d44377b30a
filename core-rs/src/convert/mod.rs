//! A checkpoint written down again: as a GGUF file of another type, or as a folder of safetensors.
//!
//! A [`Plan`] knows every byte's place before the first is written, so that space can be checked, progress told and a
//! broken run taken up at the tensor where it stopped. Memory stays within [`WINDOW_BYTES`] and a tensor's pieces.
//! Absent: the file system (a [`Sink`] is handed in).

mod gguf;
mod safetensors;

use std::ops::Range;

pub use self::gguf::plan as plan_gguf;
pub use self::safetensors::plan as plan_safetensors;

use crate::checkpoint::{Checkpoint, Rows, gguf_row};
use crate::error::Result;
use crate::formats::gguf::GgmlType;
use crate::kernels;
use crate::quantize;

/// Bytes of output that are made at once by all threads, then written.
pub const WINDOW_BYTES: usize = 64 << 20;
/// Bytes of output that one thread makes at a time: enough to be worth handing out.
const TASK_BYTES: usize = 1 << 20;

/// What will be written.
#[derive(Debug)]
pub struct Plan {
    /// The files of weights, in order.
    pub files: Vec<WeightFile>,
    /// Small files beside them: name and content.
    pub companions: Vec<(String, Vec<u8>)>,
}

/// One file of weights.
#[derive(Debug)]
pub struct WeightFile {
    /// Its name; empty when the whole output is this file.
    pub name: String,
    /// Everything in front of the first tensor.
    pub head: Vec<u8>,
    /// In the order of their bytes.
    pub tensors: Vec<WeightTensor>,
    /// Bytes of the whole file.
    pub len: u64,
}

/// One tensor of a file.
#[derive(Debug, Clone)]
pub struct WeightTensor {
    /// Its index in the checkpoint's head.
    index: usize,
    /// How it will be stored.
    pub dtype: GgmlType,
    /// First byte in the file; zeros fill what is between two tensors.
    pub start: u64,
    /// Number of bytes.
    pub len: u64,
    /// The width of a head, when rows are put back into Hugging Face's order.
    rotary: Option<usize>,
}

/// Where bytes go.
pub trait Sink {
    /// Takes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// All bytes up to the end of this tensor (by its index in the file) have been handed over.
    fn tensor_done(&mut self, tensor: usize) -> Result<()>;
}

impl Plan {
    /// Bytes of everything.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum::<u64>()
            + self.companions.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>()
    }
}

impl WeightFile {
    /// Bytes that lie in front of tensor `tensor` once those before it are written.
    pub fn position(&self, tensor: usize) -> u64 {
        match tensor {
            0 => 0,
            _ => self.tensors[tensor - 1].start + self.tensors[tensor - 1].len,
        }
    }

    /// Writes the file from tensor `from` on; from 0 means with its head. `written` is told the bytes after each window.
    ///
    /// # Errors
    /// What the checkpoint's rows, the quantiser, `sink` or `written` return.
    pub fn write(
        &self,
        checkpoint: &Checkpoint,
        from: usize,
        sink: &mut dyn Sink,
        written: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let mut at = self.position(from);
        if from == 0 {
            sink.write(&self.head)?;
            at = self.head.len() as u64;
        }
        let mut window = Vec::new();
        for (i, tensor) in self.tensors.iter().enumerate().skip(from) {
            pad(sink, tensor.start - at)?;
            let name = &checkpoint.head().tensors[tensor.index].name;
            let rows = checkpoint.rows(tensor.index).map_err(|e| e.context(name))?;
            let encoder = Encoder { rows, dtype: tensor.dtype, rotary: tensor.rotary };
            for some in encoder.windows() {
                encoder.encode(some, &mut window).map_err(|e| e.context(name))?;
                sink.write(&window)?;
                written(window.len() as u64)?;
            }
            at = tensor.start + tensor.len;
            sink.tensor_done(i)?;
        }
        pad(sink, self.len - at)
    }
}

fn pad(sink: &mut dyn Sink, bytes: u64) -> Result<()> {
    if bytes == 0 { Ok(()) } else { sink.write(&vec![0; bytes as usize]) }
}

/// Rows of one tensor on their way to another type.
struct Encoder<'a> {
    rows: Rows<'a>,
    dtype: GgmlType,
    rotary: Option<usize>,
}

impl Encoder<'_> {
    fn row_bytes(&self) -> usize {
        self.rows.row_len() / self.dtype.block_size() * self.dtype.type_size()
    }

    /// Ranges of rows, each about a window of output.
    fn windows(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (n, step) = (self.rows.n_rows(), (WINDOW_BYTES / self.row_bytes().max(1)).max(1));
        (0..n).step_by(step).map(move |first| first..n.min(first + step))
    }

    /// Fills `out` with `rows`, on all threads.
    fn encode(&self, rows: Range<usize>, out: &mut Vec<u8>) -> Result<()> {
        let row_bytes = self.row_bytes();
        out.resize(rows.len() * row_bytes, 0);
        let height = (TASK_BYTES / row_bytes.max(1)).max(1);
        kernels::try_for_each_chunk(out, height * row_bytes, |i, out| {
            let first = rows.start + i * height;
            self.encode_some(first..first + out.len() / row_bytes, out)
        })
    }

    fn encode_some(&self, rows: Range<usize>, out: &mut [u8]) -> Result<()> {
        if self.rotary.is_none() && self.dtype == self.rows.dtype() {
            return self.rows.read(rows, out);
        }
        let first = rows.start;
        let mut values = vec![0.0; rows.len() * self.rows.row_len()];
        match self.rotary {
            None => self.rows.read_f32(rows, &mut values)?,
            Some(_) => {
                for (row, out) in rows.zip(values.chunks_exact_mut(self.rows.row_len())) {
                    let row = gguf_row(row, self.rotary);
                    self.rows.read_f32(row..row + 1, out)?;
                }
            }
        }
        quantize::rows(self.dtype, &values, self.rows.row_len(), first, out)
    }
}
