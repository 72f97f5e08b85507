//! What a router says, when, and to whom: clause by clause of RFC 4861 §6, RFC 4191 and RFC 8106.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::net::Ipv6Addr;
use std::time::Duration;

use proptest::prelude::*;
use vnet_dhcp::ra::{
    ALL_NODES, Addressing, Advertisement, Advertiser, Config, ConfigError, Difference, Invalid,
    Preference, Prefix, PrefixUse, Received, Route, Solicitation, Station, Target,
    parse_advertisement, parse_solicitation,
};
use vnet_dhcp::{frame, ip6};
use vnet_types::MacAddr;

const START: Duration = Duration::from_secs(5000);
const SECOND: Duration = Duration::from_secs(1);
const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn config() -> Config {
    Config {
        prefixes: vec![Prefix::new("fd00::/64".parse().unwrap(), PrefixUse::Both)],
        dns_servers: vec![ip("fd00::1")],
        search: vec!["default.vnet".parse().unwrap()],
        ..Config::new(MAC, 1400, Addressing::Dhcp)
    }
}

fn router() -> Advertiser {
    Advertiser::new(config(), START).unwrap()
}

fn asks(address: &str) -> Solicitation {
    Solicitation { from: Some(Station { ip: ip(address), mac: Some(MacAddr([2; 6])) }) }
}

/// All advertisements up to `end`, and when each left.
fn run(router: &mut Advertiser, end: Duration, random: u64) -> Vec<(Duration, Advertisement)> {
    let mut all = Vec::new();
    while let Some(due) = router.next().filter(|&due| due <= end) {
        assert_eq!(router.poll(due - Duration::from_nanos(1), random), None, "nothing is early");
        let said = router.poll(due, random).unwrap();
        all.push((due, said));
    }
    all
}

/// The options of an advertisement: type and all of its bytes.
fn options(message: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut all, mut rest) = (Vec::new(), &message[16..]);
    while let [code, units, ..] = *rest {
        let (option, tail) = rest.split_at(usize::from(units) * 8);
        all.push((code, option.to_vec()));
        rest = tail;
    }
    all
}

fn option(message: &[u8], code: u8) -> Vec<u8> {
    options(message).into_iter().find(|(other, _)| *other == code).unwrap().1
}

