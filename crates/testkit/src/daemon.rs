//! netd and the command line, run in a namespace with everything of theirs under a folder.
//!
//! The daemon's standard error is read by a thread as it comes, kept, and shown when something
//! fails. A daemon ends with its handle, and with the test's thread if that is killed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Netns;
use crate::process::{binary, die_with_parent, output_within, wait_within};

/// What netd's standard error has a line with when it serves.
const READY: &str = "netd is ready";

/// How long netd may take to become ready, or to end when asked to.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long one command may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// The most lines of a daemon's log that are kept; the oldest go first.
const LOG_LINES: usize = 10_000;

/// What a daemon has written to its standard error, as far as it has.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LogState {
    lines: Vec<String>,
    /// The other end is closed: nothing more will come.
    ended: bool,
}

impl Log {
    /// Follows `stderr` on a thread until it is closed.
    fn follow(stderr: ChildStderr) -> Arc<Self> {
        let log = Arc::new(Self::default());
        let writer = Arc::clone(&log);
        thread::spawn(move || {
            let mut reader = BufReader::new(stderr);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                let mut state = writer.lock();
                if state.lines.len() == LOG_LINES {
                    state.lines.remove(0);
                }
                state.lines.push(text);
                writer.changed.notify_all();
            }
            writer.lock().ended = true;
            writer.changed.notify_all();
        });
        log
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a line that contains `text`.
    fn wait_for(&self, text: &str, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.iter().find(|line| line.contains(text)) {
                return Ok(line.clone());
            }
            ensure!(!state.ended, "it ended without a line that contains {text:?}");
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no line that contains {text:?} within {patience:?}");
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn text(&self) -> String {
        self.lock().lines.join("\n")
    }
}

/// A running netd.
#[derive(Debug)]
pub struct Netd {
    ns: Netns,
    root: PathBuf,
    child: Child,
    log: Arc<Log>,
}

impl Netd {
    /// Starts `netd --root ROOT` in `ns` and waits until it is ready. Call it from the test's own
    /// thread: the daemon dies with the thread that started it.
    ///
    /// # Panics
    /// netd is not built, or not ready within thirty seconds; the message has its log.
    #[must_use]
    #[track_caller]
    pub fn start(ns: &Netns, root: &Path) -> Self {
        match Self::try_start(ns, root) {
            Ok(netd) => netd,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// As [`start`](Self::start), for a netd that may be unable to.
    ///
    /// # Errors
    /// netd ends, or is not ready within thirty seconds; the message has its log.
    pub fn try_start(ns: &Netns, root: &Path) -> Result<Self> {
        Self::try_start_with(ns, root, |_| ())
    }

    /// As [`try_start`](Self::try_start), with more arguments or environment set by `adjust`.
    ///
    /// # Errors
    /// As [`try_start`](Self::try_start).
    pub fn try_start_with(
        ns: &Netns,
        root: &Path,
        adjust: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let mut command = ns.command(binary("netd"));
        command.arg("--root").arg(root).stdin(Stdio::null()).stderr(Stdio::piped());
        adjust(&mut command);
        die_with_parent(&mut command);
        let mut child = command.spawn().context("cannot start netd")?;
        let stderr = child.stderr.take().context("netd has no standard error")?;
        let log = Log::follow(stderr);
        let mut netd = Self { ns: ns.clone(), root: root.to_owned(), child, log };
        if let Err(error) = netd.log.wait_for(READY, PATIENCE) {
            netd.kill();
            bail!("netd did not start: {error}; its log:\n{}", netd.log());
        }
        Ok(netd)
    }

    /// netd's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The namespace that it runs in.
    #[must_use]
    pub fn ns(&self) -> &Netns {
        &self.ns
    }

    /// What it has written to its standard error until now.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until its log has a line that contains `text`, and gives back the first such line.
    ///
    /// # Panics
    /// There is none within `patience`; the message has the log.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str, patience: Duration) -> String {
        match self.log.wait_for(text, patience) {
            Ok(line) => line,
            Err(error) => panic!("netd: {error}; its log:\n{}", self.log()),
        }
    }

    /// Kills it at once, as a crash would, and gives back the log.
    pub fn kill9(mut self) -> String {
        self.kill();
        self.wait_for_last_descriptor();
        self.log()
    }

    /// Asks it to end (SIGTERM), waits until it has, and gives back how.
    ///
    /// # Panics
    /// It runs on for thirty seconds; the message has its log.
    #[track_caller]
    pub fn terminate(mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGTERM).expect("a child that has not been waited for has a pid");
        match wait_within(&mut self.child, PATIENCE).expect("a child can be waited for") {
            Some(status) => {
                self.wait_for_last_descriptor();
                status
            }
            None => panic!("netd runs on after SIGTERM; its log:\n{}", self.log()),
        }
    }

