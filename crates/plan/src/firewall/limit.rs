//! What leaves a network as a whole, for the host and the outside, limited: a named limit for each
//! bridge, in a map.
//!
//! The kernel's bucket holds a second's worth of the rate beside the burst: a network that was
//! quiet may send so much at once. Whatever comes faster then is dropped.

use std::collections::BTreeMap;

use nftables::expr::Expression;
use nftables::schema::{Element, Limit, LimitUnit, Map, NfListObject, SetType, SetTypeValue};
use nftables::stmt::{Drop, Statement, VerdictMap};
use nftables::types::NfTimeUnit;
use serde_json::Value;
use vnet_types::IfName;

use super::chains::{iifname, set};
use super::{FAMILY, TABLE, Zone};

/// From a bridge to its limit.
const LIMITS: &str = "rates";
/// The least that the bucket holds beside a second's worth, in bytes: several of the largest
/// packets that one piece of the kernel hands to another.
const LEAST: u64 = 256 << 10;

/// The declaration of the map. `limit` is put in for what it leads to, for which the crate has no
/// word.
pub(super) fn map() -> NfListObject<'static> {
    NfListObject::Map(Box::new(Map {
        family: FAMILY,
        table: TABLE.into(),
        name: LIMITS.into(),
        set_type: SetTypeValue::Single(SetType::Ifname),
        map: SetTypeValue::Single(SetType::Mark),
        ..Map::default()
    }))
}

/// The rule: what is faster than the limit of the bridge that it comes from is dropped.
pub(super) fn rule() -> Vec<Statement<'static>> {
    vec![
        Statement::VerdictMap(VerdictMap { key: iifname(), data: set(LIMITS) }),
        Statement::Drop(Some(Drop {})),
    ]
}

/// The limits and the elements of `zones`. A limit's key begins so that it is there before the
/// element that leads to it, and goes after.
pub(super) fn elements(zones: &BTreeMap<IfName, Zone>) -> Vec<(String, NfListObject<'static>)> {
    let mut all = Vec::new();
    for (bridge, zone) in zones {
        let Some(limit) = zone.limit else { continue };
        // In its name is what it is: one that changes is another.
        let number = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let rate = number(limit.rate());
        let burst = number(limit.burst().map_or(LEAST, |burst| u64::from(burst).max(LEAST)));
        let name = format!("{bridge}/{rate}/{burst}");
        let object = NfListObject::Limit(Limit {
            family: FAMILY,
            table: TABLE.into(),
            name: name.clone().into(),
            handle: None,
            rate: Some(rate),
            per: Some(NfTimeUnit::Second),
            burst: Some(burst),
            unit: Some(LimitUnit::Bytes),
            inv: Some(true),
        });
        all.push((format!("!limit {name}"), object));
        let word = |text: &str| Expression::String(text.to_owned().into());
        let pair = Expression::List(vec![word(bridge.as_str()), word(&name)]);
        let element = Element {
            family: FAMILY,
            table: TABLE.into(),
            name: LIMITS.into(),
            elem: vec![pair].into(),
        };
        all.push((format!("{LIMITS} {name}"), NfListObject::Element(element)));
    }
    all
}

/// Says in nft's words what the crate nftables 0.6 has none for: a map that leads to limits, a rule
/// that looks one up in it, and the unit of a limit.
pub(super) fn declare(command: &mut Value) {
    let reference = format!("@{LIMITS}");
    if let Some(map) = command.pointer_mut("/add/map")
        && map["name"] == LIMITS
    {
        map["map"] = Value::from("limit");
    }
    if let Some(expr) = command.pointer_mut("/add/rule/expr")
        && let Some(first) = expr.get_mut(0)
        && first.pointer("/vmap/data") == Some(&Value::from(reference))
    {
        *first = serde_json::json!({ "limit": { "map": first["vmap"].take() } });
    }
    for action in ["add", "delete"] {
        if let Some(limit) = command.get_mut(action).and_then(|body| body.get_mut("limit")) {
            let unit = limit["unit"].take();
            limit["rate_unit"] = unit.clone();
            limit["burst_unit"] = unit;
        }
    }
}
