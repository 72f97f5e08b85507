//! The making of a [`Zone`].

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record};
use ipnet::Ipv6Net;
use vnet_types::{DnsName, Subnet};

use super::{GATEWAY_LABEL, HOST_TTL, Node, Zone, ancestors, apex, reverse_name};
use crate::name::Key;

/// Why a name cannot be put into a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// The name and the domain are longer than a name can be (RFC 1035 §2.3.4).
    #[error("`{name}.{domain}` is longer than 253 characters: choose a shorter name")]
    TooLong {
        /// As given.
        name: DnsName,
        /// The zone's domain.
        domain: DnsName,
    },
    /// The gateway's name is not a guest's to have.
    #[error("`{name}` is the gateway's own name: choose another one")]
    Gateway {
        /// As given.
        name: DnsName,
    },
    /// Not a host's address.
    #[error("{addr} cannot be the address of `{name}`: it is no host's address")]
    Address {
        /// As given.
        name: DnsName,
        /// As given.
        addr: IpAddr,
    },
}

/// Collects names and addresses for a [`Zone`].
#[derive(Debug, Clone)]
pub struct ZoneBuilder {
    domain: DnsName,
    subnet: Subnet,
    serial: u32,
    prefixes: Vec<Ipv6Net>,
    gateway6: Option<Ipv6Addr>,
    unforwarded: Vec<DnsName>,
    hosts: Vec<(DnsName, bool, IpAddr)>,
}

