//! Which instruction set the kernels use: found once at run time, printable, and forcible for tests and bug reports.

use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use super::blocks::{Format, Rows, StoredRows};
use super::floats::{self, Piece};
use super::vector::Head;
use crate::error::{Error, Result};

/// What a thread's products use on their way; each instruction set has its own use for it.
#[derive(Default)]
pub(super) struct Scratch {
    /// Unpacked rows.
    pub(super) rows: Rows<u8>,
    /// Unpacked rows, interleaved.
    #[cfg(target_arch = "x86_64")]
    pub(super) panel: super::x86_blocks::Panel,
}

/// Every format.
pub(super) const ALL_FORMATS: &[Format] = &[
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q8_0,
    Format::Q2K,
    Format::Q3K,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
];

/// The kernels of one instruction set. All are safe to call: a table is reachable only on a CPU that can run it.
///
/// Arguments go by reference: structs of slices copied at each call stalled on their own stores, a tenth of decoding.
pub(super) struct Kernels {
    pub(super) name: &'static str,
    /// The formats that `product` multiplies.
    pub(super) formats: &'static [Format],
    /// Stored rows that `product` takes at once.
    pub(super) panel_rows: usize,
    /// Rows of this many activations each to int8 blocks.
    pub(super) quantize: fn(&[f32], usize, &mut Rows<i8>),
    /// Dot products of at most `panel_rows` stored rows with some rows of activations: `panel_rows` numbers for each of
    /// the latter, of which those of rows that are not there mean nothing.
    pub(super) product: fn(&mut Scratch, StoredRows<'_>, &Rows<i8>, Range<usize>, &mut [f32]),
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

    /// Whether weights of `format` are multiplied here.
    pub(super) fn multiplies(self, format: Format) -> bool {
        self.0.formats.contains(&format)
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
    #[cfg(target_arch = "x86_64")]
    let fast = super::x86::detect();
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    let fast = Some(&super::simd128::KERNELS);
    #[cfg(not(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128"))))]
    let fast = None;
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
