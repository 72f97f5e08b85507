//! A split virtqueue, as devices use it: chains come out as iovecs into guest memory, used
//! buffers go back in batches, and everything that a driver can get wrong is an error.
//!
//! The walk over the available ring and its chains is the `virtio-queue` crate's. What is added:
//! chains that break off are noticed, used elements are published together (a driver that merges
//! receive buffers must see all of a frame's or none, virtio 1.2 §5.1.6.4), and a driver without
//! EVENT_IDX can suppress interrupts as well.

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::GuestMemory;

/// How a driver has set a queue up; any values are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Descriptors.
    pub size: u16,
    /// Whether the driver uses it.
    pub enabled: bool,
    /// Address of the descriptor table.
    pub descriptors: u64,
    /// Address of the available ring.
    pub available: u64,
    /// Address of the used ring.
    pub used: u64,
}

/// What a driver has got wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The size is no power of 2, or an address is not aligned or outside of guest memory.
    #[error("the queue's size or addresses are not possible")]
    Setup,
    /// More chains are available than there are descriptors.
    #[error("the available index makes no sense")]
    Index,
    /// A chain is longer than the queue, loops, ends in nothing or refers outside of memory.
    #[error("a descriptor chain is malformed")]
    Chain,
    /// A chain has parts that the device reads where it may only write, or the reverse.
    #[error("a descriptor chain has the wrong direction")]
    Direction,
    /// The rings cannot be reached any more.
    #[error("the rings are outside of guest memory")]
    Memory,
}

/// Which way the data of a chain goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the driver to the device.
    Read,
    /// From the device to the driver.
    Write,
}

/// A chain of descriptors, its data being the last `parts` iovecs where it was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// Its first descriptor, by which it is given back.
    pub head: u16,
    /// Bytes in all.
    pub bytes: usize,
    /// Pieces of memory that it consists of.
    pub parts: usize,
}

/// A chain whose readable parts come before its writable ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BothWays {
    /// Its first descriptor, by which it is given back.
    pub head: u16,
    /// Bytes that the device may read.
    pub readable: usize,
    /// Bytes that the device may write.
    pub writable: usize,
}

/// A small request that was taken from a queue, and where its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    head: u16,
    /// Bytes that the request has; those beyond the caller's buffer were left out.
    pub bytes: usize,
    answer: GuestAddress,
}

/// A queue that works.
#[derive(Debug)]
pub struct Ring {
    queue: Queue,
    memory: GuestMemory,
    has_event_idx: bool,
    next_used: Wrapping<u16>,
    /// `next_used` when the driver was last considered for an interrupt.
    considered: Wrapping<u16>,
}

impl Ring {
    /// The queue that `config` describes, of `max_size` descriptors at most.
    ///
    /// # Errors
    /// [`RingError::Setup`].
    pub fn new(
        config: &QueueConfig,
        max_size: u16,
        has_event_idx: bool,
        memory: GuestMemory,
    ) -> Result<Self, RingError> {
        let setup = |_| RingError::Setup;
        let mut queue = Queue::new(max_size).map_err(setup)?;
        queue.try_set_size(config.size).map_err(setup)?;
        queue.try_set_desc_table_address(GuestAddress(config.descriptors)).map_err(setup)?;
        queue.try_set_avail_ring_address(GuestAddress(config.available)).map_err(setup)?;
        queue.try_set_used_ring_address(GuestAddress(config.used)).map_err(setup)?;
        queue.set_event_idx(has_event_idx);
        queue.set_ready(config.enabled);
        // Address 0 means "unset" to the crate.
        if config.available == 0 || !queue.is_valid(&memory) {
            return Err(RingError::Setup);
        }
        let zero = Wrapping(0);
        Ok(Self { queue, memory, has_event_idx, next_used: zero, considered: zero })
    }

