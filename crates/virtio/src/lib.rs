//! virtio devices (virtio 1.2) and their PCI transport.
//!
//! ```text
//! driver ── PCI accesses ──▶ pci (capabilities, BAR, MSI-X) ── activate, reset ──▶ a device (net, blk)
//!   │                                                                               │
//!   └── descriptors, in guest memory ──▶ queue ◀────── worker thread of the device ─┘
//!                                                        └─▶ interrupt, wake
//! ```
//!
//! A device implements [`device::VirtioDevice`] and knows nothing of PCI. It gets its queues as
//! [`queue::Ring`]s when the driver says DRIVER_OK, works on them in threads of its own, and
//! gives them up at a reset. Those threads ([`worker`]) exist from the beginning, so that they can be
//! confined before a guest runs. A new kind of device is a new folder beside [`net`].
//!
//! What a guest does wrong stops the queue it did it on, sets DEVICE_NEEDS_RESET, and is counted.

pub mod blk;
pub mod console;
mod counters;
pub mod device;
pub mod interrupt;
pub mod limit;
pub mod net;
pub mod pci;
pub mod queue;
pub mod rng;
pub mod wake;
pub mod worker;

#[cfg(test)]
mod testing;

/// Guest memory as all parts of the machine share it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
