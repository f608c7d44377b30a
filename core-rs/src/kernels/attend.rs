//! Attention over a paged cache, page by page with a running maximum and sum (the online softmax of FlashAttention,
//! arXiv 2205.14135): scores never take more room than a page.
//!
//! A page holds [`PAGE`] tokens. For each key head it has their keys turned, `[dim][token]`, so that a lane stands for a
//! token and no sum crosses lanes, and their values as they are, `[token][dim]`. Elements are f16, or 8 bits with an f16
//! scale for each 32 values of a token (ggml's Q8_0), the scales of all tokens together: `[block][token]`.
//!
//! What a query gets from the tokens of a chunk ([`CHUNK_PAGES`] pages from a fixed place on) is computed apart and added
//! up chunk by chunk, so that threads may share a long context and a result still does not depend on who did what.

// Counted loops over small arrays: what an iterator's closure does is not inlined before it gets its features.
#![allow(clippy::needless_range_loop)]

use std::cell::RefCell;
use std::ops::Range;

use super::blocks::BLOCK;
use super::dispatch::active;
use super::memory::LINE;
use super::simd::Simd;
use super::vector::{LANES, exp, sum_lanes};

/// Tokens of a page.
pub(crate) const PAGE: usize = 32;
/// Pages of a chunk.
pub(crate) const CHUNK_PAGES: usize = 8;
/// Queries that attend together at most: what is read of a page serves them all.
pub(crate) const QUERIES: usize = 16;
/// From this many queries on, a page is widened to f32 once for all of them, unless registers have room for `WIDE`: then
/// the way through the cache takes longer than widening again.
const WIDEN_FROM: usize = 3;
const WIDE: usize = 8;
/// Blocks that are summed side by side where one has few sums, which would wait for one another.
const TOGETHER: usize = 2;
/// Largest magnitude of an 8-bit element.
const LARGEST: f32 = 127.0;

/// Whether `queries` have few sums of a block, with so many vectors each: more, twice, would not stay in registers.
const fn few_sums(queries: usize, vectors: usize) -> bool {
    queries == 1 || queries * vectors <= 6
}

/// How keys and values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheType {
    /// Single precision: exact, and twice the memory of f16.
    F32,
    /// Half precision.
    #[default]
    F16,
    /// 8 bits and an f16 scale for each 32 values.
    #[serde(rename = "q8_0")]
    Q8_0,
}

impl CacheType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Q8_0];

    /// Its name, as llama.cpp has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether heads of `dim` values can be kept so.
    pub fn fits(self, dim: usize) -> bool {
        self != Self::Q8_0 || dim.is_multiple_of(BLOCK)
    }

    /// Bytes of the keys (or the values) of one head in a page.
    const fn part_bytes(self, dim: usize) -> usize {
        match self {
            Self::F32 => 4 * PAGE * dim,
            Self::F16 => 2 * PAGE * dim,
            Self::Q8_0 => PAGE * (dim + 2 * (dim / BLOCK)),
        }
    }

    /// Bytes of keys and values of one head in a page.
    pub(crate) const fn head_bytes(self, dim: usize) -> usize {
        2 * self.part_bytes(dim)
    }

    /// Writes key and value of a token to `slot` of a head's part of a page.
    pub(crate) fn write(self, head: &mut [u8], slot: usize, key: &[f32], value: &[f32]) {
        let dim = key.len();
        let (keys, values) = head.split_at_mut(self.part_bytes(dim));
        match self {
            Self::F32 => write_floats(keys, values, slot, key, value, f32::to_le_bytes),
            Self::F16 => write_floats(keys, values, slot, key, value, |v| half::f16::from_f32(v).to_le_bytes()),
            Self::Q8_0 => {
                let scales = 2 * PAGE * (dim / BLOCK);
                for (b, block) in key.chunks_exact(BLOCK).enumerate() {
                    let (scale, q) = quantised(block);
                    keys[2 * (b * PAGE + slot)..][..2].copy_from_slice(&scale);
                    q.iter().enumerate().for_each(|(i, &q)| keys[scales + (b * BLOCK + i) * PAGE + slot] = q as u8);
                }
                for (b, block) in value.chunks_exact(BLOCK).enumerate() {
                    let (scale, q) = quantised(block);
                    values[2 * (b * PAGE + slot)..][..2].copy_from_slice(&scale);
                    let to = &mut values[scales + slot * dim + b * BLOCK..][..BLOCK];
                    to.iter_mut().zip(q).for_each(|(to, q)| *to = q as u8);
                }
            }
        }
    }
}