    /// How many descriptors it has, and thus chains at most.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Takes the next available chain and appends its memory to `parts`. None if there is none.
    ///
    /// # Errors
    /// The driver has got something wrong; `parts` is then as before.
    pub fn pop(
        &mut self,
        direction: Direction,
        parts: &mut Vec<libc::iovec>,
    ) -> Result<Option<Chain>, RingError> {
        let mut available = self.queue.iter(&self.memory).map_err(|_| RingError::Index)?;
        let Some(chain) = available.next() else { return Ok(None) };
        let before = parts.len();
        let head = chain.head_index();
        let result = collect(&self.memory, chain, self.queue.size(), direction, parts);
        if result.is_err() {
            parts.truncate(before);
        }
        result.map(|bytes| Some(Chain { head, bytes, parts: parts.len() - before }))
    }

    /// Takes the next available chain and puts its readable memory into `read` and its writable
    /// memory into `write`, which are emptied before. None if there is none.
    ///
    /// # Errors
    /// The driver has got something wrong.
    pub fn pop_both(
        &mut self,
        read: &mut Vec<libc::iovec>,
        write: &mut Vec<libc::iovec>,
    ) -> Result<Option<BothWays>, RingError> {
        read.clear();
        write.clear();
        let mut available = self.queue.iter(&self.memory).map_err(|_| RingError::Index)?;
        let Some(chain) = available.next() else { return Ok(None) };
        let mut both = BothWays { head: chain.head_index(), readable: 0, writable: 0 };
        let mut is_complete = false;
        for (count, descriptor) in chain.enumerate() {
            if count >= usize::from(self.queue.size()) {
                return Err(RingError::Chain);
            }
            is_complete = !descriptor.has_next();
            let length = descriptor.len() as usize;
            if descriptor.is_write_only() {
                append(&self.memory, &descriptor, write)?;
                both.writable += length;
            } else if both.writable > 0 {
                // virtio 1.2 §2.7.4.2: device-writable parts come last.
                return Err(RingError::Direction);
            } else {
                append(&self.memory, &descriptor, read)?;
                both.readable += length;
            }
        }
        if is_complete { Ok(Some(both)) } else { Err(RingError::Chain) }
    }

    /// Takes the next available chain, which has parts to read and then at least one byte to
    /// write, and copies the beginning of what is to be read to `request`.
    ///
    /// # Errors
    /// The driver has got something wrong.
    pub fn pop_request(&mut self, request: &mut [u8]) -> Result<Option<Request>, RingError> {
        let size = usize::from(self.queue.size());
        let mut available = self.queue.iter(&self.memory).map_err(|_| RingError::Index)?;
        let Some(chain) = available.next() else { return Ok(None) };
        let (head, mut bytes, mut answer, mut is_complete) = (chain.head_index(), 0, None, false);
        for (count, descriptor) in chain.enumerate() {
            if count >= size {
                return Err(RingError::Chain);
            }
            is_complete = !descriptor.has_next();
            let length = descriptor.len() as usize;
            if descriptor.is_write_only() {
                answer = answer.or((length > 0).then_some(descriptor.addr()));
                continue;
            }
            if answer.is_some() {
                return Err(RingError::Direction);
            }
            let rest = request.get_mut(bytes..).unwrap_or_default();
            let count = rest.len().min(length);
            self.memory
                .read_slice(&mut rest[..count], descriptor.addr())
                .map_err(|_| RingError::Chain)?;
            bytes += length;
        }
        let answer = answer.filter(|_| is_complete).ok_or(RingError::Chain)?;
        Ok(Some(Request { head, bytes, answer }))
    }

    /// Answers `request` with one byte, and prepares giving it back.
    ///
    /// # Errors
    /// The answer's place is not in guest memory.
    pub fn answer(&mut self, request: &Request, answer: u8) -> Result<(), RingError> {
        self.memory.write_obj(answer, request.answer).map_err(|_| RingError::Chain)?;
        self.add_used(request.head, 1)
    }