    /// Runs `vnet` against this netd; see [`vnet`].
    ///
    /// # Panics
    /// As [`vnet`].
    #[track_caller]
    pub fn vnet<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        vnet(&self.ns, &self.root, args)
    }

    /// Runs `vnet`, which must succeed, and gives back what it printed.
    ///
    /// # Panics
    /// It fails; the message has its output and netd's log.
    #[track_caller]
    pub fn vnet_ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let args: Vec<S> = args.into_iter().collect();
        let output = self.vnet(&args);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "vnet {} failed ({}):\n{stdout}{}\nnetd's log:\n{}",
            words(&args),
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        stdout
    }

    /// Runs `vnet`, which must fail, and gives back its exit code and its standard error.
    ///
    /// # Panics
    /// It succeeds, or is ended by a signal.
    #[track_caller]
    pub fn vnet_fails<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> (i32, String) {
        let args: Vec<S> = args.into_iter().collect();
        let output = self.vnet(&args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(code) if code != 0 => (code, stderr),
            _ => panic!("vnet {} should fail: {}\n{stderr}", words(&args), output.status),
        }
    }

    /// Runs `vnet … --json`, which must succeed, and parses what it printed. `--json` is added.
    ///
    /// # Panics
    /// It fails, or prints something else than JSON.
    #[track_caller]
    pub fn vnet_json<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> serde_json::Value {
        let mut args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        args.push("--json".into());
        let text = self.vnet_ok(&args);
        match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(error) => panic!("vnet {} printed no JSON: {error}:\n{text}", words(&args)),
        }
    }

    /// Waits until nobody has a copy of a descriptor of a netd that was ready and has ended. A
    /// child that it was just starting has all of them, those of its sockets too, until it becomes
    /// another program; the lock on netd's root goes with the last copy.
    fn wait_for_last_descriptor(&self) {
        let lock = self.root.join("run/vnet/netd.lock");
        if let Ok(file) = File::open(lock) {
            // Blocks; what it waits for is a process that is about to call execve.
            let _ = Flock::lock(file, FlockArg::LockExclusive);
        }
    }

    fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Netd {
    fn drop(&mut self) {
        self.kill();
        // Captured by the test harness, and shown only with a failure.
        if thread::panicking() {
            eprintln!("netd's log:\n{}", self.log());
        }
    }
}

/// Runs `vnet` in `ns`, with `VNET_ROOT` set to `root`.
///
/// # Panics
/// vnet is not built, or does not end within a minute.
#[track_caller]
pub fn vnet<S: AsRef<OsStr>>(ns: &Netns, root: &Path, args: impl IntoIterator<Item = S>) -> Output {
    let mut command = ns.command(binary("vnet"));
    command.args(args).env("VNET_ROOT", root);
    // No namespace has a way to the machine's own resolver: nobody is to wait for it long.
    command.env("RES_OPTIONS", "timeout:1 attempts:1");
    match output_within(&mut command, COMMAND_PATIENCE) {
        Ok(output) => output,
        Err(error) => panic!("{error:#}"),
    }
}

fn words<S: AsRef<OsStr>>(args: &[S]) -> String {
    let words: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
    words.join(" ")
}
