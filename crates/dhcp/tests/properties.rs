//! What holds whatever clients send, in whatever order.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use common::*;
use dhcproto::v4::MessageType;
use proptest::prelude::*;
use vnet_dhcp::frame::Received;
use vnet_dhcp::{Decision, ServerConfig, Silence};
use vnet_types::MacAddr;

/// Ten clients, eight addresses, two of them reserved, one outside the range.
fn small() -> ServerConfig {
    ServerConfig {
        range: "192.168.122.10-192.168.122.16".parse().unwrap(),
        reservations: vec![reservation(1, 12, Some("db")), reservation(2, 99, None)],
        ..config()
    }
}

/// Bytes of the IP packet that carries the reply, at most.
const LIMIT: usize = 576;

#[derive(Debug, Clone)]
enum Step {
    Says(Says),
    /// The client takes whatever it was offered last.
    Takes(u8),
    Passes(u64),
    Crashes,
    /// The range grows or shrinks.
    Reconfigures(bool),
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        8 => (9u8..18).prop_map(ip),
        1 => Just(ip(99)),
        1 => Just(SERVER),
        1 => any::<u32>().prop_map(Ipv4Addr::from),
    ]
}

fn message() -> impl Strategy<Value = Says> {
    let number = 1u8..=10;
    let plain = (number, address()).prop_flat_map(|(number, address)| {
        prop_oneof![
            Just(discover(number)),
            Just(discover(number).option(80, &[])),
            Just(discover(number).option(50, &address.octets())),
            Just(select(number, address)),
            Just(reboot(number, address)),
            Just(renew(number, address)),
            Just(rebind(number, address)),
            Just(release(number, address)),
            Just(decline(number, address)),
            Just(Says { ciaddr: address, ..says(MessageType::Inform, number) }),
            Just(select(number, address).option(54, &[10, 0, 0, 1])),
        ]
    });
    let extras = (
        any::<bool>(),
        prop::option::weighted(0.3, 0u8..3),
        prop::option::weighted(0.3, 0u8..3),
        prop::option::weighted(0.2, prop::collection::vec(any::<u8>(), 0..40)),
    );
    (plain, extras).prop_map(|(says, (broadcast, id, name, wants))| {
        let mut says = Says { broadcast, ..says };
        if let Some(id) = id {
            says = says.id(&[0xff, id]);
        }
        if let Some(name) = name {
            says = says.named(["web", "db", "a.b"][usize::from(name)]);
        }
        match wants {
            Some(wants) => says.wants(&wants),
            None => says,
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => message().prop_map(Step::Says),
        10 => (1u8..=10).prop_map(Step::Takes),
        3 => (0u64..900).prop_map(Step::Passes),
        1 => (3000u64..5000).prop_map(Step::Passes),
        1 => Just(Step::Crashes),
        1 => any::<bool>().prop_map(Step::Reconfigures),
    ]
}

/// What each address was promised to, and until when, as the clients saw it.
type Promises = BTreeMap<Ipv4Addr, (String, u64)>;

fn key_of(says: &Says) -> String {
    let id = says.options.iter().find(|(code, _)| *code == 61);
    id.map_or_else(|| says.mac.to_string(), |(_, id)| format!("{id:?}"))
}

fn check(net: &mut Net, says: &Says, promises: &mut Promises) -> Result<Answer, TestCaseError> {
    let now = net.now.unix;
    let answer = net.hears(says);
    if let Some(reply) = &answer.reply {
        prop_assert!(reply.payload.len() + 28 <= LIMIT);
    }
    match answer.event.decision {
        Decision::Acked { ip, expires, .. } => {
            prop_assert_eq!(answer.acked(), ip);
            let reserved = net.server.config().reservations.iter().find(|r| r.ip == ip);
            match reserved {
                Some(reservation) => prop_assert_eq!(reservation.mac, Some(says.mac)),
                None => {
                    prop_assert!(net.server.config().range.contains(ip));
                    // A reserved address passes between the identifiers of its card.
                    if let Some((holder, until)) = promises.get(&ip) {
                        prop_assert!(
                            *holder == key_of(says) || *until <= now,
                            "{} is {}'s until {}, now {}",
                            ip,
                            holder,
                            until,
                            now
                        );
                    }
                }
            }
            // One client, one address.
            let key = key_of(says);
            promises.retain(|_, (holder, _)| *holder != key);
            promises.insert(ip, (key, expires));
        }
        Decision::Released { ip } | Decision::Declined { ip, .. } => {
            let (holder, _) = promises.remove(&ip).unwrap();
            prop_assert_eq!(holder, key_of(says));
        }
        Decision::Offered { ip, .. } => {
            if let Some((holder, until)) = promises.get(&ip) {
                let reserved = net.server.config().reservations.iter().any(|r| r.ip == ip);
                prop_assert!(*holder == key_of(says) || *until <= now || reserved);
            }
        }
        _ => prop_assert!(answer.persist.is_empty()),
    }
    Ok(answer)
}

fn names_are_unique(net: &Net) -> Result<(), TestCaseError> {
    let live = || net.server.leases().filter(|lease| lease.is_live(net.now.unix));
    let mut names: Vec<_> = live().filter_map(|lease| lease.hostname.clone()).collect();
    names.sort();
    let all = names.len();
    names.dedup();
    prop_assert_eq!(names.len(), all, "two guests have one name");
    Ok(())
}

fn run(steps: &[Step]) -> Result<(Vec<String>, Vec<u8>), TestCaseError> {
    let mut net = Net::with(small());
    let mut promises = Promises::new();
    let mut offers: BTreeMap<u8, Ipv4Addr> = BTreeMap::new();
    let mut told = Vec::new();
    for step in steps {
        match step {
            Step::Says(says) => {
                let answer = check(&mut net, says, &mut promises)?;
                if let Decision::Offered { ip, .. } = answer.event.decision {
                    offers.insert(says.mac.octets()[5], ip);
                }
                told.push(answer.event.to_string());
            }
            Step::Takes(number) => {
                if let Some(offered) = offers.get(number) {
                    let answer = check(&mut net, &select(*number, *offered), &mut promises)?;
                    told.push(answer.event.to_string());
                }
            }
            Step::Passes(seconds) => net.pass(*seconds),
            Step::Crashes => {
                let before: Vec<_> = net.server.leases().cloned().collect();
                net.crash();
                let after: Vec<_> = net.server.leases().cloned().collect();
                prop_assert_eq!(before, after);
            }
            Step::Reconfigures(large) => {
                let last = if *large { "16" } else { "13" };
                let range = format!("192.168.122.10-192.168.122.{last}").parse().unwrap();
                net.server.reconfigure(ServerConfig { range, ..small() }).unwrap();
            }
        }
        names_are_unique(&net)?;
        prop_assert!(net.server.leases().len() <= 8, "no more than there are addresses");
    }
    Ok((told, net.journal))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_address_has_two_live_clients(steps in prop::collection::vec(step(), 1..120)) {
        run(&steps)?;
    }

    #[test]
    fn the_same_messages_have_the_same_answers(steps in prop::collection::vec(step(), 1..60)) {
        prop_assert_eq!(run(&steps)?, run(&steps)?);
    }

    #[test]
    fn arbitrary_bytes_never_panic(payload in prop::collection::vec(any::<u8>(), 0..700)) {
        let mut net = Net::with(small());
        let received = Received {
            src_mac: mac(1),
            dst_mac: MacAddr::BROADCAST,
            src_ip: ANY,
            dst_ip: Ipv4Addr::BROADCAST,
            payload: &payload,
        };
        net.receives(&received);
    }

    #[test]
    fn arbitrary_options_never_panic(
        kind in 0u8..9,
        options in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..255)), 0..8),
        damage in prop::collection::vec((0usize..2000, any::<u8>()), 0..8),
    ) {
        let mut says = Says { kind, ..discover(1) };
        says.options = options;
        let mut payload = says.payload();
        for (at, value) in damage {
            let at = at % payload.len();
            payload[at] = value;
        }
        let received = Received {
            src_mac: mac(1),
            dst_mac: MacAddr::BROADCAST,
            src_ip: ANY,
            dst_ip: Ipv4Addr::BROADCAST,
            payload: &payload,
        };
        let answer = Net::with(small()).receives(&received);
        if let Some(reply) = answer.reply {
            prop_assert!(reply.payload.len() + 28 <= 1500);
        }
    }
}

