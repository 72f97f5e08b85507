//! The DNS of a network: its zone is made from the definition and the leases.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tokio::sync::Notify;
use vnet_dhcp::Lease;
use vnet_dns::zone::Zone;
use vnet_dns::{Config, DnsServer, Forwarding, Upstreams};
use vnet_types::{DnsName, Mode, NetworkDefinition};

use super::ServiceError;

/// The domain in which all networks' domains are by default: names in it never leave the host.
const PARENT_DOMAIN: &str = "vnet";

/// Makes zones for one network and gives them to its server.
pub(crate) struct Zones {
    network: NetworkDefinition,
    server: Arc<DnsServer>,
    serial: u32,
    published: BTreeMap<Ipv4Addr, DnsName>,
    changed: Arc<Notify>,
}

pub(crate) fn start(
    network: &NetworkDefinition,
    upstreams: &Upstreams,
) -> Result<Arc<DnsServer>, ServiceError> {
    let mut config = Config::new(zone(network, &BTreeMap::new(), 1));
    config.upstreams = upstreams_of(network, upstreams);
    if network.mode == Mode::Hostonly {
        config.forwarding = Forwarding::Off;
    }
    // The host itself reaches its own address through `lo`.
    let loopback = "lo".parse().ok();
    let devices: Vec<_> = [network.bridge.clone()].into_iter().chain(loopback).collect();
    DnsServer::spawn(network.subnet.gateway(), &devices, config)
        .map(Arc::new)
        .map_err(|source| ServiceError::Dns { bridge: network.bridge.to_string(), source })
}

/// Whom the network's server asks: the servers that its definition names, or those of the host.
pub(crate) fn upstreams_of(network: &NetworkDefinition, host: &Upstreams) -> Upstreams {
    if network.dns.upstreams.is_empty() {
        host.clone()
    } else {
        Upstreams::list(network.dns.upstreams.iter().copied())
    }
}

impl Zones {
    pub(crate) fn new(
        network: NetworkDefinition,
        server: Arc<DnsServer>,
        changed: Arc<Notify>,
    ) -> Self {
        Self { network, server, serial: 1, published: BTreeMap::new(), changed }
    }

    /// Takes over a changed definition, and publishes what is in it.
    pub(crate) fn reconfigure(&mut self, network: NetworkDefinition) {
        self.network = network;
        self.serial = self.serial.wrapping_add(1);
        self.server.set_zone(zone(&self.network, &self.published, self.serial));
    }

    /// Publishes the names of the leases that are live at `unix` seconds, if they have changed.
    pub(crate) fn publish<'a>(&mut self, leases: impl Iterator<Item = &'a Lease>, unix: u64) {
        let names: BTreeMap<Ipv4Addr, DnsName> = leases
            .filter(|lease| lease.is_live(unix))
            .filter_map(|lease| Some((lease.ip, lease.hostname.clone()?)))
            .collect();
        if names != self.published {
            self.serial = self.serial.wrapping_add(1);
            self.server.set_zone(zone(&self.network, &names, self.serial));
            self.published = names;
        }
        // A guest that has no name in the DNS may be one that a forward leads to.
        self.changed.notify_one();
    }
}

fn zone(network: &NetworkDefinition, leased: &BTreeMap<Ipv4Addr, DnsName>, serial: u32) -> Zone {
    let mut builder = Zone::builder(network.domain.clone(), network.subnet).serial(serial);
    if let Ok(parent) = PARENT_DOMAIN.parse()
        && network.domain.as_str().ends_with(".vnet")
    {
        builder = builder.unforwarded(parent);
    }
    let mut insert = |name: &DnsName, address: IpAddr| {
        // Guests choose names too: what they can repeat is no warning.
        if let Err(error) = builder.insert(name, address) {
            tracing::debug!("network {}: a name is left out of the DNS: {error}", network.name);
        }
    };
    for (name, addresses) in &network.dns.hosts {
        addresses.iter().for_each(|address| insert(name, *address));
    }
    for reservation in network.dhcp.iter().flat_map(|dhcp| &dhcp.reservations) {
        if let Some(name) = &reservation.hostname {
            insert(name, IpAddr::V4(reservation.ip));
        }
    }
    for (address, name) in leased {
        insert(name, IpAddr::V4(*address));
    }
    builder.build()
}
