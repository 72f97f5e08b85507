//! A request queue and its thread.
//!
//! ```text
//! kick → pop → request ┬ transfer → engine → finished ┬ more left → engine
//!                      │                              ├ no space  → again in a second
//!                      └ answered at once ────────────┴ status, used element → interrupt
//! ```

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::Counters;
use super::disk::{Disk, Parts};
use super::engine::{Engine, IN_FLIGHT, Transfer};
use super::raw::advance;
use super::request::{self, IOERR, OK, Operation, SERIAL};
use crate::counters::add;
use crate::device::ActiveQueue;
use crate::interrupt::Interrupt;
use crate::limit::Limiter;
use crate::queue::{Ring, RingError};

/// How long a write for which the host has no space waits until it is tried again.
const NO_SPACE_PAUSE: Duration = Duration::from_secs(1);

const TOKEN_STOP: u64 = 0;
const TOKEN_KICK: u64 = 1;
const TOKEN_ENGINE: u64 = 2;

/// What the queues of a disk share.
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    /// What the host's messages call it.
    pub(super) name: String,
    pub(super) serial: [u8; SERIAL],
    pub(super) limiter: Option<Limiter>,
    pub(super) counters: Arc<Counters>,
    /// Whether the host has said already that it failed.
    pub(super) has_complained: AtomicBool,
}

/// A queue that a driver uses.
pub(super) struct Job {
    pub(super) queue: ActiveQueue,
    /// Whether each write is to be durable: the driver knows no flush.
    pub(super) is_write_through: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) interrupt: Arc<dyn Interrupt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Read,
    Write,
    Flush,
}

/// A request that is under way.
struct Slot {
    head: u16,
    work: Work,
    /// Where the next byte goes to, or comes from.
    offset: u64,
    /// What is left to be moved, and how much was asked for.
    parts: Vec<libc::iovec>,
    left: usize,
    total: usize,
    /// The status byte, in guest memory.
    status: *mut u8,
}

/// Whether the driver is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There may be requests.
    Ready,
    /// A kick is awaited.
    WaitsDriver,
    /// A slot, or the limit, is awaited.
    Held,
    /// The driver has got something wrong: nothing more happens until a reset.
    Stopped,
}

struct Queue<'a> {
    ring: Ring,
    index: u16,
    is_write_through: bool,
    shared: &'a Shared,
    interrupt: &'a dyn Interrupt,
    engine: &'a mut Engine,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Those for which the host has no space, and when they are tried again.
    parked: Vec<usize>,
    retry_at: Option<Instant>,
    /// When the limit allows more.
    allowed_at: Option<Instant>,
    /// Used elements that the driver has not been shown.
    unpublished: usize,
    readable: Vec<libc::iovec>,
    writable: Vec<libc::iovec>,
}

/// Serves a queue until `stop` is readable.
pub(super) fn run(job: Job, stop: &EventFd, engine: &mut Engine) {
    let Job { queue: ActiveQueue { index, ring, kick }, is_write_through, shared, interrupt } = job;
    let Ok(epoll) = watch(stop, &kick, engine.fd()) else {
        interrupt.needs_reset();
        return;
    };
    let slot = || Slot {
        head: 0,
        work: Work::Flush,
        offset: 0,
        parts: Vec::new(),
        left: 0,
        total: 0,
        status: std::ptr::null_mut(),
    };
    let mut queue = Queue {
        ring,
        index,
        is_write_through,
        shared: &shared,
        interrupt: &*interrupt,
        engine,
        slots: (0..IN_FLIGHT).map(|_| slot()).collect(),
        free: (0..IN_FLIGHT).rev().collect(),
        parked: Vec::new(),
        retry_at: None,
        allowed_at: None,
        unpublished: 0,
        readable: Vec::new(),
        writable: Vec::new(),
    };
    queue.serve(&epoll, &kick);
    queue.drain();
}

fn watch(stop: &EventFd, kick: &EventFd, engine: Option<RawFd>) -> io::Result<Epoll> {
    let epoll = Epoll::new()?;
    let add =
        |fd, token| epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, token));
    add(stop.as_raw_fd(), TOKEN_STOP)?;
    add(kick.as_raw_fd(), TOKEN_KICK)?;
    if let Some(engine) = engine {
        add(engine, TOKEN_ENGINE)?;
    }
    Ok(epoll)
}

