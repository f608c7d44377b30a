//! Grammars over the vocabulary of the small model. Whatever is chosen among the allowed tokens, the reply is what was
//! asked for; sources that are made to hurt are answered within a second, and their grammars take no longer for a step.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use llamero::constrain::{MAX_SCHEMA_DEPTH, MAX_SCHEMA_VALUES, STACK_BYTES, Vocabulary};
use llamero::engine::{Constraint, Grammar, Syntax};
use llamero::error::{ErrorKind, Result};
use llamero::kernels::CacheType;
use llamero::platform::Source;
use llamero::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

/// How long compiling may take, or one step; several times what it takes, for machines that do other things.
const PATIENCE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 4 } else { 1 });
/// After so many tokens a reply is led to its end.
const WANDERING: usize = 40;
/// No reply needs more.
const MAX_TOKENS: usize = 600;

struct Bench {
    tokenizer: Arc<Tokenizer>,
    vocabulary: Vocabulary,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-llama2.gguf");
    let checkpoint = Source::new(&path).open().expect("a model's files");
    let plan = checkpoint.plan(None).expect("a plan");
    let tokenizer = checkpoint.load(plan, CacheType::F16, &mut |_, _| Ok(())).expect("a model that loads").tokenizer;
    let vocabulary = Vocabulary::new(&tokenizer).expect("a vocabulary");
    Bench { tokenizer, vocabulary }
});

fn compile(constraint: &Constraint) -> Result<Box<dyn Grammar>> {
    let start = Instant::now();
    let outcome = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let work = thread.spawn_scoped(scope, || BENCH.vocabulary.compile(constraint)).expect("a thread");
        work.join().expect("panics stay in the room")
    });
    assert!(start.elapsed() < PATIENCE, "{constraint:.80?} took {:?}", start.elapsed());
    outcome
}

fn refusal(constraint: &Constraint) -> String {
    let error = compile(constraint).err().unwrap_or_else(|| panic!("{constraint:.200?} was taken"));
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    let text = error.to_string();
    assert!(text.len() < 500 && !text.contains('\n'), "{text}");
    text
}

/// Chooses at random, and after a while what ends texts, lists and replies.
struct Walk(u64);

impl Walk {
    fn choose(&mut self, allowed: &[u32], steps: usize) -> u32 {
        let ids: Vec<u32> = (0..BENCH.tokenizer.len() as u32).filter(|&id| has(allowed, id)).collect();
        if steps > WANDERING {
            let closes = |id: &&u32| {
                let bytes = BENCH.tokenizer.text_bytes(**id).unwrap_or_default();
                BENCH.tokenizer.is_end(**id) || [&b"\""[..], b"}", b"]", b")"].contains(&&*bytes)
            };
            if let Some(&id) = ids.iter().find(closes) {
                return id;
            }
        }
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ids[(self.0 >> 33) as usize % ids.len()]
    }
}

fn has(allowed: &[u32], id: u32) -> bool {
    allowed[id as usize / 32] >> (id % 32) & 1 == 1
}

/// A reply within the grammar, as bytes; a step that takes too long fails the test.
fn walk(grammar: &mut dyn Grammar, seed: u64, most: usize) -> Result<(Vec<u8>, bool)> {
    let (mut walk, mut reply) = (Walk(seed), Vec::new());
    for steps in 0..most {
        if grammar.is_finished() {
            return Ok((reply, true));
        }
        let start = Instant::now();
        let id = walk.choose(grammar.allowed()?, steps);
        if BENCH.tokenizer.is_end(id) {
            return Ok((reply, true));
        }
        reply.extend(BENCH.tokenizer.text_bytes(id).expect("special tokens are never allowed"));
        grammar.accept(id)?;
        assert!(start.elapsed() < PATIENCE, "a step took {:?}", start.elapsed());
    }
    Ok((reply, grammar.is_finished()))
}

/// Whole replies of several seeds.
fn replies(constraint: &Constraint) -> Vec<String> {
    let one = |seed| {
        let mut grammar = compile(constraint).unwrap_or_else(|e| panic!("{constraint:?}: {e}"));
        let (bytes, ended) = walk(&mut *grammar, seed, MAX_TOKENS).expect("steps");
        let text = String::from_utf8(bytes).expect("UTF-8");
        assert!(ended, "{constraint:?}: {text}");
        text
    };
    (1..=12).map(one).collect()
}

