//! How a device calls its driver.

/// The device's side of the notifications that a transport delivers. Called from the device's own
/// threads; never blocks for long.
pub trait Interrupt: Send + Sync {
    /// The used ring of queue `index` has changed. `wanted` says whether the driver asked for an
    /// interrupt; those who poll are woken either way.
    fn used(&self, index: u16, wanted: bool);
    /// The device's configuration has changed.
    fn config_changed(&self);
    /// The device cannot go on with a queue: it sets DEVICE_NEEDS_RESET and says so
    /// (virtio 1.2 §2.1.2).
    fn needs_reset(&self);
}
