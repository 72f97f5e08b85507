//! Kernels, of whichever kind: what they have in common once they are in guest memory, and what
//! can be wrong with them.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use linux_loader::loader;
use vnet_virtio::GuestMemory;

use super::source::Source;
use super::{bzimage, elf};

/// Bytes from a file's beginning that tell of what kind it is.
const START: usize = 0x264;

/// How a kernel is told what it must know, and in which state its first processor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Xen's PVH: 32-bit protected mode, see [`super::pvh`].
    Pvh,
    /// Linux' own, by its 64-bit entry: see [`super::linux`]. The header is the file's.
    Linux(bzimage::SetupHeader),
}

/// A kernel in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Where the first vCPU begins.
    pub entry: u64,
    /// The first byte beyond what the kernel needs at once, its zeroed data included.
    pub end: u64,
    /// The first address at which no part of the initial RAM disk may be.
    pub initrd_limit: u64,
    /// How it is booted.
    pub protocol: Protocol,
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
    /// The file is no kernel.
    #[error("{0} is no kernel: give a bzImage (vmlinuz) or an ELF file (vmlinux) for x86-64")]
    NotKernel(PathBuf),
    /// The file is a kernel for another machine.
    #[error("{0} is not for x86-64: give a kernel of this architecture")]
    Architecture(PathBuf),
    /// The kernel is too old.
    #[error("{0} cannot be entered in 64-bit mode: it is older than Linux 3.8, or a 32-bit kernel")]
    No64BitEntry(PathBuf),
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
    #[error("{0} has no PVH entry note: a Linux kernel needs CONFIG_PVH=y, or give its bzImage")]
    NoPvhNote(PathBuf),
    /// The kernel does not fit into guest memory.
    #[error(
        "{path} does not fit: it needs {start:#x} to {end:#x}, and memory for kernels is {low:#x} to {high:#x}; give the guest more --memory"
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
    /// Guest memory cannot be written.
    #[error("cannot write the kernel to guest memory")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// Loads a kernel to where it wants to be in `memory`.
///
/// # Errors
/// See [`KernelError`].
pub fn load(source: &Source, memory: &GuestMemory) -> Result<Kernel, KernelError> {
    let mut start = [0; START];
    let count = source
        .file()
        .read_at(&mut start, 0)
        .map_err(|error| KernelError::Read { path: source.name().to_owned(), source: error })?;
    let start = &start[..count];
    if elf::is_elf(start) {
        elf::load(source, memory)
    } else if bzimage::is_bzimage(start) {
        bzimage::load(source, memory)
    } else {
        Err(KernelError::NotKernel(source.name().to_owned()))
    }
}
