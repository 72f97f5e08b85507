//! What one network's DNS server knows by itself. Pure: no sockets, no clock.
//!
//! A [`Zone`] is built once ([`Zone::builder`]), never changed, and swapped for the next one when
//! a lease changes; a query reads it without a lock. Internally it is a set of *cuts* (the names
//! at which an authority of ours begins, or ends again) and a map of *nodes* (the names that
//! exist). A lookup finds the closest cut above the name, or leaves the name to the upstreams;
//! below a cut the node decides: records, an empty answer (RFC 2308 §2.2), or, where there is no
//! node, NXDOMAIN (§2.1). Every ancestor of a node up to its cut is a node as well, so NXDOMAIN
//! always means that there is nothing beneath (RFC 8020 §2).

mod builder;
mod record;
mod special;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use vnet_types::{DnsName, Subnet};

use crate::name::{self, Key};
use crate::wire::rtype;

pub use builder::{ZoneBuilder, ZoneError};
pub(crate) use record::{RECORD_HEAD, RrSet, Soa};

/// Seconds for which a guest's records may be cached: short, because a guest that moved or was
/// made anew has another address at once.
pub const HOST_TTL: u32 = 30;

/// Seconds for which the absence of a name may be cached (RFC 2308 §5): shorter still, because a
/// person asks for a guest before it is up.
pub const NEGATIVE_TTL: u32 = 5;

/// The gateway's label in the network's domain.
pub const GATEWAY_LABEL: &str = "gateway";

/// What one network's DNS server knows by itself.
#[derive(Debug, Clone)]
pub struct Zone {
    domain: DnsName,
    subnet: Subnet,
    cuts: HashMap<Box<[u8]>, Cut>,
    nodes: HashMap<Box<[u8]>, Node>,
    /// Guests by their bare names, `web.`
    plain: HashMap<Box<[u8]>, Node>,
    hosts: usize,
}

