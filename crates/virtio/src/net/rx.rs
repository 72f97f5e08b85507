//! Reception: from the tap into the driver's buffers.
//!
//! How large the next frame is shows only once it has been read. So as many buffers are gathered
//! as a frame usually needs, and `readv` gets them and, behind them, a spill buffer of our own.
//! A frame that ends in the spill is kept there whole until the driver has made enough room: no
//! frame is lost for want of buffers, and only such frames are copied.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vnet_tap::VNET_HDR_LEN;

use super::counters::{Counters, add};
use super::{BATCH, Progress, ROUND};
use crate::interrupt::Interrupt;
use crate::queue::{Chain, Direction, Ring, RingError};

/// Bytes of the largest frame with its header: 64 KiB of IP packet, and some for Ethernet, tags
/// and the header.
const LARGEST: usize = (64 << 10) + 64;
/// Pieces of memory that one `readv` takes (`UIO_MAXIOV`), less one for the spill buffer.
const MAX_PARTS: usize = 1023;
/// Pieces after which no more chains are gathered: another one has 512 at most, for a queue has
/// 256 descriptors, each of which lies in two regions of memory at most.
const ENOUGH_PARTS: usize = 511;
/// Where `num_buffers` is in the header (virtio 1.2 §5.1.6).
const NUM_BUFFERS: usize = 10;

/// What the driver takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RxMode {
    /// Whether a frame may be spread over several chains (MRG_RXBUF).
    pub is_mergeable: bool,
    /// Bytes for which to gather buffers before a frame is read, the header included.
    pub usual: usize,
}

impl RxMode {
    /// The mode for frames of up to `mtu` bytes of payload, or unsegmented ones.
    #[must_use]
    pub fn new(is_mergeable: bool, has_large_frames: bool, mtu: u16) -> Self {
        // Ethernet header and one tag.
        let usual = VNET_HDR_LEN + 18 + usize::from(mtu);
        Self { is_mergeable, usual: if has_large_frames { LARGEST } else { usual } }
    }
}

/// A receive queue.
pub struct RxQueue {
    ring: Ring,
    index: u16,
    mode: RxMode,
    /// The memory of `chains`, from `first` on.
    parts: Vec<libc::iovec>,
    first: usize,
    /// Chains that were taken from the ring and wait for a frame, and their bytes in all.
    chains: VecDeque<Chain>,
    room: usize,
    spill: Vec<u8>,
    /// Bytes of the frame that waits in `spill`, or 0.
    waiting: usize,
    /// Frames and bytes since this was last asked for.
    moved: (u64, u64),
}

/// What came of reading.
enum Read {
    Frame(usize),
    Nothing,
}

impl RxQueue {
    /// The queue number `index`.
    #[must_use]
    pub fn new(ring: Ring, index: u16, mode: RxMode) -> Self {
        let chains = VecDeque::with_capacity(ring.size().into());
        Self {
            ring,
            index,
            mode,
            parts: Vec::with_capacity(2 * MAX_PARTS),
            first: 0,
            chains,
            room: 0,
            spill: vec![0; LARGEST],
            waiting: 0,
            moved: (0, 0),
        }
    }

