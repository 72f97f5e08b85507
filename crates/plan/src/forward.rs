//! Where forwards lead at the moment.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vnet_types::{DnsName, MacAddr, NetworkDefinition, TargetHost};

use crate::firewall::Published;
use crate::{Alias, LinkKind, Observed};

/// The guests that a network's forwards name, as they are written there, and their addresses.
pub type Addresses = BTreeMap<DnsName, GuestAddresses>;

/// The addresses of one guest: one of either sort at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuestAddresses {
    /// In IPv4.
    pub v4: Option<Ipv4Addr>,
    /// In IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// A guest that has a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its network card.
    pub mac: MacAddr,
    /// Its address.
    pub ip: IpAddr,
    /// The name that the DHCP server has let it have.
    pub hostname: Option<DnsName>,
}

/// Where the guests are that the forwards of `network` name. One that has no address is left out:
/// nothing is published for it until it has.
///
/// A name is, in this order: that of a domain with a port on the network, a reservation's, an
/// entry of `dns.hosts`, or a lease's. What a guest calls itself comes last, so that it cannot take
/// what another one is known to be. A guest that is known by its card has all that this card has,
/// in IPv4 and in IPv6.
#[must_use]
pub fn addresses(
    network: &NetworkDefinition,
    tenants: &[Tenant],
    observed: &Observed,
) -> Addresses {
    let names = network.forwards.iter().filter_map(|forward| forward.target_name());
    names
        .filter_map(|name| {
            let short = short_name(name, network);
            let is = |other: &DnsName| short_name(other, network).eq_ignore_ascii_case(short);
            let card = by_port(short, network, observed)
                .filter(|mac| tenants.iter().any(|tenant| tenant.mac == *mac))
                .or_else(|| by_reservation(is, network));
            let host = by_identifier(is, network).or_else(|| by_host(is, network));
            let found = match (card, host) {
                (Some(mac), _) => of_card(mac, network, tenants),
                (None, Some(host)) => host,
                (None, None) => {
                    let named = |t: &&Tenant| t.hostname.as_ref().is_some_and(is);
                    of_card(tenants.iter().find(named)?.mac, network, tenants)
                }
            };
            let found = fitting(found, network);
            (found != GuestAddresses::default()).then(|| (name.clone(), found))
        })
        .collect()
}

/// Only what is on the network.
fn fitting(found: GuestAddresses, network: &NetworkDefinition) -> GuestAddresses {
    let prefix = network.ipv6.as_ref().map(|ipv6| ipv6.prefix.guests());
    GuestAddresses {
        v4: found.v4.filter(|address| network.subnet.guests().contains(*address)),
        v6: found.v6.filter(|address| prefix.is_some_and(|guests| guests.contains(*address))),
    }
}

/// What the network card has: by lease, or else what is reserved for it.
fn of_card(mac: MacAddr, network: &NetworkDefinition, tenants: &[Tenant]) -> GuestAddresses {
    let leases = tenants.iter().filter(|tenant| tenant.mac == mac).map(|tenant| tenant.ip);
    let mut reserved = network.dhcp.iter().flat_map(|dhcp| &dhcp.reservations);
    let mut reserved6 = network.ipv6.iter().flat_map(|ipv6| &ipv6.reservations);
    let (v4, v6) = split(leases);
    GuestAddresses {
        v4: v4.or_else(|| reserved.find(|one| one.mac == Some(mac)).map(|one| one.ip)),
        v6: v6.or_else(|| reserved6.find(|one| one.mac == mac).map(|one| one.ip)),
    }
}

/// The name without the network's own domain.
fn short_name<'a>(name: &'a DnsName, network: &NetworkDefinition) -> &'a str {
    let (name, domain) = (name.as_str(), network.domain.as_str());
    let Some(at) = name.len().checked_sub(domain.len() + 1) else { return name };
    match (name.get(..at), name.get(at..at + 1), name.get(at + 1..)) {
        (Some(short), Some("."), Some(rest)) if rest.eq_ignore_ascii_case(domain) => short,
        _ => name,
    }
}

fn by_port(name: &str, network: &NetworkDefinition, observed: &Observed) -> Option<MacAddr> {
    let ports = observed.links.iter().filter(|(_, link)| link.kind == LinkKind::Tun);
    ports.map(|(_, link)| &link.alias).find_map(|alias| {
        let Some(Alias::Port { network: on, domain, mac, .. }) = alias else { return None };
        (*on == network.name && domain.as_str().eq_ignore_ascii_case(name)).then_some(*mac)
    })
}

fn by_reservation(is: impl Fn(&DnsName) -> bool, network: &NetworkDefinition) -> Option<MacAddr> {
    let named = |name: &Option<DnsName>| name.as_ref().is_some_and(&is);
    let mut all = network.dhcp.iter().flat_map(|dhcp| &dhcp.reservations);
    let mut all6 = network.ipv6.iter().flat_map(|ipv6| &ipv6.reservations);
    let mac = all.find(|one| named(&one.hostname)).and_then(|one| one.mac);
    mac.or_else(|| all6.find(|one| named(&one.hostname)).map(|one| one.mac))
}

/// The address of a guest whose reservation names no card.
fn by_identifier(
    is: impl Fn(&DnsName) -> bool,
    network: &NetworkDefinition,
) -> Option<GuestAddresses> {
    let mut all = network.dhcp.iter().flat_map(|dhcp| &dhcp.reservations);
    let one = all.find(|one| one.mac.is_none() && one.hostname.as_ref().is_some_and(&is))?;
    Some(GuestAddresses { v4: Some(one.ip), v6: None })
}

fn by_host(is: impl Fn(&DnsName) -> bool, network: &NetworkDefinition) -> Option<GuestAddresses> {
    let (_, addresses) = network.dns.hosts.iter().find(|(name, _)| is(name))?;
    let (v4, v6) = split(addresses.iter().copied());
    Some(GuestAddresses { v4, v6 })
}
/// The forwards of `network` whose guests have an address, each once for IPv4 and once for IPv6 as
/// far as the host listens there and the guest has one.
pub(crate) fn published(
    network: &NetworkDefinition,
    addresses: Option<&Addresses>,
) -> Vec<Published> {
    let publish = |forward: &vnet_types::Forward| {
        let listen = forward.listen();
        let GuestAddresses { v4, v6 } = match &forward.target.host {
            TargetHost::Address(IpAddr::V4(v4)) => GuestAddresses { v4: Some(*v4), v6: None },
            TargetHost::Address(IpAddr::V6(v6)) => GuestAddresses { v4: None, v6: Some(*v6) },
            TargetHost::Name(name) => {
                addresses.and_then(|known| known.get(name)).copied().unwrap_or_default()
            }
        };
        let v4 = v4.filter(|_| listen.takes_v4()).map(IpAddr::V4);
        let v6 = v6.filter(|_| listen.takes_v6()).map(IpAddr::V6);
        let first = forward.target_ports().first();
        [v4, v6].into_iter().flatten().map(move |to| Published { listen, to, first })
    };
    network.forwards.iter().flat_map(publish).collect()
}

/// Whether the host reaches a guest of `network` at a loopback address of its own.
pub(crate) fn uses_loopback(network: &NetworkDefinition) -> bool {
    network.forwards.iter().any(|forward| forward.listen().has_loopback())
}

/// The first address of either sort.
fn split(all: impl Iterator<Item = IpAddr>) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    all.fold((None, None), |(v4, v6), address| match address {
        IpAddr::V4(address) => (v4.or(Some(address)), v6),
        IpAddr::V6(address) => (v4, v6.or(Some(address))),
    })
}
