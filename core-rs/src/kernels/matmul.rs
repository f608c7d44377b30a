//! Quantised matrix product: activation rows times stored weight rows, tiled for the caches and split over threads.

use std::ops::Range;

use super::blocks::{Format, Rows};
use super::dispatch::{Isa, PANEL_ROWS, Products};
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

/// Quantises rows of `k` activations each.
pub(super) fn quantize(isa: Isa, x: &[f32], k: usize) -> Rows<i8> {
    let mut rows = Rows::zeros(x.len() / k, k);
    (isa.kernels().quantize)(x, &mut rows);
    rows
}

/// `out[m, n] = x[m, k] · weights[n, k]ᵀ`
pub(super) fn matmul(isa: Isa, weights: Weights<'_>, x: &Rows<i8>, out: &mut [f32]) {
    assert_eq!(weights.bytes.len(), weights.n * weights.format.row_bytes(weights.k), "weight bytes");
    assert_eq!((weights.k, out.len()), (x.k(), x.len() * weights.n), "shapes of a product");
    let shared = Shared::new(out);
    let panels = weights.n.div_ceil(PANEL_ROWS);
    for_each_range(panels, PANEL_ROWS * weights.k * x.len(), |panels| {
        let tile = (TILE_BYTES / weights.k).max(TILE_TOKENS);
        let mut band = Band::new(isa, weights, tile.min(x.len()));
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
    unpacked: Rows<u8>,
    products: Vec<Products>,
}

impl<'a> Band<'a> {
    fn new(isa: Isa, weights: Weights<'a>, tokens: usize) -> Self {
        let unpacked = Rows::zeros(PANEL_ROWS, weights.k);
        Self { isa, weights, unpacked, products: vec![[0.0; PANEL_ROWS]; tokens] }
    }

    /// Multiplies the weight rows of `panel` with the given tokens and stores their columns of `out`.
    fn run(&mut self, panel: usize, x: &Rows<i8>, tokens: Range<usize>, out: &Shared<'_>) {
        let n = self.weights.n;
        let rows = panel * PANEL_ROWS..n.min((panel + 1) * PANEL_ROWS);
        self.unpack(rows.clone());
        let products = &mut self.products[..tokens.len()];
        (self.isa.kernels().panel)(&self.unpacked, x, tokens.start, products);
        for (token, products) in tokens.zip(products) {
            // SAFETY: columns `rows` belong to this panel, and each panel to one range of `for_each_range`.
            let columns = unsafe { out.slice(token * n + rows.start..token * n + rows.end) };
            // A whole panel is two plain stores; a copy of unknown length would be a call for each token.
            match columns.first_chunk_mut() {
                Some(whole) => *whole = *products,
                None => columns.copy_from_slice(&products[..columns.len()]),
            }
        }
    }

    /// The last panel may be short: what its missing rows held before is multiplied, but not stored.
    fn unpack(&mut self, rows: Range<usize>) {
        let Weights { format, bytes, k, .. } = self.weights;
        let stored = &bytes[rows.start * format.row_bytes(k)..rows.end * format.row_bytes(k)];
        (self.isa.kernels().unpack)(format, stored, &mut self.unpacked);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::dispatch::available;
    use super::super::scalar;
    use super::super::vector::Head;
    use super::*;

    const FORMATS: [Format; 3] = [Format::Q4_1, Format::Q5_0, Format::Q5_1];
    /// f16 bits worth meeting: zeros, a subnormal, one, its negative, the largest, infinities, NaN.
    const HALVES: [u16; 9] = [0, 0x8000, 0x0001, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x7e00];
    /// Relative to the sum of the magnitudes of all terms: the order of additions differs, not their number.
    const TOLERANCE: f64 = 1e-6;

    /// Stored weights of `n` rows of random blocks; with `extreme`, scales may be anything.
    fn weights(format: Format, n: usize, k: usize, extreme: bool) -> impl Strategy<Value = Vec<u8>> {
        let block = format.row_bytes(32);
        let halves = move |bits: u16| if extreme { HALVES[usize::from(bits) % HALVES.len()] } else { bits % 0x3c00 };
        prop::collection::vec(any::<u8>(), n * format.row_bytes(k)).prop_map(move |mut bytes| {
            for block in bytes.chunks_exact_mut(block) {
                for at in if format == Format::Q5_0 { 0..1 } else { 0..2 } {
                    let bits = halves(u16::from_le_bytes([block[2 * at], block[2 * at + 1]]));
                    block[2 * at..2 * at + 2].copy_from_slice(&bits.to_le_bytes());
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
        let dims = (0..3_usize, 1..10_usize, 1..8_usize, 1..12_usize, any::<bool>());
        dims.prop_flat_map(|(format, m, n, blocks, extreme)| {
            let (format, k) = (FORMATS[format], blocks * 32);
            let x = prop::collection::vec(activation(extreme), m * k);
            (weights(format, n, k, extreme), x).prop_map(move |(bytes, x)| Case { format, m, n, k, bytes, x })
        })
    }

    /// Scalar products of a case and, beside each, the sum of its terms' magnitudes.
    fn truth(case: &Case) -> Vec<(f32, f64)> {
        let scalar = scalar_isa();
        let x = quantize(scalar, &case.x, case.k);
        let mut band = Band::new(scalar, case.weights(), 1);
        let mut out = vec![(0.0, 0.0); case.m * case.n];
        for j in 0..case.n {
            band.unpack(j..j + 1);
            let w = band.unpacked.row(0);
            for i in 0..case.m {
                let x = x.row(i);
                let magnitude = (0..w.q.len()).map(|b| {
                    let products = w.q[b].iter().zip(x.q[b]).map(|(&w, x)| f64::from(w) * f64::from(x).abs());
                    let scales = f64::from(w.scale[b]).abs() * f64::from(x.scale[b]);
                    scales * products.sum::<f64>() + (f64::from(w.side[b]) * f64::from(x.side[b])).abs()
                });
                out[i * case.n + j] = (scalar::dot(w, x), magnitude.sum());
            }
        }
        out
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

    proptest! {
        #[test]
        fn unpacked_rows_agree_to_the_bit(case in case()) {
            let run = |isa: Isa| {
                let mut band = Band::new(isa, case.weights(), 1);
                band.unpack(0..1);
                let row = band.unpacked.row(0);
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
