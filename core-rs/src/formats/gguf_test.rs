//! Hostile headers, one case per rule, and files cut or changed at every byte.

use proptest::prelude::*;

use super::super::gguf_testing::GgufWriter;
use super::super::gguf_write::array_head;
use super::*;
use crate::error::ErrorKind;

/// A small honest file with every kind of value and two tensors.
fn small() -> GgufWriter {
    let strings = Array::String(vec!["<s>".into(), String::new(), "▁é".into()]);
    let nested = Array::Array(vec![Array::U8(vec![1]), Array::Array(vec![Array::Bool(vec![true, false])])]);
    GgufWriter::new()
        .key("general.architecture", &Value::String("llama".into()))
        .key("general.alignment", &Value::U32(32))
        .key("u8", &Value::U8(200))
        .key("i16", &Value::I16(-3))
        .key("i64", &Value::I64(-1 << 40))
        .key("f64", &Value::F64(0.5))
        .key("bool", &Value::Bool(true))
        .key("eps", &Value::F32(1e-5))
        .key("tokens", &Value::Array(strings))
        .key("types", &Value::Array(Array::I32(vec![3, 1, -1])))
        .key("nested", &Value::Array(nested))
        .tensor("token_embd.weight", GgmlType::Q8_0, &[3, 32], &[7; 3 * 34])
        .tensor("output_norm.weight", GgmlType::F32, &[5], &[0; 20])
}

fn parse(writer: &GgufWriter) -> Result<Gguf> {
    let bytes = writer.bytes();
    Gguf::parse(&bytes, bytes.len() as u64)
}

#[test]
fn an_honest_file_is_read_back() {
    let gguf = parse(&small()).unwrap();
    assert_eq!(gguf.version, 3);
    assert_eq!(gguf.metadata.len(), 11);
    assert_eq!(gguf.metadata.str("general.architecture"), Ok(Some("llama")));
    assert_eq!(gguf.metadata.str_array("tokens").unwrap().unwrap()[2], "▁é");
    assert_eq!(gguf.metadata.i32_array("types"), Ok(Some(&[3, 1, -1][..])));
    assert_eq!(gguf.metadata.f32("eps"), Ok(Some(1e-5)));
    assert_eq!(gguf.metadata.get("i64"), Some(&Value::I64(-1 << 40)));
    let Some(Value::Array(Array::Array(nested))) = gguf.metadata.get("nested") else { panic!("nested is lost") };
    assert_eq!(nested[1], Array::Array(vec![Array::Bool(vec![true, false])]));
    let tensor = gguf.tensor("token_embd.weight").unwrap();
    assert_eq!((tensor.dtype, tensor.shape.as_slice(), tensor.len), (GgmlType::Q8_0, &[3, 32][..], 102));
    assert_eq!(tensor.offset % 32, 0);
    assert_eq!(small().bytes()[tensor.offset..][..tensor.len], [7; 102]);
    assert_eq!(gguf.tensor("nothing"), None);
}

#[test]
fn a_prefix_that_holds_the_infos_is_enough() {
    let (head, all) = (small().head(), small().bytes());
    assert_eq!(Gguf::parse(&head, all.len() as u64), Gguf::parse(&all, all.len() as u64));
    let e = Gguf::parse(&head[..head.len() - 1], all.len() as u64).unwrap_err();
    assert!(e.to_string().contains("header ends early: wanted 8 bytes"), "{e}");
}

#[test]
fn a_growing_prefix_asks_for_more_until_it_is_enough_or_wrong() {
    let (head, all) = (small().head(), small().bytes());
    let parse = |n: usize| Gguf::parse_prefix(&all[..n], all.len() as u64);
    for n in 0..head.len() {
        assert_eq!(parse(n), Ok(None), "{n} bytes");
    }
    assert_eq!(parse(head.len()), Gguf::parse(&all, all.len() as u64).map(Some));
    let e = Gguf::parse_prefix(b"GGML", all.len() as u64).unwrap_err();
    assert!(e.to_string().starts_with("reading GGUF: expected the file to begin with"), "{e}");
    let short = head.len() - 1;
    let e = Gguf::parse_prefix(&all[..short], short as u64).unwrap_err();
    assert!(e.to_string().contains("file ends early"), "the whole file is there and is not enough: {e}");
}

