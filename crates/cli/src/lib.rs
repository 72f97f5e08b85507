//! The command line, `vnet`: one file for each command.
//!
//! ```text
//! main → args (clap) → a command's run(args, context) → vnet-api's client → output
//!                      └ run, probe: vmm finds and starts vnet-vmm
//! ```
//!
//! A command owns nothing: it asks netd over its socket and prints the answer. Standard output has
//! the answer alone, as a table or with `--json` as the API's own values; notes, hints and errors
//! go to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 netd cannot be reached.

mod args;
mod attachment;
mod autostart;
mod bridge;
mod change;
mod check;
mod completions;
mod context;
mod create;
mod delete;
mod edit;
mod explain;
mod failure;
mod forward;
mod leases;
mod list;
mod output;
mod probe;
mod reserve;
mod run;
mod show;
mod start;
mod stop;
mod table;
mod time;
mod vmm;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use context::Context;

/// Runs the command that the process' arguments name.
#[must_use]
pub fn main() -> ExitCode {
    // Wrong usage ends here, with clap's explanation and exit code 2.
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let context = Context::new(cli.root, cli.json);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match cli.command {
            Command::Create(args) => create::run(args, &context).await?,
            Command::Bridge(args) => bridge::run(args, &context).await?,
            Command::Confirm(args) => bridge::confirm(&args, &context).await?,
            Command::List => list::run(&context).await?,
            Command::Show(args) => show::run(&args, &context).await?,
            Command::Start(args) => start::run(&args, &context).await?,
            Command::Stop(args) => stop::run(&args, &context).await?,
            Command::Delete(args) => delete::run(&args, &context).await?,
            Command::Edit(args) => edit::run(&args, &context).await?,
            Command::Reserve(args) => reserve::run(args, &context).await?,
            Command::Unreserve(args) => reserve::run_un(args, &context).await?,
            Command::Autostart(args) => autostart::run(&args, &context).await?,
            Command::Leases(args) => leases::run(&args, &context).await?,
            Command::Explain(args) => explain::run(&args, &context).await?,
            Command::Forward(args) => forward::run(&args, &context).await?,
            // It becomes the VMM, and comes back only if that fails.
            Command::Run(args) => run::run(&args, &context).await?,
            Command::Check(args) => return check::run(&args, &context).await,
            Command::Probe(args) => probe::run(&args, &context).await?,
            Command::Completions(args) => completions::run(&args, &context)?,
        }
        Ok(ExitCode::SUCCESS)
    });
    // A resolver that does not answer is not waited for: the C library asks it on a thread.
    runtime.shutdown_background();
    done
}
