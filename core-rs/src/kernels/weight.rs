//! A weight as the CPU multiplies it: block formats packed in panels of sixteen rows (see `layout`), floats as they lie.
//! Bytes of the file are packed as they come, so that no weight is in memory twice. What was packed once may be kept
//! and handed in again as it is.

use half::{bf16, f16};

use super::blocks::{Format, StoredRows};
use super::dispatch::{Isa, active};
use super::floats::{self, Floats};
use super::layout::{self, PANEL, Shape};
use super::memory::{Held, LINE, Memory, Stored};
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
    stored: Stored,
    isa: Isa,
}

/// What a tensor is, checked.
#[derive(Debug, Clone)]
struct Form {
    shape: Vec<usize>,
    n_rows: usize,
    row_len: usize,
    element: Element,
    /// Bytes of a row in a file.
    row_bytes: usize,
    /// Bytes of all rows as they are multiplied.
    bytes: usize,
}

/// A weight whose bytes are still coming.
#[derive(Debug)]
pub struct Filling {
    form: Form,
    memory: Memory,
    isa: Isa,
    /// Rows that are in their place.
    rows: usize,
    /// Bytes behind them: less than a panel.
    waiting: Vec<u8>,
}

impl Form {
    fn of(element: Element, shape: &[usize]) -> Result<Self> {
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
        Ok(Self { shape: shape.to_vec(), n_rows, row_len, element, row_bytes, bytes: bytes.ok_or_else(too_much)? })
    }

    fn weight(self, stored: Stored, isa: Isa) -> Weight {
        let Self { shape, n_rows, row_len, element, .. } = self;
        Weight { shape, n_rows, row_len, element, stored, isa }
    }
}

impl Weight {
    /// Rows that are best handed in together.
    pub const ROWS_TOGETHER: usize = PANEL;
    /// Raised whenever the same tensor is packed to other bytes than before; a test holds it to that.
    pub const LAYOUT: u32 = 1;
    /// Packed weights that are handed in begin at multiples of it.
    pub const ALIGNMENT: usize = LINE;

    /// Room for a tensor of `shape`, rows last, all of it at once. Its products use the kernels of [`active`].
    ///
    /// # Errors
    /// `invalid_format` when rows are no whole blocks, `unsupported` for more memory than there is.
    pub fn open(element: Element, shape: &[usize]) -> Result<Filling> {
        Self::open_for(active(), element, shape)
    }

    fn open_for(isa: Isa, element: Element, shape: &[usize]) -> Result<Filling> {
        let form = Form::of(element, shape)?;
        let memory = Memory::zeros(form.bytes)?;
        Ok(Filling { form, memory, isa, rows: 0, waiting: Vec::new() })
    }

    /// Bytes that [`Weight::packed`] of such a tensor has.
    ///
    /// # Errors
    /// As [`Weight::open`].
    pub fn packed_len(element: Element, shape: &[usize]) -> Result<usize> {
        Form::of(element, shape).map(|form| form.bytes)
    }

    /// A weight from what [`Weight::packed`] gave with the same [`Weight::LAYOUT`], `at` so many bytes into `held`,
    /// where it stays.
    ///
    /// # Errors
    /// As [`Weight::open`], and `invalid_format` when `held` ends before, or `at` is no multiple of
    /// [`Weight::ALIGNMENT`].
    pub fn from_packed(element: Element, shape: &[usize], held: Held, at: usize) -> Result<Self> {
        let form = Form::of(element, shape)?;
        let stored = Stored::part(held, at..at.saturating_add(form.bytes))?;
        Ok(form.weight(stored, active()))
    }

    /// The bytes that products read, for all instruction sets the same.
    pub fn packed(&self) -> &[u8] {
        self.stored.bytes()
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
        self.packed().len()
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
        &self.packed()[i * len..][..len]
    }

    /// The values of a float weight; none for blocks.
    pub(super) fn floats(&self) -> Floats<'_> {
        let bytes = self.packed();
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
        let missing = (self.form.n_rows - self.rows) * self.form.row_bytes - self.waiting.len();
        let mut bytes = &bytes[..bytes.len().min(missing)];
        let taken = bytes.len();
        while !bytes.is_empty() {
            // Whole panels go to their place as they are, the last one when all of its rows are there.
            let next = (self.form.n_rows - self.rows).min(PANEL) * self.form.row_bytes;
            if self.waiting.is_empty() && bytes.len() >= next {
                let all = bytes.len() / self.form.row_bytes;
                let whole = if self.rows + all == self.form.n_rows { all } else { all / PANEL * PANEL };
                let (rows, rest) = bytes.split_at(whole * self.form.row_bytes);
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
        self.rows == self.form.n_rows
    }

    /// The weight.
    ///
    /// # Errors
    /// `invalid_format` when bytes are missing.
    pub fn finish(self) -> Result<Weight> {
        if self.is_full() {
            return Ok(self.form.weight(Stored::Own(self.memory), self.isa));
        }
        let Form { n_rows, row_bytes, .. } = self.form;
        let (all, got) = (n_rows * row_bytes, self.rows * row_bytes + self.waiting.len());
        Err(Error::invalid_format(format!("reading a weight: expected {all} bytes, got {got}")))
    }

    /// Brings whole rows to their place: a multiple of [`PANEL`], or the last ones.
    fn place(&mut self, rows: &[u8]) {
        let Form { element, row_len: k, row_bytes, .. } = self.form;
        let (first, n, isa) = (self.rows, rows.len() / row_bytes, self.isa);
        self.rows += n;
        let Element::Blocks(format) = element else {
            let at = first * row_bytes;
            self.memory.bytes_mut()[at..at + rows.len()].copy_from_slice(rows);
            return;
        };
        let len = Shape::of(format).panel(k);
        let out = Shared::new(self.memory.bytes_mut());
        Pool::global().run(n.div_ceil(PANEL), &|piece, _| {
            let at = piece * PANEL * row_bytes;
            let bytes = &rows[at..rows.len().min(at + PANEL * row_bytes)];
            let panel = first / PANEL + piece;
            // SAFETY: each piece has a panel of its own.
            let panel = unsafe { out.slice(panel * len..(panel + 1) * len) };
            (isa.kernels().pack)(StoredRows { format, bytes, k }, panel);
        });
    }
}
