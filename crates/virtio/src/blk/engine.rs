//! Carrying out transfers: through io_uring where the disk is a plain file and the host lets us,
//! at once otherwise.
//!
//! The ring takes reads, writes and flushes and nothing else (`IORING_REGISTER_RESTRICTIONS`), so
//! that it is no way around the sandbox.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use io_uring::register::Restriction;
use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};

use super::disk::{Disk, Parts};

/// Transfers that can be under way at once; in tests, fewer than a queue of theirs holds.
pub(super) const IN_FLIGHT: usize = if cfg!(test) { 2 } else { 64 };

/// What is to be done with a disk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Transfer<'a> {
    /// Fill the parts from this offset.
    Read(Parts<'a>, u64),
    /// Write the parts to this offset; durably, if so.
    Write(Parts<'a>, u64, bool),
    /// Put all that was written on stable storage.
    Flush,
}

/// What carries transfers out.
pub(super) struct Engine {
    disk: Arc<dyn Disk>,
    ring: Option<IoUring>,
    /// Those that were done at once.
    done: Vec<Done>,
}

/// A transfer that has ended: the number that it was started with, and the bytes that were moved,
/// which may be fewer than asked for.
pub(super) type Done = (usize, io::Result<usize>);

impl Engine {
    /// The engine for `disk`.
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        let ring = disk.plain_file().and_then(|_| restricted_ring().ok());
        Self { disk, ring, done: Vec::with_capacity(IN_FLIGHT) }
    }

    /// Without io_uring, as on hosts that don't have it.
    #[cfg(test)]
    pub(super) fn direct(disk: Arc<dyn Disk>) -> Self {
        Self { disk, ring: None, done: Vec::new() }
    }

    /// Readable when transfers have ended, if they do so by themselves.
    pub(super) fn fd(&self) -> Option<RawFd> {
        self.ring.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Starts a transfer; `number` comes back when it has ended. Its parts' iovecs must stay
    /// where they are until then.
    pub(super) fn start(&mut self, number: usize, transfer: Transfer<'_>) {
        let file = self.disk.plain_file();
        match (&mut self.ring, file) {
            (Some(ring), Some(file)) => {
                let file = types::Fd(file.as_raw_fd());
                let entry = entry(file, transfer).user_data(number as u64);
                if let Err(error) = push(ring, &entry) {
                    self.done.push((number, Err(error)));
                }
            }
            _ => {
                let result = match transfer {
                    Transfer::Read(parts, offset) => {
                        self.disk.read(parts, offset).map(|()| parts.bytes())
                    }
                    Transfer::Write(parts, offset, is_durable) => {
                        self.disk.write(parts, offset, is_durable).map(|()| parts.bytes())
                    }
                    Transfer::Flush => self.disk.flush().map(|()| 0),
                };
                self.done.push((number, result));
            }
        }
    }

    /// Lets the host begin with what was started.
    pub(super) fn submit(&mut self) {
        if let Some(ring) = &mut self.ring {
            // An error leaves them in the queue, for the next time.
            let _ = ring.submit();
        }
    }

    /// Lets the host begin with what was started, and waits until one has ended.
    pub(super) fn wait(&mut self) {
        if let Some(ring) = &mut self.ring
            && self.done.is_empty()
        {
            // An interrupted wait is one without an end; callers count.
            let _ = ring.submit_and_wait(1);
        }
    }

    /// The next transfer that has ended, if there is one.
    pub(super) fn finished(&mut self) -> Option<Done> {
        self.done.pop().or_else(|| {
            let entry = self.ring.as_mut()?.completion().next()?;
            let result = match entry.result() {
                count if count >= 0 => Ok(count.cast_unsigned() as usize),
                error => Err(io::Error::from_raw_os_error(-error)),
            };
            Some((entry.user_data() as usize, result))
        })
    }
}

fn entry(file: types::Fd, transfer: Transfer<'_>) -> Entry {
    match transfer {
        Transfer::Read(parts, offset) => {
            let iovecs = parts.iovecs();
            opcode::Readv::new(file, iovecs.as_ptr(), iovecs.len() as u32).offset(offset).build()
        }
        Transfer::Write(parts, offset, is_durable) => {
            let iovecs = parts.iovecs();
            let flags = if is_durable { libc::RWF_DSYNC } else { 0 };
            opcode::Writev::new(file, iovecs.as_ptr(), iovecs.len() as u32)
                .offset(offset)
                .rw_flags(flags)
                .build()
        }
        Transfer::Flush => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
    }
}

fn push(ring: &mut IoUring, entry: &Entry) -> io::Result<()> {
    // SAFETY: the entry's iovecs stay until its completion (see `Engine::start`); they point to
    // guest memory, which stays mapped until the process ends.
    let push = |ring: &mut IoUring| unsafe { ring.submission().push(entry) };
    if push(ring).is_err() {
        ring.submit()?;
        push(ring).map_err(io::Error::other)?;
    }
    Ok(())
}

fn restricted_ring() -> io::Result<IoUring> {
    let ring = IoUring::builder().setup_r_disabled().dontfork().build(IN_FLIGHT as u32)?;
    let mut allowed =
        [opcode::Readv::CODE, opcode::Writev::CODE, opcode::Fsync::CODE].map(Restriction::sqe_op);
    ring.submitter().register_restrictions(&mut allowed)?;
    ring.submitter().register_enable_rings()?;
    Ok(ring)
}
