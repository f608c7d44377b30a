//! K-quants: a super-block of 256 values in sub-blocks whose scales (and minima) are themselves quantised.
//!
//! `search` finds the scales; here they are rounded, and every value takes the level nearest to it under the rounded
//! scale. Where that is zero, ggml leaves the levels of the search: no reader sees them, but they are bytes of the
//! file.
//!
//! Layouts: `block_q*_K` of ggml's `ggml-common.h`.

use std::array;

use half::f16;

use super::legacy::half;
use super::search::{Affine, Count, Refined, Symmetric, Tries, ZERO, level, transposed};
use crate::formats::gguf::GgmlType;
use crate::kernels::{Lanes, WIDTH, nearest};

/// Values of a super-block.
const QK_K: usize = 256;
/// Values of a short sub-block (2, 3 and 6 bits), and how many there are.
const SHORT: usize = 16;
const N_SHORT: usize = QK_K / SHORT;
/// Values of a long sub-block (4 and 5 bits); there are as many as lanes.
const LONG: usize = 32;
/// Values in as many short sub-blocks as there are lanes.
const HALF: usize = WIDTH * SHORT;

/// The levels of a super-block, in the order of its values.
type Levels = [u8; QK_K];

/// `{ u8 (scale | min << 4)[16]; u8 q[64]; f16 d, dmin }`: `d * scale * q - dmin * min`
#[inline(always)]
pub(super) fn q2_k<V: Lanes>(x: &[f32; QK_K], y: &mut [u8; GgmlType::Q2K.type_size()]) {
    const TRIES: Tries = Tries { max: 3.0, first: -0.5, step: 0.1, last: 15 };
    const MAX_SCALE: f32 = 15.0;
    let x = halves::<V>(x);
    let fits = [short_fit(&x[0], TRIES), short_fit(&x[1], TRIES)];
    let max_scale = both_halves(fits[0].scale, fits[1].scale).into_iter().fold(0.0, larger);
    let max_min = both_halves(fits[0].min, fits[1].min).into_iter().fold(0.0, larger);
    let (d, d_min) = (half(max_scale / MAX_SCALE), half(max_min / MAX_SCALE));
    let [by_scale, by_min] = [max_scale, max_min].map(|max| if max > 0.0 { MAX_SCALE / max } else { 0.0 });
    let mut levels = [0; QK_K];
    let (packed, rest) = y.split_at_mut(N_SHORT);
    for (h, packed) in packed.as_chunks_mut::<WIDTH>().0.iter_mut().enumerate() {
        let (scales, mins) = (fits[h].scale.store(), fits[h].min.store());
        *packed = array::from_fn(|k| (nearest(by_scale * scales[k]) | nearest(by_min * mins[k]) << 4) as u8);
        let scale = V::load(packed.map(|p| widened(d) * f32::from(p & 15)));
        let min = V::load(packed.map(|p| widened(d_min) * f32::from(p >> 4)));
        affine_levels(&x[h], &fits[h], scale, min, TRIES.max, &mut levels[h * HALF..][..HALF]);
    }
    pack_pairs(&levels, &mut rest[..QK_K / 4]);
    rest[QK_K / 4..].copy_from_slice([d, d_min].as_flattened());
}

/// The magnitudes of the values are their weights, and those of the differences their errors.
#[inline(always)]
fn short_fit<V: Lanes>(x: &[V; SHORT], tries: Tries) -> Affine<V> {
    let mut weights = *x;
    for w in &mut weights {
        *w = w.abs();
    }
    Affine::search(x, &weights, tries, Count::Magnitude)
}

/// `{ u8 third bits[32]; u8 q[64]; u8 scales[12]; f16 d }`: `d * (scale - 32) * (q - 4)`
#[inline(always)]
pub(super) fn q3_k<V: Lanes>(x: &[f32; QK_K], y: &mut [u8; GgmlType::Q3K.type_size()]) {
    let x = halves::<V>(x);
    let fits = [Refined::search(&x[0], 4.0), Refined::search(&x[1], 4.0)];
    let exact = both_halves(fits[0].scale, fits[1].scale);
    let max = exact.into_iter().fold(0.0, larger_magnitude);
    let inverse = -32.0 / max;
    let (d, scales) = if max == 0.0 {
        ([0; 2], [0; N_SHORT])
    } else {
        (half(1.0 / inverse), exact.map(|s| ((nearest(inverse * s) as i8).clamp(-32, 31) + 32) as u8))
    };
    let mut levels = [0; QK_K];
    for (h, fit) in fits.iter().enumerate() {
        let scale = V::load(array::from_fn(|k| widened(d) * (f32::from(scales[h * WIDTH + k]) - 32.0)));
        symmetric_levels(&x[h], scale, 4.0, &fit.levels, &mut levels[h * HALF..][..HALF]);
    }
    let (third, rest) = y.split_at_mut(QK_K / 8);
    let (q, rest) = rest.split_at_mut(QK_K / 4);
    pack_bits(&levels, 2, third);
    pack_pairs(&levels.map(|l| l & 3), q);
    pack_q3_scales(&scales, &mut rest[..12]);
    rest[12..].copy_from_slice(&d);
}