fn said(config: Config) -> Vec<u8> {
    Advertiser::new(config, START).unwrap().poll(START, 0).unwrap().message
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

#[test]
fn an_advertisement_says_what_the_link_is_like() {
    // RFC 4861 §4.2, §6.2.3
    let message = said(config());
    assert_eq!(message[..8], [134, 0, 0, 0, 64, 0xc0, 0x07, 0x08]);
    assert_eq!(message[8..16], [0; 8], "reachable time and retransmission timer are unspecified");
    assert_eq!(option(&message, 1)[2..], MAC.octets());
    assert_eq!(number(&option(&message, 5)[4..]), 1400);
    let prefix = option(&message, 3);
    assert_eq!(prefix[..4], [3, 4, 64, 0xc0]);
    assert_eq!((number(&prefix[4..]), number(&prefix[8..])), (2_592_000, 604_800));
    assert_eq!(prefix[16..], ip("fd00::").octets());
    // RFC 8106 §5.1, §5.2
    let servers = option(&message, 25);
    assert_eq!((servers[1], number(&servers[4..])), (3, 1800));
    assert_eq!(servers[8..], ip("fd00::1").octets());
    let names = option(&message, 31);
    assert_eq!(&names[8..], b"\x07default\x04vnet\0\0\0");
}

#[test]
fn the_flags_say_how_guests_get_addresses() {
    for (addressing, flags) in
        [(Addressing::Slaac, 0), (Addressing::SlaacAndOptions, 0x40), (Addressing::Dhcp, 0xc0)]
    {
        assert_eq!(said(Config { addressing, ..config() })[5], flags);
    }
    for (used_for, flags) in
        [(PrefixUse::OnLink, 0x80), (PrefixUse::Autonomous, 0x40), (PrefixUse::Both, 0xc0)]
    {
        let prefixes = vec![Prefix::new("fd00::/64".parse().unwrap(), used_for)];
        assert_eq!(option(&said(Config { prefixes, ..config() }), 3)[3], flags);
    }
}

#[test]
fn preferences_and_routes_are_those_of_rfc_4191() {
    for (preference, bits) in
        [(Preference::High, 0x08), (Preference::Medium, 0), (Preference::Low, 0x18)]
    {
        let addressing = Addressing::Slaac;
        let net = "fd77::/48".parse().unwrap();
        let routes = vec![Route { net, preference, lifetime_seconds: 60 }];
        let message = said(Config { preference, addressing, routes, ..config() });
        assert_eq!(message[5], bits);
        let route = option(&message, 24);
        assert_eq!(route[..8], [24, 2, 48, bits, 0, 0, 0, 60]);
        assert_eq!(route[8..], ip("fd77::").octets()[..8]);
        // §2.2: one that is no default router has no preference.
        assert_eq!(said(Config { preference, addressing, lifetime_seconds: 0, ..config() })[5], 0);
    }
    for (net, length) in [("::/0", 8), ("fd77:1:2:3::/65", 24)] {
        let (net, preference) = (net.parse().unwrap(), Preference::Medium);
        let routes = vec![Route { net, preference, lifetime_seconds: 60 }];
        assert_eq!(option(&said(Config { routes, ..config() }), 24).len(), length);
    }
}

#[test]
fn many_names_and_servers_fill_several_options() {
    let search = (0..20).map(|n| format!("{}{n}.example", "x".repeat(50)).parse().unwrap());
    let dns_servers = (0..130).map(|n| Ipv6Addr::from(0xfd00_u128 << 112 | n));
    let (search, dns_servers) = (search.collect(), dns_servers.collect());
    let message = said(Config { mtu: 9000, search, dns_servers, ..config() });
    let count = |code| options(&message).iter().filter(|(other, _)| *other == code).count();
    assert_eq!((count(25), count(31)), (2, 3));
    let whole: usize = options(&message).iter().map(|(_, option)| option.len()).sum();
    assert_eq!(whole + 16, message.len());
}

#[test]
fn configurations_that_rfc_4861_forbids_are_refused() {
    let refused = |config: Config| Advertiser::new(config, START).unwrap_err();
    let seconds = Duration::from_secs;
    assert_eq!(refused(Config { mtu: 1279, ..config() }), ConfigError::Mtu(1279));
    for (min, max) in [(2, 600), (451, 600), (3, 3), (200, 1801)] {
        let (min_interval, max_interval) = (seconds(min), seconds(max));
        let error = refused(Config { min_interval, max_interval, ..config() });
        assert!(matches!(error, ConfigError::Interval { .. }), "{error}");
    }
    for lifetime_seconds in [1, 599, 9001] {
        let error = refused(Config { lifetime_seconds, ..config() });
        assert_eq!(error, ConfigError::Lifetime(lifetime_seconds));
    }
    let prefix = Prefix::new("fd00::/64".parse().unwrap(), PrefixUse::Both);
    let longer = Prefix { valid_seconds: 1, preferred_seconds: 2, ..prefix };
    let error = refused(Config { prefixes: vec![longer], ..config() });
    assert_eq!(error, ConfigError::Preferred(prefix.net));
    let local = Prefix::new("fe80::/64".parse().unwrap(), PrefixUse::Both);
    let error = refused(Config { prefixes: vec![local], ..config() });
    assert_eq!(error, ConfigError::LinkLocal(local.net));
    let error = refused(Config { prefixes: vec![prefix; 50], ..config() });
    assert!(matches!(error, ConfigError::TooLong { mtu: 1400, .. }), "{error}");
}

#[test]
fn three_come_soon_and_then_one_at_a_random_interval() {
    // RFC 4861 §6.2.4
    for (random, usual) in [(0, 200), (u64::MAX, 599)] {
        let mut router = router();
        let all = run(&mut router, START + 2000 * SECOND, random);
        let times: Vec<u64> = all.iter().map(|(at, _)| (*at - START).as_secs()).collect();
        assert_eq!(times[..3], [0, 16, 32]);
        assert_eq!(times[3] - times[2], usual);
        assert!(all.iter().all(|(_, said)| said.to == Target::AllNodes));
    }
}

#[test]
fn one_who_asks_is_answered_within_half_a_second() {
    // RFC 4861 §6.2.6
    for random in [0, u64::MAX / 2, u64::MAX] {
        let mut router = router();
        run(&mut router, START + 100 * SECOND, 0);
        let now = START + 100 * SECOND;
        router.solicited(now, &asks("fe80::5"), random);
        let all = run(&mut router, now + SECOND, random);
        let [(at, said)] = all.as_slice() else { panic!("{all:?}") };
        assert!(*at <= now + SECOND / 2);
        assert_eq!(said.to, Target::One(asks("fe80::5").from.unwrap()));
    }
}

#[test]
fn an_answer_to_one_leaves_the_timer_of_all_as_it_is() {
    let mut router = router();
    run(&mut router, START + 100 * SECOND, 0);
    let next = router.next().unwrap();
    router.solicited(START + 100 * SECOND, &asks("fe80::5"), 0);
    run(&mut router, START + 101 * SECOND, 0);
    assert_eq!(router.next(), Some(next));
}

#[test]
fn one_without_an_address_is_answered_with_all_the_others() {
    let mut router = router();
    run(&mut router, START + 100 * SECOND, 0);
    let now = START + 100 * SECOND;
    router.solicited(now, &Solicitation { from: None }, 0);
    let all = run(&mut router, now + SECOND, 0);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].1.to, Target::AllNodes);
}

