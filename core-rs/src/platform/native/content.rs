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

/// All files of the folder at `path`, or of the folder of the file there; a GGUF file that is no shard stands alone.
///
/// # Errors
/// `io` when it cannot be read.
pub fn files(path: &Path) -> Result<Vec<FileState>> {
    let fail = |e: std::io::Error| Error::new(ErrorKind::Io, format!("cannot read {}: {e}", path.display()));
    let full = path.canonicalize().map_err(fail)?;
    let name = full.file_name().unwrap_or_default().to_string_lossy();
    let alone = full.is_file() && name.ends_with(".gguf") && !name.contains("-of-");
    let folder = if full.is_dir() { Some(full.as_path()) } else { full.parent().filter(|_| !alone) };
    let mut paths = vec![full.clone()];
    if let Some(folder) = folder {
        paths = std::fs::read_dir(folder).map_err(fail)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
    }
    let state = |path: PathBuf| {
        let meta = std::fs::metadata(&path).ok().filter(|meta| meta.is_file() && meta.len() > 0)?;
        let modified_ns = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
        Some(FileState { path, len: meta.len(), modified_ns })
    };
    Ok(paths.into_iter().filter_map(state).collect())
}

/// The hash of all files at `paths`, by names and contents. `folder` keeps what was hashed before.
///
/// # Errors
/// `io` when a file cannot be read, and what `progress` (bytes done, in total) returns.
pub fn hash(paths: &[&Path], folder: &Path, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<String> {
    let files = paths.iter().map(|path| files(path)).collect::<Result<Vec<_>>>()?.concat();
    let index = folder.join(INDEX);
    // A damaged index costs time, never a wrong answer.
    let mut known: BTreeMap<PathBuf, Known> =
        std::fs::read(&index).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let total = files.iter().filter(|file| lookup(&known, file).is_none()).map(|file| file.len).sum();
    let (mut all, mut done) = (Sha256::new(), 0);
    for file in &files {
        if lookup(&known, file).is_none() {
            let sha256 = hash_file(&file.path, &mut |bytes| {
                done += bytes;
                progress(done, total)
            })?;
            known.insert(file.path.clone(), Known { len: file.len, modified_ns: file.modified_ns, sha256 });
        }
        let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        all.update(format!("{name}\0{}\0", lookup(&known, file).unwrap_or_default()));
    }
    if total > 0 {
        let bytes = serde_json::to_vec(&known).map_err(|e| Error::internal(format!("writing hashes: {e}")))?;
        write_whole(&index, &bytes)?;
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
    fn contents_and_names_count_and_are_read_once() {
        let (models, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = models.path().join("a.gguf");
        std::fs::write(&file, "one").unwrap();
        let run = |paths: &[&Path]| {
            let mut read = 0;
            let hash = hash(paths, cache.path(), &mut |done, _| {
                read = done;
                Ok(())
            });
            (hash.unwrap(), read)
        };
        let (first, read) = run(&[models.path()]);
        assert_eq!(read, 3);
        assert_eq!(run(&[models.path()]), (first.clone(), 0));
        assert_eq!(run(&[&file]), (first.clone(), 0));
        std::fs::write(models.path().join("b.bin"), "two!").unwrap();
        let (second, read) = run(&[models.path()]);
        assert_eq!(read, 4);
        assert_ne!(first, second);
        std::fs::write(&file, "three").unwrap();
        assert_ne!(run(&[models.path()]).0, second);
    }
}
