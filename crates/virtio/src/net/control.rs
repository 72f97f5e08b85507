//! The control queue (virtio 1.2 §5.1.6.5): commands of the driver, each answered with one byte.

use super::counters::{Counters, add};
use super::device::Link;
use super::{Progress, ROUND};
use crate::interrupt::Interrupt;
use crate::queue::{Ring, RingError};

/// Bytes of a command that matter: class, command, and a byte of data.
const COMMAND_BYTES: usize = 3;
/// `VIRTIO_NET_OK` and `VIRTIO_NET_ERR`.
const OK: u8 = 0;
const ERR: u8 = 1;

/// A control queue.
pub struct ControlQueue {
    ring: Ring,
    index: u16,
}

impl ControlQueue {
    /// The queue number `index`.
    #[must_use]
    pub fn new(ring: Ring, index: u16) -> Self {
        Self { ring, index }
    }

    /// Answers what the driver asks, one round of it.
    ///
    /// # Errors
    /// The driver has got something wrong: the queue must not be used any more.
    pub fn process(
        &mut self,
        link: &Link,
        interrupt: &dyn Interrupt,
        counters: &Counters,
    ) -> Result<Progress, RingError> {
        let mut command = [0; COMMAND_BYTES];
        let mut done = false;
        let mut progress = Progress::More;
        for _ in 0..ROUND {
            if let Some(request) = self.ring.pop_request(&mut command)? {
                let command = &command[..request.bytes.min(COMMAND_BYTES)];
                self.ring.answer(&request, obey(command, link))?;
                done = true;
            } else if !self.ring.enable_kicks()? {
                progress = Progress::WaitDriver;
                break;
            }
        }
        if done {
            self.ring.publish()?;
            let wanted = self.ring.wants_interrupt()?;
            add(&counters.interrupts, wanted.into());
            interrupt.used(self.index, wanted);
        }
        Ok(progress)
    }
}

/// Does what `command` says, if it is one that we know.
fn obey(command: &[u8], link: &Link) -> u8 {
    match command {
        // §5.1.6.5.1, PROMISC and ALLMULTI: the tap gets what its port on the bridge lets through,
        // which filters better than we could, and a driver must bear more than it asked for.
        [0, 0 | 1, 0 | 1] => OK,
        // §5.1.6.5.4, ANNOUNCE_ACK.
        [3, 0, ..] => {
            link.announced();
            OK
        }
        _ => ERR,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::testing::{BUFFERS, Driver, NEXT, Recorder, WRITE, memory};

    const ANSWER: u64 = BUFFERS + 0x1000;

    /// Offers `command` and room for an answer; returns what came of it, and the answer.
    fn ask(command: &[u8]) -> (Result<Progress, RingError>, u8) {
        let memory = memory();
        let mut driver = Driver::new(&memory);
        memory.write_slice(command, GuestAddress(BUFFERS)).unwrap();
        memory.write_obj(0xaa_u8, GuestAddress(ANSWER)).unwrap();
        driver.descriptor(0, BUFFERS, command.len() as u32, NEXT, 1);
        driver.descriptor(1, ANSWER, 1, WRITE, 0);
        driver.offer(0);
        let recorder = Recorder::default();
        let mut queue = ControlQueue::new(driver.ring(), 2);
        let progress = queue.process(&Link::new(1500, true), &recorder, &Counters::default());
        assert_eq!(driver.used(), [(0, 1)]);
        assert_eq!(recorder.used.load(Ordering::SeqCst), 1);
        (progress, memory.read_obj(GuestAddress(ANSWER)).unwrap())
    }

    #[test]
    fn known_commands_are_obeyed_and_others_refused() {
        for command in [[0, 0, 1], [0, 1, 0]] {
            assert_eq!(ask(&command), (Ok(Progress::WaitDriver), OK));
        }
        assert_eq!(ask(&[3, 0]).1, OK);
        for command in [&[][..], &[0], &[0, 0], &[0, 0, 2], &[4, 0, 2, 0], &[0xff; 64]] {
            assert_eq!(ask(command).1, ERR, "{command:?}");
        }
    }

    #[test]
    fn a_command_without_room_for_the_answer_is_malformed() {
        let memory = memory();
        for flags in [0, WRITE] {
            let mut driver = Driver::new(&memory);
            driver.chain(&[(BUFFERS, if flags == 0 { 3 } else { 0 })], flags);
            let mut queue = ControlQueue::new(driver.ring(), 2);
            let result =
                queue.process(&Link::new(1500, true), &Recorder::default(), &Counters::default());
            assert_eq!(result, Err(RingError::Chain));
        }
    }

    #[test]
    fn a_command_after_its_answer_is_the_wrong_direction() {
        let memory = memory();
        let mut driver = Driver::new(&memory);
        driver.descriptor(0, ANSWER, 1, WRITE | NEXT, 1);
        driver.descriptor(1, BUFFERS, 3, 0, 0);
        driver.offer(0);
        let mut queue = ControlQueue::new(driver.ring(), 2);
        let link = Link::new(1500, true);
        let result = queue.process(&link, &Recorder::default(), &Counters::default());
        assert_eq!(result, Err(RingError::Direction));
    }
}