#[test]
fn all_nodes_are_told_every_three_seconds_at_most() {
    // RFC 4861 §6.2.6, MIN_DELAY_BETWEEN_RAS
    let mut router = router();
    let mut told = run(&mut router, START + 40 * SECOND, 0);
    for step in 0..400_u32 {
        let now = START + 40 * SECOND + step * SECOND / 20;
        router.solicited(now, &Solicitation { from: None }, u64::from(step) << 55);
        told.extend(run(&mut router, now, u64::MAX / 3));
    }
    assert!(told.len() > 6, "they are told");
    for pair in told.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= 3 * SECOND, "{:?}", pair[1].0 - pair[0].0);
    }
}

#[test]
fn a_solicitation_just_before_an_advertisement_to_all_is_answered_by_it() {
    let mut router = router();
    run(&mut router, START + 33 * SECOND, 0);
    let due = router.next().unwrap();
    router.solicited(due - SECOND / 10, &asks("fe80::5"), u64::MAX);
    let all = run(&mut router, due + SECOND, 0);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].1.to, Target::AllNodes);
}

#[test]
fn a_flood_of_solicitations_costs_a_bounded_amount() {
    let mut router = router();
    run(&mut router, START + 100 * SECOND, 0);
    let now = START + 100 * SECOND;
    for number in 0..10_000_u128 {
        let from = Station { ip: Ipv6Addr::from(0xfe80_u128 << 112 | number), mac: None };
        router.solicited(now, &Solicitation { from: Some(from) }, number as u64);
    }
    let all = run(&mut router, now + 2 * SECOND, 0);
    assert!(all.len() <= 65, "{}", all.len());
    assert_eq!(all.iter().filter(|(_, said)| said.to == Target::AllNodes).count(), 1);
}

#[test]
fn farewells_say_that_nothing_is_to_be_used_any_longer() {
    // RFC 4861 §6.2.5
    let mut router = router();
    run(&mut router, START, 0);
    router.solicited(START + SECOND, &asks("fe80::5"), 0);
    router.cease(START + SECOND);
    let all = run(&mut router, START + 1000 * SECOND, 0);
    let times: Vec<u64> = all.iter().map(|(at, _)| (*at - START).as_secs()).collect();
    assert_eq!(times, [3, 6, 9], "three, and three seconds after whatever went before");
    for (_, said) in &all {
        assert_eq!(said.message[6..8], [0, 0]);
        assert_eq!(said.message, router.farewell());
        assert_eq!(number(&option(&said.message, 25)[4..]), 0);
        assert_eq!(number(&option(&said.message, 31)[4..]), 0);
        // Connections may go on over addresses that serve no new ones.
        let prefix = option(&said.message, 3);
        assert_eq!((number(&prefix[4..]), number(&prefix[8..])), (2_592_000, 0));
    }
    assert_eq!(router.next(), None);
    router.solicited(START + 1000 * SECOND, &asks("fe80::5"), 0);
    assert_eq!(router.poll(START + 2000 * SECOND, 0), None);
}

