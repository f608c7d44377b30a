//! Folders and files of the operating system: checkpoints to read, and output that is either whole or not there.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fs4::fs_std::FileExt;
use serde::{Deserialize, Serialize};

use super::MappedFile;
use crate::checkpoint::{Bytes, Folder};
use crate::convert::{Sink, WeightFile};
use crate::error::{Error, ErrorKind, Result};

/// Most files looked at in a folder: what holds more is no model's.
const MAX_FILES: usize = 1 << 14;

/// A folder on disk.
pub struct DiskFolder {
    path: PathBuf,
    name: String,
    names: Vec<String>,
    opened: Mutex<BTreeSet<String>>,
}

impl DiskFolder {
    /// The folder at `path`, or the folder of the file at `path` and that file's name.
    ///
    /// # Errors
    /// `io` when there is nothing at `path` or it cannot be listed.
    pub fn open(path: &Path) -> Result<(Self, Option<String>)> {
        let meta = std::fs::metadata(path).map_err(|e| io(path, "read", &e))?;
        if meta.is_dir() {
            return Ok((Self::list(path)?, None));
        }
        let file = path.file_name().and_then(|name| name.to_str());
        let file = file.ok_or_else(|| io(path, "read", &"expected a file name in UTF-8"))?.to_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok((Self::list(parent)?, Some(file)))
    }

    fn list(path: &Path) -> Result<Self> {
        let full = path.canonicalize().map_err(|e| io(path, "read", &e))?;
        let name = full.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(|e| io(path, "list", &e))?.take(MAX_FILES) {
            let entry = entry.map_err(|e| io(path, "list", &e))?;
            // Downloads of a hub's cache are links to the files.
            if let Ok(name) = entry.file_name().into_string()
                && std::fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file())
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(Self { path: full, name, names, opened: Mutex::default() })
    }

    /// The files that have been opened: all that a checkpoint is made of.
    pub fn opened(&self) -> Vec<PathBuf> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.iter().map(|name| self.path.join(name)).collect()
    }
}

impl Folder for DiskFolder {
    fn name(&self) -> &str {
        &self.name
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn open(&self, name: &str) -> Result<Bytes> {
        let file = MappedFile::open(&self.path.join(name))?;
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(Arc::new(file))
    }
}

fn io(path: &Path, action: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, format!("cannot {action} {}: {reason}", path.display()))
}

/// Refuses to begin what the disk has no space for.
///
/// # Errors
/// `insufficient_resources` when less than `bytes` are free where `path` will be.
pub fn check_space(path: &Path, bytes: u64) -> Result<()> {
    let there = path.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    let free = fs4::available_space(there).map_err(|e| io(there, "ask the free space of", &e))?;
    if free >= bytes {
        return Ok(());
    }
    let message = format!("cannot write {}: expected {bytes} bytes of free space, got {free}", path.display());
    Err(Error::new(ErrorKind::InsufficientResources, message))
}

/// Makes a folder, and those that it lies in, unless it is there.
pub fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| io(path, "make the folder", &e))
}

/// Writes a small file: whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    // Two processes may write the same small file, each its own way there.
    let part = PathBuf::from(format!("{}.{}.part", path.display(), std::process::id()));
    std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, path)).map_err(|e| io(path, "write", &e))
}

/// Where something is written before it is whole.
pub fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// A folder that is being made beside its place. Files in it are whole; those of a run before with the same fingerprint
/// stay.
pub struct PartFolder<'a> {
    target: &'a Path,
    part: PathBuf,
}

/// In a [`PartFolder`]: what is being written from what.
const FOLDER_JOURNAL: &str = ".fingerprint";

impl<'a> PartFolder<'a> {
    /// Opens what will become the folder `target`.
    ///
    /// # Errors
    /// `io` when it cannot be written.
    pub fn open(target: &'a Path, fingerprint: &str) -> Result<Self> {
        let part = part_of(target);
        let journal = part.join(FOLDER_JOURNAL);
        if std::fs::read(&journal).is_ok_and(|found| found == fingerprint.as_bytes()) {
            return Ok(Self { target, part });
        }
        if part.exists() {
            std::fs::remove_dir_all(&part).map_err(|e| io(&part, "remove", &e))?;
        }
        make_folder(&part)?;
        write_whole(&journal, fingerprint.as_bytes())?;
        Ok(Self { target, part })
    }

    /// Where a file is written.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.part.join(name)
    }

    /// Puts the folder in its place; one that was there goes when the new one stands.
    pub fn finish(self) -> Result<()> {
        let fail = |e: std::io::Error| io(self.target, "write", &e);
        std::fs::remove_file(self.part.join(FOLDER_JOURNAL)).map_err(fail)?;
        if !self.target.exists() {
            return std::fs::rename(&self.part, self.target).map_err(fail);
        }
        let mut aside = self.target.as_os_str().to_owned();
        aside.push(".old");
        std::fs::rename(self.target, &aside).map_err(fail)?;
        std::fs::rename(&self.part, self.target).map_err(fail)?;
        std::fs::remove_dir_all(&aside).map_err(|e| io(Path::new(&aside), "remove", &e))
    }
}

