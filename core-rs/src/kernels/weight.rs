//! A weight as the CPU multiplies it: block formats packed in panels of sixteen rows (see `layout`), floats as they lie.
//! Bytes of the file are packed as they come, so that no weight is in memory twice.

use half::{bf16, f16};

use super::blocks::{Format, StoredRows};
use super::dispatch::{Isa, active};
use super::floats::{self, Floats};
use super::layout::{self, PANEL, Shape};
use super::memory::Memory;
use super::parallel::Shared;
use super::pool::Pool;
use crate::error::{Error, Result};

/// How values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of IEEE single precision.
    Bf16,
    /// Quantised blocks.
    Blocks(Format),
}

impl Element {
    /// Bytes of `row_len` values; none when they do not fill whole blocks.
    fn row_bytes(self, row_len: usize) -> Option<usize> {
        match self {
            Self::F32 => row_len.checked_mul(4),
            Self::F16 | Self::Bf16 => row_len.checked_mul(2),
            Self::Blocks(format) => row_len.is_multiple_of(format.stored_values()).then(|| format.row_bytes(row_len)),
        }
    }
}

/// A tensor of weights in memory. Immutable.
#[derive(Debug)]
pub struct Weight {
    shape: Vec<usize>,
    n_rows: usize,
    row_len: usize,
    element: Element,
    memory: Memory,
    isa: Isa,
}

/// A weight whose bytes are still coming.
#[derive(Debug)]
pub struct Filling {
    weight: Weight,
    /// Bytes of a row as stored.
    row_bytes: usize,
    /// Rows that are in their place.
    rows: usize,
    /// Bytes behind them: less than a panel.
    waiting: Vec<u8>,
}

impl Weight {
    /// Rows that are best handed in together.
    pub const ROWS_TOGETHER: usize = PANEL;

    /// Room for a tensor of `shape`, rows last, all of it at once. Its products use the kernels of [`active`].
    ///
    /// # Errors
    /// `invalid_format` when rows are no whole blocks, `unsupported` for more memory than there is.
    pub fn open(element: Element, shape: &[usize]) -> Result<Filling> {
        Self::open_for(active(), element, shape)
    }

    fn open_for(isa: Isa, element: Element, shape: &[usize]) -> Result<Filling> {
        let row_len = shape.last().copied().unwrap_or(1);
        let n_rows = shape.iter().rev().skip(1).product::<usize>();
        let Some(row_bytes) = element.row_bytes(row_len).filter(|&bytes| bytes > 0 && n_rows > 0) else {
            let message = format!("making room for a weight: expected rows of whole blocks, got {shape:?}");
            return Err(Error::invalid_format(message));
        };
        let bytes = match element {
            Element::Blocks(format) => n_rows.div_ceil(PANEL).checked_mul(Shape::of(format).panel(row_len)),
            _ => n_rows.checked_mul(row_bytes),
        };
        let too_much = || Error::unsupported(format!("expected a weight that fits into memory, got shape {shape:?}"));
        let memory = Memory::zeros(bytes.ok_or_else(too_much)?)?;
        let weight = Self { shape: shape.to_vec(), n_rows, row_len, element, memory, isa };
        Ok(Filling { weight, row_bytes, rows: 0, waiting: Vec::new() })
    }

    /// A weight from all of its bytes at once, with kernels of a named instruction set.
    #[cfg(test)]
    pub(crate) fn of(isa: Isa, element: Element, shape: &[usize], bytes: &[u8]) -> Result<Self> {
        let mut filling = Self::open_for(isa, element, shape)?;
        filling.push(bytes);
        filling.finish()
    }

    /// Its shape, rows last.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Length of an output row.
    pub(crate) fn n_out(&self) -> usize {
        self.n_rows
    }

    /// Length of an input row.
    pub(crate) fn n_in(&self) -> usize {
        self.row_len
    }

