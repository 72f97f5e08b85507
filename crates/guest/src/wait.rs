//! Doing nothing until something happens.
//!
//! Ring 3 cannot halt, and the guest takes no interrupts. Our VMM therefore offers a wait register
//! at an I/O port: reading it says that it's there, and writing a number of microseconds returns
//! when a queue of the machine has got used buffers since the last wait, when a link changed, or
//! when the time is up. Elsewhere the guest polls.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::port;

const REGISTER: u16 = 0x5658;
const SIGNATURE: u32 = 0x564e_4554; // "VNET"

/// The longest single wait, in microseconds.
pub(crate) const LONGEST: u64 = 1_000_000;

/// Turns of the loop in one wait where there is no register.
const SPINS: u32 = 64;

const UNKNOWN: u8 = 0;
const PRESENT: u8 = 1;
const ABSENT: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Whether the VMM has the wait register; asked once.
pub(crate) fn has_register() -> bool {
    match STATE.load(Ordering::Relaxed) {
        UNKNOWN => {
            let present = port::read32(REGISTER) == SIGNATURE;
            STATE.store(if present { PRESENT } else { ABSENT }, Ordering::Relaxed);
            present
        }
        state => state == PRESENT,
    }
}

/// Waits until something may have happened, `micros` microseconds at most. May return early.
pub(crate) fn idle(micros: u64) {
    if has_register() {
        port::write32(REGISTER, micros.clamp(1, LONGEST) as u32);
        return;
    }
    for _ in 0..SPINS {
        spin_loop();
    }
}
