//! AVX2 forms of the kernels. Float products are written by hand, and those of blocks (`x86_blocks`); the other loops are
//! the portable bodies, compiled again with the wider instructions.
//!
//! Every function here carries `#[target_feature]`; [`detect`] is the one way to reach them, so each table entry's
//! condition, a CPU with AVX2, FMA and F16C, holds by construction.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::blocks::Rows;
use super::dispatch::{ALL_FORMATS, Kernels};
use super::floats::{self, FEW_TOKENS, Floats, Piece, Stored};
use super::vector::{self, Head, LANES, TOGETHER};
use super::x86_blocks;

/// The AVX2 kernels, if this CPU has what they need. Nearly every processor with AVX2 has FMA and F16C too.
pub(super) fn detect() -> Option<&'static Kernels> {
    let able = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    able.then_some(&AVX2)
}

/// Private to this file, so that [`detect`] stays the only way in.
static AVX2: Kernels = Kernels {
    name: "avx2",
    formats: ALL_FORMATS,
    panel_rows: x86_blocks::PANEL_ROWS,
    // SAFETY: `detect` hands out this table only after finding avx2, fma and f16c.
    quantize: |values, k, rows| unsafe { quantize(values, k, rows) },
    // SAFETY: as above.
    product: |scratch, stored, x, tokens, out| unsafe { x86_blocks::product(scratch, stored, x, tokens, out) },
    // SAFETY: as above.
    floats: |piece, scratch, out| unsafe { floats(piece, scratch, out) },
    // SAFETY: as above.
    attend: |head, out| unsafe { attend(head, out) },
    // SAFETY: as above.
    swiglu: |gate, up, out| unsafe { swiglu(gate, up, out) },
};

#[target_feature(enable = "avx2")]
fn quantize(values: &[f32], k: usize, rows: &mut Rows<i8>) {
    rows.quantize(values, k);
}

#[target_feature(enable = "avx2")]
fn attend(head: &Head<'_>, out: &mut [f32]) {
    vector::attend(head, out, |query, rows| dots(query, rows));
}

/// The sums of [`vector::dots`], which the compiler would not vectorise along the rows. Multiplied and added apart,
/// not fused, to give the same bits.
#[inline]
#[target_feature(enable = "avx2")]
fn dots(query: &[f32], rows: [&[f32]; TOGETHER]) -> [f32; TOGETHER] {
    let (query, tail) = query.as_chunks::<LANES>();
    let [a, b, c, d] = rows.map(|row| row.as_chunks::<LANES>().0);
    let mut sums = [_mm256_setzero_ps(); TOGETHER];
    for ((((q, a), b), c), d) in query.iter().zip(a).zip(b).zip(c).zip(d) {
        let q = load_f32(q);
        sums[0] = _mm256_add_ps(sums[0], _mm256_mul_ps(q, load_f32(a)));
        sums[1] = _mm256_add_ps(sums[1], _mm256_mul_ps(q, load_f32(b)));
        sums[2] = _mm256_add_ps(sums[2], _mm256_mul_ps(q, load_f32(c)));
        sums[3] = _mm256_add_ps(sums[3], _mm256_mul_ps(q, load_f32(d)));
    }
    let mut out = [0.0; TOGETHER];
    for i in 0..TOGETHER {
        out[i] = sum_lanes(sums[i]) + vector::dot_tail(tail, &rows[i][query.len() * LANES..]);
    }
    out
}

#[target_feature(enable = "avx2")]
fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    vector::swiglu(gate, up, out);
}

/// Products of a piece for each token. The order of additions is the same for any number of tokens.
#[target_feature(enable = "avx2,fma,f16c")]
fn floats(piece: &Piece<'_>, scratch: &mut [f32], out: &mut [[f32; floats::PANEL_ROWS]]) {
    match piece.weights {
        Floats::F32(weights) => float_tiles(piece.rows(weights), piece, out),
        Floats::F16(weights) => widen_and_multiply(piece.rows(weights), piece, scratch, out),
        Floats::Bf16(weights) => widen_and_multiply(piece.rows(weights), piece, scratch, out),
    }
}

/// Widened once for many tokens, or on the way into the registers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen_and_multiply<W: Load>(
    rows: [&[W]; floats::PANEL_ROWS],
    piece: &Piece<'_>,
    scratch: &mut [f32],
    out: &mut [[f32; floats::PANEL_ROWS]],
) {
    if out.len() <= FEW_TOKENS {
        float_tiles(rows, piece, out);
    } else {
        let rows = floats::widened(rows, scratch, |from, to| widen(from, to));
        float_tiles(rows, piece, out);
    }
}