    /// Makes the chain that was taken last available again.
    pub fn put_back(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Prepares giving back the chain that begins at `head`, with `bytes` written to it. The
    /// driver sees it after [`publish`](Self::publish).
    ///
    /// # Errors
    /// [`RingError::Memory`].
    pub fn add_used(&mut self, head: u16, bytes: u32) -> Result<(), RingError> {
        // virtio 1.2 §2.7.8: flags and index, then elements of 8 bytes: head, length.
        let slot = u64::from(self.next_used.0 % self.queue.size());
        let address = GuestAddress(self.queue.used_ring() + 4 + slot * 8);
        let element = u64::from(bytes) << 32 | u64::from(head);
        self.memory.write_obj(element.to_le(), address).map_err(|_| RingError::Memory)?;
        self.next_used += 1;
        Ok(())
    }

    /// Lets the driver see all that was given back.
    ///
    /// # Errors
    /// [`RingError::Memory`].
    pub fn publish(&mut self) -> Result<(), RingError> {
        let index = GuestAddress(self.queue.used_ring() + 2);
        self.memory
            .store(self.next_used.0.to_le(), index, Ordering::Release)
            .map_err(|_| RingError::Memory)
    }

    /// Whether the driver wants an interrupt for what was published since this was last asked
    /// (virtio 1.2 §2.7.7).
    ///
    /// # Errors
    /// [`RingError::Memory`].
    pub fn wants_interrupt(&mut self) -> Result<bool, RingError> {
        // The driver writes its wish, then reads the index; here it is the other way about.
        fence(Ordering::SeqCst);
        let load = |address| {
            let value = self.memory.load(GuestAddress(address), Ordering::Relaxed);
            value.map(u16::from_le).map_err(|_| RingError::Memory)
        };
        let new = self.next_used;
        let old = std::mem::replace(&mut self.considered, new);
        if self.has_event_idx {
            let after_ring = 4 + 2 * u64::from(self.queue.size());
            let event = Wrapping(load(self.queue.avail_ring() + after_ring)?);
            Ok(new - event - Wrapping(1) < new - old)
        } else {
            const NO_INTERRUPT: u16 = 1;
            Ok(new != old && load(self.queue.avail_ring())? & NO_INTERRUPT == 0)
        }
    }

    /// Asks the driver to kick when it makes buffers available. True if it has made some already,
    /// for which no kick may come.
    ///
    /// # Errors
    /// [`RingError::Memory`].
    pub fn enable_kicks(&mut self) -> Result<bool, RingError> {
        self.queue.enable_notification(&self.memory).map_err(|_| RingError::Memory)
    }

    /// Tells the driver that kicks are not needed.
    ///
    /// # Errors
    /// [`RingError::Memory`].
    pub fn disable_kicks(&mut self) -> Result<(), RingError> {
        self.queue.disable_notification(&self.memory).map_err(|_| RingError::Memory)
    }
}

/// Appends the memory of the descriptors of `chain` to `parts`; returns how many bytes they have.
fn collect(
    memory: &GuestMemory,
    chain: impl Iterator<Item = Descriptor>,
    longest: u16,
    direction: Direction,
    parts: &mut Vec<libc::iovec>,
) -> Result<usize, RingError> {
    let mut bytes = 0;
    // The iterator just ends where a chain is broken: then its last descriptor names a next one.
    let mut is_complete = false;
    for (count, descriptor) in chain.enumerate() {
        // virtio 1.2 §2.7.5.3.1: not longer than the queue, indirect or not.
        if count >= usize::from(longest) {
            return Err(RingError::Chain);
        }
        if descriptor.is_write_only() != (direction == Direction::Write) {
            return Err(RingError::Direction);
        }
        is_complete = !descriptor.has_next();
        append(memory, &descriptor, parts)?;
        bytes += descriptor.len() as usize;
    }
    if is_complete { Ok(bytes) } else { Err(RingError::Chain) }
}

/// Appends the memory of `descriptor`.
fn append(
    memory: &GuestMemory,
    descriptor: &Descriptor,
    parts: &mut Vec<libc::iovec>,
) -> Result<(), RingError> {
    let length = descriptor.len() as usize;
    for slice in GuestMemoryBackend::get_slices(memory, descriptor.addr(), length) {
        let slice = slice.map_err(|_| RingError::Chain)?;
        let address = slice.ptr_guard_mut().as_ptr();
        if !slice.is_empty() {
            parts.push(libc::iovec { iov_base: address.cast(), iov_len: slice.len() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