/// Writes key and value of a token as numbers of `N` bytes.
fn write_floats<const N: usize>(
    keys: &mut [u8],
    values: &mut [u8],
    slot: usize,
    key: &[f32],
    value: &[f32],
    bytes: impl Fn(f32) -> [u8; N],
) {
    for (d, &v) in key.iter().enumerate() {
        keys[N * (d * PAGE + slot)..][..N].copy_from_slice(&bytes(v));
    }
    for (to, &v) in values[N * slot * value.len()..].chunks_exact_mut(N).zip(value) {
        to.copy_from_slice(&bytes(v));
    }
}

/// A block as Q8_0 has it: the f16 scale, and numbers that fit what is left of it after rounding.
fn quantised(block: &[f32]) -> ([u8; 2], [i8; BLOCK]) {
    let top = block.iter().fold(0.0_f32, |top, v| if v.abs() > top || v.is_nan() { v.abs() } else { top });
    let scale = half::f16::from_f32(top / LARGEST);
    let inverse = if top > 0.0 { LARGEST / top } else { 0.0 };
    let mut q = [0; BLOCK];
    q.iter_mut().zip(block).for_each(|(q, v)| *q = (v * inverse).round() as i8);
    (scale.to_le_bytes(), q)
}

/// What some queries of one key head have gathered so far: a largest score, a sum of weights and a weighted sum of
/// values for each.
pub(crate) struct Gathered<'a> {
    /// `[query]`: largest score and sum.
    pub(crate) sums: &'a mut [[f32; 2]],
    /// `[query][dim]`.
    pub(crate) values: &'a mut [f32],
}

/// Largest score and sum of a query that has seen nothing.
pub(crate) const NOTHING: [f32; 2] = [f32::NEG_INFINITY, 0.0];

/// Some queries and a page.
pub(crate) struct PageJob<'a> {
    pub(crate) kind: CacheType,
    /// The head's part of the page.
    pub(crate) head: &'a [u8],
    /// `[query][dim]`.
    pub(crate) queries: &'a [f32],
    /// The tokens of the page that each query sees.
    pub(crate) seen: &'a [Range<usize>],
    pub(crate) dim: usize,
    /// The head's part of the page that comes next, if any: it is asked for meanwhile.
    pub(crate) next: Option<&'a [u8]>,
}

/// Adds to what a query has gathered in some chunks what it has gathered in the next.
pub(crate) fn add_chunk(sums: &mut [f32; 2], values: &mut [f32], more: [f32; 2], more_values: &[f32]) {
    if more[0] == f32::NEG_INFINITY {
        return;
    }
    if sums[0] == f32::NEG_INFINITY {
        *sums = more;
        values.copy_from_slice(more_values);
        return;
    }
    let top = if more[0] > sums[0] { more[0] } else { sums[0] };
    let (old, new) = (exp(sums[0] - top), exp(more[0] - top));
    *sums = [top, sums[1] * old + more[1] * new];
    values.iter_mut().zip(more_values).for_each(|(v, more)| *v = *v * old + more * new);
}

/// Room for a widened page, on its thread.
#[derive(Default)]
pub(super) struct PageScratch {
    keys: Vec<f32>,
    values: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<PageScratch> = RefCell::default();
}

/// Lets queries attend to a page, and adds what they get to what they have, on the active instruction set.
pub(crate) fn look(job: &PageJob<'_>, gathered: &mut Gathered<'_>) {
    SCRATCH.with_borrow_mut(|scratch| (active().kernels().attend)(job, scratch, gathered));
}

/// Keys or values of a head as they lie in memory.
trait Element<S: Simd>: Copy {
    unsafe fn load(from: *const Self) -> S::Float;
    unsafe fn one(from: *const Self) -> f32;
}

/// Bits of an f16.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Half([u8; 2]);

impl<S: Simd> Element<S> for Half {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> S::Float {
        // SAFETY: as the caller's.
        unsafe { S::halves(from.cast()) }
    }

    #[inline(always)]
    unsafe fn one(from: *const Self) -> f32 {
        // SAFETY: as the caller's.
        super::blocks::half_to_f32(u16::from_le_bytes(unsafe { *from }.0))
    }
}

