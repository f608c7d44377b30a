//! The C border: the same few verbs outward, as numbers and caller-owned buffers.
//!
//! How a caller uses it:
//!
//! ```text
//! llamero_abi_version()                 compare with the version the caller was written for
//! id = llamero_open(json)               returns at once; a thread loads the model
//! loop: n = llamero_wait(id, buffer)    one outstanding wait per engine, on any thread; see `records` for the layout
//! llamero_describe(id, buffer)          after the ready record: the model's description as JSON
//! r = llamero_submit(id, json)          returns at once; the reply's records carry r
//! r = llamero_embed(id, json)           the same for a text as a vector
//! llamero_cancel(id, r)                 returns at once; its last record follows
//! llamero_close(id)                     joins the thread; a waiting llamero_wait returns `closed`
//!
//! id = llamero_start(json)              work with files (describe, convert): the same wait, describe for the result, close
//! ```
//!
//! Every function returns a number; a negative one is `ErrorKind::code`, and `llamero_last_error` has the sentence.
//! Functions that fill a buffer return the size that they need: when it is more than the capacity, nothing was written.
//! Engines are ids, never pointers: a stale or invented id gives `not_found`. No panic crosses: each export runs in
//! `catch_unwind`. Absent here: decisions.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::engine::{Ask, EmbedRequest, MAX_EMBEDDING, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::platform::{Host, HostConfig, Task, TaskConfig, panic_text};
use crate::records::{self, HostEvent};

/// Raised with every change of a signature, a record layout or a meaning.
pub const ABI_VERSION: u32 = 4;
/// Most engines and tasks open at once in one process.
pub const MAX_ENGINES: usize = 64;
/// Smallest buffer that `llamero_wait` accepts: every record fits.
pub const MIN_WAIT_BUFFER: usize = 256 << 10;

const _: () = assert!(MAX_EMBEDDING * size_of::<f32>() < MIN_WAIT_BUFFER - 1024);

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Registry {
    last_id: i32,
    open: HashMap<i32, Open>,
    /// The sentence of the last failed call by engine; 0 is for calls that have no engine.
    errors: HashMap<i32, String>,
}

/// What an id stands for.
#[derive(Clone)]
enum Open {
    Engine(Arc<Host>),
    Task(Arc<Task>),
}

impl Registry {
    fn lock() -> MutexGuard<'static, Self> {
        REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(id: i32) -> Result<Open> {
        let found = Self::lock().open.get(&id).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("expected an open engine, got the id {id}")))
    }

    fn host(id: i32) -> Result<Arc<Host>> {
        match Self::find(id)? {
            Open::Engine(host) => Ok(host),
            Open::Task(_) => {
                Err(Error::new(ErrorKind::NotFound, format!("expected an engine, got the id {id} of a task")))
            }
        }
    }

    /// Makes something and gives it an id.
    fn open(make: impl FnOnce() -> Result<Open>) -> Result<usize> {
        if Self::lock().open.len() >= MAX_ENGINES {
            let message = format!("at most {MAX_ENGINES} engines and tasks may be open, close one first");
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        let made = make()?;
        let mut registry = Self::lock();
        registry.last_id += 1;
        let id = registry.last_id;
        registry.open.insert(id, made);
        Ok(id as usize)
    }
}

/// Run one export: errors and panics become codes, and their sentence is kept for `llamero_last_error`.
fn export(engine: i32, body: impl FnOnce() -> Result<usize>) -> i32 {
    let outcome = catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|panic| Err(Error::internal(format!("caught a panic: {}", panic_text(&*panic)))))
        .and_then(|n| i32::try_from(n).map_err(|_| Error::internal(format!("expected a result below 2^31, got {n}"))));
    outcome.unwrap_or_else(|error| {
        let mut registry = Registry::lock();
        // Ids that were never given out must not grow the table.
        let slot = if registry.open.contains_key(&engine) { engine } else { 0 };
        registry.errors.insert(slot, error.to_string());
        error.kind().code()
    })
}

