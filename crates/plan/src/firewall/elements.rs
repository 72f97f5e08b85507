//! The sets and maps of the table, and the elements that each network has in them.
//!
//! A forward is an element for each of its ports, in two maps, to the guest's address and to its
//! port: nft 1.0.6 cannot declare a map to both in JSON.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use nftables::expr::{Expression, NamedExpression, Prefix, Verdict};
use nftables::schema::{Element, Map, NfListObject, Set, SetFlag, SetType, SetTypeValue};
use nftables::stmt::JumpTarget;
use vnet_types::{IfName, Mode, Protocol};

use super::{FAMILY, Published, TABLE, Zone, protocol};

/// All our bridges.
pub(super) const BRIDGES: &str = "bridges";
/// Bridge and bridge: traffic that comes back to where it came from.
pub(super) const INSIDE: &str = "inside";
/// Bridge and subnet: the addresses that may be sent from there.
pub(super) const SOURCES: &str = "sources";
/// Bridge and IPv6 prefix: the same in IPv6.
pub(super) const SOURCES6: &str = "sources6";
/// Subnets that hide behind the host's address.
pub(super) const MASQUERADED: &str = "masqueraded";
/// IPv6 prefixes that do.
pub(super) const MASQUERADED6: &str = "masqueraded6";
/// Bridges that may use certain uplinks only.
pub(super) const RESTRICTED: &str = "restricted";
/// Bridge and uplink: which ones those are.
pub(super) const UPLINKS: &str = "uplinks";
/// From a bridge to the chain for what comes from there.
pub(super) const FROM: &str = "from";
/// From a bridge to the chain for what goes there.
pub(super) const TO: &str = "to";
/// Bridges from which nothing leads to another network, not even by a published port.
pub(super) const CLOSED: &str = "closed";
/// What is published at one address of the host: address, protocol and port, to the guest's
/// address and to its port.
pub(super) const AT: [&str; 2] = ["at_address", "at_port"];
/// What is published at all addresses of the host: protocol and port, to the same.
pub(super) const ANY: [&str; 2] = ["any_address", "any_port"];
/// Both of these in IPv6.
pub(super) const AT6: [&str; 2] = ["at6_address", "at6_port"];
/// See [`AT6`].
pub(super) const ANY6: [&str; 2] = ["any6_address", "any6_port"];
/// The other end of [`AT6`] and [`ANY6`].
pub(super) const PUBLISHED6: &str = "published6";
/// The other end of [`AT`] and [`ANY`]: guest's address, protocol and port.
pub(super) const PUBLISHED: &str = "published";

/// The declarations of all sets and maps.
pub(super) fn sets() -> Vec<NfListObject<'static>> {
    let ifname = || SetTypeValue::Single(SetType::Ifname);
    let pair = |second| SetTypeValue::Concatenated(vec![SetType::Ifname, second].into());
    vec![
        set(BRIDGES, ifname(), false),
        set(INSIDE, pair(SetType::Ifname), false),
        set(SOURCES, pair(SetType::Ipv4Addr), true),
        set(SOURCES6, pair(SetType::Ipv6Addr), true),
        set(MASQUERADED6, SetTypeValue::Single(SetType::Ipv6Addr), true),
        set(MASQUERADED, SetTypeValue::Single(SetType::Ipv4Addr), true),
        set(RESTRICTED, ifname(), false),
        set(UPLINKS, pair(SetType::Ifname), false),
        set(CLOSED, ifname(), false),
        set(PUBLISHED, endpoint(SetType::Ipv4Addr), false),
        set(PUBLISHED6, endpoint(SetType::Ipv6Addr), false),
        // `verdict` is put in for the last type, for which there is no word.
        map(FROM, ifname(), SetType::Ifname),
        map(TO, ifname(), SetType::Ifname),
        map(AT[0], endpoint(SetType::Ipv4Addr), SetType::Ipv4Addr),
        map(AT[1], endpoint(SetType::Ipv4Addr), SetType::InetService),
        map(AT6[0], endpoint(SetType::Ipv6Addr), SetType::Ipv6Addr),
        map(AT6[1], endpoint(SetType::Ipv6Addr), SetType::InetService),
        map(ANY6[0], service(), SetType::Ipv6Addr),
        map(ANY6[1], service(), SetType::InetService),
        map(ANY[0], service(), SetType::Ipv4Addr),
        map(ANY[1], service(), SetType::InetService),
    ]
}

fn service() -> SetTypeValue<'static> {
    SetTypeValue::Concatenated(vec![SetType::InetProto, SetType::InetService].into())
}

fn endpoint(address: SetType) -> SetTypeValue<'static> {
    SetTypeValue::Concatenated(vec![address, SetType::InetProto, SetType::InetService].into())
}

