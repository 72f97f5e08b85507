//! `vnet stop`: stops a network; its definition and its leases stay.

use clap::Args;

use crate::args::{DryRun, Force, Target};
use crate::change;
use crate::context::Context;

/// Stop a network; its definition and its leases stay
///
/// The uplink of a bridged network gets the host's addresses and routes back.
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet stop default --dry-run")]
pub(crate) struct Stop {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    force: Force,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Runs the command.
///
/// # Errors
/// netd refuses or cannot be reached.
pub(crate) async fn run(args: &Stop, context: &Context) -> anyhow::Result<()> {
    let (name, run) = (&args.target.network, args.dry_run.run());
    let changed = context.client.stop(name, args.force.guests(), run).await?;
    change::print(&changed, run, context, |_| format!("network {name} is stopped"))
}
