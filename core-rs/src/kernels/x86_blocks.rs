//! AVX2 products of stored blocks: eight weight rows at a time, a lane for each.
//!
//! For many tokens, rows are unpacked once into a [`Panel`], four values of each row beside those of the next, so that
//! one instruction multiplies four values of eight rows, and sums stay 16 bits wide as long as they fit. For a few, rows
//! are multiplied as they are stored, and the sums of eight rows are brought into lanes afterwards. Both add the same
//! floats in the same order, so a token's result does not depend on those beside it.
//!
//! A lane per row and not per part of a row: no sums across lanes at the end, a scale is multiplied once for eight rows,
//! and two thirds of the instructions of the form before it (two rows by four tokens) went away.
//!
//! Every function here carries `#[target_feature]`; the table in `x86` is the one way to reach them.

// Counted loops over small arrays: what an iterator's closure does is not inlined before it gets its features.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::blocks::{
    BLOCK, Format, Q2K_BYTES, Q3K_BYTES, Q3K_ZERO, Q4_0_BYTES, Q4_0_ZERO, Q4_1_BYTES, Q4K_BYTES, Q5_0_BYTES, Q5_0_ZERO,
    Q5_1_BYTES, Q5K_BYTES, Q6K_BYTES, Q6K_ZERO, Q8_0_BYTES, Q8_0_ZERO, Rows, StoredRows, half_at, long_scales,
    q3_k_scales,
};
use super::dispatch::Scratch;

/// Weight rows that are multiplied at once.
pub(super) const PANEL_ROWS: usize = 8;
/// Tokens multiplied at once with a panel: with their narrow and wide sums they fill the sixteen registers.
const PANEL_TOKENS: usize = 4;
/// For no more tokens than these, unpacking rows beforehand does not pay.
const DIRECT_TOKENS: usize = 2;
/// Values of a row that share a lane.
const GROUP: usize = 4;
/// Groups of a block.
const GROUPS: usize = BLOCK / GROUP;
/// Bytes of a block of eight rows, all groups.
const PLANE: usize = PANEL_ROWS * BLOCK;

/// Eight unpacked rows: for each block its planes of numbers (see [`Layout::PLANES`]), `[group][row][value]`, and for each
/// of its scales and sides eight floats.
#[derive(Default)]
pub(super) struct Panel {
    q: Vec<u8>,
    scale: Vec<[f32; PANEL_ROWS]>,
    side: Vec<[f32; PANEL_ROWS]>,
}

/// How a format's blocks are stored.
trait Layout {
    /// Bytes of a stored block.
    const BYTES: usize;
    /// Our blocks in a stored one.
    const BLOCKS: usize;
    /// Scales of one of our blocks.
    const SCALES: usize;
    /// Bits of a number.
    const BITS: u32;

    /// The numbers of block `i` of a stored block.
    ///
    /// # Safety
    /// `stored` points to `BYTES` bytes; `i < BLOCKS`; the CPU has avx2.
    unsafe fn numbers(stored: *const u8, i: usize) -> __m256i;

    /// Scales and sides of a stored block of eight rows, a lane each: `BLOCKS * SCALES` of them.
    ///
    /// # Safety
    /// Each of `rows` points to `BYTES` bytes; the CPU has avx2 and f16c.
    unsafe fn sides(rows: &[*const u8; PANEL_ROWS], sides: &mut Sides);

    /// Numbers of eight bits are two planes of four, whose products fit into 16 bits.
    const PLANES: usize = if Self::BITS == 8 { 2 } else { 1 };
    /// Groups whose products fit into 16 bits when added: each is at most `2 * 127 * (2^BITS - 1)`.
    const NARROW_GROUPS: usize = match Self::BITS {
        6 => 2,
        5 => 4,
        _ => GROUPS / Self::SCALES,
    };
}

/// Scales and sides of as many blocks as a stored one may have, eight rows each.
struct Sides {
    scale: [__m256; 16],
    side: [__m256; 16],
}

