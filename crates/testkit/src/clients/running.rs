//! A client that runs: what it reports, and what it can be asked for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::files::{Files, RECORD_END};
use super::lease::{ClientLease, lease_of};
use super::{ClientKind, ClientSetup, END_PATIENCE};
use crate::process::{output_within, pidfd, poll_any, poll_readable, wait_within};

/// A running client that has, or had, a lease.
#[derive(Debug)]
pub struct DhcpClient {
    setup: ClientSetup,
    files: Files,
    child: Child,
    output: File,
    /// What has come through the FIFO and makes no whole record yet.
    unread: Vec<u8>,
    lease: Option<ClientLease>,
}

impl DhcpClient {
    pub(super) fn run(setup: ClientSetup, files: Files) -> Result<Self> {
        setup.ns.up(&setup.ifname);
        let (child, output) = setup.spawn(&files)?;
        let mut client = Self { setup, files, child, output, unread: Vec::new(), lease: None };
        let patience = client.setup.patience;
        client.wait_for_lease(patience)?;
        Ok(client)
    }

    /// The lease that it holds.
    ///
    /// # Panics
    /// It has none.
    #[must_use]
    pub fn lease(&self) -> &ClientLease {
        self.lease.as_ref().expect("a client that has started has a lease until it releases it")
    }