    /// Bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        self.memory.bytes().len()
    }

    /// Writes the values of row `i` to `out`, which is exactly as long.
    pub(crate) fn row(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.n_rows && out.len() == self.row_len, "row {i} of {:?}", self.shape);
        if let Element::Blocks(format) = self.element {
            return layout::unpack_row(format, self.panel(format, i / PANEL), i % PANEL, out);
        }
        match self.floats() {
            Floats::F32(values) => out.copy_from_slice(&values[i * self.row_len..][..self.row_len]),
            Floats::F16(values) => floats::widen(&values[i * self.row_len..][..self.row_len], out),
            Floats::Bf16(values) => floats::widen(&values[i * self.row_len..][..self.row_len], out),
        }
    }

    /// All values.
    pub(crate) fn values(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.n_rows * self.row_len];
        out.chunks_exact_mut(self.row_len).enumerate().for_each(|(i, row)| self.row(i, row));
        out
    }

    pub(super) fn element(&self) -> Element {
        self.element
    }

    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// Panel `i` of packed rows.
    pub(super) fn panel(&self, format: Format, i: usize) -> &[u8] {
        let len = Shape::of(format).panel(self.row_len);
        &self.memory.bytes()[i * len..][..len]
    }

    /// The values of a float weight; none for blocks.
    pub(super) fn floats(&self) -> Floats<'_> {
        let bytes = self.memory.bytes();
        // SAFETY: memory begins on a cache line and holds whole numbers, of which all bits are values.
        unsafe {
            match self.element {
                Element::F16 => Floats::F16(bytes.align_to::<f16>().1),
                Element::Bf16 => Floats::Bf16(bytes.align_to::<bf16>().1),
                Element::F32 | Element::Blocks(_) => Floats::F32(bytes.align_to::<f32>().1),
            }
        }
    }
}

impl Filling {
    /// Takes the next bytes and returns how many it took: all, or what was missing.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let missing = (self.weight.n_rows - self.rows) * self.row_bytes - self.waiting.len();
        let mut bytes = &bytes[..bytes.len().min(missing)];
        let taken = bytes.len();
        while !bytes.is_empty() {
            // Whole panels go to their place as they are, the last one when all of its rows are there.
            let next = (self.weight.n_rows - self.rows).min(PANEL) * self.row_bytes;
            if self.waiting.is_empty() && bytes.len() >= next {
                let all = bytes.len() / self.row_bytes;
                let whole = if self.rows + all == self.weight.n_rows { all } else { all / PANEL * PANEL };
                let (rows, rest) = bytes.split_at(whole * self.row_bytes);
                self.place(rows);
                bytes = rest;
            } else {
                let (some, rest) = bytes.split_at(bytes.len().min(next - self.waiting.len()));
                self.waiting.extend_from_slice(some);
                bytes = rest;
                if self.waiting.len() == next {
                    let rows = std::mem::take(&mut self.waiting);
                    self.place(&rows);
                    self.waiting = rows;
                    self.waiting.clear();
                }
            }
        }
        taken
    }

    /// Whether no byte is missing.
    pub fn is_full(&self) -> bool {
        self.rows == self.weight.n_rows
    }

    /// The weight.
    ///
    /// # Errors
    /// `invalid_format` when bytes are missing.
    pub fn finish(self) -> Result<Weight> {
        if self.is_full() {
            return Ok(self.weight);
        }
        let (all, got) = (self.weight.n_rows * self.row_bytes, self.rows * self.row_bytes + self.waiting.len());
        Err(Error::invalid_format(format!("reading a weight: expected {all} bytes, got {got}")))
    }

    /// Brings whole rows to their place: a multiple of [`PANEL`], or the last ones.
    fn place(&mut self, rows: &[u8]) {
        let (first, n) = (self.rows, rows.len() / self.row_bytes);
        self.rows += n;
        let Weight { element, row_len: k, isa, .. } = self.weight;
        let Element::Blocks(format) = element else {
            let at = first * self.row_bytes;
            self.weight.memory.bytes_mut()[at..at + rows.len()].copy_from_slice(rows);
            return;
        };
        let len = Shape::of(format).panel(k);
        let out = Shared::new(self.weight.memory.bytes_mut());
        Pool::global().run(n.div_ceil(PANEL), &|piece, _| {
            let at = piece * PANEL * self.row_bytes;
            let bytes = &rows[at..rows.len().min(at + PANEL * self.row_bytes)];
            let panel = first / PANEL + piece;
            // SAFETY: each piece has a panel of its own.
            let panel = unsafe { out.slice(panel * len..(panel + 1) * len) };
            (isa.kernels().pack)(StoredRows { format, bytes, k }, panel);
        });
    }
}
