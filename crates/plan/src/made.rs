//! The IPv6 addresses that guests have made for themselves (SLAAC, RFC 4862), as far as they can be
//! held to be theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use vnet_types::{MacAddr, NetworkDefinition};

use crate::Leased6;

/// A guest has been heard to use an address, at its own port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Its card, to which its port holds it.
    pub mac: MacAddr,
    /// The address.
    pub address: Ipv6Addr,
}

/// Each guest's own address among `claims`, which come in the order in which they were first heard,
/// with all cards in `cards` on the network.
///
/// An address that somebody has by lease or reservation, or that follows from another card, is
/// none: those the guard keeps for their owners. Of those that are made at random, the one who was
/// heard first has it, as in duplicate address detection. Of several, the one that follows from the
/// card counts, or else the first: the later ones are temporary (RFC 8981). Where ports are not
/// guarded, anybody can claim anything, and none counts.
#[must_use]
pub fn made(
    network: &NetworkDefinition,
    claims: &[Claim],
    cards: &BTreeSet<MacAddr>,
    leased: &Leased6,
) -> BTreeMap<MacAddr, Ipv6Addr> {
    let Some(ipv6) = network.ipv6.as_ref().filter(|ipv6| ipv6.slaac && network.anti_spoofing)
    else {
        return BTreeMap::new();
    };
    let mut taken: BTreeSet<Ipv6Addr> = leased.iter().map(|(_, address)| *address).collect();
    taken.extend(ipv6.reservations.iter().map(|one| one.ip));
    let of_cards: BTreeMap<Ipv6Addr, MacAddr> =
        cards.iter().filter_map(|mac| Some((ipv6.prefix.eui64(*mac)?, *mac))).collect();
    let mut found = BTreeMap::new();
    for Claim { mac, address } in claims {
        let owner = of_cards.get(address);
        if !ipv6.prefix.guests().contains(*address)
            || !cards.contains(mac)
            || owner.is_some_and(|owner| owner != mac)
            || !taken.insert(*address)
        {
            continue;
        }
        match owner {
            Some(_) => drop(found.insert(*mac, *address)),
            None => drop(found.entry(*mac).or_insert(*address)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
    const DB: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
    const WEBS: &str = "fd00::5054:ff:fe00:1";

    fn network(anti_spoofing: bool) -> NetworkDefinition {
        let value = serde_json::json!({
            "name": "lab", "mode": "nat", "bridge": "virbr0", "subnet": "10.0.0.0/24",
            "domain": "lab.vnet", "anti_spoofing": anti_spoofing,
            "ipv6": {
                "prefix": "fd00::/64", "slaac": true,
                "reservations": [{ "mac": DB, "ip": "fd00::10" }],
            },
        });
        serde_json::from_value(value).unwrap()
    }

    fn found(claims: &[(MacAddr, &str)], anti_spoofing: bool) -> Vec<(MacAddr, String)> {
        let claim =
            |(mac, text): &(MacAddr, &str)| Claim { mac: *mac, address: text.parse().unwrap() };
        let claims: Vec<_> = claims.iter().map(claim).collect();
        let leased = [(DB, "fd00::20".parse().unwrap())].into();
        let found = made(&network(anti_spoofing), &claims, &[WEB, DB].into(), &leased);
        found.into_iter().map(|(mac, address)| (mac, address.to_string())).collect()
    }

    #[test]
    fn the_first_one_counts_and_before_it_the_one_of_the_card() {
        assert_eq!(found(&[(WEB, "fd00::a"), (WEB, "fd00::b")], true), [(WEB, "fd00::a".into())]);
        assert_eq!(found(&[(WEB, "fd00::a"), (WEB, WEBS)], true), [(WEB, WEBS.into())]);
        let both = [(WEB, "fd00::a"), (DB, "fd00::a"), (DB, "fd00::b")];
        assert_eq!(found(&both, true), [(WEB, "fd00::a".into()), (DB, "fd00::b".into())]);
    }

    #[test]
    fn what_is_anothers_or_nobodys_to_make_does_not_count() {
        for claim in ["fd00::10", "fd00::20", "fd00::1", "fd01::5", "fe80::1"] {
            assert_eq!(found(&[(WEB, claim)], true), [], "{claim}");
        }
        assert_eq!(found(&[(DB, WEBS)], true), []);
        let stranger = MacAddr([0x52, 0x54, 0, 0, 0, 3]);
        assert_eq!(found(&[(stranger, "fd00::a")], true), []);
        assert_eq!(found(&[(WEB, "fd00::a")], false), []);
    }
}