#[target_feature(enable = "avx2,f16c")]
fn widen<W: Load>(from: &[W], to: &mut [f32]) {
    for (from, to) in from.as_chunks().0.iter().zip(to.as_chunks_mut::<LANES>().0) {
        // SAFETY: `load` asks for this function's features; writes the array's eight floats, with no alignment asked for.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), W::load(from)) };
    }
}

/// [`FEW_TOKENS`] at a time, then one.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn float_tiles<W: Load>(rows: [&[W]; floats::PANEL_ROWS], piece: &Piece<'_>, out: &mut [[f32; floats::PANEL_ROWS]]) {
    let rows = chunked(rows);
    let (threes, ones) = out.as_chunks_mut::<FEW_TOKENS>();
    let rest = threes.len() * FEW_TOKENS;
    for (i, out) in threes.iter_mut().enumerate() {
        let i = i * FEW_TOKENS;
        float_tile(rows, chunked([piece.token(i), piece.token(i + 1), piece.token(i + 2)]), out);
    }
    for (i, out) in ones.iter_mut().enumerate() {
        float_tile(rows, chunked([piece.token(rest + i)]), std::array::from_mut(out));
    }
}

/// Rows of the same length as vectors. Loops and no `map`, here and below: what it calls is not inlined, and lengths
/// that are not seen to be equal cost a check at each load.
#[inline(always)]
fn chunked<T, const N: usize>(rows: [&[T]; N]) -> [&[[T; LANES]]; N] {
    let mut chunked = [&[] as &[[T; LANES]]; N];
    for i in 0..N {
        chunked[i] = rows[i].as_chunks().0;
    }
    chunked
}

/// The first `n` of each.
#[inline(always)]
fn first<T, const N: usize>(mut rows: [&[T]; N], n: usize) -> [&[T]; N] {
    for row in &mut rows {
        *row = &row[..n];
    }
    rows
}

/// Dot products of each weight row with each of `T` tokens, eight values at a time.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn float_tile<W: Load, const T: usize>(
    w: [&[[W; LANES]]; floats::PANEL_ROWS],
    x: [&[[f32; LANES]]; T],
    out: &mut [[f32; floats::PANEL_ROWS]; T],
) {
    let n = w[0].len();
    let (w, x) = (first(w, n), first(x, n));
    let mut sums = [[_mm256_setzero_ps(); floats::PANEL_ROWS]; T];
    for i in 0..n {
        let mut xs = [_mm256_setzero_ps(); T];
        for t in 0..T {
            xs[t] = load_f32(&x[t][i]);
        }
        for r in 0..floats::PANEL_ROWS {
            // Rows of a small model are too short for the processor to see them coming: this is the next panel's place,
            // a sixth of decoding with rows of 576 halves. Behind the last one there is nothing, and nothing happens.
            if T == 1 {
                _mm_prefetch::<_MM_HINT_T0>(w[r].as_ptr().wrapping_add(i + floats::PANEL_ROWS * n).cast());
            }
            // SAFETY: this function's features are those that `load` asks for.
            let w = unsafe { W::load(&w[r][i]) };
            for t in 0..T {
                sums[t][r] = _mm256_fmadd_ps(w, xs[t], sums[t][r]);
            }
        }
    }
    for t in 0..T {
        out[t] = sum_each(sums[t]);
    }
}

/// Stored numbers that become f32 on their way into a register.
trait Load: Stored {
    /// # Safety
    /// The CPU has avx2 and f16c.
    unsafe fn load(from: &[Self; LANES]) -> __m256;
}

impl Load for f32 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load(from: &[Self; LANES]) -> __m256 {
        load_f32(from)
    }
}

impl Load for f16 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load(from: &[Self; LANES]) -> __m256 {
        // SAFETY: reads the array's 16 bytes; the instruction asks for no alignment.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
    }
}

impl Load for bf16 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load(from: &[Self; LANES]) -> __m256 {
        // SAFETY: reads the array's 16 bytes; the instruction asks for no alignment.
        let bits = unsafe { _mm_loadu_si128(from.as_ptr().cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
    }
}

/// The sum of each vector's eight numbers.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_each([a, b, c, d]: [__m256; 4]) -> [f32; 4] {
    let halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    let sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
    let mut out = [0.0; 4];
    // SAFETY: writes the array's four floats; the instruction asks for no alignment.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), sums) };
    out
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
fn load_f32(from: &[f32; LANES]) -> __m256 {
    // SAFETY: reads the array's eight floats; the instruction asks for no alignment.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}
