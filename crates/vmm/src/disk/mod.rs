//! Disk images: from `--disk` to a [`Disk`].
//!
//! ```text
//! --disk FILE,… → config → open, lock → raw (vnet-virtio) | qcow2 (imago) → virtio/blk
//! ```
//!
//! An image's format is never guessed from its content: a guest that writes a qcow2 header to its
//! raw disk must not get the files that the header names at its next start.

mod config;
mod open;
mod qcow2;

pub(crate) use config::number;
pub use config::{DiskConfig, Format};
pub use open::{DiskError, open};
