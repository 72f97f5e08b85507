//! DNS servers side by side: the same queries, at the same rate, in namespaces of the same shape.
//! What a server costs is what counts: the load runs on the same processors.
//!
//! ```text
//!   dnsperf ──cable──► bridge ──► server ──cable──► a name server that knows all
//! ```

mod load;
mod outside;
mod server;

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use self::load::{Cost, Load};
use self::server::{Kind, Server};

/// How often each load is run; the median counts.
const ROUNDS: u32 = 3;

/// Measures all servers, or only ours, and puts the table into the page `page` if there is one.
pub(crate) fn dns(seconds: u32, only_ours: bool, page: Option<&Path>) -> Result<()> {
    let kinds: &[Kind] = if only_ours { &[Kind::Vnet] } else { &Kind::ALL };
    let mut rows = Vec::new();
    for load in Load::ALL {
        // Servers take turns, so that a machine that becomes busy is so for all of them.
        let mut costs = vec![Vec::new(); kinds.len()];
        for round in 0..ROUNDS {
            for (kind, costs) in kinds.iter().zip(&mut costs) {
                costs.push(load::run(&Server::start(*kind)?, load, seconds, round)?);
            }
        }
        let costs: Vec<Cost> = costs.iter_mut().map(|costs| median(costs)).collect();
        for (kind, cost) in kinds.iter().zip(&costs) {
            let (cpu, latency) = (cost.cpu.as_secs_f64(), cost.latency.as_secs_f64() * 1000.0);
            println!("{}: {}: {cpu:.2} s, {latency:.2} ms", kind.name(), load.name());
        }
        rows.push((load, costs));
    }
    let text = table(kinds, &rows)?;
    println!("\n{text}");
    page.map_or(Ok(()), |page| crate::page::put(page, "dns", &text))
}

fn median(costs: &mut [Cost]) -> Cost {
    costs.sort_by_key(|cost| cost.cpu);
    costs[costs.len() / 2]
}

fn table(kinds: &[Kind], rows: &[(Load, Vec<Cost>)]) -> Result<String> {
    let versions = kinds.iter().map(|kind| kind.version()).collect::<Result<Vec<_>>>()?;
    let mut text = format!("{}.\n\n| |", versions.join(", "));
    for kind in kinds {
        write!(text, " {} |", kind.name())?;
    }
    write!(text, "\n|---|{}", "---|".repeat(kinds.len()))?;
    for (load, costs) in rows {
        write!(text, "\n| {}, {}/s |", load.name(), load.rate())?;
        for cost in costs {
            let latency = cost.latency.as_secs_f64() * 1000.0;
            write!(text, " {:.2} s; {latency:.2} ms |", cost.cpu.as_secs_f64())?;
        }
    }
    text.push('\n');
    Ok(text)
}
