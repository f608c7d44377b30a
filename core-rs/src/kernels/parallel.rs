//! Work split over the threads of candle's pool.
//!
//! A decoded token is some two hundred short loops, and between two of them a sleeping thread costs more than the loop.
//! candle's barrier pool spins for a moment before it sleeps, and candle's own matrix products run on it: sharing it
//! avoids a second set of threads beside it on the same cores.

use std::ops::Range;

use candle_core::utils::barrier_pool;

/// Multiply-adds below which a loop is not worth waking another thread for: a few microseconds.
const SERIAL_WORK: usize = 1 << 15;

/// Calls `f` with ranges that cover `0..items` once, on several threads if `items * work_per_item` is worth it.
pub(super) fn for_each_range(items: usize, work_per_item: usize, f: impl Fn(Range<usize>) + Sync) {
    if items.saturating_mul(work_per_item) <= SERIAL_WORK {
        f(0..items);
    } else {
        barrier_pool().execute_chunked(items, f);
    }
}

/// Calls `f(i, row)` for each row of `width` floats of `out`, on several threads if there is work enough.
pub(crate) fn for_each_row(
    out: &mut [f32],
    width: usize,
    work_per_row: usize,
    f: impl Fn(usize, &mut [f32]) + Sync,
) {
    let rows = out.len().checked_div(width).unwrap_or(0);
    let out = Shared::new(out);
    for_each_range(rows, work_per_row, |range| {
        for i in range {
            // SAFETY: ranges of `for_each_range` do not overlap, so this row is nobody else's; i < rows.
            f(i, unsafe { out.slice(i * width..(i + 1) * width) });
        }
    });
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
