//! Measures what vnet promises: how long `vnet create` takes, and how soon a guest has its
//! address. `scripts/bench` builds everything and starts it.
//!
//! All times are wall-clock times of whole commands, from just before the process is made until
//! it has ended (or has printed a line), as a person at a terminal has them. Each benchmark runs
//! in namespaces of its own; what netd writes, it writes to the disk that has the temporary
//! directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use vnet_testkit::{Lan, Netd, binary};

/// Measures vnet, in private namespaces.
#[derive(Parser)]
#[command(name = "vnet-bench")]
struct Arguments {
    /// How often each thing is measured
    #[arg(long, global = true, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    runs: u32,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Networks: create and delete
    Create {
        /// Measure the network `default` of the libvirtd at this URI as well
        #[arg(long, value_name = "URI")]
        virsh: Option<String>,
    },
    /// Guests: from `vnet run` to the address
    Boot,
}

/// Measurements of one thing.
struct Row {
    what: String,
    times: Vec<Duration>,
    /// The row that this one is compared with.
    against: Option<&'static str>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let rows = match arguments.what {
        What::Create { virsh } => {
            let mut rows = create(arguments.runs)?;
            if let Some(uri) = virsh {
                rows.extend(libvirt(&uri, arguments.runs)?);
            }
            rows
        }
        What::Boot => boot(arguments.runs)?,
    };
    print(&rows);
    Ok(())
}

const FIRST: &str = "vnet create, first after netd's start";
const WARM: &str = "vnet create, warm";
const DELETE: &str = "vnet delete";

fn create(runs: u32) -> Result<Vec<Row>> {
    let (mut first, mut warm, mut delete) = (Row::new(FIRST), Row::new(WARM), Row::new(DELETE));
    for _ in 0..runs {
        let (lan, root) = (Lan::new(), tempfile::tempdir()?);
        let netd = Netd::try_start(&lan.host, root.path())?;
        first.add(vnet(&lan, root.path(), "create nat default")?);
        netd.vnet_ok(["delete", "default"]);
        netd.terminate();
    }
    let (lan, root) = (Lan::new(), tempfile::tempdir()?);
    let netd = Netd::try_start(&lan.host, root.path())?;
    for _ in 0..runs {
        warm.add(vnet(&lan, root.path(), "create nat default")?);
        delete.add(vnet(&lan, root.path(), "delete default")?);
    }
    let mut rows = vec![first, warm, delete];
    netd.vnet_ok(["create", "nat", "default"]);
    let mut tables = 0;
    for foreign in [1, 50] {
        while tables < foreign {
            lan.host.nft(&foreign_table(tables));
            tables += 1;
        }
        let plural = if foreign == 1 { "" } else { "s" };
        let mut row =
            Row::new(format!("vnet create, a 2nd network, {foreign} foreign table{plural}"));
        for _ in 0..runs {
            row.add(vnet(&lan, root.path(), "create nat second")?);
            netd.vnet_ok(["delete", "second"]);
        }
        rows.push(row);
    }
    netd.terminate();
    Ok(rows)
}

/// A table of the size that other programs make for one network: 4 chains, 14 rules.
fn foreign_table(number: u32) -> String {
    let mut script = format!("table ip foreign{number} {{\n");
    for chain in 0..4 {
        script.push_str(&format!("chain c{chain} {{\n"));
        let rules = if chain < 2 { 4 } else { 3 };
        for rule in 0..rules {
            script.push_str(&format!(
                "ip saddr 10.{number}.{chain}.{rule} tcp dport 80 counter accept\n"
            ));
        }
        script.push_str("}\n");
    }
    script.push_str("}\n");
    script
}

/// Runs `vnet` once, and says how long it took.
fn vnet(lan: &Lan, root: &Path, line: &str) -> Result<Duration> {
    let mut command = Command::new(binary("vnet"));
    command.arg("--root").arg(root).args(line.split(' '));
    // From within the namespace, so that the time of entering it does not count.
    lan.host.enter(|| timed(&mut command))
}

fn timed(command: &mut Command) -> Result<Duration> {
    let begun = Instant::now();
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let took = begun.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {said}", output.status);
    Ok(took)
}

