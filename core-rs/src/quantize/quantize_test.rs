//! Against tests/golden/quantize.json, which ggml wrote (scripts/golden_quantize.py), and against arithmetic.

use std::collections::BTreeMap;

use half::f16;
use proptest::prelude::*;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::*;
use crate::error::ErrorKind;

#[derive(Deserialize)]
struct Golden {
    models: BTreeMap<String, Model>,
    mixes: Vec<Mix>,
    blocks: Vec<Blocks>,
}

#[derive(Deserialize)]
struct Model {
    n_layer: usize,
    n_head: usize,
    n_head_kv: usize,
    n_expert: usize,
    width: usize,
    ff: usize,
    tied: bool,
}

#[derive(Deserialize)]
struct Mix {
    model: String,
    file_type: String,
    types: BTreeMap<String, Types>,
}

/// One tensor's type, or those of a part of every layer: type and layers in a row.
#[derive(Deserialize)]
#[serde(untagged)]
enum Types {
    One(String),
    Runs(Vec<(String, usize)>),
}

#[derive(Deserialize)]
struct Blocks {
    values: String,
    #[serde(rename = "type")]
    dtype: String,
    blocks: String,
    back: Option<String>,
    first: Option<String>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../tests/golden/quantize.json")).unwrap()
}

fn dtype(name: &str) -> GgmlType {
    *GgmlType::ALL.iter().find(|t| t.name() == name).unwrap()
}

/// `Draw` of scripts/golden_quantize.py.
struct Draw(u64);

impl Draw {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as u32
    }

    fn uniform(&mut self) -> f32 {
        (self.bits() as i32 - (1 << 23)) as f32 / (1 << 23) as f32
    }

    fn normal(&mut self) -> f32 {
        let sum: i32 = (0..12).map(|_| self.bits() as i32).sum();
        (sum - 6 * (1 << 24)) as f32 / (1 << 24) as f32
    }

    fn either(&mut self, odd: f32, even: f32) -> f32 {
        if self.bits() % 2 == 1 { odd } else { even }
    }

    fn denormal(&mut self) -> f32 {
        let bits = self.bits();
        f32::from_bits(bits.rotate_right(1))
    }
}

const COUNT: usize = 2048;
const ROW_LEN: usize = 512;

type Kind = (&'static str, fn(&mut Draw, usize) -> f32);

/// `KINDS` of scripts/golden_quantize.py.
const KINDS: [Kind; 16] = [
    ("normal", |d, _| d.normal() * 0.02),
    ("uniform", |d, _| d.uniform()),
    ("positive", |d, _| d.uniform() * 0.5 + 1.0),
    ("negative", |d, _| d.uniform() * 0.5 - 1.0),
    ("sparse", |d, _| if d.bits() < 1 << 20 { d.normal() * 0.02 } else { 0.0 }),
    ("constant", |_, _| 0.3),
    ("two", |d, _| d.either(0.7, -0.7)),
    ("zeros", |d, _| d.either(0.0, -0.0)),
    ("huge", |d, _| d.uniform() * 30_000.0),
    ("small", |d, _| d.normal() * 1e-6),
    ("smaller", |d, _| d.normal() * 1e-15),
    ("smallest", |d, _| d.normal() * 1e-30),
    ("denormal", |d, _| d.denormal()),
    ("outlier", |d, i| if i % 256 == 137 { 100.0 } else { d.normal() * 0.02 }),
    ("ties", |d, _| ((d.bits() >> 19) as f32 - 16.0) * 0.125),
    ("ranges", |d, i| d.uniform() * 0.125f32.powi((i / 32 % 8) as i32)),
];

fn values(kind: &str) -> Vec<f32> {
    let seed = KINDS.iter().position(|(name, _)| *name == kind).unwrap();
    let mut draw = Draw(seed as u64);
    (0..COUNT).map(|i| KINDS[seed].1(&mut draw, i)).collect()
}

fn quantized(dtype: GgmlType, values: &[f32], row_len: usize) -> Result<Vec<u8>> {
    let mut out = vec![0xaa; values.len() / dtype.block_size() * dtype.type_size()];
    rows(dtype, values, row_len, 0, &mut out)?;
    Ok(out)
}

fn read(dtype: GgmlType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; bytes.len() / dtype.type_size() * dtype.block_size()];
    dequantize(dtype, bytes, &mut out).unwrap();
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..8])
}

