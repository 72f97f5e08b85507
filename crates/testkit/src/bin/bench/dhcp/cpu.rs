//! The processor time that a server takes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// The time that all threads of a process have run until now, in and out of the kernel, to the
/// nanosecond. What the kernel does for it in threads of its own is not in it.
pub(crate) fn used(pid: u32) -> Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while we look.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let run = text.split_whitespace().next().context("an empty schedstat")?;
        sum += run.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

/// The same of a process and of all its children, also of those that have ended, whose time is
/// known to a clock tick each.
pub(crate) fn used_with_children(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything: cutime and cstime are the 14th and 15th field.
    let fields = stat.rsplit_once(')').context("a stat without a name")?.1.split_whitespace();
    let ended: Vec<u64> = fields.skip(13).take(2).filter_map(|field| field.parse().ok()).collect();
    let ticks = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    let ended = Duration::from_secs_f64(ended.iter().sum::<u64>() as f64 / ticks as f64);
    let mut sum = used(pid)? + ended;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            // One that ends while we look is in the other sum, or in neither.
            sum += used_with_children(child).unwrap_or_default();
        }
    }
    Ok(sum)
}