/// The answer of a [`Zone`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer<'z> {
    /// The records of that name and type.
    Records(&'z RrSet),
    /// The name is another name's alias: its CNAME record.
    Alias(&'z RrSet),
    /// The name exists, with other types or as a parent of names; the SOA record says for how long
    /// this may be cached.
    NoData(&'z Soa),
    /// The name does not exist, and nothing beneath it.
    NxDomain(&'z Soa),
    /// Somebody else's name: ask upstream.
    NotOurs,
}

/// Where an authority of ours begins.
#[derive(Debug, Clone)]
enum Cut {
    /// We know all that is there.
    Ours {
        soa: Soa,
        /// Only the addresses of this subnet are ours; the cut is wider (RFC 1035 §3.5 cuts at
        /// octets).
        within: Option<Subnet>,
        /// Whether a validator is to be told by the parent's servers that it is not signed.
        delegated: bool,
    },
    /// Others know what is there, though it is below an authority of ours.
    Elsewhere,
}

/// A name that exists; one without records is an empty non-terminal (RFC 8020 §1).
#[derive(Debug, Clone, Default)]
struct Node {
    sets: Vec<RrSet>,
}

impl Node {
    fn get(&self, kind: u16) -> Option<Answer<'_>> {
        if kind == rtype::ANY {
            // RFC 8482 §4.1: one of the sets answers ANY.
            return self.sets.first().map(Answer::Records);
        }
        let set = |kind| self.sets.iter().find(|set| set.rtype == kind);
        // RFC 1034 §3.6.2: an alias has no other types.
        set(kind).map(Answer::Records).or_else(|| set(rtype::CNAME).map(Answer::Alias))
    }

    fn has(&self, kind: u16) -> bool {
        self.sets.iter().any(|set| set.rtype == kind)
    }

    fn add(&mut self, kind: u16, ttl: u32, data: &[u8]) {
        match self.sets.iter_mut().find(|set| set.rtype == kind) {
            Some(set) => set.add(ttl, data),
            None => self.sets.push(RrSet::new(kind, ttl, data)),
        }
    }
}

impl Zone {
    /// Begins a zone: the network's domain and its subnet, whose first address is known as
    /// `gateway.DOMAIN`.
    #[must_use]
    pub fn builder(domain: DnsName, subnet: Subnet) -> ZoneBuilder {
        ZoneBuilder::new(domain, subnet)
    }

    /// The network's domain.
    #[must_use]
    pub fn domain(&self) -> &DnsName {
        &self.domain
    }

    /// The network's subnet.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// How many names have an address, the gateway's included.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.hosts
    }

    /// What is known about a name and a type in class IN.
    pub(crate) fn lookup(&self, key: &Key, kind: u16) -> Answer<'_> {
        let special = &*special::SPECIAL;
        if key.labels() == 1
            && let Some(node) = self.plain.get(key.as_bytes())
        {
            return node.get(kind).unwrap_or(Answer::NoData(&special.root_soa));
        }
        let Some((apex, cut)) = self.cut(key) else {
            // RFC 8020 would let NXDOMAIN for a top-level name hide all that is beneath; but a
            // bare name is asked for addresses by people only, and it must not leak.
            return if key.labels() == 1 && !special::is_infrastructure(kind) {
                Answer::NxDomain(&special.root_soa)
            } else {
                Answer::NotOurs
            };
        };
        let Cut::Ours { soa, delegated, .. } = cut else { return Answer::NotOurs };
        if *delegated && kind == rtype::DS && apex == key.as_bytes() {
            return Answer::NotOurs;
        }
        if apex == b"\x09localhost" {
            return special.localhost.get(kind).unwrap_or(Answer::NoData(soa));
        }
        let nodes = [&self.nodes, &special.nodes].map(|nodes| nodes.get(key.as_bytes()));
        if let Some(answer) = nodes.iter().flatten().find_map(|node| node.get(kind)) {
            answer
        } else if nodes.iter().any(Option::is_some) {
            Answer::NoData(soa)
        } else {
            Answer::NxDomain(soa)
        }
    }

    /// The closest cut at or above `key`, and its name.
    fn cut<'z, 'k>(&'z self, key: &'k Key) -> Option<(&'k [u8], &'z Cut)> {
        let special = &*special::SPECIAL;
        key.suffixes().find_map(|suffix| {
            let ours = self.cuts.get(suffix).filter(|cut| match cut {
                Cut::Ours { within: Some(subnet), .. } => {
                    name::reverse_v4(key.as_bytes()).is_some_and(|addr| subnet.contains(addr))
                }
                _ => true,
            });
            ours.or_else(|| special.cuts.get(suffix)).map(|cut| (suffix, cut))
        })
    }
}

/// The data of a zone's SOA record, and the record. `server` is the name of the name server.
fn soa(apex: &str, server: &str, serial: u32) -> (Vec<u8>, Soa) {
    // RFC 6303 §3 names nobody.invalid for zones without an administrator.
    let mut data = [name::wire(server), name::wire("nobody.invalid")].concat();
    for number in [serial, 3600, 1200, 604_800, NEGATIVE_TTL] {
        data.extend_from_slice(&number.to_be_bytes());
    }
    let soa = Soa::new(apex, &data, NEGATIVE_TTL);
    (data, soa)
}

/// A cut and the node at it.
fn apex(apex: &str, server: &str, serial: u32, within: Option<Subnet>) -> (Cut, Node) {
    let (data, soa) = soa(apex, server, serial);
    let mut node = Node::default();
    node.add(rtype::SOA, NEGATIVE_TTL, &data);
    node.add(rtype::NS, HOST_TTL, &name::wire(server));
    (Cut::Ours { soa, within, delegated: false }, node)
}

/// The node of the name with this key, made with all its ancestors where it is missing.
fn ancestors(nodes: &mut HashMap<Box<[u8]>, Node>, key: Box<[u8]>) -> &mut Node {
    for suffix in name::suffixes(&key).skip(1) {
        if nodes.contains_key(suffix) {
            break;
        }
        nodes.insert(suffix.into(), Node::default());
    }
    nodes.entry(key).or_default()
}
