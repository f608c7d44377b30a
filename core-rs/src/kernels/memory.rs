//! Memory for weights: zeros, on whole cache lines, in huge pages where the system has them.

use crate::error::{Error, Result};

/// Bytes of a cache line.
const LINE: usize = 64;
/// From this size on, memory comes from the system by itself, in pages of two megabytes if it can.
#[cfg(not(target_family = "wasm"))]
const LARGE: usize = 4 << 20;

/// Bytes that begin on a cache line.
pub(super) struct Memory {
    place: Place,
    len: usize,
}

enum Place {
    Lines(Vec<Line>),
    #[cfg(not(target_family = "wasm"))]
    Pages(memmap2::MmapMut),
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

impl Memory {
    /// `len` zeros.
    ///
    /// # Errors
    /// `unsupported` when there is not as much memory.
    pub(super) fn zeros(len: usize) -> Result<Self> {
        let none = || Error::unsupported(format!("expected {len} bytes of memory, got none"));
        #[cfg(not(target_family = "wasm"))]
        if len >= LARGE {
            let pages = memmap2::MmapMut::map_anon(len).map_err(|_| none())?;
            // Fewer translations to look up. A system that has no such pages says no, and that is all right.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            return Ok(Self { place: Place::Pages(pages), len });
        }
        let mut lines = Vec::new();
        lines.try_reserve_exact(len.div_ceil(LINE)).map_err(|_| none())?;
        lines.resize(len.div_ceil(LINE), Line([0; LINE]));
        Ok(Self { place: Place::Lines(lines), len })
    }

    /// All bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.place {
            // SAFETY: a line is its bytes, and there are as many lines as `len` needs.
            Place::Lines(lines) => unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), self.len) },
            #[cfg(not(target_family = "wasm"))]
            Place::Pages(pages) => pages,
        }
    }

    /// All bytes, to be written.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.place {
            // SAFETY: as above.
            Place::Lines(lines) => unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), self.len) },
            #[cfg(not(target_family = "wasm"))]
            Place::Pages(pages) => pages,
        }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_aligned_and_as_long_as_asked() {
        for len in [0, 1, 64, 1000, LARGE, LARGE + 1] {
            let mut memory = Memory::zeros(len).unwrap();
            assert!(memory.bytes().len() == len && memory.bytes().iter().all(|&byte| byte == 0));
            assert!(memory.bytes().as_ptr().addr().is_multiple_of(LINE));
            memory.bytes_mut().fill(7);
            assert!(memory.bytes().iter().all(|&byte| byte == 7));
        }
    }
}
