//! Files of any format as one thing: the header that a GGUF file of the same model would have, and the rows of its
//! tensors. Loading, converting, describing and merging all work on that.
//!
//! Nothing is read before it is needed: a checkpoint holds places in mapped files, and rows are turned, reordered and
//! added up as they are asked for. Absent: the file system (see [`Folder`]), writing, inference.

mod add;
mod folder;
mod hugging_face;
mod layout;
mod names;
mod packed;
mod publish;
mod rows;
mod settings;
pub mod vocab;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use self::add::{apply_delta, merge_lora};
pub use self::folder::{Bytes, Folder, Format};
use self::folder::{WeightFiles, weight_files};
use self::layout::Sizes;
use self::packed::Packed;
pub use self::packed::Packing;
pub use self::rows::Rows;
use self::rows::Source;
pub(crate) use self::rows::{gguf_row, row_shape};

use crate::error::{Error, Result};
use crate::formats::gguf::{self, Gguf, TensorInfo};
use crate::kernels::{CacheType, Weight};
use crate::load::{self, Loaded, Plan, Progress};
#[cfg(any(test, feature = "cuda"))]
use crate::model::Stored;
use crate::model::{Config, TensorSource};
use crate::tokenizer::Tokenizer;

/// Bytes of weights between two reports of progress: some milliseconds of copying.
const PIECE_BYTES: usize = 16 << 20;

/// A model on disk.
pub struct Checkpoint {
    head: Gguf,
    /// By the index of the tensor in `head`.
    sources: Vec<Source>,
    files: Vec<Bytes>,
    tokenizer: Arc<Tokenizer>,
    origin: Origin,
    /// Files beside the weights, for formats that have some.
    companions: Vec<(String, Vec<u8>)>,
    /// Its blocks as kernels read them, where they were kept.
    packed: Option<Packed>,
}

/// Where a checkpoint came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// How its weights are stored.
    pub format: Format,
    /// The files of the weights and their bytes.
    pub files: Vec<(String, u64)>,
    /// How its linear weights lie and why that is believed, for formats that leave it open.
    pub layout: Option<String>,
    /// Tensors that were left out because text needs them not.
    pub ignored: usize,
    /// What the vocabulary was read from.
    pub vocabulary: &'static str,
    /// Why a GGUF file cannot carry the vocabulary, if so.
    pub not_portable: Option<String>,
    /// What else was noticed, as sentences.
    pub notes: Vec<String>,
}

impl Checkpoint {
    /// Reads the headers of the checkpoint in `folder`; `file` names one of its files when there are several.
    ///
    /// # Errors
    /// `io` for files that are missing, `invalid_format` for bytes that break their format or do not fit together,
    /// `unsupported` for a family or a way of storing that is not implemented.
    pub fn open(folder: &dyn Folder, file: Option<&str>) -> Result<Self> {
        let found = weight_files(folder, file)?;
        match found.format {
            Format::Gguf => Self::open_gguf(folder, found),
            _ => hugging_face::open(folder, found),
        }
    }

    fn open_gguf(folder: &dyn Folder, found: WeightFiles) -> Result<Self> {
        let files = open_all(folder, &found.names)?;
        let parse = |(file, name): (&Bytes, &String)| {
            let bytes = (**file).as_ref();
            Gguf::parse(bytes, bytes.len() as u64).map_err(|e| e.context(name))
        };
        let parts = files.iter().zip(&found.names).map(parse).collect::<Result<Vec<_>>>()?;
        let gguf::Joined { metadata, tensors } = gguf::join_splits(parts)?;
        let source =
            |(file, info): &(usize, TensorInfo)| Source::Blocks { file: *file, start: info.offset, len: info.len };
        let sources = tensors.iter().map(source).collect();
        let head = Gguf::new(metadata, tensors.into_iter().map(|(_, info)| info).collect())?;
        let tokenizer = Arc::new(Tokenizer::new(load::vocab::vocab_spec(&head.metadata)?)?);
        let origin = Origin::new(&found, &files);
        Ok(Self { head, sources, files, tokenizer, origin, companions: Vec::new(), packed: None })
    }