#[test]
fn blocks_are_ggml_s_bit_for_bit() {
    let golden = golden();
    let mut seen = BTreeMap::<&str, usize>::new();
    let mut wrong = Vec::new();
    for row in &golden.blocks {
        let dtype = dtype(&row.dtype);
        let values = values(&row.values);
        let blocks = quantized(dtype, &values, ROW_LEN).unwrap();
        for isa in kernels::available() {
            let mut other = vec![0x55; blocks.len()];
            rows_on(isa, dtype, &values, ROW_LEN, 0, &mut other).unwrap();
            assert_eq!(hex(&other), hex(&blocks), "{} of {} on {isa}", row.dtype, row.values);
        }
        if let Some(first) = &row.first {
            assert_eq!(&hex(&blocks[..dtype.type_size()]), first, "{} of {}", row.dtype, row.values);
        }
        if digest(&blocks) != row.blocks {
            wrong.push(format!("{} of {}", row.dtype, row.values));
        }
        if let Some(back) = &row.back {
            let floats: Vec<u8> = read(dtype, &blocks).iter().flat_map(|v| v.to_le_bytes()).collect();
            assert_eq!(&digest(&floats), back, "reading {} of {}", row.dtype, row.values);
        }
        *seen.entry(dtype.name()).or_default() += 1;
    }
    assert_eq!(wrong, [""; 0]);
    let expected = WRITTEN.iter().map(|t| (t.name(), KINDS.len())).collect();
    assert_eq!(seen, expected, "every type with every kind of values");
}

#[test]
fn types_are_llama_cpp_s_for_every_tensor() {
    let golden = golden();
    for mix in &golden.mixes {
        let m = &golden.models[&mix.model];
        let Model { n_layer, n_head, n_head_kv, n_expert, tied, .. } = *m;
        let model = ModelShape { n_layer, n_head, n_head_kv, n_expert, tied };
        let file_type = FileType::parse(&mix.file_type).unwrap();
        let check = |name: &str, expected: &str| {
            let got = tensor_type(file_type, name, &shape(m, name), &model).name();
            assert_eq!(got, expected, "{} {} {name}", mix.model, mix.file_type);
        };
        for (name, types) in &mix.types {
            match types {
                Types::One(expected) => check(name, expected),
                Types::Runs(runs) => {
                    let layers = runs.iter().flat_map(|(t, n)| std::iter::repeat_n(t, *n)).enumerate();
                    let n = layers.map(|(i, t)| check(&name.replace('*', &i.to_string()), t)).count();
                    assert_eq!(n, n_layer);
                }
            }
        }
    }
    assert_eq!(golden.mixes.len(), golden.models.len() * FileType::ALL.len());
}

/// Only the length of rows and the number of dimensions count.
fn shape(m: &Model, name: &str) -> Vec<usize> {
    let width = if name.contains("ffn_down") { m.ff } else { m.width };
    match name {
        _ if name.contains("norm") => vec![m.width],
        _ if name.contains("_exps") => vec![m.n_expert, 2, width],
        _ => vec![2, width],
    }
}

#[test]
fn file_types_are_found_by_name_and_number() {
    for &t in FileType::ALL {
        assert_eq!(FileType::parse(&t.name().to_uppercase()), Ok(t));
        assert_eq!(FileType::from_id(t.id()), Some(t));
    }
    assert_eq!(FileType::from_id(14), None, "q4_k_s");
    let e = FileType::parse("q4_k").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidRequest);
    assert!(e.to_string().contains("q4_k_m") && e.to_string().ends_with("got \"q4_k\""), "{e}");
}

