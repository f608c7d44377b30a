//! Products of packed weights with quantised activations: one form for all formats and instruction sets.
//!
//! For a few tokens, numbers are put together in registers from what is packed: as fast as memory gives it. For many, a
//! panel is unpacked once into a scratch. Either way each token's floats are added block by block in the same order, so a
//! result does not depend on the tokens beside it.
//!
//! Functions are inlined into those of the tables that carry an instruction set's features.

// Counted loops over small arrays: what an iterator's closure does is not inlined before it gets its features.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use super::activations::{Activations, TILE, Token};
use super::blocks::{BLOCK, Format};
use super::layout::{self, GROUP, GROUPS, Layout, PANEL};
use super::memory::Lines;
use super::parallel::Shared;
use super::simd::Simd;

/// Blocks that many tokens are multiplied with at once: unpacked, beside those of some tokens, they stay in the first-level
/// cache.
pub(super) const CHUNK: usize = 32;
/// Tokens that have a form of their own without unpacking; up to `MANY`, where that is more, share one.
const FEW_TOKENS: usize = 4;

/// One panel of a packed matrix.
#[derive(Clone)]
pub(super) struct PanelRef<'a> {
    pub(super) format: Format,
    pub(super) bytes: &'a [u8],
    /// Values of a row.
    pub(super) k: usize,
    /// Which of its blocks are multiplied.
    pub(super) blocks: Range<usize>,
    /// The blocks that come next, if that is known: tiles ask for them meanwhile.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 has tiles"))]
    pub(super) next: Option<&'a [u8]>,
}

/// An unpacked panel: numbers as [`Simd::dot`] wants them, `[group][row][value]`, and scales and sides of each row. Kept
/// by a thread from one product to the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) q: Lines<u8>,
    pub(super) scale: Lines<f32>,
    pub(super) side: Lines<f32>,
}

impl Scratch {
    /// Makes room for so many blocks of a panel with `scales` scales each. Memory is kept.
    #[inline(always)]
    pub(super) fn make_room(&mut self, blocks: usize, scales: usize) {
        self.q.grow(blocks * BLOCK * PANEL);
        self.scale.grow(blocks * scales * PANEL);
        self.side.grow(blocks * scales * PANEL);
    }
}

/// Where the products of a panel go: a row of [`PANEL`] numbers for each token.
pub(super) struct Out<'a> {
    /// Sums so far, a row behind the other.
    sums: *mut f32,
    /// Whether they hold those over blocks before these.
    begun: bool,
    rows: usize,
    columns: Option<Columns>,
    of: std::marker::PhantomData<&'a mut [f32]>,
}

/// Columns of a matrix.
#[derive(Clone, Copy)]
struct Columns {
    to: *mut f32,
    /// From one row to the next.
    step: usize,
    /// Whether products are added to what is there.
    add: bool,
}

impl<'a> Out<'a> {
    /// Products are left in `sums`. `begun`: these hold what is to be added to.
    pub(super) fn rows(sums: &'a mut [[f32; PANEL]], begun: bool) -> Self {
        let rows = sums.len();
        Self { sums: sums.as_mut_ptr().cast(), begun, rows, columns: None, of: std::marker::PhantomData }
    }

    /// Products end in the columns from `column` on of the rows `tokens`, of `n` numbers each, of a matrix; they are
    /// written there, or added.
    ///
    /// # Safety
    /// While this lives, nobody else uses these columns.
    pub(super) unsafe fn into_columns(
        self,
        matrix: &'a Shared<'_, f32>,
        n: usize,
        column: usize,
        tokens: &Range<usize>,
        add: bool,
    ) -> Self {
        assert!(column + PANEL <= n && self.rows == tokens.len(), "columns of products");
        // SAFETY: as this function asks.
        let to = unsafe { matrix.pointer(tokens.start * n..tokens.end * n) }.wrapping_add(column);
        Self { columns: Some(Columns { to, step: n, add }), ..self }
    }

    /// Number of rows.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// Sums so far, or zeros, of `T` tokens and as many rows as a vector has lanes; of tokens that are not there, zeros.
    ///
    /// # Safety
    /// The CPU has the instructions of `S`; the panel has the rows from `row` on.
    #[inline(always)]
    pub(super) unsafe fn begin<S: Simd, const T: usize>(&self, token: usize, row: usize) -> [S::Float; T] {
        // SAFETY: as this function asks.
        unsafe {
            let mut sums = [S::splat(0.0); T];
            if self.begun {
                let (from, there) = (self.sums.add(token * PANEL + row), self.rows - token);
                // Counted up to `T`, so that sums stay in registers.
                for t in 0..T {
                    if t < there {
                        sums[t] = S::floats(from.add(t * PANEL));
                    }
                }
            }
            sums
        }
    }

