use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use vnet_api::model::Network;
use vnet_plan::foreign::Ruleset;
use vnet_plan::{Address, Link, LinkKind, Observed, Route};

use super::facts::{Device, Facts, Group, Listener, Module, Netd, Nft, Resolver};
use super::judge::{Level, Row, judge};

const DOCKER: &str = include_str!("../../../plan/src/foreign/listings/docker.json");

fn link(index: u32) -> Link {
    Link {
        index,
        kind: LinkKind::Other,
        mac: None,
        up: true,
        mtu: 1500,
        master: None,
        alias: None,
        ipv6: vnet_plan::Ipv6Settings::default(),
        route_localnet: false,
        forwarding: true,
    }
}

/// A host on which nothing is wrong.
fn good() -> Facts {
    let mut observed = Observed::default();
    observed.links.insert("eth0".into(), link(2));
    let route = Route { destination: "0.0.0.0/0".parse().unwrap(), link: Some(2) };
    observed.routes = vec![route].into();
    Facts {
        kvm: Device::Works(Some(12)),
        tun: Device::Works(None),
        vhost_net: false,
        nft: Nft::Rules(Ruleset::default()),
        legacy_iptables: false,
        modules: BTreeMap::from([("bridge", Module::Present), ("tun", Module::Loadable)]),
        ip_forward: true,
        bridge_netfilter: None,
        bridge_netfilter6: None,
        netd: Netd::Version(env!("CARGO_PKG_VERSION").to_owned()),
        networks: vec![network("active")],
        observed: Ok(observed),
        sockets: Vec::new(),
        resolver: Resolver::default(),
        group: Group::Root,
    }
}

fn network(state: &str) -> Network {
    serde_json::from_value(json!({
        "definition": {
            "name": "default", "mode": "nat", "bridge": "virbr0", "subnet": "192.168.122.0/24",
            "domain": "default.vnet", "mtu": 1500, "autostart": true,
            "dns": {"upstreams": [], "hosts": {}}
        },
        "state": state, "reason": "the bridge is gone", "gateway": "192.168.122.1",
        "bridge_mac": null, "ports": [], "leases": 0
    }))
    .unwrap()
}

/// The rows that are not ok.
fn complaints(facts: &Facts) -> Vec<Row> {
    judge(facts).into_iter().filter(|row| row.state != Level::Ok).collect()
}

fn complaint(facts: &Facts) -> Row {
    let mut rows = complaints(facts);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(!rows[0].fix.is_empty(), "no way out: {rows:?}");
    rows.remove(0)
}

#[test]
fn nothing_is_said_of_a_good_host() {
    assert_eq!(complaints(&good()), []);
}

#[test]
fn whatever_is_missing_is_named_with_the_way_out() {
    /// The row, how the host differs from a good one, and what the row says.
    type Case = (&'static str, fn(&mut Facts), Level, &'static str);
    let cases: [Case; 12] = [
        ("kvm", |facts| facts.kvm = Device::Missing, Level::Failed, "/dev/kvm"),
        ("kvm", |facts| facts.kvm = Device::Denied, Level::Failed, "may not"),
        ("kvm", |facts| facts.kvm = Device::Works(Some(11)), Level::Failed, "11"),
        ("tun", |facts| facts.tun = Device::Missing, Level::Failed, "/dev/net/tun"),
        ("netd", |facts| facts.netd = Netd::Unreachable, Level::Failed, "does not run"),
        ("netd", |facts| facts.netd = Netd::Version("0.0.1".into()), Level::Warning, "0.0.1"),
        ("group", |facts| facts.group = Group::Missing, Level::Warning, "group vnet"),
        ("group", |facts| facts.group = Group::Stranger, Level::Warning, "group vnet"),
        ("forwarding", |facts| facts.ip_forward = false, Level::Failed, "off"),
        (
            "modules",
            |facts| {
                facts.modules.insert("nf_nat", Module::Missing);
            },
            Level::Failed,
            "nf_nat",
        ),
        ("network", |facts| facts.networks = vec![network("failed")], Level::Failed, "is gone"),
        ("foreign rules", |facts| facts.legacy_iptables = true, Level::Warning, "legacy"),
    ];
    for (name, change, level, words) in cases {
        let mut facts = good();
        change(&mut facts);
        let row = complaint(&facts);
        assert_eq!((row.name, row.state), (name, level), "{row:?}");
        assert!(row.found.contains(words), "{row:?}");
    }
}

#[test]
fn without_nft_it_is_said_that_rules_were_not_looked_at() {
    for nft in [Nft::Missing, Nft::Denied, Nft::Broken("no".into())] {
        let names: Vec<_> =
            complaints(&Facts { nft, ..good() }).into_iter().map(|row| row.name).collect();
        assert_eq!(names, ["nft", "foreign rules"]);
    }
}

#[test]
fn foreign_chains_are_named_for_each_direction() {
    let docker = || Nft::Rules(Ruleset::parse(DOCKER).unwrap());
    let rows = complaints(&Facts { nft: docker(), ..good() });
    assert_eq!(rows.len(), 2, "{rows:?}");
    for row in &rows {
        assert_eq!((row.name, row.state), ("foreign rules", Level::Failed));
        assert!(row.found.contains("table ip filter chain FORWARD"), "{row:?}");
        assert_eq!(row.fix[0], "iptables -I DOCKER-USER -i virbr0 -j ACCEPT");
    }
    // The first network that will be needs the same.
    let none = Facts { nft: docker(), networks: Vec::new(), ..good() };
    assert_eq!(complaints(&none).len(), 2);
    // With br_netfilter, frames between guests pass there too.
    let bridged = Facts { nft: docker(), bridge_netfilter: Some(true), ..good() };
    let rows = complaints(&bridged);
    assert!(rows.iter().any(|row| row.found.contains("between guests on virbr0")), "{rows:?}");
}

#[test]
fn a_program_on_all_addresses_is_named() {
    let listener = Listener {
        protocol: "udp",
        address: "0.0.0.0".parse().unwrap(),
        port: 53,
        program: Some("dnsmasq".into()),
    };
    let row = complaint(&Facts { sockets: vec![listener.clone()], ..good() });
    assert!(row.found.contains("dnsmasq") && row.fix[0].contains("bind-interfaces"), "{row:?}");
    let elsewhere = Listener { address: "127.0.0.53".parse().unwrap(), ..listener };
    assert_eq!(complaints(&Facts { sockets: vec![elsewhere], ..good() }), []);
}

#[test]
fn a_subnet_that_overlaps_is_named() {
    let mut facts = good();
    let clash = Address { link: 2, net: "192.168.122.7/24".parse().unwrap(), peer: None };
    facts.observed.as_mut().unwrap().addresses.insert(clash);
    let row = complaint(&facts);
    assert!(row.found.contains("192.168.122.0/24 of default"), "{row:?}");
}

#[test]
fn a_resolver_that_does_not_know_guests_is_told_how() {
    let asked = || BTreeSet::from(["default".to_owned()]);
    let resolver = |is_resolved| Resolver { is_resolved, asked: asked(), known: BTreeSet::new() };
    let row = complaint(&Facts { resolver: resolver(true), ..good() });
    assert_eq!(row.fix[1], "resolvectl domain virbr0 '~default.vnet'");
    let row = complaint(&Facts { resolver: resolver(false), ..good() });
    assert!(row.fix[1].contains("server=/default.vnet/192.168.122.1"), "{row:?}");
    let known = Resolver { known: asked(), ..resolver(false) };
    assert_eq!(complaints(&Facts { resolver: known, ..good() }), []);
}
