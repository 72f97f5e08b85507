//! `vnet forward`: ports of the host that lead to a guest.

mod add;
mod list;
mod remove;

use clap::{Args, Subcommand};

use crate::context::Context;

/// Publish ports of guests at the host's addresses
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet forward add default 8080 web:80
         vnet forward list
         vnet forward remove default 8080")]
pub(crate) struct Forward {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(add::Add),
    List(list::List),
    Remove(remove::Remove),
}

/// Runs the command.
///
/// # Errors
/// netd refuses or cannot be reached.
pub(crate) async fn run(args: &Forward, context: &Context) -> anyhow::Result<()> {
    match &args.command {
        Command::Add(args) => add::run(args, context).await,
        Command::List(args) => list::run(args, context).await,
        Command::Remove(args) => remove::run(args, context).await,
    }
}
