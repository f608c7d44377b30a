//! The cores that threads run on, where the system tells and lets us choose (Linux). Elsewhere nothing is known and
//! nothing moves.

/// A core's number, as the system counts.
pub(super) type Core = u32;

/// The core that the calling thread runs on. It may be another one a moment later.
#[cfg(target_os = "linux")]
pub(super) fn current() -> Option<Core> {
    // SAFETY: it reads no memory of ours.
    Core::try_from(unsafe { libc::sched_getcpu() }).ok()
}

/// Moves the calling thread to a core that is not among `taken`, if it may run on one; whether it did. Afterwards the
/// system may move it again, among the cores that it was allowed before.
#[cfg(target_os = "linux")]
pub(super) fn leave(taken: impl Iterator<Item = Core>) -> bool {
    const SIZE: usize = size_of::<libc::cpu_set_t>();
    // SAFETY: a set of cores is bits, of which all may be zero.
    let mut allowed = unsafe { std::mem::zeroed::<libc::cpu_set_t>() };
    // SAFETY: the set is as large as is said.
    if unsafe { libc::sched_getaffinity(0, SIZE, &raw mut allowed) } != 0 {
        return false;
    }
    let mut others = allowed;
    for core in taken.map(|core| core as usize).filter(|&core| core < 8 * SIZE) {
        // SAFETY: the set has a bit for this core.
        unsafe { libc::CPU_CLR(core, &mut others) };
    }
    // SAFETY: both sets are as large as is said. Without a core in it the first is refused, and nothing changes. The second
    // is what the system gave a moment ago: should it be refused all the same, the thread stays where it may be now.
    unsafe {
        let left = libc::sched_setaffinity(0, SIZE, &raw const others) == 0;
        if left {
            libc::sched_setaffinity(0, SIZE, &raw const allowed);
        }
        left
    }
}

/// The cores that the calling thread may run on.
#[cfg(all(test, target_os = "linux"))]
pub(super) fn allowed() -> Vec<Core> {
    const SIZE: usize = size_of::<libc::cpu_set_t>();
    // SAFETY: a set of cores is bits, of which all may be zero.
    let mut allowed = unsafe { std::mem::zeroed::<libc::cpu_set_t>() };
    // SAFETY: the set is as large as is said.
    assert_eq!(unsafe { libc::sched_getaffinity(0, SIZE, &raw mut allowed) }, 0);
    // SAFETY: the set has a bit for each of these cores.
    (0..8 * SIZE).filter(|&core| unsafe { libc::CPU_ISSET(core, &allowed) }).map(|core| core as Core).collect()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn current() -> Option<Core> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(super) fn leave(_: impl Iterator<Item = Core>) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// In a thread of its own, since it moves.
    fn apart(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn a_thread_leaves_a_core_and_may_come_back() {
        apart(|| {
            let before = allowed();
            let core = current().unwrap();
            assert!(before.contains(&core));
            assert_eq!(leave([core].into_iter()), before.len() > 1);
            assert_eq!(allowed(), before);
        });
    }

    #[test]
    fn without_another_core_it_stays() {
        apart(|| {
            let before = allowed();
            assert!(!leave(before.iter().copied()));
            assert_eq!(allowed(), before);
        });
    }
}
