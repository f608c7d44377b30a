#![no_main]

use llamero_fuzz::formats::safetensors;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    llamero_fuzz::check_tensors(bytes, |bytes| safetensors::parse(bytes, 0).map(|file| file.tensors));
});
