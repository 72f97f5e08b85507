//! The DNS of a network: its zone is made from the definition and the leases.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use vnet_dns::zone::{Zone, ZoneError};
use vnet_dns::{Config, DnsServer, Forwarding, Rules, Upstreams};
use vnet_plan::uplink::{Domain, Resolver, Server};
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
    /// The addresses that guests have made for themselves, as far as they are named.
    made: BTreeMap<Ipv6Addr, Holder>,
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
    host: &Upstreams,
) -> Result<Arc<DnsServer>, ServiceError> {
    let mut config = Config::new(zone(network, &Named::new(), 1), rules_of(network, host));
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

/// Whom the network's server asks for what: the servers that its definition names, or those of
/// the host.
pub(crate) fn rules_of(network: &NetworkDefinition, host: &Upstreams) -> Rules {
    let dns = &network.dns;
    let upstreams = if dns.upstreams.is_empty() {
        host.clone()
    } else {
        Upstreams::List(dns.upstreams.clone())
    };
    let split = dns.split.iter().filter(|(_, servers)| !servers.is_empty());
    Rules {
        upstreams,
        split: split.map(|(domain, servers)| (domain.clone(), servers.clone())).collect(),
        rebind_protection: dns.rebind_protection,
        rebind_allowed: dns.rebind_allowed.clone(),
    }
}

/// Has the host resolve the names of the network's guests, where systemd-resolved serves it: what is
/// in the network's domain is asked at its gateway, and nothing else is. It forgets that with the
/// bridge. Nothing waits for it.
pub(crate) fn tell_host(network: &NetworkDefinition) {
    let (bridge, wanted) = (network.bridge.clone(), resolver_of(network));
    tokio::spawn(async move {
        if let Err(error) = vnet_kernel::set_resolver(&bridge, &wanted).await {
            tracing::warn!("this host does not resolve the names of guests on {bridge}: {error}");
        }
    });
}

fn resolver_of(network: &NetworkDefinition) -> Resolver {
    let server = |address| Server { address, port: 0, name: String::new() };
    let no = || "no".to_owned();
    Resolver {
        servers: vec![server(network.subnet.gateway().into())],
        domains: vec![Domain { name: network.domain.to_string(), route_only: true }],
        default_route: false,
        llmnr: no(),
        multicast_dns: no(),
        dns_over_tls: no(),
        dnssec: no(),
        negative_trust_anchors: Vec::new(),
    }
}

impl Zones {
    pub(crate) fn new(
        network: NetworkDefinition,
        server: Arc<DnsServer>,
        changed: Arc<Notify>,
    ) -> Self {
        let (serial, named, next) = (1, Named::new(), Instant::now());
        let made = BTreeMap::new();
        Self { network, server, serial, named, made, dirty: false, next, changed }
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

    /// Takes over which addresses guests have made: those that are given by DHCPv6 as well are
    /// noted by who gives them.
    fn note_made(&mut self, made: BTreeMap<Ipv6Addr, Holder>) {
        let before = std::mem::replace(&mut self.made, made.clone());
        for address in before.keys().filter(|address| !made.contains_key(*address)) {
            self.note((*address).into(), None);
        }
        for (address, holder) in made {
            if before.get(&address) != Some(&holder) {
                self.note(address.into(), Some(holder));
            }
        }
    }

    fn publish_zone(&mut self) {
        let begun = Instant::now();
        self.serial = self.serial.wrapping_add(1);
        self.server.set_zone(zone(&self.network, &self.named, self.serial));
        self.dirty = false;
        self.next = begun + begun.elapsed() * PUBLISHING_SHARE;
    }
}

/// Publishes the names of addresses that guests have made, at once or as soon as that may be.
pub(super) fn publish_made(zones: &Arc<Mutex<Zones>>, made: BTreeMap<Ipv6Addr, Holder>) {
    let publish =
        |zones: &Mutex<Zones>| zones.lock().unwrap_or_else(PoisonError::into_inner).publish();
    zones.lock().unwrap_or_else(PoisonError::into_inner).note_made(made);
    let Some(next) = publish(zones) else { return };
    let zones = Arc::downgrade(zones);
    tokio::spawn(async move {
        tokio::time::sleep_until(next).await;
        // Somebody else may have published meanwhile, and put the next off.
        if let Some(zones) = zones.upgrade() {
            publish(&zones);
        }
    });
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
    for (domain, servers) in &network.dns.split {
        builder = if servers.is_empty() {
            builder.unforwarded(domain.clone())
        } else {
            builder.forwarded(domain.clone())
        };
    }
    // Guests choose names too: what they can repeat is no warning.
    let note = |result: Result<(), ZoneError>| {
        if let Err(error) = result {
            tracing::debug!("network {}: left out of the DNS: {error}", network.name);
        }
    };
    for (name, target) in &network.dns.cname {
        note(builder.cname(name, target));
    }
    for (name, texts) in &network.dns.txt {
        texts.iter().for_each(|text| note(builder.txt(name, text)));
    }
    for (name, exchangers) in &network.dns.mx {
        exchangers.iter().for_each(|mx| note(builder.mx(name, mx)));
    }
    for (name, services) in &network.dns.srv {
        services.iter().for_each(|srv| note(builder.srv(name, srv)));
    }
    let mut insert = |name: &DnsName, address: IpAddr| note(builder.insert(name, address));
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
