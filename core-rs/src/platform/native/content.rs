//! What a model's files hold, as one hash: the key of everything that is made from them once.
//!
//! Hashing 13 GB takes most of a minute, so hashes are kept beside the cache by path, size and time of change. Absent:
//! secrets; a hash tells contents apart, and nobody but the user writes there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::MappedFile;
use super::disk::write_whole;
use crate::error::{Error, ErrorKind, Result};

/// Where hashes are kept.
const INDEX: &str = "hashes.json";
/// Bytes between two reports of progress.
const PIECE_BYTES: usize = 64 << 20;

/// A file, told apart from what it was before.
#[derive(Debug, Clone, PartialEq)]
pub struct FileState {
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub len: u64,
    /// When it was last changed, in nanoseconds of the epoch.
    pub modified_ns: u128,
}

/// A hash and the state of the file that it belongs to.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    len: u64,
    modified_ns: u128,
    sha256: String,
}

/// The state of a file.
///
/// # Errors
/// `io` when it cannot be read.
pub fn state(path: &Path) -> Result<FileState> {
    let fail = |e: std::io::Error| Error::new(ErrorKind::Io, format!("cannot read {}: {e}", path.display()));
    let full = path.canonicalize().map_err(fail)?;
    let meta = std::fs::metadata(&full).map_err(fail)?;
    let modified = meta.modified().map_err(fail)?;
    let modified_ns = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Ok(FileState { path: full, len: meta.len(), modified_ns })
}

/// The hash of files by what each is for (`role`) and its contents. `folder` keeps what was hashed before.
///
/// # Errors
/// `io` when a file cannot be read, and what `progress` (bytes done, in total) returns.
pub fn hash(
    files: &[(String, PathBuf)],
    folder: &Path,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<String> {
    let files = files.iter().map(|(role, path)| Ok((role, state(path)?))).collect::<Result<Vec<_>>>()?;
    let index = folder.join(INDEX);
    // A damaged index costs time, never a wrong answer.
    let mut known: BTreeMap<PathBuf, Known> =
        std::fs::read(&index).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let total = files.iter().filter(|(_, file)| lookup(&known, file).is_none()).map(|(_, file)| file.len).sum();
    let (mut all, mut done) = (Sha256::new(), 0);
    for (role, file) in &files {
        if lookup(&known, file).is_none() {
            let sha256 = hash_file(&file.path, &mut |bytes| {
                done += bytes;
                progress(done, total)
            })?;
            known.insert(file.path.clone(), Known { len: file.len, modified_ns: file.modified_ns, sha256 });
        }
        all.update(format!("{role}\0{}\0", lookup(&known, file).unwrap_or_default()));
    }
    if total > 0 {
        let bytes = serde_json::to_vec(&known).map_err(|e| Error::internal(format!("writing hashes: {e}")))?;
        // Without the index the next run hashes again, no more.
        let _ = write_whole(&index, &bytes);
    }
    Ok(format!("{:x}", all.finalize()))
}

fn lookup<'a>(known: &'a BTreeMap<PathBuf, Known>, file: &FileState) -> Option<&'a str> {
    let found = known.get(&file.path)?;
    (found.len == file.len && found.modified_ns == file.modified_ns).then_some(found.sha256.as_str())
}

fn hash_file(path: &Path, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<String> {
    let (file, mut hasher) = (MappedFile::open(path)?, Sha256::new());
    for piece in file.chunks(PIECE_BYTES) {
        hasher.update(piece);
        progress(piece.len() as u64)?;
    }
    Ok(format!("{:x}", hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_and_roles_count_and_are_read_once() {
        let (models, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (models.path().join("a.bin"), models.path().join("b.bin"));
        std::fs::write(&a, "one").unwrap();
        std::fs::write(&b, "two!").unwrap();
        let run = |files: &[(&str, &PathBuf)]| {
            let files: Vec<_> = files.iter().map(|(role, path)| (role.to_string(), (*path).clone())).collect();
            let mut read = 0;
            let hash = hash(&files, cache.path(), &mut |done, _| {
                read = done;
                Ok(())
            });
            (hash.unwrap(), read)
        };
        let (first, read) = run(&[("weights", &a)]);
        assert_eq!(read, 3);
        assert_eq!(run(&[("weights", &a)]), (first.clone(), 0));
        let (both, read) = run(&[("weights", &a), ("base", &b)]);
        assert_eq!(read, 4);
        assert_ne!(run(&[("weights", &b), ("base", &a)]).0, both);
        assert_ne!(run(&[("weights", &b)]).0, first);
        std::fs::write(&a, "three").unwrap();
        assert_ne!(run(&[("weights", &a)]).0, first);
    }
}