impl<S: Simd> Element<S> for i8 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> S::Float {
        // SAFETY: as the caller's.
        unsafe { S::signed(from.cast()) }
    }

    #[inline(always)]
    unsafe fn one(from: *const Self) -> f32 {
        // SAFETY: as the caller's.
        f32::from(unsafe { *from })
    }
}

impl<S: Simd> Element<S> for f32 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> S::Float {
        // SAFETY: as the caller's.
        unsafe { S::floats(from) }
    }

    #[inline(always)]
    unsafe fn one(from: *const Self) -> f32 {
        // SAFETY: as the caller's. Bytes of a page need not lie as floats do.
        unsafe { from.read_unaligned() }
    }
}

/// A head's part of a page by pointers; scales are null where there are none.
#[derive(Clone, Copy)]
struct Parts<K> {
    keys: *const K,
    key_scales: *const u8,
    values: *const K,
    value_scales: *const u8,
    /// From here to the same place of the page that comes next, in bytes; none: nobody is to ask for it.
    ahead: Option<isize>,
}

impl<K> Parts<K> {
    /// Asks for what the next page has where this one has `from` and `n` elements behind it. A whole page at once would be
    /// more than a processor has places for what it waits for.
    #[inline(always)]
    unsafe fn prefetch<S: Simd>(&self, from: *const K, n: usize) {
        if let Some(ahead) = self.ahead {
            for line in 0..(n * size_of::<K>()).div_ceil(LINE) {
                // SAFETY: prefetches read nothing.
                unsafe { S::prefetch(from.cast::<u8>().wrapping_offset(ahead).wrapping_add(line * LINE)) };
            }
        }
    }
}

/// Lets queries attend to a page, and adds what they get to what they have. `N` vectors are [`PAGE`] lanes; `Q` queries
/// that see the same tokens go together, so that sums do not wait for one another.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn attend<S: Simd, const N: usize, const Q: usize>(
    job: &PageJob<'_>,
    scratch: &mut PageScratch,
    gathered: &mut Gathered<'_>,
) {
    const { assert!(N * S::LANES == PAGE && PAGE == BLOCK) };
    let (dim, n) = (job.dim, job.seen.len());
    assert!(job.head.len() == job.kind.head_bytes(dim) && job.kind.fits(dim), "bytes of a page");
    assert!(n <= QUERIES && job.queries.len() == n * dim && job.seen.iter().all(|seen| seen.end <= PAGE), "queries");
    assert!(gathered.sums.len() == n && gathered.values.len() == n * dim, "room for what is gathered");
    let (keys, values) = job.head.split_at(job.kind.part_bytes(dim));
    let ahead = job.next.map(|next| next.as_ptr().addr().wrapping_sub(job.head.as_ptr().addr()).cast_signed());
    // SAFETY: the parts are as long as the assertions say.
    unsafe {
        match job.kind {
            CacheType::F32 => page::<S, f32, false, N, Q>(job, plain(keys, values, ahead), gathered),
            CacheType::F16 => with_width::<S, Half, false, N, Q>(job, plain(keys, values, ahead), scratch, gathered),
            CacheType::Q8_0 => {
                let scales = 2 * PAGE * (dim / BLOCK);
                let parts = Parts::<i8> {
                    keys: keys[scales..].as_ptr().cast(),
                    key_scales: keys.as_ptr(),
                    values: values[scales..].as_ptr().cast(),
                    value_scales: values.as_ptr(),
                    ahead,
                };
                with_width::<S, i8, true, N, Q>(job, parts, scratch, gathered);
            }
        }
    }
}

/// Parts without scales.
#[inline(always)]
fn plain<K>(keys: &[u8], values: &[u8], ahead: Option<isize>) -> Parts<K> {
    let (keys, values, null) = (keys.as_ptr().cast(), values.as_ptr().cast(), std::ptr::null());
    Parts { keys, key_scales: null, values, value_scales: null, ahead }
}

