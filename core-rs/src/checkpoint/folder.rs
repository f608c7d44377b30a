//! Which files of a folder make up a checkpoint. Absent: reading their contents, and the file system (a [`Folder`] is
//! handed in).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::formats::shard_index;

/// The bytes of a file, which stay where they are (mapped, as a rule).
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Files that lie together.
pub trait Folder {
    /// What the folder is called, for naming a model that has no name.
    fn name(&self) -> &str;
    /// The names of its files.
    fn names(&self) -> &[String];
    /// The bytes of one of them.
    fn open(&self, name: &str) -> Result<Bytes>;
}

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// llama.cpp's container.
    Gguf,
    /// Hugging Face's container.
    Safetensors,
    /// `torch.save`.
    PyTorch,
    /// `paddle.save`.
    Paddle,
}

impl Format {
    /// In the order in which a folder with several is read: what cannot be misread first.
    const ALL: [Self; 4] = [Self::Safetensors, Self::PyTorch, Self::Paddle, Self::Gguf];

    /// The word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gguf => "gguf",
            Self::Safetensors => "safetensors",
            Self::PyTorch => "pytorch",
            Self::Paddle => "paddle",
        }
    }

    /// How the names of its files end, without the dot.
    fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Gguf => &["gguf"],
            Self::Safetensors => &["safetensors"],
            Self::PyTorch => &["bin", "pt", "pth"],
            Self::Paddle => &["pdparams"],
        }
    }

    /// What publishers call a whole checkpoint in one file, without the ending.
    const WHOLE: [&str; 4] = ["model", "pytorch_model", "model_state", "consolidated.00"];

    fn of(name: &str) -> Option<Self> {
        let ending = name.rsplit_once('.')?.1;
        Self::ALL.into_iter().find(|format| format.endings().contains(&ending))
    }
}

/// The files of a checkpoint's weights.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WeightFiles {
    pub format: Format,
    /// In the order of their shards.
    pub names: Vec<String>,
    /// Which tensors each file must have, when an index says so.
    pub index: Option<BTreeMap<String, String>>,
}

/// Finds the weights of `folder`; `file` names one of its files when the user did.
///
/// # Errors
/// `io` when there are none or some are missing, `invalid_request` when there are several and none was named.
pub(super) fn weight_files(folder: &dyn Folder, file: Option<&str>) -> Result<WeightFiles> {
    if let Some(file) = file {
        if let Some(weights) = file.strip_suffix(".index.json") {
            let format = Format::of(weights).ok_or_else(|| unknown(file))?;
            return indexed(folder, format, file);
        }
        let format = Format::of(file).map_or_else(|| sniff(folder, file), Ok)?;
        return named(folder, format, file);
    }
    let mut incomplete = None;
    for format in Format::ALL {
        let mut is_incomplete = false;
        // An index may be there without its shards, when a folder was fetched in another format.
        if let Some(index) = find_index(folder, format) {
            match indexed(folder, format, index) {
                Err(error) if error.kind() == ErrorKind::Io => {
                    incomplete = incomplete.or(Some(error));
                    is_incomplete = true;
                }
                outcome => return outcome,
            }
        }
        let all: Vec<_> = folder.names().iter().map(String::as_str).filter(|name| is_weights(name, format)).collect();
        match whole(&all).or_else(|| one_set(&all).filter(|_| !is_incomplete)) {
            Some(name) => return named(folder, format, name),
            None if all.is_empty() || is_incomplete => {}
            None => {
                let message = format!("expected one model in {}, got {}: name the file", folder.name(), some_of(&all));
                return Err(Error::invalid_request(message));
            }
        }
    }
    let wanted = "a model (*.gguf, model.safetensors, pytorch_model.bin or model_state.pdparams, or their index)";
    if folder.names().iter().any(|name| name == "adapter_config.json") {
        return Err(missing(folder, &format!("{wanted}, not an adapter (--lora merges it into its model)")));
    }
    Err(incomplete.unwrap_or_else(|| missing(folder, wanted)))
}

