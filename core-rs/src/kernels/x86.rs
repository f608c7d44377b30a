//! AVX2 forms of the kernels. Unpacking and the dot product are written by hand; the other loops are the portable
//! bodies, compiled again with the wider instructions. (Unpacking that way was tried: the compiler took vectors apart
//! again around the scales, and decoding ran at a third of the speed.)
//!
//! Every function here carries `#[target_feature]`; [`detect`] is the one way to reach them, so each table entry's
//! condition, a CPU with AVX2, FMA and F16C, holds by construction.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::blocks::{BLOCK, Format, LANES, Q4_1_BYTES, Q5_0_BYTES, Q5_0_ZERO, Q5_1_BYTES, Row, RowMut, Rows};
use super::dispatch::{Kernels, PANEL_ROWS, Products};
use super::floats::{self, FEW_TOKENS, Floats, Piece, Stored};
use super::vector::{self, Head, TOGETHER};

/// Tokens multiplied at once: with two weight rows that is eight accumulators.
const PANEL_TOKENS: usize = 4;

/// The AVX2 kernels, if this CPU has what they need. Nearly every processor with AVX2 has FMA and F16C too.
pub(super) fn detect() -> Option<&'static Kernels> {
    let able = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    able.then_some(&AVX2)
}

/// Private to this file, so that [`detect`] stays the only way in.
static AVX2: Kernels = Kernels {
    name: "avx2",
    // SAFETY: `detect` hands out this table only after finding avx2, fma and f16c.
    quantize: |values, rows| unsafe { quantize(values, rows) },
    // SAFETY: as above.
    unpack: |format, bytes, rows| unsafe { unpack(format, bytes, rows) },
    // SAFETY: as above.
    panel: |w, x, first, out| unsafe { panel(w, x, first, out) },
    // SAFETY: as above.
    floats: |piece, scratch, out| unsafe { floats(piece, scratch, out) },
    // SAFETY: as above.
    attend: |head, out| unsafe { attend(head, out) },
    // SAFETY: as above.
    swiglu: |gate, up, out| unsafe { swiglu(gate, up, out) },
};

#[target_feature(enable = "avx2")]
fn quantize(values: &[f32], rows: &mut Rows<i8>) {
    rows.quantize(values);
}

#[target_feature(enable = "avx2,f16c")]
fn unpack(format: Format, bytes: &[u8], rows: &mut Rows<u8>) {
    for (i, bytes) in bytes.chunks_exact(format.row_bytes(rows.k())).enumerate() {
        unpack_row(format, bytes, rows.row_mut(i));
    }
}

/// Stored blocks as `blocks` describes them.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn unpack_row(format: Format, bytes: &[u8], row: RowMut<'_, u8>) {
    let sides = row.q.iter_mut().zip(row.scale).zip(row.side);
    match format {
        Format::Q4_1 => {
            for (block, ((q, scale), side)) in bytes.as_chunks::<Q4_1_BYTES>().0.iter().zip(sides) {
                let [d0, d1, m0, m1, nibbles @ ..] = block;
                (*scale, *side) = halves([*d0, *d1, *m0, *m1]);
                store_u8(q, spread_nibbles(nibbles));
            }
        }
        Format::Q5_0 => {
            for (block, ((q, scale), side)) in bytes.as_chunks::<Q5_0_BYTES>().0.iter().zip(sides) {
                let [d0, d1, h0, h1, h2, h3, nibbles @ ..] = block;
                *scale = halves([*d0, *d1, 0, 0]).0;
                *side = -Q5_0_ZERO * *scale;
                store_u8(q, _mm256_or_si256(spread_nibbles(nibbles), spread_bits([*h0, *h1, *h2, *h3])));
            }
        }
        Format::Q5_1 => {
            for (block, ((q, scale), side)) in bytes.as_chunks::<Q5_1_BYTES>().0.iter().zip(sides) {
                let [d0, d1, m0, m1, h0, h1, h2, h3, nibbles @ ..] = block;
                (*scale, *side) = halves([*d0, *d1, *m0, *m1]);
                store_u8(q, _mm256_or_si256(spread_nibbles(nibbles), spread_bits([*h0, *h1, *h2, *h3])));
            }
        }
    }
}

