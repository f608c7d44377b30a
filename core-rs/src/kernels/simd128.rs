//! WebAssembly's 128-bit forms of the kernels. Unpacking and the dot product are written by hand; the
//! other loops are the portable bodies, which the compiler turns into vectors by itself: a module is built either with
//! or without these instructions, so there is nothing to detect and no unsafe door to them.

use std::arch::wasm32::*;
use std::ops::Range;

use super::blocks::{
    BLOCK, Format, Q4_0_BYTES, Q4_0_ZERO, Q4_1_BYTES, Q5_0_BYTES, Q5_0_ZERO, Q5_1_BYTES, Row, RowMut, Rows, StoredRows,
    half_at,
};
use super::dispatch::{Kernels, Scratch};
use super::{scalar, vector};

/// Tokens multiplied at once, a lane each.
const PANEL_TOKENS: usize = 4;

/// Weight rows that are multiplied at once.
const PANEL_ROWS: usize = 2;

pub(super) static KERNELS: Kernels = Kernels {
    name: "simd128",
    formats: &[Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1],
    panel_rows: PANEL_ROWS,
    quantize: |values, k, rows| rows.quantize(values, k),
    product,
    floats: scalar::floats,
    attend: |head, out| vector::attend(head, out, vector::dots),
    swiglu: |gate, up, out| vector::swiglu(gate, up, out),
};

/// Where there is one row alone, what the second held before is multiplied too, and means nothing.
fn product(scratch: &mut Scratch, stored: StoredRows<'_>, x: &Rows<i8>, tokens: Range<usize>, out: &mut [f32]) {
    let StoredRows { format, bytes, k } = stored;
    scratch.rows.reshape(PANEL_ROWS, k, 1);
    for (i, bytes) in bytes.chunks_exact(format.row_bytes(k)).enumerate() {
        unpack_row(format, bytes, scratch.rows.row_mut(i));
    }
    panel(&scratch.rows, x, tokens.start, out.as_chunks_mut().0);
}

/// Stored blocks as `blocks` describes them.
#[inline]
fn unpack_row(format: Format, bytes: &[u8], row: RowMut<'_, u8>) {
    let sides = row.q.iter_mut().zip(row.scale).zip(row.side);
    match format {
        Format::Q4_0 => {
            for (block, ((q, scale), side)) in bytes.as_chunks::<Q4_0_BYTES>().0.iter().zip(sides) {
                let [_, _, nibbles @ ..] = block;
                *scale = half_at(block, 0);
                *side = -Q4_0_ZERO * *scale;
                store(q, spread_nibbles(nibbles));
            }
        }
        Format::Q4_1 => {
            for (block, ((q, scale), side)) in bytes.as_chunks::<Q4_1_BYTES>().0.iter().zip(sides) {
                let [_, _, _, _, nibbles @ ..] = block;
                (*scale, *side) = (half_at(block, 0), half_at(block, 2));
                store(q, spread_nibbles(nibbles));
            }
        }
        Format::Q5_0 => {
            for (block, ((q, scale), side)) in bytes.as_chunks::<Q5_0_BYTES>().0.iter().zip(sides) {
                let [_, _, h0, h1, h2, h3, nibbles @ ..] = block;
                *scale = half_at(block, 0);
                *side = -Q5_0_ZERO * *scale;
                store(q, with_fifth_bits(spread_nibbles(nibbles), [*h0, *h1, *h2, *h3]));
            }
        }
        Format::Q5_1 => {
            for (block, ((q, scale), side)) in bytes.as_chunks::<Q5_1_BYTES>().0.iter().zip(sides) {
                let [_, _, _, _, h0, h1, h2, h3, nibbles @ ..] = block;
                (*scale, *side) = (half_at(block, 0), half_at(block, 2));
                store(q, with_fifth_bits(spread_nibbles(nibbles), [*h0, *h1, *h2, *h3]));
            }
        }
        _ => unreachable!("{format:?} is not in the table of formats"),
    }
}

/// Low nibbles to the first half, high nibbles to the second.
#[inline]
fn spread_nibbles(bytes: &[u8; BLOCK / 2]) -> [v128; 2] {
    // SAFETY: reads the array's 16 bytes; the instruction asks for no alignment.
    let bytes = unsafe { v128_load(bytes.as_ptr().cast()) };
    [v128_and(bytes, u8x16_splat(15)), u8x16_shr(bytes, 4)]
}

/// Bit i of the word becomes bit 4 of value i: each byte gets the word's byte that holds its bit, and keeps only that.
#[inline]
fn with_fifth_bits(q: [v128; 2], word: [u8; 4]) -> [v128; 2] {
    const BITS: v128 = u8x16(1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128);
    let word = u32x4_splat(u32::from_le_bytes(word));
    let spread = [
        u8x16_shuffle::<0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1>(word, word),
        u8x16_shuffle::<2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3>(word, word),
    ];
    std::array::from_fn(|half| {
        let set = u8x16_eq(v128_and(spread[half], BITS), BITS);
        v128_or(q[half], v128_and(set, u8x16_splat(16)))
    })
}

/// Four tokens at a time, then one; either way each product is what `scalar::dot` gives, to the bit: integers may be
/// added in any order, and the floats of a block are added as there, in lanes that stand for different products.
fn panel(w: &Rows<u8>, x: &Rows<i8>, first: usize, out: &mut [[f32; PANEL_ROWS]]) {
    let w = [w.row(0), w.row(1)];
    let (fours, ones) = out.as_chunks_mut::<PANEL_TOKENS>();
    let rest = first + fours.len() * PANEL_TOKENS;
    for (i, out) in fours.iter_mut().enumerate() {
        four_tokens(w, std::array::from_fn(|t| x.row(first + i * PANEL_TOKENS + t)), out);
    }
    for (i, out) in ones.iter_mut().enumerate() {
        one_token(w, x.row(rest + i), out);
    }
}

