//! What a virtio device is to a transport.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::GuestMemory;
use crate::interrupt::Interrupt;
use crate::queue::Ring;

/// VIRTIO_F_RING_INDIRECT_DESC (virtio 1.2 §6).
pub const RING_INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_RING_EVENT_IDX (virtio 1.2 §6).
pub const RING_EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1 (virtio 1.2 §6).
pub const VERSION_1: u64 = 1 << 32;

/// The kinds of device (virtio 1.2 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A network card.
    Net,
    /// A disk.
    Block,
    /// A console.
    Console,
    /// A source of entropy.
    Rng,
}

impl Kind {
    /// The device's number in the standard.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::Net => 1,
            Self::Block => 2,
            Self::Console => 3,
            Self::Rng => 4,
        }
    }

    /// The PCI class code: base class, subclass, programming interface.
    #[must_use]
    pub const fn pci_class(self) -> [u8; 3] {
        match self {
            Self::Net => [2, 0, 0],
            Self::Block => [1, 0, 0],
            Self::Console => [7, 0x80, 0],
            Self::Rng => [0xff, 0, 0],
        }
    }
}

/// A queue that the driver has set up.
#[derive(Debug)]
pub struct ActiveQueue {
    /// Its number.
    pub index: u16,
    /// Its descriptors.
    pub ring: Ring,
    /// Readable when the driver has made buffers available.
    pub kick: EventFd,
}

/// All that a device needs to work.
pub struct Activation {
    /// Guest memory.
    pub memory: GuestMemory,
    /// The queues that the driver has enabled, in order.
    pub queues: Vec<ActiveQueue>,
    /// The features that the driver has accepted.
    pub features: u64,
    /// How to call the driver.
    pub interrupt: Arc<dyn Interrupt>,
}

/// Why a device cannot work as its driver has set it up.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The driver has not enabled a queue that it can't do without.
    #[error("the driver has not enabled queue {0}")]
    MissingQueue(u16),
    /// The host refused something.
    #[error("cannot {what}")]
    Host {
        /// What it was asked for.
        what: &'static str,
        /// Its answer.
        #[source]
        source: io::Error,
    },
}

/// A device, whatever its transport. Offsets come from the guest: any are possible.
pub trait VirtioDevice: Send {
    /// What it is.
    fn kind(&self) -> Kind;
    /// The most descriptors of each of its queues; powers of 2.
    fn queue_sizes(&self) -> &[u16];
    /// The features of its kind that it offers.
    fn features(&self) -> u64;
    /// Reads its configuration from `offset`; beyond its end are zeroes.
    fn read_config(&self, offset: usize, data: &mut [u8]);
    /// Starts to work: the driver has said DRIVER_OK.
    ///
    /// # Errors
    /// It cannot; the driver then sees DEVICE_NEEDS_RESET.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;
    /// Stops to work, and forgets its driver. Does nothing while it isn't working.
    fn reset(&mut self);
}
