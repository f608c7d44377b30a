//! What this machine has.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

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

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_memory() {
        let machine = super::memory();
        assert!(machine.available > 0 && machine.available <= machine.total, "{machine:?}");
    }
}
