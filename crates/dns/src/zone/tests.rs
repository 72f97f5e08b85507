use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use proptest::prelude::*;

use vnet_types::{Mx, Srv};

use super::*;

fn key(text: &str) -> Key {
    Key::read(&name::wire(text)).unwrap()
}

/// The records as others read them, in an answer for `text`.
fn read(text: &str, set: &RrSet) -> Vec<hickory_proto::rr::Record> {
    let mut message = vec![0, 0, 0x80, 0, 0, 1];
    message.extend_from_slice(&set.count.to_be_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&name::wire(text));
    message.extend_from_slice(&[0, 255, 0, 1]);
    set.write(None, &mut message);
    Message::from_vec(&message).unwrap().answers
}

/// The owner of an SOA record.
fn owner(soa: &Soa) -> String {
    let key = Key::read(soa.as_bytes()).unwrap();
    name::text(key.as_bytes())
}

fn zone_of(domain: &str, subnet: &str, hosts: &[(&str, &str)]) -> Zone {
    let mut builder = Zone::builder(domain.parse().unwrap(), subnet.parse().unwrap());
    for (host, addr) in hosts {
        builder.insert(&host.parse().unwrap(), addr.parse().unwrap()).unwrap();
    }
    builder.build()
}

static ZONE: std::sync::LazyLock<Zone> = std::sync::LazyLock::new(default_zone);

fn default_zone() -> Zone {
    zone_of(
        "default.vnet",
        "192.168.122.0/24",
        &[
            ("web", "192.168.122.9"),
            ("web", "fd00::9"),
            ("a.deep.host", "192.168.122.10"),
            ("db.default.vnet", "192.168.122.11"),
            ("alias", "192.168.122.9"),
        ],
    )
}

/// The answer as one line: `owner type data; ...`, `nodata`, `nxdomain` or `not ours`.
fn ask(zone: &Zone, text: &str, rtype: RecordType) -> String {
    match zone.lookup(&key(text), rtype.into()) {
        Answer::Records(set) | Answer::Alias(set) => {
            let all: Vec<_> = read(text, set)
                .iter()
                .map(|r| format!("{} {} {}", r.name, r.record_type(), r.data))
                .collect();
            all.join("; ")
        }
        Answer::NoData(soa) => format!("nodata {}", owner(soa)),
        Answer::NxDomain(soa) => format!("nxdomain {}", owner(soa)),
        Answer::NotOurs => "not ours".to_owned(),
    }
}

#[test]
fn guests_have_addresses_in_the_domain() {
    let zone = default_zone();
    for (query, rtype, answer) in [
        ("web.default.vnet.", RecordType::A, "web.default.vnet. A 192.168.122.9"),
        ("WEB.Default.VNET.", RecordType::A, "WEB.Default.VNET. A 192.168.122.9"),
        ("web.default.vnet.", RecordType::AAAA, "web.default.vnet. AAAA fd00::9"),
        ("web.default.vnet.", RecordType::TXT, "nodata default.vnet."),
        ("db.default.vnet.", RecordType::A, "db.default.vnet. A 192.168.122.11"),
        ("gateway.default.vnet.", RecordType::A, "gateway.default.vnet. A 192.168.122.1"),
        ("none.default.vnet.", RecordType::A, "nxdomain default.vnet."),
        ("x.web.default.vnet.", RecordType::A, "nxdomain default.vnet."),
        ("example.com.", RecordType::A, "not ours"),
        ("other.vnet.", RecordType::A, "not ours"),
        ("default.vnet.", RecordType::NS, "default.vnet. NS gateway.default.vnet."),
        ("default.vnet.", RecordType::A, "nodata default.vnet."),
    ] {
        assert_eq!(ask(&zone, query, rtype), answer, "{query} {rtype}");
    }
}