/// Dot products of at most eight stored rows with the activations of `tokens`: eight numbers for each of these.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn product(
    scratch: &mut Scratch,
    stored: StoredRows<'_>,
    x: &Rows<i8>,
    tokens: Range<usize>,
    out: &mut [f32],
) {
    let out = out.as_chunks_mut::<PANEL_ROWS>().0;
    match stored.format {
        Format::Q4_0 => multiply::<Q4_0>(&mut scratch.panel, stored, x, tokens, out),
        Format::Q4_1 => multiply::<Q4_1>(&mut scratch.panel, stored, x, tokens, out),
        Format::Q5_0 => multiply::<Q5_0>(&mut scratch.panel, stored, x, tokens, out),
        Format::Q5_1 => multiply::<Q5_1>(&mut scratch.panel, stored, x, tokens, out),
        Format::Q8_0 => multiply::<Q8_0>(&mut scratch.panel, stored, x, tokens, out),
        Format::Q2K => multiply::<Q2K>(&mut scratch.panel, stored, x, tokens, out),
        Format::Q3K => multiply::<Q3K>(&mut scratch.panel, stored, x, tokens, out),
        Format::Q4K => multiply::<Q4K>(&mut scratch.panel, stored, x, tokens, out),
        Format::Q5K => multiply::<Q5K>(&mut scratch.panel, stored, x, tokens, out),
        Format::Q6K => multiply::<Q6K>(&mut scratch.panel, stored, x, tokens, out),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply<L: Layout>(
    panel: &mut Panel,
    stored: StoredRows<'_>,
    x: &Rows<i8>,
    tokens: Range<usize>,
    out: &mut [[f32; PANEL_ROWS]],
) {
    let rows = pointers::<L>(stored);
    let stored_blocks = stored.k / BLOCK / L::BLOCKS;
    assert!(x.k() == stored.k && tokens.end <= x.len() && out.len() == tokens.len(), "shapes of a panel");
    if tokens.len() <= DIRECT_TOKENS {
        for (token, out) in tokens.zip(out) {
            // SAFETY: rows have `stored_blocks` blocks each, as many as the token has, by the assertion.
            unsafe { direct::<L>(rows, stored_blocks, &Token::of(x, token), out) };
        }
        return;
    }
    // SAFETY: as above.
    unsafe { unpack::<L>(rows, stored_blocks, panel) };
    let (fours, rest) = out.as_chunks_mut::<PANEL_TOKENS>();
    let after = tokens.start + fours.len() * PANEL_TOKENS;
    for (i, out) in fours.iter_mut().enumerate() {
        tile::<L, 4>(panel, x, tokens.start + i * PANEL_TOKENS, out);
    }
    match rest {
        [] => {}
        [a] => tile::<L, 1>(panel, x, after, std::array::from_mut(a)),
        [_, _] => tile::<L, 2>(panel, x, after, rest.as_chunks_mut().0.first_mut().expect("two")),
        _ => tile::<L, 3>(panel, x, after, rest.as_chunks_mut().0.first_mut().expect("three")),
    }
}

/// Where each row begins; the last one stands in for those that are not there.
fn pointers<L: Layout>(stored: StoredRows<'_>) -> [*const u8; PANEL_ROWS] {
    let (n, row_bytes) = (stored.len(), stored.format.row_bytes(stored.k));
    assert!(n > 0 && stored.format.stored_bytes() == L::BYTES, "rows of a panel");
    std::array::from_fn(|r| stored.bytes[r.min(n - 1) * row_bytes..].as_ptr())
}

/// A row of activations by pointers: its numbers, and per block its scale, side and half sides.
#[derive(Clone, Copy)]
struct Token {
    q: *const i8,
    scale: *const f32,
    side: *const f32,
    half_sides: *const [f32; 2],
}

impl Token {
    #[inline(always)]
    fn of(x: &Rows<i8>, token: usize) -> Self {
        let row = x.row(token);
        Self {
            q: row.q.as_ptr().cast(),
            scale: row.scale.as_ptr(),
            side: row.side.as_ptr(),
            half_sides: x.half_sides(token).as_ptr(),
        }
    }

    /// The side that belongs to scale `s` of block `b`.
    ///
    /// # Safety
    /// The row has more than `b` blocks.
    #[inline(always)]
    unsafe fn side<L: Layout>(&self, b: usize, s: usize) -> f32 {
        // SAFETY: as this function asks.
        unsafe { if L::SCALES == 1 { *self.side.add(b) } else { (*self.half_sides.add(b))[s] } }
    }
}

/// # Safety
/// Each row has `stored_blocks` stored blocks; the CPU has avx2 and f16c.
#[target_feature(enable = "avx2,f16c")]
unsafe fn unpack<L: Layout>(rows: [*const u8; PANEL_ROWS], stored_blocks: usize, panel: &mut Panel) {
    let blocks = stored_blocks * L::BLOCKS;
    panel.q.resize(blocks * L::PLANES * PLANE, 0);
    panel.scale.resize(blocks * L::SCALES, [0.0; PANEL_ROWS]);
    panel.side.resize(blocks * L::SCALES, [0.0; PANEL_ROWS]);
    let mut sides = Sides::empty();
    for b in 0..stored_blocks {
        // SAFETY: within rows, and vectors of the lengths given above.
        unsafe {
            let rows = at(rows, b * L::BYTES);
            L::sides(&rows, &mut sides);
            for s in 0..L::BLOCKS * L::SCALES {
                let to = b * L::BLOCKS * L::SCALES + s;
                _mm256_storeu_ps(panel.scale[to].as_mut_ptr(), sides.scale[s]);
                _mm256_storeu_ps(panel.side[to].as_mut_ptr(), sides.side[s]);
            }
            for i in 0..L::BLOCKS {
                let mut numbers = [_mm256_setzero_si256(); PANEL_ROWS];
                for r in 0..PANEL_ROWS {
                    numbers[r] = L::numbers(rows[r], i);
                }
                let to = panel.q[(b * L::BLOCKS + i) * L::PLANES * PLANE..][..L::PLANES * PLANE].as_mut_ptr();
                let groups = transpose(numbers);
                for g in 0..GROUPS {
                    let to = to.add(g * BLOCK);
                    if L::PLANES == 2 {
                        _mm256_storeu_si256(to.cast(), low_nibbles(groups[g]));
                        _mm256_storeu_si256(to.add(PLANE).cast(), high_nibbles(groups[g]));
                    } else {
                        _mm256_storeu_si256(to.cast(), groups[g]);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn at(rows: [*const u8; PANEL_ROWS], offset: usize) -> [*const u8; PANEL_ROWS] {
    rows.map(|row| row.wrapping_add(offset))
}

/// Products of a panel with `T` tokens.
#[target_feature(enable = "avx2,fma")]
fn tile<L: Layout, const T: usize>(panel: &Panel, x: &Rows<i8>, first: usize, out: &mut [[f32; PANEL_ROWS]; T]) {
    let mut tokens = [Token::of(x, first); T];
    for t in 1..T {
        tokens[t] = Token::of(x, first + t);
    }
    let mut sums = [_mm256_setzero_ps(); T];
    for b in 0..x.k() / BLOCK {
        for s in 0..L::SCALES {
            let mut wide = [_mm256_setzero_si256(); T];
            for plane in 0..L::PLANES {
                let q = panel.q[(b * L::PLANES + plane) * PLANE..][..PLANE].as_ptr();
                // Planes count sixteenfold, one after the other.
                let weight = _mm256_set1_epi16(if plane == 0 { 1 } else { 16 });
                for chunk in 0..GROUPS / L::SCALES / L::NARROW_GROUPS {
                    let mut narrow = [_mm256_setzero_si256(); T];
                    for g in 0..L::NARROW_GROUPS {
                        let group = s * GROUPS / L::SCALES + chunk * L::NARROW_GROUPS + g;
                        // SAFETY: group < GROUPS, so within the plane and within the block of each token.
                        unsafe {
                            let w = _mm256_loadu_si256(q.add(group * BLOCK).cast());
                            for t in 0..T {
                                let x = tokens[t].q.add(b * BLOCK + group * GROUP).cast::<i32>().read_unaligned();
                                let products = _mm256_maddubs_epi16(w, _mm256_set1_epi32(x));
                                narrow[t] = _mm256_add_epi16(narrow[t], products);
                            }
                        }
                    }
                    for t in 0..T {
                        wide[t] = _mm256_add_epi32(wide[t], _mm256_madd_epi16(narrow[t], weight));
                    }
                }
            }
            let (scale, side) = (&panel.scale[b * L::SCALES + s], &panel.side[b * L::SCALES + s]);
            // SAFETY: reads the arrays' eight floats each.
            let (scale, side) = unsafe { (_mm256_loadu_ps(scale.as_ptr()), _mm256_loadu_ps(side.as_ptr())) };
            for t in 0..T {
                // SAFETY: each token has k / BLOCK blocks.
                let (x_scale, x_side) = unsafe { (*tokens[t].scale.add(b), tokens[t].side::<L>(b, s)) };
                sums[t] = add_block(sums[t], scale, side, wide[t], x_scale, x_side);
            }
        }
    }
    for t in 0..T {
        // SAFETY: writes the array's eight floats.
        unsafe { _mm256_storeu_ps(out[t].as_mut_ptr(), sums[t]) };
    }
}

/// Products of eight rows as they are stored with one token.
///
/// # Safety
/// Each row has `stored_blocks` stored blocks, and the token as many values; the CPU has avx2, fma and f16c.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn direct<L: Layout>(
    rows: [*const u8; PANEL_ROWS],
    stored_blocks: usize,
    x: &Token,
    out: &mut [f32; PANEL_ROWS],
) {
    let mut sum = _mm256_setzero_ps();
    let mut sides = Sides::empty();
    // Rows lie one behind the other, and so do panels: what comes next is as far as eight rows are long.
    let next = PANEL_ROWS * stored_blocks * L::BYTES;
    for b in 0..stored_blocks {
        let rows = at(rows, b * L::BYTES);
        for r in 0..PANEL_ROWS {
            for line in 0..L::BYTES.div_ceil(64) {
                _mm_prefetch::<_MM_HINT_T0>(rows[r].wrapping_add(next + line * 64).cast());
            }
        }
        // SAFETY: b is a stored block of each row, and its blocks are blocks of the token.
        unsafe {
            L::sides(&rows, &mut sides);
            for i in 0..L::BLOCKS {
                let block = b * L::BLOCKS + i;
                let q = _mm256_loadu_si256(x.q.add(block * BLOCK).cast());
                let halves = integer_dots::<L>(&rows, i, q);
                let x_scale = *x.scale.add(block);
                if L::SCALES == 1 {
                    let whole = _mm256_add_epi32(halves[0], halves[1]);
                    sum = add_block(sum, sides.scale[i], sides.side[i], whole, x_scale, x.side::<L>(block, 0));
                } else {
                    for s in 0..2 {
                        let (scale, side) = (sides.scale[2 * i + s], sides.side[2 * i + s]);
                        sum = add_block(sum, scale, side, halves[s], x_scale, x.side::<L>(block, s));
                    }
                }
            }
        }
    }
    // SAFETY: writes the array's eight floats.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sum) };
}

/// Dot products of both halves of block `i` of eight rows with a token's, a lane per row.
///
/// # Safety
/// As [`Layout::numbers`], for each row.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn integer_dots<L: Layout>(rows: &[*const u8; PANEL_ROWS], i: usize, x: __m256i) -> [__m256i; 2] {
    let ones = _mm256_set1_epi16(1);
    let mut d = [_mm256_setzero_si256(); PANEL_ROWS];
    for r in 0..PANEL_ROWS {
        // SAFETY: as this function asks.
        let numbers = unsafe { L::numbers(rows[r], i) };
        d[r] = if L::PLANES == 2 {
            let low = _mm256_madd_epi16(_mm256_maddubs_epi16(low_nibbles(numbers), x), ones);
            let high = _mm256_maddubs_epi16(high_nibbles(numbers), x);
            _mm256_add_epi32(low, _mm256_madd_epi16(high, _mm256_set1_epi16(16)))
        } else {
            _mm256_maddubs_epi16(numbers, x)
        };
    }
    // Four rows each: their sums side by side, those of the first half of the block in the lower lane.
    let (a, b) = match L::BITS {
        8 => (
            _mm256_hadd_epi32(_mm256_hadd_epi32(d[0], d[1]), _mm256_hadd_epi32(d[2], d[3])),
            _mm256_hadd_epi32(_mm256_hadd_epi32(d[4], d[5]), _mm256_hadd_epi32(d[6], d[7])),
        ),
        // Two products of six bits fit into 16 bits, four do not.
        6 => {
            let two = |a, b| _mm256_madd_epi16(_mm256_hadd_epi16(a, b), ones);
            (_mm256_hadd_epi32(two(d[0], d[1]), two(d[2], d[3])), _mm256_hadd_epi32(two(d[4], d[5]), two(d[6], d[7])))
        }
        _ => {
            let four = |a, b, c, d| {
                _mm256_madd_epi16(_mm256_hadd_epi16(_mm256_hadd_epi16(a, b), _mm256_hadd_epi16(c, d)), ones)
            };
            (four(d[0], d[1], d[2], d[3]), four(d[4], d[5], d[6], d[7]))
        }
    };
    [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)]
}

/// `sum + scale * x_scale * product + side * x_side`, in the order in which both forms must add.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_block(sum: __m256, scale: __m256, side: __m256, product: __m256i, x_scale: f32, x_side: f32) -> __m256 {
    let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x_scale));
    let sum = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(product), sum);
    _mm256_fmadd_ps(side, _mm256_set1_ps(x_side), sum)
}

/// Eight vectors of eight 32-bit lanes, rows for columns.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(r: [__m256i; 8]) -> [__m256i; 8] {
    let (a0, a1) = (_mm256_unpacklo_epi32(r[0], r[1]), _mm256_unpackhi_epi32(r[0], r[1]));
    let (a2, a3) = (_mm256_unpacklo_epi32(r[2], r[3]), _mm256_unpackhi_epi32(r[2], r[3]));
    let (a4, a5) = (_mm256_unpacklo_epi32(r[4], r[5]), _mm256_unpackhi_epi32(r[4], r[5]));
    let (a6, a7) = (_mm256_unpacklo_epi32(r[6], r[7]), _mm256_unpackhi_epi32(r[6], r[7]));
    let (b0, b1) = (_mm256_unpacklo_epi64(a0, a2), _mm256_unpackhi_epi64(a0, a2));
    let (b2, b3) = (_mm256_unpacklo_epi64(a1, a3), _mm256_unpackhi_epi64(a1, a3));
    let (b4, b5) = (_mm256_unpacklo_epi64(a4, a6), _mm256_unpackhi_epi64(a4, a6));
    let (b6, b7) = (_mm256_unpacklo_epi64(a5, a7), _mm256_unpackhi_epi64(a5, a7));
    [
        _mm256_permute2x128_si256::<0x20>(b0, b4),
        _mm256_permute2x128_si256::<0x20>(b1, b5),
        _mm256_permute2x128_si256::<0x20>(b2, b6),
        _mm256_permute2x128_si256::<0x20>(b3, b7),
        _mm256_permute2x128_si256::<0x31>(b0, b4),
        _mm256_permute2x128_si256::<0x31>(b1, b5),
        _mm256_permute2x128_si256::<0x31>(b2, b6),
        _mm256_permute2x128_si256::<0x31>(b3, b7),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn transpose_floats(rows: [__m256; 8]) -> [__m256; 8] {
    let mut bits = [_mm256_setzero_si256(); 8];
    for r in 0..8 {
        bits[r] = _mm256_castps_si256(rows[r]);
    }
    let columns = transpose(bits);
    let mut floats = rows;
    for r in 0..8 {
        floats[r] = _mm256_castsi256_ps(columns[r]);
    }
    floats
}

#[inline]
#[target_feature(enable = "avx2")]
fn low_nibbles(bytes: __m256i) -> __m256i {
    _mm256_and_si256(bytes, _mm256_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx2")]
fn high_nibbles(bytes: __m256i) -> __m256i {
    low_nibbles(_mm256_srli_epi16::<4>(bytes))
}

/// The bits of each byte from `shift` on that `mask` leaves.
#[inline]
#[target_feature(enable = "avx2")]
fn bits(bytes: __m256i, shift: usize, mask: i8) -> __m256i {
    _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(shift as i32)), _mm256_set1_epi8(mask))
}

/// 32 bytes from `at` on.
///
/// # Safety
/// They are there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(at: *const u8) -> __m256i {
    // SAFETY: as this function asks; the instruction asks for no alignment.
    unsafe { _mm256_loadu_si256(at.cast()) }
}

/// The nibbles of a block of 16 bytes: low ones are its first half, high ones its second.
///
/// # Safety
/// 16 bytes are there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn short_nibbles(at: *const u8) -> __m256i {
    // SAFETY: as this function asks; the instruction asks for no alignment.
    let low = unsafe { _mm_loadu_si128(at.cast()) };
    low_nibbles(_mm256_set_m128i(_mm_srli_epi16::<4>(low), low))
}