/// Sixteen 6-bit scales: 4 low bits of i and i + 8 in byte i, then the upper bits of every fourth one together.
#[inline(always)]
fn pack_q3_scales(scales: &[u8; N_SHORT], out: &mut [u8]) {
    for i in 0..8 {
        out[i] = scales[i] & 15 | scales[i + 8] << 4;
    }
    for i in 0..4 {
        out[i + 8] = (0..4).fold(0, |bits, j| bits | scales[i + 4 * j] >> 4 << (2 * j));
    }
}

/// `{ f16 d, dmin; u8 scales[12]; u8 q[128] }`: `d * scale * q - dmin * min`
#[inline(always)]
pub(super) fn q4_k<V: Lanes>(x: &[f32; QK_K], y: &mut [u8; GgmlType::Q4K.type_size()]) {
    let (header, q) = y.split_at_mut(16);
    let levels = long::<V>(x, Tries { max: 15.0, first: -1.0, step: 0.1, last: 20 }, header);
    pack_nibbles(&levels, q);
}

/// `{ f16 d, dmin; u8 scales[12]; u8 fifth bits[32]; u8 q[128] }`: `d * scale * q - dmin * min`
#[inline(always)]
pub(super) fn q5_k<V: Lanes>(x: &[f32; QK_K], y: &mut [u8; GgmlType::Q5K.type_size()]) {
    let (header, rest) = y.split_at_mut(16);
    let levels = long::<V>(x, Tries { max: 31.0, first: -0.5, step: 0.1, last: 15 }, header);
    let (fifth, q) = rest.split_at_mut(QK_K / 8);
    pack_bits(&levels, 4, fifth);
    pack_nibbles(&levels.map(|l| l & 15), q);
}

/// What 4-bit and 5-bit blocks share: scales and minima of 6 bits in the header, and the levels.
#[inline(always)]
fn long<V: Lanes>(x: &[f32; QK_K], tries: Tries, header: &mut [u8]) -> Levels {
    const MAX_SCALE: f32 = 63.0;
    let x = transposed::<V, LONG>(x);
    let fit = Affine::search(&x, &long_weights(&x), tries, Count::Square);
    let [exact, exact_min] = [fit.scale.store(), fit.min.store()];
    let [max_scale, max_min] = [exact, exact_min].map(|v| v.into_iter().fold(0.0, larger));
    let [d, d_min] = [max_scale, max_min].map(|max| half(max / MAX_SCALE));
    let round = |max: f32, v: [f32; WIDTH]| {
        let inverse = if max > 0.0 { MAX_SCALE / max } else { 0.0 };
        v.map(|v| (nearest(inverse * v) as u8).min(MAX_SCALE as u8))
    };
    let (scales, mins) = (round(max_scale, exact), round(max_min, exact_min));
    header[..2].copy_from_slice(&d);
    header[2..4].copy_from_slice(&d_min);
    pack_scales_and_mins(&scales, &mins, &mut header[4..]);
    let mut levels = [0; QK_K];
    let scale = V::load(scales.map(|s| widened(d) * f32::from(s)));
    let min = V::load(mins.map(|m| widened(d_min) * f32::from(m)));
    affine_levels(&x, &fit, scale, min, tries.max, &mut levels);
    levels
}

/// Magnitudes plus their quadratic mean.
#[inline(always)]
fn long_weights<V: Lanes>(x: &[V; LONG]) -> [V; LONG] {
    let mut squares = V::splat(0.0);
    for &x in x {
        squares = squares + x * x;
    }
    let mean = (squares / V::splat(LONG as f32)).sqrt();
    let mut weights = *x;
    for w in &mut weights {
        *w = mean + w.abs();
    }
    weights
}

/// Eight scales and minima of 6 bits: the first four whole, the last four in what is left of them and four bytes more.
#[inline(always)]
fn pack_scales_and_mins(scales: &[u8; WIDTH], mins: &[u8; WIDTH], out: &mut [u8]) {
    for i in 0..4 {
        out[i] = scales[i] | scales[i + 4] >> 4 << 6;
        out[i + 4] = mins[i] | mins[i + 4] >> 4 << 6;
        out[i + 8] = scales[i + 4] & 15 | mins[i + 4] << 4;
    }
}