    /// Writes what `T` tokens have then, or those of them that are there.
    ///
    /// # Safety
    /// As [`Out::begin`].
    #[inline(always)]
    pub(super) unsafe fn end<S: Simd, const T: usize>(&mut self, token: usize, row: usize, sums: [S::Float; T]) {
        let rows = Columns { to: self.sums.wrapping_add(token * PANEL), step: PANEL, add: false };
        let columns = self.columns.map(|all| Columns { to: all.to.wrapping_add(token * all.step), ..all });
        let Columns { to, step, add } = columns.unwrap_or(rows);
        for t in 0..T {
            if t < self.rows - token {
                // SAFETY: as this function asks.
                unsafe {
                    let to = to.add(t * step + row);
                    S::store(to, if add { S::mul_add(sums[t], S::splat(1.0), S::floats(to)) } else { sums[t] });
                }
            }
        }
    }

    /// The same for all blocks of a chunk but the last: their sums are kept.
    pub(super) fn of_chunk(&mut self, blocks: &Range<usize>, all: &Range<usize>) -> Out<'_> {
        let begun = self.begun || blocks.start > all.start;
        let columns = if blocks.end == all.end { self.columns } else { None };
        Out { begun, columns, of: std::marker::PhantomData, ..*self }
    }
}

/// Weights that a tile is multiplied with.
trait Weights<S: Simd>: Copy {
    unsafe fn group(self, b: usize, g: usize, first: usize) -> S::Int;
    unsafe fn sides(self, b: usize, s: usize, first: usize) -> (S::Float, S::Float);
    unsafe fn prefetch(self, b: usize);
}

/// Weights as they are packed.
struct Packed<L>(*const u8, std::marker::PhantomData<L>);

impl<L> Clone for Packed<L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Packed<L> {}

impl<S: Simd, L: Layout> Weights<S> for Packed<L> {
    #[inline(always)]
    unsafe fn group(self, b: usize, g: usize, first: usize) -> S::Int {
        // SAFETY: as the tile asks.
        unsafe { layout::group::<S, L>(self.0, b, g, first) }
    }

    #[inline(always)]
    unsafe fn sides(self, b: usize, s: usize, first: usize) -> (S::Float, S::Float) {
        // SAFETY: as the tile asks.
        unsafe { layout::sides::<S, L>(self.0, b, s, first) }
    }

    /// Memory is read once, in order; the processor's own look ahead ends at a page.
    #[inline(always)]
    unsafe fn prefetch(self, b: usize) {
        const AHEAD: usize = 4096;
        let bytes = L::SHAPE.stored() / L::SHAPE.blocks;
        let from = self.0.wrapping_add(b * bytes + AHEAD);
        for line in 0..bytes.div_ceil(64) {
            // SAFETY: an address to be asked for may lie anywhere.
            unsafe { S::prefetch(from.wrapping_add(line * 64)) };
        }
    }
}

/// Weights in a scratch, with `SCALES` scales to a block.
#[derive(Clone, Copy)]
struct Unpacked<const SCALES: usize> {
    q: *const u8,
    scale: *const f32,
    side: *const f32,
    /// The block at the begin of these.
    first: usize,
}

impl<S: Simd, const SCALES: usize> Weights<S> for Unpacked<SCALES> {
    #[inline(always)]
    unsafe fn group(self, b: usize, g: usize, first: usize) -> S::Int {
        // SAFETY: as the tile asks.
        unsafe { S::load(self.q.add((((b - self.first) * GROUPS + g) * PANEL + first) * GROUP)) }
    }

    #[inline(always)]
    unsafe fn sides(self, b: usize, s: usize, first: usize) -> (S::Float, S::Float) {
        let at = ((b - self.first) * SCALES + s) * PANEL + first;
        // SAFETY: as the tile asks.
        unsafe { (S::floats(self.scale.add(at)), S::floats(self.side.add(at))) }
    }

    #[inline(always)]
    unsafe fn prefetch(self, _: usize) {}
}

