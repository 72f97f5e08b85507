//! The load: dnsperf, at a rate that all servers keep up with.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vnet_testkit::output_within;

use super::server::{DOMAIN, GUESTS, SERVER, Server};
use crate::dhcp::cpu;

const PATIENCE: Duration = Duration::from_secs(60);

/// Names that are asked for again and again.
const KNOWN: u32 = 1000;

/// What is asked for, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Guests.
    Local,
    /// Other names, which the server has been asked before.
    Cached,
    /// Names that nobody has asked before.
    Misses,
    /// Guests, over TCP connections that stay.
    LocalTcp,
    /// Other names, over TCP connections that stay.
    CachedTcp,
}

/// What a load has cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Of the server, for 100,000 queries.
    pub(super) cpu: Duration,
    /// Mean time to an answer, as the load saw it.
    pub(super) latency: Duration,
}

impl Load {
    pub(super) const ALL: [Self; 5] =
        [Self::Local, Self::Cached, Self::Misses, Self::LocalTcp, Self::CachedTcp];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Local => "guests' names",
            Self::Cached => "cached names",
            Self::Misses => "names asked upstream",
            Self::LocalTcp => "guests' names, TCP",
            Self::CachedTcp => "cached names, TCP",
        }
    }

    /// Queries a second.
    pub(super) fn rate(self) -> u32 {
        if self == Self::Misses { 5000 } else { 20_000 }
    }

    /// The queries, one a line. Those of `run` are others than those of any run before.
    fn queries(self, count: u32, run: u32) -> String {
        let mut text = String::new();
        for number in 0..count {
            // Writing to a string has no way to fail.
            let _ = match self {
                Self::Local | Self::LocalTcp => {
                    writeln!(text, "guest{}.{DOMAIN} A", number % GUESTS)
                }
                Self::Cached | Self::CachedTcp => {
                    writeln!(text, "www{}.example.com A", number % KNOWN)
                }
                Self::Misses => writeln!(text, "r{run}x{number}.example.com A"),
            };
        }
        text
    }

    fn is_tcp(self) -> bool {
        matches!(self, Self::LocalTcp | Self::CachedTcp)
    }

    fn is_cached(self) -> bool {
        matches!(self, Self::Cached | Self::CachedTcp)
    }
}

/// Asks `server` for `seconds`, and says what that has cost it.
pub(super) fn run(server: &Server, load: Load, seconds: u32, number: u32) -> Result<Cost> {
    if load.is_cached() {
        perf(server, load, KNOWN, 2000, number)?;
    }
    let count = load.rate() * seconds;
    // dnsmasq has a child for each TCP connection.
    let before = cpu::used_with_children(server.pid())?;
    let (done, latency) = perf(server, load, count, load.rate(), number)?;
    let used = cpu::used_with_children(server.pid())?.saturating_sub(before);
    let cpu = used.mul_f64(100_000.0 / f64::from(done));
    Ok(Cost { cpu, latency })
}

/// Asks, and says how many were answered, and after what time in the mean.
fn perf(server: &Server, load: Load, count: u32, rate: u32, run: u32) -> Result<(u32, Duration)> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), load.queries(count, run))?;
    let mut command = server.guests.command("dnsperf");
    command.args(["-s", &SERVER.to_string(), "-f", "inet", "-c", "10", "-n", "1"]);
    command.args(["-m", if load.is_tcp() { "tcp" } else { "udp" }]);
    command.args(["-Q", &rate.to_string()]).arg("-d").arg(file.path());
    let output = output_within(&mut command, PATIENCE)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |name: &str| -> Option<f64> {
        text.split_once(name)?.1.split_whitespace().next()?.parse().ok()
    };
    let read = || Some((number("Queries completed:")?, number("Average Latency (s):")?));
    let (done, latency) = read().with_context(|| {
        format!("dnsperf said:\n{text}{}", String::from_utf8_lossy(&output.stderr))
    })?;
    ensure!(text.contains("NOERROR"), "no answer was of use:\n{text}");
    ensure!(done >= f64::from(count) * 0.99, "answers are missing:\n{text}");
    Ok((done as u32, Duration::from_secs_f64(latency)))
}
