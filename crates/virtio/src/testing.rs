//! A driver's side for tests: queues in a small guest memory, and a recorder of notifications.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress};

use crate::GuestMemory;
use crate::interrupt::Interrupt;
use crate::queue::{QueueConfig, Ring};

/// Descriptors of the queues.
pub(crate) const SIZE: u16 = 16;
/// Where the queue is, and where buffers can be.
pub(crate) const QUEUE: u64 = 0x1000;
pub(crate) const BUFFERS: u64 = 0x1_0000;
/// Bytes of guest memory.
pub(crate) const MEMORY: u64 = 0x10_0000;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

pub(crate) fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap()
}

pub(crate) fn config(mock: &MockSplitQueue<'_, GuestMemory>) -> QueueConfig {
    QueueConfig {
        size: SIZE,
        enabled: true,
        descriptors: mock.desc_table_addr().0,
        available: mock.avail_addr().0,
        used: mock.used_addr().0,
    }
}

/// A queue as its driver has it.
pub(crate) struct Driver<'a> {
    pub(crate) memory: &'a GuestMemory,
    pub(crate) mock: MockSplitQueue<'a, GuestMemory>,
    next: u16,
    available: u16,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(memory: &'a GuestMemory) -> Self {
        let mock = MockSplitQueue::create(memory, GuestAddress(QUEUE), SIZE);
        Self { memory, mock, next: 0, available: 0 }
    }

    pub(crate) fn ring(&self) -> Ring {
        Ring::new(&config(&self.mock), SIZE, false, self.memory.clone()).unwrap()
    }

    /// Writes descriptor `index` as it is.
    pub(crate) fn descriptor(&self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        let descriptor = RawDescriptor::from(Descriptor::new(address, length, flags, next));
        self.mock.desc_table().store(index, descriptor).unwrap();
    }

    /// Makes the chain that begins at `head` available.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = self.mock.avail().ring().ref_at(usize::from(self.available % SIZE)).unwrap();
        slot.store(head);
        self.available = self.available.wrapping_add(1);
        self.mock.avail().idx().store(self.available);
    }

    /// Offers a chain of `parts`, addresses and lengths; returns its head.
    pub(crate) fn chain(&mut self, parts: &[(u64, u32)], flags: u16) -> u16 {
        let head = self.next;
        for (index, (address, length)) in parts.iter().enumerate() {
            let more = if index + 1 < parts.len() { NEXT } else { 0 };
            self.descriptor(self.next, *address, *length, flags | more, (self.next + 1) % SIZE);
            self.next = (self.next + 1) % SIZE;
        }
        self.offer(head);
        head
    }

    /// Heads and lengths of what was given back.
    pub(crate) fn used(&self) -> Vec<(u32, u32)> {
        let used = self.mock.used();
        let element = |index| {
            let address = self.mock.used_addr().0 + 4 + 8 * u64::from(index % SIZE);
            let id = self.memory.read_obj(GuestAddress(address)).unwrap();
            (id, self.memory.read_obj(GuestAddress(address + 4)).unwrap())
        };
        (0..used.idx().load()).map(element).collect()
    }

    pub(crate) fn read(&self, address: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}

/// Counts what a device says.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) used: AtomicUsize,
    pub(crate) resets: AtomicUsize,
}

impl Interrupt for Recorder {
    fn used(&self, _: u16, _: bool) {
        self.used.fetch_add(1, Ordering::SeqCst);
    }

    fn config_changed(&self) {}

    fn needs_reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
    }
}

/// Two ends of a socket that keeps packets apart, as a tap does.
pub(crate) fn tap() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the array has room for two descriptors, which are new and nobody else's.
    unsafe {
        assert_eq!(libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()), 0);
        use std::os::fd::FromRawFd;
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

pub(crate) fn send(socket: &OwnedFd, bytes: &[u8]) {
    // SAFETY: the slice is readable for its length.
    let count = unsafe { libc::write(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    assert_eq!(count, bytes.len() as isize);
}

/// What comes next, if anything is there.
pub(crate) fn receive(socket: &OwnedFd) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1 << 17];
    // SAFETY: the buffer is writable for its length.
    let count = unsafe { libc::read(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
    bytes.truncate(usize::try_from(count).ok()?);
    Some(bytes)
}
