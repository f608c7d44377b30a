//! Keys and values of the tokens a conversation has seen, kept outside the model, in pages.
//!
//! A page holds [`PAGE`] tokens of all layers, head by head in the form that attention reads (`kernels::attend`). Pages
//! are what conversations will share; until then each has its own.

use std::ops::Range;
use std::ptr::NonNull;

use super::config::Config;
#[cfg(any(test, feature = "cuda"))]
use super::kv_rows::KvRows;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::{CacheType, Memory, PAGE};

/// Bytes that several threads write, head by head.
struct Page {
    start: NonNull<u8>,
    len: usize,
    /// What holds them. Used by nobody else: `start` is the one way to them.
    _memory: Memory,
}

// SAFETY: bytes are only reached through `part` and `part_mut`, whose callers promise that nobody else has them meanwhile,
// or that all of them only read.
unsafe impl Sync for Page {}
// SAFETY: it owns its memory.
unsafe impl Send for Page {}

impl Page {
    fn new(bytes: usize) -> Result<Self> {
        let mut memory = Memory::zeros(bytes)?;
        let start = NonNull::from(memory.bytes_mut()).cast();
        Ok(Self { start, len: bytes, _memory: memory })
    }

    /// A part of it.
    ///
    /// # Safety
    /// Nobody writes there meanwhile.
    unsafe fn part(&self, part: Range<usize>) -> &[u8] {
        assert!(part.start <= part.end && part.end <= self.len, "part {part:?} of {}", self.len);
        // SAFETY: in bounds by the assertion, and alive as long as the page; nobody writes by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(part.start), part.len()) }
    }

