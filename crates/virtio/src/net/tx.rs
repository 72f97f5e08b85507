//! Transmission: from the driver's chains to the tap.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vnet_tap::VNET_HDR_LEN;

use super::counters::{Counters, add};
use super::{BATCH, Progress, ROUND};
use crate::interrupt::Interrupt;
use crate::queue::{Direction, Ring, RingError};

/// Pieces of memory that one `writev` takes (`UIO_MAXIOV`); a queue has fewer descriptors.
const MAX_PARTS: usize = 1024;

/// A transmit queue.
pub struct TxQueue {
    ring: Ring,
    index: u16,
    parts: Vec<libc::iovec>,
    /// Frames and bytes since this was last asked for.
    moved: (u64, u64),
}

impl TxQueue {
    /// The queue number `index`.
    #[must_use]
    pub fn new(ring: Ring, index: u16) -> Self {
        Self { ring, index, parts: Vec::with_capacity(MAX_PARTS), moved: (0, 0) }
    }

    /// Frames and bytes that were sent since this was last called.
    pub fn take_moved(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.moved)
    }

    /// Sends what the driver has made available, one round of it. Frames are dropped while the
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
        let mut done = 0;
        let mut steps = 0;
        let progress = loop {
            // Steps that move nothing count as well: a driver could make up indices for ever.
            if steps == ROUND {
                break Progress::More;
            }
            steps += 1;
            self.parts.clear();
            let Some(chain) = self.ring.pop(Direction::Read, &mut self.parts)? else {
                if self.ring.enable_kicks()? {
                    continue;
                }
                break Progress::WaitDriver;
            };
            if self.parts.len() > MAX_PARTS {
                return Err(RingError::Chain);
            }
            match if is_up { write(tap, &self.parts) } else { Outcome::Refused } {
                Outcome::Done => {
                    let bytes = chain.bytes.saturating_sub(VNET_HDR_LEN) as u64;
                    add(&counters.tx_frames, 1);
                    add(&counters.tx_bytes, bytes);
                    self.moved.0 += 1;
                    self.moved.1 += bytes;
                }
                Outcome::Later => {
                    self.ring.put_back();
                    break Progress::WaitTap;
                }
                Outcome::Refused => add(&counters.tx_dropped, 1),
            }
            self.ring.add_used(chain.head, 0)?;
            done += 1;
            if done % BATCH == 0 {
                self.ring.publish()?;
            }
        };
        if done > 0 {
            self.ring.publish()?;
            let wanted = self.ring.wants_interrupt()?;
            add(&counters.interrupts, wanted.into());
            interrupt.used(self.index, wanted);
        }
        Ok(progress)
    }
}

enum Outcome {
    Done,
    Later,
    Refused,
}

/// The tap checks the header and the frame's length itself, and refuses what makes no sense.
fn write(tap: BorrowedFd<'_>, parts: &[libc::iovec]) -> Outcome {
    loop {
        // SAFETY: the parts lie in guest memory, which stays mapped until the process ends. The
        // guest may change it meanwhile, which is its own affair: the kernel copies bytes.
        let count =
            unsafe { libc::writev(tap.as_raw_fd(), parts.as_ptr(), parts.len() as libc::c_int) };
        if count >= 0 {
            return Outcome::Done;
        }
        match io::Error::last_os_error().kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock => return Outcome::Later,
            _ => return Outcome::Refused,
        }
    }
}
