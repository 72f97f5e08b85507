//! The table `bridge vnet`: what a guest's port may send.
//!
//! ```text
//! prerouting ── from a guarded port: guard
//! guard ─┬─ not the port's MAC address, to a bridge's own group address: drop
//!        ├─ ARP:  guard_arp   the sender is the port's MAC and IPv4 address, or has none yet
//!        ├─ IPv4: guard_ipv4 ─► guard_payload   an address of the port; no server's messages
//!        ├─ IPv6: guard_ipv6 ─► guard_icmpv6 ─► guard_claim
//!        └─ else: drop (VLAN tags, spanning tree and everything else of layer 2)
//! ```
//!
//! The source is looked at before anything is accepted, and what no rule knows is dropped: there
//! is no order of rules in which a forged frame finds an accept first. All ports share the
//! chains, which never change; a port is a few elements. A frame costs the same with one port as
//! with a thousand. What doesn't come from a guarded port passes untouched.
//!
//! The table needs neither br_netfilter nor connection tracking, and runs before both.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use nftables::expr::{
    BinaryOperation, Expression, Exthdr, Meta, MetaKey, NamedExpression, Payload, PayloadBase,
    PayloadField, PayloadRaw, Prefix, Range, SetItem, Verdict,
};
use nftables::schema::{Chain, Element, NfListObject, Rule, Set, SetFlag, SetType, SetTypeValue};
use nftables::stmt::{JumpTarget, Mangle, Statement, VerdictMap};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use vnet_types::{AddrRange, IfName, MacAddr, NetworkName, Prefix6, link_local};

use super::chains::{accept, concat, iifname, is, is_not, matches, set};
use super::elements::prefix;
use super::{TABLE, Zone, protocol};
use nftables::stmt::{Drop, Operator};

/// The family of the table.
pub(super) const FAMILY: NfFamily = NfFamily::Bridge;
/// Before everybody else: before the bridge's own tables, and before br_netfilter.
const PRIORITY: i32 = -300;

/// The ports that are guarded.
const PORTS: &str = "ports";
/// Port and MAC address: the one that it may use.
const MACS: &str = "macs";
/// Port and IPv4 address: those that it has.
const ADDRESSES: &str = "addresses";
/// Port and range: where nobody gives addresses, those that it may take.
const RANGES: &str = "ranges";
/// Ports on the LAN, whose addresses are not ours to give.
const LAN_PORTS: &str = "lan_ports";
/// Port and IPv6 address: those that it has, by lease or reservation, or that follow from its MAC
/// address.
const OWN6: &str = "own6";
/// All of these, of all ports, and those that no guest has: the host's, and what is reserved for
/// guests that are not there.
const RESERVED6: &str = "reserved6";
/// Port and prefix: where guests make their own addresses, those that it may make.
const PREFIXES6: &str = "prefixes6";
/// Port and last 32 bits of an address of its own: what it may claim.
const ND_TARGETS: &str = "nd_targets";
/// The last 32 bits of all addresses in [`RESERVED6`].
const ND_RESERVED: &str = "nd_reserved";

/// A guest's port, as the guard sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The network that it is on.
    pub network: NetworkName,
    /// The address that its frames come from.
    pub mac: MacAddr,
    /// The IPv4 addresses that they may come from.
    pub addresses: Allowed,
    /// The IPv6 addresses that they may come from, beside link-local ones; none where the network
    /// has no IPv6.
    pub ipv6: Option<Allowed6>,
}

/// The IPv6 addresses that a port may use beside link-local ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed6 {
    /// All of this prefix that are nobody else's, where guests make their own addresses.
    pub prefix: Option<Prefix6>,
    /// Those that are the guest's alone: leases, reservations, and what follows from its MAC
    /// address.
    pub own: BTreeSet<Ipv6Addr>,
}

/// The IPv4 addresses that a port may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// Those that the guest was given: leases and reservations.
    Given(BTreeSet<Ipv4Addr>),
    /// Any of these, where nobody gives addresses.
    Range(AddrRange),
    /// Any, also IPv6: the port is on a LAN that gives them.
    Any,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.mac)?;
        match &self.addresses {
            Allowed::Given(addresses) => {
                addresses.iter().try_for_each(|address| write!(f, " {address}"))?;
            }
            Allowed::Range(range) => write!(f, " {range}")?,
            Allowed::Any => f.write_str(" any address")?,
        }
        let Some(ipv6) = &self.ipv6 else { return Ok(()) };
        if let Some(prefix) = ipv6.prefix {
            write!(f, " {prefix}")?;
        }
        ipv6.own.iter().try_for_each(|address| write!(f, " {address}"))
    }
}

