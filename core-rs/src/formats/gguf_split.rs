//! A GGUF model in several files, as llama.cpp's `gguf-split` writes them: `NAME-00001-of-00003.gguf`, …
//!
//! The first file has all metadata; each has `split.no` (from 0), `split.count` and `split.tensors.count` (of all files
//! together), and its own tensors. Absent: opening files, and their names.

use std::collections::HashSet;

use super::gguf::{Gguf, TensorInfo};
use super::metadata::Metadata;
use crate::error::{Error, Result};

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";
/// In front of every sentence of this module.
const CONTEXT: &str = "reading split GGUF";

/// A model whose tensors lie in one or more files.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// The key-value pairs, without those about splitting.
    pub metadata: Metadata,
    /// The tensors, each with the number of its file.
    pub tensors: Vec<(usize, TensorInfo)>,
}

/// One model from the headers of its files, in their order.
///
/// # Errors
/// `invalid_format` when a file is missing, of another place or another model, or a tensor is in two of them.
pub fn join_splits(parts: Vec<Gguf>) -> Result<Joined> {
    join(parts).map_err(|e| e.context(CONTEXT))
}

fn join(mut parts: Vec<Gguf>) -> Result<Joined> {
    let n_tensors: usize = parts.iter().map(|part| part.tensors.len()).sum();
    if parts.len() != 1 || parts[0].metadata.get(COUNT).is_some() {
        for (number, part) in parts.iter().enumerate() {
            let wanted = [(NUMBER, number), (COUNT, parts.len()), (TENSORS, n_tensors)];
            check(&part.metadata, &wanted)
                .map_err(|e| e.context(format_args!("file {} of {}", number + 1, parts.len())))?;
        }
    }
    let Some(first) = parts.first_mut() else { return Err(Error::invalid_format("expected a file, got none")) };
    let metadata = std::mem::take(&mut first.metadata).without(&[NUMBER, COUNT, TENSORS]);
    let tensors: Vec<_> = parts
        .into_iter()
        .enumerate()
        .flat_map(|(file, part)| part.tensors.into_iter().map(move |t| (file, t)))
        .collect();
    let mut names = HashSet::with_capacity(tensors.len());
    match tensors.iter().find(|(_, tensor)| !names.insert(tensor.name.as_str())) {
        Some((_, twice)) => Err(Error::invalid_format(format!("expected each tensor once, got {} twice", twice.name))),
        None => Ok(Joined { metadata, tensors }),
    }
}

fn check(metadata: &Metadata, wanted: &[(&str, usize)]) -> Result<()> {
    for &(key, wanted) in wanted {
        let got = metadata.u64(key)?.ok_or_else(|| Metadata::missing(key))?;
        if got != wanted as u64 {
            return Err(Error::invalid_format(format!("expected {key} to be {wanted}, got {got}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::ggml_type::GgmlType;
    use super::super::gguf_testing::GgufWriter;
    use super::super::metadata::Value;
    use super::*;

    /// A file of a model split in two; the second has no other metadata, as llama.cpp writes it.
    fn part(number: u16, count: u16, n_tensors: i32, tensors: &[&str]) -> Gguf {
        let mut writer = GgufWriter::new()
            .key(NUMBER, &Value::U16(number))
            .key(COUNT, &Value::U16(count))
            .key(TENSORS, &Value::I32(n_tensors));
        if number == 0 {
            writer = writer.key("general.architecture", &Value::String("llama".into()));
        }
        for name in tensors {
            writer = writer.tensor(name, GgmlType::F32, &[1], &[0; 4]);
        }
        parse(&writer)
    }

    fn parse(writer: &GgufWriter) -> Gguf {
        let bytes = writer.bytes();
        Gguf::parse(&bytes, bytes.len() as u64).unwrap()
    }

    #[test]
    fn parts_become_one_model() {
        let parts = vec![part(0, 3, 3, &["a", "b"]), part(1, 3, 3, &[]), part(2, 3, 3, &["c"])];
        let joined = join_splits(parts).unwrap();
        let places: Vec<_> = joined.tensors.iter().map(|(file, t)| (*file, t.name.as_str())).collect();
        assert_eq!(places, [(0, "a"), (0, "b"), (2, "c")]);
        let keys: Vec<_> = joined.metadata.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["general.architecture"]);
    }

    /// Written by the `gguf` package for Python:
    ///
    ///     w = gguf.GGUFWriter("m.gguf", "llama", split_max_tensors=2)
    ///     w.add_context_length(8)
    ///     for i in range(5): w.add_tensor(f"t{i}", np.full((2, 3), i, np.float32))
    ///     w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file()
    #[test]
    fn files_of_another_writer_are_joined() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/gguf-split");
        let file = |i: usize| std::fs::read(folder.join(format!("m-{i:05}-of-00003.gguf"))).unwrap();
        let files: Vec<_> = (1..=3).map(file).collect();
        let parts: Vec<_> = files.iter().map(|bytes| Gguf::parse(bytes, bytes.len() as u64).unwrap()).collect();
        let joined = join_splits(parts).unwrap();
        assert_eq!(joined.metadata.u32("llama.context_length"), Ok(Some(8)));
        let values =
            joined.tensors.iter().map(|(file, t)| (t.name.as_str(), files[*file][t.offset..][..t.len].to_vec()));
        let wanted = (0..5u8).map(|i| (format!("t{i}"), f32::from(i).to_le_bytes().repeat(6)));
        assert!(values.eq(wanted.collect::<Vec<_>>().iter().map(|(name, bytes)| (name.as_str(), bytes.clone()))));
    }

    #[test]
    fn a_whole_file_is_a_model_of_one_part() {
        let whole = parse(&GgufWriter::new().tensor("a", GgmlType::F32, &[1], &[0; 4]));
        assert_eq!(join_splits(vec![whole]).unwrap().tensors.len(), 1);
        let unsplit = part(0, 1, 1, &["a"]);
        assert!(join_splits(vec![unsplit]).is_ok());
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let plain = || parse(&GgufWriter::new());
        let cases = [
            (vec![], "expected a file, got none"),
            (vec![part(0, 2, 2, &["a"])], "file 1 of 1: expected split.count to be 1, got 2"),
            (vec![part(1, 2, 1, &["a"])], "file 1 of 1: expected split.no to be 0, got 1"),
            (vec![part(1, 2, 2, &["a"]), part(0, 2, 2, &["b"])], "file 1 of 2: expected split.no to be 0, got 1"),
            (vec![part(0, 2, 2, &["a"]), part(1, 3, 2, &["b"])], "file 2 of 2: expected split.count to be 2, got 3"),
            (vec![part(0, 2, 3, &["a"]), part(1, 2, 3, &["b"])], "expected split.tensors.count to be 2, got 3"),
            (vec![part(0, 2, -1, &["a"]), part(1, 2, 2, &["b"])], "non-negative integer, got i32 -1"),
            (vec![part(0, 2, 1, &["a"]), plain()], "file 2 of 2: reading metadata: expected a value for split.no"),
            (vec![part(0, 2, 2, &["a"]), part(1, 2, 2, &["a"])], "expected each tensor once, got a twice"),
        ];
        for (parts, wanted) in cases {
            let e = join_splits(parts).expect_err(wanted).to_string();
            assert!(e.starts_with("reading split GGUF: ") && e.contains(wanted), "{wanted:?} not in: {e}");
        }
        let endless = parse(&GgufWriter::new().key(COUNT, &Value::U64(u64::MAX)));
        for parts in [vec![part(1, 2, 0, &[])], vec![endless]] {
            assert!(join_splits(parts).is_err());
        }
    }
}
