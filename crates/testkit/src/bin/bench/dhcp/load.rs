//! The load: perfdhcp, which is a relay's many clients.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use vnet_testkit::output_within;

use super::cpu;
use super::server::{SERVER, Server};

/// perfdhcp ends by itself; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(60);
/// So many clients that hardly any comes twice.
const NEW_CLIENTS: u32 = 1 << 24;
/// How many there are that have a lease already.
const KNOWN_CLIENTS: u32 = 250;

/// Where the search for the highest rate begins, and between what it stays.
const FIRST_RATE: u32 = 1000;
const LOWEST_RATE: u32 = 125;
const HIGHEST_RATE: u32 = 64_000;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clients {
    /// Everybody for the first time.
    New,
    /// Few, again and again.
    Known,
}

/// What came of a load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    /// Exchanges a second that were begun.
    pub(super) rate: u32,
    /// Of four messages each, that were completed.
    pub(super) done: u64,
    /// Messages without an answer, in thousandths of those sent.
    lost: f64,
    /// The same of those whose answers came and found the load's own buffer full.
    unread: f64,
    /// The server's processor time for a completed one.
    pub(super) cpu: Duration,
}

impl Outcome {
    /// Whether nobody went without.
    pub(super) fn is_clean(&self) -> bool {
        self.done > 0 && self.lost < 1.0
    }

    /// Whether the server has answered everybody, and the load was too slow to hear it.
    fn is_beyond_the_load(&self) -> bool {
        self.unread > 0.0 && self.lost - self.unread < 1.0
    }
}

/// Sends the server `rate` exchanges a second for so long.
pub(super) fn run(server: &Server, clients: Clients, rate: u32, time: Duration) -> Result<Outcome> {
    let (count, first) = match clients {
        Clients::New => (NEW_CLIENTS, "mac=02:00:00:00:00:00"),
        Clients::Known => (KNOWN_CLIENTS, "mac=06:00:00:00:00:00"),
    };
    let seconds = time.as_secs_f64().round().max(1.0);
    let mut command = server.guests.command("perfdhcp");
    command.args(["-4", "-g", "single", "-W", "300000", "-d", "0.5", "-b", first]);
    command.args(["-r", &rate.to_string(), "-R", &count.to_string()]);
    command.args(["-p", &seconds.to_string(), &SERVER.to_string()]);
    let unread = unread(server)?;
    let before = cpu::used(server.pid())?;
    let output = output_within(&mut command, PATIENCE)?;
    let used = cpu::used(server.pid())?.saturating_sub(before);
    let unread = self::unread(server)? - unread;
    // Its status says whether there were drops: what it prints says how many.
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let read = || -> Option<(u64, u64)> {
        let (discovers, requests) = text.split_once("REQUEST-ACK")?;
        let number = |part: &str, name: &str| {
            let rest = part.split_once(name)?.1;
            rest.split_whitespace().next()?.parse::<u64>().ok()
        };
        let sent = number(discovers, "sent packets:")?;
        Some((sent, number(requests, "received packets:")?))
    };
    let (sent, done) = read().with_context(|| format!("perfdhcp said:\n{text}{errors}"))?;
    // What was asked for and not even sent is not clean either.
    let wanted = (f64::from(rate) * seconds * 0.97).max(sent as f64);
    Ok(Outcome {
        rate,
        done,
        lost: (wanted - done as f64).max(0.0) * 1000.0 / wanted,
        unread: unread as f64 * 1000.0 / wanted,
        cpu: used.checked_div(u32::try_from(done)?).unwrap_or_default(),
    })
}

/// Answers that were lost in front of the load since its namespace was made.
fn unread(server: &Server) -> Result<u64> {
    let text = server.guests.enter(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = lines.next().zip(lines.next()).context("no counters of UDP")?;
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(name, _)| *name == "RcvbufErrors").context("no RcvbufErrors")?;
    Ok(value.parse()?)
}

/// The highest rate that was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Highest {
    /// What came of it.
    pub(super) best: Outcome,
    /// Whether a higher one was too much for the load alone.
    pub(super) more: bool,
}

/// The highest rate at which nobody goes without, and the processor time there: found by doubling,
/// or halving, and then by halving the step twice.
pub(super) fn highest(
    server: &Server,
    clients: Clients,
    time: Duration,
) -> Result<Option<Highest>> {
    let mut best = run(server, clients, FIRST_RATE, time)?;
    while !best.is_clean() && best.rate > LOWEST_RATE {
        best = run(server, clients, best.rate / 2, time)?;
    }
    if !best.is_clean() {
        return Ok(None);
    }
    let mut more = false;
    while best.rate >= FIRST_RATE && best.rate < HIGHEST_RATE {
        let next = run(server, clients, best.rate * 2, time)?;
        if !next.is_clean() {
            more = next.is_beyond_the_load();
            break;
        }
        best = next;
    }
    let mut step = best.rate / 2;
    for _ in 0..2 {
        let next = run(server, clients, best.rate + step, time)?;
        if next.is_clean() {
            best = next;
        } else {
            more = next.is_beyond_the_load();
        }
        step /= 2;
    }
    Ok(Some(Highest { best, more }))
}