/// The declarations of all sets.
pub(super) fn sets() -> Vec<NfListObject<'static>> {
    let pair = |second| SetTypeValue::Concatenated(vec![SetType::Ifname, second].into());
    let single = SetTypeValue::Single;
    [
        (PORTS, single(SetType::Ifname), false),
        (MACS, pair(SetType::EtherAddr), false),
        (ADDRESSES, pair(SetType::Ipv4Addr), false),
        (RANGES, pair(SetType::Ipv4Addr), true),
        (LAN_PORTS, single(SetType::Ifname), false),
        (OWN6, pair(SetType::Ipv6Addr), false),
        (RESERVED6, single(SetType::Ipv6Addr), false),
        (PREFIXES6, pair(SetType::Ipv6Addr), true),
        (ND_TARGETS, pair(SetType::Mark), false),
        (ND_RESERVED, single(SetType::Mark), false),
    ]
    .into_iter()
    .map(|(name, set_type, interval)| {
        NfListObject::Set(Box::new(Set {
            family: FAMILY,
            table: TABLE.into(),
            name: name.into(),
            set_type,
            flags: interval.then(|| HashSet::from([SetFlag::Interval])),
            ..Set::default()
        }))
    })
    .collect()
}

/// The elements of `ports` and of their networks, each under a key that stands for its set and its
/// content.
pub(super) fn elements(
    ports: &BTreeMap<IfName, Port>,
    zones: &BTreeMap<IfName, Zone>,
) -> BTreeMap<String, NfListObject<'static>> {
    let mut all = BTreeMap::new();
    let mut add = |set: &'static str, content: String, elem: Expression<'static>| {
        all.extend([keyed(set, &content, elem)]);
    };
    for (name, port) in ports {
        let mut with_port = |set, value: Expression<'static>, content: String| {
            add(set, format!("{name} {content}"), concat(text(name), value));
        };
        with_port(MACS, text(port.mac), port.mac.to_string());
        match &port.addresses {
            Allowed::Given(addresses) => {
                for address in addresses {
                    with_port(ADDRESSES, text(address), address.to_string());
                }
            }
            Allowed::Range(range) => {
                let ends = Range { range: [text(range.first()), text(range.last())] };
                with_port(RANGES, Expression::Range(Box::new(ends)), range.to_string());
            }
            Allowed::Any => {}
        }
        for own in own6(port) {
            let target = low_bits(own);
            with_port(OWN6, text(own), own.to_string());
            with_port(ND_TARGETS, Expression::Number(target), target.to_string());
        }
        if let Some(made) = port.ipv6.as_ref().and_then(|ipv6| ipv6.prefix) {
            with_port(PREFIXES6, prefix(made.net()), made.to_string());
        }
        if port.addresses == Allowed::Any {
            add(LAN_PORTS, name.to_string(), text(name));
        }
        add(PORTS, name.to_string(), text(name));
    }
    all.extend(reserved(ports, zones));
    all
}

/// The elements of [`RESERVED6`] and [`ND_RESERVED`]. Several ports and networks may have the same.
pub(super) fn reserved(
    ports: &BTreeMap<IfName, Port>,
    zones: &BTreeMap<IfName, Zone>,
) -> BTreeMap<String, NfListObject<'static>> {
    let of_zones = zones.values().filter_map(|zone| zone.ipv6.as_ref()).flat_map(|zone| {
        // The first address of a prefix is every router's (RFC 4291 §2.6.1).
        let hosts = [zone.link_local, zone.prefix.gateway(), zone.prefix.net().network()];
        zone.reserved.iter().copied().chain(hosts)
    });
    let all = ports.values().flat_map(own6).chain(of_zones).flat_map(|address| {
        let target = low_bits(address);
        [
            keyed(RESERVED6, &address.to_string(), text(address)),
            keyed(ND_RESERVED, &target.to_string(), Expression::Number(target)),
        ]
    });
    all.collect()
}

