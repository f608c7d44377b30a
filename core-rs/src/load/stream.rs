//! A model from bytes that arrive in pieces, such as a download: each weight goes to its final place at once, so that
//! the most memory ever needed is the model's own and twice the header.

use std::sync::Arc;

use super::weights::Weights;
use super::{Loaded, Plan, vocab};
use crate::error::{Error, Result};
use crate::formats::gguf::Gguf;
use crate::kernels::CacheType;
use crate::tokenizer::Tokenizer;

/// Bytes of a header worth a first look. Each further look waits for twice as many, so that all looks together cost
/// no more than two at the whole header.
const FIRST_LOOK: usize = 64 << 10;

/// A GGUF file that is arriving.
pub struct Stream {
    /// Bytes the file is said to have.
    file_bytes: u64,
    received: u64,
    context_length: Option<usize>,
    state: State,
}

enum State {
    /// The file so far, and how much of it to wait for.
    Header { bytes: Vec<u8>, look_at: usize },
    /// The header is read.
    Weights(Box<(Plan, Weights)>),
}

impl Stream {
    /// A stream of a file of `file_bytes`. `context_length` asks for less context than the model allows.
    pub fn new(file_bytes: u64, context_length: Option<usize>) -> Self {
        let state = State::Header { bytes: Vec::new(), look_at: FIRST_LOOK };
        Self { file_bytes, received: 0, context_length, state }
    }

    /// Bytes of weights taken, and in total; zeros while the header is incomplete.
    pub fn progress(&self) -> (u64, u64) {
        match &self.state {
            State::Header { .. } => (0, 0),
            State::Weights(parts) => parts.1.progress(),
        }
    }

