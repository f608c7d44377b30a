//! GGUF headers whose counts and lengths are larger than their file. Every other lie is a test beside the reader.

use llamero::error::ErrorKind::{self, InvalidFormat};
use llamero::formats::gguf::Gguf;

use crate::assert_refused;

#[track_caller]
fn refused(bytes: &[u8], kind: ErrorKind, wanted: &str) {
    assert_refused(|bytes| Gguf::parse(bytes, bytes.len() as u64), bytes, kind, wanted);
}

fn header(n_tensors: u64, n_keys: u64) -> Vec<u8> {
    [&b"GGUF\x03\0\0\0"[..], &n_tensors.to_le_bytes(), &n_keys.to_le_bytes()].concat()
}

/// A header with one key, an array of `len` elements of this type.
fn array(type_id: u32, len: u64) -> Vec<u8> {
    let key = [&1u64.to_le_bytes()[..], b"k", &9u32.to_le_bytes()].concat();
    [&header(0, 1)[..], &key, &type_id.to_le_bytes(), &len.to_le_bytes()].concat()
}

#[test]
fn counts_and_lengths_beyond_the_file_take_no_memory() {
    refused(&header(u64::MAX, 0), InvalidFormat, "expected at most 65536 tensors");
    refused(&header(1 << 16, 0), InvalidFormat, "65536 tensors: file ends early");
    refused(&header(0, 1 << 16), InvalidFormat, "65536 metadata keys: file ends early");
    for type_id in 0..=12 {
        refused(&array(type_id, 1 << 24), InvalidFormat, "metadata k: file ends early");
        refused(&array(type_id, u64::MAX), InvalidFormat, "at most 16777216 elements, got 18446744073709551615");
    }
    let text = [&array(8, 1)[..], &(16u64 << 20).to_le_bytes()].concat();
    refused(&text, InvalidFormat, "file ends early: wanted 16777216 bytes");
}

/// The densest arrays there are: what a byte becomes in memory has a bound.
#[test]
fn arrays_of_nothing_stay_small() {
    let n = 1 << 16;
    let texts = [&array(8, n)[..], &vec![0; 8 * n as usize], b"x"].concat();
    refused(&[&texts[..8], &[1, 0, 0, 0, 0, 0, 0, 0], &texts[16..]].concat(), InvalidFormat, "tensor info 1 of 1");
    let arrays = [&array(9, n)[..], &vec![0; 12 * n as usize]].concat();
    let with_tensor = [&arrays[..8], &[1, 0, 0, 0, 0, 0, 0, 0], &arrays[16..]].concat();
    refused(&with_tensor, InvalidFormat, "file ends early");
    let deep = (0..1000).fold(array(9, 1), |p, _| [&p[..], &9u32.to_le_bytes(), &1u64.to_le_bytes()].concat());
    refused(&deep, InvalidFormat, "nested at most 4 deep");
}
