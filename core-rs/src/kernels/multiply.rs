//! Products of weights with rows of activations: `out[m, n] = x[m, k] · weight[n, k]ᵀ`, one region of the pool for all
//! weights that share their input.

use std::cell::RefCell;
use std::ops::Range;

use super::activations::{Activations, TILE};
use super::dispatch::Isa;
use super::floats;
use super::layout::PANEL;
use super::parallel::{Shared, for_each_piece};
use super::pool::Pool;
use super::product::{PanelRef, Scratch};
use super::weight::{Element, Weight};

/// Tokens multiplied with a panel before the next is taken: its products are half a megabyte at most.
const TILE_TOKENS: usize = 512;
/// Bytes of weights worth a piece of their own: some microseconds of reading.
const PIECE_BYTES: usize = 48 << 10;
/// Pieces per thread, where there is enough to do: whoever is slower leaves some to the others.
const PIECES: usize = 8;

/// Rows of activations on their way into products.
#[derive(Debug, Default)]
pub(crate) struct Input {
    rows: usize,
    k: usize,
    values: Vec<f32>,
    quantised: Activations,
    /// Whether `quantised` is made from `values`.
    is_quantised: bool,
}

impl Input {
    /// Makes them `rows` rows of `k` values and returns these, which hold anything, to be written.
    pub(crate) fn reshape(&mut self, rows: usize, k: usize) -> &mut [f32] {
        (self.rows, self.k, self.is_quantised) = (rows, k, false);
        if self.values.len() < rows * k {
            self.values.resize(rows * k, 0.0);
        }
        &mut self.values[..rows * k]
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
    unpacked: Scratch,
    widened: Vec<f32>,
    quads: Vec<[f32; floats::PANEL_ROWS]>,
    products: Vec<[f32; PANEL]>,
    more: Vec<[f32; PANEL]>,
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
    for_each_panel(all, bytes, input.rows, &|mut panel, scratch| {
        for (weight, out, add) in places.iter().flatten() {
            if panel < panels(weight) {
                return one_panel(weight, panel, input, out, *add, scratch);
            }
            panel -= panels(weight);
        }
    });
}

fn one_panel(
    weight: &Weight,
    panel: usize,
    input: &Input,
    out: &Shared<'_, f32>,
    add: bool,
    scratch: &mut ThreadScratch,
) {
    let n = weight.n_out();
    let rows = panel * PANEL..n.min((panel + 1) * PANEL);
    for tokens in tiles(input.rows) {
        let mut products = std::mem::take(&mut scratch.products);
        panel_products(weight, panel, input, tokens.clone(), scratch, &mut products);
        for (token, products) in tokens.zip(&products) {
            // SAFETY: columns `rows` belong to this panel, and each panel to one piece.
            let columns = unsafe { out.slice(token * n + rows.start..token * n + rows.end) };
            put(columns, products, add);
        }
        scratch.products = products;
    }
}

/// Writes products of a panel, or adds them, to the columns that there are: nearly always all, for which a known length
/// saves a call.
#[inline(always)]
fn put(columns: &mut [f32], products: &[f32; PANEL], add: bool) {
    match <&mut [f32; PANEL]>::try_from(&mut *columns) {
        Ok(columns) if add => columns.iter_mut().zip(products).for_each(|(column, product)| *column += product),
        Ok(columns) => *columns = *products,
        Err(_) if add => columns.iter_mut().zip(products).for_each(|(column, product)| *column += product),
        Err(_) => columns.copy_from_slice(&products[..columns.len()]),
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
    for_each_panel(n.div_ceil(PANEL), gate.bytes() + up.bytes(), input.rows, &|panel, scratch| {
        let rows = panel * PANEL..n.min((panel + 1) * PANEL);
        for tokens in tiles(input.rows) {
            let (mut gates, mut ups) = (std::mem::take(&mut scratch.products), std::mem::take(&mut scratch.more));
            panel_products(gate, panel, input, tokens.clone(), scratch, &mut gates);
            panel_products(up, panel, input, tokens.clone(), scratch, &mut ups);
            (gate.isa().kernels().swiglu)(gates.as_flattened_mut(), ups.as_flattened());
            for (token, both) in tokens.zip(&gates) {
                // SAFETY: columns `rows` belong to this panel, and each panel to one piece.
                let columns = unsafe { out.slice(token * n + rows.start..token * n + rows.end) };
                put(columns, both, false);
            }
            (scratch.products, scratch.more) = (gates, ups);
        }
    });
}

fn tiles(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(TILE_TOKENS).map(move |first| first..rows.min(first + TILE_TOKENS))
}

/// Calls `f` for each of `panels`, which have `bytes` together, in pieces that suit the threads there are.
fn for_each_panel(panels: usize, bytes: usize, rows: usize, f: &(dyn Fn(usize, &mut ThreadScratch) + Sync)) {
    let pool = Pool::global();
    // Arithmetic takes over from reading at some four tokens.
    let per_panel = (bytes / panels.max(1)).max(1) * rows.div_ceil(4).max(1);
    let grain = PIECE_BYTES.div_ceil(per_panel).max(1).max(panels / (PIECES * pool.threads()) / 4);
    pool.run(panels.div_ceil(grain), &|piece, _| {
        SCRATCH.with_borrow_mut(|scratch| {
            (piece * grain..panels.min((piece + 1) * grain)).for_each(|panel| f(panel, scratch));
        });
    });
}

/// Products of one panel with some tokens.
fn panel_products(
    weight: &Weight,
    panel: usize,
    input: &Input,
    tokens: Range<usize>,
    scratch: &mut ThreadScratch,
    products: &mut Vec<[f32; PANEL]>,
) {
    if products.len() != tokens.len() {
        products.resize(tokens.len(), [0.0; PANEL]);
    }
    let isa = weight.isa();
    match weight.element() {
        Element::Blocks(format) => {
            let panel = PanelRef { format, bytes: weight.panel(format, panel), k: input.k };
            (isa.kernels().product)(format)(&mut scratch.unpacked, panel, &input.quantised, tokens, products);
        }
        _ => {
            let x = &input.values[tokens.start * input.k..tokens.end * input.k];
            let ThreadScratch { widened, quads, .. } = scratch;
            floats::panel(isa, weight.floats(), input.k, panel * PANEL, x, (widened, quads), products);
        }
    }
}