/// Dot products of some blocks of a panel's rows with the activations of `tokens`. `FEW` vectors of rows are multiplied at
/// once with a few tokens, and one with `MANY` tokens. `SCALES` are the layout's.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn product<S: Simd, L: Layout, const SCALES: usize, const FEW: usize, const MANY: usize>(
    scratch: &mut Scratch,
    panel: PanelRef<'_>,
    x: &Activations,
    tokens: Range<usize>,
    out: &mut Out<'_>,
) {
    const { assert!(L::SHAPE.scales == SCALES && PANEL.is_multiple_of(S::LANES * FEW)) };
    check::<L>(&panel, x, &tokens, out.len());
    let (blocks, first) = (panel.blocks, tokens.start);
    let packed = Packed::<L>(panel.bytes.as_ptr(), std::marker::PhantomData);
    // SAFETY: the panel has the blocks, by its length, and so has each token, by the check above.
    unsafe {
        match out.len() {
            0 => {}
            1 => tile::<S, L, _, FEW, 1>(packed, blocks, x, first, 0, out),
            2 => tile::<S, L, _, FEW, 2>(packed, blocks, x, first, 0, out),
            3 => tile::<S, L, _, 1, 3>(packed, blocks, x, first, 0, out),
            n if n <= FEW_TOKENS => tile::<S, L, _, 1, 4>(packed, blocks, x, first, 0, out),
            n if n <= MANY => tile::<S, L, _, 1, MANY>(packed, blocks, x, first, 0, out),
            n => {
                for from in blocks.clone().step_by(CHUNK) {
                    let chunk = from..blocks.end.min(from + CHUNK);
                    let out = &mut out.of_chunk(&chunk, &blocks);
                    unpack::<S, L>(panel.bytes.as_ptr(), chunk.clone(), scratch);
                    let (q, scale, side) = (scratch.q.as_ptr(), scratch.scale.as_ptr(), scratch.side.as_ptr());
                    let unpacked = Unpacked::<SCALES> { q, scale, side, first: from };
                    for i in (0..n).step_by(MANY) {
                        tile::<S, L, _, 1, MANY>(unpacked, chunk.clone(), x, first, i, out);
                    }
                }
            }
        }
    }
}

/// What makes the pointers of a product safe to follow.
#[inline(always)]
pub(super) fn check<L: Layout>(panel: &PanelRef<'_>, x: &Activations, tokens: &Range<usize>, rows: usize) {
    assert!(x.k() == panel.k && tokens.end <= x.len() && rows == tokens.len(), "shapes of a panel");
    assert!(tokens.start.is_multiple_of(TILE), "tokens from the begin of a tile on");
    assert!(panel.format == L::FORMAT, "format of a panel");
    assert_eq!(panel.bytes.len(), L::SHAPE.panel(panel.k), "bytes of a panel");
    assert!(panel.blocks.start <= panel.blocks.end && panel.blocks.end <= panel.k / BLOCK, "blocks of a panel");
}

/// Unpacks some blocks of a panel to the begin of the scratch.
///
/// # Safety
/// The panel has the blocks; the CPU has the instructions of `S`.
#[inline(always)]
unsafe fn unpack<S: Simd, L: Layout>(panel: *const u8, blocks: Range<usize>, scratch: &mut Scratch) {
    let shape = L::SHAPE;
    scratch.make_room(blocks.len(), shape.scales);
    for (i, b) in blocks.enumerate() {
        for first in (0..PANEL).step_by(S::LANES) {
            // SAFETY: the vectors are as long as made above.
            unsafe {
                for g in 0..GROUPS {
                    let to = scratch.q.as_mut_ptr().add(((i * GROUPS + g) * PANEL + first) * GROUP);
                    to.cast::<S::Int>().write_unaligned(layout::group::<S, L>(panel, b, g, first));
                }
                for s in 0..shape.scales {
                    let at = (i * shape.scales + s) * PANEL + first;
                    let (scale, side) = layout::sides::<S, L>(panel, b, s, first);
                    S::store(scratch.scale.as_mut_ptr().add(at), scale);
                    if shape.has_sides() {
                        S::store(scratch.side.as_mut_ptr().add(at), side);
                    }
                }
            }
        }
    }
}

/// Products of all rows with up to `T` of the tokens from `first` on, those from `token` on, `V` vectors of rows at a time.
/// They are in one tile of activations, so that one pointer leads to all of them. For those that are not there, whatever
/// lies behind the others is multiplied.
///
/// # Safety
/// Weights and tokens have the blocks; `first` is a multiple of a tile and `token` of `T`; the CPU has the instructions of
/// `S`.
#[inline(always)]
unsafe fn tile<S: Simd, L: Layout, W: Weights<S>, const V: usize, const T: usize>(
    w: W,
    blocks: Range<usize>,
    x: &Activations,
    first: usize,
    token: usize,
    out: &mut Out<'_>,
) {
    const { assert!(TILE.is_multiple_of(T) || T < FEW_TOKENS) };
    let (x, mut row) = (x.token(first + token), 0);
    while row < PANEL {
        // SAFETY: as this function asks; `row + V * S::LANES <= PANEL`, which `V` vectors divide.
        unsafe {
            let mut sums = [[S::splat(0.0); T]; V];
            for v in 0..V {
                sums[v] = out.begin::<S, T>(token, row + v * S::LANES);
            }
            let sums = rows::<S, L, W, V, T>(w, blocks.clone(), x, row, sums);
            for v in 0..V {
                out.end::<S, T>(token, row + v * S::LANES, sums[v]);
            }
        }
        row += V * S::LANES;
    }
}

