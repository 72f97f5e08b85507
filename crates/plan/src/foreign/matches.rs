//! Whether something of a packet matches what a rule compares it with.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

/// Whether a rule matches, as far as it can be told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Matches {
    Yes,
    Unknown,
    No,
}

pub(super) fn is(yes: bool) -> Matches {
    if yes { Matches::Yes } else { Matches::No }
}

pub(super) fn both(one: Matches, other: Matches) -> Matches {
    match (one, other) {
        (Matches::No, _) | (_, Matches::No) => Matches::No,
        (Matches::Yes, Matches::Yes) => Matches::Yes,
        _ => Matches::Unknown,
    }
}

pub(super) fn either(one: Matches, other: Matches) -> Matches {
    match (one, other) {
        (Matches::Yes, _) | (_, Matches::Yes) => Matches::Yes,
        (Matches::No, Matches::No) => Matches::No,
        _ => Matches::Unknown,
    }
}

/// A name, or the beginning of one with an asterisk behind it.
pub(super) fn interface(ours: Option<&str>, right: &Value) -> Matches {
    let (Some(ours), Some(pattern)) = (ours, right.as_str()) else { return Matches::Unknown };
    is(match pattern.strip_suffix('*') {
        Some(beginning) => ours.starts_with(beginning),
        None => ours == pattern,
    })
}

pub(super) fn within(ours: Option<IpNet>, right: &Value) -> Matches {
    let net = match (right.as_str(), right.get("prefix")) {
        (Some(address), _) => address.parse().ok().map(|address: IpAddr| address.into()),
        (None, Some(prefix)) => network(prefix),
        _ => None,
    };
    match (ours, net) {
        (Some(ours), Some(net)) if net.contains(&ours) => Matches::Yes,
        (Some(ours), Some(net)) if !ours.contains(&net) => Matches::No,
        _ => Matches::Unknown,
    }
}

fn network(prefix: &Value) -> Option<IpNet> {
    let address = prefix.get("addr")?.as_str()?.parse().ok()?;
    IpNet::new(address, u8::try_from(prefix.get("len")?.as_u64()?).ok()?).ok()
}
