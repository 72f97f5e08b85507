//! Dumps are equal when nothing has changed, and name what has.
// Tests fail by panicking.
#![allow(clippy::unwrap_used)]

use vnet_testkit::{HostState, Lan, Netns, udp_seen_as};

const RULES: &str = "table inet t {
    comment \"mine\"
    set s { type ipv4_addr; flags timeout; elements = { 10.0.0.1 timeout 1h }; }
    chain c { type filter hook input priority 0; counter; ip saddr 10.0.0.0/8 accept; }
}";

#[test]
fn an_untouched_host_stays_the_same_while_traffic_flows() {
    let lan = Lan::dual_stack();
    lan.host.nft(RULES);
    lan.host.bridge("br0");
    let _guest = lan.guest_on("br0");
    let before = HostState::of(&lan.host);
    udp_seen_as(&lan.host, (Lan::SERVER, 7).into()).unwrap();
    before.assert_same(&HostState::of(&lan.host));
}

#[test]
fn a_host_that_is_put_back_is_the_same_again() {
    let lan = Lan::new();
    let before = HostState::of(&lan.host);
    lan.host.bridge("br0");
    lan.host.address("br0", "10.9.0.1/24");
    assert_ne!(HostState::of(&lan.host), before);
    lan.host.ip("link del br0");
    before.assert_same(&HostState::of(&lan.host));
}

#[test]
fn each_kind_of_change_is_named() {
    let ns = Netns::new();
    ns.bridge("br0");
    ns.nft(RULES);
    let changes: [(&str, &dyn Fn()); 9] = [
        ("+ link: br1 mtu=1500", &|| ns.bridge("br1")),
        ("+ address: br0 inet #0 ", &|| ns.address("br0", "10.0.0.1/24")),
        ("+ route, IPv4: ", &|| ns.route("10.7.0.0/16", "10.0.0.2")),
        ("+ route, IPv6: ", &|| drop(ns.ip("-6 route add blackhole 2001:db8::/32 table 77"))),
        ("+ rule, IPv4: ", &|| drop(ns.ip("rule add from 10.0.0.9 table 77"))),
        ("+ neighbour: ", &|| drop(ns.ip("neigh add 10.0.0.3 lladdr 02:00:00:00:00:01 dev br0"))),
        ("+ sysctl: net/ipv4/ip_forward = 1", &|| ns.set_sysctl("net.ipv4.ip_forward", "1")),
        ("+ nft: table inet t / chain c / tcp dport 22 accept", &|| {
            drop(ns.run(["nft", "add", "rule", "inet", "t", "c", "tcp", "dport", "22", "accept"]));
        }),
        ("+ nft: table inet t / set s / elements = { 10.0.0.1 timeout 1h, 10.0.0.2 }", &|| {
            drop(ns.run(["nft", "add", "element", "inet", "t", "s", "{ 10.0.0.2 }"]));
        }),
    ];
    for (expected, change) in changes {
        let before = HostState::of(&ns);
        change();
        let difference = before.difference(&HostState::of(&ns));
        assert!(difference.contains(expected), "no {expected:?} in:\n{difference}");
    }
}

#[test]
fn comments_of_tables_and_the_order_of_rules_are_state() {
    let (one, other) = (Netns::new(), Netns::new());
    let chain = |rules: &str| format!("table inet t {{ chain c {{ {rules} }}\n }}");
    one.nft(&chain("tcp dport 1 accept; tcp dport 2 accept;"));
    other.nft(&chain("tcp dport 2 accept; tcp dport 1 accept;"));
    let (one, other) = (HostState::of(&one), HostState::of(&other));
    assert_eq!(one.difference(&other), "! nft: the same facts in another order\n");
    let commented = Netns::new();
    commented.nft(RULES);
    assert_eq!(HostState::of(&commented).lines_with("mine").len(), 1);
}