/// # Safety
/// `data` must be valid for reads of `len` bytes during the call, or null with `len` 0.
unsafe fn input<'a, T>(data: *const T, len: usize) -> Result<&'a [T]> {
    match (data.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Error::invalid_request("expected a buffer, got a null pointer")),
        // SAFETY: promised by the caller; integers have no invalid values and JavaScript's typed arrays are aligned.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(data, len) }),
    }
}

/// Copy `from` into the caller's buffer if it fits; returns how many elements there are either way.
///
/// # Safety
/// `out` must be valid for writes of `capacity` elements during the call, or null with `capacity` 0.
unsafe fn output<T: Copy>(from: &[T], out: *mut T, capacity: usize) -> Result<usize> {
    if from.len() <= capacity && !from.is_empty() {
        if out.is_null() {
            return Err(Error::invalid_request("expected a buffer, got a null pointer"));
        }
        // SAFETY: `out` holds `capacity` elements by the caller's promise, and is no part of `from`, which is ours.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), out, from.len()) };
    }
    Ok(from.len())
}

fn from_json<'a, T: serde::Deserialize<'a>>(what: &str, json: &'a [u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|e| Error::invalid_request(format!("expected {what} in JSON, got {e}")))
}

/// The version of this border.
#[unsafe(no_mangle)]
pub extern "C" fn llamero_abi_version() -> u32 {
    ABI_VERSION
}

/// Start loading a model; returns an engine id above 0 at once. The configuration is `HostConfig` in JSON.
///
/// # Safety
/// `config` must be valid for reads of `len` bytes during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llamero_open(config: *const u8, len: usize) -> i32 {
    export(0, || {
        // SAFETY: the caller's promise.
        let json = unsafe { input(config, len) }?;
        let config: HostConfig = from_json("an engine configuration", json)?;
        Registry::open(|| Ok(Open::Engine(Arc::new(Host::open(config)?))))
    })
}

/// Begin work with files; returns an id above 0 at once. The work is `TaskConfig` in JSON; its progress and end come out
/// of `llamero_wait`, its result out of `llamero_describe`.
///
/// # Safety
/// `config` must be valid for reads of `len` bytes during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llamero_start(config: *const u8, len: usize) -> i32 {
    export(0, || {
        // SAFETY: the caller's promise.
        let json = unsafe { input(config, len) }?;
        let config: TaskConfig = from_json("a task", json)?;
        Registry::open(|| Ok(Open::Task(Arc::new(Task::start(config)?))))
    })
}

/// Wait up to `timeout_ms` for events and write whole records; returns their bytes, 0 when there were none in time.
///
/// # Safety
/// `out` must be valid for writes of `capacity` bytes during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llamero_wait(engine: i32, out: *mut u8, capacity: usize, timeout_ms: u32) -> i32 {
    export(engine, || {
        if capacity < MIN_WAIT_BUFFER {
            let message = format!("the wait buffer must have at least {MIN_WAIT_BUFFER} bytes, got {capacity}");
            return Err(Error::invalid_request(message));
        }
        let mut bytes = Vec::new();
        let timeout = Duration::from_millis(timeout_ms.into());
        let take = &mut |event: &HostEvent| records::append(event, &mut bytes, capacity);
        match Registry::find(engine)? {
            Open::Engine(host) => host.drain(timeout, take)?,
            Open::Task(task) => task.drain(timeout, take)?,
        }
        // SAFETY: the caller's promise.
        unsafe { output(&bytes, out, capacity) }
    })
}

/// The description of the loaded model as JSON (`ModelInfo`), or the result of a task.
///
/// # Safety
/// `out` must be valid for writes of `capacity` bytes during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llamero_describe(engine: i32, out: *mut u8, capacity: usize) -> i32 {
    export(engine, || {
        let description = match Registry::find(engine)? {
            Open::Engine(host) => records::json(&*host.info()?),
            Open::Task(task) => task.result()?,
        };
        // SAFETY: the caller's promise.
        unsafe { output(description.as_bytes(), out, capacity) }
    })
}

/// Hand in a request (`Request::from_json`); returns its id above 0 at once.
///
/// # Safety
/// `request` must be valid for reads of `len` bytes during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llamero_submit(engine: i32, request: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { submit(engine, request, len, |json| Ok(Request::from_json(json)?.into())) }
}

