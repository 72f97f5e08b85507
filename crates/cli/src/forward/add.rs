//! `vnet forward add`: publishes a port of a guest.

use clap::Args;
use vnet_types::{Forward, Listen, Target};

use crate::args::{self, DryRun};
use crate::change;
use crate::context::Context;

/// Publish a port of a guest, at once and from now on
///
/// It is reached at the host's addresses: from outside, from the host itself (at 127.0.0.1 too),
/// and from guests, over IPv6 too where the guest has an IPv6 address by DHCPv6. A guest's name is followed: when its address changes, so does where the
/// forward leads.
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet forward add default 8080 web:80
         vnet forward add default 203.0.113.2:5000-5009/udp 192.168.122.9
         vnet forward add default '[::]:443' web")]
pub(crate) struct Add {
    #[command(flatten)]
    target: args::Target,
    /// The host's port, or several; at one of its addresses, or at all; tcp unless said. IPv6
    /// addresses stand in brackets: [::] is all of them, 0.0.0.0 all IPv4 ones
    #[arg(value_name = "[ADDR:]PORT[-PORT][/tcp|/udp]")]
    listen: Listen,
    /// The guest, by its name or address, and its port [default: the same port]
    #[arg(value_name = "NAME|ADDR[:PORT[-PORT]]")]
    to: Target,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Runs the command.
///
/// # Errors
/// netd refuses or cannot be reached.
pub(crate) async fn run(args: &Add, context: &Context) -> anyhow::Result<()> {
    let (name, run) = (&args.target.network, args.dry_run.run());
    let forward = Forward::new(args.listen, args.to.clone());
    let changed = context.client.add_forward(name, &forward, run).await?;
    change::print(&changed, run, context, |_| format!("{forward} on {name} is forwarded"))
}
