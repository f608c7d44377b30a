//! Every instruction set against plain arithmetic in f64, and against itself in other portions.

use std::ops::Range;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device};
use half::f16;
use proptest::prelude::*;

use super::activations::Activations;
use super::blocks::StoredRows;
use super::layout::{PANEL, Shape};
use super::product::{Out, PanelRef, Scratch};
use sha2::{Digest, Sha256};

use super::*;

/// Block formats, and what candle calls those that it has.
const FORMATS: [(Format, Option<GgmlDType>); 11] = [
    (Format::Q4_0, Some(GgmlDType::Q4_0)),
    (Format::Q4_1, Some(GgmlDType::Q4_1)),
    (Format::Q5_0, Some(GgmlDType::Q5_0)),
    (Format::Q5_1, Some(GgmlDType::Q5_1)),
    (Format::Q8_0, Some(GgmlDType::Q8_0)),
    (Format::Iq4Nl, None),
    (Format::Q2K, Some(GgmlDType::Q2K)),
    (Format::Q3K, Some(GgmlDType::Q3K)),
    (Format::Q4K, Some(GgmlDType::Q4K)),
    (Format::Q5K, Some(GgmlDType::Q5K)),
    (Format::Q6K, Some(GgmlDType::Q6K)),
];

/// f16 bits worth meeting: zeros, a subnormal, one, its negative, the largest, infinities, NaN.
const HALVES: [u16; 9] = [0, 0x8000, 0x0001, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x7e00];
/// Relative to the sum of the magnitudes of all terms: the order of additions differs, not their number.
const TOLERANCE: f64 = 2e-6;

/// Where a stored block has f16 numbers.
fn half_places(format: Format) -> &'static [usize] {
    match format {
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 | Format::Iq4Nl => &[0],
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
    dtype: Option<GgmlDType>,
    m: usize,
    n: usize,
    k: usize,
    bytes: Vec<u8>,
    x: Vec<f32>,
}

fn case() -> impl Strategy<Value = Case> {
    let dims = (0..FORMATS.len(), 1..36_usize, 1..40_usize, 1..20_usize, any::<bool>());
    dims.prop_flat_map(|(format, m, n, blocks, extreme)| {
        let (format, dtype) = FORMATS[format];
        let k = blocks.div_ceil(format.stored_values() / 32) * format.stored_values();
        let x = prop::collection::vec(activation(extreme), m * k);
        (weights(format, n, k, extreme), x).prop_map(move |(bytes, x)| Case { format, dtype, m, n, k, bytes, x })
    })
}

impl Case {
    fn product(&self, isa: Isa) -> Vec<f32> {
        let weight = Weight::of(isa, Element::Blocks(self.format), &[self.n, self.k], &self.bytes).unwrap();
        let mut input = Input::default();
        input.reshape(self.m, self.k).copy_from_slice(&self.x);
        let mut out = vec![f32::MIN; self.m * self.n];
        multiply(&mut [Product { weight: &weight, out: &mut out, add: false }], &mut input);
        out
    }