/// Adds to sums the products of `V` vectors of rows from `row` on.
///
/// # Safety
/// As [`tile`]; the rows are in the panel.
#[inline(always)]
unsafe fn rows<S: Simd, L: Layout, W: Weights<S>, const V: usize, const T: usize>(
    w: W,
    blocks: Range<usize>,
    x: Token,
    row: usize,
    mut sums: [[S::Float; T]; V],
) -> [[S::Float; T]; V] {
    let scales = L::SHAPE.scales;
    // SAFETY: as this function asks, and block b is one of `blocks`.
    unsafe {
        for b in blocks {
            w.prefetch(b);
            for s in 0..scales {
                let dots = dots::<S, L, W, V, T>(w, b, s, x, row);
                let has_sides = L::SHAPE.has_sides();
                let mut scale = [S::splat(0.0); V];
                let mut side = [S::splat(0.0); V];
                for v in 0..V {
                    (scale[v], side[v]) = w.sides(b, s, row + v * S::LANES);
                }
                for t in 0..T {
                    let x_side = if scales == 1 { *x.side(b).add(t) } else { (*x.half_sides(b).add(t))[s] };
                    let (x_scale, x_side) = (S::splat(*x.scale(b).add(t)), S::splat(x_side));
                    for v in 0..V {
                        let sum = S::mul_add(S::mul(scale[v], x_scale), S::float(dots[t][v]), sums[v][t]);
                        sums[v][t] = if has_sides { S::mul_add(side[v], x_side, sum) } else { sum };
                    }
                }
            }
        }
        sums
    }
}

/// Integer products of block `b`, or of half `s` of it.
///
/// # Safety
/// As [`rows`].
#[inline(always)]
unsafe fn dots<S: Simd, L: Layout, W: Weights<S>, const V: usize, const T: usize>(
    w: W,
    b: usize,
    s: usize,
    x: Token,
    row: usize,
) -> [[S::Int; V]; T] {
    let (shape, per_scale) = (L::SHAPE, GROUPS / L::SHAPE.scales);
    let wide = S::CHUNK[shape.bits as usize] == 0;
    let chunk =
        if wide || S::CHUNK[shape.bits as usize] > per_scale { per_scale } else { S::CHUNK[shape.bits as usize] };
    let zero = shape.zero + if shape.bits == 8 { S::SIGN } else { 0 };
    // SAFETY: as this function asks; groups are below GROUPS.
    unsafe {
        let mut sums = [[S::none(); V]; T];
        if zero > 0 {
            for t in 0..T {
                let minus =
                    if shape.scales == 1 { x.minus(b).add(t) } else { (&raw const (*x.half_minus(b).add(t))[s]) };
                sums[t] = [S::doubled(S::group(minus.cast()), zero.trailing_zeros()); V];
            }
        }
        // One vector of rows after the other: together their numbers would not stay in registers.
        for v in 0..V {
            for c in 0..per_scale / chunk {
                let mut narrow = [S::none(); T];
                for i in 0..chunk {
                    let g = s * per_scale + c * chunk + i;
                    let group = w.group(b, g, row + v * S::LANES);
                    for t in 0..T {
                        let x = S::group(x.q(b).add(t * BLOCK + g * GROUP));
                        if wide {
                            sums[t][v] = dot::<S, L>(sums[t][v], group, x);
                        } else {
                            narrow[t] = dot::<S, L>(narrow[t], group, x);
                        }
                    }
                }
                if !wide {
                    for t in 0..T {
                        sums[t][v] = S::add_int(sums[t][v], widen::<S, L>(narrow[t]));
                    }
                }
            }
        }
        sums
    }
}

/// [`Simd::dot`] for the bits of a layout, which no constant of a type may name in a type.
#[inline(always)]
unsafe fn dot<S: Simd, L: Layout>(sum: S::Int, w: S::Int, x: S::Int) -> S::Int {
    // SAFETY: as the caller's.
    unsafe {
        match L::SHAPE.bits {
            8 => S::dot::<8>(sum, w, x),
            _ => S::dot::<6>(sum, w, x),
        }
    }
}

/// [`Simd::widen`] for the bits of a layout.
#[inline(always)]
unsafe fn widen<S: Simd, L: Layout>(sum: S::Int) -> S::Int {
    // SAFETY: as the caller's.
    unsafe {
        match L::SHAPE.bits {
            8 => S::widen::<8>(sum),
            _ => S::widen::<6>(sum),
        }
    }
}
