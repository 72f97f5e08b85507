//! How a network is shown.

use vnet_api::model::{Network, PortView, State};
use vnet_plan::{Alias, LinkKind, Observed, with_mtu};
use vnet_types::{NetworkDefinition, NetworkName};

pub(crate) fn network(
    definition: &NetworkDefinition,
    state: State,
    observed: &Observed,
    leases: usize,
) -> Network {
    let bridge_mac =
        observed.links.get(definition.bridge.as_str()).and_then(|link| link.mac).filter(|mac| {
            let claim = observed.ledger.bridges.get(&definition.bridge);
            claim.is_some_and(|claim| claim.mac == *mac)
        });
    Network {
        gateway: definition.subnet.gateway(),
        gateway6: definition.ipv6.as_ref().map(|ipv6| ipv6.prefix.gateway()),
        bridge_mac,
        mtu: with_mtu(definition, observed).mtu(),
        ports: ports(&definition.name, observed),
        leases,
        state,
        definition: definition.clone(),
    }
}

/// The guests on a network: the taps that say so.
pub(crate) fn ports(network: &NetworkName, observed: &Observed) -> Vec<PortView> {
    let port = |(name, link): (&String, &vnet_plan::Link)| {
        let Ok(Alias::Port { network: on, domain, nic, mac, limits }) =
            link.alias.as_deref()?.parse()
        else {
            return None;
        };
        let is_port = link.kind == LinkKind::Tun && on == *network;
        let interface = name.parse().ok()?;
        let addresses = Vec::new();
        is_port.then_some(PortView { interface, domain, nic, mac, addresses, limits })
    };
    observed.links.iter().filter_map(port).collect()
}