/// How far a file has come.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    /// What is being written from what.
    fingerprint: String,
    /// Tensors that are whole.
    tensors: usize,
}

/// A file that is being written beside its place, with a journal, so that a broken run can go on.
pub struct PartFile<'a> {
    target: &'a Path,
    part: PathBuf,
    journal: PathBuf,
    file: File,
    fingerprint: &'a str,
    /// Tensors that a run before has left whole.
    done: usize,
}

impl<'a> PartFile<'a> {
    /// Opens what will become `target`. Tensors of a run before are kept when `fingerprint` is the same.
    ///
    /// # Errors
    /// `io` when it cannot be written, `overloaded` when another process is writing it.
    pub fn open(target: &'a Path, plan: &WeightFile, fingerprint: &'a str) -> Result<Self> {
        let part = part_of(target);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&part)
            .map_err(|e| io(&part, "write", &e))?;
        if !file.try_lock_exclusive().map_err(|e| io(&part, "lock", &e))? {
            let message = format!("cannot write {}: another process is writing it", target.display());
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        let journal = PathBuf::from(format!("{}.json", part.display()));
        let done = done(&journal, fingerprint, plan, &file);
        let position = plan.position(done);
        file.set_len(position)
            .and_then(|()| file.seek(SeekFrom::Start(position)))
            .map_err(|e| io(&part, "write", &e))?;
        Ok(Self { target, part, journal, file, fingerprint, done })
    }

    /// Tensors that are whole already.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Puts the file in its place.
    pub fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(|e| io(&self.part, "write", &e))?;
        std::fs::rename(&self.part, self.target).map_err(|e| io(self.target, "write", &e))?;
        // A journal without its file is of no use to anyone, but does no harm either.
        let _ = std::fs::remove_file(&self.journal);
        Ok(())
    }
}

/// Whole tensors of a run before, if its journal is of the same work and the file is as long as it says.
fn done(journal: &Path, fingerprint: &str, plan: &WeightFile, file: &File) -> usize {
    let read = || -> Option<usize> {
        let journal: Journal = serde_json::from_slice(&std::fs::read(journal).ok()?).ok()?;
        let fits = journal.fingerprint == fingerprint && journal.tensors <= plan.tensors.len();
        let long_enough = fits && file.metadata().ok()?.len() >= plan.position(journal.tensors);
        long_enough.then_some(journal.tensors)
    };
    read().unwrap_or(0)
}

impl Sink for PartFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| io(&self.part, "write", &e))
    }

    fn tensor_done(&mut self, tensor: usize) -> Result<()> {
        let journal = Journal { fingerprint: self.fingerprint.to_owned(), tensors: tensor + 1 };
        let bytes = serde_json::to_vec(&journal).map_err(|e| Error::internal(format!("writing a journal: {e}")))?;
        write_whole(&self.journal, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_brings_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.gguf"), "x").unwrap();
        std::fs::write(dir.path().join("a.json"), "y").unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let (folder, file) = DiskFolder::open(&dir.path().join("b.gguf")).unwrap();
        assert_eq!(
            (folder.names(), file.as_deref()),
            (["a.json".to_owned(), "b.gguf".to_owned()].as_slice(), Some("b.gguf"))
        );
        assert_eq!((*folder.open("a.json").unwrap()).as_ref(), b"y");
        assert!(DiskFolder::open(dir.path()).unwrap().1.is_none());
        let error = DiskFolder::open(&dir.path().join("none")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Io);
    }

    #[test]
    fn a_part_is_kept_for_the_same_work_only_and_written_by_one() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/checkpoints/f16.gguf");
        let checkpoint = super::super::source::Source::new(fixture).open().unwrap();
        let plan = &crate::convert::plan_gguf(&checkpoint, crate::quantize::FileType::Q8_0).unwrap().files[0];
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.gguf");
        let mut part = PartFile::open(&target, plan, "work").unwrap();
        part.write(&vec![7; plan.position(2) as usize]).unwrap();
        part.tensor_done(1).unwrap();
        part.write(b"half a tensor").unwrap();
        assert_eq!(PartFile::open(&target, plan, "work").err().unwrap().kind(), ErrorKind::Overloaded);
        drop(part);
        let part = PartFile::open(&target, plan, "work").unwrap();
        assert_eq!((part.done(), part.file.metadata().unwrap().len()), (2, plan.position(2)));
        drop(part);
        let part = PartFile::open(&target, plan, "other work").unwrap();
        assert_eq!((part.done(), part.file.metadata().unwrap().len()), (0, 0));
        part.finish().unwrap();
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["out.gguf"]);
    }

    #[test]
    fn space_that_no_disk_has_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not/yet/there.gguf");
        check_space(&path, 1).unwrap();
        let error = check_space(&path, u64::MAX).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InsufficientResources);
        assert!(error.to_string().contains("expected 18446744073709551615 bytes of free space"), "{error}");
    }
}
