//! `vnet autostart`: whether netd starts a network when it starts itself.

use clap::Args;
use vnet_api::client::Run;

use crate::args::Target;
use crate::change;
use crate::context::Context;

/// Have netd start a network when it starts itself, or not
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet autostart lab --off")]
pub(crate) struct Autostart {
    #[command(flatten)]
    target: Target,
    /// Have it not start
    #[arg(long)]
    off: bool,
}

/// Runs the command.
///
/// # Errors
/// netd refuses or cannot be reached.
pub(crate) async fn run(args: &Autostart, context: &Context) -> anyhow::Result<()> {
    let name = &args.target.network;
    let changed = context.client.autostart(name, !args.off).await?;
    let does = if args.off { "does not start" } else { "starts" };
    change::print(&changed, Run::Real, context, |_| format!("network {name} {does} with netd"))
}