/// Whether an element with this key may stand for more than one port or network.
pub(super) fn is_shared(key: &str) -> bool {
    [RESERVED6, ND_RESERVED].iter().any(|set| {
        key.strip_prefix("bridge ").is_some_and(|key| key.split(' ').next() == Some(*set))
    })
}

/// An element under the key that stands for its set and its content.
fn keyed(
    set: &'static str,
    content: &str,
    elem: Expression<'static>,
) -> (String, NfListObject<'static>) {
    let (family, table) = (FAMILY, TABLE.into());
    let element = Element { family, table, name: set.into(), elem: vec![elem].into() };
    (format!("bridge {set} {content}"), NfListObject::Element(element))
}

fn own6(port: &Port) -> impl Iterator<Item = Ipv6Addr> {
    let given = port.ipv6.iter().flat_map(|ipv6| &ipv6.own).copied();
    given.chain([link_local(port.mac)])
}

/// As the kernel has them when it has copied them from a packet into a mark: in the host's order.
fn low_bits(address: Ipv6Addr) -> u32 {
    let [.., a, b, c, d] = address.octets();
    u32::from_ne_bytes([a, b, c, d])
}

/// All chains, and then their rules: a rule may jump to a chain that stands further down.
pub(super) fn chains() -> Vec<NfListObject<'static>> {
    let base = |name, hook| Chain {
        _type: Some(NfChainType::Filter),
        hook: Some(hook),
        prio: Some(PRIORITY),
        policy: Some(NfChainPolicy::Accept),
        ..chain(name)
    };
    let from_port = || is(iifname(), set(PORTS));
    let all = vec![
        (chain("guard_claim"), claim()),
        (chain("guard_icmpv6"), icmpv6()),
        (chain("guard_udpv6"), udpv6()),
        (chain("guard_ipv6"), ipv6()),
        (chain("guard_payload"), payload()),
        (chain("guard_ipv4"), ipv4()),
        (chain("guard_arp"), arp()),
        (chain("guard"), guard()),
        (base("prerouting", NfHook::Prerouting), vec![vec![from_port(), goto("guard")]]),
        // Frames to a bridge's own group addresses do not go through prerouting.
        (base("input", NfHook::Input), vec![vec![to_bridges(), from_port(), drop()]]),
    ];
    let rules: Vec<_> = all
        .iter()
        .flat_map(|(chain, rules)| rules.iter().map(|statements| rule(&chain.name, statements)))
        .collect();
    all.into_iter().map(|(chain, _)| NfListObject::Chain(chain)).chain(rules).collect()
}

type Rules = Vec<Vec<Statement<'static>>>;

fn guard() -> Rules {
    let by_type = [("arp", "guard_arp"), ("ip", "guard_ipv4"), ("ip6", "guard_ipv6")];
    let by_type = by_type.map(|(ethertype, chain)| {
        let target = Verdict::Goto(JumpTarget { target: chain.into() });
        SetItem::Mapping(text(ethertype), Expression::Verdict(target))
    });
    let by_type = Expression::Named(NamedExpression::Set(by_type.into()));
    vec![
        // The set has no group address, so no frame from one passes either.
        vec![is_not(concat(iifname(), field("ether", "saddr")), set(MACS)), drop()],
        vec![to_bridges(), drop()],
        // A tagged frame shows its tag here (IEEE 802.1Q §9.5), never what is inside.
        vec![Statement::VerdictMap(VerdictMap { key: field("ether", "type"), data: by_type })],
        vec![drop()],
    ]
}

/// To 01:80:c2:00:00:00 to 0f, which no bridge forwards (IEEE 802.1Q §8.6.3): spanning tree, LACP,
/// LLDP. Linux does forward the first of them where spanning tree is off.
fn to_bridges() -> Statement<'static> {
    let masked = BinaryOperation::AND(field("ether", "daddr"), text("ff:ff:ff:ff:ff:f0"));
    is(Expression::BinaryOperation(Box::new(masked)), text("01:80:c2:00:00:00"))
}

