#![no_main]

use llamero_fuzz::formats::torch;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| llamero_fuzz::check_tensors(bytes, |bytes| torch::parse(bytes, 0)));
