//! Long work on a thread of its own: describing, converting, merging files, and measuring the machine.
//!
//! A task looks like an engine that only loads: progress comes as events, then `ready` or `failed`; the result is a
//! JSON text. Closing it ends the work at the next report of progress, and what was written can be taken up again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::disk::{PartFile, PartFolder, check_space, make_folder, part_of, write_whole};
use super::source::Source;
use super::{closed, content, machine, panic_text};
use crate::checkpoint::Checkpoint;
use crate::convert::{self, Plan, WeightFile};
use crate::error::{Error, Result};
use crate::inspect;
use crate::quantize::FileType;
use crate::records::{self, HostEvent};

/// What to do.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case", deny_unknown_fields)]
pub enum TaskConfig {
    /// Describe a model (`inspect::Report`).
    Inspect {
        /// The model.
        source: Source,
        /// Use less context than the model allows.
        context_length: Option<usize>,
    },
    /// Write a model as another type or format.
    Convert {
        /// The model.
        source: Source,
        /// The file (GGUF) or folder (safetensors) to make.
        out: PathBuf,
        /// The type of its weights, such as `q4_k_m`.
        file_type: String,
        /// How to store them.
        #[serde(default)]
        format: OutFormat,
        /// Whether what lies there may be replaced.
        #[serde(default)]
        overwrite: bool,
    },
    /// Write a model as GGUF of another type into a cache, unless it is there.
    Cache {
        /// The model.
        source: Source,
        /// The folder of the cache.
        folder: PathBuf,
        /// The type of its weights.
        file_type: String,
    },
    /// Measure what this machine can do at most (`machine::Limits`).
    Machine {},
}

/// How converted weights are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutFormat {
    /// One file.
    #[default]
    Gguf,
    /// A folder as Hugging Face has it.
    Safetensors,
}

/// What a conversion made.
#[derive(Debug, Serialize)]
struct Converted {
    path: PathBuf,
    bytes: u64,
    /// Whether it was there already.
    reused: bool,
}

/// Work on a thread.
pub struct Task {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    progress: Option<(u64, u64)>,
    outcome: Option<Result<String>>,
    /// Whether the outcome has been handed out.
    told: bool,
    closed: bool,
}

impl Task {
    /// Begins at once, on a thread.
    ///
    /// # Errors
    /// `internal` when no thread can be had.
    pub fn start(config: TaskConfig) -> Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let on_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("llamero-task".into())
            .spawn(move || on_thread.run(&config))
            .map_err(|e| Error::internal(format!("cannot start a thread: {e}")))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Wait up to `timeout` for news, then hand it to `take`; news that it does not take stays.
    ///
    /// # Errors
    /// `closed` once the task is closed.
    pub fn drain(&self, timeout: Duration, take: &mut dyn FnMut(&HostEvent) -> bool) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        while !state.has_news() && !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.closed {
            return Err(closed());
        }
        if let Some((done, total)) = state.progress
            && take(&HostEvent::Loading { done, total })
        {
            state.progress = None;
        }
        if state.progress.is_none() && !state.told {
            let event = match &state.outcome {
                None => return Ok(()),
                Some(Ok(_)) => HostEvent::Ready,
                Some(Err(error)) => HostEvent::Failed(error.clone()),
            };
            state.told = take(&event);
        }
        Ok(())
    }

    /// The result as JSON.
    ///
    /// # Errors
    /// What ended the work, and `invalid_request` while it goes on.
    pub fn result(&self) -> Result<String> {
        let state = self.shared.lock();
        match &state.outcome {
            _ if state.closed => Err(closed()),
            Some(outcome) => outcome.clone(),
            None => Err(Error::invalid_request("the task is still running, wait for it to be ready")),
        }
    }

    /// Ends the work and joins the thread. Idempotent.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread has become the outcome already.
            let _ = thread.join();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.close();
    }
}

