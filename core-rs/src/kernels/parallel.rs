//! Work split over rayon's threads.
//!
//! candle's own products run on its barrier pool, whose caller waits for every thread at every product even if that
//! thread never got to run. A decoded token has some two hundred products: on a machine with other work (a server has
//! some) that came out several times slower than rayon, where the caller takes back what nobody has stolen.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::Result;

/// Multiply-adds worth another thread's attention: a few microseconds.
const GRAIN_WORK: usize = 1 << 16;
/// Pieces per thread, so that a thread that falls behind leaves something to take over.
const PIECES: usize = 4;

/// Runs `f` on one of rayon's threads, where splitting work is cheap; from outside each split would be a handover.
pub(crate) fn on_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// Calls `f` with ranges that cover `0..items` once, on several threads if `items * work_per_item` is worth it.
pub(super) fn for_each_range(items: usize, work_per_item: usize, f: impl Fn(Range<usize>) + Sync) {
    let fair = items.div_ceil(PIECES * rayon::current_num_threads());
    let grain = fair.max(GRAIN_WORK.div_ceil(work_per_item.max(1)));
    split(0..items, grain, &f);
}

fn split(range: Range<usize>, grain: usize, f: &(impl Fn(Range<usize>) + Sync)) {
    if range.len() <= grain {
        return f(range);
    }
    let middle = range.start + range.len() / 2;
    rayon::join(|| split(range.start..middle, grain, f), || split(middle..range.end, grain, f));
}

/// Calls `f(i, row)` for each row of `width` floats of `out`, on several threads if there is work enough.
pub(crate) fn for_each_row(out: &mut [f32], width: usize, work_per_row: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = out.len().checked_div(width).unwrap_or(0);
    let out = Shared::new(out);
    for_each_range(rows, work_per_row, |range| {
        for i in range {
            // SAFETY: ranges of `for_each_range` do not overlap, so this row is nobody else's; i < rows.
            f(i, unsafe { out.slice(i * width..(i + 1) * width) });
        }
    });
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
pub(super) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    owner: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer is only used through `slice`, whose callers promise that their parts do not overlap.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(super) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), owner: std::marker::PhantomData }
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// While the part lives, no other part that overlaps it may live.
    #[allow(clippy::mut_from_ref)] // Disjoint parts are the purpose; the safety section asks for them.
    pub(super) unsafe fn slice(&self, part: Range<usize>) -> &mut [f32] {
        assert!(part.start <= part.end && part.end <= self.len, "part {part:?} of {} floats", self.len);
        // SAFETY: in bounds by the assertion, exclusive by the caller's promise, alive by the borrow in `owner`.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(part.start), part.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_visited_once_with_its_index() {
        for (rows, work) in [(0, 1), (1, 1 << 20), (7, 1), (1000, 1 << 20)] {
            let mut out = vec![0.0; rows * 3];
            for_each_row(&mut out, 3, work, |i, row| row.iter_mut().for_each(|v| *v += 1.0 + i as f32));
            let expected: Vec<f32> = (0..rows * 3).map(|i| 1.0 + (i / 3) as f32).collect();
            assert_eq!(out, expected);
        }
    }
}
