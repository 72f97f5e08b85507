//! The jail: what a guest that has taken over the VMM could still do.
//!
//! ```text
//! vm: everything is opened → enter (no new privileges, no capabilities, no files: Landlock)
//!     → devices' threads  ┐
//!     → vCPUs' threads    ├ confine (a list of system calls for each role: seccomp)
//!     → the monitor       ┘
//! ```
//!
//! A system call that is not on its thread's list ends the process at once, with a line that says
//! which it was: see [`trap`].

mod calls;
mod landlocked;
mod trap;

use std::io;

use seccompiler::BpfProgram;
use vnet_virtio::worker;

/// The exit code of a process that the jail has ended.
pub const EXIT_CODE: u8 = 7;

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs a virtual processor.
    Vcpu,
    /// Watches over all others.
    Monitor,
    /// Works for a device.
    Device(worker::Role),
}

/// Why the jail cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// The kernel refused something.
    #[error("cannot confine the process: {what}")]
    Refused {
        /// What it was asked for.
        what: &'static str,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// A list of system calls cannot be made into a filter.
    #[error("cannot confine a thread")]
    Filter(#[from] seccompiler::Error),
    /// Landlock refused.
    #[error("cannot confine the process to its open files")]
    Landlock(#[from] landlock::RulesetError),
}

/// Gives up what the process no longer needs: for this thread and all that it starts from now on.
///
/// # Errors
/// See [`JailError`].
pub fn enter() -> Result<(), JailError> {
    trap::install().map_err(|source| JailError::Refused { what: "handle SIGSYS", source })?;
    let prctl = |option, argument: libc::c_ulong| {
        let zero: libc::c_ulong = 0;
        // SAFETY: none of the options that are used here takes a pointer.
        if unsafe { libc::prctl(option, argument, zero, zero, zero) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
        .map_err(|source| JailError::Refused { what: "no new privileges", source })?;
    drop_capabilities()
        .map_err(|source| JailError::Refused { what: "drop its capabilities", source })?;
    landlocked::restrict()?;
    Ok(())
}

/// Empties the thread's capability sets. With no new privileges, nothing fills them again.
fn drop_capabilities() -> io::Result<()> {
    // linux/capability.h
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    // Two times effective, permitted, inheritable.
    let none = [0_u32; 6];
    // SAFETY: both point to live values of the layout that version 3 has; the kernel reads them.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Confines the current thread to what its role needs.
///
/// # Errors
/// See [`JailError`].
pub fn confine(role: Role) -> Result<(), JailError> {
    let filter: BpfProgram = calls::filter(role)?;
    seccompiler::apply_filter(&filter)?;
    Ok(())
}

/// As [`confine`], for threads that cannot report an error: they end the process instead.
pub fn confine_or_end(role: Role) {
    if let Err(error) = confine(role) {
        tracing::error!("{error}: the machine is not run without its jail");
        std::process::exit(1);
    }
}