    /// Values of the weights as candle unpacks them.
    fn values(&self) -> Vec<f32> {
        let Some(dtype) = self.dtype else { return iq4_nl(&self.bytes) };
        let storage = QStorage::from_data(self.bytes.as_slice().into(), &Device::Cpu, dtype).unwrap();
        let values = QTensor::new(storage, (self.n, self.k)).unwrap().dequantize(&Device::Cpu).unwrap();
        values.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// The product in f64 with the activations that are multiplied, and the sum of the magnitudes of its terms.
    fn truth(&self, isa: Isa) -> Vec<(f64, f64)> {
        let (weights, x) = (self.values(), quantised(isa, &self.x, self.k));
        let row = |values: &[f32], i: usize| values[i * self.k..(i + 1) * self.k].to_vec();
        let mut truth = Vec::new();
        for (i, j) in (0..self.m).flat_map(|i| (0..self.n).map(move |j| (i, j))) {
            let (w, x) = (row(&weights, j), row(&x, i));
            // Numbers are multiplied before they are shifted down, so what counts is how large they are before.
            let terms = w.iter().zip(&x).map(|(&w, &x)| f64::from(w) * f64::from(x));
            let top = w.chunks(16).zip(x.chunks(16)).map(|(w, x)| {
                let largest = |v: &[f32]| v.iter().fold(0.0, |top: f64, &v| top.max(f64::from(v).abs()));
                32.0 * largest(w) * largest(x)
            });
            truth.push((terms.sum(), top.sum()));
        }
        truth
    }
}

/// `dequantize_row_iq4_nl` of ggml, which candle does not have.
fn iq4_nl(bytes: &[u8]) -> Vec<f32> {
    let table = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
    let block = |block: &[u8]| {
        let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
        let (low, high) = (block[2..].iter().map(|q| q & 15), block[2..].iter().map(|q| q >> 4));
        low.chain(high).map(|q| d * table[usize::from(q)] as f32).collect::<Vec<_>>()
    };
    bytes.chunks(18).flat_map(block).collect()
}

/// Activations as the kernels of an instruction set round them.
fn quantised(isa: Isa, x: &[f32], k: usize) -> Vec<f32> {
    let mut rows = Activations::default();
    rows.reshape(x.len() / k, k);
    let tokens = rows.tokens();
    // SAFETY: one row at a time.
    x.chunks(k).enumerate().for_each(|(i, row)| (isa.kernels().quantize)(row, unsafe { tokens.token_mut(i) }));
    rows.values()
}

/// The largest magnitude in row `i`.
fn largest_of_row(x: &[f32], k: usize, i: usize) -> f64 {
    x[i * k..(i + 1) * k].iter().fold(0.0, |top, v| top.max(f64::from(v.abs())))
}

proptest! {
    #[test]
    fn products_of_blocks_are_close_to_the_truth(case in case()) {
        for isa in available() {
            for (i, (got, (truth, magnitude))) in case.product(isa).into_iter().zip(case.truth(isa)).enumerate() {
                // Where a sum may overflow or meets infinities, no number is right, and none may look so.
                let close = (f64::from(got) - truth).abs() <= TOLERANCE * magnitude + 1e-37;
                let x = largest_of_row(&case.x, case.k, i / case.n);
                let huge = !magnitude.is_finite() || magnitude.max(x * 1e3) > f64::from(f32::MAX) / 256.0;
                let right = if truth.is_finite() { close } else { !got.is_finite() };
                prop_assert!(right || huge, "{isa} {:?} {i}: {got}, truth {truth} of {magnitude}", case.format);
            }
        }
    }

    #[test]
    fn a_token_is_the_same_alone_and_in_a_batch(case in case(), portion in 1..20_usize) {
        for isa in available() {
            let whole = case.product(isa);
            let apart = case.x.chunks(portion * case.k).flat_map(|x| {
                Case { m: x.len() / case.k, x: x.to_vec(), ..case.clone() }.product(isa)
            });
            let bits = |v: f32| if v.is_nan() { u32::MAX } else { v.to_bits() };
            prop_assert!(whole.iter().copied().map(bits).eq(apart.map(bits)), "{isa} {:?}", case.format);
        }
    }

    #[test]
    fn activations_are_rounded_alike_everywhere(x in prop::collection::vec(activation(true), 3 * 64)) {
        let truth = quantised(*available().last().unwrap(), &x, 64);
        for isa in available() {
            for (ours, truth) in quantised(isa, &x, 64).iter().zip(&truth) {
                prop_assert!(ours.to_bits() == truth.to_bits() || truth.is_nan(), "{isa}: {ours}, {truth}");
            }
        }
    }

    #[test]
    fn rows_read_back_are_what_was_stored(case in case()) {
        let weight = Weight::of(active(), Element::Blocks(case.format), &[case.n, case.k], &case.bytes).unwrap();
        for (ours, truth) in weight.values().into_iter().zip(case.values()) {
            let close = (ours - truth).abs() <= 1e-6 * truth.abs().max(1.0) * 128.0;
            prop_assert!(close || !truth.is_finite() || truth.abs() > 1e4, "{:?}: {ours}, {truth}", case.format);
        }
    }

    #[test]
    fn bytes_may_come_in_any_pieces(case in case(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9)) {
        let whole = Weight::of(active(), Element::Blocks(case.format), &[case.n, case.k], &case.bytes).unwrap();
        let mut filling = Weight::open(Element::Blocks(case.format), &[case.n, case.k]).unwrap();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(case.bytes.len())).collect();
        cuts.sort();
        let mut from = 0;
        for to in cuts.into_iter().chain([case.bytes.len()]) {
            prop_assert!(!filling.is_full());
            prop_assert_eq!(filling.push(&case.bytes[from..to]), to - from);
            from = to;
        }
        prop_assert!(filling.is_full() && filling.push(&[1, 2, 3]) == 0);
        let bits = |weight: &Weight| weight.values().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&filling.finish().unwrap()), bits(&whole));
    }
}

