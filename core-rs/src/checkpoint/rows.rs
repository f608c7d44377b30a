//! Rows of a tensor as GGUF has them, read out of whatever a publisher stored: turned round, with queries and keys in
//! GGUF's order, joined from slices, with a difference or an adapter added.
//!
//! Nothing is copied beyond the rows asked for, unless a tensor lies in several pieces. Absent: files, names.

use std::borrow::Cow;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::formats::gguf::{GgmlType, TensorInfo};
use crate::formats::stored::Stored;
use crate::quantize;

/// Values of a turned tensor that are gathered at once: their cache lines are read once for all of these rows.
const TILE_ROWS: usize = 128;

/// Where the rows of one tensor come from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// Bytes of a file.
    Stored {
        stored: Stored,
        /// Whether the stored matrix is `[in, out]`.
        turned: bool,
        /// The width of a head, when rows have to be put in GGUF's order.
        rotary: Option<usize>,
    },
    /// Blocks of a GGUF file: file, first byte, number of bytes.
    Blocks { file: usize, start: usize, len: usize },
    /// Bytes that no file has.
    Constant(Vec<u8>),
    /// Two tensors, added value by value; the first may have fewer rows.
    Sum(Box<(TensorInfo, Source)>, Box<(TensorInfo, Source)>),
    /// A tensor and a product of two narrow matrices.
    LowRank { base: Box<Source>, product: LowRank },
}

/// `scale * b · a`: what an adapter adds to a weight.
#[derive(Debug, Clone)]
pub(super) struct LowRank {
    /// `[rank, in]`.
    pub a: Vec<f32>,
    /// `[out, rank]`, rows in the order of the tensor that it is added to.
    pub b: Vec<f32>,
    pub rank: usize,
    pub scale: f32,
}

/// A tensor that is open for reading.
#[derive(Debug)]
pub struct Rows<'a> {
    body: Body<'a>,
    dtype: GgmlType,
    n_rows: usize,
    row_len: usize,
}

