//! virtio over PCI (virtio 1.2 §4.1), modern devices only.
//!
//! `transport` is the function on the bus; it consists of `config` (configuration space),
//! `common` (the registers with which a driver sets a device up), `msix` (interrupt messages)
//! and `signals` (what the device's threads use of all that). BAR 0, 32 KiB:
//!
//! | offset | what |
//! |---|---|
//! | 0x0000 | common configuration |
//! | 0x1000 | ISR status |
//! | 0x2000 | the device's own configuration |
//! | 0x3000 | notifications, 4 bytes a queue |
//! | 0x4000 | MSI-X table |
//! | 0x5000 | MSI-X pending bits |

mod common;
mod config;
mod function;
mod msix;
mod platform;
mod signals;
mod transport;

#[cfg(test)]
mod tests;

pub use function::{Function, READ_NOTHING};
pub use platform::{MsiMessage, MsiVector, Platform};
pub use transport::{BAR_SIZE, Parts, VirtioPci};
