//! The command line.

use std::env;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Parser;
use vnet_types::{DomainName, LinkLimits, MacAddr};
use vnet_virtio::limit::Limits;

use crate::disk::{DiskConfig, number};
use crate::net::{NicConfig, Source};

/// The built-in guest's file name.
const GUEST: &str = "vnet-guest";
/// Memory in MiB that the built-in guest gets, and other kernels.
const GUEST_MEMORY: u64 = 64;
const KERNEL_MEMORY: u64 = 512;

/// Runs one guest until it stops.
///
/// SIGPWR presses the guest's power button: a guest with an operating system then shuts down.
/// SIGTERM and SIGINT stop it at once.
///
/// Exit status: 0 the guest stopped, 1 it could not be started, 2 wrong usage, 3 it had not
/// stopped in time, 4 it crashed, 5 it said that it failed, 6 a signal stopped it, 7 the jail ended
/// the VMM.
#[derive(Debug, Parser)]
#[command(name = "vnet-vmm", version)]
pub struct Cli {
    /// The kernel: a bzImage, or an ELF file with a PVH note [default: what the first disk boots;
    /// without disks, the built-in guest]
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// The kernel's initial RAM disk
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line; added to the disk's, if that is what is booted
    #[arg(long, value_name = "CMDLINE", default_value = "", allow_hyphen_values = true)]
    pub append: String,
    /// Memory in MiB [default: 64 for the built-in guest, 512 for others]
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
    /// Processors
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub cpus: u8,
    /// A network card on a network of netd's; may be repeated
    ///
    /// Settings: mac=MAC; rate-in=RATE and rate-out=RATE, which netd enforces.
    #[arg(long, value_name = "MODE:NAME[,SETTING …]")]
    pub net: Vec<NetArgument>,
    /// A network card on a tap that was opened before, with vnet headers; may be repeated
    ///
    /// Settings: mac=MAC; bps=BYTES, pps=N and burst=MS limit what the card sends, and what it
    /// receives.
    #[arg(long, value_name = "N[,SETTING …]")]
    pub tap_fd: Vec<TapArgument>,
    /// A disk; may be repeated
    ///
    /// Settings: ro; format=raw|qcow2 [default: qcow2 for *.qcow2, or else raw]; serial=ID;
    /// queues=N; backing=anywhere (a qcow2 image may name files outside of its directory);
    /// bps=BYTES, iops=N and burst=MS limit it.
    #[arg(long, value_name = "FILE[,SETTING …]")]
    pub disk: Vec<DiskConfig>,
    /// The domain's name
    #[arg(long, value_name = "DOMAIN", default_value = "guest")]
    pub name: DomainName,
    /// Where vnet's paths begin
    #[arg(long, value_name = "DIR", env = "VNET_ROOT", default_value = "/")]
    pub root: PathBuf,
    /// Where the serial port leads
    #[arg(long, value_name = "stdio|FILE", default_value = "stdio")]
    pub serial: String,
    /// A virtio console (hvc0), and where it leads; with stdio, --serial needs a file
    #[arg(long, value_name = "stdio|FILE")]
    pub console: Option<String>,
    /// Report a guest that has not stopped after so long as hung
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub timeout: Option<u32>,
    /// Do not confine the process: for debuggers only
    #[arg(long)]
    pub no_jail: bool,
    /// Say nothing about how the guest ended
    #[arg(long)]
    pub quiet: bool,
    /// Write how it ended, as JSON, to a descriptor or a file
    #[arg(long, value_name = "FD|FILE")]
    pub report: Option<String>,
}

/// `nat:default,mac=…`: what stands before the colon is netd's to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetArgument(pub NicConfig);

/// `5,mac=…`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapArgument(pub NicConfig);

/// The settings of a card behind its source, as `nat:default` or `5`.
struct Settings<'a> {
    source: &'a str,
    mac: Option<MacAddr>,
    limits: Limits,
    rates: LinkLimits,
}

/// Splits `TEXT[,mac=MAC][,rate-in=RATE][,rate-out=RATE][,bps=BYTES][,pps=N][,burst=MS]`.
fn settings(text: &str) -> Result<Settings<'_>, String> {
    let mut parts = text.split(',');
    let source = parts.next().unwrap_or_default();
    let (mut mac, mut limits, mut rates) = (None, Limits::default(), LinkLimits::default());
    let rate = |value: &str| value.parse().map_err(|error| format!("{error}"));
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key {
            "mac" => {
                let parsed: MacAddr = value.parse().map_err(|error| format!("{error}"))?;
                if parsed.is_multicast() {
                    return Err(format!(
                        "{parsed} is a group address: a network card needs its own"
                    ));
                }
                mac = Some(parsed);
            }
            "rate-in" => rates.inbound = Some(rate(value)?),
            "rate-out" => rates.outbound = Some(rate(value)?),
            "bps" => limits.bytes = number(key, value, 1..=u64::MAX)?,
            "pps" => limits.operations = number(key, value, 1..=u64::MAX)?,
            "burst" => limits.burst_ms = number(key, value, 1..=600_000)?,
            _ => {
                return Err(format!(
                    "`{part}` is no setting of a network card: use mac=MAC, rate-in=RATE, \
                     rate-out=RATE, bps=BYTES, pps=N or burst=MS"
                ));
            }
        }
    }
    Ok(Settings { source, mac, limits, rates })
}

