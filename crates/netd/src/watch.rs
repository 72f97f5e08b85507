//! Descriptors that tokio waits on.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers `fd`, which must not block, with this task's runtime.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is always the same open descriptor, and lives as long as the AsyncFd that
    // owns it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
