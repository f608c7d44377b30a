//! What may be asked of an engine, and the limits that each request is held to at the door.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::sampling::SamplingParams;

/// Most stop texts of one request.
pub const MAX_STOPS: usize = 16;
/// Most bytes of one stop text.
pub const MAX_STOP_BYTES: usize = 4096;
/// Most bytes of one prompt, all parts together: far above any context, far below memory trouble.
pub const MAX_PROMPT_BYTES: usize = 16 << 20;
/// Seeds are integers that JSON and JavaScript carry exactly.
pub const MAX_SEED: u64 = (1 << 53) - 1;

/// Highest accepted number of conversations that take turns.
pub const MAX_RUNNING: usize = 1024;
/// Highest accepted number of requests that wait.
pub const MAX_WAITING: usize = 65_536;

/// How much work an engine takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Conversations that take turns on the model.
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
    pub(super) max_tokens: Option<usize>,
    pub(super) stop: Vec<String>,
    pub(super) ignore_eos: bool,
    pub(super) sampling: SamplingParams,
    pub(super) seed: Option<u64>,
}

/// The wire form. Numbers stay JSON values so that a wrong one is answered with its name, range and value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    prompt: Vec<String>,
    #[serde(default)]
    stop: Vec<String>,
    #[serde(default)]
    ignore_eos: bool,
    max_tokens: Option<Value>,
    temperature: Option<Value>,
    top_k: Option<Value>,
    top_p: Option<Value>,
    min_p: Option<Value>,
    repeat_penalty: Option<Value>,
    seed: Option<Value>,
}

impl Request {
    /// Read and check a request in JSON (fields as `GenerateRequest` of src/engine/engine.ts, in snake case, with the
    /// sampling parameters at the top level).
    ///
    /// # Errors
    /// `invalid_request` naming the field, what was wanted and what came.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let wire: Wire = serde_json::from_slice(json)
            .map_err(|e| Error::invalid_request(format!("expected a request object in JSON, got {e}")))?;
        let defaults = SamplingParams::default();
        let request = Self {
            max_tokens: integer("max_tokens", wire.max_tokens, 1, u32::MAX.into())?.map(|n| n as usize),
            seed: integer("seed", wire.seed, 0, MAX_SEED)?,
            sampling: SamplingParams {
                temperature: number("temperature", wire.temperature)?.unwrap_or(defaults.temperature),
                top_k: integer("top_k", wire.top_k, 0, u32::MAX.into())?.map_or(defaults.top_k, |k| k as usize),
                top_p: number("top_p", wire.top_p)?.unwrap_or(defaults.top_p),
                min_p: number("min_p", wire.min_p)?.unwrap_or(defaults.min_p),
                repeat_penalty: number("repeat_penalty", wire.repeat_penalty)?.unwrap_or(defaults.repeat_penalty),
            },
            prompt: wire.prompt,
            stop: wire.stop,
            ignore_eos: wire.ignore_eos,
        };
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<()> {
        self.sampling.validate()?;
        let bytes: usize = self.prompt.iter().map(String::len).sum();
        if bytes > MAX_PROMPT_BYTES {
            let message = format!("prompt must be at most {MAX_PROMPT_BYTES} bytes, got {bytes}");
            return Err(Error::invalid_request(message));
        }
        if self.stop.len() > MAX_STOPS {
            let message = format!("stop must be at most {MAX_STOPS} texts, got {}", self.stop.len());
            return Err(Error::invalid_request(message));
        }
        match self.stop.iter().find(|stop| !(1..=MAX_STOP_BYTES).contains(&stop.len())) {
            None => Ok(()),
            Some(bad) => Err(Error::invalid_request(format!(
                "each stop text must be 1 to {MAX_STOP_BYTES} bytes, got {}",
                bad.len()
            ))),
        }
    }
}

fn number(name: &str, value: Option<Value>) -> Result<Option<f32>> {
    let Some(value) = value else { return Ok(None) };
    match value.as_f64() {
        Some(x) => Ok(Some(x as f32)),
        None => Err(Error::invalid_request(format!("{name} must be a number, got {value}"))),
    }
}

fn integer(name: &str, value: Option<Value>, min: u64, max: u64) -> Result<Option<u64>> {
    let Some(value) = value else { return Ok(None) };
    // JSON writers may spell an integer as 3.0 or 3e0.
    let whole = |x: f64| (x.fract() == 0.0 && (0.0..=MAX_SEED as f64).contains(&x)).then_some(x as u64);
    match value.as_u64().or_else(|| value.as_f64().and_then(whole)) {
        Some(n) if (min..=max).contains(&n) => Ok(Some(n)),
        _ => Err(Error::invalid_request(format!("{name} must be an integer from {min} to {max}, got {value}"))),
    }
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
        assert_eq!((plain.max_tokens, plain.seed, plain.ignore_eos), (None, None, false));
        let full = parse(
            r#"{"prompt":["a","b"],"max_tokens":5.0,"stop":["x"],"ignore_eos":true,"temperature":0,"top_k":1,
                "top_p":0.5,"min_p":0.1,"repeat_penalty":1.5,"seed":9007199254740991}"#,
        )
        .expect("valid");
        assert_eq!((full.max_tokens, full.seed, full.sampling.top_k), (Some(5), Some(MAX_SEED), 1));
    }

    #[test]
    fn wrong_values_are_named() {
        let stop17 = format!(r#""stop":{:?}"#, ["s"; 17]);
        for (field, word) in [
            (r#""max_tokens":0"#, "max_tokens"),
            (r#""max_tokens":-1"#, "max_tokens"),
            (r#""max_tokens":1.5"#, "max_tokens"),
            (r#""max_tokens":4294967296"#, "max_tokens"),
            (r#""max_tokens":"9""#, "max_tokens"),
            (r#""seed":9007199254740992"#, "seed"),
            (r#""seed":-1"#, "seed"),
            (r#""seed":1e400"#, "number out of range"),
            (r#""top_k":1e30"#, "top_k"),
            (r#""temperature":"hot""#, "temperature"),
            (r#""temperature":-0.1"#, "temperature"),
            (r#""temperature":1e39"#, "temperature"),
            (r#""top_p":0"#, "top_p"),
            (r#""min_p":2"#, "min_p"),
            (r#""repeat_penalty":0"#, "repeat_penalty"),
            (r#""stop":[""]"#, "stop"),
            (stop17.as_str(), "stop"),
            (r#""stop":"x""#, "expected a sequence"),
            (r#""temprature":1"#, "temprature"),
        ] {
            let error = parse(&format!(r#"{{"prompt":["a"],{field}}}"#)).expect_err(field);
            assert_eq!(error.kind(), crate::error::ErrorKind::InvalidRequest);
            assert!(error.to_string().contains(word), "{field}: {error}");
        }
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        for bad in ["", "{", "[]", "{}", r#"{"prompt":"a"}"#, r#"{"prompt":[1]}"#, "\u{0}"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(Request::from_json(&[0xff, 0xfe]).is_err());
        assert!(Request::from_json("[".repeat(100_000).as_bytes()).is_err());
    }
}