/// Packed weights are kept in files: other bytes need another number.
#[test]
fn a_layout_has_one_form() {
    let mut hash = Sha256::new();
    for (format, _) in FORMATS {
        let (n, k) = (PANEL + 1, 2 * format.stored_values());
        let bytes: Vec<u8> = (0..n * format.row_bytes(k)).map(|i| (i * 31 % 251) as u8).collect();
        let element = Element::Blocks(format);
        let weight = Weight::of(active(), element, &[n, k], &bytes).unwrap();
        assert_eq!(weight.packed().len(), Weight::packed_len(element, &[n, k]).unwrap());
        hash.update(weight.packed());
        let mut held = vec![0; Weight::ALIGNMENT + weight.packed().len()];
        let at = held.as_ptr().align_offset(Weight::ALIGNMENT);
        held[at..at + weight.packed().len()].copy_from_slice(weight.packed());
        let held: Held = Arc::new(held);
        let again = Weight::from_packed(element, &[n, k], held.clone(), at).unwrap();
        let bits = |weight: &Weight| weight.values().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&again), bits(&weight));
        assert!(Weight::from_packed(element, &[n, k], held.clone(), at + 1).is_err());
        assert!(Weight::from_packed(element, &[3 * n, k], held, at).is_err());
    }
    let form = format!("{} {:x}", Weight::LAYOUT, hash.finalize());
    assert_eq!(
        form, "1 c2c2f43e308037538b15ce73fb5928ca5b3fcb538405c077c635abd589f271b9",
        "raise Weight::LAYOUT when this changes"
    );
}

/// What is packed must not be read by another instruction set's idea of it.
#[test]
fn all_instruction_sets_pack_alike() {
    for (format, _) in FORMATS {
        let k = 2 * format.stored_values();
        let bytes: Vec<u8> = (0..PANEL * format.row_bytes(k)).map(|i| (i * 31 % 251) as u8).collect();
        let packed = |isa: Isa| {
            let mut panel = vec![0; Shape::of(format).panel(k)];
            (isa.kernels().pack)(StoredRows { format, bytes: &bytes, k }, &mut panel);
            panel
        };
        let truth = packed(*available().last().unwrap());
        available().into_iter().for_each(|isa| assert_eq!(packed(isa), truth, "{isa} {format:?}"));
    }
}

/// What one query gets, written out.
fn attended(query: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>]) -> Vec<f64> {
    let dot = |k: &[f32]| query.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
    let scores: Vec<f64> = keys.iter().map(|k| dot(k) / (query.len() as f64).sqrt()).collect();
    let top = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mean = |d: usize| weights.iter().zip(values).map(|(w, v)| w * f64::from(v[d])).sum::<f64>() / total;
    (0..query.len()).map(mean).collect()
}

