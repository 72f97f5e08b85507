//! Where forwards lead at the moment.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use vnet_types::{DnsName, MacAddr, NetworkDefinition, TargetHost};

use crate::firewall::Published;
use crate::{Alias, LinkKind, Observed};

/// The guests that a network's forwards name, as they are written there, and their addresses.
pub type Addresses = BTreeMap<DnsName, Ipv4Addr>;

/// A guest that has a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its network card.
    pub mac: MacAddr,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The name that the DHCP server has let it have.
    pub hostname: Option<DnsName>,
}

/// Where the guests are that the forwards of `network` name. One that has no address is left out:
/// nothing is published for it until it has.
///
/// A name is, in this order: that of a domain with a port on the network, a reservation's, an
/// entry of `dns.hosts`, or a lease's. What a guest calls itself comes last, so that it cannot take
/// what another one is known to be.
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
            let address = by_port(short, network, tenants, observed)
                .or_else(|| by_reservation(is, network))
                .or_else(|| by_host(is, network))
                .or_else(|| {
                    let named = |t: &&Tenant| t.hostname.as_ref().is_some_and(is);
                    tenants.iter().find(named).map(|tenant| tenant.ip)
                })?;
            let fits = network.subnet.guests().contains(address);
            fits.then(|| (name.clone(), address))
        })
        .collect()
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

fn by_port(
    name: &str,
    network: &NetworkDefinition,
    tenants: &[Tenant],
    observed: &Observed,
) -> Option<Ipv4Addr> {
    observed.links.values().filter(|link| link.kind == LinkKind::Tun).find_map(|link| {
        let Ok(Alias::Port { network: on, domain, mac, .. }) = link.alias.as_deref()?.parse()
        else {
            return None;
        };
        if on != network.name || !domain.as_str().eq_ignore_ascii_case(name) {
            return None;
        }
        tenants.iter().find(|tenant| tenant.mac == mac).map(|tenant| tenant.ip)
    })
}

fn by_reservation(is: impl Fn(&DnsName) -> bool, network: &NetworkDefinition) -> Option<Ipv4Addr> {
    let mut reservations = network.dhcp.iter().flat_map(|dhcp| &dhcp.reservations);
    let named = reservations.find(|reservation| reservation.hostname.as_ref().is_some_and(&is));
    named.map(|reservation| reservation.ip)
}

fn by_host(is: impl Fn(&DnsName) -> bool, network: &NetworkDefinition) -> Option<Ipv4Addr> {
    let (_, addresses) = network.dns.hosts.iter().find(|(name, _)| is(name))?;
    addresses.iter().find_map(|address| match address {
        std::net::IpAddr::V4(address) => Some(*address),
        std::net::IpAddr::V6(_) => None,
    })
}

/// The forwards of `network` whose guests have an address.
pub(crate) fn published(
    network: &NetworkDefinition,
    addresses: Option<&Addresses>,
) -> Vec<Published> {
    let publish = |forward: &vnet_types::Forward| {
        let to = match &forward.target.host {
            TargetHost::Address(address) => *address,
            TargetHost::Name(name) => *addresses?.get(name)?,
        };
        let first = forward.target_ports().first();
        Some(Published { listen: forward.listen(), to, first })
    };
    network.forwards.iter().filter_map(publish).collect()
}

/// Whether the host reaches a guest of `network` at a loopback address of its own.
pub(crate) fn uses_loopback(network: &NetworkDefinition) -> bool {
    network.forwards.iter().any(|forward| forward.listen().has_loopback())
}
