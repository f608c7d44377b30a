//! One engine on one thread: commands go in and return at once, events come out through one blocking `drain`.
//!
//! The thread owns the engine; what others touch (inbox, outbox, numbers) sits behind one mutex that is never held
//! during arithmetic. A panic on the thread becomes a `Failed` event and an unhealthy host, never a poisoned process.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::compiling::{Compiling, MAX_COMPILE};
use super::source::Source;
use super::{closed, machine, monotonic_ms, packed, panic_text, random_seed};
use crate::checkpoint::Checkpoint;
use crate::constrain::{STACK_BYTES, Vocabulary};
use crate::engine::{Ask, Constraint, Engine, Event, EventKind, Grammar, Limits, RequestId, Speculate};
use crate::error::{Error, ErrorKind, Result};
use crate::inspect;
use crate::kernels::{self, CacheType};
use crate::load::{Loaded, ModelInfo, Place};
use crate::model::Llama;
use crate::records::{HostEvent, Stats};
use crate::tokenizer::Tokenizer;

/// Most events of one request that wait to be read; its sequence rests while that many do.
pub const MAX_PENDING_EVENTS: usize = 256;

/// What to open, and how much work to take on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// A model's folder, or one of its files.
    pub path: PathBuf,
    /// Folders of adapters to merge into its weights, in order.
    #[serde(default)]
    pub lora: Vec<PathBuf>,
    /// Use less context than the model allows.
    pub context_length: Option<usize>,
    /// Conversations that share the model; see `Limits`.
    pub max_running: Option<usize>,
    /// Requests that may wait; see `Limits`.
    pub max_waiting: Option<usize>,
    /// A smaller model with the same vocabulary, which guesses ahead: its folder, or one of its files.
    pub draft: Option<PathBuf>,
    /// Whether replies guess ahead.
    #[serde(default)]
    pub speculate: Speculate,
    /// Force a kernel (`scalar`, `avx2`) instead of the best this machine has.
    pub cpu: Option<String>,
    /// How conversations keep keys and values: `f32`, `f16` or `q8_0`.
    #[serde(default)]
    pub kv: CacheType,
    /// Where the model runs: `cpu`, which is the default, `cuda` or `cuda:N`.
    pub device: Option<String>,
    /// A folder where packed weights are kept, for the CPU; without one they are packed in memory at each start.
    pub packed: Option<PathBuf>,
}

/// One of the models to load.
struct Wish<'a> {
    path: &'a Path,
    lora: &'a [PathBuf],
    context_length: Option<usize>,
    kv: CacheType,
    place: Place,
    packed: Option<&'a Path>,
}

/// An engine on a thread of its own.
pub struct Host {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The threads that compile constraints.
    compilers: Mutex<Vec<JoinHandle<()>>>,
    limits: Limits,
}

struct Shared {
    state: Mutex<State>,
    /// Signalled when the engine thread may find something to do.
    commands: Condvar,
    /// Signalled when a reader may find something to read.
    events: Condvar,
    /// The tokens as grammars see them, from the first constraint on.
    vocabulary: OnceLock<Result<Vocabulary>>,
}

struct State {
    phase: Phase,
    inbox: VecDeque<Command>,
    outbox: VecDeque<HostEvent>,
    /// Unread events by request.
    pending: HashMap<RequestId, usize>,
    last_id: RequestId,
    stats: Stats,
    /// Requests whose constraint is not compiled yet.
    compiling: Compiling,
}

enum Phase {
    Loading,
    Ready { info: Arc<ModelInfo>, tokenizer: Arc<Tokenizer> },
    Failed(Error),
    Closed,
}

enum Command {
    Submit(RequestId, Ask),
    Cancel(RequestId),
}

