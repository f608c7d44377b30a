//! From what a request asks for to what the library compiles, after the checks that keep the library's work bounded.

use llguidance::api::TopLevelGrammar;
use serde::Deserialize;
use serde_json::{Deserializer, Value, json};

use super::gbnf;
use crate::engine::{Constraint, Syntax};
use crate::error::{Error, Result};

/// Deepest nesting of a JSON schema. The library recurses through schemas.
pub const MAX_SCHEMA_DEPTH: usize = 100;
/// Most values (objects, arrays, texts, numbers) in a JSON schema. Intersections (`allOf`) take time by the square.
pub const MAX_SCHEMA_VALUES: usize = 5000;
/// Most `patternProperties`. The library asks of each two whether they are disjoint.
pub const MAX_SCHEMA_PATTERNS: usize = 10;
/// Deepest nesting of brackets in a Lark grammar, those in its texts counted as well. The library recurses through some.
const MAX_BRACKETS: usize = 1000;
/// What a schema stands behind in a Lark grammar.
const JSON_WORD: &str = "%json";
/// Most places of it: from each on, the rest of the grammar is read.
const MAX_JSON_WORDS: usize = 1000;

/// Space between the tokens of JSON: llama.cpp's. Without a bound, a small model may never get past it.
const JSON_SPACE: &str = r"\x20|\n{1,2}[\x20\t]{0,20}";

/// The grammar in the library's terms.
pub(super) fn grammar(constraint: &Constraint) -> Result<TopLevelGrammar> {
    match constraint {
        Constraint::JsonObject {} => Ok(json_schema(json!({ "type": "object" }))),
        Constraint::JsonSchema { schema } => read_schema(schema).map(json_schema),
        // A group keeps an expression whole: empty, or with a backslash at its end.
        Constraint::Regex { pattern } => Ok(TopLevelGrammar::from_regex(&format!("(?:{pattern})"))),
        Constraint::Choice { choices } => {
            let texts: Vec<String> = choices.iter().map(|text| escape(text)).collect();
            Ok(TopLevelGrammar::from_regex(&texts.join("|")))
        }
        Constraint::Grammar { syntax: Syntax::Lark, grammar } => {
            check_lark(grammar)?;
            Ok(TopLevelGrammar::from_lark(grammar.clone()))
        }
        Constraint::Grammar { syntax: Syntax::Gbnf, grammar } => gbnf::to_lark(grammar).map(TopLevelGrammar::from_lark),
    }
}

fn json_schema(mut schema: Value) -> TopLevelGrammar {
    if let Value::Object(fields) = &mut schema {
        fields.insert("x-guidance".into(), json!({ "whitespace_pattern": JSON_SPACE }));
    }
    TopLevelGrammar::from_json_schema(schema)
}

fn read_schema(text: &str) -> Result<Value> {
    let schema: Value = serde_json::from_str(text)
        .map_err(|e| Error::invalid_request(format!("reading the JSON schema: expected JSON, got {e}")))?;
    check_size([&schema])?;
    match schema {
        Value::Object(_) => Ok(schema),
        Value::Bool(true) => Ok(json!({})),
        _ => Err(Error::invalid_request("reading the JSON schema: expected an object, got another value")),
    }
}

/// Holds a grammar to the limits of what is inside of it: brackets, and schemas after `%json`.
fn check_lark(grammar: &str) -> Result<()> {
    let mut depth = 0usize;
    for byte in grammar.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_BRACKETS {
            return Err(Error::invalid_request(format!(
                "brackets must be nested at most {MAX_BRACKETS} deep, got more"
            )));
        }
    }
    let places: Vec<_> = grammar.match_indices(JSON_WORD).take(MAX_JSON_WORDS + 1).collect();
    if places.len() > MAX_JSON_WORDS {
        return Err(Error::invalid_request(format!(
            "{JSON_WORD} must stand in a grammar {MAX_JSON_WORDS} times at most"
        )));
    }
    // Each place by itself: which of them stand in a text, be it the grammar's or a schema's, is not known here. What is
    // no JSON is for the library to name.
    let schemas = places
        .into_iter()
        .filter_map(|(at, word)| Value::deserialize(&mut Deserializer::from_str(&grammar[at + word.len()..])).ok());
    check_size(&schemas.collect::<Vec<_>>())
}

/// Holds all schemas of a constraint to the limits.
fn check_size<'a>(schemas: impl IntoIterator<Item = &'a Value>) -> Result<()> {
    let mut waiting: Vec<_> = schemas.into_iter().map(|schema| (schema, 1)).collect();
    let (mut values, mut patterns) = (0, 0);
    while let Some((value, depth)) = waiting.pop() {
        values += 1;
        let inner = depth + 1;
        match value {
            Value::Array(items) => waiting.extend(items.iter().map(|item| (item, inner))),
            Value::Object(fields) => {
                patterns += fields.get("patternProperties").and_then(Value::as_object).map_or(0, |all| all.len());
                waiting.extend(fields.values().map(|field| (field, inner)));
            }
            _ => {}
        }
        for (what, got, max) in [
            ("deep", depth, MAX_SCHEMA_DEPTH),
            ("values", values, MAX_SCHEMA_VALUES),
            ("patternProperties", patterns, MAX_SCHEMA_PATTERNS),
        ] {
            if got > max {
                return Err(Error::invalid_request(format!("the JSON schema must be at most {max} {what}, got more")));
            }
        }
    }
    Ok(())
}

/// A text as a regular expression that matches it alone.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
