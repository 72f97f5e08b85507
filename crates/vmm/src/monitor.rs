//! The main thread's work while a machine runs: one epoll over the guest's end, signals (SIGPWR
//! presses the power button, SIGTERM and SIGINT end the machine), the time limit, input for the serial port, and the connections to netd.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::timerfd::TimerFd;
use vnet_virtio::console::ConsoleInput;

use crate::jail;
use crate::net::Session;
use crate::outcome::Outcome;
use crate::report::{Counted, Report, Times};
use crate::vcpu::kick;
use crate::vcpu::run::{ExitCounts, Last, Shared};
use crate::vm::{Jail, Machine};

/// Input for the serial port that is taken at once.
const INPUT: usize = 64;

/// Time for a vCPU's thread to notice a kick.
const BETWEEN_KICKS: Duration = Duration::from_micros(200);

/// Why a machine cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct MonitorError {
    what: &'static str,
    #[source]
    source: io::Error,
}

fn failed<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> MonitorError {
    move |error| MonitorError { what, source: error.into() }
}

/// Where what comes on standard input goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Input {
    /// Nobody reads it.
    #[default]
    Nowhere,
    /// The serial port.
    Serial,
    /// The virtio console.
    Console,
}

/// What the monitor is to do beside watching.
#[derive(Debug, Default)]
pub struct Options {
    /// How long the guest may run.
    pub timeout: Option<Duration>,
    /// Where what comes on standard input goes to.
    pub input: Input,
}

/// What an event on the epoll means.
const TOKEN_END: u64 = 0;
const TOKEN_SIGNAL: u64 = 1;
const TOKEN_TIMEOUT: u64 = 2;
const TOKEN_INPUT: u64 = 3;
const TOKEN_RETRY: u64 = 4;
/// The first of the sessions with netd.
const TOKEN_SESSION: u64 = 16;

/// The signals that the monitor takes.
fn watched() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGPWR])
}

/// Keeps signals for the monitor. To be called before any thread starts, so that all inherit it.
///
/// # Errors
/// Those of `pthread_sigmask(3)`.
pub fn block_signals() -> Result<(), MonitorError> {
    watched().thread_block().map_err(failed("block signals"))
}

/// Runs `machine` to its end; [`block_signals`] was called before it was built. `started` is when the process began its work.
///
/// # Errors
/// A thread or a descriptor for the watching cannot be made; the guest then has not run, or has
/// been stopped.
pub fn run(machine: Machine, options: &Options, started: Instant) -> Result<Report, MonitorError> {
    let Machine { shared, vcpus, fd, sessions, nics, disks, console } = machine;
    kick::install().map_err(failed("install the signal handler"))?;
    let mut watch = Watch::new(&shared, options, sessions, console)?;
    let ready = Instant::now();
    let mut threads = Vec::new();
    for vcpu in vcpus {
        let its = Arc::clone(&shared);
        let name = format!("vcpu{}", vcpu.number);
        let spawned = thread::Builder::new().name(name).spawn(move || vcpu.run(&its));
        match spawned {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                stop(&shared, threads);
                return Err(failed("start a vCPU's thread")(error));
            }
        }
    }
    if shared.jail == Jail::Closed {
        jail::confine_or_end(jail::Role::Monitor);
    }
    let outcome = watch.until_end(&shared);
    let ended = Instant::now();
    let last = stop(&shared, threads);
    let exits = last.iter().fold(ExitCounts::default(), |sum, last| sum.plus(last.exits));
    shared.board.pci.shut_down();
    drop(fd);
    let first_serial = shared.board.serial.first_byte();
    let times = Times { started, ready, first_serial, ended };
    let mut outcome = outcome?;
    if let Outcome::Hung { vcpus, .. } = &mut outcome {
        vcpus.extend(last.iter().filter_map(|last| last.registers));
    }
    Ok(Report::new(outcome, times, exits, &Counted { nics, disks }))
}

/// Stops the vCPUs: whatever each of them does, it looks at `stop` next.
fn stop(shared: &Shared, threads: Vec<JoinHandle<Last>>) -> Vec<Last> {
    shared.stop.store(true, Ordering::SeqCst);
    shared.wake.signal();
    let mut all = Vec::new();
    for thread in threads {
        // More than once: the first kick may come just before the thread blocks in writing to a
        // serial port's reader that doesn't read. (KVM_RUN has no such gap.)
        while !thread.is_finished() {
            // SAFETY: the thread has not been joined, so its id is valid; the signal has a
            // handler.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), kick::signal()) };
            thread::sleep(BETWEEN_KICKS);
        }
        all.push(thread.join().unwrap_or_default());
    }
    all
}

struct Watch {
    epoll: Epoll,
    signals: SignalFd,
    timeout: Option<Duration>,
    /// Goes off when the time is up.
    limit: TimerFd,
    /// Goes off when netd is to be tried again.
    retry: TimerFd,
    sessions: Vec<Session>,
    /// Where input goes instead of the serial port.
    console: Option<Arc<ConsoleInput>>,
}

