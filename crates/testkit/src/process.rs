//! Child processes that cannot outlast a test's patience.

use std::io::{Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, io};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout};

/// The path of one of the workspace's binaries: in `VNET_BIN_DIR`, or else in the target folder
/// that the running test was built into.
///
/// # Panics
/// The binary has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let places: Vec<PathBuf> = match env::var_os("VNET_BIN_DIR") {
        Some(dir) => vec![PathBuf::from(dir)],
        // A test is target/PROFILE/deps/NAME-HASH, a binary target/PROFILE/NAME.
        None => {
            let exe = env::current_exe().expect("a test can find its own executable");
            exe.ancestors().skip(1).take(2).map(PathBuf::from).collect()
        }
    };
    places.iter().map(|dir| dir.join(name)).find(|path| path.is_file()).unwrap_or_else(|| {
        panic!(
            "there is no binary {name} in {places:?}: build it first (`cargo build --workspace`), \
             or name its folder in VNET_BIN_DIR"
        )
    })
}

/// Waits until `child` ends, for `patience` at most. `None`: it still runs.
///
/// # Errors
/// The kernel gives no process descriptor, or the child cannot be waited for.
pub fn wait_within(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    let pidfd = pidfd(child)?;
    if poll_readable(&pidfd, Instant::now() + patience)? {
        return child.wait().map(Some);
    }
    Ok(None)
}

/// A descriptor that becomes readable when `child`, which nobody has waited for yet, ends.
pub(crate) fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // SAFETY: pidfd_open takes two integers and touches no memory of ours. The pid is that of a
    // child that nobody has waited for yet, so it cannot have been given to another process.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs `command` to its end, with its output kept in files, so that a process that it leaves
/// behind cannot hold us up. At most `patience` passes; then it is killed.
///
/// # Errors
/// The command cannot be started, or did not end in time; the message has its output so far.
pub fn output_within(command: &mut Command, patience: Duration) -> Result<Output> {
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let ended = wait_within(&mut child, patience)?;
    if ended.is_none() {
        child.kill()?;
        child.wait()?;
    }
    let take = |file: &mut std::fs::File| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let (stdout, stderr) = (take(&mut stdout)?, take(&mut stderr)?);
    match ended {
        Some(status) => Ok(Output { status, stdout, stderr }),
        None => bail!(
            "{command:?} did not end within {patience:?}\n{}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        ),
    }
}

/// Waits until `fd` can be read, or has been hung up. `false`: not before `deadline`.
pub(crate) fn poll_readable(fd: &impl AsFd, deadline: Instant) -> io::Result<bool> {
    Ok(poll_any([fd.as_fd()], deadline)?.is_some())
}

/// Waits until one of `fds` can be read, or has been hung up: the place of the first that has.
/// `None`: not before `deadline`.
pub(crate) fn poll_any<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    deadline: Instant,
) -> io::Result<Option<usize>> {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last fraction of a millisecond is not spent spinning.
        let millis = u16::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        match nix::poll::poll(&mut polled, PollTimeout::from(millis)) {
            Ok(0) if left.is_zero() => return Ok(None),
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => return Ok(polled.iter().position(|fd| fd.any().unwrap_or(true))),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What makes a child die with the thread that started it: a test that is killed leaves nothing.
///
/// The kernel ties this to the *thread*: start such children from the test's own thread.
pub(crate) fn die_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let set = || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(io::Error::from)
    };
    // SAFETY: between fork and exec, only the system call prctl is made; nothing is allocated and
    // no lock is taken.
    unsafe { command.pre_exec(set) };
}

/// Reads one line, without its end, before `deadline`. Nothing after it is taken.
pub(crate) fn read_line_within<R: Read + AsFd>(from: &mut R, deadline: Instant) -> Result<String> {
    let mut line = Vec::new();
    loop {
        if !poll_readable(from, deadline)? {
            bail!("no line in time, only {:?}", String::from_utf8_lossy(&line));
        }
        let mut byte = [0];
        match from.read(&mut byte)? {
            0 => bail!("no line, only {:?}", String::from_utf8_lossy(&line)),
            _ if byte == *b"\n" => return Ok(String::from_utf8(line)?),
            _ => line.push(byte[0]),
        }
    }
}
