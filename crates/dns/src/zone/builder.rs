//! The making of a [`Zone`].

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;
use vnet_types::{DnsName, Mx, RecordName, Srv, Subnet};

use super::{Cut, GATEWAY_LABEL, HOST_TTL, Node, Zone, ancestors, apex};
use crate::name::{self, key_of, reverse};
use crate::wire::rtype;

/// Why something cannot be put into a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// The name and the domain are longer than a name can be (RFC 1035 §2.3.4).
    #[error("`{name}.{domain}` is longer than 253 characters: choose a shorter name")]
    TooLong {
        /// As given.
        name: String,
        /// The zone's domain.
        domain: DnsName,
    },
    /// The gateway's name is not a guest's to have.
    #[error("`{name}` is the gateway's own name: choose another one")]
    Gateway {
        /// As given.
        name: String,
    },
    /// Not a host's address.
    #[error("{addr} cannot be the address of `{name}`: it is no host's address")]
    Address {
        /// As given.
        name: DnsName,
        /// As given.
        addr: IpAddr,
    },
    /// The name is an alias, which has nothing else (RFC 1034 §3.6.2), or has something already.
    #[error("`{name}` cannot be an alias and something else as well: choose another name")]
    Alias {
        /// As given.
        name: String,
    },
}

/// Collects names and records for a [`Zone`].
#[derive(Debug, Clone)]
pub struct ZoneBuilder {
    domain: DnsName,
    subnet: Subnet,
    serial: u32,
    prefixes: Vec<Ipv6Net>,
    gateway6: Option<Ipv6Addr>,
    unforwarded: Vec<DnsName>,
    forwarded: Vec<DnsName>,
    hosts: Vec<(DnsName, bool, IpAddr)>,
    /// The keys of the hosts' full names.
    named: HashSet<Box<[u8]>>,
    /// The full names and the data of all other records.
    records: Vec<(String, u16, Vec<u8>)>,
    aliases: HashSet<Box<[u8]>>,
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
            forwarded: Vec::new(),
            hosts: Vec::new(),
            named: HashSet::new(),
            records: Vec::new(),
            aliases: HashSet::new(),
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

    /// Names a domain that others know, even where it is below a special name, such as
    /// `168.192.in-addr.arpa` or `corp.local`.
    #[must_use]
    pub fn forwarded(mut self, domain: DnsName) -> Self {
        self.forwarded.push(domain);
        self
    }

    /// Adds an address of a host. `name` is taken relative to the network's domain, unless it ends
    /// in that domain already. A name may have several addresses; the first name of an address is
    /// the one that its PTR record gives.
    ///
    /// # Errors
    /// The name is the gateway's, an alias, or too long with the domain; the address is no host's.
    pub fn insert(&mut self, name: &DnsName, addr: IpAddr) -> Result<(), ZoneError> {
        let relative = self.relative(name.as_str());
        let (bare, full) = (!relative.contains('.'), self.full(relative)?);
        if addr.is_unspecified()
            || addr.is_multicast()
            || matches!(addr, IpAddr::V4(v4) if v4.is_broadcast())
        {
            return Err(ZoneError::Address { name: name.clone(), addr });
        }
        let key = key_of(&full);
        if self.aliases.contains(&key) {
            return Err(ZoneError::Alias { name: name.to_string() });
        }
        let relative = relative.parse().unwrap_or_else(|_| name.clone());
        self.named.insert(key);
        self.hosts.push((relative, bare, addr));
        Ok(())
    }

    /// Adds an alias (RFC 1035 §3.3.1). A target without a dot is in the network's domain.
    ///
    /// # Errors
    /// The name is the gateway's, or has something else already.
    pub fn cname(&mut self, name: &RecordName, target: &DnsName) -> Result<(), ZoneError> {
        let full = self.owner(name)?;
        let key = key_of(&full);
        let taken = self.named.contains(&key)
            || full.eq_ignore_ascii_case(self.domain.as_str())
            || self.records.iter().any(|(other, ..)| other.eq_ignore_ascii_case(&full));
        if taken {
            return Err(ZoneError::Alias { name: name.to_string() });
        }
        self.aliases.insert(key);
        self.records.push((full, rtype::CNAME, self.target(target)));
        Ok(())
    }

