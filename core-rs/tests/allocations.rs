//! A token costs no allocation: whatever a pass needs is kept from the one before.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use llamero::kernels::CacheType;
use llamero::model::{KvCache, Segment, Wanted, Workspace};
use llamero::platform::Source;

/// Counts what all threads allocate while it is told to.
struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all work is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Ordering::SeqCst) {
            ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Rounds of tokens.
const ROUNDS: usize = 20;

#[test]
fn a_token_allocates_nothing() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-llama2.gguf");
    let checkpoint = Source::new(path).open().expect("a model");
    let plan = checkpoint.plan(None).expect("a plan");
    let model = checkpoint.load(plan, CacheType::F16, &mut |_, _| Ok(())).expect("weights").model;
    let mut caches = [(); 3].map(|()| model.new_cache());
    let mut workspace = Workspace::default();
    let mut pass = |caches: &mut [KvCache; 3], token: u32| {
        let [a, b, c] = caches;
        let tokens = [token];
        let segment = |cache| Segment { tokens: &tokens, cache, wanted: Wanted::Last };
        model.forward(&mut [segment(a), segment(b), segment(c)], &mut workspace).expect("a pass");
    };
    (1..5).for_each(|token| pass(&mut caches, token));
    // A thread makes its own room when it first has a piece to do, which on a busy machine may be late. What a token
    // cost, every round would show.
    let quiet = (0..ROUNDS).filter(|_| {
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        COUNTS.store(true, Ordering::SeqCst);
        (5..30).for_each(|token| pass(&mut caches, token));
        COUNTS.store(false, Ordering::SeqCst);
        caches.iter_mut().for_each(|cache| cache.truncate(4));
        ALLOCATIONS.load(Ordering::SeqCst) == before
    });
    let quiet = quiet.count();
    assert!(quiet > ROUNDS / 2, "{quiet} of {ROUNDS} rounds without an allocation");
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    // The counter counts.
    COUNTS.store(true, Ordering::SeqCst);
    drop(std::hint::black_box(vec![1_u8; 100]));
    COUNTS.store(false, Ordering::SeqCst);
    assert_ne!(ALLOCATIONS.load(Ordering::SeqCst), before);
}
