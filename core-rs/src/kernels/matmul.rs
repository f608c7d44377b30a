//! Quantised matrix product: activation rows times stored weight rows, tiled for the caches and split over threads.

use std::ops::Range;

use super::blocks::{Format, Rows, StoredRows};
use super::dispatch::{Isa, Scratch};
use super::parallel::{Shared, for_each_range};

/// Quantised activations of one tile: half of a common 512 KiB second-level cache, the rest is left to weights.
const TILE_BYTES: usize = 256 * 1024;
/// Tokens of a tile at least, however long their rows: fewer would unpack weights too often.
const TILE_TOKENS: usize = 16;

/// A weight matrix `[n, k]` as stored blocks.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) format: Format,
    pub(super) bytes: &'a [u8],
    pub(super) n: usize,
    pub(super) k: usize,
}

impl<'a> Weights<'a> {
    fn rows(&self, rows: Range<usize>) -> StoredRows<'a> {
        let Self { format, bytes, k, .. } = *self;
        let row_bytes = format.row_bytes(k);
        StoredRows { format, bytes: &bytes[rows.start * row_bytes..rows.end * row_bytes], k }
    }
}

/// Quantises rows of `k` activations each.
pub(super) fn quantize(isa: Isa, x: &[f32], k: usize) -> Rows<i8> {
    let mut rows = Rows::default();
    (isa.kernels().quantize)(x, k, &mut rows);
    rows
}

/// `out[m, n] = x[m, k] · weights[n, k]ᵀ`
pub(super) fn matmul(isa: Isa, weights: Weights<'_>, x: &Rows<i8>, out: &mut [f32]) {
    assert_eq!(weights.bytes.len(), weights.n * weights.format.row_bytes(weights.k), "weight bytes");
    assert_eq!((weights.k, out.len()), (x.k(), x.len() * weights.n), "shapes of a product");
    let shared = Shared::new(out);
    let panel_rows = isa.kernels().panel_rows;
    for_each_range(weights.n.div_ceil(panel_rows), panel_rows * weights.k * x.len(), |panels| {
        let tile = (TILE_BYTES / weights.k).max(TILE_TOKENS);
        let mut band = Band { isa, weights, scratch: Scratch::default(), products: Vec::new() };
        for first in (0..x.len()).step_by(tile) {
            let tokens = first..x.len().min(first + tile);
            for panel in panels.clone() {
                band.run(panel, x, tokens.clone(), &shared);
            }
        }
    });
}

/// One thread's share of a product, with its scratch.
struct Band<'a> {
    isa: Isa,
    weights: Weights<'a>,
    scratch: Scratch,
    products: Vec<f32>,
}

