//! What a reply must be: what a request asks for, and what a step needs of whoever compiled it.
//!
//! Absent: compilers. Who has one (see `constrain`) hands its result in with the request.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// Most bytes of a JSON schema.
pub const MAX_SCHEMA_BYTES: usize = 512 << 10;
/// Most bytes of a grammar.
pub const MAX_GRAMMAR_BYTES: usize = 256 << 10;
/// Most bytes of a regular expression.
pub const MAX_PATTERN_BYTES: usize = 64 << 10;
/// Most choices.
pub const MAX_CHOICES: usize = 1024;
/// Most bytes of all choices together.
pub const MAX_CHOICES_BYTES: usize = 64 << 10;

/// Most bytes of a message about a malformed constraint.
const MAX_MESSAGE: usize = 200;

/// What a whole reply must be; the `Constraint` of src/engine/engine.ts, but that the schema is JSON in a text: it is
/// read where it is compiled.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Constraint {
    /// JSON that a schema allows.
    JsonSchema {
        /// The schema in JSON.
        schema: String,
    },
    /// Any JSON object.
    JsonObject {},
    /// What a regular expression matches as a whole.
    Regex {
        /// The expression, in the syntax of Rust's regex.
        pattern: String,
    },
    /// One of some texts.
    Choice {
        /// The texts.
        choices: Vec<String>,
    },
    /// A sentence of a context-free grammar.
    Grammar {
        /// How the grammar is written.
        syntax: Syntax,
        /// The grammar.
        grammar: String,
    },
}

/// How a context-free grammar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Syntax {
    /// llguidance's dialect of Lark.
    Lark,
    /// llama.cpp's.
    Gbnf,
}

impl Constraint {
    /// The constraint that a request has in JSON.
    ///
    /// # Errors
    /// `invalid_request` for another form, or naming the field that is beyond its limit.
    pub(super) fn from_json(value: Value) -> Result<Self> {
        let constraint: Self = serde_json::from_value(value).map_err(|e| {
            let mut what = e.to_string();
            what.truncate(what.floor_char_boundary(MAX_MESSAGE));
            Error::invalid_request(format!("constraint must be of a known form, got {what}"))
        })?;
        constraint.check().map(|()| constraint)
    }

    fn check(&self) -> Result<()> {
        match self {
            Self::JsonObject {} => Ok(()),
            Self::JsonSchema { schema } => within("constraint.schema", schema.len(), MAX_SCHEMA_BYTES, "bytes"),
            Self::Regex { pattern } => within("constraint.pattern", pattern.len(), MAX_PATTERN_BYTES, "bytes"),
            Self::Grammar { grammar, .. } => within("constraint.grammar", grammar.len(), MAX_GRAMMAR_BYTES, "bytes"),
            Self::Choice { choices } => {
                within("constraint.choices", choices.len(), MAX_CHOICES, "texts")?;
                let bytes = choices.iter().map(String::len).sum();
                within("constraint.choices", bytes, MAX_CHOICES_BYTES, "bytes")?;
                match choices.iter().any(String::is_empty) {
                    true => Err(Error::invalid_request("each of constraint.choices must have text, got an empty one")),
                    false => Ok(()),
                }
            }
        }
    }
}

fn within(name: &str, got: usize, max: usize, unit: &str) -> Result<()> {
    match got {
        n if (1..=max).contains(&n) => Ok(()),
        n => Err(Error::invalid_request(format!("{name} must be at least 1 and at most {max} {unit}, got {n}"))),
    }
}

/// Where one reply stands in its grammar. Special tokens are in none.
pub trait Grammar: Send {
    /// The tokens that may come next, one bit for each id, lowest first; end tokens among them where the reply may end.
    /// At least one bit is set.
    ///
    /// # Errors
    /// When no token can follow, or the grammar is too complex to tell within the limits of a step.
    fn allowed(&mut self) -> Result<&[u32]>;

    /// Goes on with a token that was allowed and does not end the reply.
    ///
    /// # Errors
    /// As `allowed`.
    fn accept(&mut self, token: u32) -> Result<()>;

    /// Whether nothing but the end may follow.
    fn is_finished(&self) -> bool;
}

/// Takes the tokens that are not `allowed` out of the choice.
pub(super) fn mask(logits: &mut [f32], allowed: &[u32]) {
    for (chunk, &word) in logits.chunks_mut(32).zip(allowed.iter().chain(std::iter::repeat(&0))) {
        if word != u32::MAX {
            let out = chunk.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
            out.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_without_a_bit_are_out() {
        let mut logits = [1.0; 70];
        mask(&mut logits, &[u32::MAX, 1 << 31]);
        let left: Vec<usize> = (0..70).filter(|&i| logits[i] == 1.0).collect();
        assert_eq!(left, (0..32).chain([63]).collect::<Vec<_>>());
    }

    #[test]
    fn sizes_are_held_to_their_limits() {
        let text = |n: usize| "a".repeat(n);
        let grammar = |n| Constraint::Grammar { syntax: Syntax::Lark, grammar: text(n) };
        type Make<'a> = &'a dyn Fn(usize) -> Constraint;
        let cases: [(Make, usize, &str); 5] = [
            (&|n| Constraint::JsonSchema { schema: text(n) }, MAX_SCHEMA_BYTES, "schema"),
            (&|n| Constraint::Regex { pattern: text(n) }, MAX_PATTERN_BYTES, "pattern"),
            (&grammar, MAX_GRAMMAR_BYTES, "grammar"),
            (&|n| Constraint::Choice { choices: vec![text(1); n] }, MAX_CHOICES, "choices"),
            (&|n| Constraint::Choice { choices: vec![text(n)] }, MAX_CHOICES_BYTES, "choices"),
        ];
        for (make, max, field) in cases {
            assert_eq!((make(1).check(), make(max).check()), (Ok(()), Ok(())));
            for bad in [0, max + 1] {
                let error = make(bad).check().expect_err(field).to_string();
                assert!(error.contains(field), "{error}");
            }
        }
        assert!(Constraint::Choice { choices: vec![text(1), String::new()] }.check().is_err());
    }
}
