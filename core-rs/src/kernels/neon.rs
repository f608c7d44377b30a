//! Tables and registers for aarch64: NEON, which every such CPU has, with the dot products of ARMv8.2 where they are.
//!
//! Compiled and looked at, not run: no machine of ours has one. The bodies follow `simd`, whose other forms are tested.

// Each intrinsic needs the features of the type it stands in, which the trait asks for.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::arch::aarch64::*;
use std::arch::asm;

use super::dispatch::{Kernels, products};
use super::simd::Simd;
use super::{activations, attend, layout, scalar, vector};

/// The tables that this CPU can run, the fastest first.
pub(super) fn detect() -> impl Iterator<Item = &'static Kernels> {
    let dot = std::arch::is_aarch64_feature_detected!("dotprod");
    dot.then_some(&DOTPROD).into_iter().chain([&NEON])
}

/// A table for one way to multiply bytes.
macro_rules! table {
    ($table:ident, $name:literal, $isa:ty $(, $feature:literal)?) => {
        static $table: Kernels = Kernels {
            name: $name,
            pack: layout::pack,
            quantize: activations::quantize_plain,
            product: products!(product, $isa, 2, 4 $(, $feature)?),
            floats: scalar::floats,
            // SAFETY: NEON is part of every aarch64 target.
            attend: |job, scratch, gathered| unsafe { attend::attend::<Neon, 8, 2>(job, scratch, gathered) },
            swiglu: vector::swiglu,
        };
    };
}
table!(NEON, "neon", Neon);
table!(DOTPROD, "neon-dotprod", Dotprod, "dotprod");

/// NEON alone.
#[derive(Clone, Copy)]
struct Neon;

/// NEON with SDOT.
#[derive(Clone, Copy)]
struct Dotprod;

/// Registers of 128 bits; `$dot` adds products of four bytes each.
macro_rules! registers {
    ($isa:ty, $dot:ident) => {
        impl Simd for $isa {
            type Int = int32x4_t;
            type Float = float32x4_t;

            const LANES: usize = 4;
            const SIGN: i32 = 0;

            #[inline(always)]
            unsafe fn none() -> int32x4_t {
                unsafe { vdupq_n_s32(0) }
            }

            #[inline(always)]
            unsafe fn load(from: *const u8) -> int32x4_t {
                unsafe { vreinterpretq_s32_u8(vld1q_u8(from)) }
            }

            #[inline(always)]
            unsafe fn group(from: *const i8) -> int32x4_t {
                unsafe { vdupq_n_s32(from.cast::<i32>().read_unaligned()) }
            }

            #[inline(always)]
            unsafe fn and(a: int32x4_t, mask: u8) -> int32x4_t {
                unsafe { vandq_s32(a, vreinterpretq_s32_u8(vdupq_n_u8(mask))) }
            }

            #[inline(always)]
            unsafe fn or(a: int32x4_t, b: int32x4_t) -> int32x4_t {
                unsafe { vorrq_s32(a, b) }
            }

            #[inline(always)]
            unsafe fn down(a: int32x4_t, n: u32) -> int32x4_t {
                unsafe { vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-(n as i32)))) }
            }

            #[inline(always)]
            unsafe fn up(a: int32x4_t, n: u32) -> int32x4_t {
                unsafe { vshlq_s32(a, vdupq_n_s32(n as i32)) }
            }

            #[inline(always)]
            unsafe fn lookup(table: &[i8; 16], a: int32x4_t) -> int32x4_t {
                unsafe { vreinterpretq_s32_s8(vqtbl1q_s8(vld1q_s8(table.as_ptr()), vreinterpretq_u8_s32(a))) }
            }

            #[inline(always)]
            unsafe fn unsign(a: int32x4_t) -> int32x4_t {
                a
            }

            /// Weights of fewer than eight bits have no sign bit.
            #[inline(always)]
            unsafe fn dot<const BITS: u32>(sum: int32x4_t, w: int32x4_t, x: int32x4_t) -> int32x4_t {
                unsafe { $dot(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x)) }
            }

            #[inline(always)]
            unsafe fn doubled(a: int32x4_t, n: u32) -> int32x4_t {
                unsafe { vshlq_s32(a, vdupq_n_s32(n as i32)) }
            }

            #[inline(always)]
            unsafe fn add_int(a: int32x4_t, b: int32x4_t) -> int32x4_t {
                unsafe { vaddq_s32(a, b) }
            }

            #[inline(always)]
            unsafe fn float(a: int32x4_t) -> float32x4_t {
                unsafe { vcvtq_f32_s32(a) }
            }

            #[inline(always)]
            unsafe fn splat(v: f32) -> float32x4_t {
                unsafe { vdupq_n_f32(v) }
            }

            #[inline(always)]
            unsafe fn floats(from: *const f32) -> float32x4_t {
                unsafe { vld1q_f32(from) }
            }

            #[inline(always)]
            unsafe fn store(to: *mut f32, v: float32x4_t) {
                unsafe { vst1q_f32(to, v) }
            }

            /// The intrinsic of this instruction takes a type that the language does not have yet.
            #[inline(always)]
            unsafe fn halves(from: *const u8) -> float32x4_t {
                unsafe {
                    let (bits, out): (uint16x4_t, float32x4_t) = (from.cast::<uint16x4_t>().read_unaligned(), vdupq_n_f32(0.0));
                    let mut out = out;
                    asm!("fcvtl {out:v}.4s, {bits:v}.4h", out = inout(vreg) out, bits = in(vreg) bits,
                        options(pure, nomem, nostack));
                    out
                }
            }

            #[inline(always)]
            unsafe fn unsigned(from: *const u8) -> float32x4_t {
                unsafe {
                    let bytes = vcreate_u8(u64::from(from.cast::<u32>().read_unaligned()));
                    vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
                }
            }

            #[inline(always)]
            unsafe fn signed(from: *const u8) -> float32x4_t {
                unsafe {
                    let bytes = vcreate_s8(u64::from(from.cast::<u32>().read_unaligned()));
                    vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
                }
            }

            #[inline(always)]
            unsafe fn low_nibbles(from: *const u8) -> float32x4_t {
                unsafe {
                    let bytes = vcreate_u8(u64::from(from.cast::<u32>().read_unaligned() & 0x0f0f_0f0f));
                    vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
                }
            }

            #[inline(always)]
            unsafe fn high_nibbles(from: *const u8) -> float32x4_t {
                unsafe {
                    let bytes = vcreate_u8(u64::from(from.cast::<u32>().read_unaligned() >> 4 & 0x0f0f_0f0f));
                    vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
                }
            }

            #[inline(always)]
            unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
                unsafe { vmulq_f32(a, b) }
            }

            #[inline(always)]
            unsafe fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
                unsafe { vfmaq_f32(c, a, b) }
            }
        }
    };
}
registers!(Neon, add_pairs);
registers!(Dotprod, sdot);

#[inline(always)]
unsafe fn add_pairs(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    unsafe {
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
        let high = vpaddlq_s16(vmull_high_s8(w, x));
        vaddq_s32(sum, vpaddq_s32(low, high))
    }
}

/// By hand, since the intrinsic is not stable.
#[inline(always)]
unsafe fn sdot(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut out = sum;
    unsafe {
        asm!("sdot {out:v}.4s, {w:v}.16b, {x:v}.16b", out = inout(vreg) out, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack));
    }
    out
}