/// Bit i of a word of four bytes to bit 4 of byte i: each byte gets the word's byte that holds its bit, and keeps only
/// that bit.
///
/// # Safety
/// Four bytes are there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn fifth_bits(at: *const u8) -> __m256i {
    const ONES: i64 = 0x0101_0101_0101_0101;
    // SAFETY: as this function asks.
    let word = unsafe { at.cast::<i32>().read_unaligned() };
    let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(word), _mm256_set_epi64x(3 * ONES, 2 * ONES, ONES, 0));
    let bit = _mm256_set1_epi64x(i64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
}

/// The two f16 numbers at the start of each row's block, as two vectors.
///
/// # Safety
/// Each row has four bytes; the CPU has avx2 and f16c.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn leading_halves(rows: &[*const u8; PANEL_ROWS]) -> (__m256, __m256) {
    let mut words = [0u32; PANEL_ROWS];
    for r in 0..PANEL_ROWS {
        // SAFETY: as this function asks.
        words[r] = unsafe { rows[r].cast::<u32>().read_unaligned() };
    }
    // SAFETY: reads the array's 32 bytes.
    let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
    let (first, second) = (_mm256_and_si256(words, _mm256_set1_epi32(0xffff)), _mm256_srli_epi32::<16>(words));
    let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(first, second));
    (_mm256_cvtph_ps(_mm256_castsi256_si128(packed)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(packed)))
}

