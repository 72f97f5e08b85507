//! Numbers that differ between guests that start at the same moment. Not for secrets.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::{boot, time};

/// CPUID 1 ecx.
const RDRAND: u32 = 1 << 30;

static STATE: AtomicU64 = AtomicU64::new(0);

/// Starts the sequence from the card's address, the time, and the processor's generator if it
/// has one.
pub(crate) fn seed(mac: [u8; 6]) {
    let [a, b, c, d, e, f] = mac;
    let mut seed = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    seed = mix(seed) ^ time::ticks();
    if boot::facts().features & RDRAND != 0 {
        let random: u64;
        // SAFETY: the processor has the instruction; without a number it gives 0, which is fine.
        unsafe { asm!("rdrand {}", out(reg) random, options(nomem, nostack)) };
        seed ^= random;
    }
    STATE.store(mix(seed), Ordering::Relaxed);
}

/// The next number.
pub(crate) fn next() -> u64 {
    // Weyl sequence and finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    let state = STATE.load(Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.store(state, Ordering::Relaxed);
    mix(state)
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
