//! The servers that are measured, one at a time: a host with a bridge to the load and a cable to
//! the outside, and the same names in each.

use std::fs::{self, File};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use vnet_testkit::{Netd, Netns};

use super::outside::Outside;

/// What the servers have on the bridge.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
/// The name server outside.
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// How many guests have a name.
pub(super) const GUESTS: u32 = 200;
pub(super) const DOMAIN: &str = "bench.vnet";

const BRIDGE: &str = "virbr0";
const PATIENCE: Duration = Duration::from_secs(20);

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Vnet,
    Dnsmasq,
    /// With one thread.
    Unbound,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Vnet, Self::Dnsmasq, Self::Unbound];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vnet => "vnet",
            Self::Dnsmasq => "dnsmasq",
            Self::Unbound => "unbound",
        }
    }

    /// The name with the version, in the program's own words.
    pub(super) fn version(self) -> Result<String> {
        let argument = match self {
            Self::Vnet => return Ok(format!("vnet {}", env!("CARGO_PKG_VERSION"))),
            Self::Dnsmasq => "--version",
            Self::Unbound => "-V",
        };
        let output = Command::new(self.name()).arg(argument).output();
        let output = output.with_context(|| format!("cannot start {}", self.name()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let is_number = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
        let version = text.split_whitespace().find(is_number);
        let version = version.with_context(|| format!("{} says {text}", self.name()))?;
        Ok(format!("{} {version}", self.name()))
    }
}

/// A server that serves; it ends with this value.
pub(super) struct Server {
    /// Where the load comes from.
    pub(super) guests: Netns,
    process: Process,
    _outside: Outside,
    _folder: TempDir,
}

enum Process {
    Netd(Netd),
    Child(Child),
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Self::Child(child) = self {
            // It may have ended by itself; then there is nothing to end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Server {
    pub(super) fn start(kind: Kind) -> Result<Self> {
        let (host, guests, beyond) = (Netns::new(), Netns::new(), Netns::new());
        Netns::veth(&host, "eth0", &beyond, "eth0");
        host.address("eth0", "203.0.113.2/24");
        beyond.address("eth0", &format!("{UPSTREAM}/24"));
        let outside = Outside::start(&beyond, UPSTREAM)?;
        let folder = TempDir::new()?;
        let process = if kind == Kind::Vnet {
            let networks = folder.path().join("etc/vnet/networks");
            fs::create_dir_all(&networks)?;
            fs::write(networks.join("bench.toml"), definition())?;
            Process::Netd(Netd::try_start(&host, folder.path())?)
        } else {
            host.bridge(BRIDGE);
            host.address(BRIDGE, &format!("{SERVER}/24"));
            let mut command = match kind {
                Kind::Unbound => unbound(&host, &folder)?,
                _ => dnsmasq(&host),
            };
            let log = File::create(folder.path().join("log"))?;
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            let child = command.spawn();
            Process::Child(child.with_context(|| format!("cannot start {}", kind.name()))?)
        };
        Netns::veth(&host, "port0", &guests, "eth0");
        host.enslave("port0", BRIDGE);
        guests.address("eth0", "10.128.0.2/24");
        wait_until_it_serves(&guests, kind, &folder)?;
        Ok(Self { guests, process, _outside: outside, _folder: folder })
    }

    pub(super) fn pid(&self) -> u32 {
        match &self.process {
            Process::Netd(netd) => netd.pid(),
            Process::Child(child) => child.id(),
        }
    }
}

/// Asks for the first guest until there is an answer.
fn wait_until_it_serves(guests: &Netns, kind: Kind, folder: &TempDir) -> Result<()> {
    let query = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06guest0\x05bench\x04vnet\x00\x00\x01\x00\x01";
    let deadline = Instant::now() + PATIENCE;
    let socket = guests.enter(|| UdpSocket::bind("10.128.0.2:0"))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut answer = [0; 512];
    loop {
        // What was sent before the bridge or the server was there is lost.
        let sent = socket.send_to(query, (SERVER, 53));
        if sent.is_ok() && socket.recv(&mut answer).is_ok_and(|len| len > query.len()) {
            return Ok(());
        }
        let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        ensure!(Instant::now() < deadline, "{} does not answer:\n{log}", kind.name());
    }
}

fn hosts() -> impl Iterator<Item = (String, Ipv4Addr)> {
    (0..GUESTS).map(|number| {
        let address = u32::from(SERVER) + 9 + number;
        (format!("guest{number}"), address.into())
    })
}

fn definition() -> String {
    let hosts: String =
        hosts().map(|(name, address)| format!("{name} = [\"{address}\"]\n")).collect();
    format!(
        "name = \"bench\"\nmode = \"nat\"\nbridge = \"{BRIDGE}\"\nsubnet = \"10.128.0.0/24\"\n\
         domain = \"{DOMAIN}\"\n\n[dns]\nupstreams = [\"{UPSTREAM}\"]\n\n[dns.hosts]\n{hosts}"
    )
}

fn dnsmasq(host: &Netns) -> Command {
    let mut command = host.command("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="]);
    command.args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--cache-size=10000"]);
    command.args(["--log-facility=-", "--dns-forward-max=1000"]);
    command.args([format!("--server={UPSTREAM}"), format!("--local=/{DOMAIN}/")]);
    command.arg(format!("--interface={BRIDGE}"));
    command.args(hosts().map(|(name, to)| format!("--host-record={name}.{DOMAIN},{to}")));
    command
}

fn unbound(host: &Netns, folder: &TempDir) -> Result<Command> {
    let hosts: String = hosts()
        .map(|(name, to)| format!("  local-data: \"{name}.{DOMAIN}. 30 IN A {to}\"\n"))
        .collect();
    let file = folder.path().join("unbound.conf");
    fs::write(
        &file,
        format!(
            "server:\n  interface: {SERVER}\n  access-control: 10.128.0.0/24 allow\n  \
             num-threads: 1\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  \
             module-config: \"iterator\"\n  incoming-num-tcp: 100\n  \
             local-zone: \"{DOMAIN}.\" static\n{hosts}\
             forward-zone:\n  name: \".\"\n  forward-addr: {UPSTREAM}\n\
             remote-control:\n  control-enable: no\n"
        ),
    )?;
    let mut command = host.command("unbound");
    command.arg("-d").arg("-c").arg(file);
    Ok(command)
}