#[inline(always)]
unsafe fn with_width<S: Simd, K: Element<S>, const SCALED: bool, const N: usize, const Q: usize>(
    job: &PageJob<'_>,
    parts: Parts<K>,
    scratch: &mut PageScratch,
    gathered: &mut Gathered<'_>,
) {
    // SAFETY: as `attend`; a widened page has as many elements.
    unsafe {
        if job.seen.len() < WIDEN_FROM || Q >= WIDE {
            return page::<S, K, SCALED, N, Q>(job, parts, gathered);
        }
        let len = PAGE * job.dim;
        scratch.keys.resize(len, 0.0);
        scratch.values.resize(len, 0.0);
        for i in (0..len).step_by(S::LANES) {
            parts.prefetch::<S>(parts.keys.add(i), S::LANES);
            parts.prefetch::<S>(parts.values.add(i), S::LANES);
            S::store(scratch.keys.as_mut_ptr().add(i), K::load(parts.keys.add(i)));
            S::store(scratch.values.as_mut_ptr().add(i), K::load(parts.values.add(i)));
        }
        let Parts { key_scales, value_scales, .. } = parts;
        let (keys, values) = (scratch.keys.as_ptr(), scratch.values.as_ptr());
        let widened = Parts { keys, key_scales, values, value_scales, ahead: None };
        page::<S, f32, SCALED, N, Q>(job, widened, gathered);
    }
}

#[inline(always)]
unsafe fn page<S: Simd, K: Element<S>, const SCALED: bool, const N: usize, const Q: usize>(
    job: &PageJob<'_>,
    parts: Parts<K>,
    gathered: &mut Gathered<'_>,
) {
    let (mut i, n, mut parts) = (0, job.seen.len(), parts);
    while i < n {
        let alike = job.seen[i..].iter().take_while(|seen| seen.start == job.seen[i].start).count();
        // SAFETY: as `attend`; there are as many queries from `i` on.
        i += unsafe {
            match alike {
                8.. if Q >= 8 => some::<S, K, SCALED, N, 8>(job, parts, i, gathered),
                4.. if Q >= 4 => some::<S, K, SCALED, N, 4>(job, parts, i, gathered),
                // The group of many a model.
                3 if Q >= 4 => some::<S, K, SCALED, N, 3>(job, parts, i, gathered),
                2.. if Q >= 2 => some::<S, K, SCALED, N, 2>(job, parts, i, gathered),
                _ => some::<S, K, SCALED, N, 1>(job, parts, i, gathered),
            }
        };
        parts.ahead = None;
    }
}

/// The look of `Q` queries from `first` on, which see tokens from the same one on. What all of them see is added for all
/// at once, and then for each what only some see: the order of its tokens. Returns `Q`.
#[inline(always)]
unsafe fn some<S: Simd, K: Element<S>, const SCALED: bool, const N: usize, const Q: usize>(
    job: &PageJob<'_>,
    parts: Parts<K>,
    first: usize,
    gathered: &mut Gathered<'_>,
) -> usize {
    let (dim, scale, seen) = (job.dim, 1.0 / (job.dim as f32).sqrt(), &job.seen[first..first + Q]);
    let start = seen[0].start;
    let common = start..seen.iter().fold(PAGE, |end, seen| end.min(seen.end)).max(start);
    let all = seen.iter().fold(start, |end, seen| end.max(seen.end));
    if all == start {
        return Q;
    }
    let mut weights = [[0.0; PAGE]; Q];
    let values = &mut gathered.values[first * dim..][..Q * dim];
    // SAFETY: as `attend`; each query has `dim` values.
    unsafe {
        scores::<S, K, SCALED, N, Q>(&job.queries[first * dim..][..Q * dim], dim, parts, &mut weights);
        let sums = &mut gathered.sums[first..first + Q];
        let shrink = weigh(&mut weights, seen, scale, sums.first_chunk_mut().expect("as many queries"));
        add_values::<S, K, SCALED, N, Q>(&weights, &common, dim, parts, &shrink, values);
        for (q, seen) in seen.iter().enumerate().filter(|(_, seen)| seen.end > common.end) {
            let (weights, values) = (std::slice::from_ref(&weights[q]), &mut values[q * dim..][..dim]);
            let weights = weights.first_chunk().expect("one query");
            add_values::<S, K, SCALED, N, 1>(weights, &(common.end..seen.end), dim, parts, &[1.0], values);
        }
    }
    Q
}

