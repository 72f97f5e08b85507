//! The host's own network goes under a bridge and comes back: for how long a peer hears nothing
//! that it sends each millisecond, and whether a connection stays.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vnet_testkit::{Lan, Netd, Pulse, Stream};

use crate::rows::Row;

/// The longest silence that is promised.
const TARGET: Duration = Duration::from_millis(50);
/// Answers that are heard before, between and after the moves.
const HEARD: u64 = 50;

pub(crate) fn enslave(runs: u32) -> Result<Vec<Row>> {
    let mut silence = [Row::new("silence during --enslave"), Row::new("silence during --release")];
    let mut took = [Row::new("vnet bridge --enslave"), Row::new("vnet bridge --release")];
    let mut bytes = 0;
    for _ in 0..runs {
        let (lan, root) = (Lan::dual_stack(), tempfile::tempdir()?);
        let netd = Netd::try_start(&lan.host, root.path())?;
        let stream = Stream::start(&lan, Lan::SERVER.into())?;
        for (at, change) in ["--enslave", "--release"].into_iter().enumerate() {
            let pulse = Pulse::start(&lan)?;
            pulse.hear(HEARD);
            stream.hear(HEARD)?;
            let begun = Instant::now();
            netd.vnet_ok(["bridge", "br0", change, "eth0"]);
            took[at].add(begun.elapsed());
            pulse.hear(HEARD);
            stream.hear(HEARD)?;
            let longest = pulse.end()?;
            ensure!(longest < TARGET, "{change}: silent for {longest:?}, promised are {TARGET:?}");
            silence[at].add(longest);
        }
        bytes += stream.end()?;
        netd.terminate();
    }
    println!(
        "{runs} TCP streams, one over each pair of moves, stayed: {bytes} bytes, none changed"
    );
    Ok(silence.into_iter().chain(took).collect())
}