#[test]
fn an_empty_non_terminal_exists() {
    let zone = default_zone();
    assert_eq!(ask(&zone, "deep.host.default.vnet.", RecordType::A), "nodata default.vnet.");
    assert_eq!(ask(&zone, "host.default.vnet.", RecordType::A), "nodata default.vnet.");
    assert_eq!(ask(&zone, "b.deep.host.default.vnet.", RecordType::A), "nxdomain default.vnet.");
}

#[test]
fn any_is_answered_with_one_set() {
    let zone = default_zone();
    let answer = ask(&zone, "web.default.vnet.", RecordType::ANY);
    assert_eq!(answer, "web.default.vnet. A 192.168.122.9");
}

#[test]
fn bare_names_are_guests_or_nothing() {
    let zone = default_zone();
    assert_eq!(ask(&zone, "web.", RecordType::A), "web. A 192.168.122.9");
    assert_eq!(ask(&zone, "WEB.", RecordType::AAAA), "WEB. AAAA fd00::9");
    assert_eq!(ask(&zone, "gateway.", RecordType::AAAA), "nodata .");
    assert_eq!(ask(&zone, "nobody.", RecordType::A), "nxdomain .");
    assert_eq!(ask(&zone, "host.", RecordType::A), "nxdomain .");
    assert_eq!(ask(&zone, "vnet.", RecordType::A), "nxdomain .");
}

#[test]
fn the_way_down_from_the_root_stays_open_to_validators() {
    let zone = default_zone();
    assert_eq!(ask(&zone, "com.", RecordType::DS), "not ours");
    assert_eq!(ask(&zone, "com.", RecordType::DNSKEY), "not ours");
    assert_eq!(ask(&zone, ".", RecordType::NS), "not ours");
}

#[test]
fn addresses_of_the_subnet_have_names() {
    let zone = default_zone();
    for (query, answer) in [
        ("1.122.168.192.in-addr.arpa.", "1.122.168.192.in-addr.arpa. PTR gateway.default.vnet."),
        ("9.122.168.192.in-addr.arpa.", "9.122.168.192.in-addr.arpa. PTR web.default.vnet."),
        ("77.122.168.192.in-addr.arpa.", "nxdomain 122.168.192.in-addr.arpa."),
        ("x.9.122.168.192.in-addr.arpa.", "nxdomain 122.168.192.in-addr.arpa."),
        ("122.168.192.in-addr.arpa.", "nodata 122.168.192.in-addr.arpa."),
        ("168.192.in-addr.arpa.", "nodata 168.192.in-addr.arpa."),
        ("8.8.8.8.in-addr.arpa.", "not ours"),
    ] {
        assert_eq!(ask(&zone, query, RecordType::PTR), answer, "{query}");
    }
    let v6 = name::reverse("fd00::9".parse().unwrap()) + ".";
    assert_eq!(ask(&zone, &v6, RecordType::PTR), format!("{v6} PTR web.default.vnet."));
}

#[test]
fn only_the_own_part_of_a_small_public_subnet_is_ours() {
    let zone = zone_of("lab.vnet", "9.9.9.64/26", &[("a", "9.9.9.70")]);
    let ptr = |query| ask(&zone, query, RecordType::PTR);
    assert_eq!(ptr("70.9.9.9.in-addr.arpa."), "70.9.9.9.in-addr.arpa. PTR a.lab.vnet.");
    assert_eq!(ptr("71.9.9.9.in-addr.arpa."), "nxdomain 9.9.9.in-addr.arpa.");
    assert_eq!(ptr("9.9.9.9.in-addr.arpa."), "not ours");
    assert_eq!(ptr("9.9.9.in-addr.arpa."), "not ours");
}