/// Products of queries with the keys of all tokens of the page, a lane for each token.
#[inline(always)]
unsafe fn scores<S: Simd, K: Element<S>, const SCALED: bool, const N: usize, const Q: usize>(
    queries: &[f32],
    dim: usize,
    parts: Parts<K>,
    out: &mut [[f32; PAGE]; Q],
) {
    // SAFETY: queries are `[Q][dim]`, keys `[dim][PAGE]`, scales `[dim / BLOCK][PAGE]`.
    unsafe {
        let mut total = [[S::splat(0.0); N]; Q];
        if !SCALED {
            [total] = sums::<S, K, N, Q, 1>(queries, dim, parts, 0, dim);
        } else {
            let (mut at, blocks) = (0, dim / BLOCK);
            while few_sums(Q, N) && at + TOGETHER <= blocks {
                let sums = sums::<S, K, N, Q, TOGETHER>(queries, dim, parts, at * BLOCK, BLOCK);
                // No closure: where it is not inlined it has no vector instructions, and each becomes a call.
                for (b, sums) in sums.iter().enumerate() {
                    add_scaled::<S, N, Q>(&mut total, sums, parts.key_scales, at + b);
                }
                at += TOGETHER;
            }
            for at in at..blocks {
                let [sums] = sums::<S, K, N, Q, 1>(queries, dim, parts, at * BLOCK, BLOCK);
                add_scaled::<S, N, Q>(&mut total, &sums, parts.key_scales, at);
            }
        }
        for q in 0..Q {
            for v in 0..N {
                S::store(out[q].as_mut_ptr().add(v * S::LANES), total[q][v]);
            }
        }
    }
}

/// Sums over `len` dimensions from `from` on, and over as many behind them, for `B` of such runs.
#[inline(always)]
unsafe fn sums<S: Simd, K: Element<S>, const N: usize, const Q: usize, const B: usize>(
    queries: &[f32],
    dim: usize,
    parts: Parts<K>,
    from: usize,
    len: usize,
) -> [[[S::Float; N]; Q]; B] {
    // SAFETY: as `scores`; runs end inside `dim`.
    unsafe {
        let mut sums = [[[S::splat(0.0); N]; Q]; B];
        for d in from..from + len {
            for b in 0..B {
                let d = d + b * len;
                let keys = parts.keys.add(d * PAGE);
                parts.prefetch::<S>(keys, PAGE);
                let mut x = [S::splat(0.0); Q];
                for q in 0..Q {
                    x[q] = S::splat(*queries.as_ptr().add(q * dim + d));
                }
                for v in 0..N {
                    let key = K::load(keys.add(v * S::LANES));
                    for q in 0..Q {
                        sums[b][q][v] = S::mul_add(x[q], key, sums[b][q][v]);
                    }
                }
            }
        }
        sums
    }
}

/// Adds the sums of a block, times its scales.
#[inline(always)]
unsafe fn add_scaled<S: Simd, const N: usize, const Q: usize>(
    total: &mut [[S::Float; N]; Q],
    sums: &[[S::Float; N]; Q],
    scales: *const u8,
    block: usize,
) {
    for v in 0..N {
        // SAFETY: scales are `[dim / BLOCK][PAGE]`.
        unsafe {
            let scales = S::halves(scales.add(2 * (block * PAGE + v * S::LANES)));
            for q in 0..Q {
                total[q][v] = S::mul_add(scales, sums[q][v], total[q][v]);
            }
        }
    }
}

/// Makes scores weights relative to the largest score so far, and returns what older sums must be multiplied by. What has
/// to be done one after the other for a query is short and next to that of the other queries, so that they overlap.
#[inline(always)]
fn weigh<const Q: usize>(
    weights: &mut [[f32; PAGE]; Q],
    seen: &[Range<usize>],
    scale: f32,
    sums: &mut [[f32; 2]; Q],
) -> [f32; Q] {
    // What is not seen is written over on the way: a compiler finds no vectors in loops that ask for each token.
    let hide = |weights: &mut [f32; PAGE], seen: &Range<usize>, with: f32| {
        if seen.len() < PAGE {
            weights[..seen.start].fill(with);
            weights[seen.end..].fill(with);
        }
    };
    let mut tops = [[0.0; LANES]; Q];
    for q in 0..Q {
        for weight in weights[q].iter_mut() {
            *weight *= scale;
        }
        hide(&mut weights[q], &seen[q], f32::NEG_INFINITY);
        tops[q] = [sums[q][0]; LANES];
        for weights in weights[q].as_chunks::<LANES>().0 {
            for i in 0..LANES {
                // A score that is not a number must not be lost: the maximum of the others hides it, its weight does not.
                tops[q][i] = if weights[i] > tops[q][i] { weights[i] } else { tops[q][i] };
            }
        }
    }
    let mut top = [0.0; Q];
    for q in 0..Q {
        top[q] = tops[q].iter().fold(sums[q][0], |top, &v| if v > top { v } else { top });
    }
    for q in 0..Q {
        for weight in weights[q].iter_mut() {
            *weight = exp(*weight - top[q]);
        }
    }
    let mut lanes = [[0.0; LANES]; Q];
    for q in 0..Q {
        hide(&mut weights[q], &seen[q], 0.0);
        for weights in weights[q].as_chunks::<LANES>().0 {
            for i in 0..LANES {
                lanes[q][i] += weights[i];
            }
        }
    }
    let mut shrink = [0.0; Q];
    for q in 0..Q {
        shrink[q] = exp(sums[q][0] - top[q]);
    }
    for q in 0..Q {
        let nothing_yet = if sums[q][0] == f32::NEG_INFINITY { 0.0 } else { shrink[q] };
        shrink[q] = if top[q] == sums[q][0] { 1.0 } else { nothing_yet };
        sums[q] = [top[q], sums[q][1] * shrink[q] + sum_lanes(lanes[q])];
    }
    shrink
}