#[test]
fn a_flood_of_new_cards_leaves_nothing_behind() {
    let mut net = Net::with(small());
    let known = net.dora(&discover(3));
    let mut silent = 0;
    for number in 0..10_000u32 {
        let [a, b, c, d] = number.to_be_bytes();
        let says = Says { mac: MacAddr([2, 0, a, b, c, d]), ..discover(0) };
        let answer = net.hears(&says);
        silent += usize::from(answer.reply.is_none());
    }
    // Seven in the range, less one reserved and one leased.
    assert_eq!(silent, 10_000 - 5);
    assert_eq!(net.server.leases().len(), 1);
    assert_eq!(net.hears(&discover(4)).silent(), Silence::Exhausted);
    assert_eq!(net.hears(&renew(3, known)).acked(), known, "who has an address is not affected");
    assert_eq!(net.dora(&discover(1)), ip(12), "nor who has a reservation");
    net.pass(20);
    net.dora(&discover(4));
}

#[test]
fn a_flood_is_offered_no_more_than_is_remembered() {
    let subnet = "10.0.0.0/12".parse().unwrap();
    let (server, range) = (Ipv4Addr::new(10, 0, 0, 1), "10.0.1.0-10.3.255.255".parse().unwrap());
    let mut net = Net::with(ServerConfig { subnet, server, range, routers: vec![], ..config() });
    let card = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        Says { mac: MacAddr([2, 0, 0, a, b, c]), ..discover(0) }
    };
    let take = |ip: Ipv4Addr| says(MessageType::Request, 1).option(50, &ip.octets());
    let offered = net.hears(&discover(1)).offered();
    net.hears(&take(offered).option(54, &server.octets())).acked();
    let silent = (0..70_000).filter(|number| net.hears(&card(*number)).reply.is_none()).count();
    assert_eq!(silent, 70_000 - 65_536);
    assert_eq!(net.hears(&card(80_000)).silent(), Silence::TooManyOffers);
    let renewed = Says { ciaddr: offered, to: server, ..says(MessageType::Request, 1) };
    assert_eq!(net.hears(&renewed).acked(), offered, "who has an address keeps it");
    net.pass(60);
    net.hears(&card(80_000)).offered();
}
