//! PCI: finding a device, its capabilities, and addresses for its BARs.
//!
//! Each access to configuration space is an exit to the VMM, so no more is read than is needed.

use crate::acpi::Acpi;
use crate::start_info::StartInfo;
use crate::{phys, port};

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;

const COMMAND: u16 = 0x04;
const BAR0: u16 = 0x10;
const CAPABILITIES: u16 = 0x34;
const VENDOR_CAPABILITY: u8 = 0x09;

/// Memory decoding, bus mastering, INTx off (PCI 3.0 §6.2.2).
const COMMAND_BITS: u32 = 1 << 1 | 1 << 2 | 1 << 10;

/// Where BARs go that nobody has placed: from here up, in the part of the address space where PCs
/// have their devices, in steps of [`WINDOW_STEP`].
const WINDOW: u64 = 0xc000_0000;
const WINDOW_END: u64 = 0xfec0_0000;
const WINDOW_STEP: u64 = 2 << 20;

/// ECAM of one bus: 32 devices of 8 functions of 4 KiB.
const ECAM_BUS: u64 = 1 << 20;

/// One function of a device on bus 0.
#[derive(Clone, Copy)]
pub(crate) struct Function {
    device: u16,
}

/// A vendor-specific capability as virtio lays it out (virtio 1.2 §4.1.4).
#[derive(Clone, Copy)]
pub(crate) struct Capability {
    /// Its offset in configuration space.
    pub(crate) at: u16,
    /// `cap_len`.
    pub(crate) length: u8,
    /// `cfg_type`.
    pub(crate) kind: u8,
}

/// Access to configuration space.
pub(crate) struct Pci {
    ecam: u64,
    /// The next free address for a BAR.
    window: u64,
    info: StartInfo,
}

impl Pci {
    /// Configuration space by ECAM if ACPI names one, else through ports.
    pub(crate) fn new(acpi: &Acpi, info: StartInfo) -> Self {
        let ecam = if phys::reachable(acpi.ecam, ECAM_BUS) { acpi.ecam } else { 0 };
        Self { ecam, window: WINDOW, info }
    }

    /// Reads the 32 bits at `register` (a multiple of 4).
    pub(crate) fn read(&self, function: Function, register: u16) -> u32 {
        let offset = u64::from(function.device) << 15 | u64::from(register & 0xffc);
        if self.ecam != 0 {
            return phys::read_register(self.ecam + offset);
        }
        self.select(function, register);
        port::read32(CONFIG_DATA)
    }

    /// Writes the 32 bits at `register` (a multiple of 4).
    pub(crate) fn write(&self, function: Function, register: u16, value: u32) {
        let offset = u64::from(function.device) << 15 | u64::from(register & 0xffc);
        if self.ecam != 0 {
            phys::write_register(self.ecam + offset, value);
            return;
        }
        self.select(function, register);
        port::write32(CONFIG_DATA, value);
    }

    fn select(&self, function: Function, register: u16) {
        let address = 1 << 31 | u32::from(function.device) << 11 | u32::from(register & 0xfc);
        port::write32(CONFIG_ADDRESS, address);
    }

    /// The first device on bus 0 with one of these ids (vendor in the low half, as in register 0).
    pub(crate) fn find(&self, ids: &[u32]) -> Option<Function> {
        (0..32)
            .map(|device| Function { device })
            .find(|&function| ids.contains(&self.read(function, 0)))
    }

    /// Calls `visit` with each vendor-specific capability.
    pub(crate) fn vendor_capabilities(
        &self,
        function: Function,
        mut visit: impl FnMut(&Self, Capability),
    ) {
        let mut at = (self.read(function, CAPABILITIES) & 0xfc) as u16;
        // 48 capabilities fill configuration space: a list that goes on is a loop.
        for _ in 0..48 {
            if at < 0x40 {
                return;
            }
            let [id, next, length, kind] = self.read(function, at).to_le_bytes();
            if id == VENDOR_CAPABILITY {
                visit(self, Capability { at, length, kind });
            }
            at = u16::from(next & 0xfc);
        }
    }

    /// The address of memory BAR `index`, which gets one if it has none; `None` if the BAR is not
    /// in memory, or out of reach and there is no room below 4 GiB.
    pub(crate) fn bar(&mut self, function: Function, index: u8) -> Option<u64> {
        let register = BAR0 + 4 * u16::from(index);
        let low = self.read(function, register);
        // PCI 3.0 §6.2.5.1: bit 0 is I/O space, bits 1 and 2 the width.
        if index > 5 || low & 1 != 0 {
            return None;
        }
        let wide = low & 0b110 == 0b100 && index < 5;
        let high = if wide { self.read(function, register + 4) } else { 0 };
        let address = u64::from(high) << 32 | u64::from(low & !0xf);
        if address != 0 && phys::reachable(address, 0x1_0000) {
            return Some(address);
        }
        self.write(function, register, u32::MAX);
        let size = u64::from((!(self.read(function, register) & !0xf)).wrapping_add(1));
        let address = self.place(size)?;
        self.write(function, register, address as u32);
        if wide {
            self.write(function, register + 4, 0);
        }
        Some(address)
    }

    /// Free addresses for `size` bytes, aligned to their size.
    fn place(&mut self, size: u64) -> Option<u64> {
        if size == 0 {
            return None;
        }
        let mut at = self.window.next_multiple_of(size);
        while at + size <= WINDOW_END {
            let ecam = self.ecam < at + size && at < self.ecam + (ECAM_BUS << 8);
            if !ecam && !self.info.is_mapped(at, size) {
                self.window = at + size;
                return Some(at);
            }
            at += WINDOW_STEP.next_multiple_of(size);
        }
        None
    }

    /// Lets the device decode memory and write to it, without INTx.
    pub(crate) fn enable(&self, function: Function) {
        self.write(function, COMMAND, COMMAND_BITS);
    }
}
