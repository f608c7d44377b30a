//! Work split over threads: the pool's for the forward pass, rayon's for files.

use std::ops::Range;

use rayon::prelude::*;

use super::pool::Pool;
use crate::error::Result;

/// Multiply-adds worth a piece of their own: a few microseconds.
const PIECE_WORK: usize = 1 << 16;

/// Calls `f` for each of `items`, on the pool's threads if `items * work_per_item` is worth it.
pub(crate) fn for_each_piece(items: usize, work_per_item: usize, f: impl Fn(usize) + Sync) {
    let grain = PIECE_WORK.div_ceil(work_per_item.max(1));
    Pool::global().run(items.div_ceil(grain), &|piece, _| (piece * grain..items.min((piece + 1) * grain)).for_each(&f));
}

/// Calls `f(i, chunk)` for each chunk of `len` bytes of `out` (the last may be shorter), on all threads; the first error
/// ends it.
///
/// # Errors
/// What `f` returns.
pub fn try_for_each_chunk(out: &mut [u8], len: usize, f: impl Fn(usize, &mut [u8]) -> Result<()> + Sync) -> Result<()> {
    out.par_chunks_mut(len.max(1)).enumerate().try_for_each(|(i, chunk)| f(i, chunk))
}

/// A mutable slice whose parts are written by several threads.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    owner: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer is only used through `slice`, whose callers promise that their parts do not overlap.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above; it is a mutable slice.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), owner: std::marker::PhantomData }
    }

    /// Where a part of the slice begins.
    ///
    /// # Safety
    /// As for [`Shared::slice`], for as much of the part as is used.
    pub(super) unsafe fn pointer(&self, part: Range<usize>) -> *mut T {
        assert!(part.start <= part.end && part.end <= self.len, "part {part:?} of {}", self.len);
        self.start.wrapping_add(part.start)
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// While the part lives, no other part that overlaps it may live.
    #[allow(clippy::mut_from_ref)] // Disjoint parts are the purpose; the safety section asks for them.
    pub(crate) unsafe fn slice(&self, part: Range<usize>) -> &mut [T] {
        assert!(part.start <= part.end && part.end <= self.len, "part {part:?} of {}", self.len);
        // SAFETY: in bounds by the assertion, exclusive by the caller's promise, alive by the borrow in `owner`.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(part.start), part.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_visited_once() {
        for (items, work) in [(0, 1), (1, 1 << 20), (7, 1), (1000, 1 << 20)] {
            let mut out = vec![0; items];
            let shared = Shared::new(&mut out);
            // SAFETY: each item is its own part.
            for_each_piece(items, work, |i| unsafe { shared.slice(i..i + 1) }[0] += i + 1);
            assert!(out.iter().enumerate().all(|(i, &v)| v == i + 1), "{items} items");
        }
    }
}
