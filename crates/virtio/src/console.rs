//! The console (virtio 1.2 §5.3), with one port.
//!
//! ```text
//! driver → transmit ring → file        input → receive ring → driver
//! ```
//!
//! Input that the driver has no buffers for waits, up to a bound; then it is refused, as a
//! terminal refuses keys.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::device::{ActivateError, Activation, ActiveQueue, Kind, VirtioDevice};
use crate::interrupt::Interrupt;
use crate::queue::{Direction, Ring, RingError};
use crate::worker::{Role, Threads, Worker, serve};

const QUEUE_SIZE: u16 = 64;
/// Bytes of input that wait at most.
const WAITING: usize = 4096;
/// Bytes of output that are written at once at most.
const CHUNK: usize = 4096;
/// Buffers that are taken before anything else is looked at.
const ROUND: usize = QUEUE_SIZE as usize;

/// What is typed at a console.
#[derive(Debug)]
pub struct ConsoleInput {
    waiting: Mutex<VecDeque<u8>>,
    event: EventFd,
}

impl ConsoleInput {
    /// Gives the guest `bytes` to read; returns for how many there was room.
    pub fn push(&self, bytes: &[u8]) -> usize {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = bytes.len().min(WAITING - waiting.len().min(WAITING));
        waiting.extend(&bytes[..count]);
        // Only a full counter can fail, and then the event is there already.
        let _ = self.event.write(1);
        count
    }
}

struct Job {
    receive: ActiveQueue,
    transmit: ActiveQueue,
    interrupt: Arc<dyn Interrupt>,
}

/// The device.
pub struct ConsoleDevice {
    worker: Worker<Job>,
    input: Arc<ConsoleInput>,
}

impl ConsoleDevice {
    /// A console that writes to `output`, with its thread.
    ///
    /// # Errors
    /// The host has no threads or descriptors left.
    pub fn new(mut output: File, threads: &Threads) -> io::Result<Self> {
        let event = EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)?;
        let input = Arc::new(ConsoleInput { waiting: Mutex::default(), event });
        let its_input = Arc::clone(&input);
        let worker = Worker::spawn("console", Role::Console, threads, move |job, stop| {
            run(job, stop, &its_input, &mut output);
        })?;
        Ok(Self { worker, input })
    }

    /// Where to type.
    #[must_use]
    pub fn input(&self) -> Arc<ConsoleInput> {
        Arc::clone(&self.input)
    }
}

fn run(job: Job, stop: &EventFd, input: &ConsoleInput, output: &mut File) {
    let Job { mut receive, mut transmit, interrupt } = job;
    let (mut is_deaf, mut is_dumb) = (false, false);
    let (kick_receive, kick_transmit) = (&receive.kick, &transmit.kick);
    let served = serve(stop, &[kick_receive, kick_transmit, &input.event], || {
        let interrupt = &*interrupt;
        let sent = if is_dumb {
            Ok(false)
        } else {
            send(&mut transmit.ring, transmit.index, output, interrupt)
        };
        let given = if is_deaf {
            Ok(false)
        } else {
            give(&mut receive.ring, receive.index, input, interrupt)
        };
        if sent.is_err() || given.is_err() {
            is_dumb |= sent.is_err();
            is_deaf |= given.is_err();
            interrupt.needs_reset();
        }
        sent == Ok(true) || given == Ok(true)
    });
    if served.is_err() {
        interrupt.needs_reset();
    }
}

/// Writes what the driver has made available, a round of it; true if there may be more.
fn send(
    ring: &mut Ring,
    index: u16,
    output: &mut impl Write,
    interrupt: &dyn Interrupt,
) -> Result<bool, RingError> {
    let mut parts = Vec::new();
    let (mut is_used, mut has_more) = (false, true);
    for _ in 0..ROUND {
        parts.clear();
        let Some(chain) = ring.pop(Direction::Read, &mut parts)? else {
            if ring.enable_kicks()? {
                continue;
            }
            has_more = false;
            break;
        };
        // What cannot be written is lost, as on a line that nobody listens at. One buffer of
        // gigabytes must not keep us for long.
        let mut left = 64 * CHUNK;
        for part in &parts {
            left -= copy_out(part, left, output);
        }
        ring.add_used(chain.head, 0)?;
        is_used = true;
    }
    finish(ring, index, is_used, interrupt)?;
    Ok(has_more)
}

