//! The index of a checkpoint in several files (`*.index.json`): which tensor is in which file.
//!
//! An object with `weight_map`, tensor name → file name, and `metadata`, which says nothing that is needed. File names
//! are plain: whoever opens one beside the index stays in that folder. Absent: opening files.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use super::json::Object;
use crate::error::{Error, Result};

/// Longest index in bytes; a 70B model takes about 70 kB.
pub const MAX_LEN: usize = 16 << 20;

#[derive(serde::Deserialize)]
struct Index {
    weight_map: Object<String>,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
}

/// File names by tensor names.
///
/// # Errors
/// `invalid_format` for another shape of JSON, an empty or very long index, or a file name that is not plain.
pub fn parse(bytes: &[u8]) -> Result<BTreeMap<String, String>> {
    read(bytes).map_err(|e| e.context("reading shard index"))
}

fn read(bytes: &[u8]) -> Result<BTreeMap<String, String>> {
    if bytes.len() > MAX_LEN {
        return Err(Error::invalid_format(format!("expected at most {MAX_LEN} bytes, got {}", bytes.len())));
    }
    let index: Index = serde_json::from_slice(bytes).map_err(|e| Error::invalid_format(e.to_string()))?;
    let Object(files) = index.weight_map;
    if files.is_empty() {
        return Err(Error::invalid_format("expected tensors in weight_map, got none"));
    }
    match files.iter().find(|(_, file)| !is_plain(file)) {
        None => Ok(files),
        Some((tensor, file)) => Err(Error::invalid_format(format!(
            "tensor {tensor:?}: expected a file name of letters, digits, dots, lines and underscores, got {file:?}"
        ))),
    }
}

/// Whether a name is one of a file in the same folder, on every system, and not a hidden one.
fn is_plain(name: &str) -> bool {
    name.len() <= 255
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read() {
        let text = r#"{"metadata": {"total_size": 1.5e9, "x": [[]]}, "weight_map": {
            "b": "model-00002-of-00002.safetensors", "a": "model_state-00001-of-00002.pdparams"}}"#;
        let files: Vec<_> = parse(text.as_bytes()).unwrap().into_iter().collect();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            files,
            [pair("a", "model_state-00001-of-00002.pdparams"), pair("b", "model-00002-of-00002.safetensors")]
        );
    }

    fn assert_refused(text: &str, wanted: &str) {
        let e = parse(text.as_bytes()).expect_err(wanted).to_string();
        assert!(e.starts_with("reading shard index: ") && e.contains(wanted), "{wanted:?} not in: {e}");
    }

    #[test]
    fn indexes_that_lie_are_refused() {
        assert_refused("", "EOF");
        assert_refused("[]", "expected");
        assert_refused(r#"{"metadata": {}}"#, "missing field `weight_map`");
        assert_refused(r#"{"weight_map": {}}"#, "expected tensors in weight_map, got none");
        assert_refused(r#"{"weight_map": {"a": 1}}"#, "expected a string");
        assert_refused(r#"{"weight_map": {"a": "x", "a": "y"}}"#, r#"expected each key once, got "a" twice"#);
        assert_refused(r#"{"weight_map": {"a": "x"}, "weight_map": {"a": "y"}}"#, "duplicate field `weight_map`");
        assert_refused(r#"{"weight_map": {"a": "x"}} {}"#, "trailing characters");
        let deep = format!(r#"{{"metadata": {}, "weight_map": {{"a": "x"}}}}"#, "[".repeat(100_000));
        assert_refused(&deep, "expected value at line 1 column 100014");
        assert_refused(&" ".repeat(MAX_LEN + 1), "expected at most 16777216 bytes, got 16777217");
        let many: Vec<_> = (0..70_000).map(|i| format!(r#""{i}": "x""#)).collect();
        assert_refused(&format!(r#"{{"weight_map": {{{}}}}}"#, many.join(",")), "at most 65536 keys, got more");
    }

    /// Path traversal: a file outside the folder of the index is never named.
    #[test]
    fn file_names_lead_nowhere_else() {
        let long = "x".repeat(256);
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/etc/passwd",
            r"\\\\host",
            r"C:\\x",
            "%2e%2e",
            "a:b",
            r"a\u0000",
            r"a\n",
            ".hidden",
            "-x",
            "é",
            &long,
        ] {
            assert_refused(&format!(r#"{{"weight_map": {{"a": "{name}"}}}}"#), "expected a file name of letters");
        }
    }

    #[test]
    fn an_index_cut_at_any_byte_is_refused() {
        let text = br#"{"metadata": {"total_size": 8}, "weight_map": {"a": "x.bin"}}"#;
        assert!(parse(text).is_ok());
        for len in 0..text.len() {
            assert!(parse(&text[..len]).is_err(), "{len} bytes");
        }
    }
}
