//! The VMM as a child: started, listened to, and ended whatever happens.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::serial::{Serial, Verdict};
use crate::output::printable;

/// Bytes of the VMM's standard error that are kept.
const MAX_ERRORS: usize = 16 * 1024;
/// Bytes in the largest report.
const MAX_REPORT: u64 = 256 * 1024;
/// How much longer than its own limit a VMM may take.
const GRACE: Duration = Duration::from_secs(5);

/// A machine's whole life.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) serial: Serial,
    /// From exec to the guest's word that it has an address.
    pub(crate) address: Option<Duration>,
    /// From exec to the VMM's end.
    pub(crate) total: Duration,
    /// The VMM's report, if it wrote one.
    pub(crate) report: Option<Value>,
    /// What is wrong with how it ended, if anything is.
    pub(crate) trouble: Option<String>,
}

/// Runs `program` with `words`, and a report that it is to write, until it ends or `limit` and
/// some grace are over. No process and no file is left behind, however this ends: the child dies
/// with us, and the report is in memory.
///
/// # Errors
/// The VMM cannot be started. How its guest fares is in the [`Life`].
pub(crate) async fn run(
    program: &std::path::Path,
    words: &[std::ffi::OsString],
    limit: Duration,
) -> anyhow::Result<Life> {
    // Not close-on-exec: the child has it under the same number.
    let report = memfd_create(c"vnet-report", MFdFlags::empty())
        .context("cannot make a file in memory for the VMM's report")?;
    let mut command = Command::new(program);
    command
        .args(words)
        .args(["--quiet", "--serial", "stdio", "--report"])
        .arg(report.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    die_with_us(&mut command);
    let began = Instant::now();
    let mut child =
        command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let mut listener = Listener { began, serial: Serial::default(), address: None };
    let watched = timeout(limit + GRACE, watch(&mut child, &mut listener)).await;
    let (ended, errors) = match watched {
        Ok(Ok((status, errors))) => (Ended::Exited(status), errors),
        Ok(Err(Failure::Talk(error))) => (Ended::Talked(error.to_string()), Vec::new()),
        Ok(Err(Failure::Io(error))) => return Err(error).context("cannot listen to the VMM"),
        Err(_) => (Ended::Stuck(limit + GRACE), Vec::new()),
    };
    if !matches!(ended, Ended::Exited(_)) {
        child.kill().await.context("cannot end the VMM")?;
    }
    let total = began.elapsed();
    let mut serial = listener.serial;
    serial.end();
    let report = read_report(report.into());
    let trouble = trouble(&ended, report.as_ref(), &errors).or_else(|| serial.trouble());
    Ok(Life { serial, address: listener.address, total, report, trouble })
}

/// Has the child killed when this process ends, by whatever signal.
fn die_with_us(command: &mut Command) {
    let parent = getpid();
    let work = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // We may have ended before the line above.
        if getppid() != parent {
            return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        }
        Ok(())
    };
    // SAFETY: between fork and exec, it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(work) };
}

struct Listener {
    began: Instant,
    serial: Serial,
    address: Option<Duration>,
}

enum Failure {
    Io(std::io::Error),
    Talk(super::serial::TooMuch),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Listens to both pipes until they are closed, and waits for the end.
async fn watch(
    child: &mut Child,
    listener: &mut Listener,
) -> Result<(ExitStatus, Vec<u8>), Failure> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let listen = async {
        let Some(mut stdout) = stdout else { return Ok::<(), Failure>(()) };
        let mut bytes = [0; 4096];
        loop {
            let length = stdout.read(&mut bytes).await?;
            if length == 0 {
                return Ok(());
            }
            listener.serial.feed(&bytes[..length]).map_err(Failure::Talk)?;
            let dhcp = listener.serial.step("dhcp").map(|step| step.verdict);
            if dhcp == Some(Verdict::Ok) && listener.address.is_none() {
                listener.address = Some(listener.began.elapsed());
            }
        }
    };
    let errors = async { keep_first(stderr).await.map_err(Failure::Io) };
    let ((), errors) = tokio::try_join!(listen, errors)?;
    Ok((child.wait().await?, errors))
}

/// Reads all, and keeps the beginning.
async fn keep_first(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else { return Ok(kept) };
    let mut bytes = [0; 4096];
    loop {
        let length = pipe.read(&mut bytes).await?;
        if length == 0 {
            return Ok(kept);
        }
        let room = MAX_ERRORS - kept.len();
        kept.extend_from_slice(&bytes[..length.min(room)]);
    }
}