/// Adds the values of the tokens that are seen, times their weights, to `shrink` times what there is.
#[inline(always)]
unsafe fn add_values<S: Simd, K: Element<S>, const SCALED: bool, const N: usize, const Q: usize>(
    weights: &[[f32; PAGE]; Q],
    seen: &Range<usize>,
    dim: usize,
    parts: Parts<K>,
    shrink: &[f32; Q],
    out: &mut [f32],
) {
    let (mut at, blocks) = (0, dim / BLOCK);
    // SAFETY: values are `[PAGE][dim]`, scales `[dim / BLOCK][PAGE]`, `out` is `[Q][dim]`; `seen` is inside the page.
    unsafe {
        while few_sums(Q, N) && at + TOGETHER <= blocks {
            add_blocks::<S, K, SCALED, N, Q, TOGETHER>(weights, seen, dim, parts, at, shrink, out);
            at += TOGETHER;
        }
        for at in at..blocks {
            add_blocks::<S, K, SCALED, N, Q, 1>(weights, seen, dim, parts, at, shrink, out);
        }
        for (q, d) in (0..Q).flat_map(|q| (blocks * BLOCK..dim).map(move |d| (q, d))) {
            out[q * dim + d] *= shrink[q];
            for t in seen.start..seen.end {
                out[q * dim + d] += weights[q][t] * K::one(parts.values.add(t * dim + d));
            }
        }
    }
}

/// The same for `B` blocks of values from block `first` on.
#[inline(always)]
unsafe fn add_blocks<S: Simd, K: Element<S>, const SCALED: bool, const N: usize, const Q: usize, const B: usize>(
    weights: &[[f32; PAGE]; Q],
    seen: &Range<usize>,
    dim: usize,
    parts: Parts<K>,
    first: usize,
    shrink: &[f32; Q],
    out: &mut [f32],
) {
    // SAFETY: as `add_values`.
    unsafe {
        let mut sums = [[[S::splat(0.0); N]; Q]; B];
        // Weights with the scales of the values in them.
        let mut scaled = [[[0.0; PAGE]; Q]; B];
        for b in 0..B {
            for q in 0..Q {
                for v in 0..N {
                    let at = v * S::LANES;
                    let old = S::floats(out.as_ptr().add(q * dim + (first + b) * BLOCK + at));
                    sums[b][q][v] = S::mul(old, S::splat(shrink[q]));
                    if SCALED {
                        let scales = S::halves(parts.value_scales.add(2 * ((first + b) * PAGE + at)));
                        let weights = S::floats(weights[q].as_ptr().add(at));
                        S::store(scaled[b][q].as_mut_ptr().add(at), S::mul_add(weights, scales, S::splat(0.0)));
                    }
                }
            }
        }
        for t in seen.start..seen.end {
            let row = parts.values.add(t * dim + first * BLOCK);
            parts.prefetch::<S>(row, B * BLOCK);
            for b in 0..B {
                let mut weight = [S::splat(0.0); Q];
                for q in 0..Q {
                    weight[q] = S::splat(if SCALED { scaled[b][q][t] } else { weights[q][t] });
                }
                for v in 0..N {
                    let values = K::load(row.add(b * BLOCK + v * S::LANES));
                    for q in 0..Q {
                        sums[b][q][v] = S::mul_add(weight[q], values, sums[b][q][v]);
                    }
                }
            }
        }
        for b in 0..B {
            for q in 0..Q {
                for v in 0..N {
                    S::store(out.as_mut_ptr().add(q * dim + (first + b) * BLOCK + v * S::LANES), sums[b][q][v]);
                }
            }
        }
    }
}
