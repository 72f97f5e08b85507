//! Guest memory: anonymous, aligned to 2 MiB so that the kernel can back it with huge pages, in
//! one piece below the PCI hole and one above 4 GiB.

use std::io;

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MmapRegion};
use vnet_virtio::GuestMemory;

use crate::layout;

/// Huge pages of x86-64, and the alignment that lets the kernel use them.
const HUGE_PAGE: usize = 2 << 20;
/// Least memory that a machine can have, in MiB: boot data, a small kernel, its stack.
pub const LEAST_MIB: u64 = 4;
/// Most memory that a machine can have, in MiB: 8 TiB, less than 43 bits of address.
pub const MOST_MIB: u64 = 8 << 20;

/// Why there is no memory for a guest.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The size makes no sense.
    #[error("a machine has {LEAST_MIB} to {MOST_MIB} MiB of memory, not {0}")]
    Size(u64),
    /// The kernel has not so much.
    #[error("cannot reserve {mib} MiB of guest memory: choose a smaller --memory")]
    Map {
        /// What was asked for.
        mib: u64,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The pieces cannot be put together.
    #[error("cannot lay out guest memory")]
    Layout(#[source] vm_memory::GuestRegionCollectionError),
    /// A mapping cannot become guest memory.
    #[error("cannot use a mapping as guest memory")]
    Region(#[source] MmapRegionError),
}

/// Reserves `mib` MiB of guest memory. Pages come as they are touched. The mappings stay until
/// the process ends, because KVM and device threads hold addresses in them.
///
/// # Errors
/// The size is out of bounds, or the host has no room for it.
pub fn reserve(mib: u64) -> Result<GuestMemory, MemoryError> {
    if !(LEAST_MIB..=MOST_MIB).contains(&mib) {
        return Err(MemoryError::Size(mib));
    }
    let bytes = mib << 20;
    let low = bytes.min(layout::ECAM);
    let mut regions = vec![region(mib, low, 0)?];
    if bytes > low {
        regions.push(region(mib, bytes - low, layout::RAM_ABOVE_4G)?);
    }
    GuestMemory::from_regions(regions).map_err(MemoryError::Layout)
}

fn region(mib: u64, bytes: u64, base: u64) -> Result<GuestRegionMmap<()>, MemoryError> {
    let failed = |source| MemoryError::Map { mib, source };
    let size = usize::try_from(bytes).map_err(|_| MemoryError::Size(mib))?;
    let address = map_aligned(size).map_err(failed)?;
    // SAFETY: the mapping has just been made with this size and these permissions, is private to
    // this function's result, and is never unmapped.
    let builder =
        unsafe { MmapRegionBuilder::<()>::new(size).with_raw_mmap_pointer(address.cast()) }
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE);
    let mapping: MmapRegion<()> = builder.build().map_err(MemoryError::Region)?;
    GuestRegionMmap::new(mapping, GuestAddress(base)).ok_or(MemoryError::Size(mib))
}

/// Maps `size` bytes at a multiple of [`HUGE_PAGE`]: maps more, and gives the ends back.
fn map_aligned(size: usize) -> io::Result<*mut libc::c_void> {
    let whole = size.checked_add(HUGE_PAGE).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that
    // exists.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            whole,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_ANONYMOUS | libc::MAP_PRIVATE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let before = start.align_offset(HUGE_PAGE);
    let address = start.wrapping_byte_add(before);
    // SAFETY: both ranges lie in the mapping made above and outside of what is returned; failure
    // would leave address space reserved, nothing worse. MADV_HUGEPAGE is a hint.
    unsafe {
        if before > 0 {
            libc::munmap(start, before);
        }
        libc::munmap(address.wrapping_byte_add(size), HUGE_PAGE - before);
        libc::madvise(address, size, libc::MADV_HUGEPAGE);
    }
    Ok(address)
}

/// The end of the piece of RAM that begins at 0.
#[must_use]
pub fn low_end(memory: &GuestMemory) -> u64 {
    memory.iter().next().map_or(0, GuestMemoryRegion::len)
}

/// The end of the piece of RAM that begins at 4 GiB, if there is one.
#[must_use]
pub fn high_end(memory: &GuestMemory) -> Option<u64> {
    memory.iter().nth(1).map(|region| region.start_addr().0 + region.len())
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn memory_is_aligned_for_huge_pages_and_can_be_written() {
        let memory = reserve(64).unwrap();
        let host = memory.get_host_address(GuestAddress(0)).unwrap();
        assert_eq!(host.align_offset(HUGE_PAGE), 0);
        memory.write_obj(7_u8, GuestAddress((64 << 20) - 1)).unwrap();
        assert!(memory.write_obj(7_u8, GuestAddress(64 << 20)).is_err());
    }

    #[test]
    fn memory_beyond_the_hole_goes_on_at_4_gib() {
        let memory = reserve(4096).unwrap();
        assert_eq!(low_end(&memory), layout::ECAM);
        assert_eq!(high_end(&memory), Some((4096 << 20) - layout::ECAM + (1 << 32)));
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        assert!(matches!(reserve(0), Err(MemoryError::Size(0))));
        assert!(matches!(reserve(u64::MAX), Err(MemoryError::Size(_))));
    }
}