#[derive(Debug)]
enum Body<'a> {
    Plain(Cow<'a, [u8]>),
    Reordered { bytes: Cow<'a, [u8]>, column_major: bool, rotary: Option<usize> },
    Sum(Box<Rows<'a>>, Box<Rows<'a>>),
    LowRank { base: Box<Rows<'a>>, product: &'a LowRank },
}

/// Rows and values per row of a shape.
pub(crate) fn row_shape(shape: &[usize]) -> (usize, usize) {
    let row_len = shape.last().copied().unwrap_or(1);
    (shape.iter().product::<usize>().checked_div(row_len).unwrap_or(0), row_len)
}

impl Source {
    /// Counts files from `by` on instead of from 0.
    pub fn shift_files(&mut self, by: usize) {
        match self {
            Self::Constant(_) => {}
            Self::Blocks { file, .. } => *file += by,
            Self::Stored { stored, .. } => stored.pieces.iter_mut().for_each(|piece| piece.file += by),
            Self::Sum(a, b) => [a, b].into_iter().for_each(|part| part.1.shift_files(by)),
            Self::LowRank { base, .. } => base.shift_files(by),
        }
    }

    /// Opens the tensor that `info` describes.
    ///
    /// # Errors
    /// `invalid_format` when stored pieces do not come to the tensor's bytes.
    pub fn open<'a>(&'a self, info: &TensorInfo, files: &[&'a [u8]]) -> Result<Rows<'a>> {
        let (n_rows, row_len) = row_shape(&info.shape);
        let body = match self {
            Self::Constant(bytes) => Body::Plain(Cow::Borrowed(bytes)),
            Self::Blocks { file, start, len } => {
                let bytes = files.get(*file).and_then(|file| file.get(*start..start + len));
                Body::Plain(Cow::Borrowed(
                    bytes.ok_or_else(|| Error::internal(format!("expected {} inside its file", info.name)))?,
                ))
            }
            Self::Stored { stored, turned, rotary } => {
                let (bytes, column_major) = (stored.bytes(files)?, stored.column_major != *turned);
                match (column_major, rotary) {
                    (false, None) => Body::Plain(bytes),
                    _ => Body::Reordered { bytes, column_major, rotary: *rotary },
                }
            }
            Self::Sum(a, b) => Body::Sum(Box::new(a.1.open(&a.0, files)?), Box::new(b.1.open(&b.0, files)?)),
            Self::LowRank { base, product } => Body::LowRank { base: Box::new(base.open(info, files)?), product },
        };
        Ok(Rows { body, dtype: info.dtype, n_rows, row_len })
    }
}

impl Rows<'_> {
    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Values in a row.
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// How values are stored.
    pub fn dtype(&self) -> GgmlType {
        self.dtype
    }

    /// Bytes of a row as stored.
    pub fn row_bytes(&self) -> usize {
        self.row_len / self.dtype.block_size() * self.dtype.type_size()
    }

    /// The stored form of `rows`, where it lies in a file just so.
    pub fn stored(&self, rows: Range<usize>) -> Option<&[u8]> {
        let Body::Plain(bytes) = &self.body else { return None };
        Some(&bytes[rows.start * self.row_bytes()..rows.end * self.row_bytes()])
    }

    /// Writes the stored form of `rows` to `out`, which is exactly as long.
    ///
    /// # Errors
    /// `invalid_format` when values to be added cannot be stored.
    pub fn read(&self, rows: Range<usize>, out: &mut [u8]) -> Result<()> {
        let row_bytes = self.row_bytes();
        match &self.body {
            Body::Plain(bytes) => out.copy_from_slice(&bytes[rows.start * row_bytes..rows.end * row_bytes]),
            Body::Reordered { bytes, column_major: false, rotary } => {
                for (to, row) in out.chunks_exact_mut(row_bytes).zip(rows) {
                    to.copy_from_slice(&bytes[stored_row(row, *rotary) * row_bytes..][..row_bytes]);
                }
            }
            Body::Reordered { bytes, column_major: true, rotary } => match self.dtype.type_size() {
                2 => gather::<2>(bytes, rows, *rotary, (self.n_rows, self.row_len), out),
                _ => gather::<4>(bytes, rows, *rotary, (self.n_rows, self.row_len), out),
            },
            Body::Sum(..) | Body::LowRank { .. } => {
                let mut values = vec![0.0; rows.len() * self.row_len];
                self.read_f32(rows.clone(), &mut values)?;
                quantize::rows(self.dtype, &values, self.row_len, rows.start, out)?;
            }
        }
        Ok(())
    }

    /// Writes the values of `rows` to `out`, which is exactly as long.
    ///
    /// # Errors
    /// As [`Rows::read`].
    pub fn read_f32(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        match &self.body {
            Body::Sum(a, b) => {
                let both = rows.start.min(a.n_rows)..rows.end.min(a.n_rows);
                let (there, beyond) = out.split_at_mut(both.len() * self.row_len);
                a.read_f32(both, there)?;
                beyond.fill(0.0);
                let mut more = vec![0.0; out.len()];
                b.read_f32(rows, &mut more)?;
                out.iter_mut().zip(more).for_each(|(x, y)| *x += y);
                Ok(())
            }
            Body::LowRank { base, product } => {
                base.read_f32(rows.clone(), out)?;
                out.chunks_exact_mut(self.row_len).zip(rows).for_each(|(out, row)| product.add(row, out));
                Ok(())
            }
            Body::Plain(bytes) => {
                let row_bytes = self.row_bytes();
                quantize::dequantize(self.dtype, &bytes[rows.start * row_bytes..rows.end * row_bytes], out)
            }
            Body::Reordered { .. } => {
                let mut stored = vec![0; rows.len() * self.row_bytes()];
                self.read(rows, &mut stored)?;
                quantize::dequantize(self.dtype, &stored, out)
            }
        }
    }
}

impl LowRank {
    /// Adds row `row` of the product to `out`.
    fn add(&self, row: usize, out: &mut [f32]) {
        let b = &self.b[row * self.rank..][..self.rank];
        for (b, a) in b.iter().zip(self.a.chunks_exact(out.len())) {
            let factor = b * self.scale;
            out.iter_mut().zip(a).for_each(|(out, a)| *out += factor * a);
        }
    }
}

/// Where a publisher has the row that GGUF has at `row`. GGUF rotates neighbours (2i, 2i + 1) of a head, Hugging Face
/// the halves (i, i + width / 2).
pub(super) fn stored_row(row: usize, rotary: Option<usize>) -> usize {
    let Some(head_dim) = rotary else { return row };
    let (head, at) = (row / head_dim, row % head_dim);
    head * head_dim + at % 2 * (head_dim / 2) + at / 2
}

/// The inverse of [`stored_row`]: where GGUF has the row that a publisher has at `row`.
pub(crate) fn gguf_row(row: usize, rotary: Option<usize>) -> usize {
    let Some(head_dim) = rotary else { return row };
    let (head, at) = (row / head_dim, row % head_dim);
    head * head_dim + at % (head_dim / 2) * 2 + at / (head_dim / 2)
}

/// Rows of a matrix `[n_rows, row_len]` whose bytes lie column after column, for values of `N` bytes.
fn gather<const N: usize>(
    bytes: &[u8],
    rows: Range<usize>,
    rotary: Option<usize>,
    (n_rows, row_len): (usize, usize),
    out: &mut [u8],
) {
    let (values, _) = bytes.as_chunks::<N>();
    let (out, _) = out.as_chunks_mut::<N>();
    for (tile, first) in out.chunks_mut(TILE_ROWS * row_len).zip(rows.step_by(TILE_ROWS)) {
        let height = tile.len() / row_len;
        for column in 0..row_len {
            let column_values = &values[column * n_rows..][..n_rows];
            for at in 0..height {
                tile[at * row_len + column] = column_values[stored_row(first + at, rotary)];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::stored::{Element, Encoding, Piece};

    const SHAPE: [usize; 2] = [40, 3];

    fn info(dtype: GgmlType) -> TensorInfo {
        let len = 120 * dtype.type_size();
        TensorInfo { name: "t".into(), dtype, shape: SHAPE.to_vec(), offset: 0, len }
    }

    /// Values 0, 1, 2 … in f32 of a stored matrix of this shape.
    fn file() -> Vec<u8> {
        (0..120).flat_map(|i| (i as f32).to_le_bytes()).collect()
    }

    fn stored(shape: [usize; 2], column_major: bool, cuts: &[usize]) -> Stored {
        let ends = cuts.windows(2).map(|cut| Piece { file: 0, range: cut[0]..cut[1], encoding: Encoding::Raw });
        Stored {
            name: "t".into(),
            element: Element::Ggml(GgmlType::F32),
            shape: shape.to_vec(),
            column_major,
            pieces: ends.collect(),
        }
    }

    fn values(source: &Source, rows: Range<usize>) -> Vec<f32> {
        let file = file();
        let info = info(GgmlType::F32);
        let open = source.open(&info, &[&file]).unwrap();
        let (mut bytes, mut floats) = (vec![0; rows.len() * 12], vec![0.0; rows.len() * 3]);
        open.read(rows.clone(), &mut bytes).unwrap();
        open.read_f32(rows, &mut floats).unwrap();
        assert_eq!(bytes, floats.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
        floats
    }

    #[test]
    fn rows_as_they_lie_and_in_pieces() {
        for cuts in [&[0, 480][..], &[0, 7, 480]] {
            let source = Source::Stored { stored: stored(SHAPE, false, cuts), turned: false, rotary: None };
            assert_eq!(values(&source, 2..4), [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        }
    }

    #[test]
    fn turned_rows_are_columns() {
        // [in, out] row after row, or [out, in] column after column: the same bytes.
        for (shape, column_major, turned) in [([3, 40], false, true), (SHAPE, true, false)] {
            let source = Source::Stored { stored: stored(shape, column_major, &[0, 480]), turned, rotary: None };
            assert_eq!(values(&source, 39..40), [39.0, 79.0, 119.0]);
            let all = values(&source, 0..40);
            assert!((0..40).all(|r| (0..3).all(|c| all[r * 3 + c] == (c * 40 + r) as f32)));
        }
        let twice = Source::Stored { stored: stored([3, 40], true, &[0, 480]), turned: true, rotary: None };
        assert_eq!(values(&twice, 1..2), [3.0, 4.0, 5.0]);
    }

    #[test]
    fn halves_of_a_head_become_neighbours() {
        let order: Vec<_> = (0..8).map(|row| stored_row(row, Some(4))).collect();
        assert_eq!(order, [0, 2, 1, 3, 4, 6, 5, 7]);
        assert!((0..96).all(|row| gguf_row(stored_row(row, Some(24)), Some(24)) == row));
        for (shape, turned) in [(SHAPE, false), ([3, 40], true)] {
            let stored = stored(shape, false, &[0, 480]);
            let plain = values(&Source::Stored { stored: stored.clone(), turned, rotary: None }, 0..40);
            let rotary = values(&Source::Stored { stored, turned, rotary: Some(8) }, 0..40);
            for row in 0..40 {
                assert_eq!(rotary[row * 3..][..3], plain[stored_row(row, Some(8)) * 3..][..3]);
            }
        }
    }

    #[test]
    fn sums_and_products_are_added_in_single_precision() {
        let plain =
            || Box::new(Source::Stored { stored: stored(SHAPE, false, &[0, 480]), turned: false, rotary: None });
        let part = |rows| Box::new((TensorInfo { shape: vec![rows, 3], ..info(GgmlType::F32) }, *plain()));
        assert_eq!(values(&Source::Sum(part(40), part(40)), 1..2), [6.0, 8.0, 10.0]);
        // Rows that only the delta has are added to nothing.
        let grown = Source::Sum(part(1), part(40));
        assert_eq!(values(&grown, 0..2), [0.0, 2.0, 4.0, 3.0, 4.0, 5.0]);
        assert_eq!(values(&grown, 2..3), [6.0, 7.0, 8.0]);
        let mut b = vec![0.0; 80];
        b[2..4].copy_from_slice(&[1.0, 10.0]);
        let product = LowRank { a: vec![1.0, 2.0, 3.0, 0.5, 0.0, -0.5], b, rank: 2, scale: 2.0 };
        let source = Source::LowRank { base: plain(), product };
        assert_eq!(values(&source, 0..2), [0.0, 1.0, 2.0, 3.0 + 12.0, 4.0 + 4.0, 5.0 - 4.0]);
    }
}
