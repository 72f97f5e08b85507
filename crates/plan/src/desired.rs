//! What should be.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use vnet_types::{
    BridgedDefinition, IfName, MacAddr, Mode, NetworkDefinition, NetworkName, link_local,
};

use crate::firewall::{Allowed, Allowed6, Firewall, Port, Zone, Zone6};
use crate::forward::{Addresses, published};
use crate::{Alias, Link, LinkKind, Observed};

/// The addresses that the guests of a network have, each with the guest's MAC address.
pub type Leased = BTreeSet<(MacAddr, Ipv4Addr)>;

/// The same in IPv6, as far as DHCPv6 has given them.
pub type Leased6 = BTreeSet<(MacAddr, Ipv6Addr)>;

/// The networks that should be up, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Each with the MAC address of its bridge, which no change of ports may alter.
    pub networks: BTreeMap<NetworkName, (Arc<NetworkDefinition>, MacAddr)>,
    /// Where the guests are that the networks' forwards name.
    pub addresses: BTreeMap<NetworkName, Addresses>,
    /// The running leases of each.
    pub leases: BTreeMap<NetworkName, Leased>,
    /// The running leases of each in IPv6.
    pub leases6: BTreeMap<NetworkName, Leased6>,
    /// The networks over an uplink that are up: only the ports on them are part of the plan.
    pub bridged: BTreeMap<NetworkName, BridgedDefinition>,
}

impl Desired {
    /// The names of the networks' bridges.
    pub(crate) fn bridges(&self) -> HashSet<&str> {
        self.networks.values().map(|(network, _)| network.bridge.as_str()).collect()
    }

    /// Whether the host must forward packets for any of the networks.
    #[must_use]
    pub fn forwards(&self) -> bool {
        self.networks.values().any(|(network, _)| network.mode != Mode::Hostonly)
    }

    /// Whether the host must forward IPv6 packets for any of the networks.
    #[must_use]
    pub fn forwards6(&self) -> bool {
        let open = |network: &NetworkDefinition| network.mode != Mode::Hostonly;
        self.networks.values().any(|(network, _)| network.ipv6.is_some() && open(network))
    }

    /// The firewall that the networks need, with the ports that are there.
    #[must_use]
    pub fn firewall(&self, observed: &Observed) -> Firewall {
        let ports =
            observed.links.iter().filter_map(|(name, link)| self.port(name, link, observed));
        let zones: Firewall = self
            .networks
            .values()
            .map(|(network, mac)| {
                let bridge = observed.links.get(network.bridge.as_str());
                let mac = bridge.and_then(|link| link.mac).unwrap_or(*mac);
                let ipv6 = network.ipv6.as_ref().map(|ipv6| Zone6 {
                    prefix: ipv6.prefix,
                    link_local: link_local(mac),
                    reserved: ipv6.reservations.iter().map(|one| one.ip).collect(),
                });
                let zone = Zone {
                    ipv6,
                    mode: network.mode,
                    subnet: network.subnet,
                    uplink: network.uplink.clone(),
                    limit: network.limits.outbound,
                    published: published(network, self.addresses.get(&network.name)),
                };
                (network.bridge.clone(), zone)
            })
            .collect();
        zones.with_ports(ports.collect())
    }

    /// What the guard is to know of this link, if it is a port to be guarded.
    fn port(&self, name: &str, link: &Link, observed: &Observed) -> Option<(IfName, Port)> {
        let Some(Alias::Port { network, mac, .. }) = &link.alias else { return None };
        let mac = *mac;
        if let Some(network) = self.bridged.get(network) {
            let guarded = link.kind == LinkKind::Tun && network.anti_spoofing;
            let network = network.name.clone();
            let port = || Port { network, mac, addresses: Allowed::Any, ipv6: None };
            return guarded.then(|| Some((name.parse().ok()?, port())))?;
        }
        // A bridge may have been taken over by another network, with the ports on it.
        let bridge = || link.master.and_then(|master| observed.link_name(master));
        let on_bridge = || {
            let bridge = bridge()?;
            self.networks.values().find(|(network, _)| network.bridge.as_str() == bridge)
        };
        let (network, _) = self.networks.get(network).or_else(on_bridge)?;
        if link.kind != LinkKind::Tun || !network.anti_spoofing {
            return None;
        }
        let none = Leased::new();
        let leased = self.leases.get(&network.name).unwrap_or(&none);
        let addresses = allowed(network, leased, mac);
        let none = Leased6::new();
        let ipv6 = allowed6(network, self.leases6.get(&network.name).unwrap_or(&none), mac);
        Some((name.parse().ok()?, Port { network: network.name.clone(), mac, addresses, ipv6 }))
    }
}

/// The IPv4 addresses that the guest with the address `mac` may use on `network`.
#[must_use]
pub fn allowed(network: &NetworkDefinition, leased: &Leased, mac: MacAddr) -> Allowed {
    // Nobody gives addresses: each guest chooses its own, though not the gateway's.
    let Some(dhcp) = &network.dhcp else { return Allowed::Range(network.subnet.guests()) };
    let reserved = dhcp.reservations.iter().filter(|one| one.mac == Some(mac)).map(|one| one.ip);
    let of_mac = (mac, Ipv4Addr::UNSPECIFIED)..=(mac, Ipv4Addr::BROADCAST);
    Allowed::Given(leased.range(of_mac).map(|(_, ip)| *ip).chain(reserved).collect())
}

/// The IPv6 addresses beside link-local ones that the guest with the address `mac` may use on
/// `network`.
#[must_use]
pub fn allowed6(network: &NetworkDefinition, leased: &Leased6, mac: MacAddr) -> Option<Allowed6> {
    let ipv6 = network.ipv6.as_ref()?;
    let reserved = ipv6.reservations.iter().filter(|one| one.mac == mac).map(|one| one.ip);
    let of_mac = (mac, Ipv6Addr::UNSPECIFIED)..=(mac, Ipv6Addr::from_bits(u128::MAX));
    let given = leased.range(of_mac).map(|(_, ip)| *ip).chain(reserved);
    let made = ipv6.slaac.then(|| ipv6.prefix.eui64(mac)).flatten();
    Some(Allowed6 { prefix: ipv6.slaac.then_some(ipv6.prefix), own: given.chain(made).collect() })
}
