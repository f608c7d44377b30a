//! x86-64's registers for `simd`: 256 bits with AVX2, with or without VNNI, and 512 bits with AVX-512, with or without
//! VNNI.
//!
//! The types are handed out to the tables of `x86` alone, which ask the CPU first: that is what makes the bodies sound.

// Each intrinsic needs the features of the type it stands in, which the trait asks for.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::arch::x86_64::*;

use super::simd::Simd;

/// The methods that do not depend on how bytes are multiplied, for 256 bits.
macro_rules! common_256 {
    () => {
        type Int = __m256i;
        type Float = __m256;

        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn none() -> __m256i {
            unsafe { _mm256_setzero_si256() }
        }

        #[inline(always)]
        unsafe fn load(from: *const u8) -> __m256i {
            unsafe { _mm256_loadu_si256(from.cast()) }
        }

        #[inline(always)]
        unsafe fn group(from: *const i8) -> __m256i {
            unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn and(a: __m256i, mask: u8) -> __m256i {
            unsafe { _mm256_and_si256(a, _mm256_set1_epi8(mask as i8)) }
        }

        #[inline(always)]
        unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
            unsafe { _mm256_or_si256(a, b) }
        }

        #[inline(always)]
        unsafe fn down(a: __m256i, n: u32) -> __m256i {
            unsafe { _mm256_srl_epi16(a, _mm_cvtsi32_si128(n as i32)) }
        }

        #[inline(always)]
        unsafe fn up(a: __m256i, n: u32) -> __m256i {
            unsafe { _mm256_sll_epi16(a, _mm_cvtsi32_si128(n as i32)) }
        }

        #[inline(always)]
        unsafe fn lookup(table: &[i8; 16], a: __m256i) -> __m256i {
            unsafe { _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())), a) }
        }

        #[inline(always)]
        unsafe fn add_int(a: __m256i, b: __m256i) -> __m256i {
            unsafe { _mm256_add_epi32(a, b) }
        }

        #[inline(always)]
        unsafe fn doubled(a: __m256i, n: u32) -> __m256i {
            unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(n as i32)) }
        }

        #[inline(always)]
        unsafe fn float(a: __m256i) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(a) }
        }

        #[inline(always)]
        unsafe fn splat(v: f32) -> __m256 {
            unsafe { _mm256_set1_ps(v) }
        }

        #[inline(always)]
        unsafe fn floats(from: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, v: __m256) {
            unsafe { _mm256_storeu_ps(to, v) }
        }

        #[inline(always)]
        unsafe fn halves(from: *const u8) -> __m256 {
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }

        #[inline(always)]
        unsafe fn unsigned(from: *const u8) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) }
        }

        #[inline(always)]
        unsafe fn signed(from: *const u8) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
        }

        #[inline(always)]
        unsafe fn low_nibbles(from: *const u8) -> __m256 {
            unsafe {
                let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
                _mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(15)))
            }
        }

        #[inline(always)]
        unsafe fn high_nibbles(from: *const u8) -> __m256 {
            unsafe {
                let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
                _mm256_cvtepi32_ps(_mm256_srli_epi32::<4>(bytes))
            }
        }

        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_mul_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        }
    };
}

/// The methods that do not depend on how bytes are multiplied, for 512 bits.
macro_rules! common_512 {
    () => {
        type Int = __m512i;
        type Float = __m512;

        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn none() -> __m512i {
            unsafe { _mm512_setzero_si512() }
        }

        #[inline(always)]
        unsafe fn load(from: *const u8) -> __m512i {
            unsafe { _mm512_loadu_si512(from.cast()) }
        }

        #[inline(always)]
        unsafe fn group(from: *const i8) -> __m512i {
            unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn and(a: __m512i, mask: u8) -> __m512i {
            unsafe { _mm512_and_si512(a, _mm512_set1_epi8(mask as i8)) }
        }

        #[inline(always)]
        unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
            unsafe { _mm512_or_si512(a, b) }
        }

        #[inline(always)]
        unsafe fn down(a: __m512i, n: u32) -> __m512i {
            unsafe { _mm512_srl_epi16(a, _mm_cvtsi32_si128(n as i32)) }
        }

        #[inline(always)]
        unsafe fn up(a: __m512i, n: u32) -> __m512i {
            unsafe { _mm512_sll_epi16(a, _mm_cvtsi32_si128(n as i32)) }
        }

        #[inline(always)]
        unsafe fn lookup(table: &[i8; 16], a: __m512i) -> __m512i {
            unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), a) }
        }

        #[inline(always)]
        unsafe fn unsign(a: __m512i) -> __m512i {
            unsafe { _mm512_xor_si512(a, _mm512_set1_epi8(-128)) }
        }

        #[inline(always)]
        unsafe fn add_int(a: __m512i, b: __m512i) -> __m512i {
            unsafe { _mm512_add_epi32(a, b) }
        }

        #[inline(always)]
        unsafe fn float(a: __m512i) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(a) }
        }

        #[inline(always)]
        unsafe fn splat(v: f32) -> __m512 {
            unsafe { _mm512_set1_ps(v) }
        }

        #[inline(always)]
        unsafe fn floats(from: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, v: __m512) {
            unsafe { _mm512_storeu_ps(to, v) }
        }

        #[inline(always)]
        unsafe fn halves(from: *const u8) -> __m512 {
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        }

        #[inline(always)]
        unsafe fn unsigned(from: *const u8) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
        }

        #[inline(always)]
        unsafe fn signed(from: *const u8) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
        }

        #[inline(always)]
        unsafe fn low_nibbles(from: *const u8) -> __m512 {
            unsafe {
                let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
                _mm512_cvtepi32_ps(_mm512_and_si512(bytes, _mm512_set1_epi32(15)))
            }
        }

        #[inline(always)]
        unsafe fn high_nibbles(from: *const u8) -> __m512 {
            unsafe {
                let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
                _mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(bytes))
            }
        }

        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        }
    };
}

