//! `vnet leases`: who has which address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use vnet_api::model::Lease;
use vnet_types::NetworkName;

use crate::context::{Context, Format};
use crate::table::{Cell, Colour, Table};
use crate::{output, time};

/// How often netd is asked while leases are followed.
const INTERVAL: Duration = Duration::from_millis(500);
/// Characters of a client identifier that a table has room for.
const CLIENT_ID: usize = 20;

/// List leases: who has which address, and for how long
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet leases default")]
pub(crate) struct Leases {
    /// The network [default: all]
    #[arg(value_name = "NET")]
    network: Option<NetworkName>,
    /// Go on, and print each lease that changes; with --json, one object a line
    #[arg(long)]
    follow: bool,
}

/// What became of a lease while it was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    /// There was none of its address.
    New,
    /// It was renewed, has ended, or is another guest's.
    Changed,
    /// Nothing is known of its address any longer.
    Gone,
}

type Known = BTreeMap<(NetworkName, IpAddr), Lease>;

/// Runs the command.
///
/// # Errors
/// There is no such network, or netd cannot be reached.
pub(crate) async fn run(args: &Leases, context: &Context) -> anyhow::Result<()> {
    let leases = context.client.leases(args.network.as_ref()).await?;
    if args.follow {
        return follow(args, context, leases).await;
    }
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

/// Prints what there is, and then each change, until somebody ends it or netd does.
async fn follow(args: &Leases, context: &Context, mut leases: Vec<Lease>) -> anyhow::Result<()> {
    let mut known = Known::new();
    loop {
        let now: Known = leases.into_iter().map(|l| ((l.network.clone(), l.address), l)).collect();
        let changes = changes(&known, &now);
        match context.format {
            Format::Json => {
                for (change, lease) in &changes {
                    let line = serde_json::json!({ "change": change, "lease": lease });
                    output::print(&line.to_string())?;
                }
            }
            Format::Text if changes.is_empty() => {}
            Format::Text => output::print(&changed(&changes, time::unix_now()))?,
        }
        known = now;
        tokio::time::sleep(INTERVAL).await;
        leases = context.client.leases(args.network.as_ref()).await?;
    }
}

/// What is different between two looks at the leases, in the order of their addresses.
fn changes<'a>(before: &'a Known, now: &'a Known) -> Vec<(Change, &'a Lease)> {
    let changed = now.iter().filter_map(|(key, lease)| match before.get(key) {
        None => Some((Change::New, lease)),
        Some(known) if known != lease => Some((Change::Changed, lease)),
        Some(_) => None,
    });
    let gone = before.iter().filter(|(key, _)| !now.contains_key(key));
    changed.chain(gone.map(|(_, lease)| (Change::Gone, lease))).collect()
}

/// Changes as lines that make sense one by one: no table has columns of a width that is not known.
fn changed(changes: &[(Change, &Lease)], now: u64) -> String {
    let line = |(change, lease): &(Change, &Lease)| {
        let Lease { network, address, mac, hostname, state, .. } = lease;
        let name = hostname.as_deref().unwrap_or("-");
        let what = match change {
            Change::New | Change::Changed => {
                format!("{state}, ends {}", time::from_now(lease.expires, now))
            }
            Change::Gone => "forgotten".to_owned(),
        };
        let time = time::of_day(now.saturating_mul(1000));
        let time = time.split('.').next().unwrap_or_default();
        output::printable(&format!("{time}  {network}  {address}  {mac}  {name}  {what}\n"))
    };
    changes.iter().map(line).collect()
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
    fn each_change_is_a_line() {
        let lease = |address: &str, expires: u64, state: &str| -> Lease {
            serde_json::from_value(serde_json::json!({
                "network": "default", "address": address, "mac": "52:54:00:aa:bb:cc",
                "hostname": "web", "client_id": null, "expires": expires, "state": state
            }))
            .unwrap()
        };
        let known = |leases: &[Lease]| -> Known {
            leases.iter().map(|l| ((l.network.clone(), l.address), l.clone())).collect()
        };
        let before = known(&[lease("10.0.0.2", 4600, "bound"), lease("10.0.0.3", 4600, "bound")]);
        let now = known(&[lease("10.0.0.2", 4600, "bound"), lease("10.0.0.4", 4600, "bound")]);
        assert_eq!(changes(&before, &before), []);
        assert_eq!(
            changed(&changes(&before, &now), 1000),
            "00:16:40  default  10.0.0.4  52:54:00:aa:bb:cc  web  bound, ends in 1 h\n\
             00:16:40  default  10.0.0.3  52:54:00:aa:bb:cc  web  forgotten\n"
        );
        let renewed = known(&[lease("10.0.0.2", 8200, "bound"), lease("10.0.0.3", 9, "released")]);
        let changes = changes(&before, &renewed);
        assert!(changes.iter().all(|(change, _)| *change == Change::Changed));
        assert!(changed(&changes, 1000).contains("10.0.0.3  52:54:00:aa:bb:cc  web  released"));
    }

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
