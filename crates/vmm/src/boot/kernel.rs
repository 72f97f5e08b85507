//! Kernels: ELF files with a PVH note.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use linux_loader::loader::elf::{Elf, PvhBootCapability};
use linux_loader::loader::{self, KernelLoader};
use vm_memory::Address;
use vnet_virtio::GuestMemory;

use crate::layout;
use crate::memory::low_end;

/// Bytes of an ELF64 file header and of a program header.
const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;

/// A kernel in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Where the first vCPU begins, in 32-bit protected mode.
    pub entry: u64,
    /// The first byte beyond the kernel and its zeroed data.
    pub end: u64,
}

/// Why a kernel cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file cannot be opened.
    #[error("cannot open the kernel {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read the kernel {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is no ELF.
    #[error("{0} is no ELF file for x86-64: give an uncompressed kernel (vmlinux)")]
    NotElf(PathBuf),
    /// The file ends too early.
    #[error(
        "{path} is truncated: it should have {expected} bytes, and has {actual}; copy it again"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that its headers speak of.
        expected: u64,
        /// Bytes that it has.
        actual: u64,
    },
    /// The kernel cannot be booted the PVH way.
    #[error("{0} has no PVH entry note: a Linux kernel needs CONFIG_PVH=y")]
    NoPvhNote(PathBuf),
    /// The kernel does not fit into guest memory.
    #[error(
        "{path} does not fit: it loads at {start:#x} to {end:#x}, and memory for kernels is {low:#x} to {high:#x}; give the guest more --memory"
    )]
    DoesNotFit {
        /// The file.
        path: PathBuf,
        /// Where it begins.
        start: u64,
        /// Where it ends.
        end: u64,
        /// Where kernels may begin.
        low: u64,
        /// Where the memory ends.
        high: u64,
    },
    /// The loader refused it.
    #[error("{path} cannot be loaded")]
    Load {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: loader::Error,
    },
}

/// Loads the ELF file at `path` to where it wants to be in `memory`.
///
/// # Errors
/// See [`KernelError`].
pub fn load(path: &Path, memory: &GuestMemory) -> Result<Kernel, KernelError> {
    let path_buf = || path.to_owned();
    let mut file =
        File::open(path).map_err(|source| KernelError::Open { path: path_buf(), source })?;
    check(path, &file, memory)?;
    let loaded = Elf::load(memory, None, &mut file, None)
        .map_err(|source| KernelError::Load { path: path_buf(), source })?;
    match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => {
            Ok(Kernel { entry: entry.raw_value(), end: loaded.kernel_end })
        }
        _ => Err(KernelError::NoPvhNote(path_buf())),
    }
}

/// Looks at the headers first, so that what is wrong can be said.
fn check(path: &Path, file: &File, memory: &GuestMemory) -> Result<(), KernelError> {
    let path_buf = || path.to_owned();
    let read_error = |source| KernelError::Read { path: path_buf(), source };
    let metadata = file.metadata().map_err(read_error)?;
    if !metadata.is_file() {
        return Err(KernelError::NotElf(path_buf()));
    }
    let actual = metadata.len();
    let read = |buffer: &mut [u8], offset: u64| match file.read_exact_at(buffer, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let expected = offset.saturating_add(buffer.len() as u64);
            Err(KernelError::Truncated { path: path_buf(), expected, actual })
        }
        other => other.map_err(read_error),
    };
    let mut start = [0; 20];
    if actual < start.len() as u64 {
        return Err(KernelError::NotElf(path_buf()));
    }
    read(&mut start, 0)?;
    // Class 64, little endian, machine x86-64.
    if !start.starts_with(b"\x7fELF\x02\x01") || start[18..20] != [62, 0] {
        return Err(KernelError::NotElf(path_buf()));
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
