//! The first 256 bytes of configuration space (PCI 3.0 §6): what can be read, and which bits can
//! be written.

use std::ops::Range;

/// Bytes of it.
const BYTES: usize = 256;
/// Offsets of the header's registers.
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BAR0: usize = 0x10;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
/// The first capability.
const FIRST_CAPABILITY: usize = 0x40;

/// Command: memory space, bus master, interrupt disable.
const COMMAND_WRITABLE: u16 = 1 << 1 | 1 << 2 | 1 << 10;
const COMMAND_MEMORY: u8 = 1 << 1;
/// Status: there is a list of capabilities.
const HAS_CAPABILITIES: u8 = 1 << 4;

/// Who a function is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    /// Vendor and device.
    pub(super) id: [u16; 2],
    /// Revision.
    pub(super) revision: u8,
    /// Base class, subclass, programming interface.
    pub(super) class: [u8; 3],
    /// Subsystem's vendor and device.
    pub(super) subsystem: [u16; 2],
}

/// Configuration space with one 32-bit memory BAR.
#[derive(Debug)]
pub(super) struct ConfigSpace {
    bytes: [u8; BYTES],
    writable: [u8; BYTES],
    bar_size: u32,
    next_capability: usize,
    last_link: usize,
}

impl ConfigSpace {
    /// The space of a function whose BAR 0 has `bar_size` bytes, a power of 2, at `bar`.
    pub(super) fn new(identity: &Identity, bar: u32, bar_size: u32) -> Self {
        let mut space = Self {
            bytes: [0; BYTES],
            writable: [0; BYTES],
            bar_size,
            next_capability: FIRST_CAPABILITY,
            last_link: CAPABILITIES,
        };
        let [vendor, device] = identity.id;
        space.put(0x00, &vendor.to_le_bytes());
        space.put(0x02, &device.to_le_bytes());
        let [base, sub, interface] = identity.class;
        space.put(0x08, &[identity.revision, interface, sub, base]);
        let [vendor, device] = identity.subsystem;
        space.put(SUBSYSTEM, &vendor.to_le_bytes());
        space.put(SUBSYSTEM + 2, &device.to_le_bytes());
        space.put(STATUS, &[HAS_CAPABILITIES]);
        space.put(COMMAND, &[COMMAND_MEMORY]);
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        // PCI 3.0 §6.2.5.1: the size shows in the bits that cannot be written.
        space.put(BAR0, &bar.to_le_bytes());
        space.allow(BAR0, &(!(bar_size - 1)).to_le_bytes());
        space.allow(INTERRUPT_LINE, &[0xff]);
        space
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }

    /// Appends the capability `id`, whose bytes after the link are `body`; `writable` is a mask
    /// of its first bytes. Returns its offset.
    pub(super) fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> usize {
        let offset = self.next_capability;
        self.put(offset, &[id, 0]);
        self.put(offset + 2, body);
        self.allow(offset + 2, writable);
        self.bytes[self.last_link] = offset as u8;
        self.last_link = offset + 1;
        self.next_capability = (offset + 2 + body.len()).next_multiple_of(4);
        offset
    }

    /// Reads from `offset`; what is beyond the end is zeroes (no extended capabilities).
    pub(super) fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        for (to, from) in data.iter_mut().zip(self.bytes.iter().skip(offset)) {
            *to = *from;
        }
    }

    /// Writes at `offset` what can be written.
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        let places = self.bytes.iter_mut().zip(&self.writable).skip(offset);
        for ((byte, mask), new) in places.zip(data) {
            *byte = *byte & !mask | new & mask;
        }
    }

    /// The addresses that BAR 0 decodes now, if it does.
    pub(super) fn memory(&self) -> Option<Range<u64>> {
        let mut bar = [0; 4];
        self.read(BAR0, &mut bar);
        let start = u64::from(u32::from_le_bytes(bar) & !(self.bar_size - 1));
        let is_on = self.bytes[COMMAND] & COMMAND_MEMORY != 0 && start != 0;
        is_on.then_some(start..start + u64::from(self.bar_size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity =
        Identity { id: [0x1af4, 0x1041], revision: 1, class: [2, 0, 0], subsystem: [0x1af4, 0x41] };

    fn bar(space: &ConfigSpace) -> u32 {
        let mut bar = [0; 4];
        space.read(BAR0, &mut bar);
        u32::from_le_bytes(bar)
    }

    #[test]
    fn the_bars_size_shows_when_all_ones_are_written() {
        let mut space = ConfigSpace::new(&IDENTITY, 0xc000_0000, 0x8000);
        assert_eq!(space.memory(), Some(0xc000_0000..0xc000_8000));
        space.write(BAR0, &[0xff; 4]);
        assert_eq!(bar(&space), 0xffff_8000);
        space.write(BAR0, &0xd000_0000_u32.to_le_bytes());
        assert_eq!(space.memory(), Some(0xd000_0000..0xd000_8000));
    }

    #[test]
    fn nothing_is_decoded_while_memory_space_is_off() {
        let mut space = ConfigSpace::new(&IDENTITY, 0xc000_0000, 0x8000);
        space.write(COMMAND, &[0, 0]);
        assert_eq!(space.memory(), None);
    }

    #[test]
    fn capabilities_are_a_list() {
        let mut space = ConfigSpace::new(&IDENTITY, 0xc000_0000, 0x8000);
        let first = space.add_capability(9, &[1, 2, 3], &[]);
        let second = space.add_capability(0x11, &[0; 10], &[0, 0xc0]);
        assert_eq!(usize::from(space.bytes[CAPABILITIES]), first);
        assert_eq!(usize::from(space.bytes[first + 1]), second);
        assert_eq!(space.bytes[second + 1], 0);
        space.write(second + 2, &[0xff; 2]);
        assert_eq!(space.bytes[second + 2..second + 4], [0, 0xc0]);
    }

    #[test]
    fn accesses_beyond_the_end_are_quiet() {
        let mut space = ConfigSpace::new(&IDENTITY, 0xc000_0000, 0x8000);
        space.write(254, &[0xff; 8]);
        space.write(4000, &[0xff; 8]);
        let mut data = [0xaa; 8];
        space.read(254, &mut data);
        assert_eq!(data, [0; 8]);
    }
}
