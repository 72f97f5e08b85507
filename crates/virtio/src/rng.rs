//! The source of entropy (virtio 1.2 §5.4): each buffer of the driver is filled with the host's
//! random bytes.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::device::{ActivateError, Activation, ActiveQueue, Kind, VirtioDevice};
use crate::interrupt::Interrupt;
use crate::queue::{Direction, Ring, RingError};
use crate::worker::{Role, Threads, Worker, serve};

const QUEUE_SIZE: u16 = 16;
/// Bytes that a buffer gets at most: a driver takes what it gets (virtio 1.2 §5.4.6.1), and a
/// buffer of gigabytes would keep a processor busy.
const MOST: usize = 4096;

struct Job {
    queue: ActiveQueue,
    interrupt: Arc<dyn Interrupt>,
}

/// The device.
pub struct RngDevice {
    worker: Worker<Job>,
}

impl RngDevice {
    /// A source of entropy, with its thread.
    ///
    /// # Errors
    /// The host has no threads or descriptors left.
    pub fn new(threads: &Threads) -> io::Result<Self> {
        Ok(Self { worker: Worker::spawn("rng", Role::Rng, threads, run)? })
    }
}

fn run(job: Job, stop: &EventFd) {
    let Job { queue: ActiveQueue { index, mut ring, kick }, interrupt } = job;
    let mut is_broken = false;
    let served = serve(stop, &[&kick], || {
        if is_broken {
            return false;
        }
        round(&mut ring, index, &*interrupt).unwrap_or_else(|_| {
            is_broken = true;
            interrupt.needs_reset();
            false
        })
    });
    if served.is_err() {
        interrupt.needs_reset();
    }
}

/// Fills buffers, a queue's worth of them; true if there may be more.
fn round(ring: &mut Ring, index: u16, interrupt: &dyn Interrupt) -> Result<bool, RingError> {
    let mut parts = Vec::new();
    let (mut is_used, mut has_more) = (false, true);
    for _ in 0..QUEUE_SIZE {
        parts.clear();
        let Some(chain) = ring.pop(Direction::Write, &mut parts)? else {
            if ring.enable_kicks()? {
                continue;
            }
            has_more = false;
            break;
        };
        let count = fill(&parts);
        ring.add_used(chain.head, count as u32)?;
        is_used = true;
    }
    if is_used {
        ring.publish()?;
        let wanted = ring.wants_interrupt()?;
        interrupt.used(index, wanted);
    }
    Ok(has_more)
}

/// Fills the first bytes of `parts`; returns how many.
fn fill(parts: &[libc::iovec]) -> usize {
    let mut bytes = [0_u8; MOST];
    // SAFETY: the kernel writes to the array, within its length. Up to 256 bytes come whole;
    // more may come in part, which the result says.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    let mut rest = &bytes[..usize::try_from(count).unwrap_or(0)];
    let all = rest.len();
    for part in parts {
        let count = part.iov_len.min(rest.len());
        let to = part.iov_base.cast::<u8>();
        // SAFETY: the part is guest memory of at least `count` bytes that stays mapped; `rest` is
        // ours, so they don't overlap.
        unsafe { std::ptr::copy(rest.as_ptr(), to, count) };
        rest = &rest[count..];
    }
    all - rest.len()
}

impl VirtioDevice for RngDevice {
    fn kind(&self) -> Kind {
        Kind::Rng
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _: usize, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { queues, interrupt, .. } = activation;
        let queue = queues.into_iter().next().ok_or(ActivateError::MissingQueue(0))?;
        self.worker.start(Job { queue, interrupt });
        Ok(())
    }

    fn reset(&mut self) {
        self.worker.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::testing::{BUFFERS, Driver, Recorder, WRITE, memory};

    #[test]
    fn buffers_are_filled_up_to_a_bound() {
        let memory = memory();
        let mut driver = Driver::new(&memory);
        let recorder = Recorder::default();
        driver.chain(&[(BUFFERS, 40), (BUFFERS + 0x100, 24)], WRITE);
        driver.chain(&[(BUFFERS + 0x1000, 0x2000)], WRITE);
        let mut ring = driver.ring();
        assert_eq!(round(&mut ring, 0, &recorder), Ok(false));
        assert_eq!(driver.used(), [(0, 64), (2, 4096)]);
        assert_ne!(driver.read(BUFFERS, 40), [0; 40]);
        assert_ne!(driver.read(BUFFERS + 0x100, 24), [0; 24]);
        // And nothing beside them.
        assert_eq!(driver.read(BUFFERS + 40, 0xd8), [0; 0xd8]);
        assert_eq!(driver.read(BUFFERS + 0x118, 0xee8), [0; 0xee8]);
        assert_eq!(driver.read(BUFFERS + 0x2000, 0x1000), [0; 0x1000]);
        assert_eq!(recorder.used.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_buffer_that_may_not_be_written_stops_the_queue() {
        let memory = memory();
        let mut driver = Driver::new(&memory);
        driver.chain(&[(BUFFERS, 40)], 0);
        let result = round(&mut driver.ring(), 0, &Recorder::default());
        assert_eq!(result, Err(RingError::Direction));
    }
}
