//! DHCP servers side by side: the same load, from the same generators, in namespaces of the same
//! shape. What a server costs comes first: the load runs on the same processors.
//!
//! ```text
//!   perfdhcp, stations ──cable──► bridge ──► server          one server at a time
//! ```

pub(crate) mod cpu;
mod load;
mod seed;
mod server;
mod station;
mod table;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vnet_testkit::random_mac;

use self::load::Clients;
use self::server::{CARD, Kind, Server};
use self::station::{Crowd, Station};
use self::table::{Cell, Table};

/// How long a guest waits for one answer before it counts as lost.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a crowd may take.
const CROWD: Duration = Duration::from_secs(9);
/// Guests on a port of their own, one after another.
const PORTS: u32 = 9;

/// How long each rate is kept up in the search for the highest one.
const STEP: Duration = Duration::from_secs(1);
/// At this rate a server that keeps nothing gets its leases.
const FILL_RATE: u32 = 2000;
/// More leases than these are not given one by one.
const MOST_FILLED: u32 = 10_000;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Exchanges one after another.
    alone: u32,
    /// How long a rate is kept up.
    load: Duration,
}

impl Effort {
    pub(crate) const FULL: Self = Self { alone: 500, load: Duration::from_secs(2) };
    pub(crate) const QUICK: Self = Self { alone: 100, load: STEP };
}

/// Measures all servers, or only ours, and puts the table into the page `page` if there is one.
pub(crate) fn dhcp(effort: Effort, only_ours: bool, page: Option<&Path>) -> Result<()> {
    let kinds: &[Kind] = if only_ours { &[Kind::Vnet] } else { &Kind::ALL };
    let mut table = Table::new(kinds, flush(effort.alone)?)?;
    for &kind in kinds {
        let begun = Instant::now();
        alone(kind, effort, &mut table)?;
        rates(kind, effort, &mut table)?;
        held(kind, effort, &mut table)?;
        crowds(kind, &mut table)?;
        ports(kind, &mut table)?;
        println!("{}: measured in {:.0} s", kind.name(), begun.elapsed().as_secs_f64());
    }
    println!("\n{}", table.text());
    page.map_or(Ok(()), |page| crate::page::put(page, "dhcp", &table.text()))
}

fn start(kind: Kind) -> Result<Server> {
    match Server::start(kind, 0)? {
        Some(server) => Ok(server),
        None => anyhow::bail!("{} has not started", kind.name()),
    }
}

/// One exchange after another: the median.
fn alone(kind: Kind, effort: Effort, table: &mut Table) -> Result<()> {
    let server = start(kind)?;
    let mut station = Station::on(&server.guests, CARD)?;
    let mut times = Vec::new();
    for _ in 0..effort.alone {
        let begun = Instant::now();
        ensure!(station.lease(random_mac(), ANSWER)?.is_some(), "{} has gone", kind.name());
        times.push(begun.elapsed());
    }
    table.put(kind, "DORA one after another, median", Cell::Time(median(times)));
    Ok(())
}

fn rates(kind: Kind, effort: Effort, table: &mut Table) -> Result<()> {
    for rate in [100, 1000] {
        let cell = cost(&start(kind)?, rate, effort)?;
        table.put(kind, &format!("CPU per DORA, new clients, {rate}/s"), cell);
    }
    for (clients, name) in [(Clients::New, "new"), (Clients::Known, "250 known")] {
        let server = start(kind)?;
        if clients == Clients::Known {
            load::run(&server, clients, 250, STEP)?;
        }
        let best = load::highest(&server, clients, STEP)?;
        let cell = best.map_or(Cell::TooFast, Cell::Rate);
        table.put(kind, &format!("highest clean rate, {name} clients; CPU per DORA"), cell);
    }
    Ok(())
}

/// With leases that there are already.
fn held(kind: Kind, effort: Effort, table: &mut Table) -> Result<()> {
    for (leases, rate) in [(10_000, 300), (100_000, 300), (100_000, 5000)] {
        let name = format!("CPU per DORA, {leases} leases held, {rate}/s");
        let cell = match holding(kind, leases) {
            Ok(Some(server)) => cost(&server, rate, effort)?,
            Ok(None) => Cell::Nothing,
            Err(error) => {
                println!("{}: {error}", kind.name());
                Cell::TooFast
            }
        };
        table.put(kind, &name, cell);
    }
    Ok(())
}

/// A server with so many leases, if it can be had.
fn holding(kind: Kind, leases: u32) -> Result<Option<Server>> {
    if let Some(server) = Server::start(kind, leases)? {
        return Ok(Some(server));
    }
    if leases > MOST_FILLED {
        return Ok(None);
    }
    let server = start(kind)?;
    let time = Duration::from_secs((leases / FILL_RATE).into());
    Ok(load::run(&server, Clients::New, FILL_RATE, time)?.is_clean().then_some(server))
}

/// What a new client costs at this rate.
fn cost(server: &Server, rate: u32, effort: Effort) -> Result<Cell> {
    let outcome = load::run(server, Clients::New, rate, effort.load)?;
    Ok(if outcome.is_clean() { Cell::Cpu(outcome.cpu) } else { Cell::TooFast })
}

fn crowds(kind: Kind, table: &mut Table) -> Result<()> {
    for count in [200, 1000] {
        let mut all: Vec<Crowd> = Vec::new();
        for _ in 0..3 {
            let server = start(kind)?;
            let crowd = Station::on(&server.guests, CARD)?.crowd(count, CROWD)?;
            let slow = crowd.repeated > 0;
            all.push(crowd);
            // Who loses messages does so every time, and each time costs seconds.
            if slow {
                break;
            }
        }
        all.sort_by_key(|crowd| crowd.last);
        let crowd = all[all.len() / 2];
        table.put(
            kind,
            &format!("{count} clients at once, last one bound"),
            Cell::Crowd(count, crowd),
        );
    }
    Ok(())
}

/// From a guest's port on the bridge to its ACK.
fn ports(kind: Kind, table: &mut Table) -> Result<()> {
    let server = start(kind)?;
    let mut times = Vec::new();
    for number in 0..PORTS {
        let mut station = server.new_port(number)?;
        let (begun, mac) = (Instant::now(), station.mac());
        if station.lease(mac, CROWD)?.is_none() {
            break;
        }
        times.push(begun.elapsed());
    }
    let cell = if times.is_empty() { Cell::Nothing } else { Cell::Time(median(times)) };
    table.put(kind, "a fresh guest's port to its ACK, median", cell);
    Ok(())
}

/// What one flush to the disk of the temporary folder takes: 250 bytes at the end of a file.
fn flush(runs: u32) -> Result<Duration> {
    let file = tempfile::NamedTempFile::new()?;
    let mut file = OpenOptions::new().append(true).open(file.path())?;
    let mut times = Vec::new();
    for _ in 0..runs {
        let begun = Instant::now();
        file.write_all(&[b'x'; 250])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    Ok(median(times))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
