//! Kernels that are ELF files with a PVH note.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::Address;
use vnet_virtio::GuestMemory;

use super::kernel::{Kernel, KernelError, Protocol};
use super::source::Source;
use crate::layout;
use crate::memory::low_end;

/// Bytes of an ELF64 file header and of a program header.
const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;

/// Whether `start`, the first bytes of a file, begin an ELF file.
pub(super) fn is_elf(start: &[u8]) -> bool {
    start.starts_with(b"\x7fELF")
}

/// Loads the ELF file `source` to where it wants to be in `memory`.
///
/// # Errors
/// See [`KernelError`].
pub(super) fn load(source: &Source, memory: &GuestMemory) -> Result<Kernel, KernelError> {
    let path = source.name();
    let mut file = source.file();
    check(path, file, memory)?;
    let loaded = Elf::load(memory, None, &mut file, None)
        .map_err(|source| KernelError::Load { path: path.to_owned(), source })?;
    match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => Ok(Kernel {
            entry: entry.raw_value(),
            end: loaded.kernel_end,
            initrd_limit: u64::MAX,
            protocol: Protocol::Pvh,
        }),
        _ => Err(KernelError::NoPvhNote(path.to_owned())),
    }
}

/// Looks at the headers first, so that what is wrong can be said.
fn check(path: &Path, file: &File, memory: &GuestMemory) -> Result<(), KernelError> {
    let path_buf = || path.to_owned();
    let read_error = |source| KernelError::Read { path: path_buf(), source };
    let actual = file.metadata().map_err(read_error)?.len();
    let read = |buffer: &mut [u8], offset: u64| match file.read_exact_at(buffer, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let expected = offset.saturating_add(buffer.len() as u64);
            Err(KernelError::Truncated { path: path_buf(), expected, actual })
        }
        other => other.map_err(read_error),
    };
    let mut start = [0; 20];
    read(&mut start, 0)?;
    // Class 64, little endian, machine x86-64.
    if start[4..6] != [2, 1] || start[18..20] != [62, 0] {
        return Err(KernelError::Architecture(path_buf()));
    }
    let mut header = [0; FILE_HEADER];
    read(&mut header, 0)?;
    let table = le64(&header, 32);
    let count = u16::from_le_bytes([header[56], header[57]]);
    for index in 0..u64::from(count) {
        let mut segment = [0; PROGRAM_HEADER];
        read(&mut segment, table.saturating_add(index * PROGRAM_HEADER as u64))?;
        let [offset, address] = [le64(&segment, 8), le64(&segment, 24)];
        let [in_file, in_memory] = [le64(&segment, 32), le64(&segment, 40)];
        let expected = offset.saturating_add(in_file);
        if expected > actual {
            return Err(KernelError::Truncated { path: path_buf(), expected, actual });
        }
        let is_loaded = le64(&segment, 0) as u32 == PT_LOAD && in_memory.max(in_file) > 0;
        let end = address.saturating_add(in_memory.max(in_file));
        let [low, high] = [layout::HIGH_RAM, low_end(memory)];
        if is_loaded && (address < low || end > high) {
            return Err(KernelError::DoesNotFit {
                path: path_buf(),
                start: address,
                end,
                low,
                high,
            });
        }
    }
    Ok(())
}

fn le64(bytes: &[u8], offset: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(value)
}