#[test]
fn version_2_and_a_file_without_tensors_are_read() {
    let mut writer = GgufWriter::new();
    writer.version = 2;
    assert_eq!(parse(&writer).unwrap().version, 2);
}

/// A tensor that lies, on top of the honest file.
fn lie(change: impl Fn(&mut GgufWriter)) -> GgufWriter {
    let mut writer = small();
    change(&mut writer);
    writer
}

/// An array nested `depth` deep.
fn nested(depth: usize) -> Array {
    (1..depth).fold(Array::U8(vec![]), |inner, _| Array::Array(vec![inner]))
}

fn huge_array(type_id: u32) -> Vec<u8> {
    let mut out = Vec::new();
    array_head(&mut out, type_id, MAX_ARRAY_LEN);
    out
}

#[test]
fn hostile_headers_are_refused_with_a_sentence() {
    let invalid = ErrorKind::InvalidFormat;
    let align = |v: Value| GgufWriter::new().key("general.alignment", &v);
    let two_pow_32 = (1u64 << 32).to_le_bytes();
    let cases: Vec<(GgufWriter, ErrorKind, &str)> = vec![
        (lie(|w| w.magic = *b"ggjt"), invalid, r#"begin with "GGUF", got "ggjt""#),
        (lie(|w| w.magic = [0, 255, b'"', 10]), invalid, r#"got "\x00\xff\"\n""#),
        (lie(|w| w.version = 0), ErrorKind::Unsupported, "got version 0"),
        (lie(|w| w.version = 1), ErrorKind::Unsupported, "got version 1"),
        (lie(|w| w.version = 4), ErrorKind::Unsupported, "got version 4"),
        (lie(|w| w.version = 3u32.swap_bytes()), ErrorKind::Unsupported, "got a big-endian one of version 3"),
        (lie(|w| w.n_tensors = Some(u64::MAX)), invalid, "at most 65536 tensors, got 18446744073709551615"),
        (lie(|w| w.n_tensors = Some(MAX_TENSORS)), invalid, "65536 tensors: file ends early: wanted 2097152 bytes"),
        (lie(|w| w.n_tensors = Some(3)), invalid, "tensor info 3 of 3"),
        (lie(|w| w.n_keys = Some(u64::MAX)), invalid, "at most 65536 metadata keys"),
        (lie(|w| w.n_keys = Some(MAX_KEYS)), invalid, "65536 metadata keys: file ends early"),
        (lie(|w| w.n_keys = Some(12)), invalid, "reading GGUF"),
        (
            lie(|w| w.tensors[0].dims = vec![1 << 40, 1 << 40]),
            invalid,
            "fit 64 bits, got [1099511627776, 1099511627776]",
        ),
        (lie(|w| w.tensors[0].dims = vec![1 << 62, 1 << 62, 16, 1]), invalid, "fit 64 bits"),
        (lie(|w| w.tensors[0].dims = vec![1 << 40]), invalid, "file ends early: wanted 1168231104512 bytes"),
        (lie(|w| w.tensors[0].dims = vec![33, 3]), invalid, "fill blocks of 32"),
        (lie(|w| w.tensors[0].dims = vec![0, 3]), invalid, "not zero"),
        (lie(|w| w.tensors[0].dims = vec![32, 0]), invalid, "not zero"),
        (lie(|w| w.tensors[0].dims = vec![]), invalid, "1 to 4 dims, got 0"),
        (lie(|w| w.tensors[0].dims = vec![32; 5]), invalid, "1 to 4 dims, got 5"),
        (lie(|w| w.tensors[0].type_id = 23), ErrorKind::Unsupported, "tensor token_embd.weight: expected one of"),
        (lie(|w| w.tensors[0].type_id = 999), invalid, "got number 999"),
        (lie(|w| w.tensors[1].offset = 1 << 40), invalid, "+ 1099511627776, got a file of"),
        (lie(|w| w.tensors[1].offset = u64::MAX - 31), invalid, "file ends early: wanted 20 bytes"),
        (lie(|w| w.tensors[1].offset = 3), invalid, "multiple of 32, got 3"),
        (lie(|w| w.tensors[1].offset = 64), invalid, "expected tensors apart, got token_embd.weight at bytes"),
        (lie(|w| w.tensors[1].offset = 0), invalid, "expected tensors apart"),
        (lie(|w| w.tensors[1].name = w.tensors[0].name.clone()), invalid, "got token_embd.weight twice"),
        (lie(|w| w.tensors[1].name = "n".repeat(65)), invalid, "tensor name of at most 64 bytes, got 65 bytes"),
        (small().key("bool", &Value::U8(1)), invalid, "expected each key once, got bool twice"),
        (small().key(&"k".repeat(65536), &Value::U8(1)), invalid, "key of at most 65535 bytes, got 65536 bytes"),
        (small().raw_key("s", 8, &two_pow_32), invalid, "metadata s: expected a string of at most"),
        (small().raw_key("s", 8, &1000u64.to_le_bytes()), invalid, "metadata s: file ends early: wanted 1000 bytes"),
        (small().raw_key("s", 8, b"\x02\0\0\0\0\0\0\0\xc3\x28"), invalid, "string in UTF-8"),
        (small().raw_key("b", 7, &[2]), invalid, "metadata b: expected a bool of 0 or 1, got [2]"),
        (small().raw_key("v", 13, &[0]), invalid, "value type from 0 to 12, got 13"),
        (small().raw_key("a", 9, &huge_array(13)), invalid, "value type from 0 to 12, got 13"),
        (small().raw_key("a", 9, &huge_array(8)), invalid, "metadata a: file ends early: wanted 134217728 bytes"),
        (small().raw_key("a", 9, &huge_array(9)), invalid, "metadata a: file ends early: wanted 201326592 bytes"),
        (small().raw_key("a", 9, &huge_array(12)), invalid, "metadata a: file ends early: wanted 134217728 bytes"),
        (
            small().raw_key("a", 9, &[&[0, 0, 0, 0][..], &[255; 8]].concat()),
            invalid,
            "at most 16777216 elements, got 18446744073709551615",
        ),
        (small().key("a", &Value::Array(nested(MAX_ARRAY_DEPTH + 1))), invalid, "nested at most 4 deep"),
        (align(Value::U32(0)), invalid, "from 8 to 1048576, got 0"),
        (align(Value::U32(3)), invalid, "got 3"),
        (align(Value::U32(4)), invalid, "got 4"),
        (align(Value::U32(1 << 30)), invalid, "got 1073741824"),
        (align(Value::U64(1 << 63)), invalid, "got 9223372036854775808"),
        (align(Value::String("32".into())), invalid, "general.alignment to be a non-negative integer, got a string"),
        (align(Value::F32(32.0)), invalid, "got f32"),
        (align(Value::I32(-32)), invalid, "got i32 -32"),
    ];
    for (writer, kind, wanted) in cases {
        let e = parse(&writer).expect_err(wanted);
        assert_eq!(e.kind(), kind, "{e}");
        assert!(
            e.to_string().starts_with("reading GGUF: ") && e.to_string().contains(wanted),
            "{wanted:?} not in: {e}"
        );
    }
}

#[test]
fn the_deepest_allowed_array_is_read() {
    let value = Value::Array(nested(MAX_ARRAY_DEPTH));
    assert_eq!(parse(&small().key("a", &value)).unwrap().metadata.get("a"), Some(&value));
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let bytes = small().bytes();
    for len in 0..bytes.len() {
        let e = Gguf::parse(&bytes[..len], len as u64).expect_err("a cut file must not parse");
        assert!(e.to_string().contains("file ends early: wanted"), "at {len}: {e}");
    }
}

#[test]
fn a_head_longer_than_its_file_is_our_mistake() {
    let e = Gguf::parse(&[0; 8], 4).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Internal);
}

/// What a parsed file promises, whatever its bytes were.
fn assert_promises(gguf: &Gguf, file_len: usize) {
    for t in &gguf.tensors {
        assert!(t.offset.checked_add(t.len).is_some_and(|end| end <= file_len), "{t:?} in {file_len} bytes");
        let values: usize = t.shape.iter().product();
        assert_eq!(t.len, values / t.dtype.block_size() * t.dtype.type_size());
    }
}

proptest! {
    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = small().bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(gguf) = Gguf::parse(&bytes, bytes.len() as u64) {
            assert_promises(&gguf, bytes.len());
        }
    }

    #[test]
    fn noise_after_a_magic_never_panics(noise in prop::collection::vec(any::<u8>(), 0..256)) {
        let bytes = [&b"GGUF\x03\0\0\0"[..], &noise].concat();
        if let Ok(gguf) = Gguf::parse(&bytes, bytes.len() as u64) {
            assert_promises(&gguf, bytes.len());
        }
    }
}