/// A lane per token, a vector of sums per weight row.
#[inline]
fn four_tokens(
    w: [Row<'_, u8>; PANEL_ROWS],
    x: [Row<'_, i8>; PANEL_TOKENS],
    out: &mut [[f32; PANEL_ROWS]; PANEL_TOKENS],
) {
    let n = w[0].q.len();
    // The same lengths for all of them, so that the indices below need no checks.
    let (w, x) = (w.map(|row| first_blocks(row, n)), x.map(|row| first_blocks(row, n)));
    let mut sums = [f32x4_splat(0.0); PANEL_ROWS];
    for b in 0..n {
        let xq = x.map(|x| widen_i8(&x.q[b]));
        let x_scale = f32x4(x[0].scale[b], x[1].scale[b], x[2].scale[b], x[3].scale[b]);
        let x_side = f32x4(x[0].side[b], x[1].side[b], x[2].side[b], x[3].side[b]);
        for (w, sum) in w.iter().zip(&mut sums) {
            let wq = widen_u8(&w.q[b]);
            let product = sum_each([dot(&wq, &xq[0]), dot(&wq, &xq[1]), dot(&wq, &xq[2]), dot(&wq, &xq[3])]);
            let (w_scale, w_side) = (f32x4_splat(w.scale[b]), f32x4_splat(w.side[b]));
            *sum = add_block(*sum, f32x4_mul(w_scale, x_scale), product, f32x4_mul(w_side, x_side));
        }
    }
    for (r, sum) in sums.into_iter().enumerate() {
        let lanes = lanes(sum);
        out.iter_mut().zip(lanes).for_each(|(out, lane)| out[r] = lane);
    }
}

/// A lane per weight row; the other two are idle.
#[inline]
fn one_token(w: [Row<'_, u8>; PANEL_ROWS], x: Row<'_, i8>, out: &mut [f32; PANEL_ROWS]) {
    let n = w[0].q.len();
    let (w, x) = (w.map(|row| first_blocks(row, n)), first_blocks(x, n));
    let mut sum = f32x4_splat(0.0);
    for b in 0..n {
        let xq = widen_i8(&x.q[b]);
        let [first, second] = w.map(|w| dot(&widen_u8(&w.q[b]), &xq));
        let product = sum_each([first, second, first, second]);
        let scale = f32x4_mul(f32x4(w[0].scale[b], w[1].scale[b], 0.0, 0.0), f32x4_splat(x.scale[b]));
        let side = f32x4_mul(f32x4(w[0].side[b], w[1].side[b], 0.0, 0.0), f32x4_splat(x.side[b]));
        sum = add_block(sum, scale, product, side);
    }
    out.copy_from_slice(&lanes(sum)[..PANEL_ROWS]);
}

#[inline]
fn first_blocks<T>(row: Row<'_, T>, n: usize) -> Row<'_, T> {
    Row { q: &row.q[..n], scale: &row.scale[..n], side: &row.side[..n] }
}

/// `sum + (scale * product + side)`, the order of `scalar::dot`.
#[inline]
fn add_block(sum: v128, scale: v128, product: v128, side: v128) -> v128 {
    f32x4_add(sum, f32x4_add(f32x4_mul(scale, f32x4_convert_i32x4(product)), side))
}

/// Four partial sums of the products of a block.
#[inline]
fn dot(w: &[v128; 4], x: &[v128; 4]) -> v128 {
    let [a, b, c, d] = std::array::from_fn(|i| i32x4_dot_i16x8(w[i], x[i]));
    i32x4_add(i32x4_add(a, b), i32x4_add(c, d))
}

/// The sum of each vector's four numbers, in its lane.
#[inline]
fn sum_each([a, b, c, d]: [v128; 4]) -> v128 {
    let ab = i32x4_add(i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b));
    let cd = i32x4_add(i32x4_shuffle::<0, 4, 1, 5>(c, d), i32x4_shuffle::<2, 6, 3, 7>(c, d));
    i32x4_add(i32x4_shuffle::<0, 1, 4, 5>(ab, cd), i32x4_shuffle::<2, 3, 6, 7>(ab, cd))
}

#[inline]
fn lanes(v: v128) -> [f32; 4] {
    [f32x4_extract_lane::<0>(v), f32x4_extract_lane::<1>(v), f32x4_extract_lane::<2>(v), f32x4_extract_lane::<3>(v)]
}

/// A block as sixteen-bit numbers, four vectors of eight.
#[inline]
fn widen_u8(from: &[u8; BLOCK]) -> [v128; 4] {
    let at = from.as_ptr();
    // SAFETY: reads the array's 32 bytes, eight at a time; the instruction asks for no alignment.
    std::array::from_fn(|i| unsafe { i16x8_load_extend_u8x8(at.add(8 * i)) })
}

/// As [`widen_u8`], with signs.
#[inline]
fn widen_i8(from: &[i8; BLOCK]) -> [v128; 4] {
    let at = from.as_ptr();
    // SAFETY: as `widen_u8`.
    std::array::from_fn(|i| unsafe { i16x8_load_extend_i8x8(at.add(8 * i)) })
}

#[inline]
fn store(to: &mut [u8; BLOCK], halves: [v128; 2]) {
    let at = to.as_mut_ptr().cast::<v128>();
    // SAFETY: writes the array's 32 bytes; the instruction asks for no alignment.
    unsafe {
        v128_store(at, halves[0]);
        v128_store(at.add(1), halves[1]);
    }
}
