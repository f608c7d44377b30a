//! The kernels for any CPU, and the truth for the others: the one form on `simd`'s portable registers.

use super::dispatch::{Kernels, products};
use super::floats::{self, Floats, Piece};
use super::simd::Portable;
use super::{activations, attend, layout, vector};

pub(super) static KERNELS: Kernels = Kernels {
    name: "scalar",
    #[cfg(target_arch = "x86_64")]
    avx2: false,
    pack: layout::pack,
    quantize: activations::quantize_plain,
    product: products!(product, Portable, 2, 2),
    floats,
    // SAFETY: any CPU will do.
    attend: |job, scratch, gathered| unsafe { attend::attend::<Portable, 4, 2>(job, scratch, gathered) },
    swiglu: vector::swiglu,
};

/// Products of a piece for each token. WebAssembly's too: the compiler makes vectors of these loops.
pub(super) fn floats(piece: &Piece<'_>, scratch: &mut [f32], out: &mut [[f32; floats::PANEL_ROWS]]) {
    let rows = match piece.weights {
        Floats::F32(weights) => piece.rows(weights),
        Floats::F16(weights) => floats::widened(piece.rows(weights), scratch, floats::widen),
        Floats::Bf16(weights) => floats::widened(piece.rows(weights), scratch, floats::widen),
    };
    for (i, out) in out.iter_mut().enumerate() {
        *out = rows.map(|row| vector::dot(row, piece.token(i)));
    }
}