    /// Takes the next bytes of the file. A stream that has failed is of no more use.
    ///
    /// # Errors
    /// `invalid_format` when the bytes break the format, when shapes do not fit together, and for bytes beyond the end;
    /// `unsupported` for an architecture, weight type or vocabulary that is not implemented. As early as bytes show it.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        let received = self.received + bytes.len() as u64;
        if received > self.file_bytes {
            let message = format!("receiving the model: expected {} bytes, got {received}", self.file_bytes);
            return Err(Error::invalid_format(message));
        }
        while !bytes.is_empty() {
            let taken = match &mut self.state {
                State::Header { bytes: head, look_at } => {
                    let (taken, _) = bytes.split_at(bytes.len().min(*look_at - head.len()));
                    head.extend_from_slice(taken);
                    taken.len()
                }
                State::Weights(parts) => return parts.1.push(bytes).map(|()| self.received = received),
            };
            self.received += taken as u64;
            bytes = &bytes[taken..];
            self.look()?;
        }
        Ok(())
    }

    /// Reads the header if enough of it may be there.
    fn look(&mut self) -> Result<()> {
        let State::Header { bytes, look_at } = &mut self.state else { return Ok(()) };
        if bytes.len() < *look_at && self.received < self.file_bytes {
            return Ok(());
        }
        match Gguf::parse_prefix(bytes, self.file_bytes)? {
            None => *look_at = 2 * bytes.len(),
            Some(file) => {
                let tokenizer = Arc::new(Tokenizer::new(vocab::vocab_spec(&file.metadata)?)?);
                let plan = Plan::new(&file, tokenizer, self.context_length)?;
                let mut weights = Weights::new(file.tensors)?;
                weights.push(bytes)?;
                self.state = State::Weights(Box::new((plan, weights)));
            }
        }
        Ok(())
    }

    /// The model, when all bytes are there.
    ///
    /// # Errors
    /// `invalid_format` when bytes or tensors are missing.
    pub fn finish(self) -> Result<Loaded> {
        let (expected, received) = (self.file_bytes, self.received);
        match self.state {
            State::Weights(parts) if received == expected => {
                let (plan, mut weights) = *parts;
                weights.check_complete()?;
                plan.finish(&mut weights, CacheType::F16)
            }
            _ => Err(Error::invalid_format(format!("receiving the model: expected {expected} bytes, got {received}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;
    use crate::formats::gguf::{GgmlType, TensorInfo};
    use crate::model::TensorSource;

    static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tiny-llama2.gguf")).expect("fixture")
    });
    static WHOLE: LazyLock<String> = LazyLock::new(|| said(stream(&[&FILE], FILE.len()).expect("loads")));

    /// A greedy continuation, and the description.
    fn said(loaded: Loaded) -> String {
        let Loaded { model, tokenizer, info } = loaded;
        let (mut cache, mut ids) = (model.new_cache(), tokenizer.encode(&["Once upon a time"]).expect("text"));
        let mut fed = 0;
        for _ in 0..24 {
            let logits = model.logits(&ids[fed..], &mut cache).expect("logits");
            fed = ids.len();
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).expect("vocabulary");
            ids.push(best as u32);
        }
        format!("{}{info:?}", tokenizer.decode(&ids).expect("ids"))
    }

    fn stream(pieces: &[&[u8]], file_bytes: usize) -> Result<Loaded> {
        let mut stream = Stream::new(file_bytes as u64, None);
        pieces.iter().try_for_each(|piece| stream.push(piece))?;
        stream.finish()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_pieces_give_the_same_model(mut cuts in prop::collection::vec(0..FILE.len(), 0..40)) {
            cuts.extend([0, FILE.len()]);
            cuts.sort();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &FILE[cut[0]..cut[1]]).collect();
            prop_assert_eq!(&said(stream(&pieces, FILE.len()).expect("loads")), &*WHOLE);
        }
    }

    #[test]
    fn single_bytes_give_the_same_model() {
        let pieces: Vec<_> = FILE.chunks(1).collect();
        assert_eq!(said(stream(&pieces, FILE.len()).expect("loads")), *WHOLE);
    }

    #[test]
    fn bytes_that_are_missing_or_too_many_are_counted() {
        let n = FILE.len();
        for (pieces, file_bytes, wanted) in [
            (vec![&FILE[..n - 1]], n, format!("expected {n} bytes, got {}", n - 1)),
            (vec![&FILE[..100]], n, format!("expected {n} bytes, got 100")),
            (vec![], n, format!("expected {n} bytes, got 0")),
            (vec![&FILE[..], &[0]], n, format!("expected {n} bytes, got {}", n + 1)),
            (vec![&FILE[..]], n + 1, format!("expected {} bytes, got {n}", n + 1)),
            (vec![&FILE[..]], n - 1, format!("expected {} bytes, got {n}", n - 1)),
            (vec![&FILE[..n - 1]], n - 1, "file ends early".into()),
        ] {
            let error = stream(&pieces, file_bytes).err().expect(&wanted);
            assert_eq!(error.kind(), ErrorKind::InvalidFormat);
            assert!(error.to_string().contains(&wanted), "{wanted:?} not in: {error}");
        }
    }

    #[test]
    fn a_wrong_file_is_refused_at_its_first_bytes() {
        let error = Stream::new(1 << 30, None).push(&[7; FIRST_LOOK]).expect_err("refused");
        assert!(error.to_string().contains("\"GGUF\""), "{error}");
    }

    #[test]
    fn tensors_may_lie_in_any_order_and_apart() {
        let info =
            |name: &str, offset| TensorInfo { name: name.into(), dtype: GgmlType::F32, shape: vec![2], offset, len: 8 };
        let mut weights = Weights::new(vec![info("late", 40), info("early", 4)]).expect("known types");
        let mut file = [9u8; 64];
        file[4..12].copy_from_slice(&[1.0f32, 2.0].map(f32::to_le_bytes).concat());
        file[40..48].copy_from_slice(&[3.0f32, 4.0].map(f32::to_le_bytes).concat());
        for piece in file.chunks(5) {
            assert_eq!(weights.check_complete().is_ok(), weights.progress() == (16, 16));
            weights.push(piece).expect("room");
        }
        for (name, values) in [("early", [1.0, 2.0]), ("late", [3.0, 4.0])] {
            let tensor = weights.tensor(name).expect("source").expect("there");
            assert_eq!(tensor.values(), values);
        }
        let unknown = TensorInfo { dtype: GgmlType::Q8_1, ..info("odd", 0) };
        assert_eq!(Weights::new(vec![unknown]).err().map(|e| e.kind()), Some(ErrorKind::Unsupported));
    }
}
