//! Products of many tokens by AMX, Intel's tiles: an instruction multiplies sixteen rows of weights with sixteen tokens.
//!
//! What a tile adds up are the integers of one block, which are the same however they are added; floats follow in the
//! order of `product`, so both give the same bits, and a few tokens are left to it.
//!
//! Source: Intel's Architecture Instruction Set Extensions reference, chapter 3 (AMX). The compiler knows no tile
//! registers, so it keeps nothing in them, and instructions are written as text. They hold their configuration from
//! [`Tiles::configure`] to the drop of [`Tiles`], inside one call.

// Counted loops over registers, as in `product`.
#![allow(clippy::needless_range_loop)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::OnceLock;

use super::activations::{Activations, TILE, Token};
use super::blocks::BLOCK;
use super::layout::{self, GROUP, GROUPS, Layout, PANEL};
use super::product::{self, CHUNK, Out, PanelRef, Scratch};
use super::simd::Simd;

/// For no more tokens than these, tiles do not pay.
const FEW_TOKENS: usize = 8;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Whether the CPU has tiles of int8 and the system lets this process use them, which has to be asked for.
pub(super) fn permitted() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| {
        // Leaf 7: AMX-TILE and AMX-INT8.
        const TILES: u32 = 1 << 24 | 1 << 25;
        let able = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILES == TILES;
        able && ask()
    })
}

/// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)` of Linux: from then on all threads have room for tiles.
#[cfg(target_os = "linux")]
fn ask() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of ours; systems that do not know it say so.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn ask() -> bool {
    false
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Configured tile registers: 0 to 3 are products, taken in turns, since each has to be stored before it is used again;
/// 4 and 5 are activations, 6 and 7 weights.
pub(super) struct Tiles;

impl Tiles {
    /// For numbers that share `values` of a block.
    ///
    /// # Safety
    /// [`permitted`] holds.
    pub(super) unsafe fn configure(values: usize) -> Self {
        let mut to = Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for i in 0..8 {
            let (rows, bytes) = match i {
                0..4 => (TILE, 4 * PANEL),
                4 | 5 => (TILE, values),
                _ => (values / 4, 4 * PANEL),
            };
            (to.rows[i], to.row_bytes[i]) = (rows as u8, bytes as u16);
        }
        // SAFETY: 64 bytes of a valid configuration are read.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const to, options(nostack, readonly, preserves_flags)) };
        Self
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: tiles are configured. Empty ones need no room when threads take turns.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// Integers of a tile.
#[repr(align(64))]
struct Integers([[i32; PANEL]; TILE]);

/// As [`product::product`].
///
/// # Safety
/// The CPU has the instructions of `S`, and [`permitted`] holds.
#[inline(always)]
pub(super) unsafe fn product<S, L: Layout, const SCALES: usize, const FEW: usize, const MANY: usize>(
    scratch: &mut Scratch,
    panel: PanelRef<'_>,
    x: &Activations,
    tokens: Range<usize>,
    out: &mut Out<'_>,
) where
    S: Simd<Int = __m512i, Float = __m512>,
{
    let whole_tiles = tokens.start.is_multiple_of(TILE) && (tokens.end.is_multiple_of(TILE) || tokens.end == x.len());
    if out.len() <= FEW_TOKENS || !whole_tiles {
        // SAFETY: as this function asks.
        return unsafe { product::product::<S, L, SCALES, FEW, MANY>(scratch, panel, x, tokens, out) };
    }
    product::check::<L>(&panel, x, &tokens, out.len());
    let mut integers = [const { Integers([[0; PANEL]; TILE]) }; 2];
    // SAFETY: as this function asks; the panel has the blocks, and so has each token, by the check.
    unsafe {
        let tiles = Tiles::configure(BLOCK / SCALES);
        let (bytes, all) = (panel.bytes.as_ptr(), panel.blocks);
        for from in all.clone().step_by(CHUNK) {
            let blocks = from..all.end.min(from + CHUNK);
            let out = &mut out.of_chunk(&blocks, &all);
            unpack::<S, L>(bytes, blocks.clone(), scratch);
            // What comes next is on its way while this is multiplied.
            let ahead = match panel.next {
                _ if blocks.end < all.end => Some(bytes.wrapping_add(blocks.end * L::SHAPE.stored() / L::SHAPE.blocks)),
                next => next.map(<[u8]>::as_ptr),
            };
            let mut chunk = Chunk { scratch, blocks, ahead, turn: 0 };
            let mut token = x.token(tokens.start);
            chunk.start::<SCALES>(0, token);
            for first in (0..tokens.len()).step_by(TILE) {
                let next = tokens.start + first + TILE;
                let next = (next < tokens.end).then(|| x.token(next));
                chunk.tile::<S, L, SCALES>(token, next, &mut integers, first, out);
                token = next.unwrap_or(token);
                chunk.ahead = None;
            }
        }
        drop(tiles);
    }
}

/// Unpacks some blocks to the beginning of the scratch, numbers as what they stand for, with a sign.
///
/// # Safety
/// The panel has the blocks; the CPU has the instructions of `S`.
#[inline(always)]
unsafe fn unpack<S, L: Layout>(panel: *const u8, blocks: Range<usize>, scratch: &mut Scratch)
where
    S: Simd<Int = __m512i, Float = __m512>,
{
    let shape = L::SHAPE;
    let zero = shape.zero + if shape.bits == 8 { S::SIGN } else { 0 };
    scratch.make_room(blocks.len(), shape.scales);
    // SAFETY: as this function asks; there is room for what is stored.
    unsafe {
        let (mut q, mut part) = (scratch.q.as_mut_ptr(), 0);
        for b in blocks {
            for g in 0..GROUPS {
                let numbers = layout::group::<S, L>(panel, b, g, 0);
                _mm512_storeu_si512(q.cast(), _mm512_sub_epi8(numbers, _mm512_set1_epi8(zero as i8)));
                q = q.add(GROUP * PANEL);
            }
            for s in 0..shape.scales {
                let (scale, side) = layout::sides::<S, L>(panel, b, s, 0);
                S::store(scratch.scale.as_mut_ptr().add(part * PANEL), scale);
                if shape.has_sides() {
                    S::store(scratch.side.as_mut_ptr().add(part * PANEL), side);
                }
                part += 1;
            }
        }
    }
}

/// Unpacked blocks of a panel.
struct Chunk<'a> {
    scratch: &'a Scratch,
    blocks: Range<usize>,
    /// What is asked for on the way through the first tile of tokens, about as many bytes as the chunk has.
    ahead: Option<*const u8>,
    /// Parts multiplied so far: the registers take turns.
    turn: usize,
}

impl Chunk<'_> {
    /// Multiplies numbers of part `part`, a block or half of one, with a tile of tokens from `x` on.
    ///
    /// # Safety
    /// The tokens have the part; tiles are configured for `SCALES`.
    #[inline(always)]
    unsafe fn start<const SCALES: usize>(&self, part: usize, x: Token) {
        let values = BLOCK / SCALES;
        // SAFETY: as this function asks.
        unsafe {
            let x = x.q(self.blocks.start + part / SCALES).add(part % SCALES * values);
            multiply((self.turn + part) % 2, x, self.scratch.q.as_ptr().add(part * values * PANEL));
        }
    }

    /// Adds what the chunk contributes to the products of a tile of tokens, from `x` and from row `first` on, whose first
    /// part is started; ends with the first of `next` started. Tokens that are not there are computed from whatever lies
    /// behind the others, and left out.
    ///
    /// # Safety
    /// The scratch holds the chunk, the tokens have it; tiles are configured for `SCALES`; the CPU has AVX-512.
    #[inline(always)]
    unsafe fn tile<S: Simd<Float = __m512>, L: Layout, const SCALES: usize>(
        &mut self,
        x: Token,
        next: Option<Token>,
        integers: &mut [Integers; 2],
        first: usize,
        out: &mut Out<'_>,
    ) {
        let (scratch, parts) = (self.scratch, self.blocks.len() * SCALES);
        // SAFETY: as this function asks; activations have room for a whole tile behind the last row.
        unsafe {
            let mut sums = out.begin::<S, TILE>(first, 0);
            for part in 0..parts {
                if let Some(ahead) = self.ahead {
                    let bytes = L::SHAPE.stored() / (L::SHAPE.blocks * SCALES);
                    for line in 0..bytes.div_ceil(LINE) {
                        _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(part * bytes + line * LINE).cast());
                    }
                }
                // Floats of one part are added while integers of the next are.
                if part + 1 < parts {
                    self.start::<SCALES>(part + 1, x);
                } else if let Some(next) = next {
                    self.turn += parts;
                    self.start::<SCALES>(0, next);
                    self.turn -= parts;
                }
                let turn = (self.turn + part) % 2;
                let integers = &mut integers[turn];
                store(turn, integers);
                let (b, s) = (self.blocks.start + part / SCALES, part % SCALES);
                let scale = _mm512_loadu_ps(scratch.scale.as_ptr().add(part * PANEL));
                let side = _mm512_loadu_ps(scratch.side.as_ptr().add(part * PANEL));
                for t in 0..TILE {
                    let x_scale = _mm512_set1_ps(*x.scale(b).add(t));
                    let product = _mm512_cvtepi32_ps(_mm512_loadu_si512(integers.0[t].as_ptr().cast()));
                    sums[t] = _mm512_fmadd_ps(_mm512_mul_ps(scale, x_scale), product, sums[t]);
                    if L::SHAPE.has_sides() {
                        let x_side = if SCALES == 1 { *x.side(b).add(t) } else { (*x.half_sides(b).add(t))[s] };
                        sums[t] = _mm512_fmadd_ps(side, _mm512_set1_ps(x_side), sums[t]);
                    }
                }
            }
            self.turn += parts;
            out.end::<S, TILE>(first, 0, sums);
        }
    }
}

