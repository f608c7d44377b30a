#![no_main]

use llamero_fuzz::formats::shard_index;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| llamero_fuzz::check_read(bytes, shard_index::parse));
