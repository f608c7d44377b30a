//! The blocks of a checkpoint as kernels read them, in one file: made once, mapped at each later start.
//!
//! ```text
//! 0       text: what this is, its layout, what it was made of, its length; zeros up to 4,096
//! 4096    blocks of the first tensor that has some, as `Weight::packed` gives them; zeros up to a multiple of 4,096
//! ...     the next one, in the order of the header
//! ```
//!
//! Where each tensor lies follows from the checkpoint's own header, so nothing in such a file is parsed: its beginning and
//! its length are what they have to be, or it is not the one. Floats are left where they are. Absent: where it lies.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Bytes, Checkpoint, Reader};
use crate::error::{Error, Result};
use crate::kernels::{Element, Weight};
use crate::load::{self, Progress};

/// Tensors begin at multiples of it: a page of most systems, and whole lines of all.
const PAGE: usize = 4096;
const _: () = assert!(PAGE.is_multiple_of(Weight::ALIGNMENT));

/// The file that a checkpoint's packed blocks make.
#[derive(Debug)]
pub struct Packing {
    /// Places by the index of the tensor, in order.
    places: BTreeMap<usize, Range<usize>>,
    len: usize,
    head: Vec<u8>,
}

impl Packing {
    /// Of `checkpoint`, whose files are told apart by `hash`.
    ///
    /// # Errors
    /// `invalid_format` for tensors that are no whole blocks.
    pub fn new(checkpoint: &Checkpoint, hash: &str) -> Result<Self> {
        let (mut places, mut len) = (BTreeMap::new(), PAGE);
        for (index, info) in checkpoint.head.tensors.iter().enumerate() {
            let element = load::element(info)?;
            if matches!(element, Element::Blocks(_)) {
                let bytes = Weight::packed_len(element, &info.shape)?;
                places.insert(index, len..len + bytes);
                len = (len + bytes).next_multiple_of(PAGE);
            }
        }
        let (version, layout) = (env!("CARGO_PKG_VERSION"), Weight::LAYOUT);
        let mut head =
            format!("llamero {version}: packed weights\nlayout {layout}\nof {hash}\nbytes {len}\n").into_bytes();
        if head.len() > PAGE {
            return Err(Error::internal(format!("expected a beginning of {PAGE} bytes, got {}", head.len())));
        }
        head.resize(PAGE, 0);
        Ok(Self { places, len, head })
    }

    /// Bytes of the file.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to pack.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether `bytes` are all of such a file.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.len && bytes.starts_with(&self.head)
    }

    /// Hands the bytes of the file to `write`, in order; one tensor at a time is in memory. `progress` is told of bytes
    /// of the checkpoint.
    ///
    /// # Errors
    /// What reading a tensor, `write` and `progress` return.
    pub fn write(
        &self,
        checkpoint: &Checkpoint,
        write: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: &mut Progress,
    ) -> Result<()> {
        write(&self.head)?;
        let total = self.places.keys().map(|&index| checkpoint.head.tensors[index].len as u64).sum();
        let mut reader = Reader { total, ..Reader::new(checkpoint, progress) };
        for (&index, place) in &self.places {
            write(reader.weight(index)?.packed())?;
            write(&[0; PAGE][..place.end.next_multiple_of(PAGE) - place.end])?;
        }
        Ok(())
    }
}

/// Such a file, mapped.
pub(super) struct Packed {
    places: BTreeMap<usize, Range<usize>>,
    bytes: Bytes,
}

impl Packed {
    /// The packed blocks of a tensor, if it has some.
    pub(super) fn weight(&self, checkpoint: &Checkpoint, index: usize) -> Option<Result<Weight>> {
        let info = &checkpoint.head.tensors[index];
        let place = self.places.get(&index)?;
        Some(
            load::element(info)
                .and_then(|element| Weight::from_packed(element, &info.shape, self.bytes.clone(), place.start)),
        )
    }
}

impl Checkpoint {
    /// The same checkpoint, whose blocks are read from `bytes`.
    ///
    /// # Errors
    /// `invalid_format` when these are not what `packing` says.
    pub fn with_packed(mut self, packing: Packing, bytes: Bytes) -> Result<Self> {
        if !packing.is_of((*bytes).as_ref()) {
            return Err(Error::invalid_format("expected the packed weights of this model, got other bytes"));
        }
        self.packed = Some(Packed { places: packing.places, bytes });
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::folder::Memory;
    use super::*;
    use crate::kernels::Held;
    use crate::model::TensorSource;

    /// Bytes that begin on a page, as a mapped file does.
    fn mapped(bytes: &[u8]) -> Held {
        let mut map = memmap2::MmapMut::map_anon(bytes.len()).unwrap();
        map.copy_from_slice(bytes);
        std::sync::Arc::new(map)
    }

    fn open(name: &str) -> Checkpoint {
        let file = std::fs::read(format!("{}/../tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        Checkpoint::open(&Memory::new([("model.gguf", file)]), None).unwrap()
    }

    #[test]
    fn packed_weights_are_those_of_the_file() {
        let (checkpoint, same) = (open("tiny-llama2.gguf"), open("tiny-llama2.gguf"));
        let packing = Packing::new(&checkpoint, "abc").unwrap();
        assert!(!packing.is_empty());
        let (mut file, mut told) = (Vec::new(), (0, 0));
        let mut progress = |done, total| {
            told = (done, total);
            Ok(())
        };
        let mut write = |bytes: &[u8]| {
            file.extend_from_slice(bytes);
            Ok(())
        };
        packing.write(&checkpoint, &mut write, &mut progress).unwrap();
        assert!(told.0 == told.1 && told.0 > 0 && file.len() == packing.len() && packing.is_of(&file));
        assert!(!Packing::new(&checkpoint, "abd").unwrap().is_of(&file));
        assert!(!packing.is_of(&file[..file.len() - 1]));
        let blocks = packing.places.len();

        let cut = mapped(&file[..file.len() - 1]);
        assert!(open("tiny-llama2.gguf").with_packed(Packing::new(&checkpoint, "abc").unwrap(), cut).is_err());
        let checkpoint = checkpoint.with_packed(packing, mapped(&file)).unwrap();
        let (mut none, mut told) = (|_, _| Ok(()), 0);
        let mut progress = |done, _| {
            told = done;
            Ok(())
        };
        let (mut plain, mut packed) = (Reader::new(&same, &mut none), Reader::new(&checkpoint, &mut progress));
        let mut mapped = 0;
        for info in &same.head.tensors {
            let (a, b) = (plain.tensor(&info.name).unwrap().unwrap(), packed.tensor(&info.name).unwrap().unwrap());
            assert!(a.packed() == b.packed() && a.shape() == b.shape(), "{}", info.name);
            mapped += usize::from(format!("{b:?}").contains("held elsewhere"));
        }
        assert_eq!((mapped, told), (blocks, same.weight_bytes()));
    }
}
