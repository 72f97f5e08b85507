//! The DNS of a network: its zone is made from the definition and the leases.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;
use vnet_dns::zone::Zone;
use vnet_dns::{Config, DnsServer, Forwarding, Upstreams};
use vnet_types::{DnsName, MacAddr, Mode, NetworkDefinition};

use super::ServiceError;
use super::holders::Holder;

/// The domain in which all networks' domains are by default: names in it never leave the host.
const PARENT_DOMAIN: &str = "vnet";

/// A zone is made as a whole. While guests come faster than that, it is made so often that a
/// twentieth of the time goes there.
const PUBLISHING_SHARE: u32 = 20;

/// Makes zones for one network and gives them to its server.
pub(crate) struct Zones {
    network: NetworkDefinition,
    server: Arc<DnsServer>,
    serial: u32,
    named: Named,
    /// Whether there is more to say than was published.
    dirty: bool,
    /// When a zone may be made again.
    next: Instant,
    changed: Arc<Notify>,
}

/// The guests that have an address and a name: IPv4 addresses come first.
type Named = BTreeMap<IpAddr, (DnsName, Option<MacAddr>)>;

pub(crate) fn start(
    network: &NetworkDefinition,
    upstreams: &Upstreams,
) -> Result<Arc<DnsServer>, ServiceError> {
    let mut config = Config::new(zone(network, &Named::new(), 1));
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
        let (serial, named, next) = (1, Named::new(), Instant::now());
        Self { network, server, serial, named, dirty: false, next, changed }
    }

    /// Takes over a changed definition, and publishes what is in it.
    pub(crate) fn reconfigure(&mut self, network: NetworkDefinition) {
        self.network = network;
        self.publish_zone();
    }

    /// Notes that `ip` has another holder now, or none; [`Zones::publish`] says so.
    pub(super) fn note(&mut self, ip: IpAddr, holder: Option<Holder>) {
        let named = holder.and_then(|Holder { mac, name }| Some((name?, mac)));
        self.dirty |= self.named.get(&ip) != named.as_ref();
        match named {
            Some(named) => drop(self.named.insert(ip, named)),
            None => drop(self.named.remove(&ip)),
        }
        // A guest that has no name in the DNS may be one that a forward leads to.
        self.changed.notify_one();
    }

    /// Publishes the names of the guests that have an address, if they have changed: at once,
    /// unless that was done a moment ago. Says when to come back then.
    pub(crate) fn publish(&mut self) -> Option<Instant> {
        let begun = Instant::now();
        if !self.dirty {
            return None;
        }
        if begun < self.next {
            return Some(self.next);
        }
        self.publish_zone();
        None
    }

    fn publish_zone(&mut self) {
        let begun = Instant::now();
        self.serial = self.serial.wrapping_add(1);
        self.server.set_zone(zone(&self.network, &self.named, self.serial));
        self.dirty = false;
        self.next = begun + begun.elapsed() * PUBLISHING_SHARE;
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
    for (address, (name, mac)) in leased {
        if owners.grant(name, *mac) {
            insert(name, *address);
        }
    }
    builder.build()
}