    /// Adds a text (RFC 1035 §3.3.14), in strings of 255 bytes at most.
    ///
    /// # Errors
    /// The name is the gateway's, or an alias.
    pub fn txt(&mut self, name: &RecordName, text: &str) -> Result<(), ZoneError> {
        let mut data = Vec::with_capacity(text.len() + 1);
        let mut chunks = text.as_bytes().chunks(255).peekable();
        if chunks.peek().is_none() {
            data.push(0);
        }
        for chunk in chunks {
            data.push(chunk.len() as u8);
            data.extend_from_slice(chunk);
        }
        self.record(name, rtype::TXT, data)
    }

    /// Adds a mail exchanger (RFC 1035 §3.3.9).
    ///
    /// # Errors
    /// As for [`ZoneBuilder::txt`].
    pub fn mx(&mut self, name: &RecordName, mx: &Mx) -> Result<(), ZoneError> {
        let data = [mx.preference.to_be_bytes().to_vec(), self.target(&mx.target)].concat();
        self.record(name, rtype::MX, data)
    }

    /// Adds where a service is (RFC 2782).
    ///
    /// # Errors
    /// As for [`ZoneBuilder::txt`].
    pub fn srv(&mut self, name: &RecordName, srv: &Srv) -> Result<(), ZoneError> {
        let numbers = [srv.priority, srv.weight, srv.port];
        let mut data: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        data.extend(self.target(&srv.target));
        self.record(name, rtype::SRV, data)
    }

    fn record(&mut self, name: &RecordName, kind: u16, data: Vec<u8>) -> Result<(), ZoneError> {
        let full = self.owner(name)?;
        if self.aliases.contains(&key_of(&full)) {
            return Err(ZoneError::Alias { name: name.to_string() });
        }
        self.records.push((full, kind, data));
        Ok(())
    }

    /// The zone.
    #[must_use]
    pub fn build(self) -> Zone {
        let domain = self.domain.as_str();
        let server = format!("{GATEWAY_LABEL}.{domain}");
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
            zone.add_cut(unforwarded.as_str(), &server, self.serial, None);
        }
        for forwarded in &self.forwarded {
            zone.cuts.insert(key_of(forwarded.as_str()), Cut::Elsewhere);
        }
        zone.add_cut(domain, &server, self.serial, None);
        for apex in reverse_cuts(self.subnet) {
            zone.add_cut(&apex, &server, self.serial, within);
        }
        for apex in self.prefixes.iter().flat_map(|prefix| reverse_cuts6(*prefix)) {
            zone.add_cut(&apex, &server, self.serial, None);
        }
        let mut named = HashSet::new();
        let gateways = [Some(self.subnet.gateway().into()), self.gateway6.map(IpAddr::V6)];
        for gateway in gateways.into_iter().flatten() {
            zone.add_host(&server, GATEWAY_LABEL, true, gateway);
            named.insert(gateway);
            zone.add_ptr(gateway, &server);
        }
        for (name, bare, addr) in &self.hosts {
            let full = format!("{name}.{domain}");
            zone.add_host(&full, name.as_str(), *bare, *addr);
            if named.insert(*addr) {
                zone.add_ptr(*addr, &full);
            }
        }
        for (full, kind, data) in &self.records {
            ancestors(&mut zone.nodes, key_of(full)).add(*kind, HOST_TTL, data);
            let bare = self.relative(full);
            if *kind == rtype::CNAME && !bare.contains('.') {
                zone.plain.entry(key_of(bare)).or_default().add(*kind, HOST_TTL, data);
            }
        }
        zone
    }

    /// `name` without the network's domain at its end.
    fn relative<'n>(&self, name: &'n str) -> &'n str {
        let domain = self.domain.as_str();
        let at = name.len().checked_sub(domain.len() + 1).filter(|&at| at > 0);
        match at.and_then(|at| name.split_at_checked(at)) {
            Some((relative, rest))
                if rest.strip_prefix('.').is_some_and(|rest| rest.eq_ignore_ascii_case(domain)) =>
            {
                relative
            }
            _ => name,
        }
    }

    /// The full name of one that is not the gateway's.
    fn full(&self, relative: &str) -> Result<String, ZoneError> {
        if relative.eq_ignore_ascii_case(GATEWAY_LABEL) {
            return Err(ZoneError::Gateway { name: relative.to_owned() });
        }
        let full = format!("{relative}.{}", self.domain);
        if full.len() > 253 {
            let (name, domain) = (relative.to_owned(), self.domain.clone());
            return Err(ZoneError::TooLong { name, domain });
        }
        Ok(full)
    }

    fn owner(&self, name: &RecordName) -> Result<String, ZoneError> {
        match name.as_str() {
            RecordName::DOMAIN => Ok(self.domain.to_string()),
            name => self.full(self.relative(name)),
        }
    }

    /// The wire form of what a record points to.
    fn target(&self, target: &DnsName) -> Vec<u8> {
        if target.as_str().contains('.') {
            name::wire(target.as_str())
        } else {
            name::wire(&format!("{target}.{}", self.domain))
        }
    }
}

