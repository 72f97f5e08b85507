//! The files of a client, and the hook that reports to us.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::END_PATIENCE;
use crate::process::output_within;

/// What stands behind each record in the FIFO.
pub(super) const RECORD_END: &str = "--end--";

/// The folder with all that a client reads and writes.
#[derive(Debug)]
pub(super) struct Files {
    dir: tempfile::TempDir,
    /// Open for writing too, so that it never looks hung up between two hooks.
    pub(super) events: File,
}

impl Files {
    pub(super) fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("vnet-client-").tempdir()?;
        let fifo = dir.path().join("events");
        mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let events =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&fifo)?;
        for folder in ["state", "run"] {
            fs::create_dir(dir.path().join(folder))?;
        }
        // dhcpcd gives up root for the user `dhcpcd` where there is one, which the root of a user
        // namespace cannot do; where there is none it runs as it is.
        fs::write(dir.path().join("passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        let files = Self { dir, events };
        let source = files.path("hook.source");
        let hook = format!(
            "#!/bin/sh\n{{ echo \"event=${{1:-$reason}}\"; env; echo '{RECORD_END}'; }} > {}\n",
            files.path("events").display()
        );
        fs::write(&source, hook)?;
        // Copied by a process of its own: a descriptor open for writing in ours could be inherited
        // by another thread's child, and the hook would be busy (ETXTBSY).
        let mut install = Command::new("install");
        install.args(["-m", "755"]).arg(&source).arg(files.hook());
        ensure!(output_within(&mut install, END_PATIENCE)?.status.success(), "no hook");
        Ok(files)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn hook(&self) -> PathBuf {
        self.path("hook")
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path("config")
    }

    pub(super) fn dhclient_paths(&self, command: &mut Command) {
        command
            .arg("-cf")
            .arg(self.config())
            .arg("-lf")
            .arg(self.path("state/leases"))
            .arg("-pf")
            .arg(self.path("run/pid"))
            .arg("-sf")
            .arg(self.hook());
    }

    /// Covers the paths that dhcpcd compiles in, in a mount namespace of the child's own.
    pub(super) fn cover(&self, command: &mut Command) {
        let mut covers = Vec::new();
        for (ours, theirs) in [
            ("state", "/var/lib/dhcpcd"),
            ("state", "/var/lib/dhcpcd5"),
            ("run", "/run/dhcpcd"),
            ("passwd", "/etc/passwd"),
        ] {
            if Path::new(theirs).exists() {
                covers.push((self.path(ours), theirs));
            }
        }
        if !Path::new("/run/dhcpcd").exists() {
            // Nothing to cover there: it would be made on the machine.
            covers.push((self.path("run"), "/run"));
        }
        let enter = move || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
            for (ours, theirs) in &covers {
                mount(Some(ours.as_path()), *theirs, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            }
            io::Result::Ok(())
        };
        // SAFETY: between fork and exec, only the system calls unshare and mount are made; nix
        // copies paths of this length to the stack, so nothing is allocated and no lock is taken.
        unsafe { command.pre_exec(enter) };
    }
}
