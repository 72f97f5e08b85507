//! The processor time that a server takes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The time that all threads of a process have run until now, in and out of the kernel, to the
/// nanosecond. What the kernel does for it in threads of its own is not in it.
pub(super) fn used(pid: u32) -> Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while we look.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let run = text.split_whitespace().next().context("an empty schedstat")?;
        sum += run.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}