#[test]
fn attention_follows_the_formula_for_any_number_of_queries() {
    let number = |i: usize| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * 1.5;
    let rows = |n: usize, dim: usize, seed: usize| -> Vec<Vec<f32>> {
        (0..n).map(|i| (0..dim).map(|d| number(seed + i * dim + d)).collect()).collect()
    };
    for (kind, tolerance) in [(CacheType::F32, 1e-5), (CacheType::F16, 2e-3), (CacheType::Q8_0, 2e-2)] {
        for dim in [12, 16, 32, 64, 80, 96, 128].into_iter().filter(|&dim| kind.fits(dim)) {
            let (keys, values, queries) = (rows(2 * PAGE, dim, 1), rows(2 * PAGE, dim, 77), rows(QUERIES, dim, 5));
            let mut pages = vec![vec![0; kind.head_bytes(dim)]; 2];
            for (i, (key, value)) in keys.iter().zip(&values).enumerate() {
                kind.write(&mut pages[i / PAGE], i % PAGE, key, value);
            }
            let seen = |q: usize| (if q % 3 == 2 { 5 } else { 0 })..PAGE + q * (PAGE / QUERIES) + 1;
            let within = |all: Range<usize>, page: usize| {
                let cut = |v: usize| v.saturating_sub(page * PAGE).min(PAGE);
                cut(all.start)..cut(all.end)
            };
            for isa in available() {
                let look = |which: Range<usize>| {
                    let flat = queries[which.clone()].concat();
                    let (mut sums, mut out) = (vec![NOTHING; which.len()], vec![0.0; flat.len()]);
                    for (page, head) in pages.iter().enumerate() {
                        let seen: Vec<_> = which.clone().map(|q| within(seen(q), page)).collect();
                        let job = PageJob { kind, head, queries: &flat, seen: &seen, dim, next: Some(head) };
                        let mut gathered = Gathered { sums: &mut sums, values: &mut out };
                        (isa.kernels().attend)(&job, &mut Default::default(), &mut gathered);
                    }
                    out.chunks(dim).zip(&sums).flat_map(|(v, s)| v.iter().map(|v| v / s[1])).collect::<Vec<f32>>()
                };
                let together = look(0..QUERIES);
                for (q, ours) in together.chunks(dim).enumerate() {
                    let truth = attended(&queries[q], &keys[seen(q)], &values[seen(q)]);
                    for (ours, truth) in ours.iter().zip(truth) {
                        assert!((f64::from(*ours) - truth).abs() < tolerance, "{isa} {kind:?} {dim}: {ours}, {truth}");
                    }
                    assert_eq!(look(q..q + 1), ours, "{isa} {kind:?} {dim}: query {q} alone");
                }
                let portions = [look(0..2), look(2..7), look(7..QUERIES)].concat();
                assert_eq!(portions, together, "{isa} {kind:?} {dim}: in portions");
                let portions = [look(0..3), look(3..10), look(10..QUERIES)].concat();
                assert_eq!(portions, together, "{isa} {kind:?} {dim}: in portions of three and seven");
            }
        }
    }
}

#[test]
fn a_chunk_apart_is_added_up() {
    let (mut sums, mut values) = (NOTHING, vec![0.0; 2]);
    add_chunk(&mut sums, &mut values, NOTHING, &[5.0, 5.0]);
    assert_eq!((sums, &values[..]), (NOTHING, &[0.0, 0.0][..]), "nothing is added");
    add_chunk(&mut sums, &mut values, [1.0, 2.0], &[3.0, 4.0]);
    assert_eq!((sums, &values[..]), ([1.0, 2.0], &[3.0, 4.0][..]), "the first is taken as it is");
    add_chunk(&mut sums, &mut values, [1.0, 1.0], &[1.0, 2.0]);
    assert_eq!((sums, &values[..]), ([1.0, 3.0], &[4.0, 6.0][..]));
    add_chunk(&mut sums, &mut values, [f32::NAN, 1.0], &[1.0, 2.0]);
    assert!(values.iter().all(|v| v.is_nan()), "what is not a number stays visible");
}

#[test]
fn long_rows_of_many_tokens_are_those_of_each_alone() {
    // More blocks than a chunk and activations than a span, and rows that do not fill the last panel.
    let (m, n, k) = (300, 24, 80 * 32);
    let x: Vec<f32> = (0..m * k).map(|i| ((i * 37 % 1009) as f32 / 504.5 - 1.0) * 3.0).collect();
    for format in [Format::Q4_0, Format::Q4K, Format::Q6K] {
        let mut bytes: Vec<u8> = (0..n * format.row_bytes(k)).map(|i| (i * 31 % 251) as u8).collect();
        for block in bytes.chunks_exact_mut(format.stored_bytes()) {
            half_places(format).iter().for_each(|&at| block[at..at + 2].copy_from_slice(&[0, 0x2c]));
        }
        for isa in available() {
            let weight = Weight::of(isa, Element::Blocks(format), &[n, k], &bytes).unwrap();
            let product = |x: &[f32]| {
                let mut input = Input::default();
                input.reshape(x.len() / k, k).copy_from_slice(x);
                let mut out = vec![0.25; x.len() / k * n];
                multiply(&mut [Product { weight: &weight, out: &mut out, add: true }], &mut input);
                out
            };
            let together = product(&x);
            for token in [0, 15, 16, m - 1] {
                let alone = product(&x[token * k..(token + 1) * k]);
                assert_eq!(together[token * n..(token + 1) * n], alone, "{isa} {format:?}: token {token}");
            }
        }
    }
}

