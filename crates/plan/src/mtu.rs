//! How large a network's packets are where its definition leaves that to the uplink.
//!
//! Guests whose packets are larger than what the uplink carries depend on every router on the way
//! to say so, and many don't. So the bridge, the ports, and what DHCP tells guests follow the
//! uplink.

use std::sync::Arc;

use vnet_types::{DEFAULT_MTU, MAX_MTU, MIN_MTU, MIN_MTU6, Mode, NetworkDefinition};

use crate::Observed;

/// The network with its MTU filled in: the one that is given, or else that of its only uplink, or
/// of the link by which the host reaches the outside. A network that leads nowhere has no uplink.
#[must_use]
pub fn with_mtu(network: &Arc<NetworkDefinition>, observed: &Observed) -> Arc<NetworkDefinition> {
    if network.mtu.is_some() {
        return network.clone();
    }
    let mtu = of_uplink(network, observed);
    // As a rule it is as it was started, and need not be made anew.
    let started = observed.ledger.bridges.get(&network.bridge).map(|claim| &claim.network);
    match started {
        Some(started) if started.mtu == Some(mtu) && started.is_but_for_mtu(network) => {
            started.clone()
        }
        _ => Arc::new(NetworkDefinition { mtu: Some(mtu), ..NetworkDefinition::clone(network) }),
    }
}

fn of_uplink(network: &NetworkDefinition, observed: &Observed) -> u32 {
    let uplink = match (network.mode, &network.uplink) {
        (Mode::Hostonly, _) => None,
        (_, Some(uplink)) => observed.links.get(uplink.as_str()),
        (_, None) => {
            observed.outlet.and_then(|index| observed.links.at(index)).map(|(_, link)| link)
        }
    };
    // RFC 8200 §5: no link with less has IPv6.
    let least = if network.ipv6.is_some() { MIN_MTU6 } else { MIN_MTU };
    uplink.map_or(DEFAULT_MTU, |link| link.mtu.clamp(least, MAX_MTU))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Link;

    fn link(index: u32, mtu: u32) -> Link {
        Link { index, up: true, mtu, ..Link::default() }
    }

    fn mtu(definition: &str, observed: &Observed) -> u32 {
        let head =
            r#""name": "a", "bridge": "virbr0", "subnet": "10.0.0.0/24", "domain": "a.vnet""#;
        let network = serde_json::from_str(&format!("{{{head}, {definition}}}")).unwrap();
        with_mtu(&network, observed).mtu()
    }

    #[test]
    fn it_is_the_one_that_is_given_or_the_uplinks() {
        let links = [("eth0", 1450), ("eth1", 9000), ("lo", 65536), ("tiny", 200)];
        let links = links
            .iter()
            .zip(1..)
            .map(|((name, mtu), index)| ((*name).to_owned(), link(index, *mtu)));
        let mut host = Observed { links: links.collect(), outlet: Some(1), ..Observed::default() };
        assert_eq!(mtu(r#""mode": "nat""#, &host), 1450);
        assert_eq!(mtu(r#""mode": "nat", "mtu": 1300"#, &host), 1300);
        assert_eq!(mtu(r#""mode": "routed", "uplink": "eth1""#, &host), 9000);
        assert_eq!(mtu(r#""mode": "hostonly""#, &host), 1500);
        // What no tap can carry, and less than IPv4 allows.
        assert_eq!(mtu(r#""mode": "nat", "uplink": "lo""#, &host), MAX_MTU);
        assert_eq!(mtu(r#""mode": "nat", "uplink": "tiny""#, &host), MIN_MTU);
        // Neither an uplink that is not there nor one that nobody has.
        assert_eq!(mtu(r#""mode": "nat", "uplink": "gone""#, &host), 1500);
        host.outlet = None;
        assert_eq!(mtu(r#""mode": "nat""#, &host), 1500);
    }
}
