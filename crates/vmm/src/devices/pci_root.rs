//! The PCI host bridge: bus 0, whose functions are reached through configuration space (ECAM and
//! the ports 0xcf8, 0xcfc) and through the memory that their BARs decode.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vnet_virtio::pci::Function;

/// Devices on a bus.
pub const SLOTS: usize = 32;
/// Vendor and device of the bridge itself: Red Hat's generic PCIe host bridge.
const BRIDGE_ID: [u8; 4] = [0x36, 0x1b, 0x08, 0x00];
/// Class code of a host bridge, after the revision.
const BRIDGE_CLASS: [u8; 4] = [0, 0, 0, 6];

/// Bus 0.
pub struct PciRoot {
    /// Device numbers from 1; 0 is the bridge. One function each.
    slots: Vec<Mutex<Box<dyn Function>>>,
}

impl fmt::Debug for PciRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciRoot").field("slots", &self.slots.len()).finish()
    }
}

impl PciRoot {
    /// A bus with `functions` as devices 1, 2 and so on. Those beyond the last slot are dropped.
    #[must_use]
    pub fn new(functions: Vec<Box<dyn Function>>) -> Self {
        Self { slots: functions.into_iter().take(SLOTS - 1).map(Mutex::new).collect() }
    }

    /// The function that `offset` into the ECAM belongs to, and the register.
    fn target(&self, offset: u64) -> Option<(Target<'_>, u16)> {
        let register = (offset & 0xfff) as u16;
        let function = offset >> 12 & 7;
        let device = (offset >> 15 & 0x1f) as usize;
        let bus = offset >> 20;
        if bus != 0 || function != 0 {
            return None;
        }
        let target = match device.checked_sub(1) {
            None => Target::Bridge,
            Some(slot) => Target::Function(lock(self.slots.get(slot)?)),
        };
        Some((target, register))
    }

    /// Reads configuration space at `offset` into the ECAM; `data` stays as it is if nothing is
    /// there.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        match self.target(offset) {
            Some((Target::Bridge, register)) => {
                for (index, byte) in data.iter_mut().enumerate() {
                    *byte = bridge_byte(usize::from(register) + index);
                }
            }
            Some((Target::Function(mut function), register)) => {
                function.read_config(register, data);
            }
            None => {}
        }
    }

    /// Writes configuration space at `offset` into the ECAM.
    pub fn write_config(&self, offset: u64, data: &[u8]) {
        if let Some((Target::Function(mut function), register)) = self.target(offset) {
            function.write_config(register, data);
        }
    }

    /// Reads the memory of whichever function decodes `address`.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) {
        if let Some((mut function, offset)) = self.decode(address) {
            function.read_memory(offset, data);
        }
    }

    /// Writes the memory of whichever function decodes `address`.
    pub fn write_memory(&self, address: u64, data: &[u8]) {
        if let Some((mut function, offset)) = self.decode(address) {
            function.write_memory(offset, data);
        }
    }

    fn decode(&self, address: u64) -> Option<(MutexGuard<'_, Box<dyn Function>>, u64)> {
        self.slots.iter().map(lock).find_map(|function| {
            let range = function.memory().filter(|range| range.contains(&address))?;
            Some((function, address - range.start))
        })
    }

    /// Stops all functions' work in the background.
    pub fn shut_down(&self) {
        for slot in &self.slots {
            lock(slot).shut_down();
        }
    }
}

enum Target<'a> {
    Bridge,
    Function(MutexGuard<'a, Box<dyn Function>>),
}

fn lock(slot: &Mutex<Box<dyn Function>>) -> MutexGuard<'_, Box<dyn Function>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bridge_byte(register: usize) -> u8 {
    match register {
        0..4 => BRIDGE_ID[register],
        8..12 => BRIDGE_CLASS[register - 8],
        _ => 0,
    }
}