#[test]
fn a_change_is_told_soon_and_what_is_gone_is_taken_back() {
    // RFC 4861 §6.2.4
    let mut router = router();
    run(&mut router, START + 100 * SECOND, 0);
    let now = START + 100 * SECOND;
    let prefixes = vec![Prefix::new("fd01::/64".parse().unwrap(), PrefixUse::Both)];
    let changed = Config { prefixes, dns_servers: vec![ip("fd01::1")], ..config() };
    router.reconfigure(changed.clone(), now).unwrap();
    let all = run(&mut router, now + 40 * SECOND, 0);
    assert_eq!(all.len(), 3);
    let of = |message: &[u8], code| {
        options(message).into_iter().filter(|(other, _)| *other == code).collect::<Vec<_>>()
    };
    let prefixes = of(&all[0].1.message, 3);
    assert_eq!(prefixes[1].1[16..], ip("fd00::").octets());
    assert_eq!(prefixes[1].1[4..12], [0; 8]);
    assert_eq!(number(&of(&all[0].1.message, 25)[1].1[4..]), 0);
    // Two hours later nobody can have anything of it any longer.
    let late = run(&mut router, now + 9000 * SECOND, 0);
    assert_eq!(of(&late.last().unwrap().1.message, 3).len(), 1);
    // The same again is no change.
    let next = router.next();
    router.reconfigure(changed, now + 9000 * SECOND).unwrap();
    assert_eq!(router.next(), next);
}

#[test]
fn a_prefix_that_comes_back_is_not_taken_back() {
    let mut router = router();
    let other = vec![Prefix::new("fd01::/64".parse().unwrap(), PrefixUse::Both)];
    router.reconfigure(Config { prefixes: other, ..config() }, START).unwrap();
    router.reconfigure(config(), START).unwrap();
    let message = router.poll(START, 0).unwrap().message;
    let prefixes = options(&message).into_iter().filter(|(code, _)| *code == 3);
    let life: Vec<_> = prefixes.map(|(_, p)| (p[16..18].to_vec(), number(&p[4..]))).collect();
    assert_eq!(life, [(vec![0xfd, 0], 2_592_000), (vec![0xfd, 1], 0)]);
}

fn solicitation(options: &[u8]) -> Vec<u8> {
    [&[133, 0, 0, 0, 0, 0, 0, 0][..], options].concat()
}

fn received<'a>(src: &str, hop_limit: u8, message: &'a [u8]) -> Received<'a> {
    Received { src_mac: None, src_ip: ip(src), hop_limit, message }
}

#[test]
fn solicitations_are_checked() {
    // RFC 4861 §6.1.1
    let card = [1, 1, 2, 2, 2, 2, 2, 2];
    let plain = solicitation(&[]);
    let with_card = solicitation(&card);
    let parse = |src, hops, message: &[u8]| parse_solicitation(&received(src, hops, message));
    assert_eq!(parse("::", 255, &plain), Ok(Solicitation { from: None }));
    assert_eq!(parse("fe80::5", 255, &with_card), Ok(asks("fe80::5")));
    assert_eq!(parse("fe80::5", 254, &plain), Err(Invalid::HopLimit(254)));
    assert_eq!(parse("ff02::1", 255, &plain), Err(Invalid::Source(ip("ff02::1"))));
    assert_eq!(parse("::", 255, &with_card), Err(Invalid::UnexpectedCard));
    assert_eq!(parse("::", 255, &plain[..7]), Err(Invalid::Truncated));
    assert_eq!(parse("::", 255, &[]), Err(Invalid::Truncated));
    let coded = [&[133, 1][..], &plain[2..]].concat();
    assert_eq!(parse("::", 255, &coded), Err(Invalid::Code(1)));
    assert_eq!(parse("::", 255, &solicitation(&[1, 0, 0, 0])), Err(Invalid::EmptyOption));
    assert_eq!(parse("::", 255, &solicitation(&[1, 2, 0, 0])), Err(Invalid::Truncated));
    assert_eq!(parse("::", 255, &solicitation(&[1])), Err(Invalid::Truncated));
    // "The contents of any … unrecognized options MUST be ignored."
    let unknown = solicitation(&[200, 1, 9, 9, 9, 9, 9, 9]);
    assert_eq!(parse("::", 255, &unknown), Ok(Solicitation { from: None }));
    assert_eq!(parse("fe80::1", 255, &said(config())), Err(Invalid::Type));
}

