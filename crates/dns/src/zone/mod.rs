//! What one network's DNS server knows by itself. Pure: no sockets, no clock.
//!
//! A [`Zone`] is built once ([`Zone::builder`]), never changed, and swapped for the next one when
//! a lease changes; a query reads it without a lock. Internally it is a set of *cuts* (the names
//! at which an authority of ours begins) and a map of *nodes* (the names that exist). A lookup
//! finds the closest cut above the name, or leaves the name to the upstreams; below a cut the
//! node decides: records, an empty answer (RFC 2308 §2.2), or, where there is no node, NXDOMAIN
//! (§2.1). Every ancestor of a node up to its cut is a node as well, so NXDOMAIN always means that
//! there is nothing beneath (RFC 8020 §2).

mod builder;
mod special;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use hickory_proto::rr::rdata::{NS, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use vnet_types::{DnsName, Subnet};

use crate::name::{self, Key};

pub use builder::{ZoneBuilder, ZoneError};

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
pub enum Answer<'z> {
    /// The records of that name and type: one at least.
    Records(Cow<'z, [Record]>),
    /// The name exists, with other types or as a parent of names; the SOA record says for how long
    /// this may be cached.
    NoData(&'z Record),
    /// The name does not exist, and nothing beneath it.
    NxDomain(&'z Record),
    /// Somebody else's name: ask upstream.
    NotOurs,
}

/// Where an authority of ours begins.
#[derive(Debug, Clone)]
struct Cut {
    soa: Record,
    /// Only the addresses of this subnet are ours; the cut is wider (RFC 1035 §3.5 cuts at octets).
    within: Option<Subnet>,
}

/// A name that exists; one without records is an empty non-terminal (RFC 8020 §1).
#[derive(Debug, Clone, Default)]
struct Node {
    sets: Vec<(RecordType, Vec<Record>)>,
}

impl Node {
    fn get(&self, rtype: RecordType) -> Option<&[Record]> {
        if rtype == RecordType::ANY {
            // RFC 8482 §4.1: one of the sets answers ANY.
            return self.sets.first().map(|(_, records)| records.as_slice());
        }
        self.sets.iter().find(|(have, _)| *have == rtype).map(|(_, records)| records.as_slice())
    }

    fn add(&mut self, record: Record) {
        let rtype = record.record_type();
        match self.sets.iter_mut().find(|(have, _)| *have == rtype) {
            Some((_, records)) if records.contains(&record) => {}
            Some((_, records)) => records.push(record),
            None => self.sets.push((rtype, vec![record])),
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

    /// What is known about `name` and `rtype` in class IN. The case of letters in `name` makes no
    /// difference (RFC 4343 §3).
    #[must_use]
    pub fn lookup(&self, name: &Name, rtype: RecordType) -> Answer<'_> {
        let special = &*special::SPECIAL;
        let key = Key::new(name);
        if key.labels() == 1
            && let Some(node) = self.plain.get(key.as_bytes())
        {
            return match node.get(rtype) {
                Some(records) => Answer::Records(Cow::Borrowed(records)),
                None => Answer::NoData(&special.root_soa),
            };
        }
        let Some((apex, cut)) = self.cut(&key) else {
            // RFC 8020 would let NXDOMAIN for a top-level name hide all that is beneath; but a
            // bare name is asked for addresses by people only, and it must not leak.
            return if key.labels() == 1 && !special::is_infrastructure(rtype) {
                Answer::NxDomain(&special.root_soa)
            } else {
                Answer::NotOurs
            };
        };
        if apex == b"\x09localhost" {
            return match special::localhost(name, rtype) {
                Some(record) => Answer::Records(Cow::Owned(vec![record])),
                None => Answer::NoData(&cut.soa),
            };
        }
        let nodes = [&self.nodes, &special.nodes].map(|nodes| nodes.get(key.as_bytes()));
        if let Some(records) = nodes.iter().flatten().find_map(|node| node.get(rtype)) {
            return Answer::Records(Cow::Borrowed(records));
        }
        if nodes.iter().any(Option::is_some) {
            Answer::NoData(&cut.soa)
        } else {
            Answer::NxDomain(&cut.soa)
        }
    }

    /// The closest cut at or above `key`, and its name.
    fn cut<'z, 'k>(&'z self, key: &'k Key) -> Option<(&'k [u8], &'z Cut)> {
        let special = &*special::SPECIAL;
        key.suffixes().find_map(|suffix| {
            let ours = self.cuts.get(suffix).filter(|cut| {
                cut.within.is_none_or(|subnet| {
                    name::reverse_v4(key.as_bytes()).is_some_and(|addr| subnet.contains(addr))
                })
            });
            ours.or_else(|| special.cuts.get(suffix)).map(|cut| (suffix, cut))
        })
    }
}

/// The SOA record of a zone; as the record of a negative answer it carries [`NEGATIVE_TTL`] both
/// as its own TTL and as its minimum, the smaller of which counts (RFC 2308 §5).
fn soa(apex: &Name, server: &Name, serial: u32) -> Record {
    // RFC 6303 §3 names nobody.invalid for zones without an administrator.
    let nobody = Name::from_ascii("nobody.invalid.").unwrap_or_default();
    let data = SOA::new(server.clone(), nobody, serial, 3600, 1200, 604_800, NEGATIVE_TTL);
    Record::from_rdata(apex.clone(), NEGATIVE_TTL, RData::SOA(data))
}

/// A cut and the node at it.
fn apex(apex: &Name, server: &Name, serial: u32, within: Option<Subnet>) -> (Cut, Node) {
    let soa = soa(apex, server, serial);
    let mut node = Node::default();
    node.add(soa.clone());
    node.add(Record::from_rdata(apex.clone(), HOST_TTL, RData::NS(NS(server.clone()))));
    (Cut { soa, within }, node)
}

/// The node of `name`, made with all its ancestors where it is missing.
fn ancestors<'n>(nodes: &'n mut HashMap<Box<[u8]>, Node>, name: &Name) -> &'n mut Node {
    let key = Key::new(name);
    for suffix in key.suffixes().skip(1) {
        if nodes.contains_key(suffix) {
            break;
        }
        nodes.insert(suffix.into(), Node::default());
    }
    nodes.entry(key.as_bytes().into()).or_default()
}

/// The name whose PTR record names `addr` (RFC 1035 §3.5, RFC 3596 §2.5).
fn reverse_name(addr: IpAddr) -> Name {
    let mut name = Name::from(addr);
    name.set_fqdn(true);
    name
}
