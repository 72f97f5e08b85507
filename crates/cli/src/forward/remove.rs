//! `vnet forward remove`: publishes a port no more.

use clap::Args;
use vnet_types::Listen;

use crate::args::{DryRun, Target};
use crate::change;
use crate::context::Context;

/// Publish a port no more
///
/// Connections that there are go on.
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet forward remove default 8080
         vnet forward remove default 203.0.113.2:5000-5009/udp")]
pub(crate) struct Remove {
    #[command(flatten)]
    target: Target,
    /// As it was added; tcp unless said
    #[arg(value_name = "[ADDR:]PORT[-PORT][/tcp|/udp]")]
    listen: Listen,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Runs the command.
///
/// # Errors
/// There is no such forward, or netd cannot be reached.
pub(crate) async fn run(args: &Remove, context: &Context) -> anyhow::Result<()> {
    let (name, run) = (&args.target.network, args.dry_run.run());
    let listen = &args.listen;
    let changed = context.client.remove_forward(name, listen, run).await?;
    change::print(&changed, run, context, |_| format!("{listen} on {name} is forwarded no more"))
}
