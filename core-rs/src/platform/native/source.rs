//! A model as a caller names it: paths on disk, and what is to be added to the weights there.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::disk::DiskFolder;
use crate::checkpoint::{Checkpoint, apply_delta, merge_lora};
use crate::error::Result;

/// A model on disk, with what is added to its weights.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A model's folder, or one of its files.
    pub path: PathBuf,
    /// The model that `path` is the difference to.
    pub base: Option<PathBuf>,
    /// Folders of adapters to merge, in order.
    #[serde(default)]
    pub lora: Vec<PathBuf>,
}

impl Source {
    /// The model at a path, as it is.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), base: None, lora: Vec::new() }
    }

    /// Reads the headers of all files.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], [`apply_delta`] and [`merge_lora`], with the path in front.
    pub fn open(&self) -> Result<Checkpoint> {
        Ok(self.open_recorded()?.0)
    }

    /// The same, and every file that had a part in it with what it is for.
    pub(super) fn open_recorded(&self) -> Result<(Checkpoint, Vec<(String, PathBuf)>)> {
        let (mut checkpoint, mut files) = open(&self.path, "model")?;
        if let Some(base) = &self.base {
            let (base, more) = open(base, "base")?;
            checkpoint = apply_delta(base, checkpoint)?;
            files.extend(more);
        }
        for (i, adapter) in self.lora.iter().enumerate() {
            let (folder, _) = DiskFolder::open(adapter)?;
            checkpoint = merge_lora(checkpoint, &folder).map_err(|e| e.context(adapter.display()))?;
            files.extend(recorded(&folder, &format!("adapter {i}")));
        }
        Ok((checkpoint, files))
    }
}

fn open(path: &Path, role: &str) -> Result<(Checkpoint, Vec<(String, PathBuf)>)> {
    let (folder, file) = DiskFolder::open(path)?;
    let checkpoint = Checkpoint::open(&folder, file.as_deref()).map_err(|e| e.context(path.display()))?;
    Ok((checkpoint, recorded(&folder, role)))
}

/// The files of a folder that were opened, each with its role and its name.
fn recorded(folder: &DiskFolder, role: &str) -> Vec<(String, PathBuf)> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    folder.opened().into_iter().map(|path| (format!("{role}: {}", name(&path)), path)).collect()
}
