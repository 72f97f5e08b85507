//! Networks: how long it takes to create and to delete one, beside libvirt's too.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use vnet_testkit::{Lan, Netd, binary};

use crate::rows::{Row, timed};

const FIRST: &str = "vnet create, first after netd's start";
const WARM: &str = "vnet create, warm";
const AGAIN: &str = "vnet create, right after a delete";
const DELETE: &str = "vnet delete";
/// What a deletion leaves to the kernel's work queues takes some time more, whoever has asked for
/// it, and slows down what comes then.
const REST: Duration = Duration::from_millis(300);

pub(crate) fn create(runs: u32) -> Result<Vec<Row>> {
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
    let mut again = Row::new(AGAIN);
    for _ in 0..runs {
        std::thread::sleep(REST);
        warm.add(vnet(&lan, root.path(), "create nat default")?);
        delete.add(vnet(&lan, root.path(), "delete default")?);
        again.add(vnet(&lan, root.path(), "create nat default")?);
        netd.vnet_ok(["delete", "default"]);
    }
    let mut rows = vec![first, warm, again, delete];
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
pub(crate) fn vnet(lan: &Lan, root: &Path, line: &str) -> Result<Duration> {
    let mut command = Command::new(binary("vnet"));
    command.arg("--root").arg(root).args(line.split(' '));
    // From within the namespace, so that the time of entering it does not count.
    lan.host.enter(|| timed(&mut command))
}

pub(crate) fn libvirt(uri: &str, runs: u32) -> Result<Vec<Row>> {
    let virsh = |action: &str| {
        timed(Command::new("virsh").args(["--quiet", "--connect", uri, action, "default"]))
    };
    let mut first = Row::new("virsh net-start, first after its daemon's start").against(FIRST);
    let mut warm = Row::new("virsh net-start, warm").against(WARM);
    let mut destroy = Row::new("virsh net-destroy").against(DELETE);
    let mut again = Row::new("virsh net-start, right after a destroy").against(AGAIN);
    first.add(virsh("net-start")?);
    virsh("net-destroy")?;
    for _ in 0..runs {
        std::thread::sleep(REST);
        warm.add(virsh("net-start")?);
        destroy.add(virsh("net-destroy")?);
        again.add(virsh("net-start")?);
        virsh("net-destroy")?;
    }
    Ok(vec![first, warm, again, destroy])
}
