//! `vnet reserve` and `vnet unreserve`: an address that is always the same guest's.

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::Args;
use vnet_api::model::Reserve as Request;
use vnet_types::{DnsName, MacAddr};

use crate::args::{DryRun, Target};
use crate::change;
use crate::context::Context;

/// Keep an address for a guest
///
/// A guest that is up moves to it when it renews its lease. The network's definition is changed at
/// this one place; what else a person wrote in it stays.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: vnet reserve default --mac 52:54:00:00:00:10 --ip 192.168.122.10 --name web
         vnet reserve default --mac 52:54:00:00:00:10 --ip6 fd12:3456:789a::10"
)]
pub(crate) struct Reserve {
    #[command(flatten)]
    target: Target,
    /// The guest's network card
    #[arg(long, value_name = "MAC")]
    mac: MacAddr,
    /// The IPv4 address, inside the subnet
    #[arg(long, value_name = "ADDRESS", required_unless_present = "ip6")]
    ip: Option<Ipv4Addr>,
    /// The IPv6 address, inside the prefix
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// The guest's name in the network's domain [default: as it is]
    #[arg(long, value_name = "NAME")]
    name: Option<DnsName>,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Keep no address for a guest any more
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet unreserve default --mac 52:54:00:00:00:10")]
pub(crate) struct Unreserve {
    #[command(flatten)]
    target: Target,
    /// The guest's network card
    #[arg(long, value_name = "MAC")]
    mac: MacAddr,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Runs `vnet reserve`.
///
/// # Errors
/// netd refuses or cannot be reached.
pub(crate) async fn run(args: Reserve, context: &Context) -> anyhow::Result<()> {
    let Reserve { target, mac, ip, ip6, name: hostname, dry_run } = args;
    let (network, run) = (target.network, dry_run.run());
    let request = Request { ip, ip6, hostname };
    let changed = context.client.reserve(&network, mac, &request, run).await?;
    let kept: Vec<String> =
        [ip.map(|ip| ip.to_string()), ip6.map(|ip| ip.to_string())].into_iter().flatten().collect();
    let kept = kept.join(" and ");
    change::print(&changed, run, context, |_| format!("network {network} keeps {kept} for {mac}"))
}

/// Runs `vnet unreserve`.
///
/// # Errors
/// netd refuses or cannot be reached.
pub(crate) async fn run_un(args: Unreserve, context: &Context) -> anyhow::Result<()> {
    let Unreserve { target, mac, dry_run } = args;
    let (network, run) = (target.network, dry_run.run());
    let changed = context.client.unreserve(&network, mac, run).await?;
    change::print(&changed, run, context, |_| {
        format!("network {network} keeps no address for {mac}")
    })
}
