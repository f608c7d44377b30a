//! The regular expressions that pre-tokenizers of model families use, as their files write them.
//!
//! All of them take linear time on pieces of `MAX_WORD_LEN`: their alternatives begin with different classes, and what
//! they take back is at most one run of one class, far from the engine's limit of a million steps.

use crate::tokenizer::PreTokenizer;

/// GPT-2's words.
pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Each expression, and the pre-tokenizer of ours that gives the same words.
pub(super) const PATTERNS: &[(&str, Option<PreTokenizer>)] = &[
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        Some(PreTokenizer::Llama3),
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        Some(PreTokenizer::Qwen2),
    ),
    (GPT2, Some(PreTokenizer::Gpt2)),
    // Mistral's later models.
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        None,
    ),
    // Llama 4 and others with the expression of GPT-4o.
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        None,
    ),
    // Digits in threes, counted from the right or the left, as a step before others.
    (r"\p{N}{1,3}", None),
    (r"\p{N}", None),
    (r"\d", None),
    (r"[0-9]", None),
];

/// Whether a file may use this expression.
pub(super) fn is_known(regex: &str) -> bool {
    PATTERNS.iter().any(|(known, _)| *known == regex)
}
