//! `vnet bridge` and `vnet confirm`: the host's own network on a bridge over its uplink.

use clap::Args;
use vnet_api::client::Run;
use vnet_api::model::{BridgeChanged, EnslaveUplink};
use vnet_types::{IfName, NetworkName};

use crate::args::{DryRun, Force};
use crate::change;
use crate::context::Context;

/// Put the host's uplink under a bridge, or take it from there again
///
/// The bridge gets the uplink's address, routes and rules in one step; connections stay. Unless
/// the gateway answers then, and `vnet confirm` comes in time where --confirm is given,
/// everything is put back. Guests on the bridge are machines of the LAN.
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet bridge br0 --enslave eth0 --confirm 30 && vnet confirm br0
         vnet bridge br0 --enslave eth0 --dry-run
         vnet bridge br0 --release eth0")]
pub(crate) struct Bridge {
    /// The bridge; made where it is not there
    bridge: IfName,
    #[command(flatten)]
    change: Change,
    /// Put everything back unless `vnet confirm` comes within so many seconds
    #[arg(long, value_name = "SECONDS", conflicts_with = "release", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    confirm: Option<u64>,
    /// The network's name [default: the bridge's]
    #[arg(long, value_name = "NET", conflicts_with = "release")]
    name: Option<NetworkName>,
    /// Bytes in the largest IP packet [default: the uplink's]
    #[arg(long, value_name = "BYTES", conflicts_with = "release", value_parser = clap::value_parser!(u32).range(576..=65535))]
    mtu: Option<u32>,
    #[command(flatten)]
    force: Force,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Change {
    /// Put this interface under the bridge
    #[arg(long, value_name = "IFNAME")]
    enslave: Option<IfName>,
    /// Take this interface from the bridge
    #[arg(long, value_name = "IFNAME")]
    release: Option<IfName>,
}

/// Keep a bridge that waits to be confirmed
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet confirm br0")]
pub(crate) struct Confirm {
    /// The bridge
    bridge: IfName,
}

/// Runs `vnet bridge`.
///
/// # Errors
/// netd refuses or cannot be reached.
pub(crate) async fn run(args: Bridge, context: &Context) -> anyhow::Result<()> {
    let Bridge { bridge, change, confirm, name, mtu, force, dry_run } = args;
    let run = dry_run.run();
    match (change.enslave, change.release) {
        (_, Some(uplink)) => {
            let released = context.client.release(&bridge, &uplink, force.guests(), run).await?;
            let done = format!("{uplink} is as it was before {bridge}");
            change::print(&released, run, context, |_| done)
        }
        (Some(uplink), None) => {
            let confirm_seconds = confirm;
            let request = EnslaveUplink { bridge, uplink, name, mtu, confirm_seconds };
            let changed = context.client.enslave(&request, run).await?;
            change::print(&changed, run, context, summary)
        }
        (None, None) => Ok(()),
    }
}

/// Runs `vnet confirm`.
///
/// # Errors
/// netd refuses or cannot be reached.
pub(crate) async fn confirm(args: &Confirm, context: &Context) -> anyhow::Result<()> {
    let changed = context.client.confirm(&args.bridge).await?;
    change::print(&changed, Run::Real, context, summary)
}

fn summary(changed: &BridgeChanged) -> String {
    changed.network.as_ref().map_or_else(|| "done".to_owned(), change::summary_of_bridged)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bridge: Bridge,
    }

    #[test]
    fn one_of_enslave_and_release_is_needed() {
        for words in [
            &["vnet", "br0"][..],
            &["vnet", "br0", "--enslave", "eth0", "--release", "eth0"],
            &["vnet", "br0", "--release", "eth0", "--confirm", "9"],
            &["vnet", "br0", "--enslave", "eth0", "--confirm", "0"],
        ] {
            assert!(Line::try_parse_from(words).is_err(), "{words:?}");
        }
        Line::try_parse_from(["vnet", "br0", "--enslave", "eth0", "--confirm", "30"]).unwrap();
        Line::try_parse_from(["vnet", "br0", "--release", "eth0", "--dry-run"]).unwrap();
    }
}
