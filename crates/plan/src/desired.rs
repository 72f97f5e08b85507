//! What should be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use vnet_types::{BridgedDefinition, IfName, MacAddr, Mode, NetworkDefinition, NetworkName};

use crate::firewall::{Allowed, Firewall, Port, Zone};
use crate::forward::{Addresses, published};
use crate::{Alias, Link, LinkKind, Observed};

/// The addresses that the guests of a network have, each with the guest's MAC address.
pub type Leased = BTreeSet<(MacAddr, Ipv4Addr)>;

/// The networks that should be up, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Each with the MAC address of its bridge, which no change of ports may alter.
    pub networks: BTreeMap<NetworkName, (NetworkDefinition, MacAddr)>,
    /// Where the guests are that the networks' forwards name.
    pub addresses: BTreeMap<NetworkName, Addresses>,
    /// The running leases of each.
    pub leases: BTreeMap<NetworkName, Leased>,
    /// The networks over an uplink that are up: only the ports on them are part of the plan.
    pub bridged: BTreeMap<NetworkName, BridgedDefinition>,
}

impl Desired {
    /// Whether the host must forward packets for any of the networks.
    #[must_use]
    pub fn forwards(&self) -> bool {
        self.networks.values().any(|(network, _)| network.mode != Mode::Hostonly)
    }

    /// The firewall that the networks need, with the ports that are there.
    #[must_use]
    pub fn firewall(&self, observed: &Observed) -> Firewall {
        let ports =
            observed.links.iter().filter_map(|(name, link)| self.port(name, link, observed));
        let zones: Firewall = self
            .networks
            .values()
            .map(|(network, _)| {
                let zone = Zone {
                    mode: network.mode,
                    subnet: network.subnet,
                    uplink: network.uplink.clone(),
                    published: published(network, self.addresses.get(&network.name)),
                };
                (network.bridge.clone(), zone)
            })
            .collect();
        zones.with_ports(ports.collect())
    }

    /// What the guard is to know of this link, if it is a port to be guarded.
    fn port(&self, name: &str, link: &Link, observed: &Observed) -> Option<(IfName, Port)> {
        let Alias::Port { network, mac, .. } = link.alias.as_deref()?.parse().ok()? else {
            return None;
        };
        if let Some(network) = self.bridged.get(&network) {
            let guarded = link.kind == LinkKind::Tun && network.anti_spoofing;
            let network = network.name.clone();
            let port = || Port { network, mac, addresses: Allowed::Any };
            return guarded.then(|| Some((name.parse().ok()?, port())))?;
        }
        // A bridge may have been taken over by another network, with the ports on it.
        let bridge = || link.master.and_then(|master| observed.link_name(master));
        let on_bridge = || {
            let bridge = bridge()?;
            self.networks.values().find(|(network, _)| network.bridge.as_str() == bridge)
        };
        let (network, _) = self.networks.get(&network).or_else(on_bridge)?;
        if link.kind != LinkKind::Tun || !network.anti_spoofing {
            return None;
        }
        let none = Leased::new();
        let leased = self.leases.get(&network.name).unwrap_or(&none);
        let addresses = allowed(network, leased, mac);
        Some((name.parse().ok()?, Port { network: network.name.clone(), mac, addresses }))
    }
}

/// The IPv4 addresses that the guest with the address `mac` may use on `network`.
#[must_use]
pub fn allowed(network: &NetworkDefinition, leased: &Leased, mac: MacAddr) -> Allowed {
    // Nobody gives addresses: each guest chooses its own, though not the gateway's.
    let Some(dhcp) = &network.dhcp else { return Allowed::Range(network.subnet.guests()) };
    let reserved = dhcp.reservations.iter().filter(|one| one.mac == mac).map(|one| one.ip);
    let of_mac = (mac, Ipv4Addr::UNSPECIFIED)..=(mac, Ipv4Addr::BROADCAST);
    Allowed::Given(leased.range(of_mac).map(|(_, ip)| *ip).chain(reserved).collect())
}
