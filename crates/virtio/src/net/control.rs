//! The control queue (virtio 1.2 §5.1.6.5): commands of the driver, each answered with one byte.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::counters::{Counters, add};
use super::link::Link;
use super::queues::TapQueues;
use super::{Progress, ROUND};
use crate::device::ActiveQueue;
use crate::interrupt::Interrupt;
use crate::queue::{Ring, RingError};

/// Bytes of a command that matter: class, command, and two bytes of data.
const COMMAND_BYTES: usize = 4;
/// `VIRTIO_NET_OK` and `VIRTIO_NET_ERR`.
const OK: u8 = 0;
const ERR: u8 = 1;

/// A control queue.
pub struct ControlQueue {
    ring: Ring,
    index: u16,
    kick: EventFd,
    link: Arc<Link>,
    taps: Arc<TapQueues>,
    /// Pairs that the driver may use.
    pairs: usize,
}

impl ControlQueue {
    /// The control queue of the card with this cable and tap, of which the driver may use `pairs`
    /// queues.
    #[must_use]
    pub fn new(queue: ActiveQueue, link: Arc<Link>, taps: Arc<TapQueues>, pairs: usize) -> Self {
        let ActiveQueue { index, ring, kick } = queue;
        Self { ring, index, kick, link, taps, pairs }
    }

    /// Readable when the driver has given commands.
    #[must_use]
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// Answers what the driver asks, one round of it.
    ///
    /// # Errors
    /// The driver has got something wrong: the queue must not be used any more.
    pub fn process(
        &mut self,
        interrupt: &dyn Interrupt,
        counters: &Counters,
    ) -> Result<Progress, RingError> {
        let mut command = [0; COMMAND_BYTES];
        let mut done = false;
        let mut progress = Progress::More;
        for _ in 0..ROUND {
            if let Some(request) = self.ring.pop_request(&mut command)? {
                let command = &command[..request.bytes.min(COMMAND_BYTES)];
                let status = self.obey(command);
                self.ring.answer(&request, status)?;
                add(&counters.commands, 1);
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

    /// Does what `command` says, if it is one that we know.
    fn obey(&self, command: &[u8]) -> u8 {
        match command {
            // §5.1.6.5.1, PROMISC and ALLMULTI: the tap gets what its port on the bridge lets
            // through, which filters better than we could, and a driver must bear more than it
            // asked for.
            [0, 0 | 1, 0 | 1] => OK,
            // §5.1.6.5.4, ANNOUNCE_ACK.
            [3, 0, ..] => {
                self.link.announced();
                OK
            }
            // §5.1.6.5.6.1, VQ_PAIRS_SET.
            [4, 0, low, high] => {
                let pairs = usize::from(u16::from_le_bytes([*low, *high]));
                if (1..=self.pairs).contains(&pairs) {
                    self.taps.use_pairs(pairs);
                    OK
                } else {
                    ERR
                }
            }
            _ => ERR,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::testing::{BUFFERS, Driver, NEXT, Recorder, WRITE, memory, tap};

    const ANSWER: u64 = BUFFERS + 0x1000;

    fn control(ring: Ring) -> ControlQueue {
        let queue = ActiveQueue { index: 2, ring, kick: EventFd::new(0).unwrap() };
        let taps = Arc::new(TapQueues::new(vec![tap().0]));
        ControlQueue::new(queue, Arc::new(Link::new(1500, true)), taps, 2)
    }

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
        let mut queue = control(driver.ring());
        let progress = queue.process(&recorder, &Counters::default());
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
        assert_eq!(ask(&[4, 0, 2, 0]).1, OK);
        for command in
            [&[][..], &[0], &[0, 0], &[0, 0, 2], &[4, 0, 3, 0], &[4, 0, 0, 0], &[0xff; 64]]
        {
            assert_eq!(ask(command).1, ERR, "{command:?}");
        }
    }

    #[test]
    fn a_command_without_room_for_the_answer_is_malformed() {
        let memory = memory();
        for flags in [0, WRITE] {
            let mut driver = Driver::new(&memory);
            driver.chain(&[(BUFFERS, if flags == 0 { 3 } else { 0 })], flags);
            let mut queue = control(driver.ring());
            let result = queue.process(&Recorder::default(), &Counters::default());
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
        let mut queue = control(driver.ring());
        let result = queue.process(&Recorder::default(), &Counters::default());
        assert_eq!(result, Err(RingError::Direction));
    }
}
