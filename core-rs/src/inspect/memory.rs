//! The memory that a model takes on a machine, and what would fit where it does not.

use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::convert;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Config;
use crate::quantize::FileType;

/// Bytes for everything that is neither weights nor cache: activations of a prompt's chunk, vocabulary, program.
const WORKING_BYTES: u64 = 192 << 20;
/// A context that a conversation needs at least to be of use; what is worth loading has room for it.
const LEAST_CONTEXT: usize = 512;

/// A machine's memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// All of it.
    pub total: u64,
    /// What may be had without pushing anything out.
    pub available: u64,
}

/// What a model takes.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// Weights as loading keeps them.
    pub weights: u64,
    /// The cache of one conversation that fills its context.
    pub cache: Cache,
    /// Activations, vocabulary, program.
    pub working: u64,
    /// Weights, work, and one conversation in the cache as this engine keeps it.
    pub needed: u64,
    /// What the machine has.
    pub machine: Machine,
    /// Whether it fits.
    pub fits: bool,
    /// What would fit, when it does not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<String>,
}

/// Bytes of a cache for a whole context, by how values are stored.
#[derive(Debug, Serialize)]
pub struct Cache {
    /// Tokens.
    pub context: usize,
    /// Single precision.
    pub f32: u64,
    /// Half precision, which is the default.
    pub f16: u64,
    /// 8 bits and a scale per 32 values.
    pub q8_0: u64,
}

impl Cache {
    fn new(config: &Config, context: usize) -> Self {
        let values = 2 * (config.n_layer * config.n_embd_kv()) as u64 * context as u64;
        Self { context, f32: 4 * values, f16: 2 * values, q8_0: values.div_ceil(32) * 34 }
    }
}

/// What loading needs, and what it needs at the very least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// With one conversation of the whole context.
    pub whole: u64,
    /// With the shortest conversation of use.
    pub least: u64,
}

/// What a model with `weights` bytes needs.
pub fn need(weights: u64, config: &Config) -> Need {
    let with = |context: usize| weights + WORKING_BYTES + Cache::new(config, context).f16;
    Need { whole: with(config.n_ctx), least: with(config.n_ctx.min(LEAST_CONTEXT)) }
}

pub(super) fn memory(checkpoint: &Checkpoint, config: &Config, machine: Machine) -> Memory {
    let weights = checkpoint.weight_bytes();
    let needed = need(weights, config).whole;
    let fits = needed <= machine.available;
    Memory {
        weights,
        cache: Cache::new(config, config.n_ctx),
        working: WORKING_BYTES,
        needed,
        machine,
        fits,
        advice: if fits { Vec::new() } else { advice(checkpoint, config, machine) },
    }
}

/// Smaller choices that fit, the best of each kind.
fn advice(checkpoint: &Checkpoint, config: &Config, machine: Machine) -> Vec<String> {
    let mut advice = Vec::new();
    let weights = checkpoint.weight_bytes();
    if let Some(context) = shorter(weights, config, machine) {
        advice.push(format!(
            "--context {context} takes {}",
            bytes(need(weights, &Config { n_ctx: context, ..config.clone() }).whole)
        ));
    }
    for &file_type in FileType::ALL {
        // A vocabulary that GGUF cannot carry leaves only a shorter context.
        let Ok(plan) = convert::plan_gguf(checkpoint, file_type) else { break };
        let smaller = plan.bytes();
        let needed = need(smaller, config).whole;
        if smaller < weights && needed <= machine.available {
            advice.push(format!("--quantize {} takes {}", file_type.name(), bytes(needed)));
            break;
        }
    }
    advice
}

/// The longest power of two that fits as a context.
fn shorter(weights: u64, config: &Config, machine: Machine) -> Option<usize> {
    let mut context = (config.n_ctx / 2 + 1).next_power_of_two();
    while context >= LEAST_CONTEXT {
        if need(weights, &Config { n_ctx: context, ..config.clone() }).whole <= machine.available {
            return Some(context);
        }
        context /= 2;
    }
    None
}

/// Refuses to load what cannot fit, before the first byte: the machine would swap or kill, and take others with it. The
/// cache grows with the conversation, so only a useful beginning of it counts here.
///
/// # Errors
/// `insufficient_resources`, with what is needed, what there is and what would fit.
pub fn check(checkpoint: &Checkpoint, config: &Config, machine: Machine) -> Result<()> {
    let Need { whole, least } = need(checkpoint.weight_bytes(), config);
    if least <= machine.available {
        return Ok(());
    }
    let smaller = advice(checkpoint, config, machine);
    let smaller = if smaller.is_empty() {
        "no smaller form of it would fit".into()
    } else {
        format!("instead {}", smaller.join(", "))
    };
    let (least, whole, available) = (bytes(least), bytes(whole), bytes(machine.available));
    Err(Error::new(
        ErrorKind::InsufficientResources,
        format!("expected {least} of free memory ({whole} with a full context), got {available}; {smaller}"),
    ))
}

/// Bytes as people read them, in powers of ten as files are sold.
fn bytes(n: u64) -> String {
    match n {
        0..1_000_000 => format!("{:.0} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", n as f64 / 1e6),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}
