//! Packed weights beside the models: made when a model is first loaded, mapped from then on. Loading is then a matter of
//! reading pages that the system may still have, and processes with the same model share them.
//!
//! Whatever goes wrong here costs a start its speed and nothing else: weights are then packed in memory.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use fs4::fs_std::FileExt;

use super::disk::{check_space, make_folder, part_of};
use super::{MappedFile, content};
use crate::checkpoint::{Bytes, Checkpoint, Packing};
use crate::error::{Error, ErrorKind, Result};

/// Most files that are kept; the one that was not used for the longest time goes.
pub const MAX_FILES: usize = 8;
/// What packs to less than this is packed faster than it is found.
pub const MIN_BYTES: usize = 16 << 20;
/// Bytes of the disk that stay free.
pub const SPARE_BYTES: u64 = 2 << 30;
/// Bytes that are written between two waits for the disk, so that progress is that of the disk.
const PIECE_BYTES: usize = 256 << 20;
/// How their names end.
const ENDING: &str = "packed";
/// Hexadecimal digits of a content hash in a file name: the whole one is in the file.
const HASH_DIGITS: usize = 16;

/// Packed weights of a model.
pub struct Found {
    packing: Packing,
    file: MappedFile,
    /// Whether they were made just now, so that much of the model's own files has been read.
    pub made: bool,
}

impl Found {
    /// The checkpoint with these weights.
    ///
    /// # Errors
    /// As [`Checkpoint::with_packed`].
    pub fn put_into(self, checkpoint: Checkpoint) -> Result<Checkpoint> {
        let bytes: Bytes = Arc::new(self.file);
        checkpoint.with_packed(self.packing, bytes)
    }
}