#[test]
fn gated_products_are_the_gates_of_products() {
    let k = 64;
    let number = |i: usize| (i * 37 % 101) as f32 / 50.0 - 1.0;
    for n in [5, 16, 40] {
        let bytes = |seed: usize| (0..n * k).flat_map(|i| number(i + seed).to_le_bytes()).collect::<Vec<u8>>();
        let weight = |seed| Weight::of(active(), Element::F32, &[n, k], &bytes(seed)).unwrap();
        let (gate, up) = (weight(3), weight(11));
        let mut input = Input::default();
        input.reshape(3, k).iter_mut().enumerate().for_each(|(i, v)| *v = number(i * 3));
        let (mut gates, mut ups, mut out) = (vec![1.0; 3 * n], vec![1.0; 3 * n], vec![0.0; 3 * n]);
        let add = |weight, out, add| Product { weight, out, add };
        multiply(&mut [add(&gate, &mut gates, false), add(&up, &mut ups, true)], &mut input);
        multiply_gated(&gate, &up, &mut input, &mut out);
        for (out, (gate, up)) in out.iter().zip(gates.iter().zip(&ups)) {
            let truth = gate / (1.0 + (-gate).exp()) * (up - 1.0);
            assert!((out - truth).abs() < 1e-4, "{out}, {truth}");
        }
    }
}

#[test]
fn wrong_shapes_and_missing_bytes_are_named() {
    let error = Weight::open(Element::Blocks(Format::Q4_0), &[2, 33]).unwrap_err();
    assert!(error.to_string().ends_with("got [2, 33]"), "{error}");
    assert!(Weight::open(Element::F32, &[0, 4]).is_err() && Weight::open(Element::F32, &[4, 0]).is_err());
    let error = Weight::open(Element::F16, &[2, 4]).unwrap().finish().unwrap_err();
    assert!(error.to_string().ends_with("expected 16 bytes, got 0"), "{error}");
}

#[test]
#[ignore = "a measurement, not a check: products of one thread, by the time of the processor"]
fn speed() {
    let k = 4096;
    for isa in available() {
        for (format, _) in FORMATS {
            let bytes: Vec<u8> = (0..PANEL * format.row_bytes(k)).map(|i| (i * 31 % 251) as u8).collect();
            let mut panels = vec![0; 64 * Shape::of(format).panel(k)];
            for panel in panels.chunks_exact_mut(Shape::of(format).panel(k)) {
                (isa.kernels().pack)(StoredRows { format, bytes: &bytes, k }, panel);
            }
            let mut line = format!("{isa} {format:?}:");
            for m in [1, 4, 8, 64] {
                let mut x = Activations::default();
                x.quantize(&vec![0.5; m * k], k);
                let (mut out, mut scratch) = (vec![[0.0; PANEL]; m], Scratch::default());
                let mut best = f64::INFINITY;
                for _ in 0..5 {
                    let start = std::time::Instant::now();
                    for bytes in panels.chunks_exact(Shape::of(format).panel(k)) {
                        let panel = PanelRef { format, bytes, k, blocks: 0..k / 32, next: None };
                        let out = &mut Out::rows(&mut out, false);
                        (isa.kernels().product)(format)(&mut scratch, panel, &x, 0..m, out);
                    }
                    best = best.min(start.elapsed().as_secs_f64());
                }
                let rate = (m * 64 * PANEL * k) as f64 / best / 1e9;
                line += &format!("  {m} tokens {rate:.0} G/s ({:.1} GB/s)", panels.len() as f64 / best / 1e9);
            }
            println!("{line}");
        }
    }
}