    /// A part of it, to be written.
    ///
    /// # Safety
    /// Nobody else reads or writes there meanwhile.
    #[allow(clippy::mut_from_ref)] // Disjoint parts are the purpose; the safety section asks for them.
    unsafe fn part_mut(&self, part: Range<usize>) -> &mut [u8] {
        assert!(part.start <= part.end && part.end <= self.len, "part {part:?} of {}", self.len);
        // SAFETY: as above, exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(part.start), part.len()) }
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

/// The attention state of one conversation with one model.
#[derive(Debug)]
pub struct KvCache {
    /// `[layer][head]` of [`PAGE`] tokens each.
    pages: Vec<Page>,
    kind: CacheType,
    n_layer: usize,
    n_head_kv: usize,
    head_dim: usize,
    n_ctx: usize,
    len: usize,
    /// What a cache on another device than the CPU has instead of pages.
    #[cfg(any(test, feature = "cuda"))]
    rows: Option<KvRows>,
}

impl KvCache {
    pub(super) fn new(config: &Config, kind: CacheType) -> Self {
        let Config { n_layer, n_head_kv, head_dim, n_ctx, .. } = *config;
        Self {
            pages: Vec::with_capacity(n_ctx.div_ceil(PAGE)),
            kind,
            n_layer,
            n_head_kv,
            head_dim,
            n_ctx,
            len: 0,
            #[cfg(any(test, feature = "cuda"))]
            rows: None,
        }
    }

    /// The same on the device that `rows` are on.
    #[cfg(any(test, feature = "cuda"))]
    pub(super) fn in_rows(self, rows: KvRows) -> Self {
        Self { pages: Vec::new(), rows: Some(rows), ..self }
    }

    /// What it has on a device.
    ///
    /// # Errors
    /// `internal` for a cache in the CPU's memory.
    #[cfg(any(test, feature = "cuda"))]
    pub(super) fn rows(&self) -> Result<&KvRows> {
        let none = || Error::internal("using a cache: expected one on the model's device, got one in the CPU's memory");
        self.rows.as_ref().ok_or_else(none)
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all tokens but the first `len`; does nothing if there are no more. Memory is kept.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Bytes of memory held, used or not.
    pub fn bytes(&self) -> usize {
        #[cfg(any(test, feature = "cuda"))]
        if let Some(rows) = &self.rows {
            return rows.bytes();
        }
        self.pages.len() * self.page_bytes()
    }

    /// How keys and values are kept.
    pub fn kind(&self) -> CacheType {
        self.kind
    }

    /// Makes room for `n` more tokens.
    ///
    /// # Errors
    /// `context_overflow` if the context has none, `overloaded` if the memory has none; nothing has changed then.
    pub fn reserve(&mut self, n: usize) -> Result<()> {
        let wanted = self.len.saturating_add(n);
        if wanted > self.n_ctx {
            let message =
                format!("extending the context: expected at most {} tokens, got {} and {n} more", self.n_ctx, self.len);
            return Err(Error::new(ErrorKind::ContextOverflow, message));
        }
        #[cfg(any(test, feature = "cuda"))]
        if let Some(rows) = &mut self.rows {
            return rows.reserve(self.len, wanted);
        }
        while self.capacity() < wanted {
            let bytes = self.page_bytes();
            let page = Page::new(bytes).map_err(|_| {
                let message = format!("extending the context: expected {bytes} bytes of memory, got none");
                Error::new(ErrorKind::Overloaded, message)
            })?;
            self.pages.push(page);
        }
        Ok(())
    }

    /// A way to write the tokens behind those held into layer `layer`; there is room for them. [`KvCache::advance`] makes
    /// them count once all layers have theirs.
    pub(super) fn writer(&self, layer: usize) -> Writer<'_> {
        let head_bytes = self.head_bytes();
        let layer = layer * self.n_head_kv * head_bytes;
        Writer { pages: &self.pages[self.len / PAGE..], layer, head_bytes, first: self.len % PAGE, kind: self.kind }
    }

    /// The part of a page that head `head` of layer `layer` has.
    pub(super) fn head(&self, layer: usize, head: usize, page: usize) -> &[u8] {
        let (bytes, at) = (self.head_bytes(), layer * self.n_head_kv + head);
        // SAFETY: nobody writes for this head meanwhile: the promise of who calls `Writer::write`.
        unsafe { self.pages[page].part(at * bytes..(at + 1) * bytes) }
    }

    pub(super) fn advance(&mut self, n: usize) {
        self.len += n;
        debug_assert!(self.len <= self.capacity(), "advanced past the reserved room");
    }

    /// Fails if the cache was made by a model of another shape.
    pub(super) fn check(&self, config: &Config) -> Result<()> {
        let got = (self.n_layer, self.n_head_kv, self.head_dim, self.n_ctx);
        let wanted = (config.n_layer, config.n_head_kv, config.head_dim, config.n_ctx);
        if got == wanted {
            return Ok(());
        }
        Err(Error::internal(format!(
            "using a cache: expected one of (n_layer, n_head_kv, head_dim, n_ctx) = {wanted:?}, got {got:?}"
        )))
    }

    /// Tokens that there is room for.
    fn capacity(&self) -> usize {
        #[cfg(any(test, feature = "cuda"))]
        if let Some(rows) = &self.rows {
            return rows.capacity();
        }
        self.pages.len() * PAGE
    }

    fn head_bytes(&self) -> usize {
        self.kind.head_bytes(self.head_dim)
    }

    fn page_bytes(&self) -> usize {
        self.n_layer * self.n_head_kv * self.head_bytes()
    }
}

/// Pages of one layer, written head by head.
pub(super) struct Writer<'a> {
    pages: &'a [Page],
    /// Where the layer begins in a page.
    layer: usize,
    head_bytes: usize,
    /// Slot of the first token in the first page.
    first: usize,
    kind: CacheType,
}

impl Writer<'_> {
    /// Writes key and value of the `token`-th new token for `head`.
    ///
    /// # Safety
    /// Nobody else writes this head of the layer meanwhile, and nobody has what [`KvCache::head`] gives of it.
    pub(super) unsafe fn write(&self, head: usize, token: usize, key: &[f32], value: &[f32]) {
        let at = self.first + token;
        let head = self.layer + head * self.head_bytes;
        // SAFETY: a head's bytes are nobody else's meanwhile, by the caller's promise.
        let bytes = unsafe { self.pages[at / PAGE].part_mut(head..head + self.head_bytes) };
        self.kind.write(bytes, at % PAGE, key, value);
    }
}