/// A GGUF file of another name, as caches keep files under their hashes.
fn sniff(folder: &dyn Folder, file: &str) -> Result<Format> {
    let bytes = folder.open(file)?;
    if (*bytes).as_ref().starts_with(b"GGUF") { Ok(Format::Gguf) } else { Err(unknown(file)) }
}

/// Names for a sentence.
fn some_of(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(SHOWN)].join(", "))
}

fn unknown(file: &str) -> Error {
    let endings: Vec<_> = Format::ALL.iter().flat_map(|format| format.endings()).copied().collect();
    Error::unsupported(format!("expected a model file (*.{}), got {file}", endings.join(", *.")))
}

fn missing(folder: &dyn Folder, wanted: &str) -> Error {
    Error::new(ErrorKind::Io, format!("expected {wanted} in {}, got none", folder.name()))
}

/// Files of this format that are no adapter, optimiser or tokenizer.
fn is_weights(name: &str, format: Format) -> bool {
    const OTHERS: [&str; 7] =
        ["adapter_model", "mm_projector", "optimizer", "training_args", "scheduler", "rng_state", "tokenizer"];
    Format::of(name) == Some(format) && !OTHERS.iter().any(|other| name.starts_with(other))
}

fn find_index(folder: &dyn Folder, format: Format) -> Option<&str> {
    let is_index = |name: &&String| name.strip_suffix(".index.json").is_some_and(|weights| is_weights(weights, format));
    folder.names().iter().find(is_index).map(String::as_str)
}

/// The file that publishers call the whole.
fn whole<'a>(all: &[&'a str]) -> Option<&'a str> {
    all.iter().copied().find(|name| name.rsplit_once('.').is_some_and(|(stem, _)| Format::WHOLE.contains(&stem)))
}

/// The first file, if all are shards of one set (or it is alone).
fn one_set<'a>(all: &[&'a str]) -> Option<&'a str> {
    let (&first, others) = all.split_first()?;
    let of = |name: &str| Shard::parse(name).map(|shard| (shard.stem.to_owned(), shard.count));
    (others.is_empty() || (of(first).is_some() && others.iter().all(|name| of(name) == of(first)))).then_some(first)
}

/// A file and, when its name says that it is a shard, its whole set.
fn named(folder: &dyn Folder, format: Format, file: &str) -> Result<WeightFiles> {
    let Some(shard) = Shard::parse(file) else {
        require(folder, file)?;
        return Ok(WeightFiles { format, names: vec![file.into()], index: None });
    };
    if let Some(index) = find_index(folder, format) {
        return indexed(folder, format, index);
    }
    let names: Vec<_> = (1..=shard.count).map(|i| shard.name(i)).collect();
    names.iter().try_for_each(|name| require(folder, name))?;
    Ok(WeightFiles { format, names, index: None })
}

fn indexed(folder: &dyn Folder, format: Format, index: &str) -> Result<WeightFiles> {
    let file = folder.open(index)?;
    let index = shard_index::parse((*file).as_ref()).map_err(|e| e.context(index))?;
    let names: BTreeSet<_> = index.values().cloned().collect();
    names.iter().try_for_each(|name| require(folder, name))?;
    Ok(WeightFiles { format, names: names.into_iter().collect(), index: Some(index) })
}

fn require(folder: &dyn Folder, name: &str) -> Result<()> {
    if folder.names().iter().any(|there| there == name) { Ok(()) } else { Err(missing(folder, name)) }
}

/// `model-00002-of-00003.gguf`.
struct Shard<'a> {
    stem: &'a str,
    count: usize,
    digits: usize,
    ending: &'a str,
}

/// Most shards of a set; the largest models published have about 200.
const MAX_SHARDS: usize = 10_000;

impl<'a> Shard<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let (rest, ending) = name.rsplit_once('.')?;
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let count_is = count.parse().ok().filter(|count| (1..=MAX_SHARDS).contains(count))?;
        (is_number(number) && number.len() == count.len()).then_some(Self {
            stem,
            count: count_is,
            digits: count.len(),
            ending,
        })
    }

    fn name(&self, i: usize) -> String {
        format!("{}-{i:0digits$}-of-{:0digits$}.{}", self.stem, self.count, self.ending, digits = self.digits)
    }
}