fn schema(schema: Value) -> Constraint {
    Constraint::JsonSchema { schema: schema.to_string() }
}

fn regex(pattern: &str) -> Constraint {
    Constraint::Regex { pattern: pattern.into() }
}

fn lark(grammar: impl Into<String>) -> Constraint {
    Constraint::Grammar { syntax: Syntax::Lark, grammar: grammar.into() }
}

fn gbnf(grammar: &str) -> Constraint {
    Constraint::Grammar { syntax: Syntax::Gbnf, grammar: grammar.into() }
}

type Holds = fn(&Value) -> bool;

#[test]
fn replies_parse_and_are_what_their_schema_says() {
    let cases: [(Value, Holds); 11] = [
        (json!({"type": "boolean"}), Value::is_boolean),
        (json!({"enum": ["red", "grün", 3, null, [1]]}), |v| {
            [json!("red"), json!("grün"), json!(3), json!(null), json!([1])].contains(v)
        }),
        (json!({"const": {"a": ["b"]}}), |v| *v == json!({"a": ["b"]})),
        (json!({"type": "integer", "minimum": -5, "maximum": 17}), |v| {
            // -0 is an integer too.
            v.as_f64().is_some_and(|n| n.fract() == 0.0 && (-5.0..=17.0).contains(&n))
        }),
        (json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1}), |v| {
            v.as_f64().is_some_and(|x| x > 0.0 && x <= 1.0)
        }),
        (json!({"type": "string", "minLength": 2, "maxLength": 5}), |v| {
            v.as_str().is_some_and(|s| (2..=5).contains(&s.chars().count()))
        }),
        (json!({"type": "string", "pattern": "^[a-f]{3}-[0-9]+$"}), |v| {
            let parts = v.as_str().and_then(|s| s.split_once('-'));
            parts.is_some_and(|(a, b)| a.len() == 3 && !b.is_empty() && b.bytes().all(|c| c.is_ascii_digit()))
        }),
        (json!({"type": "array", "minItems": 2, "maxItems": 3, "items": {"type": "boolean"}}), |v| {
            v.as_array().is_some_and(|a| (2..=3).contains(&a.len()) && a.iter().all(Value::is_boolean))
        }),
        (json!({"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 3}]}), |v| v.is_null() || v.is_string()),
        (
            json!({
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": 8},
                    "inner": {
                        "type": "object",
                        "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
                        "required": ["ok", "n"],
                        "additionalProperties": false,
                    },
                },
                "required": ["name", "inner"],
                "additionalProperties": false,
            }),
            |v| {
                let order: Vec<_> = v.as_object().expect("object").keys().collect();
                order == ["name", "inner"] && v["inner"]["ok"].is_boolean() && v["inner"]["n"].as_u64() < Some(10)
            },
        ),
        (
            json!({
                "$defs": {
                    "tree": {
                        "type": "object",
                        "properties": {"left": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}},
                        "required": ["left"],
                        "additionalProperties": false,
                    },
                },
                "$ref": "#/$defs/tree",
            }),
            |mut v| {
                while v.is_object() {
                    v = &v["left"];
                }
                v.is_null()
            },
        ),
    ];
    for (schema_value, holds) in cases {
        for text in replies(&schema(schema_value.clone())) {
            let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{schema_value}: {e} in {text}"));
            assert!(holds(&value), "{schema_value}: {text}");
        }
    }
    for (constraint, begin) in [(Constraint::JsonObject {}, "{"), (schema(json!(true)), "")] {
        for text in replies(&constraint) {
            // Any number is allowed, also one that is too large for a double.
            let error = serde_json::from_str::<Value>(&text).err().filter(|e| !e.to_string().contains("out of range"));
            assert!(text.starts_with(begin) && error.is_none(), "{error:?} in {text}");
        }
    }
}

