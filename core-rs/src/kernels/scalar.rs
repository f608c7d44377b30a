//! The truth for dot products with stored weights, in the plainest form; every other kernel is tested against it.

use super::blocks::{Row, Rows};
use super::dispatch::{Kernels, Products};
use super::floats::{self, Floats, Piece, Stored};
use super::vector;

pub(super) static KERNELS: Kernels = Kernels {
    name: "scalar",
    quantize: |values, rows| rows.quantize(values),
    unpack: |format, bytes, rows| rows.unpack(format, bytes),
    panel,
    floats,
    attend: |head, out| vector::attend(head, out, vector::dots),
    swiglu: |gate, up, out| vector::swiglu(gate, up, out),
};

/// Dot products of a panel's rows with `out.len()` rows of `x`, from row `first` on.
fn panel(w: &Rows<u8>, x: &Rows<i8>, first: usize, out: &mut [Products]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = std::array::from_fn(|r| dot(w.row(r), x.row(first + i)));
    }
}

/// Sum over blocks, in order, of both products. Padding beyond the last block is not looked at.
pub(super) fn dot(w: Row<'_, u8>, x: Row<'_, i8>) -> f32 {
    let mut sum = 0.0;
    for (b, (wq, xq)) in w.q.iter().zip(x.q).enumerate() {
        let product: i32 = wq.iter().zip(xq).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
        sum += w.scale[b] * x.scale[b] * product as f32 + w.side[b] * x.side[b];
    }
    sum
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