fn arp() -> Rules {
    let sender_ip = || field("arp", "saddr ip");
    vec![
        vec![is_not(field("arp", "htype"), Expression::Number(1)), drop()],
        vec![is_not(field("arp", "ptype"), Expression::Number(0x0800)), drop()],
        vec![is_not(field("arp", "hlen"), Expression::Number(6)), drop()],
        vec![is_not(field("arp", "plen"), Expression::Number(4)), drop()],
        vec![is_not(concat(iifname(), field("arp", "saddr ether")), set(MACS)), drop()],
        // A probe (RFC 5227 §2.1.1): it asks, and claims nothing.
        vec![is(sender_ip(), text("0.0.0.0")), is(operation(), text("request")), accept()],
        vec![one_of(operation(), ["request", "reply"]), own(sender_ip(), ADDRESSES), accept()],
        vec![one_of(operation(), ["request", "reply"]), own(sender_ip(), RANGES), accept()],
        vec![one_of(operation(), ["request", "reply"]), on_lan(), accept()],
        vec![drop()],
    ]
}

fn operation() -> Expression<'static> {
    field("arp", "operation")
}

fn own(address: Expression<'static>, of: &str) -> Statement<'static> {
    is(concat(iifname(), address), set(of))
}

fn on_lan() -> Statement<'static> {
    is(iifname(), set(LAN_PORTS))
}

fn ipv4() -> Rules {
    let source = || field("ip", "saddr");
    let none_yet = || is(source(), text("0.0.0.0"));
    vec![
        vec![own(source(), ADDRESSES), goto("guard_payload")],
        vec![own(source(), RANGES), goto("guard_payload")],
        vec![is_not(source(), text("0.0.0.0")), on_lan(), goto("guard_payload")],
        // DISCOVER, and REQUEST until there is an address (RFC 2131 §4.1).
        vec![
            none_yet(),
            is(field("ip", "daddr"), text("255.255.255.255")),
            is(field("udp", "sport"), Expression::Number(68)),
            is(field("udp", "dport"), Expression::Number(67)),
            is(relay_address(), Expression::Number(0)),
            accept(),
        ],
        // Membership reports of a host without an address (RFC 3376 §4.2.13).
        vec![none_yet(), is(field("ip", "protocol"), protocol::IGMP), accept()],
        vec![drop()],
    ]
}

/// IPv4 packets with a source of the port's own.
fn payload() -> Rules {
    let later_fragment = BinaryOperation::AND(field("ip", "frag-off"), Expression::Number(0x1fff));
    let later_fragment = Expression::BinaryOperation(Box::new(later_fragment));
    vec![
        // A DHCP server's. Some clients look at the port that they listen at, and not at the
        // server's.
        vec![is(field("udp", "sport"), Expression::Number(67)), drop()],
        vec![is(field("udp", "dport"), Expression::Number(68)), drop()],
        // A relay's: it would speak for any client that it likes.
        vec![
            is(field("udp", "dport"), Expression::Number(67)),
            is_not(relay_address(), Expression::Number(0)),
            drop(),
        ],
        vec![one_of(field("icmp", "type"), ["redirect", "router-advertisement"]), drop()],
        // What follows matches only if there is that much of the packet: a first fragment that
        // hides its ports passes nowhere.
        vec![is_not(meta(MetaKey::L4proto), protocol::UDP), accept()],
        vec![matches(field("udp", "length"), Operator::GEQ, Expression::Number(8)), accept()],
        vec![is_not(later_fragment, Expression::Number(0)), accept()],
        vec![drop()],
    ]
}

/// The field `giaddr` of a DHCP message (RFC 2131 §2), behind the UDP header.
fn relay_address() -> Expression<'static> {
    raw(64 + 192, 32)
}

