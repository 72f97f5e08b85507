//! Many networks: what one more costs, what netd holds in memory, and a change beside 1,000
//! forwards.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use vnet_testkit::{Lan, Netd};

use crate::create::vnet;
use crate::rows::Row;

/// How many networks there are before the one that is measured.
const SIZES: [u32; 4] = [1, 10, 100, 1000];
/// How many forwards there are before the one that is measured.
const FORWARDS: u32 = 1000;
/// A size takes as many runs at most: at the largest one, everything takes longest.
const MOST_RUNS: u32 = 20;

pub(crate) fn networks(runs: u32, most: u32) -> Result<Vec<Row>> {
    let (lan, root) = (Lan::new(), tempfile::tempdir()?);
    let netd = Netd::try_start(&lan.host, root.path())?;
    let mut rows = Vec::new();
    let mut made = 0;
    for size in SIZES.into_iter().filter(|size| *size <= most) {
        while made < size {
            netd.vnet_ok(["create", "hostonly", &format!("n{made}")]);
            made += 1;
        }
        rows.extend(at_size(&lan, root.path(), size, runs.min(MOST_RUNS))?);
        println!("netd with {size} networks: {}", memory(netd.pid())?);
    }
    netd.terminate();
    rows.extend(forwards(runs.min(MOST_RUNS))?);
    Ok(rows)
}

fn at_size(lan: &Lan, root: &Path, size: u32, runs: u32) -> Result<Vec<Row>> {
    let row = |what: &str| Row::new(format!("vnet {what}, beside {size} networks"));
    let mut rows = [row("create"), row("list"), row("delete")];
    for _ in 0..runs {
        rows[0].add(vnet(lan, root, "create nat more")?);
        rows[1].add(vnet(lan, root, "list --json")?);
        rows[2].add(vnet(lan, root, "delete more")?);
    }
    Ok(rows.into())
}

/// The resident set, and what of it is shared with nobody or in proportion.
fn memory(pid: u32) -> Result<String> {
    let field = |file: &str, name: &str| -> Result<String> {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.with_context(|| format!("no {name} in {file}"))?;
        Ok(line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
    };
    Ok(format!("VmRSS {}, Pss {}", field("status", "VmRSS:")?, field("smaps_rollup", "Pss:")?))
}

fn forwards(runs: u32) -> Result<Vec<Row>> {
    let (lan, root) = (Lan::new(), tempfile::tempdir()?);
    let netd = Netd::try_start(&lan.host, root.path())?;
    netd.vnet_ok(["create", "nat", "default"]);
    let file = root.path().join("edited.toml");
    let present = fs::read_to_string(root.path().join("etc/vnet/networks/default.toml"))?;
    let forward = |number: u32| {
        let (port, host) = (10_000 + number, 2 + number % 250);
        format!(
            "\n[[forwards]]\nprotocol = \"tcp\"\nport = {port}\ntarget = \"192.168.122.{host}:80\"\n"
        )
    };
    let all: String = (0..FORWARDS).map(forward).collect();
    fs::write(&file, present + &all)?;
    let edit = format!("edit default --file {}", file.display());
    let mut first = Row::new(format!("vnet edit, {FORWARDS} forwards at once"));
    first.add(vnet(&lan, root.path(), &edit)?);
    let mut add = Row::new(format!("vnet forward add, beside {FORWARDS} forwards"));
    let mut remove = Row::new(format!("vnet forward remove, beside {FORWARDS} forwards"));
    for _ in 0..runs {
        add.add(vnet(&lan, root.path(), "forward add default 9999 192.168.122.9:80")?);
        remove.add(vnet(&lan, root.path(), "forward remove default 9999")?);
    }
    netd.terminate();
    Ok(vec![first, add, remove])
}
