#![no_main]

use llamero_fuzz::checkpoint::vocab::VocabFiles;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    llamero_fuzz::check_vocabulary(&VocabFiles { tokenizer_json: Some(bytes), ..VocabFiles::default() });
});