/// Each of eight bytes times `by`.
///
/// # Safety
/// The CPU has avx2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn scaled(bytes: [u8; 8], by: f32) -> __m256 {
    let wide = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(bytes)));
    _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_set1_ps(by))
}

/// As [`scaled`], the bytes being signed.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn scaled_signed(bytes: [u8; 8], by: f32) -> __m256 {
    let wide = _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(bytes)));
    _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_set1_ps(by))
}

impl Sides {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn empty() -> Self {
        Self { scale: [_mm256_setzero_ps(); 16], side: [_mm256_setzero_ps(); 16] }
    }

    /// From eight rows' vectors, each over eight scales, for the scales from `first` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn set(&mut self, first: usize, scale: [__m256; PANEL_ROWS], side: [__m256; PANEL_ROWS]) {
        let (scale, side) = (transpose_floats(scale), transpose_floats(side));
        for s in 0..8 {
            (self.scale[first + s], self.side[first + s]) = (scale[s], side[s]);
        }
    }

    /// As [`Sides::set`], where the side is the scale times a number.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn set_shifted(&mut self, first: usize, scale: [__m256; PANEL_ROWS], by: f32) {
        let scale = transpose_floats(scale);
        for s in 0..8 {
            (self.scale[first + s], self.side[first + s]) = (scale[s], _mm256_mul_ps(scale[s], _mm256_set1_ps(by)));
        }
    }
}

