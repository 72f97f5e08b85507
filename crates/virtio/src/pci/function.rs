//! A function on the PCI bus, as the host bridge sees it.

use std::ops::Range;

/// The byte that reads of what isn't there give.
pub const READ_NOTHING: u8 = 0xff;

/// One function: its configuration space and the memory that it answers for. Offsets and lengths
/// come from the guest: any are possible.
pub trait Function: Send {
    /// Reads configuration space from `offset`.
    fn read_config(&mut self, offset: u16, data: &mut [u8]);
    /// Writes configuration space at `offset`.
    fn write_config(&mut self, offset: u16, data: &[u8]);
    /// The guest-physical addresses that the function decodes now, if any.
    fn memory(&self) -> Option<Range<u64>>;
    /// Reads `offset` bytes into [`memory`](Self::memory).
    fn read_memory(&mut self, offset: u64, data: &mut [u8]);
    /// Writes `offset` bytes into [`memory`](Self::memory).
    fn write_memory(&mut self, offset: u64, data: &[u8]);
    /// Stops what works in the background, because the machine ends.
    fn shut_down(&mut self);
}
