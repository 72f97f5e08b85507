//! Real DHCP clients: udhcpc, ISC dhclient and dhcpcd, each as its distribution ships it.
//!
//! A client runs in the foreground in a guest's namespace, with its configuration, leases and pid
//! file in a temporary folder; what it compiles in as a path is covered by that folder in a mount
//! namespace of its own. Nothing of the machine is touched: no resolv.conf, no host name.
//!
//! ```text
//!   client ──(hook: its environment, one record per event)──> FIFO ──> DhcpClient
//! ```
//!
//! The hook only reports. The address, the default route and the MTU are set from here with `ip`,
//! in the same way for all three, so that the guest can be used right away.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::Netns;
use crate::process::{die_with_parent, output_within, pidfd, poll_any, poll_readable, wait_within};

/// How long a client may take to get a lease, unless a test says otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a client may take to end, or to give up its lease.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// What stands behind each record in the FIFO.
const RECORD_END: &str = "--end--";

/// What a client was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLease {
    /// The address (`yiaddr`).
    pub address: Ipv4Addr,
    /// The length of the subnet's prefix (option 1).
    pub prefix: u8,
    /// The first router (option 3).
    pub router: Option<Ipv4Addr>,
    /// The name servers (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// The lease time in seconds (option 51).
    pub lease_seconds: u32,
    /// The server's identifier (option 54).
    pub server: Option<Ipv4Addr>,
    /// The domain (option 15).
    pub domain: Option<String>,
    /// The host name that the server gave (option 12).
    pub hostname: Option<String>,
    /// The MTU (option 26).
    pub mtu: Option<u32>,
}

/// Which client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientKind {
    /// busybox's, in the package udhcpc.
    Udhcpc,
    /// ISC's, in the package isc-dhcp-client.
    Dhclient,
    /// Roy Marples', in the package dhcpcd-base.
    Dhcpcd,
}

impl ClientKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Udhcpc, Self::Dhclient, Self::Dhcpcd];

    /// The client on the interface `ifname` of `ns`, not running yet.
    #[must_use]
    pub fn on(self, ns: &Netns, ifname: &str) -> ClientSetup {
        ClientSetup {
            kind: self,
            ns: ns.clone(),
            ifname: ifname.to_owned(),
            hostname: None,
            client_id: None,
            patience: PATIENCE,
        }
    }

    /// Gets a lease, sets the interface up with it, and ends the client without a release.
    ///
    /// # Panics
    /// There is no lease within twenty seconds; the message has the client's output.
    #[track_caller]
    pub fn obtain(self, ns: &Netns, ifname: &str) -> ClientLease {
        match self.try_obtain(ns, ifname) {
            Ok(lease) => lease,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// As [`obtain`](Self::obtain), where there may be no lease.
    ///
    /// # Errors
    /// There is none within twenty seconds; the message has the client's output.
    pub fn try_obtain(self, ns: &Netns, ifname: &str) -> Result<ClientLease> {
        Ok(self.on(ns, ifname).start()?.stop())
    }
}

macro_rules! client {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl $name {
            /// See [`ClientKind::on`].
            #[must_use]
            pub fn on(ns: &Netns, ifname: &str) -> ClientSetup {
                ClientKind::$name.on(ns, ifname)
            }

            /// See [`ClientKind::obtain`].
            ///
            /// # Panics
            /// There is no lease.
            #[track_caller]
            pub fn obtain(ns: &Netns, ifname: &str) -> ClientLease {
                ClientKind::$name.obtain(ns, ifname)
            }

            /// See [`ClientKind::try_obtain`].
            ///
            /// # Errors
            /// There is no lease.
            pub fn try_obtain(ns: &Netns, ifname: &str) -> Result<ClientLease> {
                ClientKind::$name.try_obtain(ns, ifname)
            }
        }
    };
}

client!(
    /// busybox's udhcpc; short for [`ClientKind::Udhcpc`].
    Udhcpc
);
client!(
    /// ISC's dhclient; short for [`ClientKind::Dhclient`].
    Dhclient
);
client!(
    /// dhcpcd; short for [`ClientKind::Dhcpcd`].
    Dhcpcd
);

/// A client that is yet to run.
#[derive(Debug, Clone)]
pub struct ClientSetup {
    kind: ClientKind,
    ns: Netns,
    ifname: String,
    hostname: Option<String>,
    client_id: Option<Vec<u8>>,
    patience: Duration,
}

