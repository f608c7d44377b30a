//! Causal attention of a batch over paged caches, all of them or a window. Query heads that share a key head look at its
//! pages together, and so do the tokens of a prompt: scores are never more than a page of each.

use std::cell::RefCell;
use std::ops::Range;

use super::batch::Segment;
use super::config::Config;
use super::rope::Rope;
use crate::kernels::{
    CHUNK_PAGES, Gathered, Lines, NOTHING, PAGE, PageJob, Pool, QUERIES, Shared, add_chunk, for_each_piece, look,
};

/// Tokens of a chunk, whose result is computed apart.
const CHUNK: usize = CHUNK_PAGES * PAGE;
/// With fewer units of work than these per thread, chunks of a long context become units of their own.
const UNITS: usize = 4;

/// Multiply-adds that take about as long as rotating a number of a key and writing it, each into a cache line of its own:
/// an estimate.
const WRITE_WORK: usize = 32;

/// Buffers of attention.
#[derive(Debug, Default)]
pub(super) struct Attention {
    /// Cosines and sines of each row, `[row][rope_dim / 2]`.
    cos: Lines<f32>,
    sin: Lines<f32>,
    /// What each unit of a split context has gathered: `[unit][QUERIES]` and `[unit][QUERIES][head_dim]`.
    sums: Lines<[f32; 2]>,
    values: Lines<f32>,
}

/// What one thread gathers.
#[derive(Default)]
struct Scratch {
    queries: Lines<f32>,
    chunk: Lines<f32>,
    total: Lines<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Some queries of one key head of one segment.
struct Unit {
    segment: usize,
    head: usize,
    /// Queries of the segment and head, counted token by token and then head by head of the group.
    queries: Range<usize>,
    /// Row of the batch where the segment begins.
    row: usize,
}

/// What a step attends to.
struct Step<'a, 'b> {
    config: &'a Config,
    batch: &'a [Segment<'b>],
    layer: usize,
    /// Query heads of a key head.
    group: usize,
}

impl Step<'_, '_> {
    fn blocks(&self, tokens: usize) -> usize {
        (tokens * self.group).div_ceil(QUERIES)
    }

    /// Number of units without chunks.
    fn units(&self) -> usize {
        self.batch.iter().map(|segment| self.blocks(segment.tokens.len()) * self.config.n_head_kv).sum()
    }

    fn unit(&self, mut i: usize) -> Unit {
        let mut row = 0;
        for (segment, Segment { tokens, .. }) in self.batch.iter().enumerate() {
            let (blocks, heads) = (self.blocks(tokens.len()), self.config.n_head_kv);
            if i < blocks * heads {
                let first = i % blocks * QUERIES;
                let queries = first..(first + QUERIES).min(tokens.len() * self.group);
                return Unit { segment, head: i / blocks, queries, row };
            }
            (i, row) = (i - blocks * heads, row + tokens.len());
        }
        unreachable!("units are counted by the same rule")
    }

    /// What the unit's queries get from chunk `c`, handed to `take` query by query if it is anything. Whether the same
    /// thread `goes_on` with the next chunk is for what to ask memory for.
    fn gather(
        &self,
        unit: &Unit,
        c: usize,
        goes_on: bool,
        queries: &[f32],
        room: &mut Lines<f32>,
        mut take: impl FnMut(usize, [f32; 2], &[f32]),
    ) {
        let (cache, dim, n) = (&*self.batch[unit.segment].cache, self.config.head_dim, unit.queries.len());
        let window = self.config.sliding_window.unwrap_or(usize::MAX);
        let seen_by = |q: usize| {
            let len = cache.len() + q / self.group + 1;
            len.saturating_sub(window)..len
        };
        let (oldest, newest) = (seen_by(unit.queries.start).start, seen_by(unit.queries.end - 1).end);
        let (chunk, all) = (c * CHUNK_PAGES..(c + 1) * CHUNK_PAGES, oldest / PAGE..newest.div_ceil(PAGE));
        let pages = chunk.start.max(all.start)..chunk.end.min(all.end);
        if pages.is_empty() {
            return;
        }
        let (mut sums, values) = ([NOTHING; QUERIES], room.sized(n * dim));
        values.fill(0.0);
        let end = if goes_on { all.end } else { pages.end };
        for page in pages {
            let first = page * PAGE;
            let mut seen = [const { 0..0 }; QUERIES];
            for (seen, q) in seen.iter_mut().zip(unit.queries.clone()) {
                let all = seen_by(q);
                *seen = all.start.saturating_sub(first).min(PAGE)..all.end.saturating_sub(first).min(PAGE);
            }
            let head = cache.head(self.layer, unit.head, page);
            let next = (page + 1 < end).then(|| cache.head(self.layer, unit.head, page + 1));
            let job = PageJob { kind: cache.kind(), head, queries, seen: &seen[..n], dim, next };
            look(&job, &mut Gathered { sums: &mut sums[..n], values: &mut *values });
        }
        for (q, sums) in sums[..n].iter().enumerate().filter(|(_, sums)| **sums != NOTHING) {
            take(q, *sums, &values[q * dim..][..dim]);
        }
    }
}

