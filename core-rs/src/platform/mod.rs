//! What differs between machines: the clock, random seeds, how a file comes into memory, and who gives an engine its
//! time. Everything above is the same code everywhere.
//!
//! A native machine has a [`Host`] with a thread; WebAssembly has none, so its caller drives a [`Stepped`] (which is
//! portable, so that it is tested natively as well).

#[cfg(not(target_family = "wasm"))]
mod native;
mod stepped;
#[cfg(target_family = "wasm")]
mod wasm;

#[cfg(not(target_family = "wasm"))]
pub use native::host::{Host, HostConfig};
#[cfg(not(target_family = "wasm"))]
pub(crate) use native::panic_text;
#[cfg(not(target_family = "wasm"))]
pub use native::source::Source;
#[cfg(not(target_family = "wasm"))]
pub use native::task::{Task, TaskConfig};
#[cfg(not(target_family = "wasm"))]
pub use native::{MappedFile, monotonic_ms, random_seed};
pub use stepped::{Stepped, SteppedConfig};
#[cfg(target_family = "wasm")]
pub use wasm::{keep_panic_text, monotonic_ms, panic_text, random_seed};
