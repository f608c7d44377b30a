//! AVX2 forms of the kernels. Only the dot product is written by hand: the other loops are the portable bodies,
//! compiled again with the wider instructions.
//!
//! Every function here carries `#[target_feature]`; [`detect`] is the one way to reach them, so each table entry's
//! condition, a CPU with AVX2 and FMA, holds by construction.

use std::arch::x86_64::*;

use super::blocks::{self, BLOCK, Format, LANES, Row, RowMut, Rows};
use super::dispatch::{Kernels, PANEL_ROWS};
use super::vector::{self, Head};

/// Tokens multiplied at once: with two weight rows that is eight accumulators.
const PANEL_TOKENS: usize = 4;

/// The AVX2 kernels, if this CPU has AVX2 and FMA.
pub(super) fn detect() -> Option<&'static Kernels> {
    (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(&AVX2)
}

/// Private to this file, so that [`detect`] stays the only way in.
static AVX2: Kernels = Kernels {
    name: "avx2",
    // SAFETY (all entries): `detect` hands out this table only after finding avx2 and fma.
    quantize: |values, row| unsafe { quantize(values, row) },
    // SAFETY: as above.
    unpack: |format, bytes, row| unsafe { unpack(format, bytes, row) },
    // SAFETY: as above.
    panel: |w, x, first, out| unsafe { panel(w, x, first, out) },
    // SAFETY: as above.
    attend: |head, out| unsafe { attend(head, out) },
    // SAFETY: as above.
    swiglu: |gate, up, out| unsafe { swiglu(gate, up, out) },
};

#[target_feature(enable = "avx2")]
fn quantize(values: &[f32], row: RowMut<'_, i8>) {
    blocks::quantize(values, row);
}

#[target_feature(enable = "avx2")]
fn unpack(format: Format, bytes: &[u8], row: RowMut<'_, u8>) {
    format.unpack(bytes, row);
}

#[target_feature(enable = "avx2")]
fn attend(head: Head<'_>, out: &mut [f32]) {
    vector::attend(head, out);
}

#[target_feature(enable = "avx2")]
fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    vector::swiglu(gate, up, out);
}

/// Four tokens at a time, then one: the arithmetic of a token is the same in both, in the same order.
#[target_feature(enable = "avx2,fma")]
fn panel(w: [Row<'_, u8>; PANEL_ROWS], x: &Rows<i8>, first: usize, out: &mut [[f32; PANEL_ROWS]]) {
    let (fours, ones) = out.as_chunks_mut::<PANEL_TOKENS>();
    let rest = first + fours.len() * PANEL_TOKENS;
    for (i, out) in fours.iter_mut().enumerate() {
        tile(w, std::array::from_fn(|t| x.row(first + i * PANEL_TOKENS + t)), out);
    }
    for (i, out) in ones.iter_mut().enumerate() {
        tile(w, [x.row(rest + i)], std::array::from_mut(out));
    }
}

/// Dot products of each weight row with each of `T` activation rows, a block of 32 at a time.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile<const T: usize>(w: [Row<'_, u8>; PANEL_ROWS], x: [Row<'_, i8>; T], out: &mut [[f32; PANEL_ROWS]; T]) {
    let n = w[0].q.len();
    // The same length for all of them, so that the indices below need no checks.
    let w = w.map(|r| Row { q: &r.q[..n], scale: &r.scale[..n.next_multiple_of(LANES)], side: r.side });
    let x = x.map(|r| Row { q: &r.q[..n], scale: &r.scale[..n.next_multiple_of(LANES)], side: r.side });
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_ps(); PANEL_ROWS]; T];
    for b in 0..n {
        let wq = w.map(|w| load_u8(&w.q[b]));
        let ws = w.map(|w| _mm256_set1_ps(w.scale[b]));
        for t in 0..T {
            let xq = load_i8(&x[t].q[b]);
            let xs = _mm256_set1_ps(x[t].scale[b]);
            for r in 0..PANEL_ROWS {
                // Pairs stay within i16: 2 * 31 * 127 < 2^15.
                let pairs = _mm256_maddubs_epi16(wq[r], xq);
                let product = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, ones));
                sums[t][r] = _mm256_fmadd_ps(_mm256_mul_ps(ws[r], xs), product, sums[t][r]);
            }
        }
    }
    for t in 0..T {
        for r in 0..PANEL_ROWS {
            out[t][r] = sum_lanes(add_sides(w[r].side, x[t].side, sums[t][r]));
        }
    }
}

/// Adds the products of the side terms, eight blocks at a time; padding adds zeros.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_sides(w: &[f32], x: &[f32], mut sum: __m256) -> __m256 {
    for (w, x) in w.as_chunks::<LANES>().0.iter().zip(x.as_chunks::<LANES>().0) {
        sum = _mm256_fmadd_ps(load_f32(w), load_f32(x), sum);
    }
    sum
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum_lanes(v: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_u8(from: &[u8; BLOCK]) -> __m256i {
    // SAFETY: reads the array's 32 bytes; the instruction asks for no alignment.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_i8(from: &[i8; BLOCK]) -> __m256i {
    // SAFETY: as `load_u8`.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_f32(from: &[f32; LANES]) -> __m256 {
    // SAFETY: reads the array's eight floats; the instruction asks for no alignment.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}