impl State {
    fn has_news(&self) -> bool {
        self.progress.is_some() || (self.outcome.is_some() && !self.told)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, config: &TaskConfig) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.work(config))).unwrap_or_else(|panic| {
            Err(Error::internal(format!("the task's thread panicked: {}", panic_text(&*panic))))
        });
        self.lock().outcome = Some(outcome);
        self.changed.notify_all();
    }

    fn work(&self, config: &TaskConfig) -> Result<String> {
        match config {
            TaskConfig::Inspect { source, context_length } => {
                let report = inspect::report(&source.open()?, *context_length, machine::memory())?;
                Ok(records::json(&report))
            }
            TaskConfig::Convert { source, out, file_type, format, overwrite } => {
                if is_taken(out) && !overwrite {
                    let message = format!("cannot write {}: it exists (--force replaces it)", out.display());
                    return Err(Error::invalid_request(message));
                }
                let (file_type, (checkpoint, files)) = (FileType::parse(file_type)?, source.open_recorded()?);
                check_target(out, *format, &files)?;
                let plan = match format {
                    OutFormat::Gguf => convert::plan_gguf(&checkpoint, file_type)?,
                    OutFormat::Safetensors => convert::plan_safetensors(&checkpoint, file_type)?,
                };
                self.write(&checkpoint, &fingerprint(&files, &plan)?, &plan, out, *format)?;
                Ok(records::json(&Converted { path: out.clone(), bytes: plan.bytes(), reused: false }))
            }
            TaskConfig::Cache { source, folder, file_type } => self.cache(source, folder, FileType::parse(file_type)?),
            TaskConfig::Machine {} => {
                Ok(records::json(&machine::limits(&mut |done, total| self.progress(done, total))?))
            }
        }
    }

    /// Tells how far the work is; an error when it should end.
    fn progress(&self, done: u64, total: u64) -> Result<()> {
        let mut state = self.lock();
        if state.closed {
            return Err(closed());
        }
        state.progress = Some((done, total));
        self.changed.notify_all();
        Ok(())
    }

    fn write(
        &self,
        checkpoint: &Checkpoint,
        fingerprint: &str,
        plan: &Plan,
        out: &Path,
        format: OutFormat,
    ) -> Result<()> {
        let total = plan.bytes();
        check_space(out, total)?;
        match format {
            OutFormat::Gguf => self.write_file(checkpoint, fingerprint, &plan.files[0], out, (0, total))?,
            OutFormat::Safetensors => self.write_folder(checkpoint, fingerprint, plan, out)?,
        }
        self.progress(total, total)
    }

    fn write_folder(&self, checkpoint: &Checkpoint, fingerprint: &str, plan: &Plan, out: &Path) -> Result<()> {
        let (folder, total) = (PartFolder::open(out, fingerprint)?, plan.bytes());
        let mut done = 0;
        for file in &plan.files {
            let path = folder.path_of(&file.name);
            // A file of the same work that has its name is whole.
            if !path.exists() {
                self.write_file(checkpoint, fingerprint, file, &path, (done, total))?;
            }
            done += file.len;
            self.progress(done, total)?;
        }
        plan.companions.iter().try_for_each(|(name, bytes)| write_whole(&folder.path_of(name), bytes))?;
        folder.finish()
    }

    /// Writes one file of weights; `done` of `total` bytes are there before it.
    fn write_file(
        &self,
        checkpoint: &Checkpoint,
        fingerprint: &str,
        file: &WeightFile,
        path: &Path,
        (done, total): (u64, u64),
    ) -> Result<()> {
        let mut part = PartFile::open(path, file, fingerprint)?;
        let mut at = done + file.position(part.done());
        file.write(checkpoint, part.done(), &mut part, &mut |written| {
            at += written;
            self.progress(at, total)
        })?;
        part.finish()
    }

    fn cache(&self, source: &Source, folder: &Path, file_type: FileType) -> Result<String> {
        make_folder(folder)?;
        let (checkpoint, files) = source.open_recorded()?;
        let hash = content::hash(&files, folder, &mut |done, total| self.progress(done, total))?;
        let name = format!("{}-{}-{CONVERTER}.gguf", &hash[..HASH_DIGITS], file_type.name());
        let path = folder.join(name);
        if let Ok(meta) = std::fs::metadata(&path) {
            return Ok(records::json(&Converted { path, bytes: meta.len(), reused: true }));
        }
        let plan = convert::plan_gguf(&checkpoint, file_type)?;
        self.write(&checkpoint, &fingerprint(&files, &plan)?, &plan, &path, OutFormat::Gguf)?;
        Ok(records::json(&Converted { path, bytes: plan.bytes(), reused: false }))
    }
}

/// Whether something lies there that would be lost.
fn is_taken(out: &Path) -> bool {
    match std::fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => out.exists(),
    }
}

/// Refuses a place that would cost something: a source, or a folder with anything but a model of before in it.
fn check_target(out: &Path, format: OutFormat, sources: &[(String, PathBuf)]) -> Result<()> {
    let refuse =
        |wanted: &str| Err(Error::invalid_request(format!("cannot write {}: expected {wanted}", out.display())));
    let real = |path: &Path| path.canonicalize().ok();
    let (target, part) = (real(out), real(&part_of(out)));
    for source in sources.iter().filter_map(|(_, path)| real(path)) {
        if part.as_ref() == Some(&source) {
            return refuse("another name, since the model itself lies where it would be written first");
        }
        if format == OutFormat::Safetensors && target.is_some() && source.parent() == target.as_deref() {
            return refuse("another folder than the model's own");
        }
    }
    match (format, out.is_dir()) {
        (OutFormat::Gguf, true) => refuse("a file name, got a folder"),
        (OutFormat::Safetensors, false) if out.exists() => refuse("a folder, got a file"),
        (OutFormat::Safetensors, true) => match stranger(out) {
            Some(name) => refuse(&format!("a folder with nothing but a converted model in it, got {name} there")),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Something in a folder that no conversion has put there.
fn stranger(folder: &Path) -> Option<String> {
    let is_ours = |name: &str| name == "LICENSE" || OURS.iter().any(|ending| name.ends_with(ending));
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).find(|name| !is_ours(name))
}

/// How the names in a folder of a conversion end.
const OURS: [&str; 4] = [".safetensors", ".json", ".model", ".jinja"];
/// Raised when the same files are converted to other bytes than before.
const CONVERTER: u32 = 1;
/// Hexadecimal digits of a content hash in a file name: 64 bits, so that no two models of a user meet.
const HASH_DIGITS: usize = 16;

/// What is written from what, so that no run goes on with another's beginning: the heads of the output, and the paths,
/// sizes and times of the input.
fn fingerprint(files: &[(String, PathBuf)], plan: &Plan) -> Result<String> {
    let mut hasher = Sha256::new();
    plan.files.iter().for_each(|file| hasher.update(&file.head));
    for (role, path) in files {
        let state = content::state(path)?;
        hasher.update(format!("{role}\0{}\0{}\0{}\0", state.path.display(), state.len, state.modified_ns));
    }
    Ok(format!("{:x}", hasher.finalize()))
}
