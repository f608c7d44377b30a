//! Files made to harm whoever reads them: each is refused with a sentence, runs nothing, and costs little memory.
//!
//! The formats are those of checkpoints (`llamero::formats`), read through their public functions. The incidents behind
//! the cases are those of other readers: integer overflow and tensors outside their file in GGUF readers, code run by
//! `torch.load` and `paddle.load`, overlapping files in zip archives.

mod archive;
mod gguf;
mod memory;
mod pickle;
mod safetensors;
mod torch;

use std::fmt::Debug;

use llamero::error::{ErrorKind, Result};

/// Checks that a reader refuses `bytes` with a sentence that has `wanted` in it, and within memory.
#[track_caller]
fn assert_refused<T: Debug>(parse: impl FnOnce(&[u8]) -> Result<T>, bytes: &[u8], kind: ErrorKind, wanted: &str) {
    let (result, peak) = memory::peak_of(|| parse(bytes));
    let e = result.expect_err(wanted);
    assert!(e.to_string().contains(wanted), "{wanted:?} not in: {e}");
    assert_eq!(e.kind(), kind, "{e}");
    assert!(e.to_string().len() < 4096 && !e.to_string().ends_with('.'), "{e}");
    memory::assert_in_proportion(peak, bytes.len());
}

/// A file of which every prefix is refused.
#[track_caller]
fn assert_every_cut_refused<T: Debug>(parse: impl Fn(&[u8]) -> Result<T>, bytes: &[u8]) {
    assert!(parse(bytes).is_ok(), "{:?}", parse(bytes));
    for len in 0..bytes.len() {
        assert!(parse(&bytes[..len]).is_err(), "cut to {len} bytes");
    }
}