    /// What it has printed until now.
    #[must_use]
    pub fn output(&self) -> String {
        let length = self.output.metadata().map_or(0, |meta| meta.len());
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let length = self.output.read_at(&mut bytes, 0).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Waits until the client reports a lease once more (a renewal, a rebind, another address), and
    /// sets the interface up with it.
    ///
    /// # Errors
    /// It does not within `patience`; the message has its output.
    pub fn wait_for_lease(&mut self, patience: Duration) -> Result<&ClientLease> {
        let deadline = Instant::now() + patience;
        loop {
            let event = self.next_event(deadline)?;
            if let Some(lease) = lease_of(&event)? {
                apply(&self.setup, &lease)?;
                return Ok(self.lease.insert(lease));
            }
        }
    }

    /// Ends the client at once, without a release, as a crash or a power failure would, and gives
    /// back the lease. The interface stays as it is.
    #[must_use]
    pub fn stop(mut self) -> ClientLease {
        self.kill();
        self.lease().clone()
    }

    /// Ends the client at once and starts it again with the lease that it has on disk: dhclient and
    /// dhcpcd then begin in INIT-REBOOT (RFC 2131 §4.3.2). The interface loses its address first.
    ///
    /// # Errors
    /// It gets no lease; and udhcpc keeps none on disk.
    pub fn reboot(mut self) -> Result<Self> {
        ensure!(self.setup.kind != ClientKind::Udhcpc, "udhcpc keeps no lease over a reboot");
        self.kill();
        self.setup.ns.ip(&format!("-4 addr flush dev {}", self.setup.ifname));
        // Whatever the old run has reported is not the new one's.
        self.drain()?;
        (self.child, self.output) = self.setup.spawn(&self.files)?;
        self.lease = None;
        let patience = self.setup.patience;
        self.wait_for_lease(patience)?;
        Ok(self)
    }

    /// Asks for a renewal now (RFC 2131 §4.4.5). dhclient knows no such request.
    ///
    /// # Errors
    /// The client is dhclient, or has ended.
    pub fn ask_to_renew(&self) -> Result<()> {
        match self.setup.kind {
            // dhcpcd(8): SIGUSR1 rebinds, and so does `-n`.
            ClientKind::Udhcpc | ClientKind::Dhcpcd => self.signal(Signal::SIGUSR1),
            ClientKind::Dhclient => bail!("dhclient cannot be asked to renew"),
        }
    }

    /// As [`ask_to_renew`](Self::ask_to_renew), and waits for the lease.
    ///
    /// # Errors
    /// There is no answer in time, or the client is dhclient.
    pub fn renew(&mut self) -> Result<&ClientLease> {
        self.ask_to_renew()?;
        let patience = self.setup.patience;
        self.wait_for_lease(patience)
    }

    /// Gives the lease back (DHCPRELEASE), ends the client, and takes the address off the
    /// interface.
    ///
    /// # Errors
    /// The client does not report that it has; the message has its output.
    pub fn release(mut self) -> Result<()> {
        match self.setup.kind {
            ClientKind::Udhcpc => {
                self.drain()?;
                self.signal(Signal::SIGUSR2)?;
                let deadline = Instant::now() + END_PATIENCE;
                while self.next_event(deadline)?.get("event").is_none_or(|it| it != "deconfig") {}
                self.kill();
            }
            ClientKind::Dhclient => {
                // The release is sent by another dhclient, from the lease file.
                self.kill();
                let mut command = self.setup.ns.command("dhclient");
                command.args(["-4", "-r"]);
                self.files.dhclient_paths(&mut command);
                command.arg(&self.setup.ifname);
                let output = output_within(&mut command, END_PATIENCE)?;
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                ensure!(output.status.success(), "dhclient -r failed: {text}");
            }
            ClientKind::Dhcpcd => {
                // dhcpcd(8): SIGALRM releases the lease and ends dhcpcd.
                self.signal(Signal::SIGALRM)?;
                let ended = wait_within(&mut self.child, END_PATIENCE)?;
                ensure!(ended.is_some(), "dhcpcd did not release:\n{}", self.output());
            }
        }
        self.setup.ns.ip(&format!("-4 addr flush dev {}", self.setup.ifname));
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    /// The environment of the hook's next run.
    fn next_event(&mut self, deadline: Instant) -> Result<BTreeMap<String, String>> {
        loop {
            if let Some(event) = self.take_record() {
                return Ok(event);
            }
            let kind = self.setup.kind;
            if let Some(status) = self.child.try_wait()? {
                bail!("{kind:?} has ended ({status}) without a lease:\n{}", self.output());
            }
            let ended = pidfd(&self.child)?;
            match poll_any([self.files.events.as_fd(), ended.as_fd()], deadline)? {
                Some(0) => self.fill()?,
                Some(_) => {}
                None => bail!("{kind:?} has no lease in time; its output:\n{}", self.output()),
            }
        }
    }

    /// Takes the first whole record out of what has been read.
    fn take_record(&mut self) -> Option<BTreeMap<String, String>> {
        let text = String::from_utf8_lossy(&self.unread).into_owned();
        let (record, rest) = text.split_once(&format!("{RECORD_END}\n"))?;
        let event = record
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        self.unread = rest.as_bytes().to_vec();
        Some(event)
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match self.files.events.read(&mut buffer) {
            Ok(length) => self.unread.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Forgets what has been reported until now.
    fn drain(&mut self) -> io::Result<()> {
        while poll_readable(&self.files.events, Instant::now())? {
            self.fill()?;
        }
        self.unread.clear();
        Ok(())
    }

    fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for DhcpClient {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sets the interface up with the lease, in place of what it had.
fn apply(setup: &ClientSetup, lease: &ClientLease) -> Result<()> {
    let (ns, ifname) = (&setup.ns, setup.ifname.as_str());
    let ip = |line: String| {
        ns.try_run([OsStr::new("ip")].into_iter().chain(line.split(' ').map(OsStr::new)))
    };
    if let Some(mtu) = lease.mtu {
        ip(format!("link set dev {ifname} mtu {mtu}"))?;
    }
    let address = format!("{}/{}", lease.address, lease.prefix);
    let has = ns.ip(&format!("-4 -o addr show dev {ifname}"));
    if !has.contains(&format!("inet {address} ")) {
        ip(format!("-4 addr flush dev {ifname}"))?;
        ip(format!("addr add {address} brd + dev {ifname}"))?;
    }
    if let Some(router) = lease.router {
        ip(format!("-4 route replace default via {router} dev {ifname}"))?;
    }
    Ok(())
}
