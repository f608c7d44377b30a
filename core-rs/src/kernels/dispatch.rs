//! Which instruction set the kernels use: found once at run time, printable, and forcible for tests and bug reports.

use std::fmt;
use std::sync::OnceLock;

use super::blocks::{Format, Rows};
use super::floats::{self, Piece};
use super::scalar;
use super::vector::Head;
use crate::error::{Error, Result};

/// Weight rows that a panel kernel multiplies at once: two rows by four tokens keep AVX2's sixteen registers busy.
pub(super) const PANEL_ROWS: usize = 2;

/// What a panel gives for one token.
pub(super) type Products = [f32; PANEL_ROWS];

/// The kernels of one instruction set. All are safe to call: a table is reachable only on a CPU that can run it.
///
/// Arguments go by reference: structs of slices copied at each call stalled on their own stores, a tenth of decoding.
pub(super) struct Kernels {
    pub(super) name: &'static str,
    /// Rows of activations to int8 blocks.
    pub(super) quantize: fn(&[f32], &mut Rows<i8>),
    /// Rows of stored weight blocks to unpacked blocks; there may be fewer than the target holds.
    pub(super) unpack: fn(Format, &[u8], &mut Rows<u8>),
    /// Dot products of [`PANEL_ROWS`] weight rows with consecutive activation rows, from the given one on.
    pub(super) panel: fn(&Rows<u8>, &Rows<i8>, usize, &mut [Products]),
    /// Products of a piece for each token; the second argument is a scratch for its widened weights.
    pub(super) floats: fn(&Piece<'_>, &mut [f32], &mut [[f32; floats::PANEL_ROWS]]),
    /// Attention of one head for one token.
    pub(super) attend: fn(&Head<'_>, &mut [f32]),
    /// `silu(gate) * up`.
    pub(super) swiglu: fn(&[f32], &[f32], &mut [f32]),
}

/// An instruction set that this CPU can run.
#[derive(Clone, Copy)]
pub struct Isa(&'static Kernels);

impl Isa {
    pub(super) fn kernels(self) -> &'static Kernels {
        self.0
    }

    /// Its name: `scalar`, `avx2` or `simd128`.
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
    let fast: Option<&'static Kernels> = {
        #[cfg(target_arch = "x86_64")]
        {
            super::x86::detect()
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        {
            Some(&super::simd128::KERNELS)
        }
        #[cfg(not(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128"))))]
        {
            None
        }
    };
    fast.into_iter().chain([&scalar::KERNELS]).map(Isa).collect()
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

/// Attention of one head for one token, on the active instruction set.
pub(crate) fn attend(head: &Head<'_>, out: &mut [f32]) {
    (active().kernels().attend)(head, out);
}

/// `out = silu(gate) * up`, on the active instruction set.
pub(crate) fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    (active().kernels().swiglu)(gate, up, out);
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
