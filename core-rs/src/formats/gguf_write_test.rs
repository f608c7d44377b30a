//! What is written is read back, and what would not be read is not written.

use proptest::prelude::*;

use super::super::gguf::Gguf;
use super::*;

fn tensor(name: &str, dtype: GgmlType, shape: &[usize]) -> NewTensor {
    NewTensor { name: name.into(), dtype, shape: shape.into() }
}

fn metadata(pairs: impl IntoIterator<Item = (String, Value)>) -> Metadata {
    let mut metadata = Metadata::new();
    pairs.into_iter().for_each(|(key, value)| metadata.insert(key, value).unwrap());
    metadata
}

fn one(key: &str, value: Value) -> Metadata {
    metadata([(key.to_owned(), value)])
}

/// Writes, reads, and compares all that was given.
fn check(metadata: &Metadata, tensors: &[NewTensor]) -> Header {
    let header = write_header(metadata, tensors).unwrap();
    let gguf = Gguf::parse(&header.bytes, header.file_len as u64).unwrap();
    assert_eq!((gguf.version, &gguf.metadata), (3, metadata));
    let read: Vec<_> = gguf.tensors.iter().map(|t| (tensor(&t.name, t.dtype, &t.shape), t.offset)).collect();
    let written: Vec<_> = tensors.iter().cloned().zip(header.offsets.iter().copied()).collect();
    assert_eq!(read, written);
    header
}

#[test]
fn tensors_are_aligned_and_padded() {
    let tensors = [
        tensor("a", GgmlType::F32, &[1]),
        tensor("b", GgmlType::Q4_0, &[3, 64]),
        tensor("c", GgmlType::F16, &[2, 3, 4, 5]),
    ];
    for (alignment, steps) in [(32, [0, 32, 160, 416]), (64, [0, 64, 192, 448]), (8, [0, 8, 120, 360])] {
        let header = check(&one("general.alignment", Value::U32(alignment)), &tensors);
        let start = header.bytes.len();
        assert_eq!(start % alignment as usize, 0);
        assert_eq!([&header.offsets[..], &[header.file_len]].concat(), steps.map(|step| start + step));
    }
    let empty = check(&Metadata::new(), &[]);
    assert_eq!((empty.bytes.len(), empty.file_len), (32, 32));
}

#[test]
fn what_the_reader_would_refuse_is_not_written() {
    let nested = (0..MAX_ARRAY_DEPTH).fold(Array::U8(vec![]), |inner, _| Array::Array(vec![inner]));
    let long = || "x".repeat(MAX_STRING_LEN + 1);
    let none = Metadata::new;
    let cases = [
        (none(), tensor(&"n".repeat(65), GgmlType::F32, &[1]), "at most 64 bytes of a tensor name, got 65"),
        (none(), tensor("w", GgmlType::F32, &[]), "expected 1 to 4 dims, got 0"),
        (none(), tensor("w", GgmlType::F32, &[1; 5]), "expected 1 to 4 dims, got 5"),
        (none(), tensor("w", GgmlType::F32, &[2, 0]), "not zero, fill blocks of 1 and fit 64 bits, got [0, 2] of f32"),
        (none(), tensor("w", GgmlType::Q4_0, &[2, 33]), "fill blocks of 32 and fit 64 bits, got [33, 2] of q4_0"),
        (none(), tensor("w", GgmlType::F32, &[1 << 40, 1 << 40]), "fit 64 bits"),
        (none(), tensor("w", GgmlType::F16, &[usize::MAX / 2]), "whose bytes can be counted"),
        (one("general.alignment", Value::U32(24)), tensor("w", GgmlType::F32, &[1]), "power of two"),
        (one(&"k".repeat(65536), Value::U8(1)), tensor("w", GgmlType::F32, &[1]), "at most 65535 bytes of a key"),
        (one("s", Value::String(long())), tensor("w", GgmlType::F32, &[1]), "at most 16777216 bytes of a string"),
        (one("s", Value::Array(Array::String(vec![long()]))), tensor("w", GgmlType::F32, &[1]), "bytes of a string"),
        (one("s", Value::Array(nested)), tensor("w", GgmlType::F32, &[1]), "at most 4 levels of arrays, got 5"),
        (
            one("s", Value::Array(Array::Bool(vec![true; MAX_ARRAY_LEN + 1]))),
            tensor("w", GgmlType::F32, &[1]),
            "at most 16777216 elements of an array, got 16777217",
        ),
    ];
    for (metadata, tensor, wanted) in cases {
        let e = write_header(&metadata, &[tensor]).expect_err(wanted).to_string();
        assert!(e.starts_with("writing GGUF: ") && e.contains(wanted), "{wanted:?} not in: {e}");
    }
    let twice = [tensor("w", GgmlType::F32, &[1]), tensor("w", GgmlType::F32, &[1])];
    let e = write_header(&none(), &twice).unwrap_err().to_string();
    assert_eq!(e, "writing GGUF: expected each tensor once, got w twice");
}

fn any_array() -> impl Strategy<Value = Array> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4).prop_map(Array::U8),
        prop::collection::vec(any::<i8>(), 0..4).prop_map(Array::I8),
        prop::collection::vec(any::<u16>(), 0..4).prop_map(Array::U16),
        prop::collection::vec(any::<i16>(), 0..4).prop_map(Array::I16),
        prop::collection::vec(any::<u32>(), 0..4).prop_map(Array::U32),
        prop::collection::vec(any::<i32>(), 0..4).prop_map(Array::I32),
        prop::collection::vec(any::<u64>(), 0..4).prop_map(Array::U64),
        prop::collection::vec(any::<i64>(), 0..4).prop_map(Array::I64),
        prop::collection::vec(-1e9f32..1e9, 0..4).prop_map(Array::F32),
        prop::collection::vec(-1e9f64..1e9, 0..4).prop_map(Array::F64),
        prop::collection::vec(any::<bool>(), 0..4).prop_map(Array::Bool),
        prop::collection::vec(".{0,5}", 0..4).prop_map(Array::String),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Array::Array))
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e9f32..1e9).prop_map(Value::F32),
        (-1e9f64..1e9).prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        ".{0,9}".prop_map(Value::String),
        any_array().prop_map(Value::Array),
    ]
}

proptest! {
    #[test]
    fn any_header_is_read_back(
        pairs in prop::collection::btree_map("[a-z.]{1,12}", any_value(), 0..8),
        shapes in prop::collection::vec(
            (prop::sample::select(GgmlType::ALL), prop::collection::vec(1usize..5, 1..5)),
            0..6,
        ),
    ) {
        let tensors: Vec<_> = shapes.into_iter().enumerate().map(|(i, (dtype, mut shape))| {
            if let Some(row) = shape.last_mut() {
                *row *= dtype.block_size();
            }
            tensor(&format!("blk.{i}.weight"), dtype, &shape)
        }).collect();
        check(&metadata(pairs), &tensors);
    }
}
