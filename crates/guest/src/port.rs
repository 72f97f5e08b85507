//! I/O ports. Ring 3 may use them all: see [`crate::boot`].

use core::arch::asm;

/// Writes a byte to `port`.
pub(crate) fn write8(port: u16, value: u8) {
    // SAFETY: port access doesn't touch memory of the program.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) }
}

/// Writes 16 bits to `port`.
pub(crate) fn write16(port: u16, value: u16) {
    // SAFETY: as above.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) }
}

/// Writes 32 bits to `port`.
///
/// The compiler takes memory to have changed afterwards: the write may have been a wait for a
/// device that writes to memory.
pub(crate) fn write32(port: u16, value: u32) {
    // SAFETY: as above.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags));
    }
}

/// Reads 32 bits from `port`.
pub(crate) fn read32(port: u16) -> u32 {
    let value;
    // SAFETY: as above.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags));
    }
    value
}

/// Writes `bytes` one after the other to the byte-wide `port`, in one instruction.
pub(crate) fn write_all8(port: u16, bytes: &[u8]) {
    // SAFETY: reads exactly `bytes`.
    unsafe {
        asm!("rep outsb", in("dx") port, inout("rcx") bytes.len() => _,
            inout("rsi") bytes.as_ptr() => _, options(nostack, preserves_flags));
    }
}
