//! What holds whatever clients send.

use std::collections::{BTreeMap, BTreeSet};

use dhcproto::v6::Message;
use dhcproto::{Decodable, Decoder};
use proptest::prelude::*;
use vnet_dhcp::Identity;
use vnet_dhcp::v6::{MAX_LEASES, MAX_PER_CARD, Reservation, ReservedFor, ServerConfig};

use super::client::{
    Net, Says, config, confirm, decline, duid, inform, ip, mac, rebind, release, renew, request,
    says, solicit,
};

fn anything() -> impl Strategy<Value = Says> {
    let address = (0u8..20).prop_map(|n| match n {
        18 => "fd00::1".to_owned(),
        19 => "fd55::1".to_owned(),
        n => format!("fd00::1{n:02x}"),
    });
    let addresses = prop::collection::vec(address, 0..3);
    (0u8..9, 1u8..12, addresses, any::<bool>(), 1u8..12, 0u32..3).prop_map(
        |(kind, number, has, rapid, card, iaid)| {
            let has: Vec<&str> = has.iter().map(String::as_str).collect();
            let said = match kind {
                0 => solicit(number),
                1 => request(number, &has),
                2 => confirm(number, &has),
                3 => renew(number, &has),
                4 => rebind(number, &has),
                5 => release(number, &has),
                6 => decline(number, &has),
                7 => inform(number),
                _ => says(1, number).ia(iaid, &has).ia(iaid + 1, &has),
            };
            let said = if rapid { said.rapid() } else { said };
            // Some speak under another card's identifier.
            Says { mac: Some(mac(if card > 9 { number } else { card })), ..said }
        },
    )
}

fn small(identity: Identity) -> ServerConfig {
    let reserve = |client, address| Reservation { client, ip: ip(address), hostname: None };
    ServerConfig {
        range: Some(ip("fd00::100")..=ip("fd00::10f")),
        identity,
        reservations: vec![
            reserve(ReservedFor::Card(mac(1)), "fd00::105"),
            reserve(ReservedFor::Duid(duid(2)), "fd00::200"),
        ],
        ..config()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_address_is_two_clients_at_a_time(
        identity in prop_oneof![Just(Identity::ClientId), Just(Identity::Hardware)],
        steps in prop::collection::vec((anything(), 0u64..900, any::<bool>()), 1..60),
    ) {
        let mut net = Net::with(small(identity));
        // Who was told that it has which address, and until when.
        let mut told: BTreeMap<std::net::Ipv6Addr, (Vec<u8>, u64)> = BTreeMap::new();
        for (says, wait, crash) in steps {
            net.pass(wait);
            let heard = net.hears(&says);
            let live: BTreeSet<_> =
                net.server.leases().filter(|l| l.is_live(net.now.unix)).map(|l| l.ip).collect();
            for lease in net.server.leases().filter(|l| l.is_live(net.now.unix)) {
                let holder = lease.duid.as_bytes().to_vec();
                if let Some((other, until)) = told.get(&lease.ip) {
                    let reserved = net.server.config().reservations.iter().any(|r| r.ip == lease.ip);
                    prop_assert!(
                        *other == holder || *until <= net.now.unix || reserved,
                        "{} was another's", lease.ip
                    );
                }
                told.insert(lease.ip, (holder, lease.expires));
                prop_assert!(net.server.config().prefix.contains(&lease.ip));
                prop_assert_ne!(lease.ip, net.server.config().address);
            }
            told.retain(|ip, _| live.contains(ip));
            // What the reply says is what is stored.
            if !heard.bytes.is_empty() {
                let message = Message::decode(&mut Decoder::new(&heard.bytes)).unwrap();
                prop_assert!(heard.bytes.len() <= 1232, "{}", heard.bytes.len());
                let _ = message;
            }
            if crash {
                net.crash();
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut net = Net::new();
        net.receives(&solicit(1), &bytes);
        for kind in [1, 3, 5, 11, 12] {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            net.receives(&solicit(1), &bytes);
        }
        prop_assert!(net.server.leases().len() <= 8);
    }

    #[test]
    fn damaged_messages_never_panic(
        says in anything(), at in 0usize..200, value: u8, cut in 0usize..200,
    ) {
        let mut bytes = says.named("web").wants(&[23, 39]).bytes();
        let length = bytes.len();
        bytes[at % length] = value;
        let mut net = Net::new();
        net.receives(&solicit(1), &bytes);
        net.receives(&solicit(1), &bytes[..cut % length]);
        prop_assert!(net.server.leases().len() <= 8);
    }
}

#[test]
fn a_flood_of_identifiers_costs_a_bounded_amount_of_memory() {
    // Of one card, which a guarded port holds a guest to.
    let mut net = Net::with(ServerConfig {
        range: Some(ip("fd00::1:0:0:0")..=ip("fd00::1:ffff:ffff:ffff")),
        ..config()
    });
    let flood = |number: u32| {
        request(1, &[]).without(1).option(1, &[&[0, 4][..], &number.to_be_bytes()].concat())
    };
    for number in 0..1000 {
        net.hears(&flood(number));
    }
    assert_eq!(net.server.leases().len(), MAX_PER_CARD);
    // Of any number of cards: others are told that there is no more, and nothing grows.
    let card = |number: u32| {
        let [a, b, c, d] = number.to_be_bytes();
        vnet_types::MacAddr([0x52, 0x54, a, b, c, d])
    };
    for number in 0..MAX_LEASES as u32 + 100 {
        net.hears(&Says { mac: Some(card(number)), ..flood(number) });
        net.journal.clear();
    }
    assert_eq!(net.server.leases().len(), MAX_LEASES);
}
