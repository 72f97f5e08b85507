//! Descriptors that tokio waits on.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `fd`, which must not block, with this task's runtime.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watch_for(fd, Interest::READABLE | Interest::WRITABLE)
}

/// The same for one that is only waited on for something to read: what it sends wakes nobody.
pub(crate) fn watch_input(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watch_for(fd, Interest::READABLE)
}

fn watch_for(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is always the same open descriptor, and lives as long as the AsyncFd that
    // owns it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
