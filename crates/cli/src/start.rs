//! `vnet start`: starts a network that is defined.

use clap::Args;

use crate::args::{DryRun, Target};
use crate::change;
use crate::context::Context;

/// Start a network
///
/// A bridged network gets the host's uplink under its bridge again, with the same care as in `vnet
/// bridge`: unless the gateway answers, everything is put back.
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet start default")]
pub(crate) struct Start {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Runs the command.
///
/// # Errors
/// netd refuses or cannot be reached.
pub(crate) async fn run(args: &Start, context: &Context) -> anyhow::Result<()> {
    let (name, run) = (&args.target.network, args.dry_run.run());
    let changed = context.client.start(name, run).await?;
    change::print(&changed, run, context, |changed| match &changed.network {
        Some(network) => change::summary_of_any(network),
        None => format!("network {name} is up"),
    })
}