/// Writes up to `most` bytes of `part`; returns how many there were.
fn copy_out(part: &libc::iovec, most: usize, output: &mut impl Write) -> usize {
    let count = part.iov_len.min(most);
    let mut buffer = [0; CHUNK];
    let mut done = 0;
    while done < count {
        let chunk = CHUNK.min(count - done);
        let from = part.iov_base.cast::<u8>().wrapping_add(done);
        // SAFETY: `done + chunk` is within the part, which is guest memory that stays mapped; the
        // buffer is ours, so they don't overlap.
        unsafe { std::ptr::copy(from, buffer.as_mut_ptr(), chunk) };
        if output.write_all(&buffer[..chunk]).is_err() {
            break;
        }
        done += chunk;
    }
    count
}

/// Gives the driver what was typed, as far as it has buffers; true if there may be more.
fn give(
    ring: &mut Ring,
    index: u16,
    input: &ConsoleInput,
    interrupt: &dyn Interrupt,
) -> Result<bool, RingError> {
    let mut waiting = input.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let mut parts = Vec::new();
    let (mut is_used, mut has_more) = (false, true);
    for _ in 0..ROUND {
        if waiting.is_empty() {
            has_more = false;
            break;
        }
        parts.clear();
        let Some(chain) = ring.pop(Direction::Write, &mut parts)? else {
            if ring.enable_kicks()? {
                continue;
            }
            has_more = false;
            break;
        };
        let mut written = 0;
        for part in &parts {
            let count = part.iov_len.min(waiting.len());
            let bytes: Vec<u8> = waiting.drain(..count).collect();
            // SAFETY: the part is guest memory of at least `count` bytes that stays mapped;
            // `bytes` is ours, so they don't overlap.
            unsafe { std::ptr::copy(bytes.as_ptr(), part.iov_base.cast(), count) };
            written += count;
        }
        ring.add_used(chain.head, written as u32)?;
        is_used = true;
    }
    finish(ring, index, is_used, interrupt)?;
    Ok(has_more)
}

fn finish(
    ring: &mut Ring,
    index: u16,
    is_used: bool,
    interrupt: &dyn Interrupt,
) -> Result<(), RingError> {
    if is_used {
        ring.publish()?;
        let wanted = ring.wants_interrupt()?;
        interrupt.used(index, wanted);
    }
    Ok(())
}

impl VirtioDevice for ConsoleDevice {
    fn kind(&self) -> Kind {
        Kind::Console
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _: usize, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { queues, interrupt, .. } = activation;
        let mut queues = queues.into_iter();
        let mut next = |index| match queues.next() {
            Some(queue) if queue.index == index => Ok(queue),
            _ => Err(ActivateError::MissingQueue(index)),
        };
        let (receive, transmit) = (next(0)?, next(1)?);
        self.worker.start(Job { receive, transmit, interrupt });
        Ok(())
    }

    fn reset(&mut self) {
        self.worker.stop();
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::testing::{BUFFERS, Driver, Recorder, WRITE, memory};

    fn input() -> ConsoleInput {
        ConsoleInput { waiting: Mutex::default(), event: EventFd::new(libc::EFD_NONBLOCK).unwrap() }
    }

    #[test]
    fn what_the_driver_sends_is_written() {
        let memory = memory();
        let mut driver = Driver::new(&memory);
        memory.write_slice(b"hello world", GuestAddress(BUFFERS)).unwrap();
        driver.chain(&[(BUFFERS, 5), (BUFFERS + 5, 6)], 0);
        let mut output = Vec::new();
        send(&mut driver.ring(), 1, &mut output, &Recorder::default()).unwrap();
        assert_eq!(output, b"hello world");
        assert_eq!(driver.used(), [(0, 0)]);
    }

    #[test]
    fn what_is_typed_waits_for_buffers_and_is_bounded() {
        let memory = memory();
        let mut driver = Driver::new(&memory);
        let (input, recorder) = (input(), Recorder::default());
        assert_eq!(input.push(b"abcdef"), 6);
        let mut ring = driver.ring();
        give(&mut ring, 0, &input, &recorder).unwrap();
        assert!(driver.used().is_empty());
        driver.chain(&[(BUFFERS, 4)], WRITE);
        driver.chain(&[(BUFFERS + 0x100, 4)], WRITE);
        give(&mut ring, 0, &input, &recorder).unwrap();
        assert_eq!(driver.used(), [(0, 4), (1, 2)]);
        assert_eq!(driver.read(BUFFERS, 4), b"abcd");
        assert_eq!(driver.read(BUFFERS + 0x100, 2), b"ef");
        assert_eq!(input.push(&[0; 5000]), WAITING);
        assert_eq!(input.push(b"x"), 0);
    }
}
