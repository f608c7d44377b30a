//! Which way round a file's linear weights lie, decided from their shapes and the config.
//!
//! Hugging Face stores `[out, in]`, PaddleNLP `[in, out]`. A weight that is not square tells by its shape; the square
//! ones (queries of a model without grouped heads) follow those. Absent: moving a byte.

use super::names::Role;
use crate::error::{Error, Result};

/// How linear weights lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[out, in]`, as Hugging Face and GGUF have it.
    OutIn,
    /// `[in, out]`, as PaddleNLP has it.
    InOut,
}

/// A decision, and what it was made by.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub layout: Layout,
    /// A sentence for people.
    pub reason: String,
}

/// Sizes of a model, from its config.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub n_embd: usize,
    pub n_ff: usize,
    pub n_embd_q: usize,
    pub n_embd_kv: usize,
}

impl Sizes {
    /// `[out, in]` of the linear weight with this GGUF name, if it is one of a layer's.
    pub fn linear(&self, gguf: &str) -> Option<[usize; 2]> {
        let part = gguf.strip_prefix("blk.")?.split('.').nth(1)?;
        Some(match part {
            "attn_q" => [self.n_embd_q, self.n_embd],
            "attn_k" | "attn_v" => [self.n_embd_kv, self.n_embd],
            "attn_output" => [self.n_embd, self.n_embd_q],
            "ffn_gate" | "ffn_up" => [self.n_ff, self.n_embd],
            "ffn_down" => [self.n_embd, self.n_ff],
            _ => return None,
        })
    }
}

/// Looks at every linear weight `(GGUF name, shape)` of the layers.
///
/// # Errors
/// `invalid_format` when a shape is neither way round, or when they disagree.
pub(super) fn decide<'a>(
    sizes: &Sizes,
    tensors: impl Iterator<Item = (&'a str, &'a [usize])>,
    default: Layout,
) -> Result<Decision> {
    let mut seen: Option<(Layout, &str, &[usize])> = None;
    for (name, shape) in tensors {
        let Some(expected) = sizes.linear(name) else { continue };
        let Some(layout) = vote(name, expected, shape)? else { continue };
        match seen {
            Some((before, first, _)) if before != layout => {
                let message = format!(
                    "expected all linear weights one way round, got {first} as {} and {name} as {}",
                    before.describe(),
                    layout.describe()
                );
                return Err(Error::invalid_format(message));
            }
            Some(_) => {}
            None => seen = Some((layout, name, shape)),
        }
    }
    Ok(match seen {
        Some((layout, name, shape)) => {
            Decision { layout, reason: format!("{}, by {name} {shape:?}", layout.describe()) }
        }
        None => {
            Decision { layout: default, reason: format!("{}, by the format, since all are square", default.describe()) }
        }
    })
}

impl Layout {
    fn describe(self) -> &'static str {
        match self {
            Self::OutIn => "[out, in]",
            Self::InOut => "[in, out] (PaddleNLP)",
        }
    }
}

/// What one shape says: nothing when it is square.
fn vote(name: &str, [n_out, n_in]: [usize; 2], shape: &[usize]) -> Result<Option<Layout>> {
    match *shape {
        [a, b] if a == n_out && b == n_in => Ok((n_out != n_in).then_some(Layout::OutIn)),
        [a, b] if a == n_in && b == n_out => Ok(Some(Layout::InOut)),
        ref other => Err(Error::invalid_format(format!(
            "expected {name} of shape [{n_out}, {n_in}] (or the other way round), as config.json says, got {other:?}"
        ))),
    }
}

/// Whether a tensor of this role and shape has to be turned round. `rows` is what its first dimension must come to.
pub(super) fn is_turned(role: Role, layout: Layout, shape: &[usize], n_vocab: usize) -> bool {
    match role {
        Role::Linear | Role::Rotary => layout == Layout::InOut,
        // The vocabulary tells, even where the layers are square.
        Role::Output => match *shape {
            [rows, columns] if rows != columns => rows != n_vocab && columns == n_vocab,
            _ => layout == Layout::InOut,
        },
        Role::Embedding | Role::Norm => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { n_embd: 64, n_ff: 160, n_embd_q: 64, n_embd_kv: 32 };

    fn check(tensors: &[(&str, [usize; 2])], default: Layout) -> Result<Decision> {
        decide(&SIZES, tensors.iter().map(|(name, shape)| (*name, shape.as_slice())), default)
    }

    #[test]
    fn a_shape_that_is_not_square_decides() {
        let square = ("blk.0.attn_q.weight", [64, 64]);
        let decided = check(&[square, ("blk.0.ffn_up.weight", [64, 160])], Layout::OutIn).unwrap();
        assert_eq!(decided.layout, Layout::InOut);
        assert_eq!(decided.reason, "[in, out] (PaddleNLP), by blk.0.ffn_up.weight [64, 160]");
        assert_eq!(check(&[square, ("blk.0.attn_k.weight", [32, 64])], Layout::InOut).unwrap().layout, Layout::OutIn);
    }

    #[test]
    fn squares_alone_leave_it_to_the_format() {
        for default in [Layout::OutIn, Layout::InOut] {
            assert_eq!(check(&[("blk.0.attn_q.weight", [64, 64])], default).unwrap().layout, default);
        }
    }

    #[test]
    fn shapes_that_disagree_or_fit_neither_way_are_refused() {
        let error = check(&[("blk.0.ffn_up.weight", [64, 160]), ("blk.1.ffn_up.weight", [160, 64])], Layout::OutIn)
            .unwrap_err();
        assert!(error.to_string().contains("one way round"), "{error}");
        let error = check(&[("blk.0.ffn_up.weight", [64, 161])], Layout::OutIn).unwrap_err();
        assert!(error.to_string().ends_with("got [64, 161]"), "{error}");
    }

    #[test]
    fn the_output_is_told_by_the_vocabulary() {
        assert!(is_turned(Role::Output, Layout::OutIn, &[64, 300], 300));
        assert!(!is_turned(Role::Output, Layout::InOut, &[300, 64], 300));
        assert!(is_turned(Role::Output, Layout::InOut, &[64, 64], 64));
    }
}
