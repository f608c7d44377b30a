//! What this machine has, and what it can do at most.

use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant};

use candle_core::Device;
use memmap2::MmapMut;
use serde::Serialize;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::error::{Error, ErrorKind, Result};
use crate::inspect::Machine;
use crate::kernels::Loops;

/// More than the caches of a processor hold, of which a virtual machine has a part.
const READ_BYTES: usize = 512 << 20;
/// Rounds of multiply-adds in a pass: some 20 ms.
const ROUNDS: u64 = 8 << 20;
/// Passes of each kind, of which the fastest counts: what disturbs one is no limit of the machine.
const PASSES: usize = 6;

/// What this machine can do at most with all its processors.
#[derive(Debug, Serialize)]
pub struct Limits {
    /// Threads that were used.
    pub threads: usize,
    /// The instruction set that was used.
    pub instruction_set: &'static str,
    /// Bytes of memory read in a second.
    pub read_bytes_s: f64,
    /// Multiply-adds of int8 in a second.
    pub multiply_adds_s: f64,
}

/// Measures the limits, which takes half a second and 512 MB; `progress` may end it with an error.
///
/// # Errors
/// `insufficient_resources` without the memory, and what `progress` returns.
pub fn limits(progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Limits> {
    let (threads, loops) = (thread::available_parallelism().map_or(1, NonZero::get), Loops::best());
    let mut memory = MmapMut::map_anon(READ_BYTES).map_err(|e| {
        Error::new(ErrorKind::InsufficientResources, format!("measuring this machine: no {READ_BYTES} bytes, {e}"))
    })?;
    // As weights may lie; where the system does not know such pages, others do.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    // SAFETY: any bytes are valid words.
    let (_, words, _) = unsafe { memory.align_to_mut::<u64>() };
    let share = words.len().div_ceil(threads);
    // Written, since pages that nobody has written are all the same one.
    thread::scope(|scope| words.chunks_mut(share).for_each(|part| drop(scope.spawn(|| part.fill(1)))));
    let (words, total) = (&*words, 2 * PASSES as u64);
    let mut passes = |first: u64, work: &dyn Fn() -> f64| -> Result<f64> {
        let mut best = 0f64;
        for pass in 0..PASSES as u64 {
            progress(first + pass, total)?;
            best = best.max(work());
        }
        Ok(best)
    };
    let read_bytes_s = passes(0, &|| {
        let parts = words.chunks(share).map(|part| move || std::hint::black_box(loops.read(part)));
        READ_BYTES as f64 / together(parts).0.as_secs_f64()
    })?;
    let multiply_adds_s = passes(PASSES as u64, &|| {
        let (took, done) = together((0..threads).map(|_| || loops.multiply(ROUNDS)));
        done.iter().sum::<u64>() as f64 / took.as_secs_f64()
    })?;
    Ok(Limits { threads, instruction_set: loops.name(), read_bytes_s, multiply_adds_s })
}

/// Does pieces of work at once, each on a thread; gives the time that it took, and their results.
fn together<W: FnOnce() -> u64 + Send>(work: impl Iterator<Item = W>) -> (Duration, Vec<u64>) {
    let began = Instant::now();
    let done = thread::scope(|scope| {
        let running: Vec<_> = work.map(|piece| scope.spawn(piece)).collect();
        running.into_iter().map(|thread| thread.join().expect("loops do not panic")).collect()
    });
    (began.elapsed(), done)
}

/// Memory in total and available, within the limits of a container if there are any.
pub fn memory() -> Machine {
    let refresh = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(refresh);
    let (total, available) = (system.total_memory(), system.available_memory());
    match system.cgroup_limits() {
        // What a container has cached from files counts as used there, but may be had.
        Some(limits) if limits.total_memory > 0 => Machine {
            total: total.min(limits.total_memory),
            available: available.min(limits.total_memory.saturating_sub(limits.rss)),
        },
        _ => Machine { total, available },
    }
}

/// Memory for a model on `device`: a GPU's own, else this machine's.
///
/// # Errors
/// `internal` when the driver does not say.
pub fn memory_of(device: &Device) -> Result<Machine> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => {
            let (available, total) = gpu.cuda_stream().context().mem_get_info().map_err(candle_core::Error::wrap)?;
            Ok(Machine { total: total as u64, available: available as u64 })
        }
        _ => Ok(memory()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_a_machine_and_can_be_ended() {
        let mut told = Vec::new();
        let limits = limits(&mut |done, total| {
            told.push((done, total));
            Ok(())
        })
        .expect("limits");
        assert_eq!(told, (0..2 * PASSES as u64).map(|pass| (pass, 2 * PASSES as u64)).collect::<Vec<_>>());
        // From a slow board to a large server; nobody does 10 PB or 10^16 multiply-adds in a second.
        assert!(limits.threads > 0 && (1e8..1e16).contains(&limits.read_bytes_s), "{limits:?}");
        assert!((1e8..1e16).contains(&limits.multiply_adds_s), "{limits:?}");
        let ended = super::limits(&mut |_, _| Err(Error::invalid_request("enough")));
        assert_eq!(ended.expect_err("ended").to_string(), "enough");
    }

    #[test]
    fn there_is_memory() {
        let machine = super::memory_of(&candle_core::Device::Cpu).unwrap();
        assert!(machine.available > 0 && machine.available <= machine.total, "{machine:?}");
    }
}
