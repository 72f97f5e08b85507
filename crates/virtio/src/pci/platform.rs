//! What the transport needs of the machine.

use std::io;

use vmm_sys_util::eventfd::EventFd;

/// A message-signalled interrupt: a write of `data` to `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MsiMessage {
    /// Where it is written to.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

/// One source of message-signalled interrupts.
pub trait MsiVector: Send + Sync {
    /// From now on [`trigger`](Self::trigger) sends `message`; or, if None, nothing.
    ///
    /// # Errors
    /// The host refuses.
    fn route(&self, message: Option<MsiMessage>) -> io::Result<()>;
    /// Sends the message.
    fn trigger(&self);
}

/// The machine.
pub trait Platform: Send + Sync {
    /// A new source of interrupts.
    ///
    /// # Errors
    /// There are no more, or the host refuses.
    fn new_vector(&self) -> io::Result<Box<dyn MsiVector>>;
    /// Makes guest writes to `address` signal `event`, without leaving the kernel.
    ///
    /// # Errors
    /// The host refuses.
    fn add_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()>;
    /// Undoes [`add_doorbell`](Self::add_doorbell).
    ///
    /// # Errors
    /// It isn't there.
    fn remove_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()>;
}
