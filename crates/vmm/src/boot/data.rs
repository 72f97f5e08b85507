//! What every kernel is told, whichever the protocol: its command line, its initial RAM disk, and
//! where memory is.

use std::io;
use std::path::PathBuf;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use vnet_virtio::GuestMemory;

use super::kernel::{Kernel, Protocol};
use super::source::Source;
use super::{linux, pvh};
use crate::{layout, memory};

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const E820_ACPI: u32 = 3;
const PAGE: u64 = 4096;
/// The kernel takes archives one after the other; each begins at a multiple of this.
const INITRD_ALIGNMENT: u64 = 4;

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
        /// Its size, or that of all of them.
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
    /// Its initial RAM disk, in parts.
    pub initrds: &'a [Source],
    /// Address of the ACPI root pointer.
    pub rsdp: u64,
}

/// An initial RAM disk in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Initrd {
    pub(super) address: u64,
    pub(super) bytes: u64,
}

/// A range of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MapEntry {
    pub(super) start: u64,
    pub(super) end: u64,
    /// What it is, in E820's numbers, which both protocols use.
    pub(super) kind: u32,
}

impl MapEntry {
    pub(super) fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// Writes everything that the kernel's protocol wants to where [`layout`] says.
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
    let initrd = load_initrds(memory, data.initrds, &data.kernel)?;
    let map = memory_map(memory);
    match &data.kernel.protocol {
        Protocol::Pvh => pvh::write(memory, &map, initrd, data.rsdp)?,
        Protocol::Linux(header) => {
            linux::write(memory, &linux::Facts { header, map: &map, initrd, rsdp: data.rsdp })?;
        }
    }
    Ok(())
}

/// The initrds go one after the other to the end of the RAM below the hole, or of what the kernel
/// can reach of it, as far from the kernel as can be.
fn load_initrds(
    memory: &GuestMemory,
    sources: &[Source],
    kernel: &Kernel,
) -> Result<Option<Initrd>, BootError> {
    let Some(last) = sources.last() else { return Ok(None) };
    let mut bytes = 0_u64;
    let mut places = Vec::new();
    for source in sources {
        let failed = |error| BootError::Initrd { path: source.name().to_owned(), source: error };
        let size = source.file().metadata().map_err(failed)?.len();
        let offset = bytes.next_multiple_of(INITRD_ALIGNMENT);
        places.push((source, offset, size));
        bytes = offset.saturating_add(size);
    }
    let too_large = || BootError::InitrdTooLarge { path: last.name().to_owned(), bytes };
    let top = memory::low_end(memory).min(kernel.initrd_limit);
    let address = top.checked_sub(bytes).ok_or_else(too_large)? & !(PAGE - 1);
    if address < kernel.end {
        return Err(too_large());
    }
    for (source, offset, size) in places {
        let count = usize::try_from(size).map_err(|_| too_large())?;
        let at = GuestAddress(address + offset);
        memory.read_exact_volatile_from(at, &mut source.file(), count)?;
    }
    Ok(Some(Initrd { address, bytes }))
}

/// RAM, and what the kernel must keep its hands off. The ECAM has to be reserved here for Linux
/// to use it.
fn memory_map(memory: &GuestMemory) -> Vec<MapEntry> {
    let entry = |start, end, kind| MapEntry { start, end, kind };
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

    const KERNEL: Kernel = Kernel {
        entry: 0x10_0000,
        end: 0x20_0000,
        initrd_limit: u64::MAX,
        protocol: Protocol::Pvh,
    };

    #[test]
    fn the_memory_map_has_no_overlaps_and_covers_all_ram() {
        let memory = memory::reserve(4096).unwrap();
        let map = memory_map(&memory);
        assert!(map.windows(2).all(|pair| pair[0].end <= pair[1].start));
        let ram: u64 = map.iter().filter(|e| e.kind == E820_RAM).map(MapEntry::bytes).sum();
        assert_eq!(ram, (4096 << 20) - (layout::HIGH_RAM - layout::LOW_RAM_END));
    }

    #[test]
    fn an_overlong_command_line_is_refused() {
        let memory = memory::reserve(64).unwrap();
        let line = "x".repeat(layout::COMMAND_LINE_MAX);
        let data = BootData { kernel: KERNEL, command_line: &line, initrds: &[], rsdp: 0 };
        assert!(matches!(write(&memory, &data), Err(BootError::CommandLine(2048))));
    }

    #[test]
    fn an_initrd_that_would_cover_the_kernel_is_refused() {
        let memory = memory::reserve(4).unwrap();
        let initrds = [Source::from_bytes("big".into(), &[0; 3 << 20]).unwrap()];
        let data = BootData { kernel: KERNEL, command_line: "", initrds: &initrds, rsdp: 0 };
        assert!(matches!(write(&memory, &data), Err(BootError::InitrdTooLarge { .. })));
    }

    #[test]
    fn initrds_lie_one_behind_the_other_below_the_kernels_limit() {
        let memory = memory::reserve(64).unwrap();
        let sources = [b"abc".as_slice(), b"de"]
            .map(|bytes| Source::from_bytes("part".into(), bytes).unwrap());
        let kernel = Kernel { initrd_limit: 32 << 20, ..KERNEL };
        let initrd = load_initrds(&memory, &sources, &kernel).unwrap().unwrap();
        assert_eq!((initrd.bytes, initrd.address), (6, (32 << 20) - 4096));
        let mut bytes = [0; 6];
        memory.read_slice(&mut bytes, GuestAddress(initrd.address)).unwrap();
        assert_eq!(&bytes, b"abc\0de");
    }
}