fn read_report(mut file: File) -> Option<Value> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(MAX_REPORT).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[derive(Debug)]
enum Ended {
    Exited(ExitStatus),
    /// The guest never stopped talking, and was stopped.
    Talked(String),
    /// The VMM did not keep its own limit, and was stopped.
    Stuck(Duration),
}

/// What is wrong with how the VMM ended, if anything is; see `vnet-vmm --help` for its codes.
fn trouble(ended: &Ended, report: Option<&Value>, errors: &[u8]) -> Option<String> {
    let field = |name: &str| Some(printable(report?.get(name)?.as_str()?));
    let number = |name: &str| report?.get(name)?.as_u64();
    let errors = printable(String::from_utf8_lossy(errors).trim());
    let status = match ended {
        Ended::Talked(reason) => return Some(reason.clone()),
        Ended::Stuck(after) => {
            return Some(format!(
                "vnet-vmm itself hung: it was killed after {} s",
                after.as_secs()
            ));
        }
        Ended::Exited(status) => status,
    };
    let what = match (status.code(), status.signal()) {
        // 5: the guest said that a step failed; which one, its lines say.
        (Some(0 | 5), _) => return None,
        (Some(1 | 2), _) => {
            let error = field("error").unwrap_or_else(|| errors.clone());
            return Some(format!("the guest could not be started: {error}"));
        }
        (Some(3), _) => match number("seconds") {
            Some(seconds) => format!("the guest hung: it had not ended after {seconds} s"),
            None => "the guest hung".to_owned(),
        },
        (Some(4), _) => match field("reason") {
            Some(reason) => format!("the guest crashed: {reason}"),
            None => "the guest crashed".to_owned(),
        },
        (Some(6), _) => "a signal stopped vnet-vmm".to_owned(),
        (Some(code), _) => format!("vnet-vmm ended with the code {code}"),
        (None, Some(signal)) => format!("vnet-vmm was killed by signal {signal}"),
        (None, None) => "vnet-vmm ended in an unknown way".to_owned(),
    };
    Some(if errors.is_empty() { what } else { format!("{what}; vnet-vmm said: {errors}") })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The life of a machine whose VMM is a shell script.
    fn life_of(script: &str) -> Life {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("vmm");
        std::fs::write(&program, format!("#!/bin/sh\n{script}")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(&program, &[], Duration::ZERO)).unwrap()
    }

    #[test]
    fn a_vmm_that_cannot_start_a_guest_is_quoted() {
        let life = life_of("echo 'vnet-vmm: no kernel' >&2; exit 1");
        let trouble = life.trouble.unwrap();
        assert_eq!(trouble, "the guest could not be started: vnet-vmm: no kernel");
    }

    #[test]
    fn a_report_says_more_than_a_code() {
        // Its arguments are --quiet --serial stdio --report FD.
        let life = life_of(
            r#"echo '{"outcome":"crashed","reason":"triple fault"}' > /proc/self/fd/$5; exit 4"#,
        );
        assert_eq!(life.trouble.unwrap(), "the guest crashed: triple fault");
        assert_eq!(life.report.unwrap()["outcome"], "crashed");
    }

    #[test]
    fn a_guest_that_prints_rubbish_is_said_so() {
        let life = life_of("echo 'Kernel panic - not syncing'");
        assert!(life.trouble.unwrap().contains("Kernel panic"));
    }

    #[test]
    fn a_guest_that_floods_the_serial_port_is_stopped() {
        let trouble = life_of("exec cat /dev/zero").trouble.unwrap();
        assert!(trouble.contains("more than 64 KiB"), "{trouble}");
    }

    #[test]
    fn a_vmm_that_is_killed_is_said_so() {
        let trouble = life_of("echo boom >&2; kill -KILL $$").trouble.unwrap();
        assert_eq!(trouble, "vnet-vmm was killed by signal 9; vnet-vmm said: boom");
    }

    #[test]
    fn the_moment_of_the_address_is_known() {
        let life = life_of("echo 'vnet-guest: dhcp ok ms=4.2 address=10.0.0.2/24'");
        assert!(life.address.unwrap() <= life.total);
        assert_eq!(life.trouble.unwrap(), "the guest ended before it was done");
    }
}