/// Two little-endian f16 as f32.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn halves(bytes: [u8; 4]) -> (f32, f32) {
    let pair = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from_le_bytes(bytes)));
    (_mm_cvtss_f32(pair), _mm_cvtss_f32(_mm_movehdup_ps(pair)))
}

/// Low nibbles to the first half, high nibbles to the second.
#[inline]
#[target_feature(enable = "avx2")]
fn spread_nibbles(bytes: &[u8; BLOCK / 2]) -> __m256i {
    // SAFETY: reads the array's 16 bytes; the instruction asks for no alignment.
    let low = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(low), low), _mm256_set1_epi8(15))
}

/// Bit i of the word to bit 4 of byte i: each byte gets the word's byte that holds its bit, and keeps only that bit.
#[inline]
#[target_feature(enable = "avx2")]
fn spread_bits(word: [u8; 4]) -> __m256i {
    const ONES: i64 = 0x0101_0101_0101_0101;
    let spread = _mm256_set_epi64x(3 * ONES, 2 * ONES, ONES, 0);
    let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(i32::from_le_bytes(word)), spread);
    let bit = _mm256_set1_epi64x(i64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
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

/// Four tokens at a time, then one: the arithmetic of a token is the same in both, in the same order.
#[target_feature(enable = "avx2,fma")]
fn panel(w: &Rows<u8>, x: &Rows<i8>, first: usize, out: &mut [Products]) {
    let w = [w.row(0), w.row(1)];
    let (fours, ones) = out.as_chunks_mut::<PANEL_TOKENS>();
    let rest = first + fours.len() * PANEL_TOKENS;
    for (i, out) in fours.iter_mut().enumerate() {
        let i = first + i * PANEL_TOKENS;
        tile(w, [x.row(i), x.row(i + 1), x.row(i + 2), x.row(i + 3)], out);
    }
    for (i, out) in ones.iter_mut().enumerate() {
        tile(w, [x.row(rest + i)], std::array::from_mut(out));
    }
}

/// Dot products of each weight row with each of `T` activation rows, a block of 32 at a time.
///
/// No closures around intrinsics: they would be calls, since inlining decides before a closure gets its features.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile<const T: usize>(w: [Row<'_, u8>; PANEL_ROWS], x: [Row<'_, i8>; T], out: &mut [Products; T]) {
    let n = w[0].q.len();
    // The same lengths for all of them, so that the indices below need no checks.
    let w = w.map(|r| Row { q: &r.q[..n], scale: &r.scale[..n], side: r.side });
    let x = x.map(|r| Row { q: &r.q[..n], scale: &r.scale[..n], side: r.side });
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_ps(); PANEL_ROWS]; T];
    for b in 0..n {
        let (mut wq, mut ws) = ([_mm256_setzero_si256(); PANEL_ROWS], [_mm256_setzero_ps(); PANEL_ROWS]);
        for r in 0..PANEL_ROWS {
            (wq[r], ws[r]) = (load_u8(&w[r].q[b]), _mm256_set1_ps(w[r].scale[b]));
        }
        for t in 0..T {
            let (xq, xs) = (load_i8(&x[t].q[b]), _mm256_set1_ps(x[t].scale[b]));
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
fn load_u8(from: &[u8; BLOCK]) -> __m256i {
    // SAFETY: reads the array's 32 bytes; the instruction asks for no alignment.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_u8(to: &mut [u8; BLOCK], v: __m256i) {
    // SAFETY: writes the array's 32 bytes; the instruction asks for no alignment.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) };
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
