//! The JavaScript border of the WebAssembly build: the same few verbs as the C border, on one object.
//!
//! How a caller uses it:
//!
//! ```text
//! engine = new WasmEngine(json)         bytes of the file and limits
//! loop: engine.push(chunk)              the file in order, in chunks of any size; nothing is kept twice
//! json = engine.finish()                the model's description
//! r = engine.submit(json)               the reply's records carry r
//! r = engine.embed(json)                the same for a text as a vector
//! loop: while engine.step()             a bounded piece of work each; events in between
//!         engine.events()               see `records` for the layout
//! engine.cancel(r)                      its last record follows
//! engine.free()
//! ```
//!
//! What fails throws a string, `{"code", "message"}` in JSON. A panic is a trap: the instance is of no more use, and
//! `panic_text` has the sentence. Absent here: decisions.

use serde::de::DeserializeOwned;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::engine::{EmbedRequest, Request};
use crate::error::{Error, Result};
use crate::platform::{self, Stepped};
use crate::records;

/// How a failure is thrown.
type Thrown<T> = std::result::Result<T, String>;

fn thrown<T>(result: Result<T>) -> Thrown<T> {
    result.map_err(|error| records::failure(&error))
}

fn from_json<T: DeserializeOwned>(what: &str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|e| Error::invalid_request(format!("expected {what} in JSON, got {e}")))
}

/// Runs once when the module is instantiated.
#[wasm_bindgen(start)]
fn start() {
    platform::keep_panic_text();
}

/// The text of the panic that ended this instance, if one did. May be called after a trap.
#[wasm_bindgen]
pub fn panic_text() -> Option<String> {
    platform::panic_text()
}

/// An engine that its caller drives.
#[wasm_bindgen]
pub struct WasmEngine(Stepped);

#[wasm_bindgen]
impl WasmEngine {
    /// An engine that waits for its model. The configuration is `{"file_bytes", "context_length"?, "max_running"?,
    /// "max_waiting"?, "speculate"?, "cpu"?}` in JSON.
    #[wasm_bindgen(constructor)]
    pub fn new(config_json: &str) -> Thrown<WasmEngine> {
        thrown(from_json("an engine configuration", config_json).and_then(|config| Stepped::new(&config)).map(Self))
    }

    /// Takes the next bytes of the GGUF file.
    pub fn push(&mut self, chunk: &[u8]) -> Thrown<()> {
        thrown(self.0.push(chunk))
    }

    /// All bytes are there: makes the model and describes it in JSON.
    pub fn finish(&mut self) -> Thrown<String> {
        thrown(self.0.finish().map(|info| records::json(&*info)))
    }

    /// Hands in a request in JSON; returns its id above 0.
    pub fn submit(&mut self, request_json: &str) -> Thrown<u32> {
        thrown(Request::from_json(request_json.as_bytes()).and_then(|request| self.0.submit(request)))
    }

    /// Hands in a text that is to become a vector, in JSON; returns its id above 0.
    pub fn embed(&mut self, request_json: &str) -> Thrown<u32> {
        thrown(EmbedRequest::from_json(request_json.as_bytes()).and_then(|request| self.0.submit(request)))
    }

    /// Ends a request; its last record follows: done, or of an embedding an error of kind `closed`. A request that has ended already is left alone.
    pub fn cancel(&mut self, request: u32) {
        self.0.cancel(request);
    }

    /// One piece of work, a chunk of a prompt or one token; false when there is nothing to do, or when events must be
    /// taken first.
    pub fn step(&mut self) -> bool {
        self.0.step()
    }

    /// The records of what happened since the last call.
    pub fn events(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for event in self.0.take_events() {
            records::append(&event, &mut bytes, usize::MAX);
        }
        bytes
    }

    /// Token ids of a prompt, a JSON array of its parts.
    pub fn tokenize(&self, prompt_json: &str) -> Thrown<Vec<u32>> {
        let parts = from_json::<Vec<String>>("an array of texts", prompt_json);
        thrown(parts.and_then(|parts| self.0.tokenizer()?.encode(&parts)))
    }

    /// Text of token ids.
    pub fn detokenize(&self, ids: &[u32]) -> Thrown<String> {
        thrown(self.0.tokenizer().and_then(|tokenizer| tokenizer.decode(ids)))
    }

    /// How busy the engine is, in JSON: `{"waiting", "running", "generated_tokens", "healthy"}`.
    pub fn stats(&self) -> String {
        records::json(&self.0.stats())
    }
}
