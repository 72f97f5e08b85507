//! The queues of a tap. The kernel spreads frames over those that are attached, by flow; those
//! that no driver serves must not be.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vnet_tap::{Offloads, QueueState};

use crate::device::ActivateError;

/// A tap.
#[derive(Debug)]
pub struct TapQueues {
    queues: Vec<OwnedFd>,
}

impl TapQueues {
    /// The tap with these queues, at least one.
    #[must_use]
    pub fn new(queues: Vec<OwnedFd>) -> Self {
        Self { queues }
    }

    /// Queue `number`, if there is one.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<BorrowedFd<'_>> {
        self.queues.get(number).map(AsFd::as_fd)
    }

    /// Uses the first `pairs` queues, and no others.
    pub fn use_pairs(&self, pairs: usize) {
        if self.queues.len() < 2 {
            return;
        }
        for (number, queue) in self.queues.iter().enumerate() {
            let state = if number < pairs { QueueState::Attached } else { QueueState::Detached };
            // A tap that has gone away has no frames either.
            let _ = vnet_tap::set_queue(queue.as_fd(), state);
        }
    }

    /// Whether the host takes and gives unsegmented UDP (Linux 6.2).
    #[must_use]
    pub fn knows_udp_segmentation(&self) -> bool {
        let uso = Offloads { csum: true, tso4: true, tso6: true, ecn: false, uso: true };
        let set = |offloads| {
            self.queues
                .first()
                .is_some_and(|tap| vnet_tap::set_offloads(tap.as_fd(), offloads).is_ok())
        };
        let knows = set(uso);
        // Back to what it was, whatever came of it.
        set(Offloads::default());
        knows
    }

    /// Lets the reader of the tap do these things; what is no tap (a socket, in tests) has none.
    ///
    /// # Errors
    /// The host refuses.
    pub fn set_offloads(&self, offloads: Offloads) -> Result<(), ActivateError> {
        let Some(tap) = self.queues.first() else { return Ok(()) };
        match vnet_tap::set_offloads(tap.as_fd(), offloads) {
            Err(error) if offloads != Offloads::default() => Err(ActivateError::Host {
                what: "set the offloads of a tap",
                source: io::Error::other(error),
            }),
            _ => Ok(()),
        }
    }
}
