//! How a network is shown.

use std::sync::Arc;

use vnet_api::model::{Network, PortView, State};
use vnet_plan::{Alias, Link, LinkKind, Observed, with_mtu};
use vnet_types::{NetworkDefinition, NetworkName};

pub(crate) fn network(
    definition: &Arc<NetworkDefinition>,
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
        definition: NetworkDefinition::clone(definition),
    }
}

/// The guests on a network: the taps that say so.
pub(crate) fn ports(network: &NetworkName, observed: &Observed) -> Vec<PortView> {
    let port = |(name, link): (&str, &Link)| {
        let Some(Alias::Port { network: on, domain, nic, mac, limits }) = &link.alias else {
            return None;
        };
        if link.kind != LinkKind::Tun || on != network {
            return None;
        }
        Some(PortView {
            interface: name.parse().ok()?,
            domain: domain.clone(),
            nic: *nic,
            mac: *mac,
            addresses: Vec::new(),
            limits: *limits,
        })
    };
    observed.links.iter().filter_map(port).collect()
}
