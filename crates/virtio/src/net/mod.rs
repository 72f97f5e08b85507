//! The network card (virtio 1.2 §5.1) on a tap.
//!
//! ```text
//! driver → tx ring → iovecs into guest memory → writev → tap
//! tap → readv → iovecs into guest memory → rx ring → driver
//! ```
//!
//! [`device`] is the card: features, configuration; [`link`] its cable. A [`worker`] thread serves
//! one pair of queues, [`rx`] and [`tx`], on a queue of the tap ([`queues`]); the first one serves
//! the [`control`] queue as well. Frames go straight between guest memory and the tap, together
//! with their `virtio_net_hdr`, which the tap understands.

pub mod control;
pub mod counters;
pub mod device;
pub mod link;
pub mod queues;
pub mod rx;
pub mod tx;
pub mod worker;

#[cfg(test)]
mod tests;

pub use counters::{Counters, Figures};
pub use device::{NetConfig, NetDevice};
pub use link::Link;

/// Features of network cards (virtio 1.2 §5.1.3).
pub mod feature {
    /// The device takes packets with partial checksums.
    pub const CSUM: u64 = 1 << 0;
    /// The driver takes packets with partial checksums.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// The configuration has the largest MTU.
    pub const MTU: u64 = 1 << 3;
    /// The configuration has the MAC address.
    pub const MAC: u64 = 1 << 5;
    /// The driver takes TCP over IPv4 unsegmented.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The driver takes TCP over IPv6 unsegmented.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// The driver takes TCP with ECN unsegmented.
    pub const GUEST_ECN: u64 = 1 << 9;
    /// The device takes TCP over IPv4 unsegmented.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// The device takes TCP over IPv6 unsegmented.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// The device takes TCP with ECN unsegmented.
    pub const HOST_ECN: u64 = 1 << 13;
    /// The driver merges receive buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// The configuration has the state of the link.
    pub const STATUS: u64 = 1 << 16;
    /// There is a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// The control queue takes receive modes.
    pub const CTRL_RX: u64 = 1 << 18;
    /// The driver announces itself to the network when asked to.
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    /// There are several pairs of queues.
    pub const MQ: u64 = 1 << 22;
    /// The driver takes UDP over IPv4 unsegmented.
    pub const GUEST_USO4: u64 = 1 << 54;
    /// The driver takes UDP over IPv6 unsegmented.
    pub const GUEST_USO6: u64 = 1 << 55;
    /// The device takes UDP unsegmented.
    pub const HOST_USO: u64 = 1 << 56;
}

/// What became of a round of work on a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is left to do until the driver kicks.
    WaitDriver,
    /// Nothing can be done until the tap is ready.
    WaitTap,
    /// There may be more: it was enough for one round.
    More,
}

/// Frames that one round of work moves at most, so that the other queue gets its turn.
const ROUND: usize = 64;
/// Frames after which the driver gets to see the used ring, within a round.
const BATCH: usize = 16;