impl Attention {
    /// Computes the angles of all rows.
    pub(super) fn angles(&mut self, rope: &Rope, batch: &[Segment<'_>]) {
        let half = rope.pairs();
        let rows: usize = batch.iter().map(|segment| segment.tokens.len()).sum();
        let (cos, sin) = (self.cos.sized(rows * half), self.sin.sized(rows * half));
        let positions = batch.iter().flat_map(|s| s.cache.len()..s.cache.len() + s.tokens.len());
        let rows = cos.chunks_exact_mut(half).zip(sin.chunks_exact_mut(half));
        rows.zip(positions).for_each(|((cos, sin), position)| rope.angles_at(position, cos, sin));
    }

    /// Rotates keys `[row][n_head_kv * head_dim]` and puts them and values behind what the caches hold in layer `layer`.
    pub(super) fn write(
        &self,
        config: &Config,
        batch: &mut [Segment<'_>],
        layer: usize,
        keys: &mut [f32],
        values: &[f32],
    ) {
        let Config { n_head_kv, head_dim, rope_dim, .. } = *config;
        let (width, batch) = (n_head_kv * head_dim, &*batch);
        let keys = Shared::new(keys);
        let longest = batch.iter().map(|segment| segment.tokens.len()).max().unwrap_or(0);
        let work = longest * head_dim * WRITE_WORK;
        for_each_piece(batch.len() * n_head_kv, work, |piece| {
            let (segment, head) = (piece / n_head_kv, piece % n_head_kv);
            let first: usize = batch[..segment].iter().map(|before| before.tokens.len()).sum();
            let Segment { tokens, cache, .. } = &batch[segment];
            let writer = cache.writer(layer);
            for token in 0..tokens.len() {
                let row = first + token;
                let at = row * width + head * head_dim..row * width + (head + 1) * head_dim;
                // SAFETY: each head of a segment is one piece's alone.
                let key = unsafe { keys.slice(at.clone()) };
                self.rotate(row, rope_dim, key);
                // SAFETY: as above, and the caches are this call's alone.
                unsafe { writer.write(head, token, key, &values[at]) };
            }
        });
    }

    /// Rotates the neighbours (2i, 2i + 1) of a head by the angles of a row.
    fn rotate(&self, row: usize, rope_dim: usize, head: &mut [f32]) {
        let half = rope_dim / 2;
        let (cos, sin) = (&self.cos[row * half..][..half], &self.sin[row * half..][..half]);
        for (([a, b], cos), sin) in head.as_chunks_mut().0.iter_mut().zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
        }
    }

    /// Attends with `queries [row][n_head * head_dim]`, which are rotated first, to layer `layer`; `out` has the same
    /// shape.
    pub(super) fn attend(
        &mut self,
        config: &Config,
        batch: &[Segment<'_>],
        layer: usize,
        queries: &[f32],
        out: &mut [f32],
    ) {
        let step = Step { config, batch, layer, group: config.n_head / config.n_head_kv };
        let units = step.units();
        let longest = batch.iter().map(|s| s.cache.len() + s.tokens.len()).max().unwrap_or(0);
        let chunks = longest.div_ceil(CHUNK);
        let dim = config.head_dim;
        let (sums, values) = (std::mem::take(&mut self.sums), std::mem::take(&mut self.values));
        let (mut sums, mut values) = (sums, values);
        let this = &*self;
        let shared = Shared::new(out);
        if chunks == 1 || units >= UNITS * Pool::global().threads() {
            Pool::global().run(units, &|i, _| {
                let unit = step.unit(i);
                SCRATCH.with_borrow_mut(|scratch| {
                    let n = unit.queries.len();
                    let Scratch { queries: rotated, chunk, total } = scratch;
                    let rotated = this.rotated(&step, &unit, queries, rotated);
                    let (mut sums, total) = ([NOTHING; QUERIES], total.sized(n * dim));
                    for c in 0..chunks {
                        step.gather(&unit, c, true, rotated, chunk, |i, more, values| {
                            add_chunk(&mut sums[i], &mut total[i * dim..][..dim], more, values);
                        });
                    }
                    store(&step, &unit, &sums, total, &shared);
                });
            });
        } else {
            let (all_sums, all_values) =
                (sums.sized(units * chunks * QUERIES), values.sized(units * chunks * QUERIES * dim));
            let (shared_sums, shared_values) = (Shared::new(&mut *all_sums), Shared::new(&mut *all_values));
            Pool::global().run(units * chunks, &|i, _| {
                let unit = step.unit(i / chunks);
                // SAFETY: each unit and chunk is one piece's alone.
                let (sums, values) = unsafe {
                    let places = i * QUERIES..(i + 1) * QUERIES;
                    (shared_sums.slice(places.clone()), shared_values.slice(places.start * dim..places.end * dim))
                };
                sums.fill(NOTHING);
                SCRATCH.with_borrow_mut(|scratch| {
                    let Scratch { queries: rotated, chunk, .. } = scratch;
                    let rotated = this.rotated(&step, &unit, queries, rotated);
                    step.gather(&unit, i % chunks, false, rotated, chunk, |i, more, from| {
                        sums[i] = more;
                        values[i * dim..][..dim].copy_from_slice(from);
                    });
                });
            });
            for i in 0..units {
                let unit = step.unit(i);
                let n = unit.queries.len();
                SCRATCH.with_borrow_mut(|scratch| {
                    let (mut sums, total) = ([NOTHING; QUERIES], scratch.total.sized(n * dim));
                    for (c, q) in (0..chunks).flat_map(|c| (0..n).map(move |q| (c, q))) {
                        let at = (i * chunks + c) * QUERIES + q;
                        add_chunk(
                            &mut sums[q],
                            &mut total[q * dim..][..dim],
                            all_sums[at],
                            &all_values[at * dim..][..dim],
                        );
                    }
                    store(&step, &unit, &sums, total, &shared);
                });
            }
        }
        (self.sums, self.values) = (sums, values);
    }

    /// The unit's queries, rotated.
    fn rotated<'a>(&self, step: &Step<'_, '_>, unit: &Unit, queries: &[f32], room: &'a mut Lines<f32>) -> &'a [f32] {
        let dim = step.config.head_dim;
        let room = room.sized(unit.queries.len() * dim);
        for (to, q) in room.chunks_exact_mut(dim).zip(unit.queries.clone()) {
            to.copy_from_slice(&queries[place(step, unit, q)]);
            self.rotate(unit.row + q / step.group, step.config.rope_dim, to);
        }
        room
    }
}

/// Where query `q` of a unit lies among all rows.
fn place(step: &Step<'_, '_>, unit: &Unit, q: usize) -> Range<usize> {
    let Config { n_head, head_dim, .. } = *step.config;
    let (row, head) = (unit.row + q / step.group, unit.head * step.group + q % step.group);
    let at = (row * n_head + head) * head_dim;
    at..at + head_dim
}

/// Writes what queries have gathered, as a mean.
fn store(step: &Step<'_, '_>, unit: &Unit, sums: &[[f32; 2]], values: &[f32], out: &Shared<'_, f32>) {
    for ((q, sums), values) in unit.queries.clone().zip(sums).zip(values.chunks_exact(step.config.head_dim)) {
        // SAFETY: each query is one unit's alone.
        let out = unsafe { out.slice(place(step, unit, q)) };
        out.iter_mut().zip(values).for_each(|(out, v)| *out = v / sums[1]);
    }
}