impl Watch {
    fn new(
        shared: &Shared,
        options: &Options,
        sessions: Vec<Session>,
        console: Option<Arc<ConsoleInput>>,
    ) -> Result<Self, MonitorError> {
        let epoll = Epoll::new().map_err(failed("make an epoll"))?;
        let signals =
            SignalFd::with_flags(&watched(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
                .map_err(failed("watch for signals"))?;
        let mut limit = TimerFd::new().map_err(failed("make a timer"))?;
        if let Some(timeout) = options.timeout {
            limit.reset(timeout, None).map_err(failed("set a timer"))?;
        }
        let retry = TimerFd::new().map_err(failed("make a timer"))?;
        let console = console.filter(|_| options.input == Input::Console);
        let watch =
            Self { epoll, signals, timeout: options.timeout, limit, retry, sessions, console };
        for (fd, token) in [
            (shared.ending.event().as_raw_fd(), TOKEN_END),
            (watch.signals.as_raw_fd(), TOKEN_SIGNAL),
            (watch.limit.as_raw_fd(), TOKEN_TIMEOUT),
            (watch.retry.as_raw_fd(), TOKEN_RETRY),
        ] {
            watch.add(fd, token).map_err(failed("watch for events"))?;
        }
        for (session, token) in watch.sessions.iter().zip(TOKEN_SESSION..) {
            if let Some(fd) = session.fd() {
                watch.add(fd, token).map_err(failed("watch for netd's events"))?;
            }
        }
        if options.input != Input::Nowhere {
            // A plain file or /dev/null can't be watched: then there is no input.
            let _ = watch.add(libc::STDIN_FILENO, TOKEN_INPUT);
        }
        Ok(watch)
    }

    fn add(&self, fd: RawFd, token: u64) -> io::Result<()> {
        self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, token))
    }

    fn until_end(&mut self, shared: &Shared) -> Result<Outcome, MonitorError> {
        let mut events = [EpollEvent::default(); 8];
        loop {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed("wait for events")(error)),
            };
            for event in &events[..count] {
                match event.data() {
                    TOKEN_SIGNAL => self.on_signal(shared),
                    TOKEN_TIMEOUT => {
                        let seconds = self.timeout.unwrap_or_default().as_secs();
                        shared.ending.end(Outcome::Hung { seconds, vcpus: Vec::new() });
                    }
                    TOKEN_INPUT => self.on_input(shared),
                    TOKEN_RETRY => self.on_retry(),
                    token => self.on_session(token),
                }
            }
            if let Some(outcome) = shared.ending.get() {
                return Ok(outcome);
            }
        }
    }

    fn on_signal(&self, shared: &Shared) {
        if let Ok(Some(info)) = self.signals.read_signal() {
            let signal = Signal::try_from(info.ssi_signo as i32);
            if signal == Ok(Signal::SIGPWR) {
                shared.board.press_power_button();
                return;
            }
            let signal = signal.map_or_else(|_| "a signal".to_owned(), |s| s.to_string());
            shared.ending.end(Outcome::Interrupted { signal });
        }
    }

    fn on_input(&self, shared: &Shared) {
        let mut bytes = [0; INPUT];
        match io::stdin().lock().read(&mut bytes) {
            Ok(count) if count > 0 => {
                match &self.console {
                    Some(console) => console.push(&bytes[..count]),
                    None => shared.board.serial.input(&bytes[..count]),
                };
            }
            _ => {
                // The end, or an error: no more input.
                let event = EpollEvent::default();
                let _ = self.epoll.ctl(ControlOperation::Delete, libc::STDIN_FILENO, event);
            }
        }
    }

    /// An event of netd's, or its end; the descriptor then leaves the epoll by being closed.
    fn on_session(&mut self, token: u64) {
        let Some(number) = token.checked_sub(TOKEN_SESSION) else { return };
        let Some(session) = self.sessions.get_mut(number as usize) else { return };
        if !session.on_readable() {
            self.schedule_retry();
        }
    }

    fn on_retry(&mut self) {
        // An error means that it has not gone off, which the attempts below don't mind.
        let _ = self.retry.wait();
        for index in 0..self.sessions.len() {
            let session = &mut self.sessions[index];
            if session.fd().is_none()
                && session.reconnect()
                && let Some(fd) = session.fd()
            {
                // Without a watch there are no events; the guest's card works all the same.
                let _ = self.add(fd, TOKEN_SESSION + index as u64);
            }
        }
        self.schedule_retry();
    }

    /// Sets the timer for those sessions that have lost netd.
    fn schedule_retry(&mut self) {
        let lost = self.sessions.iter().filter(|session| session.fd().is_none());
        if let Some(pause) = lost.map(Session::pause).min() {
            // The arguments are sound, which is all that it checks.
            let _ = self.retry.reset(pause, None);
        }
    }
}
