//! `vnet list`: all networks.

use vnet_api::model::{BridgedNetwork, Network, PortView, State};
use vnet_types::NetworkDefinition;

use crate::context::{Context, Format};
use crate::output;
use crate::table::{Cell, Colour, Table};

/// Runs the command.
///
/// # Errors
/// netd cannot be reached, or standard output cannot be written.
pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let client = &context.client;
    let (networks, bridges, status) =
        tokio::try_join!(client.networks(), client.bridges(), client.status())?;
    for broken in &status.broken {
        output::warn(format_args!("{} cannot be used: {}", broken.path, broken.reason));
    }
    match context.format {
        Format::Json => output::print_json(&all(&networks, &bridges)),
        Format::Text if networks.is_empty() && bridges.is_empty() => {
            output::note("there is no network yet: `vnet create nat default` makes one");
            Ok(())
        }
        Format::Text => output::print(&table(&networks, &bridges).render()),
    }
}

/// One network of either sort; `definition.mode` tells them apart.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Any<'n> {
    Network(&'n Network),
    Bridged(&'n BridgedNetwork),
}

fn all<'n>(networks: &'n [Network], bridges: &'n [BridgedNetwork]) -> Vec<Any<'n>> {
    networks.iter().map(Any::Network).chain(bridges.iter().map(Any::Bridged)).collect()
}

fn table(networks: &[Network], bridges: &[BridgedNetwork]) -> Table {
    let mut table = Table::new(["NAME", "MODE", "STATE", "BRIDGE", "SUBNET", "GUESTS", "LEASES"]);
    for network in networks {
        let definition = &network.definition;
        table.row([
            Cell::text(&definition.name),
            Cell::text(definition.mode),
            state(&network.state),
            Cell::text(&definition.bridge),
            Cell::text(subnets(definition)),
            Cell::number(guests(&network.ports)),
            Cell::number(network.leases),
        ]);
    }
    for network in bridges {
        let definition = &network.definition;
        table.row([
            Cell::text(&definition.name),
            Cell::text(vnet_types::BRIDGED),
            state(&network.state),
            Cell::text(&definition.bridge),
            Cell::text(format!("that of {}", definition.uplink)),
            Cell::number(guests(&network.ports)),
            // The LAN gives them.
            Cell::number("-"),
        ]);
    }
    table
}

/// The network's addresses: its subnet, and its IPv6 prefix.
pub(crate) fn subnets(definition: &NetworkDefinition) -> String {
    match &definition.ipv6 {
        Some(ipv6) => format!("{}, {}", definition.subnet, ipv6.prefix),
        None => definition.subnet.to_string(),
    }
}

/// How many guests have a port: one with two network cards counts once.
fn guests(ports: &[PortView]) -> usize {
    let mut domains: Vec<_> = ports.iter().map(|port| &port.domain).collect();
    domains.sort();
    domains.dedup();
    domains.len()
}

/// A network's state as a word.
pub(crate) fn state(state: &State) -> Cell {
    match state {
        State::Active => Cell::text("active").coloured(Colour::Green),
        State::Stopped => Cell::text("stopped").coloured(Colour::Yellow),
        State::Failed { .. } => Cell::text("failed").coloured(Colour::Red),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        serde_json::from_value(serde_json::json!({
            "definition": {
                "name": "default", "mode": "nat", "bridge": "virbr0",
                "subnet": "192.168.122.0/24", "domain": "default.vnet",
                "dhcp": {"range": "192.168.122.2-192.168.122.254"}
            },
            "state": "active", "gateway": "192.168.122.1", "bridge_mac": null,
            "ports": [
                {"interface": "vn0", "domain": "web", "nic": 0, "mac": "52:54:00:00:00:01"},
                {"interface": "vn1", "domain": "web", "nic": 1, "mac": "52:54:00:00:00:02"}
            ],
            "leases": 2
        }))
        .unwrap()
    }

    #[test]
    fn a_network_is_a_row_and_a_guest_with_two_cards_counts_once() {
        assert_eq!(
            table(&[network()], &[]).render(),
            "NAME     MODE  STATE   BRIDGE  SUBNET            GUESTS  LEASES\n\
             default  nat   active  virbr0  192.168.122.0/24       1       2\n"
        );
    }
}