#[test]
fn a_subnet_between_octets_is_covered_by_several_zones() {
    let zone = zone_of("lab.vnet", "9.8.16.0/20", &[("a", "9.8.31.7")]);
    let ptr = |query| ask(&zone, query, RecordType::PTR);
    assert_eq!(ptr("7.31.8.9.in-addr.arpa."), "7.31.8.9.in-addr.arpa. PTR a.lab.vnet.");
    assert_eq!(ptr("7.16.8.9.in-addr.arpa."), "nxdomain 16.8.9.in-addr.arpa.");
    assert_eq!(ptr("7.32.8.9.in-addr.arpa."), "not ours");
    assert_eq!(ptr("7.15.8.9.in-addr.arpa."), "not ours");
}

#[test]
fn a_public_prefix6_is_ours_when_it_is_added() {
    let mut builder = Zone::builder("lab.vnet".parse().unwrap(), "10.0.0.0/24".parse().unwrap())
        .prefix6("2a00:1:2:3::/64".parse().unwrap());
    builder.insert(&"a".parse().unwrap(), "2a00:1:2:3::7".parse().unwrap()).unwrap();
    let zone = builder.build();
    let ptr = |addr: &str| ask(&zone, &name::reverse(addr.parse().unwrap()), RecordType::PTR);
    assert!(ptr("2a00:1:2:3::7").ends_with("PTR a.lab.vnet."));
    assert!(ptr("2a00:1:2:3::8").starts_with("nxdomain"));
    assert_eq!(ptr("2a00:1:2:4::8"), "not ours");
}

#[test]
fn private_reverse_names_never_leave() {
    let zone = default_zone();
    for query in [
        "5.0.0.10.in-addr.arpa.",
        "1.1.168.192.in-addr.arpa.",
        "1.1.20.172.in-addr.arpa.",
        "1.1.254.169.in-addr.arpa.",
        "1.1.99.100.in-addr.arpa.",
        "8.b.d.0.1.0.0.2.ip6.arpa.",
        "1.0.0.0.d.f.ip6.arpa.",
    ] {
        assert_ne!(ask(&zone, query, RecordType::PTR), "not ours", "{query}");
    }
    assert_eq!(ask(&zone, "1.1.32.172.in-addr.arpa.", RecordType::PTR), "not ours");
}

#[test]
fn special_names_are_answered_here() {
    let zone = default_zone();
    for (query, rtype, answer) in [
        ("localhost.", RecordType::A, "localhost. A 127.0.0.1"),
        ("x.LocalHost.", RecordType::AAAA, "x.LocalHost. AAAA ::1"),
        ("localhost.", RecordType::MX, "nodata localhost."),
        ("a.invalid.", RecordType::A, "nxdomain invalid."),
        ("a.test.", RecordType::A, "nxdomain test."),
        ("a.onion.", RecordType::A, "nxdomain onion."),
        ("printer.local.", RecordType::A, "nxdomain local."),
        ("a.alt.", RecordType::A, "nxdomain alt."),
        ("web.home.arpa.", RecordType::A, "nxdomain home.arpa."),
        (
            "home.arpa.",
            RecordType::SOA,
            "home.arpa. SOA home.arpa. nobody.invalid. 1 3600 1200 604800 5",
        ),
        ("home.arpa.", RecordType::DS, "not ours"),
        ("test.", RecordType::DS, "nodata test."),
        ("_dns.resolver.arpa.", RecordType::SVCB, "nxdomain resolver.arpa."),
        ("1.0.0.127.in-addr.arpa.", RecordType::PTR, "1.0.0.127.in-addr.arpa. PTR localhost."),
        ("www.example.", RecordType::A, "not ours"),
    ] {
        assert_eq!(ask(&zone, query, rtype), answer, "{query} {rtype}");
    }
}

#[test]
fn an_own_domain_wins_over_a_special_one() {
    let zone = zone_of("lab.test", "10.9.0.0/16", &[("web", "10.9.0.5")]);
    assert_eq!(ask(&zone, "web.lab.test.", RecordType::A), "web.lab.test. A 10.9.0.5");
    assert_eq!(ask(&zone, "lab.test.", RecordType::A), "nodata lab.test.");
    assert_eq!(ask(&zone, "x.test.", RecordType::A), "nxdomain test.");
    assert_eq!(ask(&zone, "10.in-addr.arpa.", RecordType::A), "nodata 10.in-addr.arpa.");
}

