//! The truth for dot products with stored weights, in the plainest form; every other kernel is tested against it.

use std::ops::Range;

use super::blocks::{BLOCK, Row, Rows, StoredRows};
use super::dispatch::{ALL_FORMATS, Kernels, Scratch};
use super::floats::{self, Floats, Piece, Stored};
use super::vector;

pub(super) static KERNELS: Kernels = Kernels {
    name: "scalar",
    formats: ALL_FORMATS,
    panel_rows: 1,
    quantize: |values, k, rows| rows.quantize(values, k),
    product,
    floats,
    attend: |head, out| vector::attend(head, out, vector::dots),
    swiglu: |gate, up, out| vector::swiglu(gate, up, out),
};

fn product(scratch: &mut Scratch, stored: StoredRows<'_>, x: &Rows<i8>, tokens: Range<usize>, out: &mut [f32]) {
    scratch.rows.unpack(stored);
    let w = scratch.rows.row(0);
    for (token, out) in tokens.zip(out) {
        *out =
            if stored.format.halves() { half_dot(w, x.row(token), x.half_sides(token)) } else { dot(w, x.row(token)) };
    }
}

/// Sum over blocks, in order, of both products.
pub(super) fn dot(w: Row<'_, u8>, x: Row<'_, i8>) -> f32 {
    let mut sum = 0.0;
    for (b, (wq, xq)) in w.q.iter().zip(x.q).enumerate() {
        sum += w.scale[b] * x.scale[b] * integer_dot(wq, xq) as f32;
        sum += w.side[b] * x.side[b];
    }
    sum
}

/// As [`dot`], half a block at a time.
pub(super) fn half_dot(w: Row<'_, u8>, x: Row<'_, i8>, sides: &[[f32; 2]]) -> f32 {
    const HALF: usize = BLOCK / 2;
    let mut sum = 0.0;
    for (b, (wq, xq)) in w.q.iter().zip(x.q).enumerate() {
        for (h, side) in sides[b].iter().enumerate() {
            let product = integer_dot(&wq[h * HALF..][..HALF], &xq[h * HALF..][..HALF]);
            sum += w.scale[2 * b + h] * x.scale[b] * product as f32;
            sum += w.side[2 * b + h] * side;
        }
    }
    sum
}

fn integer_dot(w: &[u8], x: &[i8]) -> i32 {
    w.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum()
}

/// Products of a piece for each token. WebAssembly's too: the compiler makes vectors of these loops.
pub(super) fn floats(piece: &Piece<'_>, scratch: &mut [f32], out: &mut [[f32; floats::PANEL_ROWS]]) {
    let rows = match piece.weights {
        Floats::F32(weights) => piece.rows(weights),
        Floats::F16(weights) => floats::widened(piece.rows(weights), scratch, widen),
        Floats::Bf16(weights) => floats::widened(piece.rows(weights), scratch, widen),
    };
    for (i, out) in out.iter_mut().enumerate() {
        *out = rows.map(|row| vector::dot(row, piece.token(i)));
    }
}

fn widen<T: Stored>(from: &[T], to: &mut [f32]) {
    from.iter().zip(to).for_each(|(from, to)| *to = from.widen());
}
