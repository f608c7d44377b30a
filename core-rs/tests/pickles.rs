//! Pickles written by numpy, PyTorch and Paddle themselves, against what those wrote into them.
//!
//! `tests/fixtures/pickles` has the files and, in JSON, their tensors: element type as numpy writes it, shape, and
//! values row by row in hexadecimal. `scripts/make_pickles.py` made both.

use std::collections::BTreeMap;
use std::path::PathBuf;

use llamero::error::{ErrorKind, Result};
use llamero::formats::stored::Stored;
use llamero::formats::{pdparams, torch};
use serde::Deserialize;

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    hex: String,
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pickles").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Tensors by file and name.
fn contents(name: &str) -> BTreeMap<String, BTreeMap<String, Tensor>> {
    serde_json::from_slice(&bytes(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn parse(name: &str) -> (Vec<u8>, Result<Vec<Stored>>) {
    let bytes = bytes(name);
    let parse = if name.ends_with(".bin") { torch::parse } else { pdparams::parse };
    let tensors = parse(&bytes, 0);
    (bytes, tensors)
}

/// The values row by row, in hexadecimal.
fn hex(tensor: &Stored, file: &[u8]) -> String {
    let bytes = tensor.bytes(&[file]).unwrap();
    let size = tensor.dtype().unwrap().type_size();
    let values: Vec<&[u8]> = bytes.chunks(size).collect();
    let rows = tensor.shape.first().copied().unwrap_or(1);
    let columns = values.len() / rows.max(1);
    let at = |i: usize| if tensor.column_major { i % columns * rows + i / columns } else { i };
    (0..values.len()).flat_map(|i| values[at(i)]).map(|byte| format!("{byte:02x}")).collect()
}

/// Checks one file. Tensors in `unread` must be there, and refuse to be read.
fn check(file: &str, expected: &BTreeMap<String, Tensor>, unread: &[&str]) {
    let (bytes, tensors) = parse(file);
    let tensors = tensors.unwrap_or_else(|e| panic!("{file}: {e}"));
    let names = |of: &mut dyn Iterator<Item = &String>| of.cloned().collect::<Vec<_>>();
    assert_eq!(names(&mut tensors.iter().map(|t| &t.name)), names(&mut expected.keys()), "{file}");
    for tensor in &tensors {
        let wanted = &expected[&tensor.name];
        assert_eq!(tensor.shape, wanted.shape, "{file} {}", tensor.name);
        let dtype = match wanted.dtype.as_str() {
            _ if unread.contains(&tensor.name.as_str()) => None,
            "<f2" => Some("f16"),
            "<f4" => Some("f32"),
            "<u2" => Some("bf16"),
            _ => None,
        };
        assert_eq!(tensor.dtype().ok().map(|dtype| dtype.name()), dtype, "{file} {}", tensor.name);
        match dtype {
            Some(_) => assert_eq!(hex(tensor, &bytes), wanted.hex, "{file} {}", tensor.name),
            None => assert_eq!(tensor.bytes(&[&bytes]).unwrap_err().kind(), ErrorKind::Unsupported),
        }
    }
}

/// Both generations of numpy, protocols 2 to 5, with values beside the arrays that are none.
#[test]
fn arrays_of_numpy() {
    let expected = contents("numpy.json").remove("numpy*-p*.pkl").unwrap();
    for (numpy, protocol) in (1..=2).flat_map(|numpy| (2..=5).map(move |protocol| (numpy, protocol))) {
        let unread = ["column major, three axes", "big-endian f16", "big-endian f32"];
        check(&format!("numpy{numpy}-p{protocol}.pkl"), &expected, &unread);
    }
}

#[test]
fn states_tensors_and_slices_of_paddle() {
    let files = contents("paddle.json");
    assert!(!files.is_empty());
    for (file, expected) in files {
        check(&file, &expected, &[]);
    }
}

#[test]
fn storages_parameters_and_views_of_torch() {
    let mut files = contents("torch.json");
    files.retain(|file, _| !["nested.bin", "legacy.bin"].contains(&file.as_str()));
    assert!(!files.is_empty());
    for (file, expected) in files {
        check(&file, &expected, &["columns", "every second", "repeated"]);
    }
}

#[test]
fn files_that_are_not_read_say_why() {
    let cases = [
        ("numpy1-p0.pkl", ErrorKind::Unsupported, "expected a pickle of protocol 2 to 5, got bytes 0x28 0x64"),
        ("numpy2-p1.pkl", ErrorKind::Unsupported, "expected a pickle of protocol 2 to 5, got bytes 0x7d 0x71"),
        ("dense.pdparams", ErrorKind::Unsupported, "expected only functions that rebuild arrays, got builtins.eval"),
        ("legacy.bin", ErrorKind::Unsupported, "got a file of PyTorch before 1.6: save it again with torch.save"),
        ("nested.bin", ErrorKind::InvalidFormat, "expected a dictionary of tensors, got one without any"),
    ];
    for (file, kind, wanted) in cases {
        let e = parse(file).1.expect_err(file);
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains(wanted), "{wanted:?} not in: {e}");
    }
    let float8 = parse("float8.bin").1.unwrap();
    assert!(float8[0].bytes(&[]).unwrap_err().to_string().ends_with("got f8_e4m3fn"));
}

/// Every prefix of every file is refused, and no byte changed in any of them leads to a panic or outside the file.
#[test]
fn damaged_files_are_refused_or_stay_within_themselves() {
    let folder = fixture("").read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: Vec<_> = folder.filter(|name| !name.ends_with(".json") && !name.ends_with(".md")).collect();
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let (mut bytes, whole) = parse(&file);
        let parse = if file.ends_with(".bin") { torch::parse } else { pdparams::parse };
        for len in 0..bytes.len() {
            assert!(parse(&bytes[..len], 0).is_err(), "{file} cut to {len} bytes");
        }
        if whole.is_err() {
            continue;
        }
        for at in 0..bytes.len() {
            for change in [0x01, 0x80, 0xFF] {
                bytes[at] ^= change;
                for tensor in parse(&bytes, 0).unwrap_or_default() {
                    assert!(tensor.pieces.iter().all(|piece| piece.range.end <= bytes.len()), "{file} {at} {change}");
                    // Texts of bytes are checked when they are read.
                    let _checked = tensor.bytes(&[&bytes]);
                }
                bytes[at] ^= change;
            }
        }
    }
}