/// A LAN gives its guests any address. On our own networks, what is known to be somebody's is his
/// alone. Beyond that, a guest has link-local addresses, and makes addresses of the prefix where it
/// may: those that do not follow from its MAC address (RFC 7217, RFC 8981) cannot be told from
/// another guest's.
fn ipv6() -> Rules {
    let source = || field("ip6", "saddr");
    let link_local = Prefix { addr: Box::new(text("fe80::")), len: 10 };
    let link_local = Expression::Named(NamedExpression::Prefix(link_local));
    let icmpv6 = || is(meta(MetaKey::L4proto), protocol::ICMPV6);
    let fragment = Exthdr { name: "frag".into(), field: None, offset: None };
    let fragment = Expression::Named(NamedExpression::Exthdr(fragment));
    vec![
        vec![is(source(), set(RESERVED6)), is_not(concat(iifname(), source()), set(OWN6)), drop()],
        vec![
            is_not(iifname(), set(LAN_PORTS)),
            is_not(source(), text("::")),
            is_not(source(), link_local),
            is_not(concat(iifname(), source()), set(OWN6)),
            is_not(concat(iifname(), source()), set(PREFIXES6)),
            drop(),
        ],
        // RFC 6980 §5 forbids neighbour discovery in fragments, which could hide its type.
        vec![is(fragment, Expression::Boolean(true)), icmpv6(), drop()],
        vec![icmpv6(), goto("guard_icmpv6")],
        vec![is(source(), text("::")), drop()],
        vec![is(meta(MetaKey::L4proto), protocol::UDP), goto("guard_udpv6")],
        // Matches if the extension headers can be followed to their end (RFC 7113 §3).
        vec![is_not(meta(MetaKey::L4proto), Expression::Number(255)), accept()],
        vec![drop()],
    ]
}

fn udpv6() -> Rules {
    let offset = Exthdr { name: "frag".into(), field: Some("frag-off".into()), offset: None };
    let offset = Expression::Named(NamedExpression::Exthdr(offset));
    vec![
        // A DHCPv6 server's (RFC 9915 §7.2).
        vec![is(field("udp", "sport"), Expression::Number(547)), drop()],
        vec![is(field("udp", "dport"), Expression::Number(546)), drop()],
        // A relay's, which would speak for any client that it likes, and its answers: RELAY-FORW
        // and RELAY-REPL (RFC 9915 §7.3), behind the UDP header.
        vec![
            is(field("udp", "dport"), Expression::Number(547)),
            is(raw(64, 8), Expression::Number(12)),
            drop(),
        ],
        vec![
            is(field("udp", "dport"), Expression::Number(547)),
            is(raw(64, 8), Expression::Number(13)),
            drop(),
        ],
        vec![matches(field("udp", "length"), Operator::GEQ, Expression::Number(8)), accept()],
        vec![is_not(offset, Expression::Number(0)), accept()],
        vec![drop()],
    ]
}

fn icmpv6() -> Rules {
    let kind = || field("icmpv6", "type");
    let unspecified = || is(field("ip6", "saddr"), text("::"));
    vec![
        vec![is(kind(), text("nd-neighbor-advert")), goto("guard_claim")],
        // Duplicate address detection (RFC 4862 §5.4.2): it claims, too.
        vec![unspecified(), is(kind(), text("nd-neighbor-solicit")), goto("guard_claim")],
        // RFC 3810 §5.2.13 and RFC 4861 §4.1: what else may come from ::.
        vec![
            unspecified(),
            one_of(kind(), ["nd-router-solicit", "mld-listener-report", "mld2-listener-report"]),
            accept(),
        ],
        vec![unspecified(), drop()],
        vec![
            one_of(
                kind(),
                [
                    "destination-unreachable",
                    "packet-too-big",
                    "time-exceeded",
                    "parameter-problem",
                    "echo-request",
                    "echo-reply",
                    "mld-listener-query",
                    "mld-listener-report",
                    "mld-listener-done",
                    "mld2-listener-report",
                    "nd-router-solicit",
                    "nd-neighbor-solicit",
                ],
            ),
            accept(),
        ],
        // Router advertisements, redirects, and whatever is yet to come.
        vec![drop()],
    ]
}

/// A packet that claims an address for itself: not one that is another port's. nft knows the
/// target address of neighbour discovery only since 1.0.9, hence the detour over the mark, which
/// is 0 before and after. The last 32 bits of it, of which 24 are from the MAC address in those that
/// follow from it, must do.
fn claim() -> Rules {
    let mark = || meta(MetaKey::Mark);
    let set_mark = |value| Statement::Mangle(Mangle { key: mark(), value });
    vec![
        // After type, code, checksum and flags (RFC 4861 §4.3, §4.4), the last quarter.
        vec![set_mark(raw(64 + 96, 32))],
        vec![
            is(mark(), set(ND_RESERVED)),
            is_not(concat(iifname(), mark()), set(ND_TARGETS)),
            drop(),
        ],
        vec![set_mark(Expression::Number(0))],
        vec![accept()],
    ]
}

