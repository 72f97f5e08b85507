//! The threads in which devices work. They are made with the device, wait for a driver, work for
//! it until they are stopped, and wait for the next one:
//!
//! ```text
//! spawn → on_start (the sandbox) → wait ⇄ work on a job until `stop` is readable → end
//! ```

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// What a thread does, by which the sandbox knows what it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Moves frames.
    Net,
    /// Moves blocks.
    Block,
    /// Writes what a guest says to a file.
    Console,
    /// Gives random bytes.
    Rng,
}

/// How threads begin.
#[derive(Clone)]
pub struct Threads {
    on_start: Arc<dyn Fn(Role) + Send + Sync>,
}

impl Threads {
    /// Each thread calls `on_start` before anything else.
    #[must_use]
    pub fn new(on_start: Arc<dyn Fn(Role) + Send + Sync>) -> Self {
        Self { on_start }
    }
}

impl Default for Threads {
    fn default() -> Self {
        Self::new(Arc::new(|_| {}))
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").finish_non_exhaustive()
    }
}

/// Calls `round` at first and whenever one of `kicks` is readable, until `stop` is: for devices
/// that do at once whatever they can. `round` says whether there may be more.
///
/// # Errors
/// Those of `epoll_create1(2)` and `epoll_ctl(2)`.
pub(crate) fn serve(
    stop: &EventFd,
    kicks: &[&EventFd],
    mut round: impl FnMut() -> bool,
) -> io::Result<()> {
    const STOP: u64 = u64::MAX;
    let epoll = Epoll::new()?;
    let fds = kicks.iter().map(|kick| kick.as_raw_fd()).zip(0..);
    for (fd, token) in fds.chain([(stop.as_raw_fd(), STOP)]) {
        epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, token))?;
    }
    let mut events = [EpollEvent::default(); 4];
    loop {
        let timeout = if round() { 0 } else { -1 };
        // An interrupted wait is one without events.
        let count = epoll.wait(timeout, &mut events).unwrap_or(0);
        for event in &events[..count] {
            if event.data() == STOP {
                return Ok(());
            }
            if let Some(kick) = kicks.get(event.data() as usize) {
                // An error means that somebody else has read it.
                let _ = kick.read();
            }
        }
    }
}

/// A thread that works on jobs of type `J`, one at a time.
pub struct Worker<J> {
    /// None only while it is dropped.
    jobs: Option<Sender<J>>,
    done: Receiver<()>,
    stop: EventFd,
    is_busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl<J: Send + 'static> Worker<J> {
    /// Starts a thread. `work` is to return once the descriptor that it is given is readable.
    ///
    /// # Errors
    /// The host has no threads or descriptors left.
    pub fn spawn(
        name: &str,
        role: Role,
        threads: &Threads,
        mut work: impl FnMut(J, &EventFd) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, waiting) = channel::<J>();
        let (finished, done) = channel();
        let stop = EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)?;
        let its_stop = stop.try_clone()?;
        let on_start = Arc::clone(&threads.on_start);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            on_start(role);
            while let Ok(job) = waiting.recv() {
                work(job, &its_stop);
                // An error means that it was not stopped, but had nothing more to do.
                let _ = its_stop.read();
                if finished.send(()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs: Some(jobs), done, stop, is_busy: false, thread: Some(thread) })
    }

    /// Gives the thread a job; it stops its present one first.
    pub fn start(&mut self, job: J) {
        self.stop();
        if let Some(jobs) = &self.jobs {
            // A thread that has panicked has said so; its device is without it from then on.
            self.is_busy = jobs.send(job).is_ok();
        }
    }

    /// Stops the present job, if there is one, and waits until it has ended.
    pub fn stop(&mut self) {
        if std::mem::take(&mut self.is_busy) {
            // Only a full counter can fail, and then the event is there already.
            let _ = self.stop.write(1);
            // An error means that the thread is gone, and its job with it.
            let _ = self.done.recv();
        }
    }
}

impl<J> Drop for Worker<J> {
    fn drop(&mut self) {
        if self.is_busy {
            let _ = self.stop.write(1);
        }
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed.
            let _ = thread.join();
        }
    }
}
