//! IPv6 forwarding, and the links that live on router advertisements.
//!
//! ```text
//! note what is set ─► note each link that takes advertisements ─► have it take them though it
//!        forwards ─► turn forwarding on          (and back in the same order, to the letter)
//! ```
//!
//! A link whose `accept_ra` is 1 takes advertisements only as long as it does not forward, and the
//! kernel throws its default routes away when it begins to. So every link that takes them now, and
//! every one that would without us, is raised to 2 first: an uplink that has not heard its router
//! yet is one of them.

use vnet_types::Mode;

use crate::diff::ours;
use crate::{Desired, FORWARD6, Link, LinkKind, Observed, Operation, Plan};

/// What a link that takes router advertisements while it does not forward has as `accept_ra`.
const WHILE_HOST: i32 = 1;
/// What one that always takes them has.
const ALWAYS: i32 = 2;

/// The path of a link's own switch under `/proc/sys`.
pub(crate) fn switch(link: &str) -> String {
    format!("net/ipv6/conf/{link}/forwarding")
}

pub(crate) fn forwarding6(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let on = observed.sysctls.get(FORWARD6).is_some_and(|value| value == "1");
    let remembered = !observed.ledger.forwarding6.is_empty();
    if desired.forwards6() {
        if !on && !remembered {
            plan.push(Operation::RememberForwarding6);
        }
        if !on || remembered {
            raise(observed, plan);
        }
        if !on {
            plan.push(Operation::EnableForwarding6);
        }
        for (network, _) in desired.networks.values() {
            let link = observed.links.get(network.bridge.as_str());
            if network.ipv6.is_some()
                && network.mode != Mode::Hostonly
                && link.is_none_or(|link| !link.ipv6.on || !link.ipv6.forwarding)
            {
                plan.push(Operation::Forward6On { link: network.bridge.clone() });
            }
        }
    } else if remembered {
        plan.push(Operation::RestoreForwarding6);
        for name in &observed.ledger.accept_ra {
            if observed.links.get(name).is_some_and(|link| link.ipv6.accept_ra == ALWAYS) {
                plan.push(Operation::RestoreAcceptRa { link: name.clone() });
            }
        }
        plan.push(Operation::ForgetForwarding6);
    }
}

fn raise(observed: &Observed, plan: &mut Plan) {
    let links = observed.links.iter().filter(|&(name, link)| {
        link.ipv6.on
            && link.ipv6.accept_ra == WHILE_HOST
            && name != "lo"
            && !ours(name, link, observed)
            && !is_bridge_port(link, observed)
            && would_be_host(name, link, observed)
    });
    for (name, _) in links {
        if !observed.ledger.accept_ra.contains(name) {
            plan.push(Operation::RememberAcceptRa { link: name.to_owned() });
        }
        plan.push(Operation::RaiseAcceptRa { link: name.to_owned() });
    }
}

/// A bridge takes all that comes to its ports.
fn is_bridge_port(link: &Link, observed: &Observed) -> bool {
    let master = link.master.and_then(|index| observed.links.at(index));
    master.is_some_and(|(_, master)| master.kind == LinkKind::Bridge)
}

/// Whether the link would not forward without us: it does not, or it is only since we turned
/// forwarding on that it does.
fn would_be_host(name: &str, link: &Link, observed: &Observed) -> bool {
    let before = &observed.ledger.forwarding6;
    // A link that came later began with what was set for new ones.
    let found = before.get(&switch(name)).or_else(|| before.get(&switch("default")));
    !link.ipv6.forwarding || found.is_some_and(|value| value == "0")
}