/// Products added in 16 bits as long as they fit: each is at most `2 * 127 * (2^BITS - 1)`.
const NARROW: [usize; 9] = [8, 8, 8, 8, 8, 4, 2, 1, 0];

/// AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2;

impl Simd for Avx2 {
    common_256!();

    const SIGN: i32 = 0;
    const CHUNK: [usize; 9] = NARROW;

    #[inline(always)]
    unsafe fn unsign(a: __m256i) -> __m256i {
        a
    }

    /// Of eight bits no two products fit into 16, so those are widened one by one: the sign goes to the activations, which
    /// lack -128.
    #[inline(always)]
    unsafe fn dot<const BITS: u32>(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        unsafe {
            if BITS < 8 {
                return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
            }
            let products = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
            _mm256_add_epi32(sum, _mm256_madd_epi16(products, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn widen<const BITS: u32>(sum: __m256i) -> __m256i {
        unsafe { _mm256_madd_epi16(sum, _mm256_set1_epi16(1)) }
    }
}

/// AVX2 and AVX-VNNI.
#[derive(Clone, Copy)]
pub(super) struct AvxVnni;

impl Simd for AvxVnni {
    common_256!();

    const SIGN: i32 = 128;

    #[inline(always)]
    unsafe fn unsign(a: __m256i) -> __m256i {
        unsafe { _mm256_xor_si256(a, _mm256_set1_epi8(-128)) }
    }

    #[inline(always)]
    unsafe fn dot<const BITS: u32>(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_avx_epi32(sum, w, x) }
    }
}

/// AVX-512 F and BW.
#[derive(Clone, Copy)]
pub(super) struct Avx512;

impl Simd for Avx512 {
    common_512!();

    const SIGN: i32 = 128;
    const CHUNK: [usize; 9] = NARROW;

    #[inline(always)]
    unsafe fn doubled(a: __m512i, n: u32) -> __m512i {
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }

    /// Of eight bits no two products fit into 16, so nibbles are multiplied apart; AVX-512 has no `sign_epi8`.
    #[inline(always)]
    unsafe fn dot<const BITS: u32>(sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
        unsafe {
            if BITS < 8 {
                return _mm512_add_epi16(sum, _mm512_maddubs_epi16(w, x));
            }
            let mask = _mm512_set1_epi8(15);
            let low = _mm512_maddubs_epi16(_mm512_and_si512(w, mask), x);
            let high = _mm512_maddubs_epi16(_mm512_and_si512(_mm512_srli_epi16::<4>(w), mask), x);
            let low = _mm512_madd_epi16(low, _mm512_set1_epi16(1));
            let high = _mm512_madd_epi16(high, _mm512_set1_epi16(16));
            _mm512_add_epi32(sum, _mm512_add_epi32(low, high))
        }
    }

    #[inline(always)]
    unsafe fn widen<const BITS: u32>(sum: __m512i) -> __m512i {
        unsafe { _mm512_madd_epi16(sum, _mm512_set1_epi16(1)) }
    }
}

/// AVX-512 F, BW and VNNI.
#[derive(Clone, Copy)]
pub(super) struct Avx512Vnni;

impl Simd for Avx512Vnni {
    common_512!();

    const SIGN: i32 = 128;

    /// As a product, which takes a number for all lanes out of memory by itself; a shift would be of one lane, and then
    /// spread.
    #[inline(always)]
    unsafe fn doubled(a: __m512i, n: u32) -> __m512i {
        unsafe { _mm512_dpwssd_epi32(_mm512_setzero_si512(), _mm512_set1_epi32(1 << n), a) }
    }

    #[inline(always)]
    unsafe fn dot<const BITS: u32>(sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, w, x) }
    }
}
