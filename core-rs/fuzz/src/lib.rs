//! What fuzz targets share: the readers, and what a reader promises whatever its bytes are.
//!
//! The rooms are compiled from their sources, not taken from the crate that has them: candle would take many times as
//! long to compile with a fuzzer's instrumentation, and no reader uses it. A target for another room's reader needs a
//! line here and a file in `fuzz_targets/`; `scripts/fuzz.ts` finds it there.

#![allow(dead_code, reason = "the rooms are used in part")]

#[path = "../../tests/hostile/archive.rs"]
pub mod archive;
/// Of this room and `load`, which both use candle elsewhere, the parts about vocabularies: the files are links.
pub mod checkpoint {
    pub mod vocab;
}
#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../src/formats/mod.rs"]
pub mod formats;
pub mod load {
    pub mod vocab;
}
#[path = "../../tests/hostile/memory.rs"]
mod memory;
#[path = "../../src/tokenizer/mod.rs"]
pub mod tokenizer;

use checkpoint::vocab::{self, VocabFiles};
use error::Result;
use formats::gguf::{self, Gguf, NewTensor};
use formats::stored::{Encoding, Stored};

/// Reads `bytes` within memory in proportion to them.
fn within_memory<T>(bytes: &[u8], read: impl FnOnce(&[u8]) -> Result<T>) -> Option<T> {
    let (result, peak) = memory::peak_of(|| read(bytes));
    memory::assert_in_proportion(peak, bytes.len());
    result.ok()
}

/// Readers of tensors: pieces lie in the file, and the bytes of a tensor can be had, unless they are a text that is not
/// one of bytes.
pub fn check_tensors(bytes: &[u8], read: impl FnOnce(&[u8]) -> Result<Vec<Stored>>) {
    for tensor in within_memory(bytes, read).unwrap_or_default() {
        for piece in &tensor.pieces {
            assert!(piece.file == 0 && piece.range.start <= piece.range.end && piece.range.end <= bytes.len());
        }
        let is_text = tensor.pieces.iter().any(|piece| piece.encoding == Encoding::Latin1);
        match (tensor.dtype(), tensor.bytes(&[bytes])) {
            (Ok(_), Ok(read)) => assert_eq!(Ok(read.len()), tensor.byte_len()),
            (Ok(_), Err(e)) => assert!(is_text, "{tensor:?}: {e}"),
            (Err(_), read) => assert!(read.is_err(), "{tensor:?}"),
        }
    }
}

/// Any reader of small files.
pub fn check_read<T>(bytes: &[u8], read: impl FnOnce(&[u8]) -> Result<T>) {
    drop(within_memory(bytes, read));
}

/// Readers of GGUF: tensors lie in the file, a prefix says the same, and what was read can be written and read again.
pub fn check_gguf(bytes: &[u8]) {
    let Some(gguf) = within_memory(bytes, |bytes| Gguf::parse(bytes, bytes.len() as u64)) else { return };
    for tensor in &gguf.tensors {
        assert!(tensor.offset.checked_add(tensor.len).is_some_and(|end| end <= bytes.len()), "{tensor:?}");
    }
    // As a text, in which a number that is not a number equals itself.
    let pairs = |gguf: &Gguf| format!("{:?}", gguf.metadata);
    let prefix = Gguf::parse_prefix(bytes, bytes.len() as u64).ok().flatten().expect("a prefix of the whole file");
    assert_eq!((&prefix.tensors, pairs(&prefix)), (&gguf.tensors, pairs(&gguf)));
    let info = |t: &gguf::TensorInfo| NewTensor { name: t.name.clone(), dtype: t.dtype, shape: t.shape.clone() };
    let tensors: Vec<_> = gguf.tensors.iter().map(info).collect();
    let header = gguf::write_header(&gguf.metadata, &tensors).expect("what was read can be written");
    let again = Gguf::parse(&header.bytes, header.file_len as u64).expect("what was written can be read");
    assert_eq!((again.tensors.iter().map(info).collect(), pairs(&again)), (tensors, pairs(&gguf)));
    drop(gguf::join_splits(vec![gguf]));
}

/// Texts that any vocabulary must survive: scripts, spaces, controls, what looks like a special token, a long word.
const TEXTS: &[&str] = &[
    "Hello  world\r\n\t 1234567 don't",
    "\u{1F1E8}\u{1F1ED} \u{4F60}\u{597D} \u{928}\u{92E}\u{938}\u{94D}\u{924}\u{947} e\u{301} \u{FB01} \u{2581}\u{2581} \0\u{7F}\u{200D}\u{FEFF}\u{FFFD}",
    "<s></s><unk><|im_start|><0x41>[INST]",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "",
];

/// Readers of vocabularies: what is read encodes any text, to ids that it can decode.
pub fn check_vocabulary(files: &VocabFiles) {
    let Ok(vocabulary) = vocab::read(files) else { return };
    let tokenizer = vocabulary.tokenizer;
    for parts in [TEXTS, &TEXTS[..1], &TEXTS[1..2]] {
        let Ok(ids) = tokenizer.encode(parts) else { continue };
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.len()));
        tokenizer.decode(&ids).expect("our own ids can be decoded");
    }
}
