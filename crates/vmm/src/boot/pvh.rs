//! The PVH boot protocol (Xen's `hvm/start_info.h`): what the kernel finds in memory.

use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use vnet_virtio::GuestMemory;

use super::data::{Initrd, MapEntry};
use crate::layout;

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// The version with a memory map.
const VERSION: u32 = 1;

/// Writes everything that the PVH boot protocol wants to where [`layout`] says.
///
/// # Errors
/// Guest memory is too small.
pub(super) fn write(
    memory: &GuestMemory,
    map: &[MapEntry],
    initrd: Option<Initrd>,
    rsdp: u64,
) -> Result<(), GuestMemoryError> {
    if let Some(Initrd { address, bytes }) = initrd {
        let module = hvm_modlist_entry { paddr: address, size: bytes, ..Default::default() };
        memory.write_obj(module, GuestAddress(layout::MODULES))?;
    }
    let mut address = layout::MEMORY_MAP;
    for entry in map {
        let entry = hvm_memmap_table_entry {
            addr: entry.start,
            size: entry.bytes(),
            type_: entry.kind,
            reserved: 0,
        };
        memory.write_obj(entry, GuestAddress(address))?;
        address += size_of::<hvm_memmap_table_entry>() as u64;
    }
    let info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        nr_modules: initrd.is_some().into(),
        modlist_paddr: if initrd.is_some() { layout::MODULES } else { 0 },
        cmdline_paddr: layout::COMMAND_LINE,
        rsdp_paddr: rsdp,
        memmap_paddr: layout::MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    memory.write_obj(info, GuestAddress(layout::START_INFO))
}
