//! llama.cpp's grammars (GBNF) written as Lark, which the library reads.
//!
//! GBNF has no lexer; Lark matches its terminals greedily. So each rule that is regular (reaches no recursion) becomes
//! one terminal, and in the others each run of regular parts does: a grammar without recursion is followed exactly, and
//! so are those whose regular parts end where the next part cannot go on, as in programs and JSON. In the rest a reply
//! is a sentence of the grammar still, but not every sentence can come about.
//!
//! Absent: tokens as symbols (`<think>`, `<[1000]>`), which are refused, since replies are text.

use std::collections::HashMap;
use std::fmt::Write;

use crate::error::{Error, Result};

/// Deepest nesting of groups.
const MAX_DEPTH: usize = 64;
/// Most repetitions that may be asked for, as in llama.cpp.
const MAX_REPETITIONS: u32 = 2000;
/// The rule that a reply is.
const ROOT: &str = "root";

/// One side of a rule, or a part of it.
#[derive(Debug, PartialEq)]
enum Node {
    Text(String),
    /// A regular expression for one character.
    Class(String),
    /// A rule by its number.
    Rule(usize),
    Seq(Vec<Node>),
    Alt(Vec<Node>),
    Repeat(Box<Node>, u32, Option<u32>),
}

/// The grammar in Lark.
///
/// # Errors
/// `invalid_request` naming the line and what was expected there.
pub(super) fn to_lark(grammar: &str) -> Result<String> {
    let rules = Parser::new(grammar).rules()?;
    Ok(Writer::new(&rules).grammar())
}