/// `{ u8 low[128]; u8 high[64]; i8 scales[16]; f16 d }`: `d * scale * (q - 32)`
#[inline(always)]
pub(super) fn q6_k<V: Lanes>(x: &[f32; QK_K], y: &mut [u8; GgmlType::Q6K.type_size()]) {
    const STEPS: f32 = 32.0;
    let x = halves::<V>(x);
    let fits = [Symmetric::search(&x[0], STEPS), Symmetric::search(&x[1], STEPS)];
    let exact = both_halves(fits[0].scale, fits[1].scale);
    let max = exact.into_iter().fold(0.0, larger_magnitude);
    if max.abs() < ZERO {
        return y.fill(0);
    }
    let inverse = -128.0 / max;
    let (d, scales) = (half(1.0 / inverse), exact.map(|s| nearest(inverse * s).min(127) as i8));
    let mut levels = [0; QK_K];
    for (h, fit) in fits.iter().enumerate() {
        let scale = V::load(array::from_fn(|k| widened(d) * f32::from(scales[h * WIDTH + k])));
        let mut searched = x[h];
        for v in &mut searched {
            *v = fit.levels(*v, STEPS);
        }
        symmetric_levels(&x[h], scale, STEPS, &searched, &mut levels[h * HALF..][..HALF]);
    }
    let (low, rest) = y.split_at_mut(QK_K / 2);
    let (high, rest) = rest.split_at_mut(QK_K / 4);
    pack_sixes(&levels, low, high);
    rest[..N_SHORT].copy_from_slice(&scales.map(|s| s as u8));
    rest[N_SHORT..].copy_from_slice(&d);
}

/// Low nibbles of value i and i + 64 together, of each half; upper pairs as in [`pack_pairs`].
#[inline(always)]
fn pack_sixes(levels: &Levels, low: &mut [u8], high: &mut [u8]) {
    for (levels, low) in levels.as_chunks::<HALF>().0.iter().zip(low.as_chunks_mut::<{ HALF / 2 }>().0) {
        for (i, low) in low.iter_mut().enumerate() {
            *low = levels[i] & 15 | levels[i + HALF / 2] << 4;
        }
    }
    pack_pairs(&levels.map(|l| l >> 4), high);
}

/// Four levels of 2 bits in a byte, 32 apart, of each half.
#[inline(always)]
fn pack_pairs(levels: &Levels, out: &mut [u8]) {
    for (levels, out) in levels.as_chunks::<HALF>().0.iter().zip(out.as_chunks_mut::<{ HALF / 4 }>().0) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = levels[i] | levels[i + 32] << 2 | levels[i + 64] << 4 | levels[i + 96] << 6;
        }
    }
}

/// Two levels of 4 bits in a byte, 32 apart, of each 64.
#[inline(always)]
fn pack_nibbles(levels: &Levels, out: &mut [u8]) {
    for (levels, out) in levels.as_chunks::<64>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = levels[i] | levels[i + 32] << 4;
        }
    }
}

/// Bit `bit` of eight levels in a byte, 32 apart.
#[inline(always)]
fn pack_bits(levels: &Levels, bit: usize, out: &mut [u8]) {
    for (j, out) in out.iter_mut().enumerate() {
        *out = (0..8).fold(0, |bits, i| bits | (levels[i * 32 + j] >> bit & 1) << i);
    }
}

/// The values of short sub-blocks side by side, half a super-block each.
#[inline(always)]
fn halves<V: Lanes>(x: &[f32; QK_K]) -> [[V; SHORT]; 2] {
    [transposed(&x[..HALF]), transposed(&x[HALF..])]
}

/// A number of each short sub-block.
#[inline(always)]
fn both_halves<V: Lanes>(first: V, second: V) -> [f32; N_SHORT] {
    let halves = [first.store(), second.store()];
    array::from_fn(|i| halves[i / WIDTH][i % WIDTH])
}

/// The nearest levels under `scale * l - min`; the search's own where the scale is zero.
#[inline(always)]
fn affine_levels<V: Lanes, const N: usize>(x: &[V; N], fit: &Affine<V>, scale: V, min: V, max: f32, out: &mut [u8]) {
    let none = scale.eq(V::splat(0.0));
    for (i, &x) in x.iter().enumerate() {
        let nearest = level((x + min) / scale, 0.0, max);
        put::<V, N>(out, i, V::select(none, fit.levels(x, max), nearest));
    }
}

/// The nearest levels under `scale * (l - half)`; those of the search where the scale is zero.
#[inline(always)]
fn symmetric_levels<V: Lanes, const N: usize>(x: &[V; N], scale: V, half: f32, searched: &[V; N], out: &mut [u8]) {
    let none = scale.eq(V::splat(0.0));
    for (i, &x) in x.iter().enumerate() {
        let nearest = level(x / scale, -half, half - 1.0) + V::splat(half);
        put::<V, N>(out, i, V::select(none, searched[i], nearest));
    }
}

/// Level `i` of each sub-block of `N` to its place.
#[inline(always)]
fn put<V: Lanes, const N: usize>(out: &mut [u8], i: usize, levels: V) {
    for (k, l) in levels.store().into_iter().enumerate() {
        out[k * N + i] = l as i32 as u8;
    }
}

/// A stored scale as readers see it.
#[inline(always)]
fn widened(d: [u8; 2]) -> f32 {
    f16::from_le_bytes(d).to_f32()
}

#[inline(always)]
fn larger(max: f32, v: f32) -> f32 {
    if v > max { v } else { max }
}

/// The first of the largest magnitude, with its sign.
#[inline(always)]
fn larger_magnitude(max: f32, v: f32) -> f32 {
    if v.abs() > max.abs() { v } else { max }
}
