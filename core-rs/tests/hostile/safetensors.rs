//! safetensors headers: lengths, places, sizes and keys that lie.

use llamero::error::ErrorKind::{self, InvalidFormat, Unsupported};
use llamero::formats::safetensors;

use crate::{assert_every_cut_refused, assert_refused};

/// A file with this header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[track_caller]
fn refused(bytes: &[u8], kind: ErrorKind, wanted: &str) {
    assert_refused(|bytes| safetensors::parse(bytes, 0), bytes, kind, wanted);
}

const TWO: &str = r#"{"__metadata__":{"format":"pt"},
    "b":{"dtype":"BF16","shape":[2,1],"data_offsets":[4,8]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
    "none":{"dtype":"F16","shape":[0,5],"data_offsets":[4,4]},
    "i":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}}  "#;

#[test]
fn an_honest_file_is_read() {
    let data: Vec<u8> = (1..=16).collect();
    let bytes = file(TWO, &data);
    let parsed = safetensors::parse(&bytes, 7).unwrap();
    assert_eq!(parsed.metadata.into_iter().collect::<Vec<_>>(), [("format".to_owned(), "pt".to_owned())]);
    let names: Vec<_> = parsed.tensors.iter().map(|t| (t.name.as_str(), t.element.name())).collect();
    assert_eq!(names, [("a", "f32"), ("none", "f16"), ("b", "bf16"), ("i", "i64")]);
    let files = [&[][..], &[], &[], &[], &[], &[], &[], &bytes];
    assert_eq!(parsed.tensors[0].bytes(&files).unwrap(), &data[..4]);
    assert_eq!(parsed.tensors[1].bytes(&files).unwrap(), &data[..0]);
    assert_eq!(parsed.tensors[2].bytes(&files).unwrap(), &data[4..8]);
    assert_eq!(parsed.tensors[3].bytes(&files).unwrap_err().kind(), Unsupported);
    assert_every_cut_refused(|bytes| safetensors::parse(bytes, 0), &bytes);
    assert!(safetensors::parse(&file("{}", b""), 0).unwrap().tensors.is_empty());
}

