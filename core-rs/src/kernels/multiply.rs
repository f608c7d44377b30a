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
use super::product::{PanelRef, Scratch};
use super::weight::{Element, Weight};

/// Tokens multiplied with some panels before the next ones are taken: products of a panel are 32 kB at most.
const TILE_TOKENS: usize = 512;
/// Bytes of activations multiplied with each of some panels before what follows them in their rows: they stay in the
/// second-level cache meanwhile, where all of a long prompt's would have to come from further away for each panel.
const CHUNK_BYTES: usize = 512 << 10;
/// Blocks of the longest stored one: chunks have whole ones.
const WHOLE_BLOCKS: usize = 8;
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
                some_panels(weight, some.start - first..some.end - first, input, out, *add, scratch);
            }
            first = all.end;
        }
    });
}

fn some_panels(
    weight: &Weight,
    panels: Range<usize>,
    input: &Input,
    out: &Shared<'_, f32>,
    add: bool,
    scratch: &mut ThreadScratch,
) {
    for tokens in tiles(input.rows) {
        let ThreadScratch { products, kernels, .. } = &mut *scratch;
        let products = products.sized(panels.len() * tokens.len());
        panel_products(weight, panels.clone(), input, tokens.clone(), kernels, products);
        // SAFETY: these columns belong to these panels, and each panel to one piece.
        unsafe { put(products, panels.clone(), tokens, weight.n_out(), out, add) };
    }
}

/// Writes products of `panels`, one panel's after the other's, to the columns of `tokens`' rows of `n`, or adds them.
///
/// # Safety
/// While this runs, nobody else uses these columns.
unsafe fn put(
    products: &[[f32; PANEL]],
    panels: Range<usize>,
    tokens: Range<usize>,
    n: usize,
    out: &Shared<'_, f32>,
    add: bool,
) {
    let columns = panels.start * PANEL..n.min(panels.end * PANEL);
    for (i, token) in tokens.clone().enumerate() {
        // SAFETY: as this function asks.
        let row = unsafe { out.slice(token * n + columns.start..token * n + columns.end) };
        let of_token = products.iter().skip(i).step_by(tokens.len());
        // Whole panels apart: a known length saves a call.
        let (whole, rest) = row.as_chunks_mut::<PANEL>();
        let mut whole = whole.iter_mut();
        for products in of_token {
            match whole.next() {
                Some(columns) if add => {
                    columns.iter_mut().zip(products).for_each(|(column, product)| *column += product)
                }
                Some(columns) => *columns = *products,
                None if add => rest.iter_mut().zip(products).for_each(|(column, product)| *column += product),
                None => rest.copy_from_slice(&products[..rest.len()]),
            }
        }
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
            panel_products(gate, panels.clone(), input, tokens.clone(), kernels, gates);
            panel_products(up, panels.clone(), input, tokens.clone(), kernels, ups);
            (gate.isa().kernels().swiglu)(gates.as_flattened_mut(), ups.as_flattened());
            // SAFETY: these columns belong to these panels, and each panel to one piece.
            unsafe { put(gates, panels.clone(), tokens, n, &out, false) };
        }
    });
}

fn tiles(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(TILE_TOKENS).map(move |first| first..rows.min(first + TILE_TOKENS))
}

/// Ranges of blocks of rows of `k` values that so many tokens are multiplied with one after the other.
fn chunks(k: usize, tokens: usize) -> impl Iterator<Item = Range<usize>> {
    let blocks = k / BLOCK;
    let chunk = (CHUNK_BYTES / (tokens * BLOCK)).next_multiple_of(WHOLE_BLOCKS);
    (0..blocks).step_by(chunk).map(move |first| first..blocks.min(first + chunk))
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

/// Products of some panels with some tokens, one panel's after the other's.
fn panel_products(
    weight: &Weight,
    panels: Range<usize>,
    input: &Input,
    tokens: Range<usize>,
    scratch: &mut KernelScratch,
    products: &mut [[f32; PANEL]],
) {
    let of_panels = || panels.clone().zip(0..).map(|(panel, i)| (panel, i * tokens.len()..(i + 1) * tokens.len()));
    let isa = weight.isa();
    match weight.element() {
        Element::Blocks(format) => {
            let product = (isa.kernels().product)(format);
            for blocks in chunks(input.k, tokens.len()) {
                for (panel, place) in of_panels() {
                    let next = (panel + 1 < panels.end).then(|| weight.panel(format, panel + 1));
                    let bytes = weight.panel(format, panel);
                    let panel = PanelRef { format, bytes, k: input.k, blocks: blocks.clone(), next };
                    product(&mut scratch.unpacked, panel, &input.quantised, tokens.clone(), &mut products[place]);
                }
            }
        }
        _ => {
            let x = &input.values[tokens.start * input.k..tokens.end * input.k];
            let KernelScratch { widened, quads, .. } = scratch;
            for (panel, place) in of_panels() {
                let products = &mut products[place];
                floats::panel(isa, weight.floats(), input.k, panel * PANEL, x, (&mut *widened, &mut *quads), products);
            }
        }
    }
}
