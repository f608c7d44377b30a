//! What differs between machines: the clock, random seeds, how a file comes into memory, and the thread that hosts an
//! engine. Everything above is the same code everywhere.

mod native;

pub(crate) use native::host::panic_text;
pub use native::host::{Host, HostConfig, HostEvent, Stats};
pub use native::{MappedFile, monotonic_ms, random_seed};
