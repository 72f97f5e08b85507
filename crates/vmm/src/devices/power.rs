//! ACPI's fixed hardware (ACPI 6.5 §4.8.3): the PM1a registers and the PM timer. There are no
//! buttons and no wake events, so the only thing that happens here is that a guest switches off.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

/// Offsets from the PM1a event block.
const STATUS: u16 = 0;
const ENABLE: u16 = 2;
const CONTROL: u16 = 4;
const TIMER: u16 = 8;
/// PM1 control: the machine is in ACPI mode, always.
const SCI_ENABLED: u16 = 1;
/// PM1 control: go to the sleep state in bits 10 to 12.
const SLEEP_ENABLE: u16 = 1 << 13;
/// ACPI 6.5 §4.8.3.3: the timer's frequency in Hz.
const TIMER_HZ: u128 = 3_579_545;

/// The registers.
#[derive(Debug)]
pub struct Power {
    enable: AtomicU16,
    control: AtomicU16,
    start: Instant,
}

impl Power {
    pub(super) fn new() -> Self {
        Self {
            enable: AtomicU16::new(0),
            control: AtomicU16::new(SCI_ENABLED),
            start: Instant::now(),
        }
    }

    /// Reads from `offset` into the blocks.
    pub(super) fn read(&self, offset: u16, data: &mut [u8]) {
        let mut registers = [0; 12];
        let enable = self.enable.load(Ordering::Relaxed).to_le_bytes();
        let control = self.control.load(Ordering::Relaxed).to_le_bytes();
        let ticks = self.start.elapsed().as_nanos() * TIMER_HZ / 1_000_000_000;
        registers[usize::from(ENABLE)..][..2].copy_from_slice(&enable);
        registers[usize::from(CONTROL)..][..2].copy_from_slice(&control);
        registers[usize::from(TIMER)..][..4].copy_from_slice(&(ticks as u32).to_le_bytes());
        for (to, from) in data.iter_mut().zip(registers.iter().skip(offset.into())) {
            *to = *from;
        }
    }

    /// Writes at `offset`; true if the guest has switched the machine off. Status bits, which a
    /// write clears, are never set.
    pub(super) fn write(&self, offset: u16, data: &[u8]) -> bool {
        let mut value = [0; 2];
        for (to, from) in value.iter_mut().zip(data) {
            *to = *from;
        }
        let value = u16::from_le_bytes(value);
        match offset {
            STATUS if data.len() == 4 => {
                let enable = u16::from_le_bytes([data[2], data[3]]);
                self.enable.store(enable, Ordering::Relaxed);
            }
            ENABLE => self.enable.store(value, Ordering::Relaxed),
            CONTROL => {
                self.control.store(value & !SLEEP_ENABLE | SCI_ENABLED, Ordering::Relaxed);
                // The DSDT knows one sleep state, S5, whose type is 0.
                return data.len() >= 2 && value & SLEEP_ENABLE != 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sleep_bit_switches_off() {
        let power = Power::new();
        assert!(!power.write(CONTROL, &[1, 0]));
        assert!(!power.write(CONTROL, &[0]));
        assert!(power.write(CONTROL, &0x2000_u16.to_le_bytes()));
    }

    #[test]
    fn the_machine_is_in_acpi_mode() {
        let mut control = [0; 2];
        Power::new().read(CONTROL, &mut control);
        assert_eq!(control, [1, 0]);
    }

    #[test]
    fn the_timer_runs() {
        let power = Power::new();
        let read = || {
            let mut now = [0; 4];
            power.read(TIMER, &mut now);
            u32::from_le_bytes(now)
        };
        let before = read();
        while read() == before {}
    }
}
