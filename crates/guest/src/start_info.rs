//! `hvm_start_info`: what a PVH boot loader hands over (Xen's `public/arch-x86/hvm/start_info.h`).

use crate::phys;

const MAGIC: u32 = 0x336e_c578;

/// The longest command line that is looked at, in bytes; Linux's own limit is 2048.
const COMMAND_LINE: usize = 4096;

/// Entries of the memory map that are looked at.
const MEMORY_MAP: u32 = 128;

/// The fields that the guest uses. All default to "not given".
#[derive(Clone, Copy, Default)]
pub(crate) struct StartInfo {
    command_line: u64,
    /// Address of the ACPI root pointer, or 0.
    pub(crate) rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
}

impl StartInfo {
    /// Reads the structure at `address`; nothing is given if there is none.
    pub(crate) fn read(address: usize) -> Self {
        let base = address as u64;
        if phys::read::<u32>(base) != Some(MAGIC) {
            return Self::default();
        }
        let version = phys::read::<u32>(base + 4).unwrap_or(0);
        let mut info = Self {
            command_line: phys::read(base + 24).unwrap_or(0),
            rsdp: phys::read(base + 32).unwrap_or(0),
            ..Self::default()
        };
        if version >= 1 {
            info.memory_map = phys::read(base + 40).unwrap_or(0);
            info.memory_map_entries = phys::read(base + 48).unwrap_or(0).min(MEMORY_MAP);
        }
        info
    }

    /// The command line, up to the first byte that isn't UTF-8; empty if there is none.
    pub(crate) fn command_line(&self) -> &'static str {
        let bytes = phys::bytes(self.command_line, COMMAND_LINE).unwrap_or(&[]);
        let length = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        match core::str::from_utf8(&bytes[..length]) {
            Ok(text) => text,
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
        }
    }

    /// Whether anything in the memory map lies in the `length` bytes at `address`.
    pub(crate) fn is_mapped(&self, address: u64, length: u64) -> bool {
        (0..u64::from(self.memory_map_entries)).any(|index| {
            let entry = self.memory_map + index * 24;
            let start: u64 = phys::read(entry).unwrap_or(0);
            let size: u64 = phys::read(entry + 8).unwrap_or(0);
            start < address + length && address < start.saturating_add(size)
        })
    }
}
