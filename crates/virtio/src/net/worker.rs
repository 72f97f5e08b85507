//! The thread of a queue pair: one epoll over the tap, the kicks of both queues, and the end.
//!
//! The tap is watched for edges, so each direction remembers whether it may still be ready; a
//! direction that waits costs nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::Progress;
use super::control::ControlQueue;
use super::counters::{Counters, add};
use super::device::Link;
use super::rx::{RxMode, RxQueue};
use super::tx::TxQueue;
use crate::device::ActiveQueue;
use crate::interrupt::Interrupt;
use crate::queue::RingError;

/// What an event on the epoll means.
const TOKEN_STOP: u64 = 0;
const TOKEN_TAP: u64 = 1;
const TOKEN_RX: u64 = 2;
const TOKEN_TX: u64 = 3;
const TOKEN_CONTROL: u64 = 4;

/// What a queue pair's thread needs.
pub struct Worker {
    /// The queue that the driver receives from.
    pub rx: ActiveQueue,
    /// The queue that the driver sends to.
    pub tx: ActiveQueue,
    /// The control queue, if the driver uses it.
    pub control: Option<ActiveQueue>,
    /// How to receive.
    pub mode: RxMode,
    /// The tap.
    pub tap: Arc<OwnedFd>,
    /// Whether frames go through.
    pub link: Arc<Link>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// How to call the driver.
    pub interrupt: Arc<dyn Interrupt>,
    /// Readable when the thread is to end.
    pub stop: EventFd,
}

/// The state of one of the queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// There may be something to do.
    Ready,
    /// A kick is awaited.
    WaitsDriver,
    /// The tap is awaited.
    WaitsTap,
    /// The driver has got something wrong: nothing more happens until a reset.
    Stopped,
}

impl Direction {
    fn after(
        result: Result<Progress, RingError>,
        counters: &Counters,
        interrupt: &dyn Interrupt,
    ) -> Self {
        match result {
            Ok(Progress::More) => Self::Ready,
            Ok(Progress::WaitDriver) => Self::WaitsDriver,
            Ok(Progress::WaitTap) => Self::WaitsTap,
            Err(_) => {
                add(&counters.malformed, 1);
                interrupt.needs_reset();
                Self::Stopped
            }
        }
    }

    fn wake(&mut self, from: Self) {
        if *self == from {
            *self = Self::Ready;
        }
    }
}

impl Worker {
    /// An epoll over all that the thread waits for.
    ///
    /// # Errors
    /// Those of `epoll_create1(2)` and `epoll_ctl(2)`.
    pub fn epoll(&self) -> io::Result<Epoll> {
        let epoll = Epoll::new()?;
        let edges = EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED;
        for (fd, events, token) in [
            (self.stop.as_raw_fd(), EventSet::IN, TOKEN_STOP),
            (self.rx.kick.as_raw_fd(), EventSet::IN, TOKEN_RX),
            (self.tx.kick.as_raw_fd(), EventSet::IN, TOKEN_TX),
            (self.tap.as_raw_fd(), edges, TOKEN_TAP),
        ] {
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, token))?;
        }
        if let Some(control) = &self.control {
            let event = EpollEvent::new(EventSet::IN, TOKEN_CONTROL);
            epoll.ctl(ControlOperation::Add, control.kick.as_raw_fd(), event)?;
        }
        Ok(epoll)
    }

    /// Moves frames until told to stop.
    pub fn run(self, epoll: &Epoll) {
        let Self { rx, tx, control, mode, tap, link, counters, interrupt, stop: _ } = self;
        let mut receive = RxQueue::new(rx.ring, rx.index, mode);
        let mut transmit = TxQueue::new(tx.ring, tx.index);
        let mut control =
            control.map(|queue| (ControlQueue::new(queue.ring, queue.index), queue.kick));
        let (mut rx_state, mut tx_state) = (Direction::Ready, Direction::Ready);
        let mut control_state = Direction::Ready;
        let mut events = [EpollEvent::default(); 4];
        loop {
            let (tap, interrupt) = (tap.as_fd(), &*interrupt);
            if rx_state == Direction::Ready {
                let result = receive.process(tap, link.is_up(), interrupt, &counters);
                rx_state = Direction::after(result, &counters, interrupt);
            }
            if tx_state == Direction::Ready {
                let result = transmit.process(tap, link.is_up(), interrupt, &counters);
                tx_state = Direction::after(result, &counters, interrupt);
            }
            if let Some((queue, _)) = &mut control
                && control_state == Direction::Ready
            {
                let result = queue.process(&link, interrupt, &counters);
                control_state = Direction::after(result, &counters, interrupt);
            }
            let is_busy = [rx_state, tx_state].contains(&Direction::Ready)
                || (control.is_some() && control_state == Direction::Ready);
            let timeout = if is_busy { 0 } else { -1 };
            // An interrupted wait is one without events.
            let count = epoll.wait(timeout, &mut events).unwrap_or(0);
            for event in &events[..count] {
                match event.data() {
                    TOKEN_TAP => {
                        rx_state.wake(Direction::WaitsTap);
                        tx_state.wake(Direction::WaitsTap);
                    }
                    TOKEN_RX => {
                        drain(&rx.kick, &counters);
                        rx_state.wake(Direction::WaitsDriver);
                    }
                    TOKEN_TX => {
                        drain(&tx.kick, &counters);
                        tx_state.wake(Direction::WaitsDriver);
                    }
                    TOKEN_CONTROL => {
                        if let Some((_, kick)) = &control {
                            drain(kick, &counters);
                        }
                        control_state.wake(Direction::WaitsDriver);
                    }
                    _ => return,
                }
            }
        }
    }
}

fn drain(kick: &EventFd, counters: &Counters) {
    if kick.read().is_ok() {
        add(&counters.kicks, 1);
    }
}
