//! Memory for queues: pages of a static arena, handed out once.

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Two pages for each of two queues, and as much again to spare.
const PAGES: usize = 8;

#[repr(C, align(4096))]
struct Arena(UnsafeCell<[[u8; PAGE_SIZE]; PAGES]>);

// SAFETY: pages are handed out through an atomic counter, each once.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([[0; PAGE_SIZE]; PAGES]));
static USED: AtomicUsize = AtomicUsize::new(0);

/// Physical and virtual addresses are the same, and the guest's memory is all shared.
pub(crate) struct GuestHal;

// SAFETY: `dma_alloc` returns aligned, zeroed pages that no one else gets; the rest is identity.
unsafe impl Hal for GuestHal {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let first = USED.fetch_add(pages, Ordering::Relaxed);
        if first.saturating_add(pages) > PAGES {
            // The caller takes physical address 0 for a refusal.
            return (0, NonNull::dangling());
        }
        let address = ARENA.0.get() as usize + first * PAGE_SIZE;
        match NonNull::new(core::ptr::with_exposed_provenance_mut(address)) {
            Some(pointer) => (address as PhysAddr, pointer),
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(core::ptr::with_exposed_provenance_mut(address as usize))
            .unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.as_ptr().expose_provenance() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