/// Hand in a text that is to become a vector (`EmbedRequest::from_json`); returns its id above 0 at once.
///
/// # Safety
/// `request` must be valid for reads of `len` bytes during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llamero_embed(engine: i32, request: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { submit(engine, request, len, |json| Ok(EmbedRequest::from_json(json)?.into())) }
}

/// # Safety
/// `request` must be valid for reads of `len` bytes during the call.
unsafe fn submit(engine: i32, request: *const u8, len: usize, read: fn(&[u8]) -> Result<Ask>) -> i32 {
    export(engine, || {
        // SAFETY: the caller's promise.
        let ask = read(unsafe { input(request, len) }?)?;
        Ok(Registry::host(engine)?.submit(ask)? as usize)
    })
}

/// End a request; its last record follows: done, or of an embedding an error of kind `closed`. A request that has ended already is left alone.
#[unsafe(no_mangle)]
pub extern "C" fn llamero_cancel(engine: i32, request: i32) -> i32 {
    export(engine, || {
        let host = Registry::host(engine)?;
        if let Ok(id) = u32::try_from(request) {
            host.cancel(id);
        }
        Ok(0)
    })
}

/// Token ids of a prompt, a JSON array of its parts; returns how many there are.
///
/// # Safety
/// `prompt` must be valid for reads of `len` bytes and `out` for writes of `capacity` ids during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llamero_tokenize(
    engine: i32,
    prompt: *const u8,
    len: usize,
    out: *mut u32,
    capacity: usize,
) -> i32 {
    export(engine, || {
        // SAFETY: the caller's promise.
        let parts: Vec<String> = from_json("an array of texts", unsafe { input(prompt, len) }?)?;
        let ids = Registry::host(engine)?.tokenizer()?.encode(&parts)?;
        // SAFETY: the caller's promise.
        unsafe { output(&ids, out, capacity) }
    })
}

/// UTF-8 text of token ids; returns its bytes.
///
/// # Safety
/// `ids` must be valid for reads of `count` ids and `out` for writes of `capacity` bytes during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llamero_detokenize(
    engine: i32,
    ids: *const u32,
    count: usize,
    out: *mut u8,
    capacity: usize,
) -> i32 {
    export(engine, || {
        // SAFETY: the caller's promise.
        let text = Registry::host(engine)?.tokenizer()?.decode(unsafe { input(ids, count) }?)?;
        // SAFETY: the caller's promise.
        unsafe { output(text.as_bytes(), out, capacity) }
    })
}

/// How busy an engine is, as JSON (`Stats`).
///
/// # Safety
/// `out` must be valid for writes of `capacity` bytes during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llamero_stats(engine: i32, out: *mut u8, capacity: usize) -> i32 {
    export(engine, || {
        let stats = Registry::host(engine)?.stats();
        // SAFETY: the caller's promise.
        unsafe { output(records::json(&stats).as_bytes(), out, capacity) }
    })
}

/// The sentence of an engine's last failed call; engine 0 is for failed opens and ids that are not open.
///
/// # Safety
/// `out` must be valid for writes of `capacity` bytes during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llamero_last_error(engine: i32, out: *mut u8, capacity: usize) -> i32 {
    export(engine, || {
        let message = Registry::lock().errors.get(&engine).cloned().unwrap_or_default();
        // SAFETY: the caller's promise.
        unsafe { output(message.as_bytes(), out, capacity) }
    })
}

/// Close an engine: running requests are dropped, a waiting `llamero_wait` returns `closed`. Idempotent.
#[unsafe(no_mangle)]
pub extern "C" fn llamero_close(engine: i32) -> i32 {
    export(engine, || {
        let open = {
            let mut registry = Registry::lock();
            registry.errors.remove(&engine);
            registry.open.remove(&engine)
        };
        // Outside the lock: joining the thread takes as long as the piece of work it is at.
        match open {
            Some(Open::Engine(host)) => host.close(),
            Some(Open::Task(task)) => task.close(),
            None => {}
        }
        Ok(0)
    })
}

#[cfg(test)]
mod tests;