/// Formats whose stored block is one of ours: what stands for `$numbers` reads the numbers at a pointer, `$side` makes the
/// side from both leading f16.
macro_rules! short_layouts {
    ($($name:ident, $bytes:expr, $bits:expr, |$at:ident| $numbers:expr, |$scale:ident, $min:ident| $side:expr;)*) => {$(
        struct $name;

        impl Layout for $name {
            const BYTES: usize = $bytes;
            const BLOCKS: usize = 1;
            const SCALES: usize = 1;
            const BITS: u32 = $bits;

            #[inline]
            #[target_feature(enable = "avx2")]
            unsafe fn numbers($at: *const u8, _: usize) -> __m256i {
                // SAFETY: within the block's bytes.
                unsafe { $numbers }
            }

            #[inline]
            #[target_feature(enable = "avx2,f16c")]
            unsafe fn sides(rows: &[*const u8; PANEL_ROWS], sides: &mut Sides) {
                // SAFETY: the first four of the block's bytes.
                let ($scale, $min) = unsafe { leading_halves(rows) };
                (sides.scale[0], sides.side[0]) = ($scale, $side);
            }
        }
    )*};
}

short_layouts! {
    Q4_0, Q4_0_BYTES, 4, |at| short_nibbles(at.add(2)), |scale, _min| shifted(scale, Q4_0_ZERO);
    Q4_1, Q4_1_BYTES, 4, |at| short_nibbles(at.add(4)), |scale, min| min;
    Q5_0, Q5_0_BYTES, 5, |at| _mm256_or_si256(short_nibbles(at.add(6)), fifth_bits(at.add(2))),
        |scale, _min| shifted(scale, Q5_0_ZERO);
    Q5_1, Q5_1_BYTES, 5, |at| _mm256_or_si256(short_nibbles(at.add(8)), fifth_bits(at.add(4))), |scale, min| min;
    Q8_0, Q8_0_BYTES, 8, |at| _mm256_xor_si256(load(at.add(2)), _mm256_set1_epi8(-128)),
        |scale, _min| shifted(scale, Q8_0_ZERO);
}

