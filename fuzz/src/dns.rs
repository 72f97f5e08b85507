//! What the targets of DNS share.

use vnet_dns::zone::{Zone, ZoneBuilder};
use vnet_types::NetworkDefinition;

/// A network on which the fuzzer is a guest.
#[must_use]
pub fn dns_network() -> NetworkDefinition {
    NetworkDefinition {
        subnet: "10.0.0.0/24".parse().unwrap(),
        domain: "lab.vnet".parse().unwrap(),
        dhcp: None,
        ..crate::network()
    }
}

/// What it knows: a guest with many addresses, one with few, and one of IPv6.
#[must_use]
pub fn dns_zone() -> ZoneBuilder {
    let network = dns_network();
    let mut zone =
        Zone::builder(network.domain, network.subnet).unforwarded("vnet".parse().unwrap());
    let mut insert = |name: &str, addr: String| {
        zone.insert(&name.parse().unwrap(), addr.parse().unwrap()).unwrap();
    };
    (2..200).for_each(|octet| insert("many", format!("10.0.0.{octet}")));
    insert("web", "10.0.0.9".into());
    insert("web", "fd00::9".into());
    insert("a.deep.name", "10.0.0.10".into());
    zone
}