impl ZoneBuilder {
    pub(super) fn new(domain: DnsName, subnet: Subnet) -> Self {
        Self {
            domain,
            subnet,
            serial: 1,
            prefixes: Vec::new(),
            gateway6: None,
            unforwarded: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// Sets the serial number of the SOA records; 1 where it is not set.
    #[must_use]
    pub fn serial(mut self, serial: u32) -> Self {
        self.serial = serial;
        self
    }

    /// Adds an IPv6 prefix of the network, whose reverse names become ours. Unique local prefixes
    /// need not be added: their reverse names always are (RFC 6303 §4.4).
    #[must_use]
    pub fn prefix6(mut self, prefix: Ipv6Net) -> Self {
        self.prefixes.push(prefix.trunc());
        self
    }

    /// The gateway's IPv6 address, which its name has as well.
    #[must_use]
    pub fn gateway6(mut self, address: Ipv6Addr) -> Self {
        self.gateway6 = Some(address);
        self
    }

    /// Names a domain, such as `vnet`, in which nothing exists but this zone, so that names of
    /// other networks are never sent to anybody.
    #[must_use]
    pub fn unforwarded(mut self, domain: DnsName) -> Self {
        self.unforwarded.push(domain);
        self
    }

    /// Adds an address of a host. `name` is taken relative to the network's domain, unless it ends
    /// in that domain already. A name may have several addresses; the first name of an address is
    /// the one that its PTR record gives.
    ///
    /// # Errors
    /// The name is the gateway's, or too long with the domain; the address is no host's.
    pub fn insert(&mut self, name: &DnsName, addr: IpAddr) -> Result<(), ZoneError> {
        let relative = self.relative(name);
        if relative.as_str().eq_ignore_ascii_case(GATEWAY_LABEL) {
            return Err(ZoneError::Gateway { name: name.clone() });
        }
        if addr.is_unspecified()
            || addr.is_multicast()
            || matches!(addr, IpAddr::V4(v4) if v4.is_broadcast())
        {
            return Err(ZoneError::Address { name: name.clone(), addr });
        }
        if relative.as_str().len() + 1 + self.domain.as_str().len() > 253 {
            return Err(ZoneError::TooLong { name: relative, domain: self.domain.clone() });
        }
        let bare = !relative.as_str().contains('.');
        self.hosts.push((relative, bare, addr));
        Ok(())
    }

    /// The zone.
    #[must_use]
    pub fn build(self) -> Zone {
        let domain = absolute(self.domain.as_str());
        let server = absolute(&format!("{GATEWAY_LABEL}.{}", self.domain));
        let mut zone = Zone {
            domain: self.domain.clone(),
            subnet: self.subnet,
            cuts: HashMap::new(),
            nodes: HashMap::new(),
            plain: HashMap::new(),
            hosts: 0,
        };
        let within = (self.subnet.prefix_len() > 24).then_some(self.subnet);
        for unforwarded in &self.unforwarded {
            zone.add_cut(&absolute(unforwarded.as_str()), &server, self.serial, None);
        }
        zone.add_cut(&domain, &server, self.serial, None);
        for apex in reverse_cuts(self.subnet) {
            zone.add_cut(&apex, &server, self.serial, within);
        }
        for prefix in &self.prefixes {
            for apex in reverse_cuts6(*prefix) {
                zone.add_cut(&apex, &server, self.serial, None);
            }
        }
        let mut named = HashSet::new();
        let gateways = [Some(self.subnet.gateway().into()), self.gateway6.map(IpAddr::V6)];
        for gateway in gateways.into_iter().flatten() {
            zone.add_host(&server, &absolute(GATEWAY_LABEL), true, gateway);
            named.insert(gateway);
            zone.add_ptr(gateway, &server);
        }
        for (name, bare, addr) in &self.hosts {
            let full = absolute(&format!("{name}.{}", self.domain));
            zone.add_host(&full, &absolute(name.as_str()), *bare, *addr);
            if named.insert(*addr) {
                zone.add_ptr(*addr, &full);
            }
        }
        zone
    }

    /// `name` without the network's domain at its end.
    fn relative(&self, name: &DnsName) -> DnsName {
        let (text, domain) = (name.as_str(), self.domain.as_str());
        text.len()
            .checked_sub(domain.len() + 1)
            .filter(|&at| at > 0 && text[at + 1..].eq_ignore_ascii_case(domain))
            .filter(|&at| text.as_bytes()[at] == b'.')
            .and_then(|at| text[..at].parse().ok())
            .unwrap_or_else(|| name.clone())
    }
}

impl Zone {
    fn add_cut(&mut self, name: &Name, server: &Name, serial: u32, within: Option<Subnet>) {
        let (cut, node) = apex(name, server, serial, within);
        // The apex of a cut that is wider than what is ours is not ours to describe.
        if within.is_none() {
            let at = ancestors(&mut self.nodes, name);
            node.sets.into_iter().flat_map(|(_, records)| records).for_each(|r| at.add(r));
        }
        self.cuts.insert(Key::new(name).as_bytes().into(), cut);
    }

    fn add_host(&mut self, full: &Name, plain: &Name, bare: bool, addr: IpAddr) {
        let node = ancestors(&mut self.nodes, full);
        let has = |node: &Node| node.sets.iter().any(|(rtype, _)| rtype.is_ip_addr());
        self.hosts += usize::from(!has(node));
        node.add(address(full, addr));
        if bare && !plain.is_localhost() {
            let key = Key::new(plain);
            self.plain.entry(key.as_bytes().into()).or_default().add(address(plain, addr));
        }
    }

    /// Where the reverse name is not ours, nobody ever asks this node for it.
    fn add_ptr(&mut self, addr: IpAddr, to: &Name) {
        let name = reverse_name(addr);
        let ptr = Record::from_rdata(name.clone(), HOST_TTL, RData::PTR(PTR(to.clone())));
        ancestors(&mut self.nodes, &name).add(ptr);
    }
}

fn address(name: &Name, addr: IpAddr) -> Record {
    let data = match addr {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Record::from_rdata(name.clone(), HOST_TTL, data)
}

/// The text of a validated [`DnsName`], or of two whose joined length was checked, as a name.
fn absolute(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap_or_default();
    name.set_fqdn(true);
    name
}

/// The names below `in-addr.arpa` that cover the subnet at the next octet (RFC 1035 §3.5): 128 at
/// most, for a /9.
fn reverse_cuts(subnet: Subnet) -> Vec<Name> {
    let octets = subnet.prefix_len().div_ceil(8).min(3);
    let step = 1_u32 << (32 - 8 * u32::from(octets));
    let count = 1_u32 << (8 * octets).saturating_sub(subnet.prefix_len());
    let first = u32::from(subnet.net().network());
    (0..count)
        .map(|index| {
            let addr = Ipv4Addr::from(first.wrapping_add(index.wrapping_mul(step)));
            reverse_name(addr.into()).trim_to(usize::from(octets) + 2)
        })
        .collect()
}

/// The names below `ip6.arpa` that cover the prefix at the next nibble (RFC 3596 §2.5): 8 at most.
fn reverse_cuts6(prefix: Ipv6Net) -> Vec<Name> {
    let nibbles = prefix.prefix_len().div_ceil(4).max(1);
    let step = 1_u128 << (128 - 4 * u32::from(nibbles));
    let count = 1_u128 << (4 * nibbles - prefix.prefix_len()).min(3);
    let first = u128::from(prefix.network());
    (0..count)
        .map(|index| {
            let addr = Ipv6Addr::from(first.wrapping_add(index.wrapping_mul(step)));
            reverse_name(addr.into()).trim_to(usize::from(nibbles) + 2)
        })
        .collect()
}