#[test]
fn replies_match_their_expression_as_a_whole() {
    for (pattern, holds) in [
        ("", (|s| s.is_empty()) as fn(&str) -> bool),
        ("a/b\nc", |s| s == "a/b\nc"),
        (" x", |s| s == " x"),
        ("[0-9]{4}-[0-9]{2}", |s| s.len() == 7 && s.as_bytes()[4] == b'-'),
        ("(?:é|🦙){2,3}", |s| (2..=3).contains(&s.chars().count()) && s.chars().all(|c| "é🦙".contains(c))),
        ("^(a+)+$", |s| !s.is_empty() && s.bytes().all(|c| c == b'a')),
        ("a|ab|abc", |s| ["a", "ab", "abc"].contains(&s)),
    ] {
        for text in replies(&regex(pattern)) {
            assert!(holds(&text), "{pattern}: {text}");
        }
    }
}

#[test]
fn replies_are_one_of_the_choices_and_each_comes_about() {
    let choices = ["</s>", "<s>x", "yes", "yes, 🦙", "[a](b)/*c*/ \\d+^$", "two\nlines\u{7f}"].map(String::from);
    let said = replies(&Constraint::Choice { choices: choices.to_vec() });
    assert!(said.iter().all(|text| choices.contains(text)), "{said:?}");
    for choice in choices {
        assert_eq!(replies(&Constraint::Choice { choices: vec![choice.clone()] })[0], choice);
    }
}

/// Sums in brackets.
fn is_sum(text: &str) -> bool {
    let mut depth = 0;
    let mut wants_number = true;
    for c in text.chars() {
        match c {
            '(' if wants_number => depth += 1,
            '0'..='9' => wants_number = false,
            ')' if !wants_number => depth -= 1,
            '+' if !wants_number => wants_number = true,
            _ => return false,
        }
        if depth < 0 {
            return false;
        }
    }
    depth == 0 && !wants_number
}

#[test]
fn replies_are_sentences_of_their_grammar() {
    for constraint in [
        lark("start: sum\nsum: part (\"+\" part)*\npart: /[0-9]{1,3}/ | \"(\" sum \")\""),
        gbnf("root ::= part (\"+\" part)* # a sum\npart ::= [0-9]{1,3} | \"(\" root \")\""),
    ] {
        let said = replies(&constraint);
        assert!(said.iter().all(|text| is_sum(text)), "{said:?}");
        assert!(said.iter().any(|text| text.contains('(')), "{said:?}");
    }
    let json = r##"
        root   ::= object
        value  ::= object | array | string | number | ("true" | "false" | "null") ws
        object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
        array  ::= "[" ws ( value ("," ws value)* )? "]" ws
        string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" "0" [0-9a-fA-F]{3}) )* "\"" ws
        number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,1})? ws
        # llama.cpp's own, but that exponents stay within what a double holds
        ws ::= | " " | "\n" [ \t]{0,20}"##;
    for text in replies(&gbnf(json)) {
        assert!(serde_json::from_str::<Map<String, Value>>(&text).is_ok(), "{text}");
    }
    assert_eq!(replies(&gbnf("root ::= \"<\" \"/s>\" \"\\U0001F999\"{2}"))[0], "</s>🦙🦙");
}

#[test]
fn special_tokens_are_never_allowed() {
    let end = BENCH.tokenizer.eos().expect("an end");
    let begin = BENCH.tokenizer.bos().expect("a begin");
    for constraint in [regex("(?s:.)*"), Constraint::Choice { choices: vec!["</s>".into(), "<s>".into()] }] {
        let mut grammar = compile(&constraint).expect("a grammar");
        let allowed = grammar.allowed().expect("tokens");
        assert!(!has(allowed, begin));
        // The end is no text: it is there where the reply may end, and nowhere else.
        assert_eq!(has(allowed, end), constraint == regex("(?s:.)*"));
    }
    assert!(refusal(&lark("start: </s>")).contains("special token"));
    refusal(&lark(format!("start: <[{end}]>")));
    refusal(&lark(format!("start: <[{begin}]>")));
    let mut grammar = compile(&lark(format!("start: \"a\" <[0-{end}]> \"b\""))).expect("a grammar");
    assert!(walk(&mut *grammar, 1, 9).is_err(), "their numbers allow them no more than their texts");
}

/// Definitions of which each refers to the next.
fn chain(n: usize, link: impl Fn(Value) -> Value, last: Value) -> Constraint {
    let next = |i: usize| json!({ "$ref": format!("#/$defs/d{i}") });
    let defs: Map<String, Value> = (0..n).map(|i| (format!("d{i}"), link(next(i + 1)))).collect();
    let mut all = json!({ "$defs": defs, "$ref": "#/$defs/d0" });
    all["$defs"][format!("d{n}")] = last;
    schema(all)
}

