//! What the kernel forgets with a boot: which one this is, and how long it has lasted.

/// Which boot of the host this is.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Seconds since the boot, sleep included: the clock that lifetimes of addresses go by.
pub(super) fn since_boot() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map_or(0, |time| u64::try_from(time.tv_sec()).unwrap_or_default())
}
