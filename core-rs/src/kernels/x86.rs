//! Tables of the kernels for x86-64. Products of blocks and attention are the one form in `product` and `attend`; float
//! products are written by hand for AVX2, which all of these have; the other loops are the portable bodies, compiled
//! again with the wider instructions.
//!
//! Every function here carries `#[target_feature]`; [`detect`] is the one way to reach them, so that a CPU with the
//! features of a table holds by construction.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::activations::{self, F32_MAGNITUDE, ROUND, Rounding, TokenMut};
use super::amx;
use super::attend::{self, Gathered, PageJob, PageScratch};
use super::blocks::{BLOCK, StoredRows};
use super::dispatch::{Kernels, products};
use super::floats::{self, Floats, Piece, Stored};
use super::layout;
use super::simd_x86::{Avx2, Avx512, Avx512Vnni, AvxVnni};
use super::vector::{self, LANES};

/// The tables that this CPU can run, the fastest first. Nearly every processor with AVX2 has FMA and F16C too.
pub(super) fn detect() -> impl Iterator<Item = &'static Kernels> {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let avx512 = avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
    let avx512_vnni = avx512 && is_x86_feature_detected!("avx512vnni");
    let tables = [
        (avx512_vnni && amx::permitted(), &AMX),
        (avx512_vnni, &AVX512_VNNI),
        // Half as wide as AVX-512, and with one instruction in place of two or four.
        (avx2 && is_x86_feature_detected!("avxvnni"), &AVX_VNNI),
        (avx512, &AVX512),
        (avx2, &AVX2),
    ];
    tables.into_iter().filter_map(|(able, table)| able.then_some(table))
}

/// A table for one instruction set: its name, the room of its products, registers, their number in a
/// page, queries that look together, vectors of few tokens, number of many, and features.
macro_rules! table {
    ($table:ident, $name:literal, $room:ident, $isa:ty, $per_page:literal, $together:literal, $few:literal, $many:literal, $features:literal) => {
        /// Private to this file, so that [`detect`] stays the only way in.
        static $table: Kernels = {
            #[target_feature(enable = $features)]
            fn look(job: &PageJob<'_>, scratch: &mut PageScratch, gathered: &mut Gathered<'_>) {
                // SAFETY: the features of the registers are this function's.
                unsafe { attend::attend::<$isa, $per_page, $together>(job, scratch, gathered) }
            }
            Kernels {
                name: $name,
                avx2: true,
                // SAFETY: `detect` hands out this table only after finding its features.
                pack: |stored, panel| unsafe { pack(stored, panel) },
                // SAFETY: as above.
                quantize: |values, to| unsafe { quantize(values, to) },
                product: products!($room, $isa, $few, $many, $features),
                // SAFETY: as above.
                floats: |piece, scratch, out| unsafe { floats(piece, scratch, out) },
                // SAFETY: as above.
                attend: |job, scratch, gathered| unsafe { look(job, scratch, gathered) },
                // SAFETY: as above.
                swiglu: |gate, up| unsafe { swiglu(gate, up) },
            }
        };
    };
}
table!(AVX2, "avx2", product, Avx2, 4, 2, 2, 4, "avx2,fma,f16c");
table!(AVX_VNNI, "avx-vnni", product, AvxVnni, 4, 2, 2, 4, "avx2,fma,f16c,avxvnni");
table!(AVX512, "avx512", product, Avx512, 2, 8, 1, 8, "avx2,fma,f16c,avx512f,avx512bw");
table!(AVX512_VNNI, "avx512-vnni", product, Avx512Vnni, 2, 8, 1, 8, "avx2,fma,f16c,avx512f,avx512bw,avx512vnni");
table!(AMX, "amx", amx, Avx512Vnni, 2, 8, 1, 8, "avx2,fma,f16c,avx512f,avx512bw,avx512vnni");

/// Tokens that floats are multiplied with at once. For no more than these, widening a panel beforehand would not pay.
const FEW_TOKENS: usize = 3;

#[target_feature(enable = "avx2")]
fn pack(stored: StoredRows<'_>, panel: &mut [u8]) {
    layout::pack(stored, panel);
}

#[target_feature(enable = "avx2")]
fn quantize(values: &[f32], to: TokenMut<'_>) {
    // SAFETY: this function's features are those of the instructions.
    unsafe { activations::quantize::<Avx2Rounding>(values, to) };
}

/// [`Rounding`] by AVX2.
struct Avx2Rounding;

// SAFETY of the bodies: the trait asks for the features; loads and stores are inside the arrays.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Rounding for Avx2Rounding {
    #[inline(always)]
    unsafe fn largest(x: &[f32; BLOCK]) -> u32 {
        unsafe {
            let magnitude = _mm256_set1_epi32(F32_MAGNITUDE as i32);
            let mut top = _mm256_setzero_si256();
            for x in x.as_chunks::<LANES>().0 {
                top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_loadu_si256(x.as_ptr().cast()), magnitude));
            }
            let top = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256::<1>(top));
            let top = _mm_max_epi32(top, _mm_shuffle_epi32::<0b01_00_11_10>(top));
            let top = _mm_max_epi32(top, _mm_shuffle_epi32::<0b10_11_00_01>(top));
            _mm_cvtsi128_si32(top) as u32
        }
    }

    #[inline(always)]
    unsafe fn round(x: &[f32; BLOCK], factor: f32, q: &mut [i8; BLOCK]) -> [i32; 2] {
        unsafe {
            let (factor, round) = (_mm256_set1_ps(factor), _mm256_set1_ps(ROUND));
            let mut ints = [_mm256_setzero_si256(); BLOCK / LANES];
            for (int, x) in ints.iter_mut().zip(x.as_chunks::<LANES>().0) {
                let rounded = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(x.as_ptr()), factor), round);
                *int = _mm256_sub_epi32(_mm256_castps_si256(rounded), _mm256_castps_si256(round));
            }
            // Packing goes lane by lane: groups of four bytes come out in the order 0, 2, 4, 6, 1, 3, 5, 7.
            let words = [_mm256_packs_epi32(ints[0], ints[1]), _mm256_packs_epi32(ints[2], ints[3])];
            let bytes = _mm256_packs_epi16(words[0], words[1]);
            let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            _mm256_storeu_si256(q.as_mut_ptr().cast(), bytes);
            let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
            let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
            let eights = _mm256_hadd_epi32(fours, fours);
            let halves = _mm256_hadd_epi32(eights, eights);
            [_mm256_extract_epi32::<0>(halves), _mm256_extract_epi32::<4>(halves)]
        }
    }
}

#[target_feature(enable = "avx2")]
fn swiglu(gate: &mut [f32], up: &[f32]) {
    vector::swiglu(gate, up);
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
fn load_f32(from: &[f32; LANES]) -> __m256 {
    // SAFETY: reads the array's eight floats; the instruction asks for no alignment.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}
