//! The disk (virtio 1.2 §5.2).
//!
//! ```text
//! driver → ring → request (checked against the disk's size) → engine → file
//!                                                                 ↓ io_uring, or at once
//!          ring ← status byte, used element, one interrupt for all that are done
//! ```
//!
//! [`disk`] is what an image format has to do; [`raw`] the simplest of them. [`device`] is the
//! disk as its driver sees it, a [`queue`] with its thread serves each of its queues, [`request`]
//! reads what a driver asks for, and [`engine`] carries it out: asynchronously, through io_uring,
//! where the disk is a plain file and the host has it.

pub mod device;
pub mod disk;
mod engine;
mod queue;
pub mod raw;
mod request;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::counters;

pub use device::BlkDevice;

/// Bytes of a sector, in which drivers count (virtio 1.2 §5.2.4).
pub const SECTOR: u64 = 512;

/// Features of disks (virtio 1.2 §5.2.3).
mod feature {
    /// The configuration has the most parts of a request.
    pub(super) const SEG_MAX: u64 = 1 << 2;
    /// The disk cannot be written to.
    pub(super) const RO: u64 = 1 << 5;
    /// The configuration has the block size.
    pub(super) const BLK_SIZE: u64 = 1 << 6;
    /// There is a volatile cache, and a request to flush it.
    pub(super) const FLUSH: u64 = 1 << 9;
    /// The configuration has the physical block size.
    pub(super) const TOPOLOGY: u64 = 1 << 10;
    /// The configuration has the number of queues.
    pub(super) const MQ: u64 = 1 << 12;
    /// Ranges can be discarded.
    pub(super) const DISCARD: u64 = 1 << 13;
    /// Ranges can be zeroed.
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
}

counters! {
    /// Read requests that succeeded.
    reads,
    /// Their bytes.
    read_bytes,
    /// Write requests that succeeded.
    writes,
    /// Their bytes.
    written_bytes,
    /// Flushes that succeeded.
    flushes,
    /// Discards and zeroings that succeeded.
    discards,
    /// Requests that failed, or made no sense.
    errors,
    /// Times that requests had to wait because the host had no space.
    no_space,
    /// Kicks by the guest.
    kicks,
    /// Interrupts that the guest wanted.
    interrupts,
    /// Queues stopped because of what the guest did.
    malformed,
}
