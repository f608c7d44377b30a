//! AVX2's form of `lanes`: one register is one vector.
//!
//! [`Avx2`] is private, and [`run`] the one way to it, so that each operation's condition, a CPU with AVX2, holds by
//! construction.

use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

use super::lanes::{LaneWork, Lanes, MANTISSA, OFFSET, ROUND, WIDTH};

/// Runs `work` compiled for AVX2.
///
/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn run(work: impl LaneWork) {
    work.run::<Avx2>();
}

#[derive(Clone, Copy)]
struct Avx2(__m256);

macro_rules! operators {
    ($($op:ident $f:ident $intrinsic:ident;)*) => {$(
        impl $op for Avx2 {
            type Output = Self;

            #[inline(always)]
            fn $f(self, other: Self) -> Self {
                // SAFETY: the CPU has AVX2, see the top of this file.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )*};
}
operators! { Add add _mm256_add_ps; Sub sub _mm256_sub_ps; Mul mul _mm256_mul_ps; Div div _mm256_div_ps; }

impl Neg for Avx2 {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: the CPU has AVX2, see the top of this file.
        Self(unsafe { _mm256_xor_ps(self.0, _mm256_set1_ps(-0.0)) })
    }
}

impl Lanes for Avx2 {
    type Mask = __m256;

    #[inline(always)]
    fn splat(v: f32) -> Self {
        // SAFETY: the CPU has AVX2, see the top of this file.
        Self(unsafe { _mm256_set1_ps(v) })
    }

    #[inline(always)]
    fn load(v: [f32; WIDTH]) -> Self {
        // SAFETY: the CPU has AVX2, see the top of this file; the array holds the 32 bytes that are read.
        Self(unsafe { _mm256_loadu_ps(v.as_ptr()) })
    }

    #[inline(always)]
    fn store(self) -> [f32; WIDTH] {
        let mut v = [0.0; WIDTH];
        // SAFETY: the CPU has AVX2, see the top of this file; the array takes the 32 bytes that are written.
        unsafe { _mm256_storeu_ps(v.as_mut_ptr(), self.0) };
        v
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: the CPU has AVX2, see the top of this file.
        Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: the CPU has AVX2, see the top of this file.
        Self(unsafe { _mm256_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: the CPU has AVX2, see the top of this file.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: the CPU has AVX2, see the top of this file.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn nearest(self) -> Self {
        // SAFETY: the CPU has AVX2, see the top of this file.
        unsafe {
            let bits = _mm256_castps_si256(_mm256_add_ps(self.0, _mm256_set1_ps(ROUND)));
            let mantissa = _mm256_and_si256(bits, _mm256_set1_epi32(MANTISSA));
            Self(_mm256_cvtepi32_ps(_mm256_sub_epi32(mantissa, _mm256_set1_epi32(OFFSET))))
        }
    }

    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        // SAFETY: the CPU has AVX2, see the top of this file.
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0) }
    }

    #[inline(always)]
    fn eq(self, other: Self) -> Self::Mask {
        // SAFETY: the CPU has AVX2, see the top of this file.
        unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0) }
    }

    #[inline(always)]
    fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask {
        // SAFETY: the CPU has AVX2, see the top of this file.
        unsafe { _mm256_and_ps(a, b) }
    }

    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        // SAFETY: the CPU has AVX2, see the top of this file.
        Self(unsafe { _mm256_blendv_ps(no.0, yes.0, mask) })
    }
}
