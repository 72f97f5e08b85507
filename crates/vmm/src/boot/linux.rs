//! Linux' own boot protocol, by the 64-bit entry (Linux, Documentation/arch/x86/boot.rst and
//! zero-page.rst): the zero page, and page tables that map the first 4 GiB to themselves.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use vnet_virtio::GuestMemory;

use super::bzimage::{HEADER, SetupHeader};
use super::data::{Initrd, MapEntry};
use crate::layout;

const PAGE: usize = 4096;
/// Offsets in the zero page.
const ACPI_RSDP: usize = 0x070;
const MAP_ENTRIES: usize = 0x1e8;
const TYPE_OF_LOADER: usize = 0x210;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const COMMAND_LINE: usize = 0x228;
const MAP: usize = 0x2d0;
/// Bytes of an entry of the memory map.
const MAP_ENTRY: usize = 20;
/// A boot loader that has no number of its own.
const NO_NUMBER: u8 = 0xff;

/// Page table entries: present, writable; a page of 2 MiB.
const TABLE: u64 = 3;
const LARGE: u64 = 0x83;

/// Segments of the 64-bit entry: code at 0x10, data at 0x18.
const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// What the zero page tells.
pub(super) struct Facts<'a> {
    pub(super) header: &'a SetupHeader,
    pub(super) map: &'a [MapEntry],
    pub(super) initrd: Option<Initrd>,
    pub(super) rsdp: u64,
}

/// Writes the zero page, page tables and segments to where [`layout`] says.
///
/// # Errors
/// Guest memory is too small.
pub(super) fn write(memory: &GuestMemory, facts: &Facts<'_>) -> Result<(), GuestMemoryError> {
    let mut page = [0; PAGE];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(HEADER, &facts.header.0);
    put(TYPE_OF_LOADER, &[NO_NUMBER]);
    put(ACPI_RSDP, &facts.rsdp.to_le_bytes());
    put(COMMAND_LINE, &(layout::COMMAND_LINE as u32).to_le_bytes());
    if let Some(Initrd { address, bytes }) = facts.initrd {
        // Both lie below 4 GiB, see `data`.
        put(RAMDISK_IMAGE, &(address as u32).to_le_bytes());
        put(RAMDISK_SIZE, &(bytes as u32).to_le_bytes());
    }
    put(MAP_ENTRIES, &[facts.map.len() as u8]);
    for (entry, at) in facts.map.iter().zip((MAP..).step_by(MAP_ENTRY)) {
        put(at, &entry.start.to_le_bytes());
        put(at + 8, &entry.bytes().to_le_bytes());
        put(at + 16, &entry.kind.to_le_bytes());
    }
    memory.write_slice(&page, GuestAddress(layout::ZERO_PAGE))?;
    for (entry, at) in GDT.iter().zip((layout::BOOT_GDT..).step_by(8)) {
        memory.write_obj(*entry, GuestAddress(at))?;
    }
    write_page_tables(memory)
}

/// One table of level 4, one of level 3, and four of level 2, each of which maps 1 GiB.
fn write_page_tables(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    let [level_4, level_3] = [layout::BOOT_PAGES, layout::BOOT_PAGES + 0x1000];
    memory.write_obj(level_3 | TABLE, GuestAddress(level_4))?;
    for gigabyte in 0..4_u64 {
        let level_2 = level_3 + 0x1000 * (gigabyte + 1);
        memory.write_obj(level_2 | TABLE, GuestAddress(level_3 + 8 * gigabyte))?;
        let mut table = [0; PAGE];
        for (index, slot) in table.chunks_exact_mut(8).enumerate() {
            let address = gigabyte << 30 | (index as u64) << 21;
            slot.copy_from_slice(&(address | LARGE).to_le_bytes());
        }
        memory.write_slice(&table, GuestAddress(level_2))?;
    }
    Ok(())
}