#[test]
fn an_unforwarded_domain_has_nothing_but_the_zone() {
    let zone = Zone::builder("default.vnet".parse().unwrap(), "10.0.0.0/24".parse().unwrap())
        .unforwarded("vnet".parse().unwrap())
        .build();
    assert_eq!(ask(&zone, "web.lab.vnet.", RecordType::A), "nxdomain vnet.");
    let gateway = ask(&zone, "gateway.default.vnet.", RecordType::A);
    assert_eq!(gateway, "gateway.default.vnet. A 10.0.0.1");
}

#[test]
fn what_cannot_be_a_host_is_refused_with_the_name() {
    let mut builder =
        Zone::builder("default.vnet".parse().unwrap(), "10.0.0.0/24".parse().unwrap());
    let long = ["a"; 122].join(".");
    for (host, addr, message) in [
        ("Gateway", "10.0.0.5", "`Gateway` is the gateway's own name"),
        ("gateway.default.vnet", "10.0.0.5", "is the gateway's own name"),
        ("x", "0.0.0.0", "0.0.0.0 cannot be the address of `x`"),
        ("x", "224.0.0.1", "224.0.0.1 cannot be"),
        (&long, "10.0.0.5", "longer than 253 characters"),
    ] {
        let error = builder.insert(&host.parse().unwrap(), addr.parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn what_others_know_is_theirs_below_a_special_name_too() {
    let zone = Zone::builder("lab.local".parse().unwrap(), "192.168.7.0/24".parse().unwrap())
        .forwarded("corp.local".parse().unwrap())
        .forwarded("168.192.in-addr.arpa".parse().unwrap())
        .forwarded("corp".parse().unwrap())
        .build();
    for theirs in ["dc.corp.local.", "corp.local.", "9.9.168.192.in-addr.arpa.", "corp."] {
        assert_eq!(ask(&zone, theirs, RecordType::A), "not ours", "{theirs}");
    }
    assert_eq!(ask(&zone, "x.local.", RecordType::A), "nxdomain local.");
    assert_eq!(ask(&zone, "x.lab.local.", RecordType::A), "nxdomain lab.local.");
    let own = ask(&zone, "9.7.168.192.in-addr.arpa.", RecordType::PTR);
    assert_eq!(own, "nxdomain 7.168.192.in-addr.arpa.");
}

#[test]
fn records_of_the_definition_are_read_back_by_others() {
    let mut builder = Zone::builder("lab.vnet".parse().unwrap(), "10.0.0.0/24".parse().unwrap());
    builder.insert(&"web".parse().unwrap(), "10.0.0.9".parse().unwrap()).unwrap();
    let record = |text: &str| text.parse().unwrap();
    builder.cname(&record("www"), &"web".parse().unwrap()).unwrap();
    builder.txt(&record("@"), "v=spf1 -all").unwrap();
    builder.txt(&record("_dmarc"), &"x".repeat(300)).unwrap();
    builder.txt(&record("empty"), "").unwrap();
    let mx = Mx { preference: 10, target: "mail.example.com".parse().unwrap() };
    builder.mx(&record("@"), &mx).unwrap();
    let srv = Srv { priority: 1, weight: 2, port: 80, target: "web".parse().unwrap() };
    builder.srv(&record("_http._tcp"), &srv).unwrap();
    assert!(builder.txt(&record("WWW"), "x").is_err());
    assert!(builder.insert(&"www".parse().unwrap(), "10.0.0.8".parse().unwrap()).is_err());
    assert!(builder.cname(&record("web"), &"www".parse().unwrap()).is_err());
    assert!(builder.cname(&record("@"), &"www".parse().unwrap()).is_err());
    assert!(builder.txt(&record("gateway"), "x").is_err());
    let zone = builder.build();
    for (query, rtype, answer) in [
        ("www.lab.vnet.", RecordType::A, "www.lab.vnet. CNAME web.lab.vnet."),
        ("www.lab.vnet.", RecordType::CNAME, "www.lab.vnet. CNAME web.lab.vnet."),
        ("www.", RecordType::A, "www. CNAME web.lab.vnet."),
        ("lab.vnet.", RecordType::TXT, "lab.vnet. TXT v=spf1 -all"),
        ("empty.lab.vnet.", RecordType::TXT, "empty.lab.vnet. TXT "),
        ("lab.vnet.", RecordType::MX, "lab.vnet. MX 10 mail.example.com."),
        ("_http._tcp.lab.vnet.", RecordType::SRV, "_http._tcp.lab.vnet. SRV 1 2 80 web.lab.vnet."),
        ("_tcp.lab.vnet.", RecordType::SRV, "nodata lab.vnet."),
    ] {
        assert_eq!(ask(&zone, query, rtype), answer, "{query} {rtype}");
    }
    let Answer::Records(long) = zone.lookup(&key("_dmarc.lab.vnet"), rtype::TXT) else { panic!() };
    let data: Vec<_> = long.data().collect();
    assert_eq!((data.len(), data[0].len(), data[0][0], data[0][256]), (1, 302, 255, 45));
}

#[test]
fn hosts_are_counted_by_name() {
    assert_eq!(default_zone().hosts(), 5);
}

/// What the zone should say, read off the list of hosts one name at a time.
fn model(hosts: &BTreeMap<String, BTreeSet<Ipv4Addr>>, query: &str, v4: bool) -> String {
    let exists = query == "lab.vnet."
        || hosts.keys().any(|host| format!(".{host}.lab.vnet.").ends_with(&format!(".{query}")));
    match hosts.iter().find(|(host, _)| format!("{host}.lab.vnet.") == query) {
        Some((_, addrs)) if v4 => {
            addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        }
        _ if exists => "nodata".to_owned(),
        _ => "nxdomain".to_owned(),
    }
}

proptest! {
    #[test]
    fn lookups_agree_with_a_naive_model(
        hosts in prop::collection::vec(("[abc](\\.[abc]){0,2}", 2..250_u8), 0..12),
        queries in prop::collection::vec("[abcABC](\\.[abc]){0,3}", 1..12),
        v4 in any::<bool>(),
    ) {
        let mut builder =
            Zone::builder("lab.vnet".parse().unwrap(), "10.0.0.0/24".parse().unwrap());
        let mut known: BTreeMap<String, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        known.entry("gateway".into()).or_default().insert([10, 0, 0, 1].into());
        for (host, octet) in &hosts {
            let addr = Ipv4Addr::new(10, 0, 0, *octet);
            builder.insert(&host.parse().unwrap(), addr.into()).unwrap();
            known.entry(host.clone()).or_default().insert(addr);
        }
        let zone = builder.build();
        let rtype = if v4 { RecordType::A } else { RecordType::AAAA };
        for query in queries.iter().map(|query| format!("{query}.lab.vnet.")) {
            let answer = match zone.lookup(&key(&query), rtype.into()) {
                Answer::Records(set) => {
                    let addrs: BTreeSet<IpAddr> =
                        read(&query, set).iter().filter_map(|r| r.data.ip_addr()).collect();
                    addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
                }
                Answer::NoData(_) => "nodata".to_owned(),
                Answer::NxDomain(_) => "nxdomain".to_owned(),
                Answer::Alias(_) | Answer::NotOurs => "not ours".to_owned(),
            };
            prop_assert_eq!(answer, model(&known, &query.to_lowercase(), v4), "{}", query);
        }
    }

    #[test]
    fn no_name_makes_a_lookup_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        kind in any::<u16>(),
    ) {
        if let Some(key) = Key::read(&bytes) {
            let _ = ZONE.lookup(&key, kind);
        }
    }
}