    /// Frames and bytes that were received since this was last called.
    pub fn take_moved(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.moved)
    }

    /// Gives frames from the tap to the driver, one round of them. They are dropped while the
    /// link is down.
    ///
    /// # Errors
    /// The driver has got something wrong: the queue must not be used any more.
    pub fn process(
        &mut self,
        tap: BorrowedFd<'_>,
        is_up: bool,
        interrupt: &dyn Interrupt,
        counters: &Counters,
    ) -> Result<Progress, RingError> {
        self.ring.disable_kicks()?;
        let mut given = 0;
        let mut dropped = 0;
        let mut steps = 0;
        let progress = loop {
            // Steps that move nothing count as well: a driver could make up indices for ever.
            if steps == ROUND {
                break Progress::More;
            }
            steps += 1;
            if !is_up {
                match self.read(tap, 0) {
                    Read::Frame(_) => dropped += 1,
                    Read::Nothing => break Progress::WaitTap,
                }
                continue;
            }
            self.gather(if self.waiting > 0 { self.waiting } else { self.mode.usual })?;
            let needed = self.waiting.max(1);
            if self.room < needed {
                if self.can_never_hold(needed) {
                    self.waiting = 0;
                    dropped += 1;
                } else if !self.ring.enable_kicks()? {
                    break Progress::WaitDriver;
                }
                continue;
            }
            let frame = if self.waiting > 0 {
                self.unspill()
            } else {
                match self.read(tap, self.room) {
                    Read::Frame(bytes) if bytes <= self.room => bytes,
                    Read::Frame(bytes) => {
                        self.keep_spilt(bytes);
                        continue;
                    }
                    Read::Nothing => break Progress::WaitTap,
                }
            };
            self.give(frame)?;
            let bytes = frame.saturating_sub(VNET_HDR_LEN) as u64;
            add(&counters.rx_bytes, bytes);
            self.moved.0 += 1;
            self.moved.1 += bytes;
            given += 1;
            if given % BATCH == 0 {
                self.ring.publish()?;
            }
        };
        add(&counters.rx_dropped, dropped as u64);
        if given > 0 {
            add(&counters.rx_frames, given as u64);
            self.ring.publish()?;
            let wanted = self.ring.wants_interrupt()?;
            add(&counters.interrupts, wanted.into());
            interrupt.used(self.index, wanted);
        }
        Ok(progress)
    }

    /// Takes chains until there is room for `bytes`, as far as there are any. One chain must hold
    /// a whole frame unless the driver merges them.
    fn gather(&mut self, bytes: usize) -> Result<(), RingError> {
        while self.room < bytes
            && (self.mode.is_mergeable || self.chains.is_empty())
            && self.parts.len() - self.first < ENOUGH_PARTS
        {
            if self.first > MAX_PARTS / 2 {
                self.parts.drain(..self.first);
                self.first = 0;
            }
            let Some(chain) = self.ring.pop(Direction::Write, &mut self.parts)? else { break };
            // virtio 1.2 §5.1.6.3.1: a buffer holds the header at least.
            if chain.bytes < VNET_HDR_LEN || self.parts.len() - self.first > MAX_PARTS {
                return Err(RingError::Chain);
            }
            self.room += chain.bytes;
            self.chains.push_back(chain);
        }
        Ok(())
    }

    /// Whether `bytes` won't fit however long we wait for buffers.
    fn can_never_hold(&self, bytes: usize) -> bool {
        let is_all = if self.mode.is_mergeable {
            self.chains.len() >= usize::from(self.ring.size())
                || self.parts.len() - self.first >= ENOUGH_PARTS
        } else {
            !self.chains.is_empty()
        };
        is_all && self.room < bytes
    }

    /// Reads a frame into the first `room` bytes of the gathered memory and, behind them, into
    /// the spill buffer, at the offset at which they would be in the whole frame.
    fn read(&mut self, tap: BorrowedFd<'_>, room: usize) -> Read {
        let spill = self.spill.get_mut(room..).unwrap_or_default();
        let end = if room == 0 { self.first } else { self.parts.len() };
        self.parts
            .insert(end, libc::iovec { iov_base: spill.as_mut_ptr().cast(), iov_len: spill.len() });
        let parts = &self.parts[self.first..=end];
        let result = loop {
            // SAFETY: the parts lie in guest memory, which stays mapped until the process ends,
            // and in the spill buffer, which nothing else refers to meanwhile.
            let count =
                unsafe { libc::readv(tap.as_raw_fd(), parts.as_ptr(), parts.len() as libc::c_int) };
            match usize::try_from(count) {
                Ok(0) => break Read::Nothing,
                Ok(count) => break Read::Frame(count),
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                // Empty, or the tap is gone, which leaves the guest a card without traffic.
                Err(_) => break Read::Nothing,
            }
        };
        self.parts.remove(end);
        result
    }

    /// Makes a frame of `bytes` whole in the spill buffer, whose head is in guest memory.
    fn keep_spilt(&mut self, bytes: usize) {
        let mut offset = 0;
        for part in &self.parts[self.first..] {
            let count = part.iov_len.min(self.spill.len() - offset);
            let to = &mut self.spill[offset..offset + count];
            // SAFETY: the part is guest memory of at least `count` bytes that stays mapped; `to`
            // is ours, so they don't overlap. What the guest makes of it meanwhile are bytes.
            unsafe { std::ptr::copy(part.iov_base.cast(), to.as_mut_ptr(), count) };
            offset += count;
        }
        self.waiting = bytes.min(self.spill.len());
    }

    /// Copies the frame that waits to guest memory, where there is room for it; returns its size.
    fn unspill(&mut self) -> usize {
        let frame = std::mem::take(&mut self.waiting);
        let bytes = &self.spill[..frame];
        write_parts(&self.parts[self.first..], 0, bytes);
        frame
    }

    /// Gives the first chains back, with the frame of `bytes` that is in them.
    fn give(&mut self, bytes: usize) -> Result<(), RingError> {
        let mut left = bytes;
        let mut buffers = 0_u16;
        let first = self.first;
        while left > 0 {
            let Some(chain) = self.chains.pop_front() else { break };
            let count = left.min(chain.bytes);
            self.ring.add_used(chain.head, count as u32)?;
            self.room -= chain.bytes;
            self.first += chain.parts;
            left -= count;
            buffers += 1;
        }
        // virtio 1.2 §5.1.6.4.1: the number of chains, 1 where they aren't merged.
        write_parts(&self.parts[first..self.first], NUM_BUFFERS, &buffers.to_le_bytes());
        Ok(())
    }
}

/// Copies `bytes` to the memory of `parts`, `offset` bytes from its beginning.
fn write_parts(parts: &[libc::iovec], mut offset: usize, mut bytes: &[u8]) {
    for part in parts {
        let count = part.iov_len.saturating_sub(offset).min(bytes.len());
        if count > 0 {
            let to = part.iov_base.cast::<u8>().wrapping_add(offset);
            // SAFETY: `offset + count` is within the part, which is guest memory that stays
            // mapped; `bytes` is ours, so they don't overlap.
            unsafe { std::ptr::copy(bytes.as_ptr(), to, count) };
            bytes = &bytes[count..];
        }
        if bytes.is_empty() {
            return;
        }
        offset = offset.saturating_sub(part.iov_len);
    }
}
