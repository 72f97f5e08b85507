//! The PVH boot protocol (Xen's `hvm/start_info.h`): what the kernel finds in memory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use vnet_virtio::GuestMemory;

use super::kernel::Kernel;
use crate::{layout, memory};

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// The version with a memory map.
const VERSION: u32 = 1;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const E820_ACPI: u32 = 3;
const PAGE: u64 = 4096;

/// Why boot data cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The command line is longer than kernels take.
    #[error("the command line has {0} bytes: {max} are possible", max = layout::COMMAND_LINE_MAX - 1)]
    CommandLine(usize),
    /// The initrd cannot be read.
    #[error("cannot read the initrd {path}")]
    Initrd {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The initrd does not fit.
    #[error(
        "the initrd {path} has {bytes} bytes, which do not fit beside the kernel: give the guest more --memory"
    )]
    InitrdTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Guest memory cannot be written.
    #[error("cannot write boot data to guest memory")]
    Memory(#[from] GuestMemoryError),
}

/// What the kernel is told.
#[derive(Debug)]
pub struct BootData<'a> {
    /// The kernel that is to be told.
    pub kernel: Kernel,
    /// Its command line.
    pub command_line: &'a str,
    /// Its initial RAM disk.
    pub initrd: Option<&'a Path>,
    /// Address of the ACPI root pointer.
    pub rsdp: u64,
}

/// Writes everything that the PVH boot protocol wants to where [`layout`] says.
///
/// # Errors
/// The command line or the initrd do not fit, or a file cannot be read.
pub fn write(memory: &GuestMemory, data: &BootData<'_>) -> Result<(), BootError> {
    let line = data.command_line.as_bytes();
    if line.len() >= layout::COMMAND_LINE_MAX {
        return Err(BootError::CommandLine(line.len()));
    }
    memory.write_slice(line, GuestAddress(layout::COMMAND_LINE))?;
    memory.write_obj(0_u8, GuestAddress(layout::COMMAND_LINE + line.len() as u64))?;
    let module = data.initrd.map(|path| load_initrd(memory, path, data.kernel.end)).transpose()?;
    if let Some(module) = module {
        memory.write_obj(module, GuestAddress(layout::MODULES))?;
    }
    let map = memory_map(memory);
    let mut address = layout::MEMORY_MAP;
    for entry in &map {
        memory.write_obj(*entry, GuestAddress(address))?;
        address += size_of::<hvm_memmap_table_entry>() as u64;
    }
    let info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        nr_modules: module.is_some().into(),
        modlist_paddr: if module.is_some() { layout::MODULES } else { 0 },
        cmdline_paddr: layout::COMMAND_LINE,
        rsdp_paddr: data.rsdp,
        memmap_paddr: layout::MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    memory.write_obj(info, GuestAddress(layout::START_INFO))?;
    Ok(())
}

/// The initrd goes to the end of the RAM below the hole, as far from the kernel as can be.
fn load_initrd(
    memory: &GuestMemory,
    path: &Path,
    kernel_end: u64,
) -> Result<hvm_modlist_entry, BootError> {
    let failed = |source| BootError::Initrd { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let too_large = || BootError::InitrdTooLarge { path: path.to_owned(), bytes };
    let paddr = memory::low_end(memory).checked_sub(bytes).ok_or_else(too_large)? & !(PAGE - 1);
    if paddr < kernel_end {
        return Err(too_large());
    }
    let count = usize::try_from(bytes).map_err(|_| too_large())?;
    memory.read_exact_volatile_from(GuestAddress(paddr), &mut file, count)?;
    Ok(hvm_modlist_entry { paddr, size: bytes, ..Default::default() })
}

/// RAM, and what the kernel must keep its hands off. The ECAM has to be reserved here for Linux
/// to use it.
fn memory_map(memory: &GuestMemory) -> Vec<hvm_memmap_table_entry> {
    let entry = |addr, end: u64, type_| hvm_memmap_table_entry {
        addr,
        size: end - addr,
        type_,
        reserved: 0,
    };
    let mut map = vec![
        entry(0, layout::LOW_RAM_END, E820_RAM),
        entry(layout::ACPI, layout::ACPI_END, E820_ACPI),
        entry(layout::HIGH_RAM, memory::low_end(memory), E820_RAM),
        entry(layout::ECAM, layout::ECAM + layout::ECAM_SIZE, E820_RESERVED),
    ];
    if let Some(end) = memory::high_end(memory) {
        map.push(entry(layout::RAM_ABOVE_4G, end, E820_RAM));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_map_has_no_overlaps_and_covers_all_ram() {
        let memory = memory::reserve(4096).unwrap();
        let map = memory_map(&memory);
        assert!(map.windows(2).all(|pair| pair[0].addr + pair[0].size <= pair[1].addr));
        let ram: u64 = map.iter().filter(|e| e.type_ == E820_RAM).map(|e| e.size).sum();
        assert_eq!(ram, (4096 << 20) - (layout::HIGH_RAM - layout::LOW_RAM_END));
    }

    #[test]
    fn an_overlong_command_line_is_refused() {
        let memory = memory::reserve(64).unwrap();
        let kernel = Kernel { entry: 0x10_0000, end: 0x10_1000 };
        let line = "x".repeat(layout::COMMAND_LINE_MAX);
        let data = BootData { kernel, command_line: &line, initrd: None, rsdp: 0 };
        assert!(matches!(write(&memory, &data), Err(BootError::CommandLine(2048))));
    }

    #[test]
    fn an_initrd_that_would_cover_the_kernel_is_refused() {
        let memory = memory::reserve(4).unwrap();
        let initrd = tempfile::NamedTempFile::new().unwrap();
        initrd.as_file().set_len(3 << 20).unwrap();
        let kernel = Kernel { entry: 0x10_0000, end: 0x20_0000 };
        let data = BootData { kernel, command_line: "", initrd: Some(initrd.path()), rsdp: 0 };
        assert!(matches!(write(&memory, &data), Err(BootError::InitrdTooLarge { .. })));
    }
}
