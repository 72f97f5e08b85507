//! Programs of Debian packages that are not installed, with an `/etc`, `/var` and `/run` of their
//! own.
//!
//! A resolver or a firewall that is installed takes over the machine, so `scripts/test` only unpacks
//! such packages, under `target/unpacked`. In a mount namespace that exists as a descriptor, as
//! network namespaces do, they lie over the machine's own files, and what is written goes to a file
//! system in memory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::Netns;
use crate::process::{die_with_parent, output_within, wait_within};

/// How long a daemon may take to serve, and a command to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether a daemon serves.
const LOOK: Duration = Duration::from_millis(50);
/// Folders that are the machine's with the packages over them, and can be written.
const FOLDERS: [&str; 3] = ["usr", "etc", "var"];
/// Users as which daemons of the packages run; without the packages' own scripts nobody makes them.
const USERS: [&str; 2] = ["messagebus", "systemd-resolve"];

/// A mount namespace with the unpacked packages in place.
#[derive(Debug, Clone)]
pub struct Userland {
    mounts: Arc<OwnedFd>,
}

impl Userland {
    /// One in which `program` (a path from the root) is there.
    ///
    /// # Panics
    /// The process is not root, or the packages have not been unpacked.
    #[must_use]
    pub fn with(program: &str) -> Self {
        let made = thread::spawn(build).join().expect("the thread that mounts does not panic");
        let mounts = made.unwrap_or_else(|error| panic!("cannot make a mount namespace: {error}"));
        let userland = Self { mounts: Arc::new(mounts) };
        let status = userland.enter(Command::new("test").args(["-x", program])).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "there is no {program}, nor one in {}: `scripts/test TEST` unpacks its package",
            unpacked().display()
        );
        userland
    }

    /// Has a command run with these files.
    pub fn enter<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let mounts = Arc::clone(&self.mounts);
        let enter = move || setns(&*mounts, CloneFlags::CLONE_NEWNS).map_err(io::Error::from);
        // SAFETY: between fork and exec, only the system call setns is made; nothing is allocated
        // and no lock is taken. The closure owns a handle that keeps the descriptor open.
        unsafe { command.pre_exec(enter) }
    }

    /// A command in `ns` with these files.
    #[must_use]
    pub fn command(&self, ns: &Netns, program: &str) -> Command {
        let mut command = ns.command(program);
        self.enter(&mut command);
        command
    }

    /// Runs a command line without quotes in `ns`, and gives back what it printed, errors included.
    ///
    /// # Errors
    /// It fails; the text is what it printed.
    pub fn try_run(&self, ns: &Netns, line: &str) -> Result<String, String> {
        let mut words = line.split_whitespace();
        let mut command = self.command(ns, words.next().unwrap_or_default());
        command.args(words).env("LC_ALL", "C");
        let output = output_within(&mut command, PATIENCE).map_err(|error| error.to_string())?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    /// As [`try_run`](Self::try_run).
    ///
    /// # Panics
    /// It fails.
    #[track_caller]
    pub fn run(&self, ns: &Netns, line: &str) -> String {
        match self.try_run(ns, line) {
            Ok(text) => text,
            Err(text) => panic!("{line}: {text}"),
        }
    }

    /// Writes a file that only this userland sees, unless it is under `/tmp`.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        let mut command = Command::new("sh");
        command.args(["-c", "mkdir -p \"${0%/*}\" && cat >\"$0\"", path]).stdin(Stdio::piped());
        let mut child = self.enter(&mut command).spawn().expect("sh can be started");
        let mut stdin = child.stdin.take().expect("its input is a pipe");
        stdin.write_all(text.as_bytes()).expect("sh reads");
        drop(stdin);
        assert!(child.wait().is_ok_and(|status| status.success()), "cannot write {path}");
    }

    /// Starts a daemon in `ns` by a command line without quotes, and waits until `probe`, another
    /// one, succeeds. Call it from the test's own thread: the daemon dies with it.
    ///
    /// # Panics
    /// It ends, or does not serve in time.
    #[must_use]
    #[track_caller]
    pub fn daemon(&self, ns: &Netns, line: &str, probe: &str) -> Running {
        let mut words = line.split_whitespace();
        let mut command = self.command(ns, words.next().unwrap_or_default());
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        die_with_parent(&mut command);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        let mut running = Running(child);
        let deadline = Instant::now() + PATIENCE;
        while let Err(text) = self.try_run(ns, probe) {
            let ended = wait_within(&mut running.0, LOOK).expect("a child can be waited for");
            assert!(ended.is_none(), "{line} has ended: {ended:?}");
            assert!(Instant::now() < deadline, "{line} does not serve: {text}");
        }
        running
    }

    /// A system bus of this userland's own.
    ///
    /// # Panics
    /// As [`daemon`](Self::daemon).
    #[must_use]
    #[track_caller]
    pub fn bus(&self, ns: &Netns) -> Running {
        let line = "dbus-daemon --system --nofork --nopidfile --nosyslog";
        self.daemon(ns, line, "busctl --acquired list")
    }
}

/// A daemon, which ends with this value.
#[derive(Debug)]
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where `scripts/test` unpacks to: beside the profile that this test was built into.
fn unpacked() -> PathBuf {
    let exe = std::env::current_exe().expect("a test can find its own executable");
    exe.ancestors().nth(3).unwrap_or(Path::new("target")).join("unpacked")
}

/// Makes the mount namespace, on a thread of its own.
fn build() -> io::Result<OwnedFd> {
    const NONE: Option<&str> = None;
    let (memory, unpacked) = (tempfile::tempdir()?, unpacked());
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NONE)?;
    mount(Some("tmpfs"), memory.path(), Some("tmpfs"), MsFlags::empty(), NONE)?;
    for folder in FOLDERS {
        let upper = memory.path().join(folder);
        let work = memory.path().join(format!("{folder}.work"));
        fs::create_dir(&upper)?;
        fs::create_dir(&work)?;
        let root = Path::new("/").join(folder);
        let over = unpacked.join(folder);
        let lower = match over.is_dir() {
            true => format!("{}:{}", over.display(), root.display()),
            false => root.display().to_string(),
        };
        let (upper, work) = (upper.display(), work.display());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(&*options))?;
    }
    umount2(memory.path(), MntFlags::MNT_DETACH)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), NONE)?;
    fs::create_dir_all("/run/dbus")?;
    // resolved takes it for a sign of systemd that somebody else makes its folder.
    fs::create_dir_all("/run/systemd/netif/links")?;
    let (mut users, mut groups) =
        (fs::read_to_string("/etc/passwd")?, fs::read_to_string("/etc/group")?);
    for (name, number) in USERS.into_iter().zip(990..) {
        if !users.lines().any(|line| line.starts_with(&format!("{name}:"))) {
            users.push_str(&format!("{name}:x:{number}:{number}::/:/usr/sbin/nologin\n"));
            groups.push_str(&format!("{name}:x:{number}:\n"));
        }
    }
    fs::write("/etc/passwd", users)?;
    fs::write("/etc/group", groups)?;
    Ok(File::open("/proc/thread-self/ns/mnt")?.into())
}
