//! A tokenizer's vocabulary as the library wants it, and the compiling against it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use llguidance::api::ParserLimits;
use llguidance::toktrie::{
    ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie,
};
use llguidance::{Matcher, ParserFactory};

use super::source;
use crate::engine::{Constraint, Grammar};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// What compiling and one step may take. The library gives its speeds as about 50,000 units of lexer fuel a
/// millisecond when compiling, 14,000 in a step, and 20,000 parser items.
const LIMITS: ParserLimits = ParserLimits {
    // Four for each optional property of an object, one for each alternative.
    max_items_in_row: 12_000,
    initial_lexer_fuel: 1_000_000,
    step_lexer_fuel: 200_000,
    step_max_items: 50_000,
    // One to two kilobytes each.
    max_lexer_states: 50_000,
    // Symbols.
    max_grammar_size: 250_000,
    precompute_large_lexemes: true,
    // State and grammar would be in every message.
    verbose_errors: false,
};

/// Longest text of a token that grammars know, in bytes; the library's trie is no deeper.
const MAX_TOKEN_BYTES: usize = 1024;
/// Most characters of a message of the library.
const MAX_MESSAGE: usize = 300;
const NOTHING_FITS: &str = "no token of the vocabulary can continue the reply";

/// The tokens of a model as a trie. Immutable, so one serves all requests.
pub struct Vocabulary {
    factory: ParserFactory,
    tokens: Arc<Tokens>,
}

/// What may ever be chosen: a grammar can name any token by its number.
struct Tokens {
    text: SimpleVob,
    ends: SimpleVob,
}

impl Vocabulary {
    /// Indexes the plain text of a vocabulary; takes some tens of milliseconds for 50,000 tokens.
    ///
    /// # Errors
    /// `internal` when the library cannot take it.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self> {
        guarded(|| Self::build(tokenizer)).map_err(|e| e.context("indexing the vocabulary for grammars"))
    }

    fn build(tokenizer: &Tokenizer) -> Result<Self> {
        let words: Vec<Vec<u8>> = (0..tokenizer.len() as u32).map(|id| text(tokenizer, id)).collect();
        let ends = tokenizer.ends();
        let info = TokRxInfo::new(words.len() as u32, ends.first().copied().unwrap_or(INVALID_TOKEN));
        let mut trie = TokTrie::from(&info, &words);
        if !ends.is_empty() {
            trie = trie.with_eos_tokens(ends);
        }
        let mut tokens = Tokens { text: trie.alloc_token_set(), ends: trie.alloc_token_set() };
        let texts = (0..).zip(&words).filter(|(_, word)| !word.is_empty());
        texts.for_each(|(id, _)| tokens.text.allow_token(id));
        ends.iter().for_each(|&id| tokens.ends.allow_token(id));
        // Not canonical: the library masks tokens and never chooses them itself.
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices).map_err(internal)?;
        factory.quiet();
        *factory.limits_mut() = LIMITS;
        Ok(Self { factory, tokens: Arc::new(tokens) })
    }

    /// The grammar of what a reply must be. Needs a stack of `STACK_BYTES`.
    ///
    /// # Errors
    /// `invalid_request` when it is malformed, nothing can match it, or it is beyond a limit; `unsupported` for what
    /// cannot be constrained.
    pub fn compile(&self, constraint: &Constraint) -> Result<Box<dyn Grammar>> {
        guarded(|| {
            let grammar = source::grammar(constraint)?;
            let parser = self.factory.create_parser(grammar).map_err(refused)?;
            let mut matcher = Matcher::new(Ok(parser));
            // Tells whether nothing but an empty reply is possible.
            matcher.consume_tokens(&[]).map_err(refused)?;
            let mask = SimpleVob::alloc(0);
            let mut compiled = Compiled { matcher, tokens: self.tokens.clone(), mask, is_known: false };
            compiled.find_mask()?;
            Ok(Box::new(compiled) as Box<dyn Grammar>)
        })
        .map_err(|e| e.context("compiling the constraint"))
    }
}

/// What a token spells; nothing for special ones, which are in no grammar. The byte FF marks
/// these in the library, and is in no UTF-8.
fn text(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let usable = |bytes: &Vec<u8>| bytes.len() <= MAX_TOKEN_BYTES && !bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER);
    tokenizer.text_bytes(id).filter(usable).unwrap_or_default()
}

struct Compiled {
    matcher: Matcher,
    tokens: Arc<Tokens>,
    mask: SimpleVob,
    /// Whether the mask is that of the next token.
    is_known: bool,
}

impl Compiled {
    fn find_mask(&mut self) -> Result<()> {
        if self.is_known {
            return Ok(());
        }
        self.mask = self.matcher.compute_mask_or_eos().map_err(refused)?;
        self.mask.and(&self.tokens.text);
        if self.is_finished() || self.matcher.is_accepting().map_err(refused)? {
            self.mask.or(&self.tokens.ends);
        }
        // Without end tokens in the vocabulary, whoever follows the grammar ends by itself.
        if self.mask.is_zero() && !self.is_finished() {
            return Err(Error::invalid_request(NOTHING_FITS));
        }
        self.is_known = true;
        Ok(())
    }
}

impl Grammar for Compiled {
    fn allowed(&mut self) -> Result<&[u32]> {
        guarded(|| self.find_mask()).map_err(following)?;
        Ok(self.mask.as_slice())
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        self.is_known = false;
        guarded(|| self.matcher.consume_token(token).map_err(refused)).map_err(following)
    }

    fn is_finished(&self) -> bool {
        self.matcher.is_stopped()
    }
}

fn following(error: Error) -> Error {
    error.context("following the constraint")
}

/// The result of the library's work; its panics become errors.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Error::internal("the grammar library panicked")))
}

/// The library's message as one of ours: without its traces, on one line, and not endless.
fn message(error: &impl ToString) -> String {
    let text = error.to_string();
    let text = text.split("\n<").next().unwrap_or_default();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_MESSAGE) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// What the library cannot take is a matter of the request, also where a panic says so (it catches most by itself).
fn refused(error: impl ToString) -> Error {
    let text = message(&error);
    let reason = match text.strip_prefix("panic: ") {
        Some(panic) => format!("the grammar library cannot take it ({panic})"),
        None if text == "NoExtensionBias" => NOTHING_FITS.into(),
        None => text,
    };
    Error::invalid_request(reason)
}

fn internal(error: impl ToString) -> Error {
    Error::internal(message(&error))
}