    /// Metadata and tensors as a GGUF file has them; the places of tensors mean nothing.
    pub fn head(&self) -> &Gguf {
        &self.head
    }

    /// The vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Where it came from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Opens the tensor with this index in [`Checkpoint::head`] for reading.
    ///
    /// # Errors
    /// `invalid_format` when its pieces do not come to its bytes.
    pub fn rows(&self, tensor: usize) -> Result<Rows<'_>> {
        self.sources[tensor].open(&self.head.tensors[tensor], &self.bytes())
    }

    fn bytes(&self) -> Vec<&[u8]> {
        self.files.iter().map(|file| (**file).as_ref()).collect()
    }

    /// What loading would make of it, without a weight being read.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn plan(&self, context_length: Option<usize>) -> Result<Plan> {
        let plan = Plan::new(&self.head, self.tokenizer.clone(), context_length)?;
        check_tensors(&self.head, plan.config())?;
        Ok(plan)
    }

    /// Bytes of all weights as loading keeps them.
    pub fn weight_bytes(&self) -> u64 {
        self.head.tensors.iter().map(|info| info.len as u64).sum()
    }

    /// Reads the weights of `plan` into memory, each to its final place at once.
    ///
    /// # Errors
    /// As [`Plan::finish`], and whatever `progress` returns.
    pub fn load(&self, plan: Plan, cache_type: CacheType, progress: &mut Progress) -> Result<Loaded> {
        plan.finish(&mut Reader::new(self, progress), cache_type)
    }
}

/// Checks that a model has the tensors that its sizes ask for and no others: a bias or a layer that nobody reads would
/// change every answer in silence.
fn check_tensors(head: &Gguf, config: &Config) -> Result<()> {
    let sizes =
        Sizes { n_embd: config.n_embd, n_ff: config.n_ff, n_embd_q: config.n_embd_q(), n_embd_kv: config.n_embd_kv() };
    let in_layer = |layer: usize| LAYER_PARTS.iter().map(move |part| format!("blk.{layer}.{part}.weight"));
    let wanted: BTreeSet<String> = (0..config.n_layer)
        .flat_map(in_layer)
        .chain(["token_embd.weight", "output_norm.weight"].map(str::to_owned))
        .collect();
    if let Some(name) = wanted.iter().find(|name| head.tensor(name).is_none()) {
        return Err(Error::invalid_format(format!("expected tensor {name} of {} layers, got none", config.n_layer)));
    }
    for info in &head.tensors {
        let name = info.name.as_str();
        if !wanted.contains(name) && !OPTIONAL.contains(&name) {
            let layers = config.n_layer;
            return Err(Error::unsupported(format!(
                "expected the tensors of a Llama of {layers} layers, got {name} too"
            )));
        }
        let expected = match sizes.linear(name) {
            Some(shape) => shape.to_vec(),
            None if name.ends_with("_norm.weight") => vec![config.n_embd],
            None => continue,
        };
        if info.shape != expected {
            return Err(Error::invalid_format(format!("expected {name} of shape {expected:?}, got {:?}", info.shape)));
        }
    }
    Ok(())
}

/// Weights of a layer.
const LAYER_PARTS: [&str; 9] =
    ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"];
/// What some models have besides.
const OPTIONAL: [&str; 2] = ["output.weight", "rope_freqs.weight"];

impl Origin {
    fn new(found: &WeightFiles, files: &[Bytes]) -> Self {
        let len = |file: &Bytes| (**file).as_ref().len() as u64;
        let files = found.names.iter().cloned().zip(files.iter().map(len)).collect();
        Self {
            format: found.format,
            files,
            layout: None,
            ignored: 0,
            vocabulary: "gguf",
            not_portable: None,
            notes: Vec::new(),
        }
    }
}

/// What Hugging Face calls a tensor that GGUF calls `gguf`, and whether its rows are in another order there; none for
/// tensors that only GGUF files have.
pub(crate) fn published_name(gguf: &str) -> Option<(String, bool)> {
    names::to_hugging_face(gguf).map(|(name, role)| (name, role == names::Role::Rotary))
}

fn open_all(folder: &dyn Folder, names: &[String]) -> Result<Vec<Bytes>> {
    names.iter().map(|name| folder.open(name)).collect()
}

