//! How much memory a reader takes: an allocator that counts, per thread. Shared with the fuzzer.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Most memory that reading may take, per byte of the file and beside it: values are larger in memory than in a file,
/// vectors double as they grow, and sentences are short.
const MEMORY_PER_BYTE: usize = 128;
const MEMORY_BESIDE: usize = 64 << 10;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// A value and the most bytes that were allocated at once while it was made, beyond those at the start.
pub(crate) fn peak_of<T>(make: impl FnOnce() -> T) -> (T, usize) {
    let before = CURRENT.get();
    PEAK.set(before);
    let value = make();
    (value, PEAK.get().saturating_sub(before))
}

/// Checks a peak of memory against the length of the file that was read.
#[track_caller]
pub(crate) fn assert_in_proportion(peak: usize, file_len: usize) {
    let allowed = file_len * MEMORY_PER_BYTE + MEMORY_BESIDE;
    assert!(peak <= allowed, "took {peak} bytes for a file of {file_len}, expected at most {allowed}");
}

fn grow(bytes: usize) {
    // Memory that another thread frees makes the count wrong, never the allocation.
    CURRENT.set(CURRENT.get().saturating_add(bytes));
    PEAK.set(PEAK.get().max(CURRENT.get()));
}

fn shrink(bytes: usize) {
    CURRENT.set(CURRENT.get().saturating_sub(bytes));
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches only cells that need no memory and no
// destructor. The provided `realloc` allocates, copies and frees, so that both copies count.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrink(layout.size());
        // SAFETY: as above, and `pointer` is from `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
