//! The devices of the board, and which of them answers for an address.
//!
//! | ports | device |
//! |---|---|
//! | 0x3f8-0x3ff | [`serial`]: COM1 |
//! | 0x600-0x60b | [`power`]: ACPI PM1a, the PM timer |
//! | 0xcf8-0xcff | [`pci_root`]: PCI configuration; 0xcf9 the reset register |
//! | 0x64 | the reset line of a keyboard controller that isn't there |
//! | 0x505 | the guest's panics (pvpanic) |
//! | 0xf4 | the verdict: a guest's last word, as QEMU's isa-debug-exit takes it |
//! | 0x5658 | [`wait`]: the paravirtual wait register |
//!
//! Everything else reads as all ones, and writes go nowhere: guests look for CMOS clocks, more
//! serial ports and DMA controllers, and want a quiet answer.

pub mod pci_root;
pub mod power;
pub mod serial;
pub mod wait;

use std::sync::atomic::{AtomicU32, Ordering};

use vnet_virtio::pci::READ_NOTHING;

use crate::layout;
use crate::outcome::Outcome;
use crate::vcpu::pio::PortAccess;
use pci_root::PciRoot;
use power::{Power, Sci};
use serial::SerialPort;

/// Command and status port of the keyboard controller.
const KEYBOARD_COMMAND: u16 = 0x64;
/// The command that pulses the processor's reset line.
const PULSE_RESET: u8 = 0xfe;

/// pvpanic's event: the guest has panicked. What is read are the events that we know.
const PANICKED: u8 = 1;

/// What the vCPU thread is to do after a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Go on.
    None,
    /// The guest has ended the machine.
    End(Outcome),
    /// The guest's kernel has panicked.
    Panicked,
    /// Wait for a device, for so many microseconds at most.
    Wait(u32),
}

/// All devices, shared by the vCPU threads.
#[derive(Debug)]
pub struct Board {
    /// COM1.
    pub serial: SerialPort,
    /// PCI configuration and BARs.
    pub pci: PciRoot,
    power: Power,
    config_address: AtomicU32,
}

impl Board {
    /// A board with these devices.
    #[must_use]
    pub fn new(serial: SerialPort, pci: PciRoot, sci: Sci) -> Self {
        Self { serial, pci, power: Power::new(sci), config_address: AtomicU32::new(0) }
    }

    /// Somebody presses the power button.
    pub fn press_power_button(&self) {
        self.power.press();
    }

    /// A port access of the guest.
    pub fn port(&self, access: PortAccess<'_>) -> Effect {
        let PortAccess { port, width, is_read, data } = access;
        if (layout::SERIAL_PORT..layout::SERIAL_PORT + 8).contains(&port) {
            self.serial.access(port - layout::SERIAL_PORT, width, is_read, data);
            return Effect::None;
        }
        for item in data.chunks_exact_mut(width) {
            if is_read {
                self.read_port(port, item);
            } else {
                match self.write_port(port, item) {
                    Effect::None => {}
                    effect => return effect,
                }
            }
        }
        Effect::None
    }

    fn read_port(&self, port: u16, data: &mut [u8]) {
        data.fill(READ_NOTHING);
        match port {
            layout::PM1A_EVENT..=0x60b => self.power.read(port - layout::PM1A_EVENT, data),
            0xcf8 if data.len() == 4 => {
                data.copy_from_slice(&self.config_address.load(Ordering::Relaxed).to_le_bytes());
            }
            0xcfc..=0xcff => {
                if let Some(address) = self.config_target(port) {
                    self.pci.read_config(address, data);
                }
            }
            layout::WAIT_PORT if data.len() == 4 => data.copy_from_slice(&wait::SIGNATURE),
            layout::PANIC_PORT => data[0] = PANICKED,
            _ => {}
        }
    }

    fn write_port(&self, port: u16, data: &[u8]) -> Effect {
        let value = data.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
        match port {
            layout::PM1A_EVENT..=0x60b if self.power.write(port - layout::PM1A_EVENT, data) => {
                return Effect::End(Outcome::PowerOff);
            }
            0xcf8 if data.len() == 4 => self.config_address.store(value, Ordering::Relaxed),
            layout::PANIC_PORT if value as u8 & PANICKED != 0 => return Effect::Panicked,
            // Bit 2 resets when it goes to 1; bit 1 alone chooses the kind of reset.
            layout::RESET_PORT if value & 4 != 0 => return Effect::End(Outcome::Reset),
            0xcfc..=0xcff => {
                if let Some(address) = self.config_target(port) {
                    self.pci.write_config(address, data);
                }
            }
            KEYBOARD_COMMAND if data == [PULSE_RESET] => return Effect::End(Outcome::Reset),
            layout::VERDICT_PORT => return Effect::End(Outcome::Verdict { status: value }),
            layout::WAIT_PORT if data.len() == 4 => return Effect::Wait(value),
            _ => {}
        }
        Effect::None
    }

    /// Where in configuration space `port` leads now, as an offset into the ECAM. PCI 3.0
    /// §3.2.2.3.2: bit 31 enables, then bus, device, function and register.
    fn config_target(&self, port: u16) -> Option<u64> {
        let address = self.config_address.load(Ordering::Relaxed);
        let function = u64::from(address >> 8 & 0xffff);
        let register = u64::from(address & 0xfc) + u64::from(port & 3);
        (address & 1 << 31 != 0).then_some(function << 12 | register)
    }

    /// A read of memory where there is no RAM.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) {
        data.fill(READ_NOTHING);
        match address.checked_sub(layout::ECAM) {
            Some(offset) if offset < layout::ECAM_SIZE => self.pci.read_config(offset, data),
            _ => self.pci.read_memory(address, data),
        }
    }

    /// A write to memory where there is no RAM.
    pub fn write_memory(&self, address: u64, data: &[u8]) {
        match address.checked_sub(layout::ECAM) {
            Some(offset) if offset < layout::ECAM_SIZE => self.pci.write_config(offset, data),
            _ => self.pci.write_memory(address, data),
        }
    }
}