fn chain(name: &'static str) -> Chain<'static> {
    Chain { family: FAMILY, table: TABLE.into(), name: name.into(), ..Chain::default() }
}

fn rule(chain: &str, statements: &[Statement<'static>]) -> NfListObject<'static> {
    NfListObject::Rule(Rule {
        family: FAMILY,
        table: TABLE.into(),
        chain: chain.to_owned().into(),
        expr: statements.to_vec().into(),
        ..Rule::default()
    })
}

fn text(value: impl ToString) -> Expression<'static> {
    Expression::String(value.to_string().into())
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn field(protocol: &'static str, field: &'static str) -> Expression<'static> {
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

/// Bits of the transport header and what is behind it.
fn raw(offset: u32, len: u32) -> Expression<'static> {
    let raw = PayloadRaw { base: PayloadBase::TH, offset, len };
    Expression::Named(NamedExpression::Payload(Payload::PayloadRaw(raw)))
}

fn one_of<const N: usize>(value: Expression<'static>, of: [&'static str; N]) -> Statement<'static> {
    let items = of.map(|item| SetItem::Element(text(item))).into();
    is(value, Expression::Named(NamedExpression::Set(items)))
}

fn goto(chain: &'static str) -> Statement<'static> {
    Statement::Goto(JumpTarget { target: chain.into() })
}

fn drop() -> Statement<'static> {
    Statement::Drop(Some(Drop {}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(mac: &str, addresses: Allowed) -> Port {
        let (network, mac) = ("default".parse().unwrap(), mac.parse().unwrap());
        Port { network, mac, addresses, ipv6: None }
    }

    fn given(addresses: &[&str]) -> Allowed {
        Allowed::Given(addresses.iter().map(|address| address.parse().unwrap()).collect())
    }

    #[test]
    fn a_lease_is_one_element() {
        let with = |addresses| {
            let port = port("52:54:00:00:00:09", given(addresses));
            elements(&BTreeMap::from([("vtap0".parse().unwrap(), port)]), &BTreeMap::new())
        };
        let (before, after) = (with(&[]), with(&["192.168.122.9"]));
        let new: Vec<_> = after.keys().filter(|key| !before.contains_key(*key)).collect();
        assert_eq!(new, ["bridge addresses vtap0 192.168.122.9"]);
        assert!(before.keys().all(|key| after.contains_key(key)));
    }

    #[test]
    fn the_gateway_is_in_no_ports_range() {
        let subnet: vnet_types::Subnet = "192.168.122.0/24".parse().unwrap();
        let port = port("52:54:00:00:00:09", Allowed::Range(subnet.guests()));
        let ports = BTreeMap::from([("vtap0".parse().unwrap(), port)]);
        let all = elements(&ports, &BTreeMap::new());
        assert!(all.contains_key("bridge ranges vtap0 192.168.122.2-192.168.122.254"));
    }

    #[test]
    fn an_ipv6_lease_is_its_guests_alone() {
        let with = |own: &[&str]| {
            let own = own.iter().map(|address| address.parse().unwrap()).collect();
            let prefix = "fd00::/64".parse().ok();
            let port = Port {
                ipv6: Some(Allowed6 { prefix, own }),
                ..port("52:54:00:00:00:09", given(&[]))
            };
            elements(&BTreeMap::from([("vtap0".parse().unwrap(), port)]), &BTreeMap::new())
        };
        let (before, after) = (with(&[]), with(&["fd00::1000"]));
        let new: Vec<_> = after.keys().filter(|key| !before.contains_key(*key)).collect();
        let target = low_bits("fd00::1000".parse().unwrap());
        assert_eq!(
            new,
            [
                &format!("bridge nd_reserved {target}"),
                &format!("bridge nd_targets vtap0 {target}"),
                "bridge own6 vtap0 fd00::1000",
                "bridge reserved6 fd00::1000"
            ]
        );
    }

    #[test]
    fn every_guard_chain_ends_in_a_verdict() {
        for rules in [claim(), icmpv6(), udpv6(), ipv6(), payload(), ipv4(), arp(), guard()] {
            let last = rules.last().unwrap();
            assert!(matches!(last[..], [Statement::Drop(_) | Statement::Accept(_)]), "{last:?}");
        }
    }
}
