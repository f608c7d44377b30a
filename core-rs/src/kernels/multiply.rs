//! Products of weights with rows of activations: `out[m, n] = x[m, k] · weight[n, k]ᵀ`, one region of the pool for all
//! weights that share their input.

use std::cell::RefCell;
use std::ops::Range;

use super::activations::{Activations, TILE};
use super::blocks::BLOCK;
use super::dispatch::Isa;
use super::floats;
use super::layout::PANEL;
use super::memory::Lines;
use super::parallel::{Shared, for_each_piece};
use super::pool::Pool;
use super::product::{CHUNK, Out, PanelRef, Scratch};
use super::weight::{Element, Weight};

/// Tokens multiplied with some panels before the next ones are taken: products of a panel are 32 kB at most.
const TILE_TOKENS: usize = 512;
/// No more tokens than these are multiplied with whole rows at once.
const FEW_TOKENS: usize = 8;
/// Bytes of activations that stay in the second-level cache while panels are multiplied with them.
const SPAN_BYTES: usize = 512 << 10;
/// Bytes of weights worth a piece of their own: some microseconds of reading.
const PIECE_BYTES: usize = 48 << 10;
/// Pieces per thread, where there is enough to do: whoever is slower leaves some to the others.
const PIECES: usize = 8;

/// Rows of activations on their way into products.
#[derive(Debug, Default)]
pub(crate) struct Input {
    rows: usize,
    k: usize,
    values: Lines<f32>,
    quantised: Activations,
    /// Whether `quantised` is made from `values`.
    is_quantised: bool,
}

impl Input {
    /// Makes them `rows` rows of `k` values and returns these, which hold anything, to be written.
    pub(crate) fn reshape(&mut self, rows: usize, k: usize) -> &mut [f32] {
        (self.rows, self.k, self.is_quantised) = (rows, k, false);
        self.values.sized(rows * k)
    }

    /// All rows.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values[..self.rows * self.k]
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Quantises the rows, unless that is done.
    fn quantise(&mut self, isa: Isa) {
        if self.is_quantised {
            return;
        }
        let Self { rows, k, values, quantised, .. } = self;
        quantised.reshape(*rows, *k);
        let tokens = quantised.tokens();
        // Rows of a tile share cache lines, so a thread takes all of them, if there are enough.
        let together = if *rows > TILE { TILE } else { 1 };
        for_each_piece(rows.div_ceil(together), 8 * together * *k, |i| {
            for row in i * together..(*rows).min((i + 1) * together) {
                // SAFETY: each row is one piece's alone.
                (isa.kernels().quantize)(&values[row * *k..][..*k], unsafe { tokens.token_mut(row) });
            }
        });
        self.is_quantised = true;
    }
}

/// A weight, and where its products go.
pub(crate) struct Product<'a> {
    /// The weight.
    pub(crate) weight: &'a Weight,
    /// `[m, n_out]`.
    pub(crate) out: &'a mut [f32],
    /// Whether products are added to what is there.
    pub(crate) add: bool,
}

/// What a thread needs on its way.
#[derive(Default)]
struct ThreadScratch {
    kernels: KernelScratch,
    products: Lines<[f32; PANEL]>,
    more: Lines<[f32; PANEL]>,
}

/// What kernels of blocks and of floats need.
#[derive(Default)]
struct KernelScratch {
    unpacked: Scratch,
    widened: Vec<f32>,
    quads: Vec<[f32; floats::PANEL_ROWS]>,
}

thread_local! {
    static SCRATCH: RefCell<ThreadScratch> = RefCell::default();
}