/// A folder in memory.
#[cfg(test)]
pub(crate) struct Memory {
    names: Vec<String>,
    files: BTreeMap<String, Arc<Vec<u8>>>,
}

#[cfg(test)]
impl Memory {
    pub fn new(files: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Self {
        let files: BTreeMap<_, _> = files.into_iter().map(|(name, bytes)| (name.to_owned(), Arc::new(bytes))).collect();
        Self { names: files.keys().cloned().collect(), files }
    }
}

#[cfg(test)]
impl Folder for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn open(&self, name: &str) -> Result<Bytes> {
        let file = self.files.get(name).ok_or_else(|| missing(self, name))?;
        Ok(file.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[&'static str], file: Option<&str>) -> Result<(Format, Vec<String>)> {
        let index = br#"{"weight_map": {"a": "s-1.bin", "b": "s-2.bin"}}"#;
        let content = |name: &str| if name.ends_with(".index.json") { index.to_vec() } else { vec![1] };
        let folder = Memory::new(files.iter().map(|name| (*name, content(name))));
        weight_files(&folder, file).map(|found| (found.format, found.names))
    }

    #[test]
    fn the_card_and_its_relatives() {
        for (files, format, found) in [
            (
                &["config.json", "model_state.pdparams", "sentencepiece.bpe.model"][..],
                Format::Paddle,
                &["model_state.pdparams"][..],
            ),
            (&["config.json", "model.safetensors", "pytorch_model.bin"], Format::Safetensors, &["model.safetensors"]),
            (&["adapter_model.bin", "pytorch_model.bin", "training_args.bin"], Format::PyTorch, &["pytorch_model.bin"]),
            (&["x.gguf"], Format::Gguf, &["x.gguf"]),
            (
                &["x-00002-of-00002.gguf", "x-00001-of-00002.gguf"],
                Format::Gguf,
                &["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"],
            ),
            (&["model.safetensors.index.json", "pytorch_model.bin"], Format::PyTorch, &["pytorch_model.bin"]),
            (&["mm_projector.bin", "model_state.pdparams"], Format::Paddle, &["model_state.pdparams"]),
            (&["finetuned.safetensors"], Format::Safetensors, &["finetuned.safetensors"]),
            (&["pytorch_model.bin.index.json", "s-1.bin", "s-2.bin"], Format::PyTorch, &["s-1.bin", "s-2.bin"]),
        ] {
            assert_eq!(
                names(files, None).unwrap(),
                (format, found.iter().map(|n| n.to_string()).collect()),
                "{files:?}"
            );
        }
    }

    #[test]
    fn a_named_file_wins_and_brings_its_shards() {
        let files = ["model.safetensors", "a.gguf", "b-00001-of-00002.gguf", "b-00002-of-00002.gguf"];
        assert_eq!(names(&files, Some("a.gguf")).unwrap().1, ["a.gguf"]);
        assert_eq!(names(&files, Some("b-00002-of-00002.gguf")).unwrap().1.len(), 2);
        let blob = Memory::new([("sha256-0a", b"GGUF...".to_vec())]);
        assert_eq!(weight_files(&blob, Some("sha256-0a")).unwrap().format, Format::Gguf);
    }

    #[test]
    fn what_is_missing_or_in_doubt_is_said() {
        for (files, file, word) in [
            (&["config.json"][..], None, "a model (*.gguf"),
            (&["a.gguf", "b.gguf"], None, "a.gguf, b.gguf: name the file"),
            (&["b-00001-of-00002.gguf"], None, "expected b-00002-of-00002.gguf in memory"),
            (&["pytorch_model.bin.index.json", "s-1.bin"], None, "expected s-2.bin"),
            (&["a.txt"], Some("a.txt"), "got a.txt"),
            (&["a.gguf"], Some("b.gguf"), "expected b.gguf"),
        ] {
            let error = names(files, file).unwrap_err();
            assert!(error.to_string().contains(word), "{word:?} not in: {error}");
        }
    }
}