/// Rules in the order in which they are named; the root is the first.
struct Parser<'a> {
    whole: &'a str,
    rest: &'a str,
    numbers: HashMap<&'a str, usize>,
    names: Vec<&'a str>,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(grammar: &'a str) -> Self {
        let mut parser = Self { whole: grammar, rest: grammar, numbers: HashMap::new(), names: Vec::new(), depth: 0 };
        parser.number(ROOT);
        parser
    }

    fn number(&mut self, name: &'a str) -> usize {
        *self.numbers.entry(name).or_insert_with(|| {
            self.names.push(name);
            self.names.len() - 1
        })
    }

    fn rules(mut self) -> Result<Vec<Node>> {
        let mut bodies: Vec<Option<Node>> = Vec::new();
        self.space(true);
        while !self.rest.is_empty() {
            let name = self.name().ok_or_else(|| self.expected("the name of a rule"))?;
            let number = self.number(name);
            self.space(false);
            self.token("::=")?;
            self.space(true);
            let body = self.alternatives(false)?;
            if !self.rest.is_empty() && !self.rest.starts_with(['\r', '\n']) {
                return Err(self.expected("the end of the rule"));
            }
            bodies.resize_with(self.names.len(), || None);
            if bodies[number].replace(body).is_some() {
                return Err(Error::invalid_request(format!("expected each rule once, got {name} twice")));
            }
            self.space(true);
        }
        bodies.resize_with(self.names.len(), || None);
        let rules = bodies.into_iter().zip(&self.names);
        rules
            .map(|(body, name)| {
                body.ok_or_else(|| Error::invalid_request(format!("expected a rule for {name}, got none")))
            })
            .collect()
    }

    /// Sequences between bars. Inside of a group, lines do not matter.
    fn alternatives(&mut self, is_inner: bool) -> Result<Node> {
        let mut all = vec![self.sequence(is_inner)?];
        while self.eats("|") {
            self.space(true);
            all.push(self.sequence(is_inner)?);
        }
        Ok(one_or(all, Node::Alt))
    }

    fn sequence(&mut self, is_inner: bool) -> Result<Node> {
        let mut all = Vec::new();
        while let Some(part) = self.part()? {
            self.space(is_inner);
            let part = self.repeated(part, is_inner)?;
            all.push(part);
        }
        Ok(one_or(all, Node::Seq))
    }

    /// What may be repeated; none at the end of a sequence.
    fn part(&mut self) -> Result<Option<Node>> {
        if self.eats("\"") {
            return self.text().map(Some);
        }
        if self.eats("[") {
            return self.class().map(Some);
        }
        if self.eats(".") {
            return Ok(Some(Node::Class("(?s:.)".into())));
        }
        if self.eats("(") {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(self.expected(&format!("at most {MAX_DEPTH} groups inside of each other")));
            }
            self.space(true);
            let group = self.alternatives(true)?;
            self.token(")")?;
            self.depth -= 1;
            return Ok(Some(group));
        }
        if self.rest.starts_with(['<', '!']) {
            return Err(self.expected("text and rules, for tokens cannot be part of a grammar"));
        }
        Ok(self.name().map(|name| Node::Rule(self.number(name))))
    }

    fn repeated(&mut self, mut part: Node, is_inner: bool) -> Result<Node> {
        for _ in 0..=MAX_DEPTH {
            let (min, max) = if self.eats("*") {
                (0, None)
            } else if self.eats("+") {
                (1, None)
            } else if self.eats("?") {
                (0, Some(1))
            } else if self.eats("{") {
                self.range()?
            } else {
                return Ok(part);
            };
            self.space(is_inner);
            part = Node::Repeat(Box::new(part), min, max);
        }
        Err(self.expected(&format!("at most {MAX_DEPTH} repetitions of each other")))
    }

    fn range(&mut self) -> Result<(u32, Option<u32>)> {
        self.space(false);
        let min = self.count()?;
        let (has_comma, min) = (self.eats(","), min.unwrap_or(0));
        self.space(false);
        let max = if has_comma { self.count()? } else { Some(min) };
        self.token("}")?;
        match max {
            Some(max) if max < min => Err(self.expected("a range that rises")),
            max => Ok((min, max)),
        }
    }

    fn count(&mut self) -> Result<Option<u32>> {
        let digits = self.take_while(|c| c.is_ascii_digit());
        if digits.is_empty() {
            return Ok(None);
        }
        let count = digits.parse().ok().filter(|&n| n <= MAX_REPETITIONS);
        self.space(false);
        count.map(Some).ok_or_else(|| self.expected(&format!("at most {MAX_REPETITIONS} repetitions")))
    }

    fn text(&mut self) -> Result<Node> {
        let mut text = String::new();
        while !self.eats("\"") {
            text.push(self.char()?);
        }
        Ok(Node::Text(text))
    }

    fn class(&mut self) -> Result<Node> {
        let mut class = String::from(if self.eats("^") { "[^" } else { "[" });
        let mut is_empty = true;
        while !self.eats("]") {
            is_empty = false;
            let from = self.char()?;
            let is_range = self.rest.starts_with('-') && !self.rest.starts_with("-]") && self.eats("-");
            let to = if is_range { self.char()? } else { from };
            if to < from {
                return Err(self.expected("a range that rises"));
            }
            // Writing to a text does not fail.
            let _ = write!(class, "\\x{{{:x}}}-\\x{{{:x}}}", u32::from(from), u32::from(to));
        }
        class.push(']');
        if is_empty { Err(self.expected("at least one character in brackets")) } else { Ok(Node::Class(class)) }
    }

    /// A character of a text or class, maybe escaped.
    fn char(&mut self) -> Result<char> {
        let c = self.next().ok_or_else(|| self.expected("the end of a text or class"))?;
        if c != '\\' {
            return Ok(c);
        }
        let hex = |parser: &mut Self, digits: usize| {
            let code = parser.rest.get(..digits).and_then(|text| u32::from_str_radix(text, 16).ok());
            parser.rest = parser.rest.get(digits..).unwrap_or_default();
            code.and_then(char::from_u32)
        };
        let c = match self.next() {
            Some('n') => Some('\n'),
            Some('r') => Some('\r'),
            Some('t') => Some('\t'),
            Some(c @ ('\\' | '"' | '[' | ']' | '-' | '^')) => Some(c),
            Some('x') => hex(self, 2),
            Some('u') => hex(self, 4),
            Some('U') => hex(self, 8),
            _ => None,
        };
        c.ok_or_else(|| self.expected("an escape of GBNF"))
    }

    fn name(&mut self) -> Option<&'a str> {
        Some(self.take_while(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')).filter(|name| !name.is_empty())
    }

    /// Skips space and comments, over the end of the line where `lines` says so.
    fn space(&mut self, lines: bool) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t') || (lines && matches!(c, '\r' | '\n')));
            if !self.rest.starts_with('#') {
                return;
            }
            self.take_while(|c| !matches!(c, '\r' | '\n'));
        }
    }

    fn take_while(&mut self, takes: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !takes(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn eats(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn token(&mut self, token: &str) -> Result<()> {
        if self.eats(token) { Ok(()) } else { Err(self.expected(token)) }
    }

    fn expected(&self, what: &str) -> Error {
        let line = self.whole[..self.whole.len() - self.rest.len()].matches('\n').count() + 1;
        let got: String = self.rest.chars().take(20).collect();
        Error::invalid_request(format!("reading line {line} of the grammar: expected {what}, got {got:?}"))
    }
}

fn one_or(mut all: Vec<Node>, several: fn(Vec<Node>) -> Node) -> Node {
    if all.len() == 1 { all.remove(0) } else { several(all) }
}

/// Writes each group as a rule or terminal of its own, so that nothing is nested.
struct Writer<'a> {
    rules: &'a [Node],
    is_regular: Vec<bool>,
    /// Definitions to come: a name (in capitals for a terminal) and its body.
    open: Vec<(String, Body<'a>)>,
    groups: usize,
}

/// What a definition is made of.
enum Body<'a> {
    Node(&'a Node),
    Run(&'a [Node]),
}

impl<'a> Writer<'a> {
    fn new(rules: &'a [Node]) -> Self {
        let is_regular = regular(rules);
        Self { rules, is_regular, open: Vec::new(), groups: 0 }
    }

    fn grammar(mut self) -> String {
        let mut out = format!("start: {}\n", self.rule(0));
        self.open = self.rules.iter().enumerate().map(|(i, rule)| (self.rule(i), Body::Node(rule))).collect();
        while let Some((name, body)) = self.open.pop() {
            let in_terminal = name.starts_with(|c: char| c.is_ascii_uppercase());
            let text = match body {
                Body::Node(Node::Alt(all)) => {
                    all.iter().map(|node| self.alternative(node, in_terminal)).collect::<Vec<_>>().join("\n  | ")
                }
                Body::Node(node) => self.alternative(node, in_terminal),
                Body::Run(run) => self.parts(run),
            };
            let _ = writeln!(out, "{name}: {text}");
        }
        out
    }

    fn alternative(&mut self, node: &'a Node, in_terminal: bool) -> String {
        match node {
            Node::Seq(all) if in_terminal => self.parts(all),
            Node::Seq(all) => self.sequence(all),
            node => self.atom(node, in_terminal),
        }
    }

    /// A sequence in a rule: runs of regular parts are terminals.
    fn sequence(&mut self, all: &'a [Node]) -> String {
        let runs = all.chunk_by(|a, b| self.is_regular(a) && self.is_regular(b)).collect::<Vec<_>>();
        let each = runs.into_iter().map(|run| match run {
            [node] => self.atom(node, false),
            run => self.group("T", Body::Run(run)),
        });
        if all.is_empty() { "\"\"".into() } else { each.collect::<Vec<_>>().join(" ") }
    }

    /// A sequence in a terminal.
    fn parts(&mut self, all: &'a [Node]) -> String {
        if all.is_empty() {
            return "\"\"".into();
        }
        all.iter().map(|node| self.atom(node, true)).collect::<Vec<_>>().join(" ")
    }

    fn atom(&mut self, node: &'a Node, in_terminal: bool) -> String {
        match node {
            Node::Text(text) => quoted(text),
            Node::Class(class) => format!("/{class}/"),
            Node::Rule(number) => self.rule(*number),
            Node::Repeat(_, _, Some(0)) => "\"\"".into(),
            Node::Repeat(inner, min, max) if in_terminal || !self.is_regular(inner) => {
                let inner = match **inner {
                    // A suffix follows a name only, for a number may follow a number.
                    Node::Repeat(..) => self.group(if in_terminal { "T" } else { "g" }, Body::Node(inner)),
                    _ => self.atom(inner, in_terminal),
                };
                match max {
                    Some(max) => format!("{inner}{{{min},{max}}}"),
                    None => format!("{inner}{{{min},}}"),
                }
            }
            node if in_terminal || self.is_regular(node) => self.group("T", Body::Node(node)),
            node => self.group("g", Body::Node(node)),
        }
    }

    fn group(&mut self, prefix: &str, body: Body<'a>) -> String {
        self.groups += 1;
        let name = format!("{prefix}{}", self.groups);
        self.open.push((name.clone(), body));
        name
    }

    fn rule(&self, number: usize) -> String {
        format!("{}{number}", if self.is_regular[number] { 'R' } else { 'r' })
    }

    fn is_regular(&self, node: &Node) -> bool {
        references(node).iter().all(|&number| self.is_regular[number])
    }
}

/// Which rules reach no recursion: those whose references all do, beginning with those that have none.
fn regular(rules: &[Node]) -> Vec<bool> {
    let mut users = vec![Vec::new(); rules.len()];
    let mut left = vec![0; rules.len()];
    for (user, rule) in rules.iter().enumerate() {
        let used = references(rule);
        left[user] = used.len();
        used.into_iter().for_each(|number| users[number].push(user));
    }
    let mut is_regular = vec![false; rules.len()];
    let mut ready: Vec<usize> = (0..rules.len()).filter(|&rule| left[rule] == 0).collect();
    while let Some(rule) = ready.pop() {
        is_regular[rule] = true;
        for &user in &users[rule] {
            left[user] -= 1;
            if left[user] == 0 {
                ready.push(user);
            }
        }
    }
    is_regular
}

/// The rules that a node names, as often as it does.
fn references(node: &Node) -> Vec<usize> {
    let mut found = Vec::new();
    let mut open = vec![node];
    while let Some(node) = open.pop() {
        match node {
            Node::Text(_) | Node::Class(_) => {}
            Node::Rule(number) => found.push(*number),
            Node::Seq(all) | Node::Alt(all) => open.extend(all),
            Node::Repeat(inner, ..) => open.push(inner),
        }
    }
    found
}

/// A text of Lark: JSON's, but that no control character stands in it.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_ascii_control() => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grammar_without_recursion_is_one_terminal() {
        let check = |gbnf: &str, lark: &str| assert_eq!(to_lark(gbnf).expect(gbnf), lark, "{gbnf}");
        check("root ::= \"a\"", "start: R0\nR0: \"a\"\n");
        check(
            "root ::= a b # c\na ::= [a-c]+\r\nb::=\"\\\"\\n\\\\\"?",
            "start: R0\nR2: \"\\\"\\u000a\\\\\"{0,1}\nR1: /[\\x{61}-\\x{63}]/{1,}\nR0: R1 R2\n",
        );
        check(
            "root ::= (\"a\" | [^-\\x41é])*\n",
            "start: R0\nR0: T1{0,}\nT1: \"a\"\n  | /[^\\x{2d}-\\x{2d}\\x{41}-\\x{41}\\x{e9}-\\x{e9}]/\n",
        );
        check("root ::= . \"\\U0001F999\"{2} | ", "start: R0\nR0: /(?s:.)/ \"🦙\"{2,2}\n  | \"\"\n");
        check("root ::= \"x\"{0} \"y\"{,3}{2,}", "start: R0\nR0: \"\" T1{2,}\nT1: \"y\"{0,3}\n");
    }

    #[test]
    fn regular_runs_of_recursive_rules_are_terminals() {
        let lark = to_lark("root ::= \"(\" ws root ws \")\" | ws\nws ::= [ \\t]*").expect("grammar");
        assert_eq!(
            lark,
            "start: r0\nR1: /[\\x{20}-\\x{20}\\x{9}-\\x{9}]/{0,}\nr0: T1 r0 T2\n  | R1\nT2: R1 \")\"\nT1: \"(\" R1\n"
        );
        let lark = to_lark("root ::= (root \"a\")* (\"b\" | \"c\")*").expect("grammar");
        assert_eq!(lark, "start: r0\nr0: g1{0,} T2\nT2: T3{0,}\nT3: \"b\"\n  | \"c\"\ng1: r0 \"a\"\n");
    }

    #[test]
    fn what_is_no_grammar_is_named_with_its_line() {
        let deep = format!("root ::= {}", "(".repeat(60_000));
        for (gbnf, word) in [
            ("", "a rule for root"),
            ("a ::= \"x\"", "a rule for root"),
            ("root ::= a", "a rule for a"),
            ("root ::= \"a\"\nroot ::= \"b\"", "twice"),
            ("root = \"a\"", "line 1"),
            ("root ::= \"a\"\n\n= x", "line 3"),
            ("root ::= \"a", "the end of a text"),
            ("root ::= [a", "the end of a text or class"),
            ("root ::= []", "at least one character"),
            ("root ::= [b-a]", "rises"),
            ("root ::= (\"a\"", "expected )"),
            ("root ::= \"a\")", "the end of the rule"),
            ("root ::= \"\\q\"", "an escape"),
            ("root ::= \"\\u12\"", "an escape"),
            ("root ::= \"\\uD800\"", "an escape"),
            ("root ::= \"\\xé\"", "an escape"),
            ("root ::= \"a\"{3,2}", "rises"),
            ("root ::= \"a\"{2001}", "at most 2000"),
            ("root ::= \"a\"{99999999999}", "at most 2000"),
            ("root ::= \"a\"{x}", "expected }"),
            ("root ::= <[5]>", "tokens cannot"),
            ("root ::= !<think>", "tokens cannot"),
            (&deep, "at most 64"),
        ] {
            let error = to_lark(gbnf).expect_err(word);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
