//! What may be asked of an engine, and the limits that each request is held to at the door.

use serde_json::{Map, Value};

use super::grammar::Constraint;
use super::logprobs::MAX_TOP;
use crate::error::{Error, Result};
use crate::sampling::{Filter, SamplingParams};

/// Most stop texts of one request.
pub const MAX_STOPS: usize = 16;
/// Most bytes of one stop text.
pub const MAX_STOP_BYTES: usize = 4096;
/// Most token ids that end a reply.
pub const MAX_STOP_IDS: usize = 64;
/// Most pairs of id and bias.
pub const MAX_BIASES: usize = 1024;
/// Most ids that are allowed or banned: those of any vocabulary.
pub const MAX_IDS: usize = 1 << 18;
/// Most texts that must not come about, and most bytes of one.
pub const MAX_BAD_WORDS: (usize, usize) = (64, 1024);
/// Most sequence breakers of DRY, and most bytes of one.
pub const MAX_BREAKERS: (usize, usize) = (32, 1024);
/// Most bytes of one prompt, all parts together: far above any context, far below memory trouble.
pub const MAX_PROMPT_BYTES: usize = 16 << 20;
/// Seeds are integers that JSON and JavaScript carry exactly.
pub const MAX_SEED: u64 = (1 << 53) - 1;
/// Largest bias of a logit that is a number.
pub const MAX_BIAS: f32 = 100.0;

/// What breaks sequences for DRY unless a request says otherwise, as in llama.cpp.
const BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];
/// Most bytes of a wrong value that are shown.
const MAX_SHOWN: usize = 80;
/// Token counts and ids are held in 32 bits.
const MAX_COUNT: u64 = u32::MAX as u64;

/// Highest accepted number of conversations that share the model.
pub const MAX_RUNNING: usize = 1024;
/// Highest accepted number of requests that wait.
pub const MAX_WAITING: usize = 65_536;

/// How much work an engine takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Conversations that share the model.
    pub max_running: usize,
    /// Requests that may wait for a place; one more is refused as overloaded.
    pub max_waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_running: 8, max_waiting: 256 }
    }
}

impl Limits {
    /// The limits that a host's configuration asks for; the default where it does not say.
    ///
    /// # Errors
    /// `invalid_request` naming the limit that is out of range.
    pub fn new(max_running: Option<usize>, max_waiting: Option<usize>) -> Result<Self> {
        let within = |name: &str, value: Option<usize>, default: usize, max: usize| match value.unwrap_or(default) {
            n if (1..=max).contains(&n) => Ok(n),
            n => Err(Error::invalid_request(format!("{name} must be an integer from 1 to {max}, got {n}"))),
        };
        let default = Self::default();
        Ok(Self {
            max_running: within("max_running", max_running, default.max_running, MAX_RUNNING)?,
            max_waiting: within("max_waiting", max_waiting, default.max_waiting, MAX_WAITING)?,
        })
    }
}

/// A request that has passed every check that needs no vocabulary. Made only by `Request::from_json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub(super) prompt: Vec<String>,
    /// The prompt itself, in place of `prompt`.
    pub(super) prompt_ids: Option<Vec<u32>>,
    pub(super) max_tokens: Option<usize>,
    pub(super) stop: Vec<String>,
    pub(super) stop_ids: Vec<u32>,
    /// End tokens are not chosen before so many tokens.
    pub(super) min_tokens: usize,
    pub(super) ignore_eos: bool,
    pub(super) bad_words: Vec<String>,
    pub(super) breakers: Vec<String>,
    pub(super) sampling: SamplingParams,
    pub(super) seed: Option<u64>,
    /// How many rivals to tell of with each token of the reply; none: tell nothing.
    pub(super) logprobs: Option<usize>,
    /// The same for the prompt.
    pub(super) prompt_logprobs: Option<usize>,
    pub(super) constraint: Option<Constraint>,
}

