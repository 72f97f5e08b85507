//! The properties that make moving a host's own network safe, over a model of the kernel: whatever
//! is on an uplink and its bridge, the bursts arrive at the wanted state; then nothing is left to
//! do; no address is missing at any instant; and from any instant the way back leads to exactly
//! what was there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use vnet_plan::uplink::{Both, LinkId, Record, Request, What, relocate};

/// As netd has it: bursts after which both sides must be as they should.
const BURSTS: usize = 4;

const INET: u8 = 2;
const INET6: u8 = 10;
const NO_PREFIX_ROUTE: u32 = 0x200;
const MAIN: u32 = 254;

fn link(name: &str, index: u32) -> LinkId {
    LinkId { name: name.parse().unwrap(), index }
}

fn uplink() -> LinkId {
    link("eth0", 2)
}

fn bridge() -> LinkId {
    link("br0", 9)
}

fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// The host `host` of the subnet `net`: 10.NET.0.HOST/24, or the like in IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ip {
    family: u8,
    net: u8,
    host: u8,
}

impl Ip {
    fn bytes(self) -> Vec<u8> {
        match self.family {
            INET => vec![10, self.net, 0, self.host],
            _ => [&[0x20, 1, 0xd, 0xb8, 0, self.net], &[0; 9][..], &[self.host]].concat(),
        }
    }

    fn prefix(self) -> u8 {
        if self.family == INET { 24 } else { 64 }
    }

    fn subnet(self) -> Self {
        Self { host: 0, ..self }
    }
}

/// What a test knows of a record, beside its bytes.
#[derive(Debug, Clone)]
enum Fact {
    Address {
        ip: Ip,
        prefix_route: bool,
    },
    Route {
        to: Ip,
        prefix: u8,
        table: u32,
        metric: u32,
        via: Vec<Ip>,
        source: Option<Ip>,
        by_kernel: bool,
    },
    Rule,
    Neighbour,
}

fn address(on: &LinkId, ip: Ip, prefix_route: bool, lifetime: Option<u32>) -> Record {
    let mut body = vec![ip.family, ip.prefix(), 0, 0];
    body.extend(on.index.to_ne_bytes());
    attribute(&mut body, 1, &ip.bytes());
    if ip.family == INET {
        attribute(&mut body, 2, &ip.bytes());
        attribute(&mut body, 3, format!("{}\0", on.name).as_bytes());
    }
    let flags = if prefix_route { 0 } else { NO_PREFIX_ROUTE };
    attribute(&mut body, 8, &flags.to_ne_bytes());
    let mut times = Vec::new();
    for word in [lifetime.map_or(u32::MAX, |left| left - 1), lifetime.unwrap_or(u32::MAX), 7, 8] {
        times.extend(word.to_ne_bytes());
    }
    attribute(&mut body, 6, &times);
    Record::parse(What::Address, &body).unwrap()
}

fn route(on: &LinkId, fact: &Fact) -> Record {
    let Fact::Route { to, prefix, table, metric, via, source, by_kernel } = fact else {
        panic!("no route")
    };
    let protocol = if *by_kernel { 2 } else { 4 };
    let mut body = vec![to.family, *prefix, 0, 0, 0, protocol, 0, 1, 0, 0, 0, 0];
    if *prefix > 0 {
        attribute(&mut body, 1, &to.bytes());
    }
    attribute(&mut body, 15, &table.to_ne_bytes());
    if *metric > 0 {
        attribute(&mut body, 6, &metric.to_ne_bytes());
    }
    if let Some(source) = source {
        attribute(&mut body, 7, &source.bytes());
    }
    match via.as_slice() {
        [] => attribute(&mut body, 4, &on.index.to_ne_bytes()),
        [gateway] => {
            attribute(&mut body, 5, &gateway.bytes());
            attribute(&mut body, 4, &on.index.to_ne_bytes());
        }
        several => {
            let mut hops = Vec::new();
            for gateway in several {
                let mut inner = Vec::new();
                attribute(&mut inner, 5, &gateway.bytes());
                hops.extend(u16::try_from(8 + inner.len()).unwrap().to_ne_bytes());
                hops.extend([0, gateway.host]);
                hops.extend(on.index.to_ne_bytes());
                hops.extend(inner);
            }
            attribute(&mut body, 9, &hops);
        }
    }
    Record::parse(What::Route, &body).unwrap()
}

