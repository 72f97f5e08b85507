//! `vnet leases`: who has which address.

use clap::Args;
use vnet_api::model::Lease;
use vnet_types::NetworkName;

use crate::context::{Context, Format};
use crate::table::{Cell, Colour, Table};
use crate::{output, time};

/// Characters of a client identifier that a table has room for.
const CLIENT_ID: usize = 20;

/// List leases: who has which address, and for how long
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet leases default")]
pub(crate) struct Leases {
    /// The network [default: all]
    #[arg(value_name = "NET")]
    network: Option<NetworkName>,
}

/// Runs the command.
///
/// # Errors
/// There is no such network, or netd cannot be reached.
pub(crate) async fn run(args: &Leases, context: &Context) -> anyhow::Result<()> {
    let leases = context.client.leases(args.network.as_ref()).await?;
    match context.format {
        Format::Json => output::print_json(&leases),
        Format::Text if leases.is_empty() => {
            match &args.network {
                Some(network) => output::note(format_args!("there is no lease on {network}")),
                None => output::note("there is no lease on any network that is up"),
            }
            Ok(())
        }
        Format::Text => output::print(&table(&leases, time::unix_now()).render()),
    }
}

fn table(leases: &[Lease], now: u64) -> Table {
    let mut table =
        Table::new(["NETWORK", "ADDRESS", "MAC", "NAME", "EXPIRES", "STATE", "CLIENT-ID"]);
    for lease in leases {
        let or_dash = |text: Option<String>| Cell::text(text.unwrap_or_else(|| "-".to_owned()));
        table.row([
            Cell::text(&lease.network),
            Cell::text(lease.address),
            Cell::text(lease.mac),
            or_dash(lease.hostname.clone()),
            Cell::text(time::from_now(lease.expires, now)),
            Cell::text(&lease.state).coloured(colour(&lease.state)),
            or_dash(lease.client_id.as_deref().map(shortened)),
        ]);
    }
    table
}

fn colour(state: &str) -> Colour {
    match state {
        "bound" | "reserved" => Colour::Green,
        "declined" => Colour::Red,
        _ => Colour::Yellow,
    }
}

/// The beginning of a client identifier; `--json` has all of it.
fn shortened(id: &str) -> String {
    if id.chars().count() <= CLIENT_ID {
        return id.to_owned();
    }
    id.chars().take(CLIENT_ID - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_a_row() {
        let leases: Vec<Lease> = serde_json::from_value(serde_json::json!([
            {
                "network": "default", "address": "192.168.122.57", "mac": "52:54:00:aa:bb:cc",
                "hostname": "web", "client_id": "01525400aabbcc", "expires": 4600,
                "state": "bound"
            },
            {
                "network": "default", "address": "192.168.122.9", "mac": "52:54:00:aa:bb:cd",
                "hostname": null, "client_id": "ff5a3c1e0200020000ab110a1b2c3d4e5f",
                "expires": 940, "state": "expired"
            }
        ]))
        .unwrap();
        assert_eq!(
            table(&leases, 1060).render(),
            "NETWORK  ADDRESS         MAC                NAME  EXPIRES    STATE    CLIENT-ID\n\
             default  192.168.122.57  52:54:00:aa:bb:cc  web   in 59 min  bound    01525400aabbcc\n\
             default  192.168.122.9   52:54:00:aa:bb:cd  -     2 min ago  expired  \
             ff5a3c1e0200020000a…\n"
        );
    }
}
