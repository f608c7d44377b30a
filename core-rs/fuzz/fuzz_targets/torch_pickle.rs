//! The pickle of a checkpoint whose archive is right: changing bytes at random mostly breaks the archive.

#![no_main]

use llamero_fuzz::archive::{Entry, archive};
use llamero_fuzz::formats::torch;

libfuzzer_sys::fuzz_target!(|pickle: &[u8]| {
    let storage = |key: &str, len: usize| Entry::new(&format!("m/data/{key}"), &vec![7; len]);
    let files = [Entry::new("m/data.pkl", pickle), storage("0", 24), storage("1", 8), storage("2", 48)];
    llamero_fuzz::check_tensors(&archive(&files), |bytes| torch::parse(bytes, 0));
});
