//! What SentencePiece does to a text before it looks for pieces: rules of a compiled table, spaces taken out and put in
//! front, `▁` for a space. User-defined symbols stay as they are.

use super::charsmap::Charsmap;
use crate::error::{Error, Result};
use crate::tokenizer::MAX_TEXT_LEN;
use crate::tokenizer::spm::SPACE;

/// Most bytes of a normalised text: a `▁` takes three for one.
const MAX_NORMALIZED_LEN: usize = 4 * MAX_TEXT_LEN;

/// How text is normalised; the fields are those of SentencePiece's `NormalizerSpec`.
#[derive(Debug, Clone, Default)]
pub struct NormalizerSpec {
    /// The compiled table; empty for the identity.
    pub precompiled_charsmap: Vec<u8>,
    /// Whether spaces at the ends go, and runs of them become one.
    pub remove_extra_whitespaces: bool,
    /// Whether a space is written as `▁`.
    pub escape_whitespaces: bool,
    /// Whether the space that texts get goes behind them instead of in front.
    pub treat_whitespace_as_suffix: bool,
}

#[derive(Debug)]
pub(super) struct Normalizer {
    charsmap: Option<Charsmap>,
    removes_spaces: bool,
    has_suffix: bool,
    space: &'static str,
}

impl Normalizer {
    pub fn new(spec: &NormalizerSpec) -> Result<Self> {
        let charsmap = &spec.precompiled_charsmap;
        Ok(Self {
            charsmap: if charsmap.is_empty() { None } else { Some(Charsmap::parse(charsmap)?) },
            removes_spaces: spec.remove_extra_whitespaces,
            has_suffix: spec.treat_whitespace_as_suffix,
            space: if spec.escape_whitespaces { SPACE } else { " " },
        })
    }

    /// Whether decoding has to drop a space in front even if none was put there.
    pub fn drops_space(&self) -> bool {
        self.removes_spaces
    }

    /// The normalised text. `symbol_len` gives the bytes of a user-defined symbol in front of what it gets.
    /// Spaces in front are kept, as one, only where `keeps_front` says so.
    pub fn normalize(
        &self,
        text: &str,
        has_space: bool,
        keeps_front: bool,
        symbol_len: impl Fn(&str) -> Option<usize>,
    ) -> Result<String> {
        let step = |rest| self.step(rest, &symbol_len);
        let mut rest = text;
        if self.removes_spaces && !keeps_front {
            while let Some((len, " ")) = step(rest) {
                rest = &rest[len..];
            }
            if rest.is_empty() {
                return Ok(String::new());
            }
        }
        let mut out = String::with_capacity(rest.len() + rest.len() / 2);
        out.push_str(if has_space && !self.has_suffix { self.space } else { "" });
        let mut is_after_space = self.removes_spaces && !keeps_front;
        while let Some((len, replacement)) = step(rest) {
            let kept = if is_after_space { replacement.trim_start_matches(' ') } else { replacement };
            kept.split(' ').enumerate().for_each(|(i, part)| out.extend([if i > 0 { self.space } else { "" }, part]));
            is_after_space = self.removes_spaces && if kept.is_empty() { is_after_space } else { kept.ends_with(' ') };
            rest = &rest[len..];
            if out.len() > MAX_NORMALIZED_LEN {
                let message = format!("encoding text: expected at most {MAX_NORMALIZED_LEN} bytes when normalised");
                return Err(Error::invalid_request(message));
            }
        }
        if self.removes_spaces {
            out.truncate(out.trim_end_matches(self.space).len());
        }
        out.push_str(if has_space && self.has_suffix { self.space } else { "" });
        Ok(out)
    }

    /// The first stretch of text that is handled as one: its bytes, and what is written for it.
    fn step<'a>(&'a self, rest: &'a str, symbol_len: impl Fn(&str) -> Option<usize>) -> Option<(usize, &'a str)> {
        let first = rest.chars().next()?;
        if let Some(len) = symbol_len(rest) {
            return Some((len, &rest[..len]));
        }
        let rule = self.charsmap.as_ref().and_then(|map| map.longest(rest));
        Some(rule.unwrap_or((first.len_utf8(), &rest[..first.len_utf8()])))
    }
}
