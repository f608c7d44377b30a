//! Memory for weights, keys and values: zeros, on whole cache lines, in huge pages where the system has them; or bytes that somebody else
//! holds, such as a mapped file.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;
/// From this size on, memory comes from the system by itself, in pages of two megabytes if it can.
#[cfg(not(target_family = "wasm"))]
const LARGE: usize = 4 << 20;

/// Bytes that begin on a cache line.
pub(crate) struct Memory {
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
    pub(crate) fn zeros(len: usize) -> Result<Self> {
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
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.place {
            // SAFETY: a line is its bytes, and there are as many lines as `len` needs.
            Place::Lines(lines) => unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), self.len) },
            #[cfg(not(target_family = "wasm"))]
            Place::Pages(pages) => pages,
        }
    }

    /// All bytes, to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.place {
            // SAFETY: as above.
            Place::Lines(lines) => unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), self.len) },
            #[cfg(not(target_family = "wasm"))]
            Place::Pages(pages) => pages,
        }
    }
}

/// Bytes that are held elsewhere and stay as they are.
pub type Held = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What a weight reads: memory that was filled for it, or a part of bytes that are held elsewhere.
pub(super) enum Stored {
    Own(Memory),
    Part(Held, Range<usize>),
}

impl Stored {
    /// A part of `held`.
    ///
    /// # Errors
    /// `invalid_format` when it has no such part, or the part does not begin on a cache line.
    pub(super) fn part(held: Held, part: Range<usize>) -> Result<Self> {
        let bytes = (*held).as_ref();
        match bytes.get(part.clone()) {
            Some(found) if found.as_ptr().addr().is_multiple_of(LINE) => Ok(Self::Part(held, part)),
            Some(_) => Err(Error::invalid_format(format!("expected weights on a cache line, got them at {part:?}"))),
            None => Err(Error::invalid_format(format!("expected weights at {part:?}, got {} bytes", bytes.len()))),
        }
    }

    /// All bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(memory) => memory.bytes(),
            Self::Part(held, part) => &(**held).as_ref()[part.clone()],
        }
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own(memory) => memory.fmt(f),
            Self::Part(_, part) => write!(f, "{} bytes held elsewhere", part.len()),
        }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

/// Numbers of which all bits are values.
pub(crate) trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for i8 {}
impl Plain for i32 {}
impl Plain for f32 {}
impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Numbers that begin on a cache line, so that vectors do not lie across two, and rows of whole lines in none of their
/// neighbours'; as many as were ever asked for.
pub(crate) struct Lines<T> {
    lines: Vec<Line>,
    of: std::marker::PhantomData<T>,
}

impl<T: Plain> Lines<T> {
    /// Makes them at least `len`; new ones are zeros.
    pub(super) fn grow(&mut self, len: usize) {
        const { assert!(LINE.is_multiple_of(size_of::<T>())) };
        let lines = len.div_ceil(LINE / size_of::<T>());
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; LINE]));
        }
    }

    /// The first `len`, which hold anything.
    pub(crate) fn sized(&mut self, len: usize) -> &mut [T] {
        self.grow(len);
        &mut self[..len]
    }
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), of: std::marker::PhantomData }
    }
}

impl<T: Plain> std::ops::Deref for Lines<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let len = self.lines.len() * (LINE / size_of::<T>());
        // SAFETY: lines are whole numbers, of which all bits are values.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), len) }
    }
}

impl<T: Plain> std::ops::DerefMut for Lines<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let len = self.lines.len() * (LINE / size_of::<T>());
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }
}

impl<T> std::fmt::Debug for Lines<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} lines", self.lines.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_on_a_line_and_stay_as_they_grow() {
        let mut numbers = Lines::<[f32; 2]>::default();
        assert!(numbers.is_empty());
        for len in [1, 8, 9, 1000, 3] {
            numbers.grow(len);
            assert!(numbers.len() >= len && numbers.as_ptr().addr().is_multiple_of(LINE));
            numbers[0] = [1.0, 2.0];
            assert_eq!((numbers[0], numbers[numbers.len() - 1]), ([1.0, 2.0], [0.0; 2]));
        }
    }

    #[test]
    fn parts_are_inside_what_is_held_and_on_a_line() {
        struct Lined(Memory);
        impl AsRef<[u8]> for Lined {
            fn as_ref(&self) -> &[u8] {
                self.0.bytes()
            }
        }
        let mut memory = Memory::zeros(200).unwrap();
        memory.bytes_mut()[64] = 1;
        let held: Held = Arc::new(Lined(memory));
        assert_eq!(Stored::part(held.clone(), 64..66).unwrap().bytes(), [1, 0]);
        for part in [1..2, 192..201, 256..257] {
            assert!(Stored::part(held.clone(), part).is_err());
        }
    }

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