/// Products of a tile's activations (blocks of [`BLOCK`] values one after the other) with weights (four values of each
/// row, then the next four), in register `i` of two. Of a short tile the rest is what lies behind it.
///
/// # Safety
/// Tiles are configured, and the pointers reach as far as the configuration says.
#[inline(always)]
unsafe fn multiply(i: usize, x: *const i8, w: *const u8) {
    macro_rules! instructions {
        ($products:literal, $x:literal, $w:literal) => {
            // SAFETY: as this function asks.
            unsafe {
                asm!(
                    concat!("tilezero ", $products),
                    concat!("tileloadd ", $x, ", [{x} + {x_step}]"),
                    concat!("tileloadd ", $w, ", [{w} + {w_step}]"),
                    concat!("tdpbssd ", $products, ", ", $x, ", ", $w),
                    x = in(reg) x,
                    x_step = in(reg) BLOCK,
                    w = in(reg) w,
                    w_step = in(reg) GROUP * PANEL,
                    options(nostack, readonly, preserves_flags),
                )
            }
        };
    }
    if i == 0 { instructions!("tmm0", "tmm4", "tmm6") } else { instructions!("tmm1", "tmm5", "tmm7") }
}

/// Stores the products of register `i` of two. This comes after the loads for the next ones: a load that follows a
/// store at the same place of another page waits for it.
///
/// # Safety
/// Tiles are configured.
#[inline(always)]
unsafe fn store(i: usize, to: &mut Integers) {
    macro_rules! instruction {
        ($products:literal) => {
            // SAFETY: as this function asks; a tile has as many rows and bytes as `to`, or fewer.
            unsafe {
                asm!(
                    concat!("tilestored [{to} + {step}], ", $products),
                    to = in(reg) &raw mut *to,
                    step = in(reg) size_of::<[i32; PANEL]>(),
                    options(nostack, preserves_flags),
                )
            }
        };
    }
    if i == 0 { instruction!("tmm0") } else { instruction!("tmm1") }
}