impl Request {
    /// Read and check a request in JSON (fields as `GenerateRequest` of src/engine/engine.ts, in snake case, with the
    /// sampling parameters at the top level; a bias of null is minus infinity, which JSON cannot write).
    ///
    /// # Errors
    /// `invalid_request` naming the field, what was wanted and what came.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let mut fields = Fields::from_json(json)?;
        let prompt_ids = fields.ids("prompt_ids", usize::MAX)?;
        let request = Self {
            prompt: fields.prompt(prompt_ids.is_some())?,
            prompt_ids,
            max_tokens: fields.integer("max_tokens", 1, MAX_COUNT)?.map(|n| n as usize),
            stop: fields.texts("stop", MAX_STOPS, MAX_STOP_BYTES)?.unwrap_or_default(),
            stop_ids: fields.ids("stop_token_ids", MAX_STOP_IDS)?.unwrap_or_default(),
            min_tokens: fields.integer("min_tokens", 0, MAX_COUNT)?.unwrap_or(0) as usize,
            ignore_eos: fields.flag("ignore_eos")?,
            bad_words: fields.texts("bad_words", MAX_BAD_WORDS.0, MAX_BAD_WORDS.1)?.unwrap_or_default(),
            breakers: fields
                .texts("dry_sequence_breakers", MAX_BREAKERS.0, MAX_BREAKERS.1)?
                .unwrap_or_else(|| BREAKERS.map(String::from).to_vec()),
            seed: fields.integer("seed", 0, MAX_SEED)?,
            logprobs: fields.integer("logprobs", 0, MAX_TOP as u64)?.map(|n| n as usize),
            prompt_logprobs: fields.integer("prompt_logprobs", 0, MAX_TOP as u64)?.map(|n| n as usize),
            sampling: fields.sampling()?,
            constraint: fields.take("constraint").map(Constraint::from_json).transpose()?,
        };
        fields.end()?;
        Ok(request)
    }

    /// What the reply must be, which is then for others to see to.
    pub fn take_constraint(&mut self) -> Option<Constraint> {
        self.constraint.take()
    }

    /// The ids that it names, each with the name of its field; a vocabulary must have all of them.
    pub(super) fn ids(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let sampling = &self.sampling;
        let biased = sampling.logit_bias.iter().map(|(id, _)| ("logit_bias", *id));
        let lists = [
            ("prompt_ids", self.prompt_ids.as_deref()),
            ("stop_token_ids", Some(&self.stop_ids[..])),
            ("allowed_token_ids", sampling.allowed.as_deref()),
            ("banned_token_ids", Some(&sampling.banned[..])),
        ];
        let listed =
            lists.into_iter().flat_map(|(name, ids)| ids.unwrap_or_default().iter().map(move |&id| (name, id)));
        listed.chain(biased)
    }
}

