//! The native side: operating-system clock, seeds, memory-mapped files and threads.

mod compiling;
mod content;
mod disk;
pub mod host;
mod machine;
mod packed;
pub mod source;
pub mod task;

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::ops::Deref;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use crate::error::{Error, ErrorKind, Result};

/// Milliseconds since the first call in this process; never goes back.
pub fn monotonic_ms() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3
}

/// A seed that differs from call to call, for requests that bring none. Not for secrets.
pub fn random_seed() -> u64 {
    // Each RandomState is keyed by the operating system's randomness plus a counter.
    RandomState::new().hash_one(0u8)
}

/// What everything of a closed handle answers.
fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the engine is closed")
}

/// The text of a panic's payload.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// A file mapped read-only into memory.
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Map the regular file at `path`.
    ///
    /// # Errors
    /// `io` when it is missing, unreadable, empty or not a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        let fail =
            |what: String| Error::new(ErrorKind::Io, format!("cannot read model file {}: {what}", path.display()));
        let file = File::open(path).map_err(|e| fail(e.to_string()))?;
        let meta = file.metadata().map_err(|e| fail(e.to_string()))?;
        if !meta.is_file() {
            return Err(fail("expected a file, got a directory or device".into()));
        }
        if meta.len() == 0 {
            return Err(fail("expected a model, got an empty file".into()));
        }
        // SAFETY: the mapping is private and read-only. Model files are written once and renamed into place; cutting one
        // short while it is open would fault, which is the price of mapping that every peer pays as well.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| fail(e.to_string()))?;
        Ok(Self(map))
    }

    /// Has all pages read, in order, so that nobody waits for them later; `progress` is told of bytes done.
    ///
    /// # Errors
    /// What `progress` returns.
    pub fn populate(&self, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        for at in (0..self.len()).step_by(POPULATE_BYTES) {
            let len = POPULATE_BYTES.min(self.len() - at);
            // Kernels that cannot do it say so, and read each page when it is needed, as other systems do.
            #[cfg(target_os = "linux")]
            let _ = self.0.advise_range(memmap2::Advice::PopulateRead, at, len);
            progress((at + len) as u64)?;
        }
        Ok(())
    }
}

/// Bytes of a mapped file that are read between two reports of progress.
const POPULATE_BYTES: usize = 64 << 20;

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_does_not_go_back_and_seeds_differ() {
        let (a, b) = (monotonic_ms(), monotonic_ms());
        assert!(b >= a);
        assert_ne!(random_seed(), random_seed());
    }

    #[test]
    fn files_that_cannot_be_mapped_are_named() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let empty = dir.path().join("empty.gguf");
        File::create(&empty).expect("empty file");
        for (path, word) in
            [(dir.path().join("none.gguf"), "No such file"), (empty, "empty"), (dir.path().into(), "directory")]
        {
            let error = MappedFile::open(&path).err().expect("refused");
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
