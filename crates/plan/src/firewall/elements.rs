//! The sets and maps of the table, and the elements that each network has in them.
//!
//! A forward is an element for each of its ports, in two maps, to the guest's address and to its
//! port: nft 1.0.6 cannot declare a map to both in JSON.

use std::collections::{BTreeMap, HashSet};

use nftables::expr::{Expression, NamedExpression, Prefix, Verdict};
use nftables::schema::{Element, Map, NfListObject, Set, SetFlag, SetType, SetTypeValue};
use nftables::stmt::JumpTarget;
use vnet_types::{IfName, Mode, Protocol, Subnet};

use super::{FAMILY, Published, TABLE, Zone, protocol};

/// All our bridges.
pub(super) const BRIDGES: &str = "bridges";
/// Bridge and bridge: traffic that comes back to where it came from.
pub(super) const INSIDE: &str = "inside";
/// Bridge and subnet: the addresses that may be sent from there.
pub(super) const SOURCES: &str = "sources";
/// Subnets that hide behind the host's address.
pub(super) const MASQUERADED: &str = "masqueraded";
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
/// The other end of both: guest's address, protocol and port.
pub(super) const PUBLISHED: &str = "published";

/// The declarations of all sets and maps.
pub(super) fn sets() -> Vec<NfListObject<'static>> {
    let ifname = || SetTypeValue::Single(SetType::Ifname);
    let pair = |second| SetTypeValue::Concatenated(vec![SetType::Ifname, second].into());
    vec![
        set(BRIDGES, ifname(), false),
        set(INSIDE, pair(SetType::Ifname), false),
        set(SOURCES, pair(SetType::Ipv4Addr), true),
        set(MASQUERADED, SetTypeValue::Single(SetType::Ipv4Addr), true),
        set(RESTRICTED, ifname(), false),
        set(UPLINKS, pair(SetType::Ifname), false),
        set(CLOSED, ifname(), false),
        set(PUBLISHED, endpoint(), false),
        // `verdict` is put in for the last type, for which there is no word.
        map(FROM, ifname(), SetType::Ifname),
        map(TO, ifname(), SetType::Ifname),
        map(AT[0], endpoint(), SetType::Ipv4Addr),
        map(AT[1], endpoint(), SetType::InetService),
        map(ANY[0], service(), SetType::Ipv4Addr),
        map(ANY[1], service(), SetType::InetService),
    ]
}

fn service() -> SetTypeValue<'static> {
    SetTypeValue::Concatenated(vec![SetType::InetProto, SetType::InetService].into())
}

fn endpoint() -> SetTypeValue<'static> {
    SetTypeValue::Concatenated(
        vec![SetType::Ipv4Addr, SetType::InetProto, SetType::InetService].into(),
    )
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
        add(SOURCES, format!("{bridge} {subnet}"), concat([text(bridge), prefix(subnet)]));
        let chain = zone.mode.as_str();
        for (direction, to_or_from) in [(FROM, "from"), (TO, "to")] {
            let target = format!("{to_or_from}_{chain}");
            add(direction, format!("{bridge} {target}"), verdict(bridge, target));
        }
        if zone.mode == Mode::Nat {
            add(MASQUERADED, subnet.to_string(), prefix(subnet));
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
    all
}

fn add_published(
    published: &Published,
    add: &mut impl FnMut(&'static str, String, Expression<'static>),
) {
    let Published { listen, to, first } = published;
    let protocol = || match listen.protocol {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    };
    for (port, target) in listen.ports.iter().zip(*first..) {
        let (maps, key) = match listen.address {
            Some(address) => (AT, vec![word(address), protocol(), number(port)]),
            None => (ANY, vec![protocol(), number(port)]),
        };
        let name = match listen.address {
            Some(address) => format!("{address} {} {port}", listen.protocol),
            None => format!("{} {port}", listen.protocol),
        };
        let key = Expression::Named(NamedExpression::Concat(key));
        for (map, value) in maps.into_iter().zip([word(to), number(target)]) {
            let name = format!("{name} {to} {target}");
            add(map, name, Expression::List(vec![key.clone(), value]));
        }
        let end = vec![word(to), protocol(), number(target)];
        let name = format!("{to} {} {target}", listen.protocol);
        add(PUBLISHED, name, Expression::Named(NamedExpression::Concat(end)));
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

fn prefix(subnet: Subnet) -> Expression<'static> {
    let addr = Box::new(Expression::String(subnet.net().network().to_string().into()));
    Expression::Named(NamedExpression::Prefix(Prefix { addr, len: subnet.prefix_len().into() }))
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
