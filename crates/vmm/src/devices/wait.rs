//! The paravirtual wait register, port 0x5658 ("VX"): how a guest that polls stays idle.
//!
//! The built-in guest lives in ring 3 with interrupts off, where `hlt` is illegal. A 32-bit OUT
//! of N to this port returns when a virtio queue has had a used-ring update, or a device's
//! configuration has changed, since this vCPU's last wait; or after N microseconds at most. N = 0
//! returns at once (and counts what happened so far as seen). Suppressed interrupts wake as well:
//! the guest may run without MSI-X.
//!
//! A 32-bit IN gives the signature 0x564e4554 ("VNET"), so that a guest can tell that the
//! register is there; on other machines it reads as all ones, or as nothing that resembles it.
//!
//! The wait itself is [`vnet_virtio::wake::Wake`], done by the vCPU's thread.

/// What an IN gives: 0x564e4554.
pub const SIGNATURE: [u8; 4] = 0x564e_4554_u32.to_le_bytes();