impl Host {
    /// Start a thread that loads the model; returns at once, progress and outcome come as events.
    ///
    /// # Errors
    /// `invalid_request` when the configuration is out of range, `internal` when no thread can be had.
    pub fn open(config: HostConfig) -> Result<Self> {
        let limits = Limits::new(config.max_running, config.max_waiting)?;
        if config.draft.is_some() && config.speculate == Speculate::Off {
            return Err(Error::invalid_request("draft must not be given where speculate is off"));
        }
        kernels::select(config.cpu.as_deref())?;
        let place = config.device.as_deref().map_or(Ok(Place::default()), Place::parse)?;
        let state = State {
            phase: Phase::Loading,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            pending: HashMap::new(),
            last_id: 0,
            stats: Stats::default(),
            compiling: Compiling::default(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            commands: Condvar::new(),
            events: Condvar::new(),
            vocabulary: OnceLock::new(),
        });
        let on_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("llamero-engine".into())
            .spawn(move || on_thread.run(&config, place, limits))
            .map_err(|e| Error::internal(format!("cannot start the engine thread: {e}")))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)), compilers: Mutex::default(), limits })
    }

    /// Hand in a request; its events come out of `drain`.
    ///
    /// # Errors
    /// `overloaded` when too many wait, `closed` or the engine's failure when it cannot serve.
    pub fn submit(&self, ask: impl Into<Ask>) -> Result<RequestId> {
        let mut state = self.shared.lock();
        state.ready()?;
        let handed_in = state.inbox.iter().filter(|command| matches!(command, Command::Submit(..))).count();
        if state.stats.waiting + handed_in + state.compiling.len() >= self.limits.max_waiting {
            let message = format!("at most {} requests may wait, try again later", self.limits.max_waiting);
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        // Ids cross the C border as positive i32; after two thousand million requests they start again.
        state.last_id = state.last_id % (i32::MAX as u32) + 1;
        let id = state.last_id;
        let mut ask = ask.into();
        match (ask.take_constraint(), ask) {
            (Some(constraint), Ask::Reply(request, _)) => {
                if state.compiling.push(id, *request, constraint)
                    && let Err(error) = self.start_compiler()
                {
                    state.compiling.ended();
                    state.compiling.take(id);
                    return Err(error);
                }
            }
            (_, ask) => state.inbox.push_back(Command::Submit(id, ask)),
        }
        self.shared.commands.notify_one();
        Ok(id)
    }

    fn start_compiler(&self) -> Result<()> {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new()
            .name("llamero-grammar".into())
            .stack_size(STACK_BYTES)
            .spawn(move || shared.compile())
            .map_err(|e| Error::new(ErrorKind::Overloaded, format!("cannot start a thread for grammars: {e}")))?;
        let mut compilers = self.compilers.lock().unwrap_or_else(PoisonError::into_inner);
        compilers.retain(|thread| !thread.is_finished());
        compilers.push(thread);
        Ok(())
    }

    /// End a request; its last event comes out of `drain`. Ids that have ended are ignored.
    pub fn cancel(&self, id: RequestId) {
        let mut state = self.shared.lock();
        if matches!(state.phase, Phase::Ready { .. }) {
            // Without its constraint: what is cancelled says nothing any more.
            if let Some(request) = state.compiling.take(id) {
                state.inbox.push_back(Command::Submit(id, request.into()));
            }
            state.inbox.push_back(Command::Cancel(id));
            self.shared.commands.notify_one();
        }
    }

    /// Wait up to `timeout` for events, then hand them to `take` in order until it returns false (that one stays).
    ///
    /// # Errors
    /// `closed` once the host is closed.
    pub fn drain(&self, timeout: Duration, take: &mut dyn FnMut(&HostEvent) -> bool) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            let now = Instant::now();
            state.end_late_constraints(now);
            if !state.outbox.is_empty() || matches!(state.phase, Phase::Closed) {
                break;
            }
            if now >= deadline {
                return Ok(());
            }
            let wake = state.compiling.deadline().map_or(deadline, |turn| turn.min(deadline));
            let left = wake.saturating_duration_since(now);
            state = self.shared.events.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if matches!(state.phase, Phase::Closed) {
            return Err(closed());
        }
        while let Some(event) = state.outbox.front()
            && take(event)
        {
            state.pop_event();
        }
        self.shared.commands.notify_one();
        Ok(())
    }

    /// What was loaded.
    ///
    /// # Errors
    /// While loading, and after a failure or `close`.
    pub fn info(&self) -> Result<Arc<ModelInfo>> {
        Ok(self.shared.lock().ready()?.0)
    }

    /// The tokenizer of what was loaded.
    ///
    /// # Errors
    /// While loading, and after a failure or `close`.
    pub fn tokenizer(&self) -> Result<Arc<Tokenizer>> {
        Ok(self.shared.lock().ready()?.1)
    }

    /// How busy the host is.
    pub fn stats(&self) -> Stats {
        let state = self.shared.lock();
        Stats { waiting: state.stats.waiting + state.compiling.len(), ..state.stats }
    }

    /// End everything: running requests are dropped, `drain` returns `closed`, the thread is joined. Idempotent.
    pub fn close(&self) {
        {
            let mut state = self.shared.lock();
            state.phase = Phase::Closed;
            state.stats = Stats { healthy: false, waiting: 0, running: 0, ..state.stats };
            state.inbox.clear();
            state.outbox.clear();
            state.compiling.clear();
        }
        self.shared.commands.notify_all();
        self.shared.events.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let compilers = std::mem::take(&mut *self.compilers.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in thread.into_iter().chain(compilers) {
            // A panic of the thread has been reported as an event already.
            let _ = thread.join();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.close();
    }
}

impl State {
    fn ready(&self) -> Result<(Arc<ModelInfo>, Arc<Tokenizer>)> {
        match &self.phase {
            Phase::Ready { info, tokenizer } => Ok((info.clone(), tokenizer.clone())),
            Phase::Loading => Err(Error::invalid_request("the model is still loading, wait for it to be ready")),
            Phase::Failed(error) => Err(error.clone()),
            Phase::Closed => Err(closed()),
        }
    }

    fn push_event(&mut self, event: HostEvent) {
        match (&event, self.outbox.back_mut()) {
            // Only the newest progress is worth reading.
            (HostEvent::Loading { .. }, Some(last @ HostEvent::Loading { .. })) => *last = event,
            _ => {
                if let HostEvent::Request(event) = &event {
                    *self.pending.entry(event.request).or_default() += 1;
                }
                self.outbox.push_back(event);
            }
        }
    }

    /// Fails requests whose constraint takes too long to compile.
    fn end_late_constraints(&mut self, now: Instant) {
        while let Some(request) = self.compiling.expired(now) {
            let wanted = MAX_COMPILE.as_secs();
            let error =
                Error::invalid_request(format!("compiling the constraint: expected at most {wanted} s, got more"));
            self.push_event(HostEvent::Request(Event { request, kind: EventKind::Failed(error) }));
        }
    }

    fn pop_event(&mut self) {
        if let Some(HostEvent::Request(event)) = self.outbox.pop_front()
            && let Some(count) = self.pending.get_mut(&event.request)
        {
            *count -= 1;
            if *count == 0 {
                self.pending.remove(&event.request);
            }
        }
    }

    fn is_blocked(&self, id: RequestId) -> bool {
        self.pending.get(&id).is_some_and(|&count| count >= MAX_PENDING_EVENTS)
    }
}

impl Shared {
    /// The state; a panic elsewhere cannot have left it half-changed, since nothing that panics runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, config: &HostConfig, place: Place, limits: Limits) {
        let outcome =
            catch_unwind(AssertUnwindSafe(|| self.load(config, place, limits).and_then(|engine| self.serve(engine))));
        let error = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => Error::internal(format!("the engine thread panicked: {}", panic_text(&*panic))),
        };
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Closed) {
            state.stats = Stats { healthy: false, waiting: 0, running: 0, ..state.stats };
            state.compiling.clear();
            state.phase = Phase::Failed(error.clone());
            state.push_event(HostEvent::Failed(error));
            self.events.notify_all();
        }
    }

    fn load(&self, config: &HostConfig, place: Place, limits: Limits) -> Result<Engine<Llama>> {
        let HostConfig { path, lora, context_length, kv, .. } = config;
        let packed = config.packed.as_deref();
        let loaded = self.load_model(&Wish { path, lora, context_length: *context_length, kv: *kv, place, packed })?;
        let draft = config.draft.as_ref().map(|path| self.load_draft(path, (place, packed), &loaded)).transpose()?;
        let mut info = loaded.info;
        info.constrains = true;
        if info.name.is_empty() {
            info.name = config.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        }
        let tokenizer = loaded.tokenizer;
        let mut state = self.lock();
        if matches!(state.phase, Phase::Closed) {
            return Err(closed());
        }
        state.phase = Phase::Ready { info: Arc::new(info), tokenizer: tokenizer.clone() };
        state.stats.healthy = true;
        state.push_event(HostEvent::Ready);
        self.events.notify_all();
        Ok(Engine::new(loaded.model, tokenizer, limits, monotonic_ms).speculating(config.speculate, draft))
    }

    fn load_model(&self, wish: &Wish<'_>) -> Result<Loaded> {
        let path = wish.path;
        let cannot = |e: Error| e.context(format!("cannot load {}", path.display()));
        let source = Source { path: path.to_path_buf(), base: None, lora: wish.lora.to_vec() };
        let (checkpoint, files) = source.open_recorded().map_err(|e| e.context("cannot load"))?;
        let plan = checkpoint.plan(wish.context_length).and_then(|plan| plan.on(wish.place)).map_err(cannot)?;
        let memory = machine::memory_of(plan.device()).map_err(cannot)?;
        inspect::check(&checkpoint, plan.config(), memory).map_err(cannot)?;
        let mut progress = |done, total| {
            let mut state = self.lock();
            state.push_event(HostEvent::Loading { done, total });
            self.events.notify_all();
            if matches!(state.phase, Phase::Closed) { Err(closed()) } else { Ok(()) }
        };
        let found = match wish.packed.filter(|_| wish.place == Place::Cpu) {
            Some(folder) => packed::find_or_make(&checkpoint, &files, folder, &mut progress),
            None => Ok(None),
        };
        let not_mapped = match found {
            Ok(Some(found)) => {
                // What was read for them need not stay in memory beside them.
                let checkpoint = if found.made { source.open().map_err(cannot)? } else { checkpoint };
                // All bytes have been told of.
                let load = |checkpoint: Checkpoint| checkpoint.load(plan, wish.kv, &mut |_, _| Ok(()));
                return found.put_into(checkpoint).and_then(load).map_err(cannot);
            }
            Ok(None) => None,
            Err(error) if error.kind() == ErrorKind::Closed => return Err(error),
            Err(error) => Some(error.to_string()),
        };
        let mut loaded = checkpoint.load(plan, wish.kv, &mut progress).map_err(cannot)?;
        loaded.info.not_mapped = not_mapped;
        Ok(loaded)
    }

    /// The smaller model, which must mean the same by each token id.
    fn load_draft(&self, path: &Path, (place, packed): (Place, Option<&Path>), of: &Loaded) -> Result<Llama> {
        let context_length = Some(of.info.context_length);
        let draft =
            self.load_model(&Wish { path, lora: &[], context_length, kv: CacheType::default(), place, packed })?;
        let (ours, theirs) = (&of.tokenizer, &draft.tokenizer);
        let len = ours.len().max(theirs.len()) as u32;
        match (0..len).find(|&id| ours.piece(id) != theirs.piece(id)) {
            None => Ok(draft.model),
            Some(id) => Err(Error::invalid_request(format!(
                "cannot use {} as a draft: expected the vocabulary of the model, where token {id} is {:?}, got {:?}",
                path.display(),
                ours.piece(id).unwrap_or_default(),
                theirs.piece(id).unwrap_or_default(),
            ))),
        }
    }

    fn serve(&self, mut engine: Engine<Llama>) -> Result<()> {
        let mut events = Vec::new();
        while let Some(commands) = self.next_commands(&engine) {
            for command in commands {
                match command {
                    Command::Submit(id, ask) => engine.submit(id, ask, random_seed(), &mut events),
                    Command::Cancel(id) => engine.cancel(id, &mut events),
                }
            }
            self.publish(&engine, &mut events);
            engine.step(&|id| self.lock().is_blocked(id), &mut events);
            self.publish(&engine, &mut events);
        }
        Ok(())
    }

    /// Compile constraints until none waits.
    fn compile(&self) {
        // Made once, and on nobody's time. What is wrong with it, each request is told.
        let _ = self.vocabulary();
        while let Some((id, constraint)) = self.next_constraint() {
            let outcome = self.grammar(&constraint);
            let mut state = self.lock();
            // Cancelled, too late or closed in the meantime, when it is not there any more.
            let Some(request) = state.compiling.take(id) else { continue };
            match outcome {
                Ok(grammar) => state.inbox.push_back(Command::Submit(id, Ask::Reply(Box::new(request), Some(grammar)))),
                Err(error) => {
                    state.push_event(HostEvent::Request(Event { request: id, kind: EventKind::Failed(error) }));
                    self.events.notify_all();
                }
            }
            self.commands.notify_one();
        }
    }

    fn next_constraint(&self) -> Option<(RequestId, Constraint)> {
        let next = self.lock().compiling.next(Instant::now());
        // Whoever waits for events looks at the end of this turn too.
        self.events.notify_all();
        next
    }

    fn grammar(&self, constraint: &Constraint) -> Result<Box<dyn Grammar>> {
        self.vocabulary()?.compile(constraint)
    }

    fn vocabulary(&self) -> Result<&Vocabulary> {
        let (_, tokenizer) = self.lock().ready()?;
        let vocabulary = self.vocabulary.get_or_init(|| Vocabulary::new(&tokenizer));
        vocabulary.as_ref().map_err(Error::clone)
    }

    /// Sleep until there is a command or work; none when closed.
    fn next_commands(&self, engine: &Engine<Llama>) -> Option<VecDeque<Command>> {
        let mut state = self.lock();
        loop {
            if matches!(state.phase, Phase::Closed) {
                return None;
            }
            if !state.inbox.is_empty() || engine.has_work(&|id| state.is_blocked(id)) {
                return Some(std::mem::take(&mut state.inbox));
            }
            state = self.commands.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn publish(&self, engine: &Engine<Llama>, events: &mut Vec<Event>) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Closed) {
            events.clear();
            return;
        }
        state.stats = Stats {
            waiting: engine.waiting(),
            running: engine.running(),
            generated_tokens: engine.generated(),
            guessed: engine.guessed(),
            healthy: true,
        };
        if !events.is_empty() {
            events.drain(..).for_each(|event| state.push_event(HostEvent::Request(event)));
            self.events.notify_all();
        }
    }
}
