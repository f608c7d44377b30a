//! What this machine has.

use candle_core::Device;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::error::Result;
use crate::inspect::Machine;

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
    #[test]
    fn there_is_memory() {
        let machine = super::memory_of(&candle_core::Device::Cpu).unwrap();
        assert!(machine.available > 0 && machine.available <= machine.total, "{machine:?}");
    }
}
