//! The DNS of a network: its zone is made from the definition and the leases.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use tokio::sync::Notify;
use vnet_dhcp::{Lease, v6};
use vnet_dns::zone::Zone;
use vnet_dns::{Config, DnsServer, Forwarding, Upstreams};
use vnet_types::{DnsName, MacAddr, Mode, NetworkDefinition};

use super::ServiceError;

/// The domain in which all networks' domains are by default: names in it never leave the host.
const PARENT_DOMAIN: &str = "vnet";

/// Makes zones for one network and gives them to its server.
pub(crate) struct Zones {
    network: NetworkDefinition,
    server: Arc<DnsServer>,
    serial: u32,
    published: Named,
    changed: Arc<Notify>,
}

/// The guests that have a lease and a name.
#[derive(Debug, Clone, Default)]
struct Named {
    v4: BTreeMap<Ipv4Addr, (DnsName, MacAddr)>,
    v6: BTreeMap<Ipv6Addr, (DnsName, Option<MacAddr>)>,
}

pub(crate) fn start(
    network: &NetworkDefinition,
    upstreams: &Upstreams,
) -> Result<Arc<DnsServer>, ServiceError> {
    let mut config = Config::new(zone(network, &Named::default(), 1));
    config.upstreams = upstreams_of(network, upstreams);
    if network.mode == Mode::Hostonly {
        config.forwarding = Forwarding::Off;
    }
    let mut listen = vec![IpAddr::V4(network.subnet.gateway())];
    if let Some(ipv6) = &network.ipv6 {
        listen.push(ipv6.prefix.gateway().into());
        config.clients.push(ipv6.prefix.net().into());
    }
    // The host itself reaches its own address through `lo`.
    let loopback = "lo".parse().ok();
    let devices: Vec<_> = [network.bridge.clone()].into_iter().chain(loopback).collect();
    DnsServer::spawn(&listen, &devices, config)
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
        Self { network, server, serial: 1, published: Named::default(), changed }
    }

    /// Takes over a changed definition, and publishes what is in it.
    pub(crate) fn reconfigure(&mut self, network: NetworkDefinition) {
        self.network = network;
        self.publish_zone();
    }

    /// Publishes the names of the leases that are live at `unix` seconds, if they have changed.
    pub(crate) fn publish<'a>(&mut self, leases: impl Iterator<Item = &'a Lease>, unix: u64) {
        let names: BTreeMap<_, _> = leases
            .filter(|lease| lease.is_live(unix))
            .filter_map(|lease| Some((lease.ip, (lease.hostname.clone()?, lease.mac))))
            .collect();
        if names != self.published.v4 {
            self.published.v4 = names;
            self.publish_zone();
        }
        // A guest that has no name in the DNS may be one that a forward leads to.
        self.changed.notify_one();
    }

    /// The same for the leases of IPv6 addresses.
    pub(crate) fn publish6<'a>(&mut self, leases: impl Iterator<Item = &'a v6::Lease>, unix: u64) {
        let names: BTreeMap<_, _> = leases
            .filter(|lease| lease.is_live(unix))
            .filter_map(|lease| Some((lease.ip, (lease.hostname.clone()?, lease.mac))))
            .collect();
        if names != self.published.v6 {
            self.published.v6 = names;
            self.publish_zone();
        }
        self.changed.notify_one();
    }

    fn publish_zone(&mut self) {
        self.serial = self.serial.wrapping_add(1);
        self.server.set_zone(zone(&self.network, &self.published, self.serial));
    }
}

/// Whose each name is: the servers for IPv4 and for IPv6 let a guest have a name that is free with
/// them, and one name is one guest's.
#[derive(Default)]
struct Owners(BTreeMap<String, Option<MacAddr>>);

impl Owners {
    /// Whether the guest with this card may have the name; if so, it is its from now on.
    fn grant(&mut self, name: &DnsName, mac: Option<MacAddr>) -> bool {
        *self.0.entry(name.as_str().to_ascii_lowercase()).or_insert(mac) == mac
    }
}

fn zone(network: &NetworkDefinition, leased: &Named, serial: u32) -> Zone {
    let mut builder = Zone::builder(network.domain.clone(), network.subnet).serial(serial);
    if let Some(ipv6) = &network.ipv6 {
        builder = builder.prefix6(ipv6.prefix.net()).gateway6(ipv6.prefix.gateway());
    }
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
    let mut owners = Owners::default();
    let v4 = network.dhcp.iter().flat_map(|dhcp| &dhcp.reservations);
    let v4 = v4.map(|one| (&one.hostname, one.mac, IpAddr::V4(one.ip)));
    let v6 = network.ipv6.iter().flat_map(|ipv6| &ipv6.reservations);
    let v6 = v6.map(|one| (&one.hostname, Some(one.mac), IpAddr::V6(one.ip)));
    for (name, mac, address) in v4.chain(v6) {
        if let Some(name) = name
            && owners.grant(name, mac)
        {
            insert(name, address);
        }
    }
    for (address, (name, mac)) in &leased.v4 {
        if owners.grant(name, Some(*mac)) {
            insert(name, IpAddr::V4(*address));
        }
    }
    for (address, (name, mac)) in &leased.v6 {
        if owners.grant(name, *mac) {
            insert(name, IpAddr::V6(*address));
        }
    }
    builder.build()
}
