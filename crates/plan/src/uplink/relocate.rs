//! The difference between what is on two links and what should be, as requests to the kernel in
//! their order.

use std::collections::BTreeSet;
use std::fmt;

use super::record::INET6;
use super::{LinkId, Record, What};

/// Both links: their records, and whether the one is a port of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Both {
    /// Whether the uplink is a port of the bridge.
    pub port: bool,
    /// Everything on either of them. Each record says on which.
    pub records: Vec<Record>,
}

/// One message of a burst.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Make the uplink a port of the bridge.
    Enslave {
        /// The uplink.
        uplink: LinkId,
        /// The bridge.
        bridge: LinkId,
    },
    /// Take the uplink from its bridge.
    Free {
        /// The uplink.
        uplink: LinkId,
    },
    /// Add what is not there.
    Add {
        /// To this link.
        link: LinkId,
        /// What.
        record: Record,
    },
    /// Give an address that is there other lifetimes or flags.
    Replace {
        /// On this link.
        link: LinkId,
        /// What.
        record: Record,
    },
    /// Remove what is there.
    Delete {
        /// From this link.
        link: LinkId,
        /// What.
        record: Record,
    },
}

/// The requests that lead from `now` to `wanted`, for one burst. They are empty when the two
/// agree. What the kernel does by itself (the route to a new address' subnet, for one) is not
/// foreseen but seen: the next difference has the rest.
///
/// An address is on its new link before it leaves the old one, so that it is the host's at every
/// moment, and routes that name it as their source stay.
#[must_use]
pub fn relocate(uplink: &LinkId, bridge: &LinkId, now: &Both, wanted: &Both) -> Vec<Request> {
    let link_of = |record: &Record| {
        if record.is_on(uplink) { uplink.clone() } else { bridge.clone() }
    };
    let mut requests = Vec::new();
    match (now.port, wanted.port) {
        (false, true) => {
            requests.push(Request::Enslave { uplink: uplink.clone(), bridge: bridge.clone() });
        }
        (true, false) => requests.push(Request::Free { uplink: uplink.clone() }),
        _ => {}
    }
    let present: BTreeSet<Record> = now.records.iter().map(Record::timeless).collect();
    let goal: BTreeSet<Record> = wanted.records.iter().map(Record::timeless).collect();
    let missing: Vec<&Record> =
        wanted.records.iter().filter(|record| !present.contains(&record.timeless())).collect();
    let surplus: Vec<&Record> =
        now.records.iter().filter(|record| !goal.contains(&record.timeless())).collect();
    let of = |records: &[&Record], what| -> Vec<Record> {
        records
            .iter()
            .filter(|record| record.what() == what)
            .map(|record| (*record).clone())
            .collect()
    };
    let keys: BTreeSet<_> = now.records.iter().filter_map(Record::address_key).collect();
    let wanted_keys: BTreeSet<_> = wanted.records.iter().filter_map(Record::address_key).collect();
    for record in in_order_of_making(of(&missing, What::Address)) {
        let link = link_of(&record);
        let there = record.address_key().is_some_and(|key| keys.contains(&key));
        requests.push(match there {
            true => Request::Replace { link, record },
            false => Request::Add { link, record },
        });
    }
    let mut delete = |record: Record| {
        requests.push(Request::Delete { link: link_of(&record), record });
    };
    of(&surplus, What::Rule).into_iter().for_each(&mut delete);
    of(&surplus, What::Neighbour).into_iter().for_each(&mut delete);
    // Those by way of a gateway before those that lead to it.
    let mut routes = of(&surplus, What::Route);
    routes.sort_by_key(|record| !record.has_gateway());
    routes.into_iter().for_each(&mut delete);
    // Secondary addresses before the one that they would go with, or be promoted by.
    let gone = of(&surplus, What::Address).into_iter().rev();
    gone.filter(|record| record.address_key().is_none_or(|key| !wanted_keys.contains(&key)))
        .for_each(&mut delete);
    let mut routes = of(&missing, What::Route);
    routes.sort_by_key(Record::has_gateway);
    for record in
        [routes, of(&missing, What::Neighbour), of(&missing, What::Rule)].into_iter().flatten()
    {
        requests.push(Request::Add { link: link_of(&record), record });
    }
    requests
}

/// The kernel lists IPv4 addresses in the order in which they were made, and IPv6 addresses the
/// other way round.
fn in_order_of_making(addresses: Vec<Record>) -> impl Iterator<Item = Record> {
    let (mut six, four): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|record| record.family() == INET6);
    six.reverse();
    four.into_iter().chain(six)
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enslave { uplink, bridge } => {
                write!(f, "put port {} on {}", uplink.name, bridge.name)
            }
            Self::Free { uplink } => write!(f, "take {} from its bridge", uplink.name),
            Self::Add { link, record } => write!(f, "add {record} to {}", link.name),
            Self::Replace { link, record } => write!(f, "set {record} on {}", link.name),
            Self::Delete { link, record } => write!(f, "delete {record} from {}", link.name),
        }
    }
}