impl Zone {
    fn add_cut(&mut self, name: &str, server: &str, serial: u32, within: Option<Subnet>) {
        let (cut, node) = apex(name, server, serial, within);
        // The apex of a cut that is wider than what is ours is not ours to describe.
        if within.is_none() {
            let at = ancestors(&mut self.nodes, key_of(name));
            for set in node.sets {
                set.data().for_each(|data| at.add(set.rtype, ttl_of(set.rtype), data));
            }
        }
        self.cuts.insert(key_of(name), cut);
    }

    fn add_host(&mut self, full: &str, plain: &str, bare: bool, addr: IpAddr) {
        let add = |node: &mut Node| match addr {
            IpAddr::V4(v4) => node.add(rtype::A, HOST_TTL, &v4.octets()),
            IpAddr::V6(v6) => node.add(rtype::AAAA, HOST_TTL, &v6.octets()),
        };
        let node = ancestors(&mut self.nodes, key_of(full));
        self.hosts += usize::from(!node.has(rtype::A) && !node.has(rtype::AAAA));
        add(node);
        if bare && !plain.eq_ignore_ascii_case("localhost") {
            add(self.plain.entry(key_of(plain)).or_default());
        }
    }

    /// Where the reverse name is not ours, nobody ever asks this node for it.
    fn add_ptr(&mut self, addr: IpAddr, to: &str) {
        let node = ancestors(&mut self.nodes, key_of(&reverse(addr)));
        node.add(rtype::PTR, HOST_TTL, &name::wire(to));
    }
}

fn ttl_of(kind: u16) -> u32 {
    if kind == rtype::SOA { super::NEGATIVE_TTL } else { HOST_TTL }
}

/// The names below `in-addr.arpa` that cover the subnet at the next octet (RFC 1035 §3.5): 128 at
/// most, for a /9.
fn reverse_cuts(subnet: Subnet) -> Vec<String> {
    let octets = subnet.prefix_len().div_ceil(8).min(3);
    let step = 1_u32 << (32 - 8 * u32::from(octets));
    let count = 1_u32 << (8 * octets).saturating_sub(subnet.prefix_len());
    let first = u32::from(subnet.net().network());
    let of = |index: u32| Ipv4Addr::from(first.wrapping_add(index.wrapping_mul(step)));
    (0..count).map(|index| parent(of(index).into(), 4 - usize::from(octets))).collect()
}

/// The names below `ip6.arpa` that cover the prefix at the next nibble (RFC 3596 §2.5): 8 at most.
fn reverse_cuts6(prefix: Ipv6Net) -> Vec<String> {
    let nibbles = prefix.prefix_len().div_ceil(4).max(1);
    let step = 1_u128 << (128 - 4 * u32::from(nibbles));
    let count = 1_u128 << (4 * nibbles - prefix.prefix_len()).min(3);
    let first = u128::from(prefix.network());
    let of = |index: u128| Ipv6Addr::from(first.wrapping_add(index.wrapping_mul(step)));
    (0..count).map(|index| parent(of(index).into(), 32 - usize::from(nibbles))).collect()
}

/// The reverse name of `addr` without so many labels at its beginning.
fn parent(addr: IpAddr, labels: usize) -> String {
    reverse(addr).split('.').skip(labels).collect::<Vec<_>>().join(".")
}