#[test]
fn header_lengths_that_lie_are_refused() {
    for (len, wanted) in [
        (u64::MAX, "at most 100000000 bytes, got 18446744073709551615"),
        (1 << 63, "at most 100000000 bytes, got 9223372036854775808"),
        (100_000_001, "at most 100000000 bytes, got 100000001"),
        (100_000_000, "file ends early: wanted 100000000 bytes at byte 8, got 2"),
        (3, "wanted 3 bytes at byte 8, got 2"),
        (1, "EOF while parsing"),
        (0, "expected a header that begins with {"),
    ] {
        refused(&[&u64::to_le_bytes(len)[..], b"{}"].concat(), InvalidFormat, wanted);
    }
    refused(&file("{}{}", b""), InvalidFormat, "trailing characters");
    refused(&file(" {}", b""), InvalidFormat, "begins with {");
    refused(&file("[]", b""), InvalidFormat, "begins with {");
    refused(&file(&"[".repeat(1 << 20), b""), InvalidFormat, "begins with {");
    let deep = format!(r#"{{"a":{}"#, "[".repeat(1 << 20));
    refused(&file(&deep, b""), InvalidFormat, "header: ");
}

#[test]
fn tensors_that_lie_are_refused() {
    let one = |dtype: &str, shape: &str, offsets: &str| {
        file(&format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#), &[0; 4])
    };
    let cases = [
        (one("F16", "[2]", "[0,5]"), "expected bytes within 4, got 0 to 5"),
        (one("F16", "[2]", "[4,0]"), "expected bytes within 4, got 4 to 0"),
        (one("F16", "[2]", "[18446744073709551612,18446744073709551615]"), "expected bytes within 4"),
        (one("F16", "[2]", "[0,18446744073709551616]"), "header: "),
        (one("F16", "[2]", "[-4,0]"), "header: "),
        (one("F16", "[2]", "[0]"), "header: "),
        (one("F16", "[2]", "[0,4,4]"), "header: "),
        (one("F16", "[3]", "[0,4]"), "expected the bytes of [3] values of F16, got 4"),
        (one("F32", "[2]", "[0,4]"), "expected the bytes of [2] values of F32, got 4"),
        (one("F16", "[4294967296,4294967296]", "[0,4]"), "values of F16, got 4"),
        (one("F16", "[1152921504606846976,16]", "[0,4]"), "values of F16, got 4"),
        (one("F64", "[2305843009213693952]", "[0,0]"), "values of F64, got 0"),
        (one("F4", "[9]", "[0,4]"), "values of F4, got 4"),
        (one("F6_E2M3", "[6]", "[0,4]"), "values of F6_E2M3, got 4"),
        (one("F16", "[0,9]", "[0,4]"), "values of F16, got 4"),
        (one("F16", "[1,1,1,1,1,1,1,1,2]", "[0,4]"), "expected a list of at most 8 sizes"),
        (one("F16", &format!("[{}1]", "1,".repeat(1 << 20)), "[0,4]"), "expected a list of at most 8 sizes"),
        (one("F16", "[1.5]", "[0,4]"), "header: "),
        (one("F16", "[-2]", "[0,4]"), "header: "),
        (one("F16", "2", "[0,4]"), "header: "),
        (one("F16", "[1]", "[0,2]"), "expected tensors to the end at byte"),
        (one("F16", "[1]", "[2,4]"), r#"expected tensor "w" at byte"#),
    ];
    for (bytes, wanted) in cases {
        refused(&bytes, InvalidFormat, wanted);
    }
    refused(&one("F128", "[2]", "[0,4]"), Unsupported, r#"tensor "w": expected a known type, got "F128""#);
    refused(&one(r"F\u0000", "[2]", "[0,4]"), Unsupported, r#"got "F\0""#);
    for (dtype, shape, name) in [("F8_E4M3", "[4]", "f8_e4m3"), ("F4", "[8]", "f4"), ("BOOL", "[4]", "bool")] {
        let bytes = one(dtype, shape, "[0,4]");
        let e = safetensors::parse(&bytes, 0).unwrap().tensors[0].bytes(&[&bytes]).unwrap_err();
        assert_eq!(e.to_string(), format!("tensor w: expected values of f32, f16 or bf16, got {name}"));
    }
}

/// Bytes that are in two tensors or in none, and keys that come twice.
#[test]
fn headers_that_two_readers_could_read_differently_are_refused() {
    let a = r#""a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}"#;
    let tensor = |offsets: &str| format!(r#""b":{{"dtype":"U8","shape":[2],"data_offsets":{offsets}}}"#);
    let two = |second: &str, len: usize| file(&format!("{{{a},{second}}}"), &vec![0; len]);
    let cases = [
        (two(&tensor("[1,3]"), 3), r#"expected tensor "b" at byte"#),
        (two(&tensor("[0,2]"), 2), r#"expected tensor "b" at byte"#),
        (two(&tensor("[3,5]"), 5), r#"expected tensor "b" at byte"#),
        (two(&tensor("[2,4]"), 5), "expected tensors to the end at byte"),
        (two(a, 2), r#"expected each key once, got "a" twice"#),
        (two(r#""b":{"dtype":"U8","shape":[2],"data_offsets":[2,4],"code":"x"}"#, 4), "unknown field `code`"),
        (two(r#""b":{"dtype":"U8","dtype":"I8","shape":[2],"data_offsets":[2,4]}"#, 4), "duplicate field `dtype`"),
        (two(r#""b":{"dtype":"U8","data_offsets":[2,4]}"#, 4), "missing field `shape`"),
        (two(r#""b":[]"#, 2), "header: "),
        (two(r#""__metadata__":{"x":1}"#, 2), "expected a string"),
        (two(r#""__metadata__":{"x":"1","x":"2"}"#, 2), r#"expected each key once, got "x" twice"#),
        (two(r#""__metadata__":{},"__metadata__":{}"#, 2), "duplicate field `__metadata__`"),
    ];
    for (bytes, wanted) in cases {
        refused(&bytes, InvalidFormat, wanted);
    }
    let many: Vec<_> =
        (0..70_000).map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    refused(&file(&format!("{{{}}}", many.join(",")), b""), InvalidFormat, "expected at most 65536 keys");
}
