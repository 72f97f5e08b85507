//! The servers that are measured: each in a namespace of its own, on a bridge with the guests'
//! cable in it, with the same addresses to give.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use vnet_testkit::{Netd, Netns};
use vnet_types::MacAddr;

use super::seed;
use super::station::Station;

/// What the servers have on the bridge.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
/// What the load comes from.
const LOAD: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 2);
/// Bits of the subnet.
const PREFIX: u8 = 14;
/// The first and the last address that are given.
pub(super) const LEASES: (Ipv4Addr, Ipv4Addr) =
    (Ipv4Addr::new(10, 128, 1, 0), Ipv4Addr::new(10, 131, 254, 255));
pub(super) const LEASE_SECONDS: u32 = 3600;

const BRIDGE: &str = "virbr0";
/// The guests' end of the cable.
pub(super) const CARD: &str = "eth0";
const PATIENCE: Duration = Duration::from_secs(20);

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ours: leases are flushed before they are acknowledged.
    Vnet,
    /// dnsmasq, without a lease file.
    DnsmasqMemory,
    /// dnsmasq with its lease file, which it flushes at each lease.
    Dnsmasq,
    /// Kea, with its lease file, which it does not flush.
    Kea,
    /// systemd-networkd's, which keeps nothing.
    Networkd,
}

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::Vnet, Self::DnsmasqMemory, Self::Dnsmasq, Self::Kea, Self::Networkd];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vnet => "vnet",
            Self::DnsmasqMemory => "dnsmasq, in memory",
            Self::Dnsmasq => "dnsmasq, lease file",
            Self::Kea => "Kea, memfile",
            Self::Networkd => "systemd-networkd",
        }
    }

    /// The version, in the program's own words.
    pub(super) fn version(self) -> Result<String> {
        let (program, argument) = match self {
            Self::Vnet => return Ok(format!("vnet {}", env!("CARGO_PKG_VERSION"))),
            Self::DnsmasqMemory | Self::Dnsmasq => ("dnsmasq", "--version"),
            Self::Kea => ("kea-dhcp4", "-v"),
            Self::Networkd => (NETWORKD, "--version"),
        };
        let output = Command::new(program).arg(argument).output();
        let output = output.with_context(|| format!("cannot start {program}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version =
            text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let version = version.with_context(|| format!("{program} {argument} says {text}"))?;
        Ok(match self {
            Self::Kea => format!("Kea {version}"),
            Self::Networkd => format!("systemd {version}"),
            _ => format!("dnsmasq {version}"),
        })
    }

    /// Where it keeps its leases.
    pub(super) fn leases(self, folder: &Path) -> PathBuf {
        folder.join(match self {
            Self::Vnet => "var/lib/vnet/leases/bench.leases",
            Self::Dnsmasq | Self::DnsmasqMemory => "dnsmasq.leases",
            Self::Kea => "kea.csv",
            Self::Networkd => "none",
        })
    }
}

/// A server that serves; it ends with this value.
pub(super) struct Server {
    kind: Kind,
    /// What the load comes from.
    pub(super) guests: Netns,
    pub(super) host: Netns,
    process: Process,
    folder: TempDir,
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
    /// Starts a server that has `held` leases. None if it cannot have them from the start.
    pub(super) fn start(kind: Kind, held: u32) -> Result<Option<Self>> {
        let (host, guests) = (Netns::new(), Netns::new());
        let folder = TempDir::new()?;
        let seeds = kind.leases(folder.path());
        fs::create_dir_all(seeds.parent().context("a file is in a folder")?)?;
        if held > 0 && !seed::write(kind, folder.path(), held)? {
            return Ok(None);
        }
        let process = if kind == Kind::Vnet {
            let networks = folder.path().join("etc/vnet/networks");
            fs::create_dir_all(&networks)?;
            fs::write(networks.join("bench.toml"), definition())?;
            Process::Netd(Netd::try_start(&host, folder.path())?)
        } else {
            host.bridge(BRIDGE);
            host.address(BRIDGE, &format!("{SERVER}/{PREFIX}"));
            Process::Child(spawn(kind, &host, folder.path())?)
        };
        Netns::veth(&host, "port0", &guests, CARD);
        host.enslave("port0", BRIDGE);
        guests.address(CARD, &format!("{LOAD}/{PREFIX}"));
        let server = Self { kind, guests, host, process, folder };
        server.wait_until_it_serves()?;
        Ok(Some(server))
    }

    pub(super) fn pid(&self) -> u32 {
        match &self.process {
            Process::Netd(netd) => netd.pid(),
            Process::Child(child) => child.id(),
        }
    }

    /// A new port of the bridge with a guest behind it.
    pub(super) fn new_port(&self, number: u32) -> Result<Station> {
        if self.kind == Kind::Vnet {
            let socket = self.folder.path().join("run/vnet/ports.sock");
            return Station::on_new_port(&socket, "bench", &format!("guest{number}"));
        }
        Station::on_new_tap(&self.host, &format!("tap{number}"), BRIDGE)
    }

    /// Has one guest ask until it has an address: only then everything is read in and open.
    fn wait_until_it_serves(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut station = Station::on(&self.guests, CARD)?;
        let (guest, mut patience) =
            (MacAddr([0x52, 0x54, 0xff, 0, 0, 1]), Duration::from_millis(20));
        while station.lease(guest, patience)?.is_none() {
            // A slow server is not one that is not there yet.
            patience = (patience * 2).min(Duration::from_secs(2));
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            ensure!(Instant::now() < deadline, "{} gives no address:\n{log}", self.kind.name());
        }
        Ok(())
    }
}

fn definition() -> String {
    format!(
        "name = \"bench\"\nmode = \"nat\"\nbridge = \"{BRIDGE}\"\nsubnet = \"10.128.0.0/{PREFIX}\"\n\
         domain = \"bench.vnet\"\n\n[dhcp]\nrange = \"{}-{}\"\nlease_seconds = {LEASE_SECONDS}\n",
        LEASES.0, LEASES.1
    )
}

const NETWORKD: &str = "/lib/systemd/systemd-networkd";

fn spawn(kind: Kind, host: &Netns, folder: &Path) -> Result<Child> {
    let mut command = match kind {
        Kind::Vnet | Kind::Dnsmasq | Kind::DnsmasqMemory => {
            let mut command = host.command("dnsmasq");
            command.args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--port=0",
                "--user=root",
            ]);
            command.args(["--no-ping", "--dhcp-authoritative", "--bind-interfaces", "--pid-file="]);
            command.args(["--log-facility=-", "--quiet-dhcp", "--dhcp-lease-max=1000000"]);
            command.arg(format!("--interface={BRIDGE}"));
            command
                .arg(format!("--dhcp-range={},{},255.252.0.0,{LEASE_SECONDS}", LEASES.0, LEASES.1));
            match kind {
                Kind::DnsmasqMemory => command.arg("--leasefile-ro"),
                _ => command.arg(format!("--dhcp-leasefile={}", kind.leases(folder).display())),
            };
            command
        }
        Kind::Kea => {
            fs::write(folder.join("kea.json"), kea(&kind.leases(folder)))?;
            let mut command = host.command("kea-dhcp4");
            command.env("KEA_PIDFILE_DIR", folder).env("KEA_LOCKFILE_DIR", folder);
            command.arg("-c").arg(folder.join("kea.json"));
            command
        }
        Kind::Networkd => {
            let files = folder.join("network");
            fs::create_dir(&files)?;
            fs::write(files.join("bench.network"), networkd())?;
            let script = "mount --make-rprivate / && mount -t tmpfs tmpfs /run \
                          && mkdir -p /run/systemd/netif/links && chown -R systemd-network /run/systemd \
                          && mount -t sysfs -o ro sysfs /sys && mount --bind \"$1\" /etc/systemd/network \
                          && exec \"$0\"";
            let mut command = host.command("unshare");
            command.args(["--mount", "sh", "-c", script, NETWORKD]).arg(files);
            command
        }
    };
    let log = File::create(folder.join("log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("cannot start {}", kind.name()))
}

fn kea(leases: &Path) -> String {
    format!(
        r#"{{"Dhcp4": {{
  "interfaces-config": {{"interfaces": ["{BRIDGE}"]}},
  "lease-database": {{"type": "memfile", "persist": true, "lfc-interval": 0, "name": "{}"}},
  "valid-lifetime": {LEASE_SECONDS},
  "subnet4": [{{"id": 1, "subnet": "10.128.0.0/{PREFIX}", "pools": [{{"pool": "{} - {}"}}],
    "option-data": [{{"name": "routers", "data": "{SERVER}"}},
                    {{"name": "domain-name-servers", "data": "{SERVER}"}}]}}],
  "loggers": [{{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{{"output": "stderr"}}]}}]
}}}}"#,
        leases.display(),
        LEASES.0,
        LEASES.1
    )
}

fn networkd() -> String {
    let offset = u32::from(LEASES.0) - (u32::from(SERVER) & !0 << (32 - PREFIX));
    let size = u32::from(LEASES.1) - u32::from(LEASES.0);
    format!(
        "[Match]\nName={BRIDGE}\n\n[Network]\nAddress={SERVER}/{PREFIX}\nDHCPServer=yes\n\
         IPv6AcceptRA=no\n\n[DHCPServer]\nPoolOffset={offset}\nPoolSize={size}\n\
         DefaultLeaseTimeSec={LEASE_SECONDS}\nMaxLeaseTimeSec={LEASE_SECONDS}\nEmitDNS=no\n"
    )
}