/// The fields of a JSON object, taken one by one; null is absence.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn from_json(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json)
            .map(Self)
            .map_err(|e| Error::invalid_request(format!("expected a request object in JSON, got {e}")))
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::invalid_request(format!("expected known fields, got {name:?}"))),
        }
    }

    fn number(&mut self, name: &str) -> Result<Option<f32>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        value.as_f64().map(|x| Some(x as f32)).ok_or_else(|| wanted(name, "a number", &value))
    }

    fn integer(&mut self, name: &str, min: u64, max: u64) -> Result<Option<u64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match whole(&value) {
            Some(n) if (min..=max).contains(&n) => Ok(Some(n)),
            _ => Err(wanted(name, &format!("an integer from {min} to {max}"), &value)),
        }
    }

    fn count(&mut self, name: &str) -> Result<Option<usize>> {
        Ok(self.integer(name, 0, MAX_COUNT)?.map(|n| n as usize))
    }

    fn flag(&mut self, name: &str) -> Result<bool> {
        let Some(value) = self.take(name) else { return Ok(false) };
        value.as_bool().ok_or_else(|| wanted(name, "true or false", &value))
    }

    fn list(&mut self, name: &str, most: usize) -> Result<Option<Vec<Value>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(list)) if list.len() <= most => Ok(Some(list)),
            Some(Value::Array(list)) => {
                Err(Error::invalid_request(format!("{name} must have at most {most} elements, got {}", list.len())))
            }
            Some(value) => Err(wanted(name, "an array", &value)),
        }
    }

    pub(super) fn ids(&mut self, name: &str, most: usize) -> Result<Option<Vec<u32>>> {
        let Some(list) = self.list(name, most)? else { return Ok(None) };
        list.iter().map(|value| id(name, value)).collect::<Result<_>>().map(Some)
    }

    /// Texts of 1 to `longest` bytes.
    fn texts(&mut self, name: &str, most: usize, longest: usize) -> Result<Option<Vec<String>>> {
        let Some(list) = self.list(name, most)? else { return Ok(None) };
        let fits = |value| match value {
            Value::String(text) if (1..=longest).contains(&text.len()) => Ok(text),
            Value::String(text) => Err(Error::invalid_request(format!(
                "each text of {name} must have 1 to {longest} bytes, got {}",
                text.len()
            ))),
            value => Err(wanted(name, "an array of texts", &value)),
        };
        list.into_iter().map(fits).collect::<Result<_>>().map(Some)
    }

    pub(super) fn prompt(&mut self, has_ids: bool) -> Result<Vec<String>> {
        let parts = match self.take("prompt") {
            Some(Value::Array(parts)) => parts,
            None if has_ids => Vec::new(),
            other => return Err(wanted("prompt", "an array of texts", &other.unwrap_or_default())),
        };
        if has_ids && !parts.is_empty() {
            return Err(Error::invalid_request("prompt must be empty where prompt_ids is given"));
        }
        let text = |part| match part {
            Value::String(text) => Ok(text),
            other => Err(wanted("prompt", "an array of texts", &other)),
        };
        let parts = parts.into_iter().map(text).collect::<Result<Vec<String>>>()?;
        let bytes: usize = parts.iter().map(String::len).sum();
        if bytes > MAX_PROMPT_BYTES {
            let message = format!("prompt must be at most {MAX_PROMPT_BYTES} bytes, got {bytes}");
            return Err(Error::invalid_request(message));
        }
        Ok(parts)
    }

    fn sampling(&mut self) -> Result<SamplingParams> {
        let mut params = SamplingParams::default();
        for field in &SamplingParams::NUMBERS {
            if let Some(value) = self.number(field.name)? {
                *(field.of)(&mut params) = value;
            }
        }
        params.validate()?;
        params.top_k = self.count("top_k")?.unwrap_or(params.top_k);
        params.repeat_last_n = self.count("repeat_last_n")?;
        params.dry_allowed_length = self.count("dry_allowed_length")?.unwrap_or(params.dry_allowed_length);
        params.dry_penalty_last_n = self.count("dry_penalty_last_n")?;
        params.mirostat = self.integer("mirostat", 0, 2)?.unwrap_or(0) as usize;
        if let Some(order) = self.samplers()? {
            params.samplers = order;
        }
        params.logit_bias = self.biases()?;
        params.allowed = self.ids("allowed_token_ids", MAX_IDS)?;
        if params.allowed.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::invalid_request("allowed_token_ids must have at least one id, got none"));
        }
        params.banned = self.ids("banned_token_ids", MAX_IDS)?.unwrap_or_default();
        Ok(params)
    }

    /// Each filter at most once.
    fn samplers(&mut self) -> Result<Option<Vec<Filter>>> {
        let Some(names) = self.list("samplers", Filter::ALL.len())? else { return Ok(None) };
        let mut order = Vec::new();
        for name in &names {
            match Filter::ALL.iter().find(|(known, _)| name == known) {
                Some((_, filter)) if !order.contains(filter) => order.push(*filter),
                _ => return Err(wanted("samplers", "names of filters, each at most once", name)),
            }
        }
        Ok(Some(order))
    }

    fn biases(&mut self) -> Result<Vec<(u32, f32)>> {
        const NAME: &str = "logit_bias";
        let pair = |pair: Value| {
            let [of, bias] = pair.as_array().map_or(&[][..], Vec::as_slice) else {
                return Err(wanted(NAME, "pairs of id and bias", &pair));
            };
            match bias.as_f64() {
                None if bias.is_null() => Ok((id(NAME, of)?, f32::NEG_INFINITY)),
                Some(x) if (x as f32).abs() <= MAX_BIAS => Ok((id(NAME, of)?, x as f32)),
                _ => Err(wanted(NAME, &format!("biases from -{MAX_BIAS} to {MAX_BIAS} or null"), bias)),
            }
        };
        self.list(NAME, MAX_BIASES)?.unwrap_or_default().into_iter().map(pair).collect()
    }
}

