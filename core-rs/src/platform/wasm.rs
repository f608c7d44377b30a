//! The WebAssembly side: clock and randomness of the JavaScript host, and the last words of a panic. There is one
//! thread and no file.

use std::sync::{Mutex, PoisonError};

use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen]
extern "C" {
    /// A global in browsers, Deno, Node and edge runtimes.
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
}

static LAST_WORDS: Mutex<Option<String>> = Mutex::new(None);

/// Milliseconds since some moment; never goes back.
pub fn monotonic_ms() -> f64 {
    performance_now()
}

/// A seed that differs from call to call, for requests that bring none. Not for secrets.
pub fn random_seed() -> u64 {
    // A host without randomness still has a clock.
    getrandom::u64().unwrap_or_else(|_| monotonic_ms().to_bits())
}

/// From now on, remember the text of a panic: it ends in a trap, which has none.
pub fn keep_panic_text() {
    std::panic::set_hook(Box::new(|panic| {
        *LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic.to_string());
    }));
}

/// The text of the panic that ended this instance, if one did.
pub fn panic_text() -> Option<String> {
    LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
