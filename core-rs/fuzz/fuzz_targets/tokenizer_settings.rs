//! The JSON files beside a vocabulary, each with the same bytes.

#![no_main]

use llamero_fuzz::checkpoint::vocab::VocabFiles;

const MODEL: &[u8] = include_bytes!("../../../tests/fixtures/tokenizers/sp-bpe.model");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let bytes = Some(bytes);
    llamero_fuzz::check_vocabulary(&VocabFiles {
        sentencepiece: Some(MODEL),
        tokenizer_config: bytes,
        special_tokens_map: bytes,
        added_tokens: bytes,
        generation_config: bytes,
        config: bytes,
        chat_template: bytes,
        ..VocabFiles::default()
    });
});