/// A checkpoint as a source of tensors for the model.
struct Reader<'a, 'p> {
    checkpoint: &'a Checkpoint,
    by_name: BTreeMap<&'a str, usize>,
    done: u64,
    total: u64,
    progress: &'a mut Progress<'p>,
}

impl TensorSource for Reader<'_, '_> {
    fn tensor(&mut self, name: &str) -> Result<Option<Weight>> {
        let Some(&index) = self.by_name.get(name) else { return Ok(None) };
        self.weight(index).map(Some).map_err(|e| e.context(format_args!("reading tensor {name}")))
    }

    #[cfg(any(test, feature = "cuda"))]
    fn stored(&mut self, name: &str) -> Result<Option<Stored>> {
        let Some(&index) = self.by_name.get(name) else { return Ok(None) };
        self.as_stored(index).map(Some).map_err(|e| e.context(format_args!("reading tensor {name}")))
    }
}

impl<'a, 'p> Reader<'a, 'p> {
    fn new(checkpoint: &'a Checkpoint, progress: &'a mut Progress<'p>) -> Self {
        let by_name = checkpoint.head.tensors.iter().enumerate().map(|(i, info)| (info.name.as_str(), i)).collect();
        Self { checkpoint, by_name, done: 0, total: checkpoint.weight_bytes(), progress }
    }

    fn weight(&mut self, index: usize) -> Result<Weight> {
        let checkpoint = self.checkpoint;
        if let Some(weight) = checkpoint.packed.as_ref().and_then(|packed| packed.weight(checkpoint, index)) {
            self.done += checkpoint.head.tensors[index].len as u64;
            (self.progress)(self.done, self.total)?;
            return weight;
        }
        let mut filling = load::open(&self.checkpoint.head.tensors[index])?;
        self.read(index, |bytes| {
            filling.push(bytes);
        })?;
        filling.finish()
    }

    #[cfg(any(test, feature = "cuda"))]
    fn as_stored(&mut self, index: usize) -> Result<Stored> {
        let info = &self.checkpoint.head.tensors[index];
        let (element, mut bytes) = (load::element(info)?, Vec::with_capacity(info.len));
        self.read(index, |piece| bytes.extend_from_slice(piece))?;
        Ok(Stored { element, shape: info.shape.clone(), bytes })
    }

    /// Hands the rows of a tensor to `take`, some whole panels at a time.
    fn read(&mut self, index: usize, mut take: impl FnMut(&[u8])) -> Result<()> {
        let rows = self.checkpoint.rows(index)?;
        let step = (PIECE_BYTES / rows.row_bytes().max(1)).max(1).next_multiple_of(Weight::ROWS_TOGETHER);
        let mut piece = Vec::new();
        for first in (0..rows.n_rows()).step_by(step) {
            let some = first..rows.n_rows().min(first + step);
            let bytes = match rows.stored(some.clone()) {
                Some(bytes) => bytes,
                None => {
                    piece.resize(some.len() * rows.row_bytes(), 0);
                    rows.read(some, &mut piece)?;
                    &piece
                }
            };
            take(bytes);
            self.done += bytes.len() as u64;
            (self.progress)(self.done, self.total)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::folder::Memory;
    use super::*;

    #[test]
    fn tensors_for_a_device_are_as_the_file_stores_them() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tiny-llama2.gguf");
        let file = std::fs::read(fixture).expect("fixture");
        let checkpoint = Checkpoint::open(&Memory::new([("tiny.gguf", file.clone())]), None).expect("a checkpoint");
        let (mut told, total) = (0, checkpoint.weight_bytes());
        let mut progress = |done, _| {
            told = done;
            Ok(())
        };
        let mut reader = Reader::new(&checkpoint, &mut progress);
        for info in &checkpoint.head.tensors {
            let stored = reader.stored(&info.name).expect("readable").expect("there");
            assert_eq!((stored.element, &stored.shape), (load::element(info).expect("known"), &info.shape));
            assert!(stored.bytes == file[info.offset..info.offset + info.len], "{}", info.name);
        }
        assert!(reader.stored("output.bias").expect("readable").is_none());
        assert_eq!(told, total);
    }
}
