//! Kernels as distributions ship them: bzImages, which carry their own decompressor
//! (Linux, Documentation/arch/x86/boot.rst). So any compression will do.

use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use vm_memory::{Bytes, GuestAddress};
use vnet_virtio::GuestMemory;

use super::kernel::{Kernel, KernelError, Protocol};
use super::source::Source;
use crate::layout;
use crate::memory::low_end;

/// Where the setup header is, in the file as in the zero page.
pub(super) const HEADER: usize = 0x1f1;
/// Bytes of the header that are known to us; files may have fewer.
pub(super) const HEADER_BYTES: usize = 0x290 - HEADER;
const SECTOR: u64 = 512;
/// Offset of the 64-bit entry in the protected-mode part.
const ENTRY_64: u64 = 0x200;
/// `xloadflags`: there is a 64-bit entry.
const XLF_KERNEL_64: u16 = 1;
/// The version with `xloadflags` and `init_size`.
const LEAST_VERSION: u16 = 0x20c;

/// The setup header as it stands in the file, zeroes behind its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetupHeader(pub(super) [u8; HEADER_BYTES]);

impl SetupHeader {
    /// N bytes at an offset of the file, which is one of the zero page as well.
    fn bytes<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[offset - HEADER..offset - HEADER + N]);
        bytes
    }

    fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.bytes(offset))
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes(offset))
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.bytes(offset))
    }
}

/// Whether `start`, the first bytes of a file, begin a bzImage.
pub(super) fn is_bzimage(start: &[u8]) -> bool {
    start.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && start.get(0x202..0x206) == Some(b"HdrS")
}

/// Loads the protected-mode part of the bzImage `source`.
///
/// # Errors
/// See [`KernelError`].
pub(super) fn load(source: &Source, memory: &GuestMemory) -> Result<Kernel, KernelError> {
    let path = || source.name().to_owned();
    let read_error = |error| KernelError::Read { path: path(), source: error };
    let mut file = source.file();
    let actual = file.metadata().map_err(read_error)?.len();
    let mut header = [0; HEADER_BYTES];
    file.read_at(&mut header, HEADER as u64).map_err(read_error)?;
    // The header ends as many bytes behind 0x202 as the byte before says.
    let known = (0x202 + usize::from(header[0x201 - HEADER]) - HEADER).min(HEADER_BYTES);
    header[known..].fill(0);
    let header = SetupHeader(header);
    if header.u16(0x206) < LEAST_VERSION || header.u16(0x236) & XLF_KERNEL_64 == 0 {
        return Err(KernelError::No64BitEntry(path()));
    }
    // 0 stands for 4, for the sake of kernels before 1.3.
    let sectors = match header.bytes::<1>(0x1f1)[0] {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let begin = (sectors + 1) * SECTOR;
    let size = u64::from(header.u32(0x1f4)) * 16;
    let expected = begin + size;
    if actual < expected || size == 0 {
        return Err(KernelError::Truncated { path: path(), expected, actual });
    }
    let start = header.u64(0x258);
    let needed = u64::from(header.u32(0x260)).max(size);
    let [low, high] = [layout::HIGH_RAM, low_end(memory)];
    let end = start.saturating_add(needed);
    if start < low || end > high {
        return Err(KernelError::DoesNotFit { path: path(), start, end, low, high });
    }
    file.seek(SeekFrom::Start(begin)).map_err(read_error)?;
    let count =
        usize::try_from(size).map_err(|_| read_error(io::ErrorKind::FileTooLarge.into()))?;
    memory.read_exact_volatile_from(GuestAddress(start), &mut file, count)?;
    Ok(Kernel {
        entry: start + ENTRY_64,
        end,
        initrd_limit: u64::from(header.u32(0x22c)) + 1,
        protocol: Protocol::Linux(header),
    })
}
