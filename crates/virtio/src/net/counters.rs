//! What a network card counts.

use std::sync::atomic::{AtomicU64, Ordering};

pub(super) use crate::counters::add;
use crate::counters::counters;

counters! {
    /// Frames given to the guest.
    rx_frames,
    /// Their bytes, headers of the tap not counted.
    rx_bytes,
    /// Frames for which the guest's buffers were too small, or that came while the link was down.
    rx_dropped,
    /// Frames taken from the guest.
    tx_frames,
    /// Their bytes, headers of the tap not counted.
    tx_bytes,
    /// Frames that the tap refused, or that were sent while the link was down.
    tx_dropped,
    /// Commands that the guest gave through its control queue.
    commands,
    /// Kicks by the guest, of all queues.
    kicks,
    /// Interrupts that the guest wanted, of all queues.
    interrupts,
    /// Queues stopped because of what the guest did.
    malformed,
}