/// The packed weights of `checkpoint`, which is made of `files`, in `folder`: found there or made. None for a model that
/// has few or none to pack.
///
/// # Errors
/// `io` and `insufficient_resources` when they can be neither read nor written, `overloaded` when another process is
/// writing them, and what `progress` (bytes done, in total) returns.
pub fn find_or_make(
    checkpoint: &Checkpoint,
    files: &[(String, PathBuf)],
    folder: &Path,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Option<Found>> {
    if Packing::new(checkpoint, "")?.len() < MIN_BYTES {
        return Ok(None);
    }
    of_any_size(checkpoint, files, folder, progress).map(Some)
}

fn of_any_size(
    checkpoint: &Checkpoint,
    files: &[(String, PathBuf)],
    folder: &Path,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Found> {
    make_folder(folder)?;
    // Hashing, if it has to be done, is followed by packing, which reads the same bytes.
    let (weights, mut hashed) = (checkpoint.weight_bytes(), 0);
    let hash = content::hash(files, folder, &mut |done, total| {
        hashed = total;
        progress(done, total + weights)
    })?;
    let packing = Packing::new(checkpoint, &hash)?;
    let path = folder.join(format!("{}.{ENDING}", &hash[..HASH_DIGITS]));
    if let Some(file) = open(&path, &packing) {
        let len = packing.len() as u64;
        file.populate(&mut |done| progress(hashed + done, hashed + len))?;
        return Ok(Found { packing, file, made: false });
    }
    make(checkpoint, &packing, &path, &mut |done, total| progress(hashed + done, hashed + total))?;
    match open(&path, &packing) {
        Some(file) => Ok(Found { packing, file, made: true }),
        None => Err(Error::new(ErrorKind::Io, format!("expected the weights just packed in {}", path.display()))),
    }
}

/// The file at `path`, if it is what it has to be.
fn open(path: &Path, packing: &Packing) -> Option<MappedFile> {
    let file = MappedFile::open(path).ok().filter(|file| packing.is_of(file))?;
    // For the choice of what goes; where that may not be written, the file's age serves.
    let _ = OpenOptions::new().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    Some(file)
}

fn make(
    checkpoint: &Checkpoint,
    packing: &Packing,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    let part = part_of(path);
    let fail = |e: std::io::Error| Error::new(ErrorKind::Io, format!("cannot write {}: {e}", part.display()));
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&part).map_err(fail)?;
    if !file.try_lock_exclusive().map_err(fail)? {
        let message = format!("cannot write {}: another process is writing it", path.display());
        return Err(Error::new(ErrorKind::Overloaded, message));
    }
    make_room(path);
    // A run before may have been ended in the middle.
    file.set_len(0).map_err(fail)?;
    let written = check_space(path, packing.len() as u64 + SPARE_BYTES)
        .and_then(|()| write(checkpoint, packing, &mut file, progress, &fail))
        .and_then(|()| std::fs::rename(&part, path).map_err(fail));
    if written.is_err() {
        // While it is locked, so that it is nobody else's.
        let _ = std::fs::remove_file(&part);
    }
    written
}

/// Writes all of it to the disk itself: a name for what a power cut may take away would be wrong weights later.
fn write(
    checkpoint: &Checkpoint,
    packing: &Packing,
    file: &mut File,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    fail: &dyn Fn(std::io::Error) -> Error,
) -> Result<()> {
    let mut waiting = 0;
    let mut put = |bytes: &[u8]| {
        file.write_all(bytes).map_err(fail)?;
        waiting += bytes.len();
        if waiting >= PIECE_BYTES {
            file.sync_data().map_err(fail)?;
            waiting = 0;
        }
        Ok(())
    };
    packing.write(checkpoint, &mut put, progress)?;
    file.sync_all().map_err(fail)
}

/// Removes the files that were not used for the longest time, until there is room for one more. Processes that have one
/// mapped keep it.
fn make_room(path: &Path) {
    let Some(folder) = path.parent() else { return };
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = found
        .filter(|file| file != path && file.extension().is_some_and(|ending| ending == ENDING))
        .filter_map(|file| Some((std::fs::metadata(&file).and_then(|meta| meta.modified()).ok()?, file)))
        .collect();
    files.sort();
    let too_many = (files.len() + 1).saturating_sub(MAX_FILES);
    files.into_iter().take(too_many).for_each(|(_, file)| drop(std::fs::remove_file(file)));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::source::Source;
    use super::*;
    use crate::kernels::CacheType;
    use crate::load::Loaded;

    const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tiny-llama2.gguf");

    fn find(model: &Path, folder: &Path) -> Result<(Found, Checkpoint)> {
        let (checkpoint, files) = Source::new(model).open_recorded()?;
        let (mut last, mut begun) = ((0, 0), false);
        let found = of_any_size(&checkpoint, &files, folder, &mut |done, total| {
            assert!(done <= total && (last.0 <= done || !begun), "{last:?} {done}");
            (last, begun) = ((done, total), true);
            Ok(())
        })?;
        assert_eq!(last.0, last.1);
        Ok((found, checkpoint))
    }

    fn load(checkpoint: &Checkpoint) -> Loaded {
        checkpoint.load(checkpoint.plan(None).unwrap(), CacheType::F16, &mut |_, _| Ok(())).unwrap()
    }

    #[test]
    fn weights_are_packed_once_for_the_same_contents() {
        let (models, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (model, folder) = (models.path().join("a.gguf"), dir.path().join("not/yet/there"));
        std::fs::copy(FIXTURE, &model).unwrap();
        let packed = || {
            let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            files.filter(|file| file.extension().is_some_and(|ending| ending == ENDING)).collect::<Vec<_>>()
        };
        assert!(find(&model, &folder).unwrap().0.made);
        let (found, checkpoint) = find(&model, &folder).unwrap();
        assert!(!found.made && packed().len() == 1);
        let (mapped, plain) = (found.put_into(checkpoint).unwrap(), Source::new(&model).open().unwrap());
        let logits = |loaded: Loaded| {
            let mut cache = loaded.model.new_cache();
            loaded.model.logits(&[1, 5, 9], &mut cache).unwrap()
        };
        assert_eq!(logits(load(&mapped)), logits(load(&plain)));

        // What is not whole is made again.
        let file = OpenOptions::new().write(true).open(&packed()[0]).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        assert!(find(&model, &folder).unwrap().0.made);
        assert!(!find(&model, &folder).unwrap().0.made);

        // Other contents under the same name are another model.
        let mut bytes = std::fs::read(&model).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&model, bytes).unwrap();
        assert!(find(&model, &folder).unwrap().0.made && packed().len() == 2);
    }

    #[test]
    fn what_cannot_be_kept_says_why_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let model = Path::new(FIXTURE);
        assert!(
            find_or_make(&Source::new(model).open().unwrap(), &[], dir.path(), &mut |_, _| Ok(())).unwrap().is_none()
        );
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(find(model, &file.join("folder")).err().unwrap().kind(), ErrorKind::Io);

        let (checkpoint, files) = Source::new(model).open_recorded().unwrap();
        let folder = dir.path().join("packed");
        let mut calls = 0;
        let ended = of_any_size(&checkpoint, &files, &folder, &mut |_, _| {
            calls += 1;
            if calls == 3 { Err(super::super::closed()) } else { Ok(()) }
        });
        assert_eq!(ended.err().unwrap().kind(), ErrorKind::Closed);
        let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["hashes.json"]);

        // Somebody else is at it.
        let hash = content::hash(&files, &folder, &mut |_, _| Ok(())).unwrap();
        let part = part_of(&folder.join(format!("{}.{ENDING}", &hash[..HASH_DIGITS])));
        let other = File::create(part).unwrap();
        assert!(other.try_lock_exclusive().unwrap());
        assert_eq!(find(model, &folder).err().unwrap().kind(), ErrorKind::Overloaded);
        drop(other);
        assert!(find(model, &folder).unwrap().0.made);
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_goes() {
        let dir = tempfile::tempdir().unwrap();
        let name = |i: usize| dir.path().join(format!("{i:016}.packed"));
        for i in 0..MAX_FILES + 2 {
            let file = File::create(name(i)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(100 - i as u64)).unwrap();
        }
        std::fs::write(dir.path().join("hashes.json"), "{}").unwrap();
        make_room(&name(MAX_FILES + 1));
        let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        left.sort();
        let wanted = (0..MAX_FILES - 1).chain([MAX_FILES + 1]).map(name).chain([dir.path().join("hashes.json")]);
        assert_eq!(left, wanted.collect::<Vec<_>>());
    }
}
