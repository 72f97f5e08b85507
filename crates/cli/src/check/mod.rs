//! `vnet check`: is this host ready for networks and guests?
//!
//! ```text
//! gather (thin: /dev, /proc, nft, rtnetlink, netd) ─► Facts ─► judge (pure) ─► rows
//! ```

mod facts;
mod gather;
mod judge;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Args;

use crate::context::{Context, Format};
use crate::output;
use crate::table::{Cell, Colour, Table};
use judge::{Level, Row};

/// Check whether this host is ready: KVM, nft, forwarding, firewalls of others, names
///
/// Run it as root to see the rules of others. The exit status is 1 if a row says failed.
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet check")]
pub(crate) struct Check {}

/// Runs the command.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) async fn run(_: &Check, context: &Context) -> anyhow::Result<ExitCode> {
    let rows = judge::judge(&gather::gather(context).await);
    match context.format {
        Format::Json => output::print_json(&rows)?,
        Format::Text => {
            output::print(&table(&rows).render())?;
            for (row, step) in
                rows.iter().flat_map(|row| row.fix.iter().map(move |step| (row, step)))
            {
                output::note(format_args!("{}: {step}", row.name));
            }
        }
    }
    let failed = rows.iter().any(|row| row.state == Level::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["CHECK", "STATE", "FOUND"]);
    for row in rows {
        let state = match row.state {
            Level::Ok => Cell::text("ok").coloured(Colour::Green),
            Level::Warning => Cell::text("warning").coloured(Colour::Yellow),
            Level::Failed => Cell::text("failed").coloured(Colour::Red),
        };
        table.row([Cell::text(row.name), state, Cell::text(&row.found)]);
    }
    table
}