#[test]
fn advertisements_of_others_are_checked_and_compared() {
    // RFC 4861 §6.1.2, §6.2.7
    let message = said(config());
    let parse = |src, hops, message: &[u8]| parse_advertisement(&received(src, hops, message));
    let same = parse("fe80::9", 255, &message).unwrap();
    assert_eq!((same.lifetime_seconds, same.mtu, same.prefixes.len()), (1800, Some(1400), 1));
    assert_eq!(config().differences(&same), []);
    assert_eq!(parse("fd00::9", 255, &message), Err(Invalid::Source(ip("fd00::9"))));
    assert_eq!(parse("fe80::9", 64, &message), Err(Invalid::HopLimit(64)));
    assert_eq!(parse("fe80::9", 255, &message[..15]), Err(Invalid::Truncated));
    assert_eq!(parse("fe80::9", 255, &message[..20]), Err(Invalid::Truncated));
    let short = Prefix { valid_seconds: 60, preferred_seconds: 60, ..config().prefixes[0] };
    let (prefixes, addressing) = (vec![short], Addressing::Slaac);
    let other = said(Config { mtu: 1500, hop_limit: 32, prefixes, addressing, ..config() });
    let differences = config().differences(&parse("fe80::9", 255, &other).unwrap());
    assert_eq!(
        differences,
        [
            Difference::HopLimit(64, 32),
            Difference::Addressing(Addressing::Dhcp, Addressing::Slaac),
            Difference::Mtu(1400, 1500),
            Difference::Lifetimes(short.net),
        ]
    );
}

#[test]
fn an_advertisement_survives_its_frame() {
    let mut bytes = Vec::new();
    let (from, group) = ((MAC, ip("fe80::1")), (ip6::group_mac(ALL_NODES), ALL_NODES));
    ip6::build_icmp(&mut bytes, from, group, &said(config()));
    let packet = ip6::parse(&bytes, frame::Checksum::Verify).unwrap();
    assert_eq!(packet.dst_mac.to_string(), "33:33:00:00:00:01");
    let received = Received::new(&packet).unwrap();
    assert_eq!(parse_advertisement(&received).unwrap().router, ip("fe80::1"));
}

#[test]
fn what_a_definition_asks_for_is_advertised() {
    let text = r#"{"name":"default","mode":"nat","bridge":"virbr0","subnet":"192.168.122.0/24",
        "domain":"default.vnet","ipv6":{"prefix":"fd12::/64"}}"#;
    let mut network: vnet_types::NetworkDefinition = serde_json::from_str(text).unwrap();
    let config = Config::for_network(&network, MAC).unwrap();
    assert_eq!((config.addressing, config.lifetime_seconds), (Addressing::SlaacAndOptions, 1800));
    assert_eq!(config.prefixes[0].used_for, PrefixUse::Both);
    Advertiser::new(config, START).unwrap();
    network.mode = vnet_types::Mode::Hostonly;
    let ipv6 = network.ipv6.as_mut().unwrap();
    (ipv6.slaac, ipv6.range) = (false, Some("fd12::1000-fd12::1fff".parse().unwrap()));
    let config = Config::for_network(&network, MAC).unwrap();
    assert_eq!((config.addressing, config.lifetime_seconds), (Addressing::Dhcp, 0));
    assert_eq!(config.prefixes[0].used_for, PrefixUse::OnLink);
    let server = vnet_dhcp::v6::ServerConfig::for_network(&network, MAC).unwrap();
    assert_eq!(server.range, Some(ip("fd12::1000")..=ip("fd12::1fff")));
    assert_eq!((server.address, server.identity), (ip("fd12::1"), vnet_dhcp::Identity::Hardware));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind: bool) {
        let head = if kind { [133, 0] } else { [134, 0] };
        for message in [bytes.clone(), [&head[..], &bytes].concat()] {
            for source in ["::", "fe80::5"] {
                let received = received(source, 255, &message);
                let _ = parse_solicitation(&received);
                let _ = parse_advertisement(&received);
            }
        }
    }

    #[test]
    fn all_nodes_are_never_told_too_often(
        steps in prop::collection::vec((0u64..4000, 0u8..6, any::<u64>()), 1..80),
    ) {
        let mut router = router();
        let mut now = START;
        let mut last: Option<Duration> = None;
        for (millis, act, random) in steps {
            now += Duration::from_millis(millis);
            let addressless = Solicitation { from: None };
            match act {
                0 | 1 => router.solicited(now, &addressless, random),
                2 => router.solicited(now, &asks("fe80::5"), random),
                3 => {
                    let other = Config { mtu: 1300 + (random % 90) as u32, ..config() };
                    router.reconfigure(other, now).unwrap();
                }
                4 if random.is_multiple_of(16) => router.cease(now),
                _ => {}
            }
            while let Some(said) = router.poll(now, random) {
                if said.to == Target::AllNodes {
                    prop_assert!(last.is_none_or(|last| now - last >= 3 * SECOND));
                    last = Some(now);
                }
            }
            prop_assert!(router.next().is_none_or(|due| due > now));
        }
    }
}