fn libvirt(uri: &str, runs: u32) -> Result<Vec<Row>> {
    let virsh = |action: &str| {
        timed(Command::new("virsh").args(["--quiet", "--connect", uri, action, "default"]))
    };
    let mut first = Row::new("virsh net-start, first after its daemon's start").against(FIRST);
    let mut warm = Row::new("virsh net-start, warm").against(WARM);
    let mut destroy = Row::new("virsh net-destroy").against(DELETE);
    first.add(virsh("net-start")?);
    for _ in 0..runs {
        destroy.add(virsh("net-destroy")?);
        warm.add(virsh("net-start")?);
    }
    virsh("net-destroy")?;
    Ok(vec![first, warm, destroy])
}

fn boot(runs: u32) -> Result<Vec<Row>> {
    let (lan, root) = (Lan::new(), tempfile::tempdir()?);
    let netd = Netd::try_start(&lan.host, root.path())?;
    netd.vnet_ok(["create", "nat", "default"]);
    let milestones = [
        ("vnet run to the first serial line", "vnet-guest: "),
        ("vnet run to the DHCPACK", "vnet-guest: dhcp ok"),
        ("vnet run to the guest's last line", "vnet-guest: done ok"),
    ];
    let mut rows: Vec<Row> = milestones.iter().map(|(what, _)| Row::new(*what)).collect();
    let mut ended = Row::new("vnet run to its end");
    for _ in 0..runs {
        let mut command = Command::new(binary("vnet"));
        command.arg("--root").arg(root.path()).args(["run", "--net", "nat:default"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let (lines, took) = lan.host.enter(|| lines_in_time(&mut command))?;
        for (row, (_, text)) in rows.iter_mut().zip(&milestones) {
            let Some((_, at)) = lines.iter().find(|(line, _)| line.contains(text)) else {
                let said: Vec<_> = lines.into_iter().map(|(line, _)| line).collect();
                bail!("the guest has not said `{text}`, but:\n{}", said.join("\n"));
            };
            row.add(*at);
        }
        ended.add(took);
    }
    netd.vnet_ok(["delete", "default"]);
    netd.terminate();
    rows.push(ended);
    Ok(rows)
}

/// Runs a command: its lines, each with the time since the start at which it came, and its end.
fn lines_in_time(command: &mut Command) -> Result<(Vec<(String, Duration)>, Duration)> {
    let begun = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let output = child.stdout.take().context("its output is a pipe")?;
    let mut lines = Vec::new();
    for line in BufReader::new(output).lines() {
        lines.push((line?, begun.elapsed()));
    }
    let status = child.wait()?;
    let took = begun.elapsed();
    ensure!(status.success(), "{command:?}: {status}; it has printed {lines:?}");
    Ok((lines, took))
}

impl Row {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), times: Vec::new(), against: None }
    }

    fn against(mut self, other: &'static str) -> Self {
        self.against = Some(other);
        self
    }

    fn add(&mut self, time: Duration) {
        self.times.push(time);
    }

    /// The time that `percent` of the runs do not exceed, in milliseconds: a time that was
    /// measured (nearest rank), no mean of two.
    fn percentile(&self, percent: usize) -> f64 {
        let mut times = self.times.clone();
        times.sort();
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times[rank - 1].as_secs_f64() * 1000.0
    }
}

fn print(rows: &[Row]) {
    let width = rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
    println!("{:width$}  {:>4}  {:>9}  {:>9}", "", "runs", "median ms", "p95 ms");
    for row in rows {
        let (median, p95) = (row.percentile(50), row.percentile(95));
        let ratio = rows.iter().find(|other| row.against == Some(other.what.as_str()));
        let ratio = ratio.map_or_else(String::new, |other| {
            format!("  {:.1} times vnet's median", median / other.percentile(50))
        });
        let runs = row.times.len();
        println!("{:width$}  {runs:>4}  {median:>9.1}  {p95:>9.1}{ratio}", row.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let mut row = Row::new("x");
        for milliseconds in (1..=20).rev() {
            row.add(Duration::from_millis(milliseconds));
        }
        assert_eq!(row.percentile(50), 10.0);
        assert_eq!(row.percentile(95), 19.0);
        let mut one = Row::new("y");
        one.add(Duration::from_millis(7));
        assert_eq!((one.percentile(50), one.percentile(95)), (7.0, 7.0));
    }
}