/// `n` properties, named and made by number.
fn fields(n: usize, value: impl Fn(usize) -> Value) -> Map<String, Value> {
    (0..n).map(|i| (format!("p{i}"), value(i))).collect()
}

fn rules(n: usize, rule: impl Fn(usize) -> String) -> Constraint {
    lark((0..n).map(rule).collect::<String>())
}

#[test]
fn sources_made_to_hurt_are_refused_in_time() {
    let deep = |open: &str, n| open.repeat(n);
    let integers = |n: usize| (0..n).map(|i| json!({ "const": i })).collect::<Vec<_>>();
    let objects = |n: usize| (0..n).map(|i| json!({"type": "object", "properties": {"a": {"const": i}}})).collect();
    let alternatives: Vec<Value> = objects(200);
    let patterns: Map<String, Value> = (0..1000).map(|i| (format!("^p{i}x*y*(z|w)*$"), json!({}))).collect();
    for (constraint, word) in [
        (regex(&deep("(", 60_000)), "invalid regex"),
        (regex(&format!("{}a{}", deep("(", 30_000), deep(")", 30_000))), "invalid regex"),
        (regex("(?=a)b"), "look-around"),
        (regex(r"(a)\1"), "backreferences"),
        (regex("a\\"), "unclosed group"),
        (regex("[a&&b]"), "no token"),
        (lark(format!("start: {}\"a\"{}", deep("(", 100_000), deep(")", 100_000))), "at most 1000"),
        (lark(format!("start: {}\"a\"{}", deep("(", 900), deep(")", 900))), "nested"),
        (lark(format!("start: A\nA: {}", deep("~[", 900))), "nested"),
        (lark(format!("start: {}", deep("~", 60_000))), "Expected value"),
        (lark(format!("start: {}a", deep("a{", 900))), "Expected token"),
        (lark(format!("start: \"a\" %if {}", deep("and(", 900))), "Expected token"),
        (lark(format!("start: %json {}", deep("[", 900))), "recursion limit"),
        (lark(format!("start: %json {}", json!({ "enum": vec![0; MAX_SCHEMA_VALUES] }))), "at most 5000 values"),
        (
            lark(format!("start: %json {}", json!({ "title": "%json", "enum": vec![0; MAX_SCHEMA_VALUES] }))),
            "at most 5000 values",
        ),
        (
            lark(format!("start: \"%json\" %json {}", json!({ "enum": vec![0; MAX_SCHEMA_VALUES] }))),
            "at most 5000 values",
        ),
        (lark(deep("%json", 1001)), "1000 times at most"),
        (lark(deep("start: %lark { ", 900)), "Unmatched"),
        (lark("start: start"), "no token"),
        (lark("start: b"), "unknown name"),
        (
            rules(41, |i| match i {
                40 => "A40: \"x\" | \"y\"\nstart: A0\n".into(),
                i => format!("A{i}: A{} A{}\n", i + 1, i + 1),
            }),
            "too big",
        ),
        (gbnf(&format!("root ::= {}", deep("(", 60_000))), "at most 64"),
        (gbnf(&format!("root ::= \"a\"{}", deep("*", 60_000))), "at most 64"),
        (Constraint::JsonSchema { schema: deep("[", 100_000) }, "recursion limit"),
        (Constraint::JsonSchema { schema: deep(r#"{"items":"#, 40_000) }, "recursion limit"),
        (Constraint::JsonSchema { schema: format!("{}1{}", deep("[", 120), deep("]", 120)) }, "at most 100 deep"),
        (schema(json!({ "enum": vec![0; MAX_SCHEMA_VALUES] })), "at most 5000 values"),
        (schema(json!({ "$ref": "#" })), "no token"),
        (schema(json!({ "allOf": [{ "$ref": "#" }, { "$ref": "#" }] })), "circular"),
        (schema(json!({ "$ref": "#/nope" })), "not found"),
        (schema(json!({ "$ref": "http://127.0.0.1/x" })), "Only absolute"),
        (chain(30, |next| json!({"allOf": [next, next], "anyOf": [next, next]}), json!({"type": "object"})), "large"),
        (
            schema(
                json!({"anyOf": integers(1600), "allOf": [{"type": "object", "properties": fields(1600, |_| json!(true))}]}),
            ),
            "",
        ),
        (schema(json!({"allOf": [{"anyOf": alternatives}, {"anyOf": alternatives}, {"anyOf": alternatives}]})), ""),
        (schema(json!({"patternProperties": patterns})), "at most 10 patternProperties"),
        (schema(json!({"patternProperties": {"^(.*a){20}": {}, "(.*b){20}$": {}}})), "disjoint"),
        (schema(json!({"type": "string", "pattern": ".*a.{25}b", "minLength": 1000})), ""),
        (schema(json!({"type": "number", "multipleOf": 1e-300})), "multipleOf"),
        (schema(json!({"type": "integer", "multipleOf": 4_294_967_291u64})), ""),
        (schema(json!({"type": "number", "minimum": -1e308, "maximum": 1.7e308})), "range"),
        (schema(json!({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]})), "oneOf"),
        (schema(json!({"type": "array", "uniqueItems": true})), "uniqueItems"),
        (schema(json!(false)), "expected an object"),
        (schema(json!(1)), "expected an object"),
        (Constraint::JsonSchema { schema: "{".into() }, "expected JSON"),
    ] {
        let start = Instant::now();
        let said = refusal(&constraint);
        assert!(said.contains(word), "{word}: {said}");
        println!("{:?} {said:.120}", start.elapsed());
    }
}

#[test]
fn sources_that_look_bad_and_are_not_work_in_time() {
    let names = fields(1200, |_| json!({ "type": "string" }));
    let required: Vec<_> = names.keys().cloned().collect();
    let deepest = (1..MAX_SCHEMA_DEPTH).fold(json!({}), |inner, _| json!({ "items": inner }));
    for constraint in [
        regex("(a+)+$"),
        regex("(a?){200}a{200}"),
        regex("(a{1,1000}b?){1,1000}"),
        regex("(.*a.{25}b|.*b.{30}c|x{0,5000}y{0,5000})*z"),
        regex(r"\p{L}{1,500}\w{1,500}"),
        lark("start: start \"a\" | start start | \"\""),
        lark("start: b{1000}\nb: c{1000}\nc: \"a\" | \"b\""),
        rules(61, |i| match i {
            60 => "a60: \"x\"\nstart: a0\n".into(),
            i => format!("a{i}: a{} a{}\n", i + 1, i + 1),
        }),
        rules(3001, |i| match i {
            3000 => "a3000: \"x\"\nstart: a0\n".into(),
            i => format!("a{i}: a{}\n", i + 1),
        }),
        lark(format!("start: {}", (0..7000).map(|i| format!("\"{i}\"")).collect::<Vec<_>>().join(" | "))),
        Constraint::Choice { choices: (0..1024).map(|i| format!("choice {i}")).collect() },
        Constraint::Choice { choices: vec!["x".repeat(65_536)] },
        chain(1200, |next| json!({ "properties": { "x": next } }), json!({ "type": "null" })),
        schema(json!({"anyOf": [{ "$ref": "#" }, { "type": "null" }]})),
        schema(deepest),
        schema(json!({"type": "object", "properties": names.clone(), "required": required})),
        schema(json!({"type": "object", "properties": names})),
        schema(json!({"type": "array", "minItems": 1_000_000_000})),
        schema(json!({"type": "array", "maxItems": 4_000_000_000u64, "items": { "type": "object" }})),
        schema(json!({"type": "string", "minLength": 100_000, "maxLength": 4_000_000_000u64})),
        schema(json!({"enum": (0..4900).collect::<Vec<i32>>()})),
    ] {
        let start = Instant::now();
        let mut grammar = compile(&constraint).unwrap_or_else(|e| panic!("{constraint:.80?}: {e}"));
        let compiled = start.elapsed();
        let (reply, _) = walk(&mut *grammar, 3, 60).unwrap_or_else(|e| panic!("{constraint:.80?}: {e}"));
        println!("{compiled:?} {:?} {constraint:.80?} {} bytes", start.elapsed() - compiled, reply.len());
    }
}
