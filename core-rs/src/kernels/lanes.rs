//! Eight floats at once, for loops in which every lane does what scalar code would do for its own item: no sum crosses
//! lanes and nothing is fused, so that all instruction sets give the same bits.
//!
//! Arrays alone were tried: with several sums in a loop the compiler takes vectors apart again, and what should fill
//! AVX2 ran at a third of its speed.

use std::ops::{Add, Div, Mul, Neg, Sub};

use super::dispatch::Isa;

/// Floats side by side.
pub(crate) const WIDTH: usize = 8;

/// A vector of [`WIDTH`] floats.
pub(crate) trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// A truth per lane.
    type Mask: Copy;

    /// The same in each lane.
    fn splat(v: f32) -> Self;
    /// Lane k from `v[k]`.
    fn load(v: [f32; WIDTH]) -> Self;
    /// Lane k to `[k]`.
    fn store(self) -> [f32; WIDTH];
    /// Without sign.
    fn abs(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// The smaller; neither is NaN.
    fn min(self, other: Self) -> Self;
    /// The larger; neither is NaN.
    fn max(self, other: Self) -> Self;
    /// The nearest integer, ties to even, by adding [`ROUND`]; from 2^22 on the result wraps.
    fn nearest(self) -> Self;
    /// Whether less than `other`.
    fn lt(self, other: Self) -> Self::Mask;
    /// Whether equal to `other`.
    fn eq(self, other: Self) -> Self::Mask;
    /// Whether both.
    fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// `yes` where the mask holds, else `no`.
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
}

/// Work that is written for any vector. `run` and all that it calls with vectors must be `#[inline(always)]`: only then
/// is it compiled for the instruction set that runs it.
pub(crate) trait LaneWork {
    /// Does it.
    fn run<V: Lanes>(self);
}

/// Runs `work` on the vectors of `isa`.
pub(crate) fn on_lanes(isa: Isa, work: impl LaneWork) {
    #[cfg(target_arch = "x86_64")]
    if isa.kernels().avx2 {
        // SAFETY: only tables for CPUs that have AVX2 say so.
        return unsafe { super::lanes_x86::run(work) };
    }
    let _ = isa;
    work.run::<Portable>();
}

/// 1.5 * 2^23: added to a small float it leaves the nearest integer in the low [`MANTISSA`] bits, above [`OFFSET`].
pub(super) const ROUND: f32 = 12_582_912.0;
/// Bits of a float below its exponent.
pub(super) const MANTISSA: i32 = 0x007f_ffff;
/// What those bits read for 0.
pub(super) const OFFSET: i32 = 0x0040_0000;

/// [`Lanes::nearest`] of one float.
#[inline(always)]
pub(crate) fn nearest(v: f32) -> i32 {
    ((v + ROUND).to_bits() as i32 & MANTISSA) - OFFSET
}

/// Lanes as an array, for any instruction set.
#[derive(Clone, Copy)]
struct Portable([f32; WIDTH]);

impl Portable {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(f))
    }

    #[inline(always)]
    fn zip<T>(self, other: Self, f: impl Fn(f32, f32) -> T) -> [T; WIDTH] {
        std::array::from_fn(|k| f(self.0[k], other.0[k]))
    }
}

macro_rules! operators {
    ($($op:ident $f:ident $sign:tt;)*) => {$(
        impl $op for Portable {
            type Output = Self;

            #[inline(always)]
            fn $f(self, other: Self) -> Self {
                Self(self.zip(other, |a, b| a $sign b))
            }
        }
    )*};
}
operators! { Add add +; Sub sub -; Mul mul *; Div div /; }

impl Neg for Portable {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        self.map(|v| -v)
    }
}

impl Lanes for Portable {
    type Mask = [bool; WIDTH];

    #[inline(always)]
    fn splat(v: f32) -> Self {
        Self([v; WIDTH])
    }

    #[inline(always)]
    fn load(v: [f32; WIDTH]) -> Self {
        Self(v)
    }

    #[inline(always)]
    fn store(self) -> [f32; WIDTH] {
        self.0
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.map(f32::abs)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(self.zip(other, |a, b| if a < b { a } else { b }))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(self.zip(other, |a, b| if a > b { a } else { b }))
    }

    #[inline(always)]
    fn nearest(self) -> Self {
        self.map(|v| nearest(v) as f32)
    }

    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        self.zip(other, |a, b| a < b)
    }

    #[inline(always)]
    fn eq(self, other: Self) -> Self::Mask {
        self.zip(other, |a, b| a == b)
    }

    #[inline(always)]
    fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask {
        std::array::from_fn(|k| a[k] && b[k])
    }

    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|k| if mask[k] { yes.0[k] } else { no.0[k] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::available;

    /// Every operation on two vectors, one after the other.
    struct Everything<'a>([f32; WIDTH], [f32; WIDTH], &'a mut Vec<[u32; WIDTH]>);

    impl LaneWork for Everything<'_> {
        #[inline(always)]
        fn run<V: Lanes>(self) {
            let (a, b) = (V::load(self.0), V::load(self.1));
            let (yes, no) = (V::splat(1.0), V::splat(0.0));
            let less_and_equal = V::both(a.lt(b), a.abs().eq(b));
            let results = [
                a + b,
                a - b,
                a * b,
                a / b,
                -a,
                a.abs(),
                a.abs().sqrt(),
                a.min(b),
                a.max(b),
                a.nearest(),
                V::select(a.lt(b), yes, no),
                V::select(a.eq(b), yes, no),
                V::select(less_and_equal, yes, no),
            ];
            self.2.extend(results.map(|v| v.store().map(f32::to_bits)));
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let a = [1.5, -2.5, 0.1, -1e-40, 3e38, 5e6, -7.25, 0.0];
        let b = [1.5, 2.5, 0.3, 1e-42, 2.0, -5e6, 7.25, -0.0];
        let on = |isa| {
            let mut results = Vec::new();
            on_lanes(isa, Everything(a, b, &mut results));
            results
        };
        let truth = on(*available().last().unwrap());
        assert_eq!(truth[9].map(f32::from_bits)[..3], [2.0, -2.0, 0.0], "ties to even");
        assert_eq!(truth[12].map(f32::from_bits), [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        for isa in available() {
            assert_eq!(on(isa), truth, "{isa}");
        }
    }
}
