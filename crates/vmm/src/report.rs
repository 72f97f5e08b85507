//! The report: what happened, as JSON for whoever started us.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use vnet_types::MacAddr;
use vnet_virtio::blk;
use vnet_virtio::net::Counters;

use crate::outcome::Outcome;
use crate::vcpu::run::ExitCounts;

/// When the stages of a machine's life were reached.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The process began its work.
    pub started: Instant,
    /// The machine was ready, its vCPUs about to run.
    pub ready: Instant,
    /// The guest wrote the first byte to its serial port.
    pub first_serial: Option<Instant>,
    /// The machine had ended.
    pub ended: Instant,
}

/// How a machine's life went. The fields and their names are stable; new ones may come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// How it ended: `outcome` is one of `power_off`, `reset`, `verdict`, `crashed`, `hung`,
    /// `interrupted`, with their own fields beside it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The process' exit code.
    pub exit_code: u8,
    /// Milliseconds from the start of the process' work to the first vCPU's first entry.
    pub ready_ms: f64,
    /// Milliseconds from there to the guest's first byte on the serial port.
    pub first_serial_ms: Option<f64>,
    /// Milliseconds from the first entry to the end.
    pub run_ms: f64,
    /// Exits of all vCPUs.
    pub exits: ExitCounts,
    /// Network cards, in the order in which they were asked for.
    pub nics: Vec<NicReport>,
    /// Disks, in the order in which they were asked for.
    pub disks: Vec<DiskReport>,
}

/// What has counted while the machine ran.
#[derive(Debug)]
pub struct Counted {
    /// Address and counters of each network card.
    pub nics: Vec<(MacAddr, Arc<Counters>)>,
    /// Image and counters of each disk.
    pub disks: Vec<(PathBuf, Arc<blk::Counters>)>,
}

/// How a network card's life went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NicReport {
    /// Its address.
    pub mac: MacAddr,
    /// What it counted, see [`vnet_virtio::net::Counters`].
    #[serde(flatten)]
    pub counters: BTreeMap<&'static str, u64>,
}

/// How a disk's life went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskReport {
    /// Its image.
    pub image: PathBuf,
    /// What it counted, see [`vnet_virtio::blk::Counters`].
    #[serde(flatten)]
    pub counters: BTreeMap<&'static str, u64>,
}

/// The report where there was no machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Failure {
    /// It could not be started.
    FailedToStart {
        /// Why not.
        error: String,
        /// The process' exit code.
        exit_code: u8,
    },
}

impl Report {
    /// The report of a machine that ended with `outcome`.
    #[must_use]
    pub fn new(outcome: Outcome, times: Times, exits: ExitCounts, counted: &Counted) -> Self {
        let ms = |from: Instant, to: Instant| {
            (to.saturating_duration_since(from).as_secs_f64() * 1e6).round() / 1e3
        };
        Self {
            exit_code: outcome.exit_code(),
            outcome,
            ready_ms: ms(times.started, times.ready),
            first_serial_ms: times.first_serial.map(|at| ms(times.ready, at)),
            run_ms: ms(times.ready, times.ended),
            exits,
            nics: counted
                .nics
                .iter()
                .map(|(mac, counters)| NicReport::new(*mac, counters))
                .collect(),
            disks: counted.disks.iter().map(|(image, disk)| DiskReport::new(image, disk)).collect(),
        }
    }
}

impl NicReport {
    fn new(mac: MacAddr, counters: &Counters) -> Self {
        Self { mac, counters: counters.figures().list().into_iter().collect() }
    }
}

impl DiskReport {
    fn new(image: &Path, counters: &blk::Counters) -> Self {
        let counters = counters.figures().list().into_iter().collect();
        Self { image: image.to_owned(), counters }
    }
}
