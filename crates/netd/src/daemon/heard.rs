//! The guests that are listened to, since they may have addresses that netd has not given; and what
//! follows from what they say.
//!
//! ```text
//! port ─► sightings ─► plan/made ─┬─► what is shown
//!                                 ├─► forwards
//!                                 └─► DNS, under the name that the card has by DHCP
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use vnet_plan::{Claim, Observed, Tenant, made};
use vnet_types::{MacAddr, NetworkDefinition};

use super::Daemon;
use crate::network_view;
use crate::sightings::{Heard, Source};

impl Daemon {
    /// Listens at the ports of bridged networks and of those on which guests make addresses, and at
    /// no others. What the kernel knows of a guest is taken over: a new netd has heard nothing yet.
    pub(super) fn listen_at_ports(&mut self, observed: &Observed) {
        let lan = self.bridged.up().into_keys().map(|name| (name, Source::Lan));
        let making = self.networks.values().filter(|network| makes_addresses(network));
        let making = making.map(|network| (network.name.clone(), Source::Guest));
        let mut ports = BTreeMap::new();
        for (name, source) in lan.chain(making) {
            for port in network_view::ports(&name, observed) {
                ports.insert(port.interface, Heard { mac: port.mac, source });
            }
        }
        for port in self.sightings.follow(&ports) {
            let bridge = observed.links.get(port.as_str()).and_then(|link| link.master);
            let Some((guest, bridge)) = ports.get(&port).zip(bridge) else { continue };
            let found = self.kernel.neighbours6(bridge).unwrap_or_default();
            for (_, address) in found.into_iter().filter(|(mac, _)| *mac == guest.mac) {
                self.sightings.seed(&port, address.into());
            }
        }
    }

    /// The address that each guest of a network has made for itself.
    pub(super) fn made(
        &self,
        network: &NetworkDefinition,
        observed: &Observed,
    ) -> BTreeMap<MacAddr, Ipv6Addr> {
        if !makes_addresses(network) {
            return BTreeMap::new();
        }
        let ports = network_view::ports(&network.name, observed);
        let cards: BTreeSet<MacAddr> = ports.iter().map(|port| port.mac).collect();
        let of_port = |port: &vnet_api::model::PortView| {
            let mac = port.mac;
            let heard = self.sightings.since(&port.interface).into_iter();
            heard.map(move |(since, address)| (since, Claim { mac, address })).collect::<Vec<_>>()
        };
        let mut claims: Vec<_> = ports.iter().flat_map(of_port).collect();
        if claims.is_empty() {
            return BTreeMap::new();
        }
        claims.sort_by_key(|(since, _)| *since);
        let claims: Vec<Claim> = claims.into_iter().map(|(_, claim)| claim).collect();
        made(network, &claims, &cards, &self.leased6(&network.name))
    }

    /// Adds those of whom no other IPv6 address is known.
    pub(crate) fn add_made(
        &self,
        network: &NetworkDefinition,
        observed: &Observed,
        tenants: &mut Vec<Tenant>,
    ) {
        for (mac, address) in self.made(network, observed) {
            let reserved = network.ipv6.iter().flat_map(|ipv6| &ipv6.reservations);
            let known = tenants.iter().any(|tenant| tenant.mac == mac && tenant.ip.is_ipv6());
            if !known && !reserved.into_iter().any(|one| one.mac == mac) {
                tenants.push(Tenant { mac, ip: IpAddr::V6(address), hostname: None });
            }
        }
    }

    /// Gives the DNS of each network that is up the addresses that guests have made.
    pub(crate) fn name_made(&self, observed: &Observed) {
        for (name, services) in &self.running {
            if let Some(network) = self.networks.get(name)
                && makes_addresses(network)
            {
                services.name_made(&self.made(network, observed));
            }
        }
    }

    /// Whether any network that is up has guests that may make addresses.
    pub(crate) fn has_makers(&self) -> bool {
        self.running
            .keys()
            .filter_map(|name| self.networks.get(name))
            .any(|network| makes_addresses(network))
    }
}

fn makes_addresses(network: &NetworkDefinition) -> bool {
    network.anti_spoofing && network.ipv6.as_ref().is_some_and(|ipv6| ipv6.slaac)
}