#[test]
fn a_dimension_of_one_counts_only_inside() {
    let model = ModelShape { n_layer: 1, n_head: 1, n_head_kv: 1, n_expert: 0, tied: false };
    let of = |shape: &[usize]| tensor_type(FileType::Q8_0, "blk.0.attn_q.weight", shape, &model);
    assert_eq!(
        [of(&[1, 64]), of(&[64, 1]), of(&[1]), of(&[])],
        [GgmlType::F32, GgmlType::F16, GgmlType::F32, GgmlType::F32]
    );
    let bias = tensor_type(FileType::Q8_0, "blk.0.attn_q.bias", &[64, 64], &model);
    assert_eq!(bias, GgmlType::F32);
}

#[test]
fn values_that_blocks_cannot_hold_are_refused_with_their_place() {
    for dtype in WRITTEN {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = values("normal");
            values[ROW_LEN + 77] = bad;
            let mut out = vec![0; values.len() / dtype.block_size() * dtype.type_size()];
            let e = rows(dtype, &values, ROW_LEN, 30, &mut out).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidFormat);
            let message = e.to_string();
            assert!(message.contains(dtype.name()), "{message}");
            assert!(message.ends_with(&format!("got {bad:e} in row 31 at column 77")), "{message}");
        }
    }
}

#[test]
fn scales_that_leave_f16_are_refused() {
    let limits = [
        (GgmlType::F16, 65_519.0, 65_520.0),
        (GgmlType::BF16, 3.38e38, f32::from_bits(0x7f7f_8000)),
        (GgmlType::Q8_0, 127.0 * 65_504.0, 127.0 * 65_536.0),
        (GgmlType::Q4_0, 8.0 * 65_504.0, 8.0 * 65_536.0),
        (GgmlType::Q4_1, 65_504.0, 1e5),
        (GgmlType::Q5_0, 16.0 * 65_504.0, 16.0 * 65_536.0),
        (GgmlType::Q5_1, 65_504.0, 1e5),
        (GgmlType::Q2K, 2.9e6, 1e8),
        (GgmlType::Q3K, 8e6, 1e8),
        (GgmlType::Q4K, 6e7, 2e8),
        (GgmlType::Q5K, 1e8, 2.6e8),
        (GgmlType::Q6K, 2.6e8, 1e9),
    ];
    for (dtype, fits, too_large) in limits {
        let ramp = |top: f32| -> Vec<f32> { (0..256).map(|i| top * (i as f32 / 255.0)).collect() };
        for (values, top) in [(ramp(fits), fits), (ramp(-fits), -fits)] {
            if top < 0.0 && matches!(dtype, GgmlType::Q4K | GgmlType::Q5K | GgmlType::Q2K) {
                continue; // A minimum has fewer steps than a level.
            }
            let back = read(dtype, &quantized(dtype, &values, 256).unwrap());
            assert!((back[255] / top - 1.0).abs() < 0.3, "{}: {} for {top}", dtype.name(), back[255]);
        }
        let e = quantized(dtype, &ramp(too_large), 256).unwrap_err();
        assert!(e.to_string().contains(" in row 0 at column "), "{e}");
    }
    let huge = [f32::MAX; 4];
    assert_eq!(read(GgmlType::F32, &quantized(GgmlType::F32, &huge, 4).unwrap()), huge);
}