/// Multiplies all weights with `input`.
pub(crate) fn multiply(products: &mut [Product<'_>], input: &mut Input) {
    if products.iter().any(|product| matches!(product.weight.element(), Element::Blocks(_))) {
        input.quantise(products[0].weight.isa());
    }
    for product in products.iter() {
        let shape = (product.weight.n_in(), product.out.len());
        assert_eq!(shape, (input.k, input.rows * product.weight.n_out()), "shapes of a product");
    }
    let input = &*input;
    let jobs = products.iter_mut().map(|product| (product.weight, Shared::new(product.out), product.add));
    // The most weights that share an input are query, key and value.
    let mut places: [Option<(&Weight, Shared<'_, f32>, bool)>; 3] = [const { None }; 3];
    assert!(jobs.len() <= places.len(), "{} products of one input", jobs.len());
    places.iter_mut().zip(jobs).for_each(|(place, job)| *place = Some(job));
    let panels = |weight: &Weight| weight.n_out().div_ceil(PANEL);
    let all = places.iter().flatten().map(|job| panels(job.0)).sum();
    let bytes = places.iter().flatten().map(|job| job.0.bytes()).sum();
    for_each_group(all, bytes, input.rows, &|group, scratch| {
        // Panels are counted through all weights.
        let mut first = 0;
        for (weight, out, add) in places.iter().flatten() {
            let all = first..first + panels(weight);
            let some = group.start.max(all.start)..group.end.min(all.end);
            if !some.is_empty() {
                // SAFETY: each panel is one piece's, and with it its columns.
                unsafe { some_panels(weight, some.start - first..some.end - first, input, out, *add, scratch) };
            }
            first = all.end;
        }
    });
}

/// Writes products of some panels to their columns of `out`, or adds them.
///
/// # Safety
/// While this runs, nobody else uses these columns.
unsafe fn some_panels(
    weight: &Weight,
    panels: Range<usize>,
    input: &Input,
    out: &Shared<'_, f32>,
    add: bool,
    scratch: &mut ThreadScratch,
) {
    let ThreadScratch { products, kernels, .. } = scratch;
    for tokens in tiles(input.rows) {
        let products = products.sized(panels.len() * tokens.len());
        let to = Some(Destination { out, add });
        // SAFETY: as this function asks.
        unsafe { panel_products(weight, panels.clone(), input, tokens, kernels, products, to) };
    }
}

/// `out[m, n] = silu(x · gateᵀ) * (x · upᵀ)` for weights of the same shape.
pub(crate) fn multiply_gated(gate: &Weight, up: &Weight, input: &mut Input, out: &mut [f32]) {
    if [gate, up].iter().any(|weight| matches!(weight.element(), Element::Blocks(_))) {
        input.quantise(gate.isa());
    }
    let n = gate.n_out();
    assert_eq!((gate.n_in(), up.n_in(), up.n_out()), (input.k, input.k, n), "shapes of a gated product");
    assert_eq!(out.len(), input.rows * n, "length of a gated product");
    let (input, out) = (&*input, Shared::new(out));
    for_each_group(n.div_ceil(PANEL), gate.bytes() + up.bytes(), input.rows, &|panels, scratch| {
        for tokens in tiles(input.rows) {
            let ThreadScratch { products, more, kernels } = &mut *scratch;
            let len = panels.len() * tokens.len();
            let (gates, ups) = (products.sized(len), more.sized(len));
            let to = Some(Destination { out: &out, add: false });
            // SAFETY: each panel is one piece's, and with it its columns.
            unsafe {
                panel_products(gate, panels.clone(), input, tokens.clone(), kernels, gates, to);
                panel_products(up, panels.clone(), input, tokens.clone(), kernels, ups, None);
            }
            for (panel, ups) in panels.clone().zip(ups.chunks_exact(tokens.len())) {
                let columns = panel * PANEL..n.min((panel + 1) * PANEL);
                for (token, ups) in tokens.clone().zip(ups) {
                    // SAFETY: as above.
                    let gates = unsafe { out.slice(token * n + columns.start..token * n + columns.end) };
                    (gate.isa().kernels().swiglu)(gates, &ups[..columns.len()]);
                }
            }
        }
    });
}

fn tiles(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(TILE_TOKENS).map(move |first| first..rows.min(first + TILE_TOKENS))
}

/// Calls `f` for all of `panels`, which have `bytes` together, in groups that suit the threads there are.
fn for_each_group(panels: usize, bytes: usize, rows: usize, f: &(dyn Fn(Range<usize>, &mut ThreadScratch) + Sync)) {
    let pool = Pool::global();
    // Arithmetic takes over from reading at some four tokens.
    let per_panel = (bytes / panels.max(1)).max(1) * rows.div_ceil(4).max(1);
    let group = PIECE_BYTES.div_ceil(per_panel).max(1).max(panels / (PIECES * pool.threads()) / 4);
    pool.run(panels.div_ceil(group), &|piece, _| {
        SCRATCH.with_borrow_mut(|scratch| f(piece * group..panels.min((piece + 1) * group), scratch));
    });
}

/// The matrix that products belong to.
struct Destination<'a> {
    out: &'a Shared<'a, f32>,
    add: bool,
}

/// Products of some panels with some tokens: written to columns of a matrix, or left in `products`, one panel's after the
/// other's, which is room for what has to be kept in between.
///
/// # Safety
/// While this runs, nobody else uses the columns of these panels.
unsafe fn panel_products(
    weight: &Weight,
    panels: Range<usize>,
    input: &Input,
    tokens: Range<usize>,
    scratch: &mut KernelScratch,
    products: &mut [[f32; PANEL]],
    to: Option<Destination<'_>>,
) {
    let (n, isa) = (weight.n_out(), weight.isa());
    match weight.element() {
        Element::Blocks(format) => {
            let (product, all, few) = ((isa.kernels().product)(format), input.k / BLOCK, tokens.len() <= FEW_TOKENS);
            // A few tokens read whole rows of weights, as they lie. Activations of many, if they are too large to stay near
            // by, are taken in spans, each with all panels before the next.
            let span = if few { all } else { (SPAN_BYTES / (tokens.len() * BLOCK)).next_multiple_of(CHUNK) };
            let mut start = 0;
            while start < all {
                let blocks = start..all.min(start + span);
                for (panel, sums) in panels.clone().zip(products.chunks_exact_mut(tokens.len())) {
                    let mut out = Out::rows(&mut *sums, start > 0);
                    let to = to.as_ref().filter(|_| blocks.end == all);
                    let columns = panel * PANEL..n.min((panel + 1) * PANEL);
                    let whole = columns.len() == PANEL;
                    if let Some(to) = to.filter(|_| whole) {
                        // SAFETY: as this function asks.
                        out = unsafe { out.into_columns(to.out, n, columns.start, &tokens, to.add) };
                    }
                    // As much of each stored block belongs to each of its 32 values.
                    let part = |panel: usize, blocks: Range<usize>| {
                        let bytes = weight.panel(format, panel);
                        &bytes[bytes.len() * blocks.start / all..bytes.len() * blocks.end / all]
                    };
                    let next = match panel + 1 {
                        _ if few => None,
                        next if next < panels.end => Some(part(next, blocks.clone())),
                        _ => (blocks.end < all).then(|| part(panels.start, blocks.end..all.min(blocks.end + span))),
                    };
                    let bytes = weight.panel(format, panel);
                    let of_panel = PanelRef { format, bytes, k: input.k, blocks: blocks.clone(), next };
                    product(&mut scratch.unpacked, of_panel, &input.quantised, tokens.clone(), &mut out);
                    if let Some(to) = to.filter(|_| !whole) {
                        // SAFETY: as this function asks.
                        unsafe { put(sums, &tokens, columns, n, to) };
                    }
                }
                start = blocks.end;
            }
        }
        _ => {
            let x = &input.values[tokens.start * input.k..tokens.end * input.k];
            let KernelScratch { widened, quads, .. } = scratch;
            for (panel, products) in panels.zip(products.chunks_exact_mut(tokens.len())) {
                let columns = panel * PANEL..n.min((panel + 1) * PANEL);
                let room = (&mut *widened, &mut *quads);
                floats::panel(isa, weight.floats(), input.k, columns.start, x, room, products);
                if let Some(to) = &to {
                    // SAFETY: as this function asks.
                    unsafe { put(products, &tokens, columns, n, to) };
                }
            }
        }
    }
}

/// Writes a panel's products to the columns that there are, in rows of `n`, or adds them.
///
/// # Safety
/// While this runs, nobody else uses these columns.
unsafe fn put(products: &[[f32; PANEL]], tokens: &Range<usize>, columns: Range<usize>, n: usize, to: &Destination<'_>) {
    for (token, products) in tokens.clone().zip(products) {
        // SAFETY: as this function asks.
        let columns = unsafe { to.out.slice(token * n + columns.start..token * n + columns.end) };
        for (column, product) in columns.iter_mut().zip(products) {
            *column = if to.add { *column + product } else { *product };
        }
    }
}
