//! Leaving: power off through ACPI, and QEMU's exit port for whoever asked for it.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{phys, port};

/// QEMU's isa-debug-exit; writing n ends QEMU with the status 2n + 1.
const DEBUG_EXIT: u16 = 0xf4;

/// How the machine is switched off.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PowerOff {
    /// The tables don't say.
    #[default]
    Unknown,
    /// Writing `value` to the I/O port of PM1a_CNT.
    Port16 {
        /// The port.
        port: u16,
        /// SLP_TYP and SLP_EN.
        value: u16,
    },
    /// Writing `value` to a byte-wide I/O port.
    Port8 {
        /// The port.
        port: u16,
        /// SLP_TYP and SLP_EN.
        value: u8,
    },
    /// Writing `value` to a byte-wide register in memory.
    Register {
        /// Its address.
        address: u32,
        /// SLP_TYP and SLP_EN.
        value: u8,
    },
}

impl PowerOff {
    /// ACPI 6.4 §4.8.3.2.1: SLP_TYP is bits 10 to 12, SLP_EN bit 13.
    pub(crate) fn pm1(port: u16, sleep_type: u8) -> Self {
        if port == 0 {
            return Self::Unknown;
        }
        Self::Port16 { port, value: (u16::from(sleep_type & 7) << 10) | (1 << 13) }
    }

    /// ACPI 6.4 §4.8.3.7: SLP_TYPx is bits 2 to 4, SLP_EN bit 5.
    pub(crate) fn sleep_register(space: u8, address: u64, sleep_type: u8) -> Self {
        let value = ((sleep_type & 7) << 2) | (1 << 5);
        match (space, u32::try_from(address), u16::try_from(address)) {
            (_, Ok(0), _) | (_, Err(_), _) => Self::Unknown,
            (1, _, Ok(port)) => Self::Port8 { port, value },
            (0, Ok(address), _) => Self::Register { address, value },
            _ => Self::Unknown,
        }
    }

    /// As one word, so that the panic handler can have it: kind, value, address.
    fn pack(self) -> u64 {
        let word = |kind: u64, value: u16, address: u32| {
            (kind << 48) | (u64::from(value) << 32) | u64::from(address)
        };
        match self {
            Self::Unknown => 0,
            Self::Port16 { port, value } => word(1, value, port.into()),
            Self::Port8 { port, value } => word(2, value.into(), port.into()),
            Self::Register { address, value } => word(3, value.into(), address),
        }
    }

    fn unpack(word: u64) -> Self {
        let (value, address) = ((word >> 32) as u16, word as u32);
        match word >> 48 & 3 {
            1 => Self::Port16 { port: address as u16, value },
            2 => Self::Port8 { port: address as u16, value: value as u8 },
            3 => Self::Register { address, value: value as u8 },
            _ => Self::Unknown,
        }
    }
}

const USE_DEBUG_EXIT: u64 = 1 << 63;

static CONFIGURED: AtomicU64 = AtomicU64::new(0);

/// Remembers how to power off, and whether QEMU's exit port was asked for.
pub(crate) fn configure(how: PowerOff, debug_exit: bool) {
    let flag = if debug_exit { USE_DEBUG_EXIT } else { 0 };
    CONFIGURED.store(how.pack() | flag, Ordering::Relaxed);
}

/// Powers off. With the exit port, QEMU ends with the status 33 for `ok` and 35 otherwise.
pub(crate) fn off(ok: bool) -> ! {
    let configured = CONFIGURED.load(Ordering::Relaxed);
    if configured & USE_DEBUG_EXIT != 0 {
        port::write8(DEBUG_EXIT, if ok { 0x10 } else { 0x11 });
    }
    match PowerOff::unpack(configured) {
        PowerOff::Unknown => {}
        PowerOff::Port16 { port, value } => port::write16(port, value),
        PowerOff::Port8 { port, value } => port::write8(port, value),
        PowerOff::Register { address, value } => phys::write_register(address.into(), value),
    }
    // There is no switch: stay as quiet as ring 3 can.
    loop {
        crate::wait::idle(crate::wait::LONGEST);
    }
}
