#![no_main]

use llamero_fuzz::formats::pdparams;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| llamero_fuzz::check_tensors(bytes, |bytes| pdparams::parse(bytes, 0)));
