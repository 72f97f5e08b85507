//! The sets and maps of the table, and the elements that each network has in them.

use std::collections::{BTreeMap, HashSet};

use nftables::expr::{Expression, NamedExpression, Prefix, Verdict};
use nftables::schema::{Element, Map, NfListObject, Set, SetFlag, SetType, SetTypeValue};
use nftables::stmt::JumpTarget;
use vnet_types::{IfName, Mode, Subnet};

use super::{FAMILY, Firewall, TABLE};

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
        map(FROM),
        map(TO),
    ]
}

/// The elements of `firewall`, each under a key that stands for its set and its content.
pub(super) fn of(firewall: &Firewall) -> BTreeMap<String, NfListObject<'static>> {
    let mut all = BTreeMap::new();
    let mut add = |name: &'static str, content: String, value: Expression<'static>| {
        all.insert(format!("{name} {content}"), element(name, value));
    };
    for (bridge, zone) in &firewall.0 {
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
    }
    all
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

fn map(name: &'static str) -> NfListObject<'static> {
    NfListObject::Map(Box::new(Map {
        family: FAMILY,
        table: TABLE.into(),
        name: name.into(),
        set_type: SetTypeValue::Single(SetType::Ifname),
        ..Map::default()
    }))
}
