//! `vnet delete`: stops a network and removes its definition and its leases.

use clap::Args;

use crate::args::{DryRun, Force, Target};
use crate::change;
use crate::context::Context;

/// Stop a network and remove its definition and its leases
///
/// Of a bridged network, everything is as it was before `vnet bridge`.
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet delete lab --force")]
pub(crate) struct Delete {
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
pub(crate) async fn run(args: &Delete, context: &Context) -> anyhow::Result<()> {
    let (name, run) = (&args.target.network, args.dry_run.run());
    let changed = context.client.delete(name, args.force.guests(), run).await?;
    change::print(&changed, run, context, |_| format!("network {name} is deleted"))
}