/// The elements of `zones`, each under a key that stands for its set and its content.
pub(super) fn of(zones: &BTreeMap<IfName, Zone>) -> BTreeMap<String, NfListObject<'static>> {
    let mut all = BTreeMap::new();
    let mut add = |name: &'static str, content: String, value: Expression<'static>| {
        all.insert(format!("{name} {content}"), element(name, value));
    };
    for (bridge, zone) in zones {
        let subnet = zone.subnet;
        add(BRIDGES, bridge.to_string(), text(bridge));
        add(INSIDE, bridge.to_string(), concat([text(bridge), text(bridge)]));
        add(SOURCES, format!("{bridge} {subnet}"), concat([text(bridge), prefix(subnet.net())]));
        let chain = zone.mode.as_str();
        for (direction, to_or_from) in [(FROM, "from"), (TO, "to")] {
            let target = format!("{to_or_from}_{chain}");
            add(direction, format!("{bridge} {target}"), verdict(bridge, target));
        }
        if zone.mode == Mode::Nat {
            add(MASQUERADED, subnet.to_string(), prefix(subnet.net()));
        }
        if let Some(prefix6) = zone.ipv6.as_ref().map(|ipv6| ipv6.prefix) {
            let content = format!("{bridge} {prefix6}");
            add(SOURCES6, content, concat([text(bridge), prefix(prefix6.net())]));
            if zone.mode == Mode::Nat {
                add(MASQUERADED6, prefix6.to_string(), prefix(prefix6.net()));
            }
        }
        if let Some(uplink) = &zone.uplink {
            add(RESTRICTED, bridge.to_string(), text(bridge));
            add(UPLINKS, format!("{bridge} {uplink}"), concat([text(bridge), text(uplink)]));
        }
        if zone.mode == Mode::Hostonly {
            add(CLOSED, bridge.to_string(), text(bridge));
        }
        for published in &zone.published {
            add_published(published, &mut add);
        }
    }
    all.extend(zones.values().flat_map(|zone| &zone.published).flat_map(ends));
    all
}

fn add_published(
    published: &Published,
    add: &mut impl FnMut(&'static str, String, Expression<'static>),
) {
    let Published { listen, to, first } = published;
    let protocol = || number_of(listen.protocol);
    for (port, target) in listen.ports.iter().zip(*first..) {
        let (at, any) = match to {
            IpAddr::V4(_) => (AT, ANY),
            IpAddr::V6(_) => (AT6, ANY6),
        };
        let (maps, key) = match listen.one_address() {
            Some(address) => (at, vec![word(address), protocol(), number(port)]),
            None => (any, vec![protocol(), number(port)]),
        };
        let name = match listen.one_address() {
            Some(address) => format!("{address} {} {port}", listen.protocol),
            None => format!("{} {port}", listen.protocol),
        };
        let key = Expression::Named(NamedExpression::Concat(key));
        for (map, value) in maps.into_iter().zip([word(to), number(target)]) {
            let name = format!("{name} {to} {target}");
            add(map, name, Expression::List(vec![key.clone(), value]));
        }
    }
}

/// The other ends of a forward: guest's address, protocol and port, each under its key. Several
/// forwards may have the same.
pub(super) fn ends(
    published: &Published,
) -> impl Iterator<Item = (String, NfListObject<'static>)> + use<'_> {
    let Published { listen, to, first } = published;
    let set = if to.is_ipv4() { PUBLISHED } else { PUBLISHED6 };
    listen.ports.iter().zip(*first..).map(move |(_, target)| {
        let end = vec![word(to), number_of(listen.protocol), number(target)];
        let end = Expression::Named(NamedExpression::Concat(end));
        (format!("{set} {to} {} {target}", listen.protocol), element(set, end))
    })
}

/// Whether an element with this key may stand for more than one forward.
pub(super) fn is_shared(key: &str) -> bool {
    key.starts_with(PUBLISHED)
}

fn number_of(protocol: Protocol) -> Expression<'static> {
    match protocol {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    }
}

fn word(value: impl ToString) -> Expression<'static> {
    Expression::String(value.to_string().into())
}

fn number(port: u16) -> Expression<'static> {
    Expression::Number(port.into())
}

fn text(name: &IfName) -> Expression<'static> {
    Expression::String(name.to_string().into())
}

fn concat(parts: [Expression<'static>; 2]) -> Expression<'static> {
    Expression::Named(NamedExpression::Concat(parts.into()))
}

pub(super) fn prefix(net: impl Into<IpNet>) -> Expression<'static> {
    let net = net.into();
    let addr = Box::new(Expression::String(net.network().to_string().into()));
    Expression::Named(NamedExpression::Prefix(Prefix { addr, len: net.prefix_len().into() }))
}

fn verdict(bridge: &IfName, target: String) -> Expression<'static> {
    let jump = Verdict::Jump(JumpTarget { target: target.into() });
    Expression::List(vec![text(bridge), Expression::Verdict(jump)])
}

fn element(name: &'static str, value: Expression<'static>) -> NfListObject<'static> {
    NfListObject::Element(Element {
        family: FAMILY,
        table: TABLE.into(),
        name: name.into(),
        elem: vec![value].into(),
    })
}

fn set(
    name: &'static str,
    set_type: SetTypeValue<'static>,
    interval: bool,
) -> NfListObject<'static> {
    let flags = interval.then(|| HashSet::from([SetFlag::Interval]));
    NfListObject::Set(Box::new(Set {
        family: FAMILY,
        table: TABLE.into(),
        name: name.into(),
        set_type,
        flags,
        ..Set::default()
    }))
}

fn map(name: &'static str, set_type: SetTypeValue<'static>, to: SetType) -> NfListObject<'static> {
    NfListObject::Map(Box::new(Map {
        family: FAMILY,
        table: TABLE.into(),
        name: name.into(),
        set_type,
        map: SetTypeValue::Single(to),
        ..Map::default()
    }))
}