/// The side of numbers that were shifted up by `zero`.
#[inline]
#[target_feature(enable = "avx2")]
fn shifted(scale: __m256, zero: f32) -> __m256 {
    _mm256_mul_ps(scale, _mm256_set1_ps(-zero))
}

/// Scales and sides of Q4_K and Q5_K, whose headers are the same.
///
/// # Safety
/// Each row has 16 bytes; the CPU has avx2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn long_sides(rows: &[*const u8; PANEL_ROWS], sides: &mut Sides) {
    let mut vectors = [[_mm256_setzero_ps(); PANEL_ROWS]; 2];
    for r in 0..PANEL_ROWS {
        // SAFETY: as this function asks.
        let header = unsafe { &*rows[r].cast::<[u8; 16]>() };
        let [scales, mins] = long_scales(*header.last_chunk().expect("twelve of sixteen"));
        // SAFETY: this function's features are those that `scaled` asks for.
        unsafe {
            vectors[0][r] = scaled(scales, half_at(header, 0));
            vectors[1][r] = scaled(mins, -half_at(header, 2));
        }
    }
    sides.set(0, vectors[0], vectors[1]);
}

struct Q4K;

impl Layout for Q4K {
    const BYTES: usize = Q4K_BYTES;
    const BLOCKS: usize = 8;
    const SCALES: usize = 1;
    const BITS: u32 = 4;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn numbers(stored: *const u8, i: usize) -> __m256i {
        // SAFETY: within the block's bytes.
        bits(unsafe { load(stored.add(16 + i / 2 * BLOCK)) }, i % 2 * 4, 15)
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn sides(rows: &[*const u8; PANEL_ROWS], sides: &mut Sides) {
        // SAFETY: the first 16 of the block's bytes.
        unsafe { long_sides(rows, sides) };
    }
}

struct Q5K;

impl Layout for Q5K {
    const BYTES: usize = Q5K_BYTES;
    const BLOCKS: usize = 8;
    const SCALES: usize = 1;
    const BITS: u32 = 5;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn numbers(stored: *const u8, i: usize) -> __m256i {
        // SAFETY: within the block's bytes.
        let (low, fifth) = unsafe { (load(stored.add(48 + i / 2 * BLOCK)), load(stored.add(16))) };
        _mm256_or_si256(bits(low, i % 2 * 4, 15), _mm256_slli_epi16::<4>(bits(fifth, i, 1)))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn sides(rows: &[*const u8; PANEL_ROWS], sides: &mut Sides) {
        // SAFETY: the first 16 of the block's bytes.
        unsafe { long_sides(rows, sides) };
    }
}

/// The sixteen scales of a stored block as two vectors of eight: bytes that `$scales` reads, made floats by `$float`.
macro_rules! half_layouts {
    ($($name:ident, $bytes:expr, $bits:expr, |$stored:ident, $i:ident| $numbers:expr, $sides:ident;)*) => {$(
        struct $name;

        impl Layout for $name {
            const BYTES: usize = $bytes;
            const BLOCKS: usize = 8;
            const SCALES: usize = 2;
            const BITS: u32 = $bits;

            #[inline]
            #[target_feature(enable = "avx2")]
            unsafe fn numbers($stored: *const u8, $i: usize) -> __m256i {
                // SAFETY: within the block's bytes.
                unsafe { $numbers }
            }

            #[inline]
            #[target_feature(enable = "avx2,f16c")]
            unsafe fn sides(rows: &[*const u8; PANEL_ROWS], sides: &mut Sides) {
                let mut blocks = [&[0; $bytes]; PANEL_ROWS];
                for r in 0..PANEL_ROWS {
                    // SAFETY: each row has a block's bytes.
                    blocks[r] = unsafe { &*rows[r].cast() };
                }
                $sides(blocks, sides);
            }
        }
    )*};
}

half_layouts! {
    Q2K, Q2K_BYTES, 2, |stored, i| bits(load(stored.add(16 + i / 4 * BLOCK)), i % 4 * 2, 3), q2_k_sides;
    Q3K, Q3K_BYTES, 3, |stored, i| _mm256_or_si256(
        bits(load(stored.add(32 + i / 4 * BLOCK)), i % 4 * 2, 3),
        _mm256_slli_epi16::<2>(bits(load(stored), i, 1)),
    ), q3_k_sides;
    Q6K, Q6K_BYTES, 6, |stored, i| _mm256_or_si256(
        bits(load(stored.add(i / 4 * 64 + i % 2 * BLOCK)), i % 4 / 2 * 4, 15),
        _mm256_slli_epi16::<4>(bits(load(stored.add(128 + i / 4 * BLOCK)), i % 4 * 2, 3)),
    ), q6_k_sides;
}

/// Eight of the bytes from `at` on.
#[inline(always)]
fn eight<const N: usize>(bytes: &[u8; N], at: usize) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    out
}

#[inline]
#[target_feature(enable = "avx2")]
fn q2_k_sides(blocks: [&[u8; Q2K_BYTES]; PANEL_ROWS], sides: &mut Sides) {
    for first in [0, 8] {
        let mut vectors = [[_mm256_setzero_ps(); PANEL_ROWS]; 2];
        for r in 0..PANEL_ROWS {
            let word = u64::from_le_bytes(eight(blocks[r], first));
            let (low, high) = (word & 0x0f0f_0f0f_0f0f_0f0f, word >> 4 & 0x0f0f_0f0f_0f0f_0f0f);
            // SAFETY: this function's features are those that `scaled` asks for.
            unsafe {
                vectors[0][r] = scaled(low.to_le_bytes(), half_at(blocks[r], 80));
                vectors[1][r] = scaled(high.to_le_bytes(), -half_at(blocks[r], 82));
            }
        }
        sides.set(first, vectors[0], vectors[1]);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn q3_k_sides(blocks: [&[u8; Q3K_BYTES]; PANEL_ROWS], sides: &mut Sides) {
    let mut vectors = [[_mm256_setzero_ps(); PANEL_ROWS]; 2];
    for r in 0..PANEL_ROWS {
        let (_, [packed @ .., _, _]) = blocks[r].split_last_chunk::<14>().expect("scales and d");
        let mut scales = q3_k_scales(*packed);
        for scale in &mut scales {
            *scale = scale.wrapping_sub(32);
        }
        for half in 0..2 {
            // SAFETY: this function's features are those that `scaled_signed` asks for.
            vectors[half][r] = unsafe { scaled_signed(eight(&scales, 8 * half), half_at(blocks[r], 108)) };
        }
    }
    sides.set_shifted(0, vectors[0], -Q3K_ZERO);
    sides.set_shifted(8, vectors[1], -Q3K_ZERO);
}

#[inline]
#[target_feature(enable = "avx2")]
fn q6_k_sides(blocks: [&[u8; Q6K_BYTES]; PANEL_ROWS], sides: &mut Sides) {
    for first in [0, 8] {
        let mut vectors = [_mm256_setzero_ps(); PANEL_ROWS];
        for r in 0..PANEL_ROWS {
            // SAFETY: this function's features are those that `scaled_signed` asks for.
            vectors[r] = unsafe { scaled_signed(eight(blocks[r], 192 + first), half_at(blocks[r], 208)) };
        }
        sides.set_shifted(first, vectors, -Q6K_ZERO);
    }
}
