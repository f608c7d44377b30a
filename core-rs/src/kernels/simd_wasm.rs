//! WebAssembly's 128-bit registers for `simd`. A module is built either with or without them, so there is nothing to
//! detect.

// Loads and stores are those that the trait's pointers promise to reach; the rest is safe here.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::arch::wasm32::*;

use super::blocks::half_to_f32;
use super::dispatch::{Kernels, products};
use super::simd::Simd;
use super::{activations, attend, layout, scalar, vector};

pub(super) static KERNELS: Kernels = Kernels {
    name: "simd128",
    pack: layout::pack,
    quantize: activations::quantize_plain,
    product: products!(product, Simd128, 2, 4),
    floats: scalar::floats,
    // SAFETY: the module is built with these instructions.
    attend: |job, scratch, gathered| unsafe { attend::attend::<Simd128, 8, 1>(job, scratch, gathered) },
    swiglu: vector::swiglu,
};

#[derive(Clone, Copy)]
struct Simd128;

impl Simd for Simd128 {
    type Int = v128;
    type Float = v128;

    const LANES: usize = 4;
    const SIGN: i32 = 0;

    #[inline(always)]
    unsafe fn none() -> v128 {
        i32x4_splat(0)
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> v128 {
        unsafe { v128_load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn group(from: *const i8) -> v128 {
        unsafe { v128_load32_splat(from.cast()) }
    }

    #[inline(always)]
    unsafe fn and(a: v128, mask: u8) -> v128 {
        v128_and(a, u8x16_splat(mask))
    }

    #[inline(always)]
    unsafe fn or(a: v128, b: v128) -> v128 {
        v128_or(a, b)
    }

    #[inline(always)]
    unsafe fn down(a: v128, n: u32) -> v128 {
        u32x4_shr(a, n)
    }

    #[inline(always)]
    unsafe fn up(a: v128, n: u32) -> v128 {
        i32x4_shl(a, n)
    }

    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], a: v128) -> v128 {
        i8x16_swizzle(unsafe { v128_load(table.as_ptr().cast()) }, a)
    }

    #[inline(always)]
    unsafe fn unsign(a: v128) -> v128 {
        a
    }

    /// Weights of fewer than eight bits have no sign bit. Neighbours of 16-bit products are added, twice.
    #[inline(always)]
    unsafe fn dot<const BITS: u32>(sum: v128, w: v128, x: v128) -> v128 {
        let low = i16x8_extmul_low_i8x16(w, x);
        let high = i16x8_extmul_high_i8x16(w, x);
        let (low, high) = (i32x4_extadd_pairwise_i16x8(low), i32x4_extadd_pairwise_i16x8(high));
        let (even, odd) = (i32x4_shuffle::<0, 2, 4, 6>(low, high), i32x4_shuffle::<1, 3, 5, 7>(low, high));
        i32x4_add(sum, i32x4_add(even, odd))
    }

    #[inline(always)]
    unsafe fn doubled(a: v128, n: u32) -> v128 {
        i32x4_shl(a, n)
    }

    #[inline(always)]
    unsafe fn add_int(a: v128, b: v128) -> v128 {
        i32x4_add(a, b)
    }

    #[inline(always)]
    unsafe fn float(a: v128) -> v128 {
        f32x4_convert_i32x4(a)
    }

    #[inline(always)]
    unsafe fn splat(v: f32) -> v128 {
        f32x4_splat(v)
    }

    #[inline(always)]
    unsafe fn floats(from: *const f32) -> v128 {
        unsafe { v128_load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: v128) {
        unsafe { v128_store(to.cast(), v) }
    }

    #[inline(always)]
    unsafe fn halves(from: *const u8) -> v128 {
        let half = |i: usize| half_to_f32(u16::from_le_bytes(unsafe { from.add(2 * i).cast::<[u8; 2]>().read() }));
        f32x4(half(0), half(1), half(2), half(3))
    }

    #[inline(always)]
    unsafe fn unsigned(from: *const u8) -> v128 {
        f32x4_convert_i32x4(u32x4_extend_low_u16x8(u16x8_extend_low_u8x16(unsafe { v128_load32_zero(from.cast()) })))
    }

    #[inline(always)]
    unsafe fn signed(from: *const u8) -> v128 {
        f32x4_convert_i32x4(i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(unsafe { v128_load32_zero(from.cast()) })))
    }

    #[inline(always)]
    unsafe fn low_nibbles(from: *const u8) -> v128 {
        let bytes = v128_and(unsafe { v128_load32_zero(from.cast()) }, u8x16_splat(15));
        f32x4_convert_i32x4(u32x4_extend_low_u16x8(u16x8_extend_low_u8x16(bytes)))
    }

    #[inline(always)]
    unsafe fn high_nibbles(from: *const u8) -> v128 {
        let bytes = u8x16_shr(unsafe { v128_load32_zero(from.cast()) }, 4);
        f32x4_convert_i32x4(u32x4_extend_low_u16x8(u16x8_extend_low_u8x16(bytes)))
    }

    #[inline(always)]
    unsafe fn mul(a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }

    /// Not fused: relaxed instructions may or may not be, which would make results depend on the host.
    #[inline(always)]
    unsafe fn mul_add(a: v128, b: v128, c: v128) -> v128 {
        f32x4_add(f32x4_mul(a, b), c)
    }
}
