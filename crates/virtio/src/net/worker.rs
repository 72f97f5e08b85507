//! The thread of a queue pair: one epoll over the tap, the kicks of both queues, and the end.
//!
//! The tap is watched for edges, so each direction remembers whether it may still be ready; a
//! direction that waits costs nothing.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::Progress;
use super::control::ControlQueue;
use super::counters::{Counters, add};
use super::link::Link;
use super::queues::TapQueues;
use super::rx::{RxMode, RxQueue};
use super::tx::TxQueue;
use crate::device::ActiveQueue;
use crate::interrupt::Interrupt;
use crate::limit::Limiter;
use crate::queue::RingError;

/// What an event on the epoll means.
const TOKEN_STOP: u64 = 0;
const TOKEN_TAP: u64 = 1;
const TOKEN_RX: u64 = 2;
const TOKEN_TX: u64 = 3;
const TOKEN_CONTROL: u64 = 4;

/// A pair of queues that a driver uses.
pub struct Job {
    /// The queue that the driver receives from.
    pub rx: ActiveQueue,
    /// The queue that the driver sends to.
    pub tx: ActiveQueue,
    /// The control queue, if this thread serves it.
    pub control: Option<ControlQueue>,
    /// How to receive.
    pub mode: RxMode,
    /// The tap, and which of its queues is this pair's.
    pub taps: Arc<TapQueues>,
    /// See `taps`.
    pub pair: usize,
    /// Whether frames go through.
    pub link: Arc<Link>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// What the card may send, and receive.
    pub limiters: [Option<Arc<Limiter>>; 2],
    /// How to call the driver.
    pub interrupt: Arc<dyn Interrupt>,
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

/// An epoll over all that the thread waits for.
fn watch(job: &Job, tap: BorrowedFd<'_>, stop: &EventFd) -> io::Result<Epoll> {
    let epoll = Epoll::new()?;
    let edges = EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED;
    for (fd, events, token) in [
        (stop.as_raw_fd(), EventSet::IN, TOKEN_STOP),
        (job.rx.kick.as_raw_fd(), EventSet::IN, TOKEN_RX),
        (job.tx.kick.as_raw_fd(), EventSet::IN, TOKEN_TX),
        (tap.as_raw_fd(), edges, TOKEN_TAP),
    ] {
        epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, token))?;
    }
    if let Some(control) = &job.control {
        let event = EpollEvent::new(EventSet::IN, TOKEN_CONTROL);
        epoll.ctl(ControlOperation::Add, control.kick().as_raw_fd(), event)?;
    }
    Ok(epoll)
}

/// What a limit leaves of a round: none, and how long that lasts.
fn held(limiter: Option<&Limiter>, until: &mut Option<Duration>) -> bool {
    let Some(wait) = limiter.map(|limiter| limiter.wait(Instant::now())) else { return false };
    if wait.is_zero() {
        return false;
    }
    *until = Some(until.map_or(wait, |other| other.min(wait)));
    true
}

fn pay(limiter: Option<&Limiter>, (frames, bytes): (u64, u64)) {
    if let Some(limiter) = limiter {
        limiter.take_many(frames, bytes);
    }
}

/// Moves frames until `stop` is readable.
pub fn run(job: Job, stop: &EventFd) {
    let taps = Arc::clone(&job.taps);
    let Some(tap) = taps.get(job.pair) else { return };
    let Ok(epoll) = watch(&job, tap, stop) else {
        job.interrupt.needs_reset();
        return;
    };
    let Job { rx, tx, mut control, mode, link, counters, limiters, interrupt, .. } = job;
    let [limit_tx, limit_rx] = [limiters[0].as_deref(), limiters[1].as_deref()];
    let mut receive = RxQueue::new(rx.ring, rx.index, mode);
    let mut transmit = TxQueue::new(tx.ring, tx.index);
    let (mut rx_state, mut tx_state) = (Direction::Ready, Direction::Ready);
    let mut control_state = Direction::Ready;
    let mut events = [EpollEvent::default(); 5];
    let interrupt = &*interrupt;
    loop {
        let mut wait = None;
        let mut is_busy = false;
        if rx_state == Direction::Ready && !held(limit_rx, &mut wait) {
            let result = receive.process(tap, link.is_up(), interrupt, &counters);
            pay(limit_rx, receive.take_moved());
            rx_state = Direction::after(result, &counters, interrupt);
            is_busy |= rx_state == Direction::Ready;
        }
        if tx_state == Direction::Ready && !held(limit_tx, &mut wait) {
            let result = transmit.process(tap, link.is_up(), interrupt, &counters);
            pay(limit_tx, transmit.take_moved());
            tx_state = Direction::after(result, &counters, interrupt);
            is_busy |= tx_state == Direction::Ready;
        }
        if let Some(queue) = &mut control
            && control_state == Direction::Ready
        {
            let result = queue.process(interrupt, &counters);
            control_state = Direction::after(result, &counters, interrupt);
            is_busy |= control_state == Direction::Ready;
        }
        let timeout = match wait {
            _ if is_busy => 0,
            // Rounded up, so that the time has come when the wait ends.
            Some(wait) => i32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i32::MAX),
            None => -1,
        };
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
                    if let Some(control) = &control {
                        drain(control.kick(), &counters);
                    }
                    control_state.wake(Direction::WaitsDriver);
                }
                _ => return,
            }
        }
    }
}

fn drain(kick: &EventFd, counters: &Counters) {
    if kick.read().is_ok() {
        add(&counters.kicks, 1);
    }
}
