//! Guests: how soon one has its address.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use vnet_testkit::{Lan, Netd, binary};

use crate::rows::Row;

pub(crate) fn boot(runs: u32) -> Result<Vec<Row>> {
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
