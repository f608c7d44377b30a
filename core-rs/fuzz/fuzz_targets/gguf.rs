#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| llamero_fuzz::check_gguf(bytes));