impl Band<'_> {
    /// Multiplies the weight rows of `panel` with the given tokens and stores their columns of `out`.
    fn run(&mut self, panel: usize, x: &Rows<i8>, tokens: Range<usize>, out: &Shared<'_>) {
        let (n, kernels) = (self.weights.n, self.isa.kernels());
        let rows = panel * kernels.panel_rows..n.min((panel + 1) * kernels.panel_rows);
        self.products.resize(tokens.len() * kernels.panel_rows, 0.0);
        let stored = self.weights.rows(rows.clone());
        (kernels.product)(&mut self.scratch, stored, x, tokens.clone(), &mut self.products);
        for (token, products) in tokens.zip(self.products.chunks_exact(kernels.panel_rows)) {
            // SAFETY: columns `rows` belong to this panel, and each panel to one range of `for_each_range`.
            let columns = unsafe { out.slice(token * n + rows.start..token * n + rows.end) };
            columns.copy_from_slice(&products[..columns.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::blocks::Row;
    use super::super::dispatch::{ALL_FORMATS, available};
    use super::super::vector::Head;
    use super::*;

    /// f16 bits worth meeting: zeros, a subnormal, one, its negative, the largest, infinities, NaN.
    const HALVES: [u16; 9] = [0, 0x8000, 0x0001, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x7e00];
    /// Relative to the sum of the magnitudes of all terms: the order of additions differs, not their number.
    const TOLERANCE: f64 = 1e-6;

    /// Where a stored block has f16 numbers.
    fn half_places(format: Format) -> &'static [usize] {
        match format {
            Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => &[0],
            Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
            Format::Q2K => &[80, 82],
            Format::Q3K => &[108],
            Format::Q6K => &[208],
        }
    }

    /// Stored weights of `n` rows of random blocks; with `extreme`, scales may be anything.
    fn weights(format: Format, n: usize, k: usize, extreme: bool) -> impl Strategy<Value = Vec<u8>> {
        let halves = move |bits: u16| if extreme { HALVES[usize::from(bits) % HALVES.len()] } else { bits % 0x3c00 };
        prop::collection::vec(any::<u8>(), n * format.row_bytes(k)).prop_map(move |mut bytes| {
            for block in bytes.chunks_exact_mut(format.stored_bytes()) {
                for &at in half_places(format) {
                    let bits = halves(u16::from_le_bytes([block[at], block[at + 1]]));
                    block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
                }
            }
            bytes
        })
    }

    fn activation(extreme: bool) -> BoxedStrategy<f32> {
        let usual = -4.0_f32..4.0;
        if !extreme {
            return usual.boxed();
        }
        prop_oneof![8 => usual, 2 => Just(0.0), 1 => Just(f32::MAX), 1 => Just(1e-30), 1 => any::<f32>()].boxed()
    }

    #[derive(Debug, Clone)]
    struct Case {
        format: Format,
        m: usize,
        n: usize,
        k: usize,
        bytes: Vec<u8>,
        x: Vec<f32>,
    }

    impl Case {
        fn weights(&self) -> Weights<'_> {
            Weights { format: self.format, bytes: &self.bytes, n: self.n, k: self.k }
        }

        fn product(&self, isa: Isa) -> Vec<f32> {
            let mut out = vec![f32::MIN; self.m * self.n];
            matmul(isa, self.weights(), &quantize(isa, &self.x, self.k), &mut out);
            out
        }
    }

    fn case() -> impl Strategy<Value = Case> {
        let dims = (0..ALL_FORMATS.len(), 1..10_usize, 1..20_usize, 1..12_usize, any::<bool>());
        dims.prop_flat_map(|(format, m, n, blocks, extreme)| {
            let format = ALL_FORMATS[format];
            let k = if format.stored_values() == 32 { blocks * 32 } else { blocks.div_ceil(4) * 256 };
            let x = prop::collection::vec(activation(extreme), m * k);
            (weights(format, n, k, extreme), x).prop_map(move |(bytes, x)| Case { format, m, n, k, bytes, x })
        })
    }

    /// Scalar products of a case and, beside each, the sum of its terms' magnitudes.
    fn truth(case: &Case) -> Vec<(f32, f64)> {
        let scalar = scalar_isa();
        let (x, mut unpacked) = (quantize(scalar, &case.x, case.k), Rows::default());
        let products = case.product(scalar);
        let mut out = Vec::new();
        for i in 0..case.m {
            for j in 0..case.n {
                unpacked.unpack(case.weights().rows(j..j + 1));
                out.push((products[i * case.n + j], magnitude(unpacked.row(0), x.row(i), x.half_sides(i))));
            }
        }
        out
    }

    fn magnitude(w: Row<'_, u8>, x: Row<'_, i8>, half_sides: &[[f32; 2]]) -> f64 {
        let per_scale = w.q.len() * 32 / w.scale.len();
        let terms = (0..w.scale.len()).map(|s| {
            let values = s * per_scale..(s + 1) * per_scale;
            let (wq, xq) = (&w.q.as_flattened()[values.clone()], &x.q.as_flattened()[values.clone()]);
            let products = wq.iter().zip(xq).map(|(&w, &x)| f64::from(w) * f64::from(x).abs());
            let block = values.start / 32;
            let side = if per_scale == 32 { x.side[block] } else { half_sides[block][s % 2] };
            let scales = f64::from(w.scale[s]).abs() * f64::from(x.scale[block]);
            // Scales are multiplied first, and may leave f32 although all that they scale is zero.
            let scales = if scales > f64::from(f32::MAX) { f64::INFINITY } else { scales };
            scales * products.sum::<f64>() + (f64::from(w.side[s]) * f64::from(side)).abs()
        });
        terms.sum()
    }

    /// What two floats must share to count as the same: NaNs have no preferred bits.
    fn bits(v: f32) -> Option<u32> {
        (!v.is_nan()).then(|| v.to_bits())
    }

    fn scalar_isa() -> Isa {
        *available().last().expect("scalar is always there")
    }

    proptest! {
        #[test]
        fn fast_is_close_to_scalar(case in case()) {
            for isa in available() {
                for (i, (&fast, (scalar, magnitude))) in case.product(isa).iter().zip(truth(&case)).enumerate() {
                    // Where a sum may overflow or meet infinities, its order decides which of them comes out.
                    let close = (f64::from(fast) - f64::from(scalar)).abs() <= TOLERANCE * magnitude + 1e-37;
                    let wild = magnitude.is_nan() || magnitude > f64::from(f32::MAX);
                    prop_assert!(close || (wild && !fast.is_finite()) || (wild && !scalar.is_finite()),
                        "{isa} output {i}: {fast}, scalar {scalar}, of terms {magnitude}");
                    prop_assert!(!wild || magnitude.is_finite() || !fast.is_finite(), "{isa} output {i} hides {magnitude}");
                }
            }
        }

        #[test]
        fn a_row_is_the_same_alone_and_in_a_batch(case in case()) {
            for isa in available() {
                let together = case.product(isa);
                for i in 0..case.m {
                    let x = case.x[i * case.k..(i + 1) * case.k].to_vec();
                    let alone = Case { m: 1, x, ..case.clone() }.product(isa);
                    for (alone, together) in alone.iter().zip(&together[i * case.n..]) {
                        prop_assert!(alone.to_bits() == together.to_bits() || (alone.is_nan() && together.is_nan()));
                    }
                }
            }
        }

        #[test]
        fn float_loops_agree_to_the_bit(
            query in prop::collection::vec(activation(false), 1..40),
            numbers in prop::collection::vec(activation(true), 40 * 9),
            visible in 1..9_usize,
        ) {
            let run = |isa: Isa| {
                let head = Head { query: &query, keys: &numbers, values: &numbers, stride: 40, visible };
                let (mut attended, mut gated) = (vec![0.0; query.len()], vec![0.0; query.len()]);
                (isa.kernels().attend)(&head, &mut attended);
                (isa.kernels().swiglu)(&numbers[..query.len()], &query, &mut gated);
                attended.into_iter().chain(gated).map(bits).collect::<Vec<_>>()
            };
            for isa in available() {
                prop_assert_eq!(run(isa), run(scalar_isa()));
            }
        }

        #[test]
        fn quantized_rows_agree_to_the_bit(x in prop::collection::vec(activation(true), 96)) {
            let run = |isa: Isa| {
                let rows = quantize(isa, &x, 96);
                let row = rows.row(0);
                (row.q.to_vec(), row.scale.iter().chain(row.side).copied().map(bits).collect::<Vec<_>>())
            };
            for isa in available() {
                prop_assert_eq!(run(isa), run(scalar_isa()));
            }
        }
    }

    /// Several tiles of tokens, a short last panel and several threads at once.
    #[test]
    fn tiles_and_threads_cover_everything() {
        let (m, n, k) = (TILE_BYTES / 4096 + 5, 33, 4096);
        let bytes = (0..n * Format::Q5_1.row_bytes(k))
            .map(|i| if i % 24 == 1 || i % 24 == 3 { 0x2c } else { i as u8 })
            .collect();
        let x = (0..m * k).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        let case = Case { format: Format::Q5_1, m, n, k, bytes, x };
        let truth = truth(&case);
        for isa in available() {
            for (fast, (scalar, magnitude)) in case.product(isa).iter().zip(&truth) {
                assert!((f64::from(*fast) - f64::from(*scalar)).abs() <= TOLERANCE * magnitude);
            }
        }
    }
}