#[test]
fn lengths_that_do_not_fit_are_our_mistake() {
    let kind = |dtype, values: usize, row_len, bytes| {
        rows(dtype, &vec![0.0; values], row_len, 0, &mut vec![0; bytes]).map_err(|e| e.kind())
    };
    let internal = Err(ErrorKind::Internal);
    assert_eq!(kind(GgmlType::Q4K, 512, 256, 2 * 144), Ok(()));
    assert_eq!(kind(GgmlType::Q4K, 512, 128, 2 * 144), internal, "rows of half blocks");
    assert_eq!(kind(GgmlType::Q4K, 512, 1024, 2 * 144), internal, "half a row");
    assert_eq!(kind(GgmlType::Q4K, 512, 256, 2 * 144 + 1), internal, "a byte too many");
    assert_eq!(kind(GgmlType::Q8_0, 33, 33, 34), internal);
    assert_eq!(kind(GgmlType::F16, 3, 3, 6), Ok(()));
    assert_eq!(kind(GgmlType::F32, 0, 0, 0), internal);
    assert_eq!(kind(GgmlType::F32, 0, 7, 0), Ok(()), "no rows at all");
    assert_eq!(kind(GgmlType::Q8K, 256, 256, 292), Err(ErrorKind::Unsupported));
    let read = |dtype, bytes: usize, values: usize| {
        dequantize(dtype, &vec![0; bytes], &mut vec![0.0; values]).map_err(|e| e.kind())
    };
    assert_eq!(read(GgmlType::Q6K, 210, 256), Ok(()));
    assert_eq!(read(GgmlType::Q6K, 209, 256), internal);
    assert_eq!(read(GgmlType::Q6K, 210, 255), internal);
    assert_eq!(read(GgmlType::Q8_1, 36, 32), Err(ErrorKind::Unsupported));
}

#[test]
fn q8_k_reads_as_scale_times_quant() {
    let mut block = vec![0; GgmlType::Q8K.type_size()];
    block[..4].copy_from_slice(&0.5f32.to_le_bytes());
    block[4] = 127;
    block[4 + 255] = -128i8 as u8;
    let back = read(GgmlType::Q8K, &block);
    assert_eq!((back[0], back[1], back[255]), (63.5, 0.0, -64.0));
}

#[test]
fn every_half_and_brain_float_reads_as_itself() {
    for bits in 0..=u16::MAX {
        let expected = f16::from_bits(bits).to_f32();
        let brain = f32::from_bits(u32::from(bits) << 16);
        for (dtype, expected) in [(GgmlType::F16, expected), (GgmlType::BF16, brain)] {
            let got = read(dtype, &bits.to_le_bytes())[0];
            assert!(got == expected || got.is_nan() && expected.is_nan(), "{bits:04x}: {got} != {expected}");
            if got.is_finite() {
                assert_eq!(quantized(dtype, &[got], 1).unwrap(), bits.to_le_bytes());
            }
        }
    }
}

/// Most that a value may move, in parts of the range of its row, and the type.
const ERRORS: [(f32, GgmlType); 10] = [
    (0.5 / 127.0, GgmlType::Q8_0),
    (1.0 / 16.0, GgmlType::Q4_0),
    (0.5 / 15.0, GgmlType::Q4_1),
    (1.0 / 32.0, GgmlType::Q5_0),
    (0.5 / 31.0, GgmlType::Q5_1),
    (0.5, GgmlType::Q2K),
    (0.3, GgmlType::Q3K),
    (0.1, GgmlType::Q4K),
    (0.05, GgmlType::Q5K),
    (0.03, GgmlType::Q6K),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_read_back_is_close(
        values in proptest::collection::vec(-1.0f32..1.0, 512),
        scale in 0i32..12,
    ) {
        let values: Vec<f32> = values.iter().map(|v| v * (scale as f32).exp2()).collect();
        let range = 2.0 * (scale as f32).exp2();
        for (part, dtype) in ERRORS {
            let back = read(dtype, &quantized(dtype, &values, 256).unwrap());
            for (v, b) in values.iter().zip(back) {
                // A part in a thousand is for the rounding of scales to f16.
                prop_assert!((v - b).abs() <= (part + 1e-3) * range, "{}: {v} became {b}", dtype.name());
            }
        }
    }

    #[test]
    fn any_bytes_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 292)) {
        for &dtype in GgmlType::ALL.iter().filter(|t| **t != GgmlType::Q8_1) {
            read(dtype, &bytes[..dtype.type_size()]);
        }
    }

    #[test]
    fn any_floats_give_blocks_or_an_error(bits in proptest::collection::vec(any::<u32>(), 256)) {
        let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        for dtype in WRITTEN {
            let _ = quantized(dtype, &values, 256);
        }
    }
}