impl ClientSetup {
    /// Sends this host name (option 12).
    #[must_use]
    pub fn hostname(mut self, name: &str) -> Self {
        self.hostname = Some(name.to_owned());
        self
    }

    /// Sends this client identifier (option 61), the type byte first. Without, each client does
    /// what it does by itself: udhcpc sends its MAC, dhclient nothing, dhcpcd an RFC 4361 one.
    #[must_use]
    pub fn client_id(mut self, id: &[u8]) -> Self {
        self.client_id = Some(id.to_vec());
        self
    }

    /// Waits for a lease as long as this, instead of twenty seconds.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts the client and waits for its first lease.
    ///
    /// # Errors
    /// The client is not installed, or gets no lease in time; the message has its output.
    pub fn start(self) -> Result<DhcpClient> {
        let files = Files::new()?;
        self.write(&files)?;
        DhcpClient::run(self, files)
    }

    /// Gets a lease, sets the interface up with it, and ends the client without a release.
    ///
    /// # Panics
    /// There is no lease in time; the message has the client's output.
    #[must_use]
    #[track_caller]
    pub fn obtain(self) -> ClientLease {
        match self.start() {
            Ok(client) => client.stop(),
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Writes the client's configuration.
    fn write(&self, files: &Files) -> Result<()> {
        let text = match self.kind {
            ClientKind::Udhcpc => return Ok(()),
            ClientKind::Dhclient => self.dhclient_conf(),
            ClientKind::Dhcpcd => self.dhcpcd_conf(),
        };
        Ok(fs::write(files.config(), text)?)
    }

    fn dhclient_conf(&self) -> String {
        let mut text = String::from(
            "timeout 60;\nretry 60;\ninitial-interval 1;\nbackoff-cutoff 3;\n\
             request subnet-mask, broadcast-address, routers, domain-name, domain-name-servers, \
             host-name, interface-mtu, domain-search, rfc3442-classless-static-routes;\n\
             option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;\n",
        );
        // An option must be declared before it is requested.
        let declaration = text.find("option rfc3442").unwrap_or(0);
        text = [&text[declaration..], &text[..declaration]].concat();
        if let Some(name) = &self.hostname {
            text.push_str(&format!("send host-name \"{name}\";\n"));
        }
        if let Some(id) = &self.client_id {
            text.push_str(&format!("send dhcp-client-identifier {};\n", colons(id)));
        }
        text
    }

    fn dhcpcd_conf(&self) -> String {
        // No ARP probes (five seconds), no IPv4LL address for want of a lease, no wait.
        let mut text = String::from(
            "noarp\nnoipv4ll\nnodelay\noption subnet_mask, routers, domain_name, \
             domain_name_servers, host_name, interface_mtu, domain_search, \
             classless_static_routes\n",
        );
        if let Some(name) = &self.hostname {
            text.push_str(&format!("hostname {name}\n"));
        }
        if let Some(id) = &self.client_id {
            text.push_str(&format!("clientid {}\n", colons(id)));
        }
        text
    }

    /// Starts the client; what it prints goes to the file.
    fn spawn(&self, files: &Files) -> Result<(Child, File)> {
        let output = tempfile::tempfile()?;
        let child = self
            .command(files)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {:?}: is it installed?", self.kind))?;
        Ok((child, output))
    }

    /// The command that runs the client in the foreground until it is killed.
    fn command(&self, files: &Files) -> Command {
        let mut command = match self.kind {
            ClientKind::Udhcpc => {
                let mut command = self.ns.command("udhcpc");
                command.args(["-f", "-t", "20", "-T", "1", "-A", "1"]);
                for option in ["hostname", "mtu", "search", "staticroutes", "domain"] {
                    command.args(["-O", option]);
                }
                if let Some(name) = &self.hostname {
                    command.args(["-x", &format!("hostname:{name}")]);
                }
                if let Some(id) = &self.client_id {
                    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                    command.args(["-C", "-x", &format!("0x3d:{hex}")]);
                }
                command.arg("-s").arg(files.hook()).arg("-i").arg(&self.ifname);
                command
            }
            ClientKind::Dhclient => {
                let mut command = self.ns.command("dhclient");
                command.args(["-4", "-d"]);
                files.dhclient_paths(&mut command);
                command.arg(&self.ifname);
                command
            }
            ClientKind::Dhcpcd => {
                let mut command = self.ns.command("dhcpcd");
                command.args(["-4", "-B", "-d", "-f"]).arg(files.config());
                command.arg("-c").arg(files.hook()).arg(&self.ifname);
                files.cover(&mut command);
                command
            }
        };
        // The hook reports its environment: a variable of the test's must not pass for an option.
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        die_with_parent(&mut command);
        command
    }
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// The folder with all that a client reads and writes.
#[derive(Debug)]
struct Files {
    dir: tempfile::TempDir,
    /// Open for writing too, so that it never looks hung up between two hooks.
    events: File,
}

impl Files {
    fn new() -> Result<Self> {
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

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn hook(&self) -> PathBuf {
        self.path("hook")
    }

    fn config(&self) -> PathBuf {
        self.path("config")
    }

    fn dhclient_paths(&self, command: &mut Command) {
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
    fn cover(&self, command: &mut Command) {
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
    fn run(setup: ClientSetup, files: Files) -> Result<Self> {
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

    /// Asks for a renewal now (RFC 2131 §4.4.5) and waits for it. dhclient knows no such request.
    ///
    /// # Errors
    /// There is no answer in time, or the client is dhclient.
    pub fn renew(&mut self) -> Result<&ClientLease> {
        match self.setup.kind {
            ClientKind::Udhcpc => self.signal(Signal::SIGUSR1)?,
            // dhcpcd(8): SIGUSR1 rebinds, and so does `-n`.
            ClientKind::Dhcpcd => self.signal(Signal::SIGUSR1)?,
            ClientKind::Dhclient => bail!("dhclient cannot be asked to renew"),
        }
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

/// The lease in a hook's environment, where the event is that there is one.
fn lease_of(event: &BTreeMap<String, String>) -> Result<Option<ClientLease>> {
    const LEASED: [&str; 8] =
        ["bound", "renew", "BOUND", "RENEW", "REBIND", "REBOOT", "INFORM", "REPLY"];
    if !event.get("event").is_some_and(|name| LEASED.contains(&name.as_str())) {
        return Ok(None);
    }
    // dhclient and dhcpcd share their names; udhcpc has its own.
    let text = |udhcpc: &str, isc: &str| {
        let found = event.get(&format!("new_{isc}")).or_else(|| event.get(udhcpc));
        found.map(|value| value.trim()).filter(|value| !value.is_empty())
    };
    let list = |udhcpc: &str, isc: &str| -> Result<Vec<Ipv4Addr>> {
        let words = text(udhcpc, isc).unwrap_or_default().split_whitespace();
        words.map(|word| word.parse().with_context(|| format!("{isc} {word:?}"))).collect()
    };
    let one = |udhcpc, isc| Ok::<_, anyhow::Error>(list(udhcpc, isc)?.into_iter().next());
    let mask = one("subnet", "subnet_mask")?.context("a lease without a subnet mask")?;
    let prefix = mask.to_bits().leading_ones();
    ensure!(prefix == mask.to_bits().count_ones(), "{mask} is no subnet mask");
    Ok(Some(ClientLease {
        address: one("ip", "ip_address")?.context("a lease without an address")?,
        prefix: u8::try_from(prefix)?,
        router: one("router", "routers")?,
        dns: list("dns", "domain_name_servers")?,
        lease_seconds: text("lease", "dhcp_lease_time").context("no lease time")?.parse()?,
        server: one("serverid", "dhcp_server_identifier")?,
        domain: text("domain", "domain_name").map(str::to_owned),
        hostname: text("hostname", "host_name").map(str::to_owned),
        mtu: text("mtu", "interface_mtu").map(str::parse).transpose()?,
    }))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn the_environment_of_udhcpc_is_understood() {
        let bound = event(&[
            ("event", "bound"),
            ("ip", "192.168.122.7"),
            ("subnet", "255.255.255.0"),
            ("router", "192.168.122.1"),
            ("dns", "192.168.122.1 9.9.9.9"),
            ("lease", "3600"),
            ("serverid", "192.168.122.1"),
            ("mtu", "1400"),
        ]);
        let lease = lease_of(&bound).unwrap().unwrap();
        assert_eq!((lease.prefix, lease.mtu, lease.dns.len()), (24, Some(1400), 2));
        assert_eq!(lease_of(&event(&[("event", "deconfig")])).unwrap(), None);
    }

    #[test]
    fn a_lease_without_a_mask_is_an_error() {
        assert!(lease_of(&event(&[("event", "BOUND"), ("new_ip_address", "10.0.0.1")])).is_err());
    }
}