impl FromStr for NetArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Settings { source: network, mac, limits, rates } = settings(text)?;
        if limits != Limits::default() {
            let reason = "bps=, pps= and burst= are for taps that netd has not made (--tap-fd): on \
                          a network, use rate-in=RATE and rate-out=RATE";
            return Err(reason.to_owned());
        }
        let (_, name) = network
            .split_once(':')
            .ok_or_else(|| format!("`{network}` lacks its mode: write nat:{network}"))?;
        let name = name.parse().map_err(|error| format!("{error}"))?;
        Ok(Self(NicConfig { source: Source::Network(name, rates), mac }))
    }
}

impl FromStr for TapArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Settings { source: number, mac, limits, rates } = settings(text)?;
        if !rates.is_empty() {
            return Err("rate-in= and rate-out= are netd's, which has not made this tap".to_owned());
        }
        let fd: RawFd = number.parse().map_err(|_| format!("`{number}` is no descriptor"))?;
        Ok(Self(NicConfig { source: Source::Inherited(fd, limits), mac }))
    }
}

impl Cli {
    /// All network cards: those on networks first.
    ///
    /// # Errors
    /// A descriptor is given twice.
    pub fn nics(&self) -> Result<Vec<NicConfig>, String> {
        let mut nics: Vec<NicConfig> = self.net.iter().map(|net| net.0.clone()).collect();
        for TapArgument(tap) in &self.tap_fd {
            let fd = tap.source.descriptor();
            if nics.iter().any(|nic| nic.source.descriptor() == fd) {
                return Err("a descriptor is given twice with --tap-fd".to_owned());
            }
            nics.push(tap.clone());
        }
        Ok(nics)
    }

    /// Memory in MiB.
    #[must_use]
    pub fn memory_mib(&self) -> u64 {
        let usual = if self.is_built_in() { GUEST_MEMORY } else { KERNEL_MEMORY };
        self.memory.unwrap_or(usual)
    }

    /// Whether the built-in guest is to run.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        self.kernel.is_none() && self.disk.is_empty()
    }

    /// The kernel's file; none if the first disk is to be booted.
    ///
    /// # Errors
    /// The built-in guest is not found; the error says where it was looked for.
    pub fn kernel_file(&self) -> Result<Option<PathBuf>, String> {
        if self.is_built_in() {
            let executable = env::current_exe().ok();
            return built_in_guest(env::var_os("VNET_GUEST"), executable.as_deref()).map(Some);
        }
        Ok(self.kernel.clone())
    }
}

/// Looks for the built-in guest: where `VNET_GUEST` says, beside our own executable, and where
/// packages put it.
fn built_in_guest(told: Option<OsString>, executable: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(told) = told {
        return Ok(told.into());
    }
    let beside = executable.and_then(Path::parent);
    let places = [
        beside.map(|directory| directory.join(GUEST)),
        beside.map(|directory| directory.join("../lib/vnet").join(GUEST)),
        Some(Path::new("/usr/lib/vnet").join(GUEST)),
    ];
    let places: Vec<PathBuf> = places.into_iter().flatten().collect();
    places.iter().find(|place| place.is_file()).cloned().ok_or_else(|| {
        let list: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        format!(
            "the built-in guest is in none of {}: set VNET_GUEST to its file, or give --kernel",
            list.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_named_after_their_mode() {
        let net: NetArgument = "nat:default,mac=52:54:00:00:00:01".parse().unwrap();
        let rates = LinkLimits::default();
        assert_eq!(net.0.source, Source::Network("default".parse().unwrap(), rates));
        assert_eq!(net.0.mac, Some(MacAddr([0x52, 0x54, 0, 0, 0, 1])));
        for bad in [
            "default",
            "nat:",
            "nat:default,mac=ff:ff:ff:ff:ff:ff",
            "nat:a,mtu=9",
            "nat:a,rate-in=9",
            "nat:a,pps=9",
        ] {
            assert!(bad.parse::<NetArgument>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_descriptor_is_taken_once() {
        let cli = Cli::parse_from(["vnet-vmm", "--tap-fd", "5", "--tap-fd", "5,pps=9"]);
        assert!(cli.nics().is_err());
    }

    #[test]
    fn the_built_in_guest_gets_less_memory_than_others() {
        assert_eq!(Cli::parse_from(["vnet-vmm"]).memory_mib(), 64);
        assert_eq!(Cli::parse_from(["vnet-vmm", "--kernel", "x"]).memory_mib(), 512);
    }

    #[test]
    fn a_guest_that_is_nowhere_is_an_error_that_says_where_it_should_be() {
        let directory = tempfile::tempdir().unwrap();
        let executable = directory.path().join("vnet-vmm");
        let error = built_in_guest(None, Some(&executable)).unwrap_err();
        assert!(error.contains("VNET_GUEST") && error.contains("/usr/lib/vnet"), "{error}");
        std::fs::write(directory.path().join(GUEST), b"").unwrap();
        assert_eq!(built_in_guest(None, Some(&executable)), Ok(directory.path().join(GUEST)));
    }
}
