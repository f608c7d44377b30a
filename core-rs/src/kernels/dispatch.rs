//! Which instruction set the kernels use: found once at run time, printable, and forcible for tests and bug reports.

use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use super::activations::{Activations, TokenMut};
use super::attend::{Gathered, PageJob, PageScratch};
use super::blocks::{Format, StoredRows};
use super::floats::{self, Piece};
use super::product::{Out, PanelRef, Scratch};
use crate::error::{Error, Result};

/// Dot products of a panel's rows with some rows of activations, for each of the latter as many as a panel has rows, of
/// which those of rows that are not there mean nothing.
pub(super) type PanelProduct = fn(&mut Scratch, PanelRef<'_>, &Activations, Range<usize>, &mut Out<'_>);

/// The kernels of one instruction set. All are safe to call: a table is reachable only on a CPU that can run it.
pub(super) struct Kernels {
    pub(super) name: &'static str,
    /// Whether the CPU has AVX2, for what is written for eight lanes of it (`lanes`).
    #[cfg(target_arch = "x86_64")]
    pub(super) avx2: bool,
    /// Stored rows into a panel of zeros.
    pub(super) pack: fn(StoredRows<'_>, &mut [u8]),
    /// A row of activations to int8 blocks.
    pub(super) quantize: fn(&[f32], TokenMut<'_>),
    /// The product of each format; each is compiled by itself.
    pub(super) product: fn(Format) -> PanelProduct,
    /// Products of a piece for each token; the second argument is a scratch for its widened weights.
    pub(super) floats: fn(&Piece<'_>, &mut [f32], &mut [[f32; floats::PANEL_ROWS]]),
    /// Some queries' look at a page.
    pub(super) attend: fn(&PageJob<'_>, &mut PageScratch, &mut Gathered<'_>),
    /// `silu(gate) * up`, in the place of the former.
    pub(super) swiglu: fn(&mut [f32], &[f32]),
}

/// A [`Kernels::product`] of a room, `product` or `amx`: for each format a function of its own that has the features, if
/// any are named.
macro_rules! products {
    ($room:ident, $isa:ty, $few:literal, $many:literal $(, $feature:literal)?) => {
        |format| match format {
            super::blocks::Format::Q4_0 => products!(@of Q4_0 1, $room, $isa, $few, $many $(, $feature)?),
            super::blocks::Format::Q4_1 => products!(@of Q4_1 1, $room, $isa, $few, $many $(, $feature)?),
            super::blocks::Format::Q5_0 => products!(@of Q5_0 1, $room, $isa, $few, $many $(, $feature)?),
            super::blocks::Format::Q5_1 => products!(@of Q5_1 1, $room, $isa, $few, $many $(, $feature)?),
            super::blocks::Format::Q8_0 => products!(@of Q8_0 1, $room, $isa, $few, $many $(, $feature)?),
            super::blocks::Format::Iq4Nl => products!(@of Iq4Nl 1, $room, $isa, $few, $many $(, $feature)?),
            super::blocks::Format::Q2K => products!(@of Q2K 2, $room, $isa, $few, $many $(, $feature)?),
            super::blocks::Format::Q3K => products!(@of Q3K 2, $room, $isa, $few, $many $(, $feature)?),
            super::blocks::Format::Q4K => products!(@of Q4K 1, $room, $isa, $few, $many $(, $feature)?),
            super::blocks::Format::Q5K => products!(@of Q5K 1, $room, $isa, $few, $many $(, $feature)?),
            super::blocks::Format::Q6K => products!(@of Q6K 2, $room, $isa, $few, $many $(, $feature)?),
        }
    };
    (@of $layout:ident $scales:literal, $room:ident, $isa:ty, $few:literal, $many:literal $(, $feature:literal)?) => {{
        $(#[target_feature(enable = $feature)])?
        fn of(
            scratch: &mut super::product::Scratch,
            panel: super::product::PanelRef<'_>,
            x: &super::activations::Activations,
            tokens: std::ops::Range<usize>,
            out: &mut super::product::Out<'_>,
        ) {
            // SAFETY: the features of the registers are this function's, or any CPU's.
            unsafe {
                super::$room::product::<$isa, super::layout::$layout, $scales, $few, $many>(
                    scratch, panel, x, tokens, out,
                )
            }
        }
        // SAFETY: a table is handed out only on a CPU with its features.
        #[allow(unused_unsafe)]
        |scratch, panel, x, tokens, out| unsafe { of(scratch, panel, x, tokens, out) }
    }};
}
pub(super) use products;

/// An instruction set that this CPU can run.
#[derive(Clone, Copy)]
pub struct Isa(&'static Kernels);

impl Isa {
    pub(super) fn kernels(self) -> &'static Kernels {
        self.0
    }

    /// Its name: `scalar`, `simd128`, `neon`, `neon-dotprod`, `avx2`, `avx-vnni`, `avx512`, `avx512-vnni` or `amx`.
    pub fn name(self) -> &'static str {
        self.0.name
    }
}

impl PartialEq for Isa {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

static ACTIVE: OnceLock<Isa> = OnceLock::new();

/// Instruction sets that this CPU can run, the fastest first.
pub fn available() -> Vec<Isa> {
    #[cfg(target_arch = "x86_64")]
    let fast = super::x86::detect();
    #[cfg(target_arch = "aarch64")]
    let fast = super::neon::detect();
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    let fast = [&super::simd_wasm::KERNELS];
    #[cfg(not(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        all(target_arch = "wasm32", target_feature = "simd128")
    )))]
    let fast = [];
    fast.into_iter().chain([&super::scalar::KERNELS]).map(Isa).collect()
}

/// Settles the instruction set for the process: the one named, or the fastest there is.
///
/// The first call (or the first use of a kernel) decides. A later call with another name is an error, since weights
/// may already be bound to the first.
pub fn select(name: Option<&str>) -> Result<Isa> {
    let wanted = match name {
        Some(name) => find(name)?,
        None => return Ok(active()),
    };
    let isa = *ACTIVE.get_or_init(|| wanted);
    if isa != wanted {
        return Err(Error::invalid_request(format!("selecting CPU kernels: {isa} is already in use, got {wanted}")));
    }
    Ok(isa)
}

/// The instruction set in use; the fastest there is if [`select`] has not been called.
pub fn active() -> Isa {
    *ACTIVE.get_or_init(|| available()[0])
}

fn find(name: &str) -> Result<Isa> {
    let all = available();
    all.iter().find(|isa| isa.name() == name).copied().ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|isa| isa.name()).collect();
        Error::invalid_request(format!("selecting CPU kernels: expected one of {}, got {name:?}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_lies_are_not() {
        assert_eq!(find("scalar").unwrap().to_string(), "scalar");
        let message = find("avx3").unwrap_err().to_string();
        assert!(message.ends_with("got \"avx3\"") && message.contains("scalar"), "{message}");
    }

    #[test]
    fn the_first_choice_stays() {
        let isa = select(None).unwrap();
        assert_eq!((isa, select(Some(isa.name())).unwrap()), (active(), isa));
        for other in available().into_iter().filter(|&other| other != isa) {
            assert!(select(Some(other.name())).unwrap_err().to_string().contains("already in use"));
        }
    }
}