fn rule(on: &LinkId, priority: u32) -> Record {
    let mut body = vec![INET, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    attribute(&mut body, 3, format!("{}\0", on.name).as_bytes());
    attribute(&mut body, 6, &priority.to_ne_bytes());
    attribute(&mut body, 15, &1000u32.to_ne_bytes());
    Record::parse(What::Rule, &body).unwrap()
}

fn neighbour(on: &LinkId, ip: Ip) -> Record {
    let mut body = vec![ip.family, 0, 0, 0];
    body.extend(on.index.to_ne_bytes());
    body.extend(0x80u16.to_ne_bytes());
    body.extend([0, 0]);
    attribute(&mut body, 1, &ip.bytes());
    attribute(&mut body, 2, &[2, 0, 0, 0, 0, ip.host]);
    Record::parse(What::Neighbour, &body).unwrap()
}

/// What a record of this test says, read back from its bytes.
fn fact(record: &Record) -> Fact {
    let body = record.body();
    let family = body[0];
    let header = if record.what() == What::Address { 8 } else { 12 };
    let mut found: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    let mut rest = &body[header..];
    while !rest.is_empty() {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff;
        found.insert(kind, rest[4..length].to_vec());
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let ip = |bytes: &[u8]| match family {
        INET => Ip { family, net: bytes[1], host: bytes[3] },
        _ => Ip { family, net: bytes[5], host: bytes[15] },
    };
    let word = |kind| {
        found.get(&kind).map_or(0, |b: &Vec<u8>| u32::from_ne_bytes(b[..4].try_into().unwrap()))
    };
    match record.what() {
        What::Address => {
            Fact::Address { ip: ip(&found[&1]), prefix_route: word(8) & NO_PREFIX_ROUTE == 0 }
        }
        What::Route => {
            let mut via: Vec<Ip> = found.get(&5).map(|bytes| ip(bytes)).into_iter().collect();
            let mut hops = found.get(&9).map(Vec::as_slice).unwrap_or_default();
            while !hops.is_empty() {
                let length = usize::from(u16::from_ne_bytes([hops[0], hops[1]]));
                via.push(ip(&hops[12..length]));
                hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
            Fact::Route {
                to: found.get(&1).map_or(Ip { family, net: 0, host: 0 }, |bytes| ip(bytes)),
                prefix: body[1],
                table: word(15),
                metric: word(6),
                via,
                source: found.get(&7).map(|bytes| ip(bytes)),
                by_kernel: body[5] == 2,
            }
        }
        What::Rule => Fact::Rule,
        What::Neighbour => Fact::Neighbour,
    }
}

/// Both links, in the kernel's order, and what the kernel does by itself.
#[derive(Debug, Clone)]
struct Model {
    port: bool,
    records: Vec<Record>,
}

impl Model {
    fn empty() -> Self {
        Self { port: false, records: Vec::new() }
    }

    fn both(&self) -> Both {
        Both { port: self.port, records: self.records.clone() }
    }

    fn timeless(&self) -> BTreeSet<Record> {
        self.records.iter().map(Record::timeless).collect()
    }

    fn on(record: &Record) -> LinkId {
        if record.is_on(&uplink()) { uplink() } else { bridge() }
    }

    fn addresses(&self) -> impl Iterator<Item = (LinkId, Ip, bool)> {
        self.records.iter().filter_map(|record| match fact(record) {
            Fact::Address { ip, prefix_route } => Some((Self::on(record), ip, prefix_route)),
            _ => None,
        })
    }

    fn has_address(&self, ip: Ip) -> bool {
        self.addresses().any(|(_, present, _)| present == ip)
    }

    /// Whether a packet to `gateway` finds its way over the link.
    fn is_on_link(&self, on: &LinkId, gateway: Ip) -> bool {
        self.records.iter().any(|record| match fact(record) {
            Fact::Route { to, prefix, via, .. } => {
                Self::on(record) == *on && via.is_empty() && prefix > 0 && to == gateway.subnet()
            }
            _ => false,
        })
    }

    fn subnet_route(on: &LinkId, ip: Ip) -> Record {
        let source = (ip.family == INET).then_some(ip);
        let fact = Fact::Route {
            to: ip.subnet(),
            prefix: ip.prefix(),
            table: MAIN,
            metric: if ip.family == INET { 0 } else { 256 },
            via: Vec::new(),
            source,
            by_kernel: true,
        };
        route(on, &fact)
    }

    /// What the kernel refuses fails the test: netd would roll back.
    fn apply(&mut self, request: &Request) {
        match request {
            Request::Enslave { .. } => self.port = true,
            Request::Free { .. } => self.port = false,
            Request::Add { record, link } => self.add(link, record),
            Request::Replace { record, .. } => {
                let key = record.address_key();
                let at = self.records.iter().position(|present| present.address_key() == key);
                self.records[at.expect("replaced what is not there")] = record.clone();
            }
            Request::Delete { record, link } => self.delete(link, record),
        }
    }

    fn add(&mut self, on: &LinkId, record: &Record) {
        assert!(record.is_on(on), "{record} is not on {}", on.name);
        if self.timeless().contains(&record.timeless()) {
            return;
        }
        match fact(record) {
            Fact::Address { ip, prefix_route } => {
                // The newest IPv6 address is listed first, and the newest IPv4 address last.
                match ip.family {
                    INET => self.records.push(record.clone()),
                    _ => self.records.insert(0, record.clone()),
                }
                let first = !self.addresses().any(|(link, other, _)| {
                    (link, other.subnet()) == (on.clone(), ip.subnet()) && other != ip
                });
                let route = Self::subnet_route(on, ip);
                if prefix_route && (first || ip.family == INET6) && !self.records.contains(&route) {
                    self.records.push(route);
                }
            }
            Fact::Route { via, source, .. } => {
                for gateway in via {
                    assert!(self.is_on_link(on, gateway), "{record}: no way to its gateway");
                }
                assert!(
                    source.is_none_or(|source| self.has_address(source)),
                    "{record}: no source"
                );
                self.records.push(record.clone());
            }
            Fact::Rule | Fact::Neighbour => self.records.push(record.clone()),
        }
    }

    fn delete(&mut self, on: &LinkId, record: &Record) {
        let gone = record.timeless();
        let before = self.records.len();
        self.records.retain(|present| present.timeless() != gone);
        if self.records.len() == before {
            return;
        }
        let Fact::Address { ip, .. } = fact(record) else { return };
        let same = |other: &(LinkId, Ip, bool)| other.0 == *on && other.1.subnet() == ip.subnet();
        let rest: Vec<_> = self.addresses().filter(same).collect();
        let was_primary = ip.family == INET
            && self.records.iter().any(|present| *present == Self::subnet_route(on, ip));
        if was_primary {
            // The secondaries go with it, where they are not promoted: the worse of the two.
            for (link, other, _) in &rest {
                self.records.retain(|present| match fact(present) {
                    Fact::Address { ip, .. } => Self::on(present) != *link || ip != *other,
                    _ => true,
                });
                self.forget_source(*other);
            }
        }
        if was_primary || !rest.iter().any(|(_, _, prefix_route)| *prefix_route) {
            self.records.retain(|present| match fact(present) {
                Fact::Route { to, by_kernel, .. } => {
                    Self::on(present) != *on || !by_kernel || to != ip.subnet()
                }
                _ => true,
            });
        }
        self.forget_source(ip);
    }

    /// Routes go that name an address as their source which is nowhere any more.
    fn forget_source(&mut self, ip: Ip) {
        if !self.has_address(ip) {
            self.records.retain(|present| match fact(present) {
                Fact::Route { source, .. } => source != Some(ip),
                _ => true,
            });
        }
    }

    /// Bursts, as netd does them, until nothing is left to do; after `budget` requests it is
    /// broken off. Returns how many were done.
    fn relocate(&mut self, wanted: &Both, budget: usize) -> usize {
        let protected: BTreeSet<Ip> = {
            let goal = Self { port: wanted.port, records: wanted.records.clone() };
            let stays: BTreeSet<Ip> = goal.addresses().map(|(_, ip, _)| ip).collect();
            self.addresses().map(|(_, ip, _)| ip).filter(|ip| stays.contains(ip)).collect()
        };
        let mut done = 0;
        for _ in 0..BURSTS {
            for request in relocate(&uplink(), &bridge(), &self.both(), wanted) {
                if done == budget {
                    return done;
                }
                self.apply(&request);
                done += 1;
                for ip in &protected {
                    assert!(self.has_address(*ip), "{ip:?} is nowhere after {request}");
                }
            }
        }
        let rest = relocate(&uplink(), &bridge(), &self.both(), wanted);
        assert!(rest.is_empty(), "left to do: {rest:?}\nof {wanted:#?}");
        done
    }
}

/// What is put on a link at first, before it is filtered for sense.
#[derive(Debug, Clone)]
struct Plan {
    addresses: Vec<(Ip, bool, Option<u32>)>,
    routes: Vec<(Ip, u32, u32, Vec<u8>, bool)>,
    rules: BTreeSet<u32>,
    neighbours: BTreeSet<(u8, u8)>,
}

fn family() -> impl Strategy<Value = u8> {
    prop_oneof![Just(INET), Just(INET6)]
}

fn plan(nets: std::ops::Range<u8>) -> impl Strategy<Value = Plan> {
    let range = nets.clone();
    let address =
        (family(), nets.clone(), 2..5u8, any::<bool>(), proptest::option::of(100..9000u32))
            .prop_map(|(family, net, host, prefix, life)| (Ip { family, net, host }, prefix, life));
    let route = (
        (family(), range),
        0..3u32,
        prop_oneof![Just(MAIN), Just(1000u32)],
        proptest::collection::vec(10..14u8, 0..3),
        any::<bool>(),
        100..104u8,
    )
        .prop_map(|((family, net), metric, table, via, sourced, to)| {
            // The net that the gateways are in stands in `host` until it is known to be there.
            (Ip { family, net: to, host: net }, metric * 10, table, via, sourced)
        });
    (
        proptest::collection::vec(address, 0..6),
        proptest::collection::vec(route, 0..6),
        proptest::collection::btree_set(900..905u32, 0..3),
        proptest::collection::btree_set((1..3u8, 20..24u8), 0..3),
    )
        .prop_map(|(addresses, routes, rules, neighbours)| Plan {
            addresses,
            routes,
            rules,
            neighbours,
        })
}

impl Model {
    fn furnish(&mut self, on: &LinkId, plan: &Plan) {
        for (ip, prefix_route, life) in &plan.addresses {
            if !self.has_address(*ip) {
                self.add(on, &address(on, *ip, *prefix_route, *life));
            }
        }
        let mut taken = BTreeSet::new();
        for (target, metric, table, hosts, sourced) in &plan.routes {
            let Ip { family, net: to, host: net } = *target;
            let mut via: Vec<Ip> =
                hosts.iter().map(|host| Ip { family, net, host: *host }).collect();
            via.dedup();
            let own: Vec<Ip> = self
                .addresses()
                .filter(|(link, ip, _)| link == on && ip.family == family)
                .map(|(_, ip, _)| ip)
                .collect();
            let reachable = via.iter().all(|gateway| self.is_on_link(on, *gateway));
            if !reachable || !taken.insert((family, to, *metric, *table)) {
                continue;
            }
            let fact = Fact::Route {
                to: Ip { family, net: to, host: 0 },
                prefix: target.prefix(),
                table: *table,
                metric: metric + on.index,
                via,
                source: own.first().copied().filter(|_| *sourced),
                by_kernel: false,
            };
            self.add(on, &route(on, &fact));
        }
        for priority in &plan.rules {
            self.add(on, &rule(on, *priority + on.index * 10));
        }
        for (net, host) in &plan.neighbours {
            self.add(on, &neighbour(on, Ip { family: INET, net: *net, host: *host }));
        }
    }
}

/// A host whose uplink, and a bridge that was there, hold what these say; and what is wanted when
/// the uplink is under the bridge.
fn host(on_uplink: &Plan, on_bridge: &Plan) -> (Model, Both) {
    let mut model = Model::empty();
    model.furnish(&uplink(), on_uplink);
    model.furnish(&bridge(), on_bridge);
    let records = model
        .records
        .iter()
        .map(|record| match record.is_on(&uplink()) {
            true => record.moved(&uplink(), &bridge()).unwrap(),
            false => record.clone(),
        })
        .collect();
    (model, Both { port: true, records })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_there_moves_and_comes_back(one in plan(1..3), two in plan(3..5)) {
        let (mut model, wanted) = host(&one, &two);
        let before = model.clone();
        model.relocate(&wanted, usize::MAX);
        prop_assert!(model.port);
        let goal: BTreeSet<Record> = wanted.records.iter().map(Record::timeless).collect();
        prop_assert_eq!(model.timeless(), goal);
        prop_assert_eq!(model.relocate(&wanted, usize::MAX), 0, "a second time there is nothing to do");
        model.relocate(&before.both(), usize::MAX);
        prop_assert!(!model.port);
        prop_assert_eq!(model.timeless(), before.timeless());
    }

    #[test]
    fn from_any_instant_the_way_back_leads_to_what_was(one in plan(1..3), two in plan(3..5)) {
        let (model, wanted) = host(&one, &two);
        let whole = model.clone().relocate(&wanted, usize::MAX);
        for budget in 0..=whole {
            let mut broken_off = model.clone();
            broken_off.relocate(&wanted, budget);
            // netd dies here, and the next one has only the journal.
            broken_off.relocate(&model.both(), usize::MAX);
            prop_assert!(!broken_off.port);
            prop_assert_eq!(broken_off.timeless(), model.timeless(), "after {} requests", budget);
        }
    }
}
