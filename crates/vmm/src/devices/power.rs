//! ACPI's fixed hardware (ACPI 6.5 §4.8.3): the PM1a registers, the power button and the PM timer.
//!
//! ```text
//! press → status bit → (enabled?) the SCI's line up → the guest clears the bit → line down
//! ```

use std::fmt;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
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
/// PM1 status and enable: the power button.
const POWER_BUTTON: u16 = 1 << 8;
/// ACPI 6.5 §4.8.3.3: the timer's frequency in Hz.
const TIMER_HZ: u128 = 3_579_545;

/// The system control interrupt's line: true is up.
pub type Sci = Box<dyn Fn(bool) + Send + Sync>;

/// The registers.
pub struct Power {
    /// Status and enable, which the line follows.
    event: Mutex<(u16, u16)>,
    sci: Sci,
    control: AtomicU16,
    start: Instant,
}

impl fmt::Debug for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Power").field("event", &self.event).finish_non_exhaustive()
    }
}

impl Power {
    pub(super) fn new(sci: Sci) -> Self {
        Self {
            event: Mutex::new((0, 0)),
            sci,
            control: AtomicU16::new(SCI_ENABLED),
            start: Instant::now(),
        }
    }

    /// Somebody presses the power button.
    pub(super) fn press(&self) {
        self.change(|status, _| *status |= POWER_BUTTON);
    }

    /// Changes status and enable, and lets the line follow.
    fn change(&self, change: impl FnOnce(&mut u16, &mut u16)) {
        let mut event = self.event.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, enable) = &mut *event;
        let before = *status & *enable != 0;
        change(status, enable);
        let now = *status & *enable != 0;
        if now != before {
            (self.sci)(now);
        }
    }

    /// Reads from `offset` into the blocks.
    pub(super) fn read(&self, offset: u16, data: &mut [u8]) {
        let mut registers = [0; 12];
        let (status, enable) = *self.event.lock().unwrap_or_else(PoisonError::into_inner);
        let control = self.control.load(Ordering::Relaxed).to_le_bytes();
        let ticks = self.start.elapsed().as_nanos() * TIMER_HZ / 1_000_000_000;
        registers[usize::from(STATUS)..][..2].copy_from_slice(&status.to_le_bytes());
        registers[usize::from(ENABLE)..][..2].copy_from_slice(&enable.to_le_bytes());
        registers[usize::from(CONTROL)..][..2].copy_from_slice(&control);
        registers[usize::from(TIMER)..][..4].copy_from_slice(&(ticks as u32).to_le_bytes());
        for (to, from) in data.iter_mut().zip(registers.iter().skip(offset.into())) {
            *to = *from;
        }
    }

    /// Writes at `offset`; true if the guest has switched the machine off. Writing a status bit
    /// clears it.
    pub(super) fn write(&self, offset: u16, data: &[u8]) -> bool {
        let mut value = [0; 2];
        for (to, from) in value.iter_mut().zip(data) {
            *to = *from;
        }
        let value = u16::from_le_bytes(value);
        match offset {
            STATUS => {
                let new_enable = (data.len() == 4).then(|| u16::from_le_bytes([data[2], data[3]]));
                self.change(|status, enable| {
                    *status &= !value;
                    *enable = new_enable.unwrap_or(*enable);
                });
            }
            ENABLE => self.change(|_, enable| *enable = value),
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
        let power = Power::new(Box::new(|_| {}));
        assert!(!power.write(CONTROL, &[1, 0]));
        assert!(!power.write(CONTROL, &[0]));
        assert!(power.write(CONTROL, &0x2000_u16.to_le_bytes()));
    }

    #[test]
    fn the_machine_is_in_acpi_mode() {
        let mut control = [0; 2];
        Power::new(Box::new(|_| {})).read(CONTROL, &mut control);
        assert_eq!(control, [1, 0]);
    }

    #[test]
    fn the_button_raises_the_line_until_the_guest_has_seen_it() {
        use std::sync::Arc;
        use std::sync::atomic::AtomicBool;
        let line = Arc::new(AtomicBool::new(false));
        let its = Arc::clone(&line);
        let power = Power::new(Box::new(move |up| its.store(up, Ordering::SeqCst)));
        power.press();
        assert!(!line.load(Ordering::SeqCst));
        power.write(ENABLE, &POWER_BUTTON.to_le_bytes());
        assert!(line.load(Ordering::SeqCst));
        let mut status = [0; 2];
        power.read(STATUS, &mut status);
        assert_eq!(u16::from_le_bytes(status), POWER_BUTTON);
        power.write(STATUS, &POWER_BUTTON.to_le_bytes());
        assert!(!line.load(Ordering::SeqCst));
    }

    #[test]
    fn the_timer_runs() {
        let power = Power::new(Box::new(|_| {}));
        let read = || {
            let mut now = [0; 4];
            power.read(TIMER, &mut now);
            u32::from_le_bytes(now)
        };
        let before = read();
        while read() == before {}
    }
}
