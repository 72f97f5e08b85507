//! The scenario works: servers answer, and guests reach the host's bridge and nothing else.
// Tests fail by panicking.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr};

use vnet_testkit::{Lan, http_seen_as, ping, tcp_seen_as, udp_seen_as};

fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

#[test]
fn the_host_reaches_the_servers_and_is_seen_with_its_own_address() {
    let lan = Lan::new();
    for server in [Lan::ROUTER, Lan::SERVER] {
        assert_eq!(http_seen_as(&lan.host, at(server, 80)).unwrap().ip(), Lan::HOST);
        assert_eq!(tcp_seen_as(&lan.host, at(server, 7)).unwrap().ip(), Lan::HOST);
        assert_eq!(udp_seen_as(&lan.host, at(server, 7)).unwrap().ip(), Lan::HOST);
    }
}

#[test]
fn the_outside_answers_dns_over_udp_and_tcp() {
    let lan = Lan::new();
    let dig = |more: &[&str]| {
        let base = ["dig", "+tries=1", "+time=5", "@198.51.100.10"];
        lan.host.run(base.iter().chain(more))
    };
    for transport in ["+notcp", "+tcp"] {
        assert_eq!(dig(&["+short", transport, "Server.example"]).trim(), "198.51.100.10");
        assert!(dig(&[transport, "nosuch.example"]).contains("status: NXDOMAIN"));
        // A name that is there, but not with this type: no error, no answer.
        let other = dig(&[transport, "server.example", "AAAA"]);
        assert!(other.contains("status: NOERROR") && other.contains("ANSWER: 0"), "{other}");
    }
}

#[test]
fn a_dual_stack_lan_serves_both_families() {
    let lan = Lan::dual_stack();
    assert_eq!(http_seen_as(&lan.host, at(Lan::SERVER6, 80)).unwrap().ip(), Lan::HOST6);
    assert_eq!(udp_seen_as(&lan.host, at(Lan::SERVER6, 7)).unwrap().ip(), Lan::HOST6);
    assert_eq!(http_seen_as(&lan.host, at(Lan::SERVER, 80)).unwrap().ip(), Lan::HOST);
    let aaaa = lan.host.run(["dig", "+short", "@2001:db8:198::10", "server.example", "AAAA"]);
    assert_eq!(aaaa.trim(), "2001:db8:198::10");
}

#[test]
fn a_guest_on_a_bridge_reaches_the_outside_only_when_the_host_masquerades() {
    let lan = Lan::new();
    lan.host.bridge("virbr0");
    lan.host.address("virbr0", "192.168.122.1/24");
    let guest = lan.guest_on("virbr0");
    guest.ns.address("eth0", "192.168.122.2/24");
    guest.ns.route("default", "192.168.122.1");
    ping(&guest.ns, Lan::HOST).unwrap();
    assert!(tcp_seen_as(&guest.ns, at(Lan::HOST, 7)).is_err(), "nothing listens there");
    assert!(ping(&lan.outside, [192, 168, 122, 2].into()).is_err(), "no route into the LAN");
    lan.host.set_sysctl("net.ipv4.ip_forward", "1");
    lan.host.nft(
        "table ip nat { chain post { type nat hook postrouting priority srcnat; \
         oifname \"eth0\" masquerade; }\n}",
    );
    assert_eq!(http_seen_as(&guest.ns, at(Lan::SERVER, 80)).unwrap().ip(), Lan::HOST);
    ping(&guest.ns, Lan::SERVER).unwrap();
}