pub(super) fn wanted(name: &str, what: &str, got: &Value) -> Error {
    // Whatever came may be long.
    let mut got = got.to_string();
    got.truncate(got.floor_char_boundary(MAX_SHOWN));
    Error::invalid_request(format!("{name} must be {what}, got {got}"))
}

fn id(name: &str, value: &Value) -> Result<u32> {
    whole(value).and_then(|n| u32::try_from(n).ok()).ok_or_else(|| wanted(name, "token ids", value))
}

/// JSON writers may spell an integer as 3.0 or 3e0.
fn whole(value: &Value) -> Option<u64> {
    let from = |x: f64| (x.fract() == 0.0 && (0.0..=MAX_SEED as f64).contains(&x)).then_some(x as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Request> {
        Request::from_json(json.as_bytes())
    }

    #[test]
    fn defaults_and_every_field() {
        let plain = parse(r#"{"prompt":["a"]}"#).expect("valid");
        assert_eq!(plain.sampling, SamplingParams::default());
        assert_eq!((plain.max_tokens, plain.seed, plain.ignore_eos, plain.min_tokens), (None, None, false, 0));
        assert_eq!(plain.breakers, BREAKERS);
        let full = parse(
            r#"{"prompt":["a","b"],"max_tokens":5.0,"stop":["x"],"stop_token_ids":[7],"min_tokens":2,"ignore_eos":true,
                "bad_words":["y"],"dry_sequence_breakers":[],"temperature":0,"top_k":1,"top_p":0.5,"min_p":0.1,
                "typical_p":0.9,"top_n_sigma":2,"dynatemp_range":0.5,"dynatemp_exponent":2,"repeat_penalty":1.5,
                "repeat_last_n":64,"presence_penalty":-2,"frequency_penalty":2,"dry_multiplier":0.8,"dry_base":2,
                "dry_allowed_length":3,"dry_penalty_last_n":0,"xtc_probability":0.5,"xtc_threshold":0.2,"mirostat":2,
                "mirostat_tau":4,"mirostat_eta":0.2,"samplers":["top_k","dry"],"logit_bias":[[3,-1.5],[4,null]],
                "allowed_token_ids":[1,2],"banned_token_ids":[2],"logprobs":20,"prompt_logprobs":0,"seed":9007199254740991,
                "constraint":{"type":"regex","pattern":"a"}}"#,
        )
        .expect("valid");
        let want = SamplingParams {
            temperature: 0.0,
            top_k: 1,
            top_p: 0.5,
            min_p: 0.1,
            typical_p: 0.9,
            top_n_sigma: 2.0,
            dynatemp_range: 0.5,
            dynatemp_exponent: 2.0,
            repeat_penalty: 1.5,
            repeat_last_n: Some(64),
            presence_penalty: -2.0,
            frequency_penalty: 2.0,
            dry_multiplier: 0.8,
            dry_base: 2.0,
            dry_allowed_length: 3,
            dry_penalty_last_n: Some(0),
            xtc_probability: 0.5,
            xtc_threshold: 0.2,
            mirostat: 2,
            mirostat_tau: 4.0,
            mirostat_eta: 0.2,
            samplers: vec![Filter::TopK, Filter::Dry],
            logit_bias: vec![(3, -1.5), (4, f32::NEG_INFINITY)],
            allowed: Some(vec![1, 2]),
            banned: vec![2],
        };
        let request = Request {
            prompt: vec!["a".into(), "b".into()],
            prompt_ids: None,
            max_tokens: Some(5),
            stop: vec!["x".into()],
            stop_ids: vec![7],
            min_tokens: 2,
            ignore_eos: true,
            bad_words: vec!["y".into()],
            breakers: Vec::new(),
            sampling: want,
            seed: Some(MAX_SEED),
            logprobs: Some(20),
            prompt_logprobs: Some(0),
            constraint: Some(Constraint::Regex { pattern: "a".into() }),
        };
        assert_eq!(full, request);
        let ids = parse(r#"{"prompt_ids":[1,2],"prompt":[]}"#).expect("valid");
        assert_eq!((ids.prompt.len(), ids.prompt_ids), (0, Some(vec![1, 2])));
    }

    #[test]
    fn wrong_values_are_named() {
        let stop17 = format!(r#""stop":{:?}"#, ["s"; 17]);
        let biases = format!(r#""logit_bias":{:?}"#, [[1, 1]; 1025]);
        let words = format!(r#""bad_words":{:?}"#, ["s"; 65]);
        for (field, word) in [
            (r#""max_tokens":1.5"#, "max_tokens"),
            (r#""max_tokens":"9""#, "max_tokens"),
            (r#""seed":9007199254740992"#, "seed"),
            (r#""seed":1e400"#, "number out of range"),
            (r#""top_k":1e30"#, "top_k"),
            (r#""temperature":"hot""#, "temperature"),
            (r#""temperature":1e39"#, "temperature"),
            (r#""top_p":0"#, "top_p"),
            (r#""repeat_penalty":0"#, "repeat_penalty"),
            (r#""dry_base":0.9"#, "dry_base"),
            (r#""presence_penalty":-2.1"#, "presence_penalty"),
            (r#""mirostat":3"#, "mirostat"),
            (r#""stop":[""]"#, "stop"),
            (r#""stop":"x""#, "stop"),
            (stop17.as_str(), "stop"),
            (words.as_str(), "bad_words"),
            (r#""bad_words":[""]"#, "bad_words"),
            (r#""dry_sequence_breakers":[1]"#, "dry_sequence_breakers"),
            (r#""samplers":["top_q"]"#, "samplers"),
            (r#""samplers":["dry","dry"]"#, "samplers"),
            (biases.as_str(), "logit_bias"),
            (r#""logit_bias":[[1]]"#, "logit_bias"),
            (r#""logit_bias":[[1,101]]"#, "logit_bias"),
            (r#""logit_bias":[[1,"1"]]"#, "logit_bias"),
            (r#""logit_bias":[[-1,1]]"#, "logit_bias"),
            (r#""logit_bias":{"1":1}"#, "logit_bias"),
            (r#""allowed_token_ids":[]"#, "allowed_token_ids"),
            (r#""banned_token_ids":[0.5]"#, "banned_token_ids"),
            (r#""stop_token_ids":[4294967296]"#, "stop_token_ids"),
            (r#""prompt_ids":[1]"#, "prompt_ids"),
            (r#""logprobs":21"#, "logprobs"),
            (r#""prompt_logprobs":21"#, "prompt_logprobs"),
            (r#""ignore_eos":1"#, "ignore_eos"),
            (r#""temprature":1"#, "temprature"),
        ] {
            let error = parse(&format!(r#"{{"prompt":["a"],{field}}}"#)).expect_err(field);
            assert_eq!(error.kind(), crate::error::ErrorKind::InvalidRequest);
            assert!(error.to_string().contains(word), "{field}: {error}");
        }
    }

    #[test]
    fn no_number_takes_what_no_number_may_be() {
        let numbers = SamplingParams::NUMBERS.map(|field| field.name);
        let counts = ["max_tokens", "min_tokens", "top_k", "repeat_last_n", "dry_allowed_length", "dry_penalty_last_n"];
        for name in numbers.into_iter().chain(counts).chain(["mirostat", "seed", "logprobs", "prompt_logprobs"]) {
            for bad in ["-2.5", "9007199254740992", "1e39", "1e400", "NaN", "Infinity", r#""1""#, "[1]", "true", "{}"] {
                let error = parse(&format!(r#"{{"prompt":["a"],"{name}":{bad}}}"#)).expect_err(name);
                assert_eq!(error.kind(), crate::error::ErrorKind::InvalidRequest, "{name}: {bad}");
            }
        }
        for name in counts.into_iter().chain(["mirostat", "seed", "logprobs", "prompt_logprobs"]) {
            assert!(parse(&format!(r#"{{"prompt":["a"],"{name}":-1}}"#)).is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        for bad in ["", "{", "[]", "{}", r#"{"prompt":"a"}"#, r#"{"prompt":[1]}"#, r#"{"prompt":null}"#, "\u{0}"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(Request::from_json(&[0xff, 0xfe]).is_err());
        assert!(Request::from_json("[".repeat(100_000).as_bytes()).is_err());
        let deep = format!(r#"{{"prompt":{}"#, "[".repeat(100_000));
        assert!(parse(&deep).is_err());
    }
}