impl Queue<'_> {
    fn serve(&mut self, epoll: &Epoll, kick: &EventFd) {
        let counters = &self.shared.counters;
        let mut state = State::Ready;
        let mut events = [EpollEvent::default(); 3];
        loop {
            if state == State::Ready || state == State::Held {
                state = self.round().unwrap_or_else(|_| {
                    add(&counters.malformed, 1);
                    self.interrupt.needs_reset();
                    State::Stopped
                });
            }
            let timeout = if state == State::Ready { 0 } else { self.timeout() };
            // An interrupted wait is one without events.
            let count = epoll.wait(timeout, &mut events).unwrap_or(0);
            for event in &events[..count] {
                match event.data() {
                    TOKEN_STOP => return,
                    TOKEN_KICK => {
                        if kick.read().is_ok() {
                            add(&counters.kicks, 1);
                        }
                        if state == State::WaitsDriver {
                            state = State::Ready;
                        }
                    }
                    _ => {}
                }
            }
            if self.finish_what_has_ended().is_err() && state != State::Stopped {
                add(&counters.malformed, 1);
                self.interrupt.needs_reset();
                state = State::Stopped;
            }
            self.retry();
        }
    }

    /// Milliseconds until something has to be done without an event, or -1.
    fn timeout(&self) -> i32 {
        let Some(at) = self.retry_at.into_iter().chain(self.allowed_at).min() else { return -1 };
        let left = at.saturating_duration_since(Instant::now());
        // Rounded up, so that the time has come when the wait ends.
        i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    }

    /// Takes requests, as far as there are any, there is room, and the limit allows it.
    fn round(&mut self) -> Result<State, RingError> {
        self.ring.disable_kicks()?;
        self.allowed_at = None;
        let mut steps = 0;
        let state = loop {
            let Some(slot) = self.free.last().copied() else { break State::Held };
            // A driver could make up indices for ever.
            if steps == 2 * IN_FLIGHT {
                break State::Ready;
            }
            steps += 1;
            if let Some(limiter) = &self.shared.limiter {
                let now = Instant::now();
                let wait = limiter.wait(now);
                if !wait.is_zero() {
                    self.allowed_at = Some(now + wait);
                    break State::Held;
                }
            }
            let Some(both) = self.ring.pop_both(&mut self.readable, &mut self.writable)? else {
                if self.ring.enable_kicks()? {
                    continue;
                }
                break State::WaitsDriver;
            };
            if let Some(limiter) = &self.shared.limiter {
                limiter.take((both.readable + both.writable) as u64);
            }
            self.free.pop();
            self.slots[slot].head = both.head;
            if let Err(error) = self.begin(slot) {
                // What is under way is what is not free.
                if !self.free.contains(&slot) {
                    self.free.push(slot);
                }
                return Err(error);
            }
        };
        self.engine.submit();
        self.finish_what_has_ended()?;
        // What has ended by now ends no wait.
        let may_go_on = state == State::Held && self.allowed_at.is_none() && !self.free.is_empty();
        Ok(if may_go_on { State::Ready } else { state })
    }

    /// Begins with the request in `readable` and `writable`.
    fn begin(&mut self, number: usize) -> Result<(), RingError> {
        let status = take_status(&mut self.writable).ok_or(RingError::Chain)?;
        self.slots[number].status = status;
        let disk = &*self.shared.disk;
        let operation = request::read(&mut self.readable, &self.writable, disk);
        match operation.ok_or(RingError::Chain)? {
            Operation::Read(offset) => self.transfer(number, Work::Read, offset),
            Operation::Write(offset) => self.transfer(number, Work::Write, offset),
            Operation::Flush => self.transfer(number, Work::Flush, 0),
            Operation::Identify => {
                let count = give(&self.writable, &self.shared.serial);
                self.answer(number, OK, count)
            }
            Operation::Discard(count, ranges) => {
                let mut ranges = ranges[..count].iter();
                let result = ranges.try_for_each(|range| disk.discard(range.offset, range.bytes));
                self.answer_range(number, result)
            }
            Operation::WriteZeroes(count, ranges) => {
                let mut ranges = ranges[..count].iter();
                let result = ranges.try_for_each(|range| {
                    disk.write_zeroes(range.offset, range.bytes, range.may_unmap)
                });
                self.answer_range(number, result)
            }
            Operation::Refuse(status) => {
                add(&self.shared.counters.errors, 1);
                self.answer(number, status, 0)
            }
        }
    }

    fn transfer(&mut self, number: usize, work: Work, offset: u64) -> Result<(), RingError> {
        let slot = &mut self.slots[number];
        slot.parts.clear();
        match work {
            Work::Read => std::mem::swap(&mut slot.parts, &mut self.writable),
            Work::Write => std::mem::swap(&mut slot.parts, &mut self.readable),
            Work::Flush => {}
        }
        slot.left = request::bytes(&slot.parts);
        (slot.total, slot.work, slot.offset) = (slot.left, work, offset);
        if slot.left == 0 && work != Work::Flush {
            return self.answer(number, OK, 0);
        }
        self.start(number);
        Ok(())
    }

    fn start(&mut self, number: usize) {
        let slot = &self.slots[number];
        let parts = Parts::new(&slot.parts);
        let transfer = match slot.work {
            Work::Read => Transfer::Read(parts, slot.offset),
            Work::Write => Transfer::Write(parts, slot.offset, self.is_write_through),
            Work::Flush => Transfer::Flush,
        };
        self.engine.start(number, transfer);
    }

    /// Answers all requests whose transfers have ended.
    fn finish_what_has_ended(&mut self) -> Result<(), RingError> {
        let mut has_more = false;
        while let Some((number, result)) = self.engine.finished() {
            has_more |= self.finish(number, result)?;
        }
        if has_more {
            self.engine.submit();
        }
        if std::mem::take(&mut self.unpublished) > 0 {
            self.ring.publish()?;
            let wanted = self.ring.wants_interrupt()?;
            add(&self.shared.counters.interrupts, wanted.into());
            self.interrupt.used(self.index, wanted);
        }
        Ok(())
    }

    /// A transfer has ended; true if it goes on.
    fn finish(&mut self, number: usize, result: io::Result<usize>) -> Result<bool, RingError> {
        let slot = &mut self.slots[number];
        let error = match result {
            Ok(count) if count >= slot.left => {
                self.count(number);
                let written = if self.slots[number].work == Work::Read {
                    self.slots[number].total
                } else {
                    0
                };
                self.answer(number, OK, written)?;
                return Ok(false);
            }
            // The file has been truncated.
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(count) => {
                advance(&mut slot.parts, count);
                slot.left -= count;
                slot.offset += count as u64;
                self.start(number);
                return Ok(true);
            }
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {
                self.start(number);
                Ok(true)
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                self.park(number, &error);
                Ok(false)
            }
            _ => {
                self.complain(&error, "its guest gets an I/O error");
                add(&self.shared.counters.errors, 1);
                self.answer(number, IOERR, 0)?;
                Ok(false)
            }
        }
    }

    fn count(&self, number: usize) {
        let (slot, counters) = (&self.slots[number], &self.shared.counters);
        let bytes = slot.total as u64;
        match slot.work {
            Work::Read => {
                add(&counters.reads, 1);
                add(&counters.read_bytes, bytes);
            }
            Work::Write => {
                add(&counters.writes, 1);
                add(&counters.written_bytes, bytes);
            }
            Work::Flush => add(&counters.flushes, 1),
        }
    }

    /// The host has no space: the guest waits until it has. Nothing is lost, and a file system
    /// in the guest needs not know.
    fn park(&mut self, number: usize, error: &io::Error) {
        self.complain(error, "its guest waits until there is space");
        add(&self.shared.counters.no_space, 1);
        self.parked.push(number);
        self.retry_at.get_or_insert_with(|| Instant::now() + NO_SPACE_PAUSE);
    }

    fn retry(&mut self) {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_at = None;
            for number in std::mem::take(&mut self.parked) {
                self.start(number);
            }
            self.engine.submit();
        }
    }

    /// Once: what happens to a disk happens to all of its requests.
    fn complain(&self, error: &io::Error, consequence: &str) {
        if !self.shared.has_complained.swap(true, Ordering::Relaxed) {
            tracing::error!("the disk {}: {error}: {consequence}", self.shared.name);
        }
    }

    fn answer_range(&mut self, number: usize, result: io::Result<()>) -> Result<(), RingError> {
        match result {
            Ok(()) => {
                add(&self.shared.counters.discards, 1);
                self.answer(number, OK, 0)
            }
            Err(error) => {
                self.complain(&error, "its guest gets an I/O error");
                add(&self.shared.counters.errors, 1);
                self.answer(number, IOERR, 0)
            }
        }
    }

    /// Gives the chain of a slot back, with `bytes` of data and the status written.
    fn answer(&mut self, number: usize, status: u8, bytes: usize) -> Result<(), RingError> {
        let slot = &self.slots[number];
        // SAFETY: the pointer was taken from a descriptor of the chain that is being answered: a
        // byte of guest memory, which stays mapped until the process ends.
        unsafe { std::ptr::write_volatile(slot.status, status) };
        let head = slot.head;
        self.free.push(number);
        self.unpublished += 1;
        self.ring.add_used(head, bytes as u32 + 1)
    }

    /// Waits for the transfers that are under way: after a reset, nothing may be written to what
    /// was the driver's.
    fn drain(&mut self) {
        let mut under_way = IN_FLIGHT - self.free.len() - self.parked.len();
        while under_way > 0 {
            self.engine.wait();
            while self.engine.finished().is_some() {
                under_way = under_way.saturating_sub(1);
            }
        }
    }
}

/// The last byte of `parts`, which is taken off them.
fn take_status(parts: &mut Vec<libc::iovec>) -> Option<*mut u8> {
    let last = parts.last_mut()?;
    last.iov_len -= 1;
    let status = last.iov_base.wrapping_byte_add(last.iov_len).cast();
    if last.iov_len == 0 {
        parts.pop();
    }
    Some(status)
}

/// Copies `bytes` to `parts`, as far as there is room; returns how many.
fn give(parts: &[libc::iovec], mut bytes: &[u8]) -> usize {
    let whole = bytes.len();
    for part in parts {
        let count = part.iov_len.min(bytes.len());
        // SAFETY: the part is guest memory of at least `count` bytes that stays mapped; `bytes`
        // is ours, so they don't overlap.
        unsafe { std::ptr::copy(bytes.as_ptr(), part.iov_base.cast(), count) };
        bytes = &bytes[count..];
    }
    whole - bytes.len()
}
