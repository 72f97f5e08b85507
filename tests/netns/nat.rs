//! The network `default`: what it is made of, what passes through it, and that nothing is left.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use vnet_testkit::{HostState, Lan, Udhcpc, http_seen_as, ping, tcp_seen_as, udp_seen_as};
use vnet_types::Mode;

use vnet_tests::{Host, nat, request};

use crate::guest_frames::br_netfilter;

fn server(port: u16) -> SocketAddr {
    SocketAddr::new(Lan::SERVER.to_string().parse().unwrap(), port)
}

#[test]
fn create_makes_exactly_what_it_says() {
    let host = Host::new();
    let _netd = host.netd();
    let before = HostState::of(host.ns());
    let network = host.create_default();

    let link = &host.ns().json("addr show virbr0")[0];
    let addresses: Vec<String> = link["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .map(|info| format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"]))
        .collect();
    assert_eq!(addresses, ["192.168.122.1/24"]);
    assert!(link["flags"].as_array().unwrap().iter().any(|flag| flag == "UP"));
    assert_eq!(link["linkinfo"]["info_data"]["stp_state"], 0);
    assert_eq!(link["linkinfo"]["info_data"]["forward_delay"], 0);
    assert_eq!(link["ifalias"], "vnet:default");
    assert_eq!(link["address"].as_str().unwrap(), network.bridge_mac.unwrap().to_string());
    assert_eq!(host.ns().sysctl("net.ipv4.ip_forward"), "1");

    let tables = host.ns().run(["nft", "list", "tables"]);
    assert_eq!(tables.trim(), "table inet vnet\ntable bridge vnet");
    let rules = host.ns().run(["nft", "list", "ruleset"]);
    assert!(rules.contains("masquerade to :1024-65535"), "{rules}");

    // Nothing else has changed: every line that differs is about what was to be made.
    let after = HostState::of(host.ns());
    for line in before.difference(&after).lines() {
        let ours = ["virbr0", "192.168.122", "vnet", "forward", "accept_redirects"];
        let rule = rules.contains(line.trim_start_matches(['+', '-', ' ']).trim());
        assert!(rule || ours.iter().any(|word| line.contains(word)), "unexpected: {line}");
    }

    host.delete("default").unwrap();
    before.assert_same(&HostState::of(host.ns()));
}

#[test]
fn a_guest_reaches_the_outside_behind_the_hosts_address() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let lease = Udhcpc::obtain(&guest.ns, "eth0");
    assert_eq!(lease.router, Some(Ipv4Addr::new(192, 168, 122, 1)));

    let me = IpAddr::V4(Lan::HOST.to_string().parse().unwrap());
    for seen in [
        http_seen_as(&guest.ns, server(80)).unwrap(),
        tcp_seen_as(&guest.ns, server(7)).unwrap(),
        udp_seen_as(&guest.ns, server(7)).unwrap(),
    ] {
        assert_eq!(seen.ip(), me);
        assert!(seen.port() >= 1024, "masqueraded to {seen}");
    }
    ping(&guest.ns, Lan::SERVER.to_string().parse().unwrap()).unwrap();
}

#[test]
fn guests_reach_the_outside_and_each_other_whatever_br_netfilter_is_set_to() {
    for value in [0, 1] {
        let host = Host::new();
        br_netfilter(&host, value);
        let _netd = host.netd();
        host.create_default();
        let (guest, other) = (host.lan.guest_on("virbr0"), host.lan.guest_on("virbr0"));
        let lease = Udhcpc::obtain(&guest.ns, "eth0");
        Udhcpc::obtain(&other.ns, "eth0");
        let me = IpAddr::V4(Lan::HOST.to_string().parse().unwrap());
        for seen in
            [tcp_seen_as(&guest.ns, server(7)).unwrap(), udp_seen_as(&guest.ns, server(7)).unwrap()]
        {
            assert_eq!(seen.ip(), me, "br_netfilter {value}");
        }
        ping(&other.ns, lease.address).unwrap();
        ping(&other.ns, Lan::SERVER.to_string().parse().unwrap()).unwrap();
    }
}

#[test]
fn a_privileged_port_does_not_survive_masquerading() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let lease = Udhcpc::obtain(&guest.ns, "eth0");
    let seen = guest.ns.enter(|| {
        let socket = std::net::UdpSocket::bind((lease.address, 700)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send_to(b"x", server(7)).unwrap();
        let mut answer = [0; 200];
        let length = socket.recv(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    });
    let port: u16 = seen.trim().rsplit(':').next().unwrap().parse().unwrap();
    assert!(port >= 1024, "{seen}");
}

#[test]
fn traffic_inside_the_subnet_keeps_its_addresses() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (one, two) = (host.lan.guest_on("virbr0"), host.lan.guest_on("virbr0"));
    let first = Udhcpc::obtain(&one.ns, "eth0");
    let second = Udhcpc::obtain(&two.ns, "eth0");
    assert_ne!(first.address, second.address);
    let listener = two.ns.enter(|| std::net::TcpListener::bind((second.address, 5000)).unwrap());
    one.ns.enter(|| std::net::TcpStream::connect((second.address, 5000)).unwrap());
    assert_eq!(listener.accept().unwrap().1.ip(), IpAddr::V4(first.address));
}

#[test]
fn the_outside_does_not_reach_a_guest() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let lease = Udhcpc::obtain(&guest.ns, "eth0");
    host.lan.outside.route("192.168.122.0/24", &Lan::HOST.to_string());
    let error = ping(&host.lan.outside, lease.address).unwrap_err();
    // The host itself does reach it.
    ping(host.ns(), lease.address).unwrap();
    drop(error);
}

#[test]
fn networks_do_not_reach_each_other() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let other = host.create(&nat("other")).unwrap().network.unwrap();
    assert_eq!(other.definition.bridge.as_str(), "virbr1");
    assert_eq!(other.definition.subnet.to_string(), "192.168.123.0/24");
    let (one, two) = (host.lan.guest_on("virbr0"), host.lan.guest_on("virbr1"));
    Udhcpc::obtain(&one.ns, "eth0");
    let lease = Udhcpc::obtain(&two.ns, "eth0");
    ping(&one.ns, lease.address).unwrap_err();
    ping(&one.ns, Lan::SERVER.to_string().parse().unwrap()).unwrap();
    ping(&two.ns, Lan::SERVER.to_string().parse().unwrap()).unwrap();
}

#[test]
fn a_hostonly_network_leads_nowhere() {
    let host = Host::new();
    let _netd = host.netd();
    host.create(&request(Mode::Hostonly, "lab")).unwrap();
    assert_eq!(host.ns().sysctl("net.ipv4.ip_forward"), "0");
    // Even where somebody else has turned forwarding on.
    host.ns().set_sysctl("net.ipv4.ip_forward", "1");
    let guest = host.lan.guest_on("virbr0");
    let lease = Udhcpc::obtain(&guest.ns, "eth0");
    assert_eq!(lease.router, None);
    guest.ns.route("default", "192.168.122.1");
    ping(&guest.ns, Ipv4Addr::new(192, 168, 122, 1)).unwrap();
    ping(&guest.ns, Lan::SERVER.to_string().parse().unwrap()).unwrap_err();
    host.lan.outside.route("192.168.122.0/24", &Lan::HOST.to_string());
    ping(&host.lan.outside, lease.address).unwrap_err();
}

#[test]
fn a_routed_network_is_reached_with_its_own_addresses() {
    let host = Host::new();
    let _netd = host.netd();
    host.create(&request(Mode::Routed, "lab")).unwrap();
    host.lan.outside.route("192.168.122.0/24", &Lan::HOST.to_string());
    let guest = host.lan.guest_on("virbr0");
    let lease = Udhcpc::obtain(&guest.ns, "eth0");
    assert_eq!(tcp_seen_as(&guest.ns, server(7)).unwrap().ip(), IpAddr::V4(lease.address));
    ping(&host.lan.outside, lease.address).unwrap();
}

#[test]
fn a_forged_source_does_not_leave_the_network() {
    let host = Host::new();
    let _netd = host.netd();
    host.create(&request(Mode::Routed, "lab")).unwrap();
    for network in ["10.99.0.0/16", "192.168.122.0/24"] {
        host.lan.outside.route(network, &Lan::HOST.to_string());
    }
    host.ns().route("10.99.0.0/16", "192.168.122.200");
    let guest = host.lan.guest_on("virbr0");
    guest.ns.address("eth0", "192.168.122.200/24");
    guest.ns.address("eth0", "10.99.0.1/32");
    guest.ns.route("default", "192.168.122.1");
    assert!(tcp_seen_as(&guest.ns, server(7)).is_ok());
    let forged = guest.ns.enter(|| {
        let socket = std::net::UdpSocket::bind("10.99.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.send_to(b"x", server(7)).unwrap();
        socket.recv(&mut [0; 100]).is_ok()
    });
    assert!(!forged);
}

#[test]
fn names_resolve_inside_and_outside() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let lease = Udhcpc::on(&guest.ns, "eth0").hostname("web").obtain();
    let dig = |name: &str, kind: &str| {
        let arguments = ["dig", "+short", "+time=2", "+tries=1", "@192.168.122.1", kind, name];
        guest.ns.run(arguments).trim().to_owned()
    };
    assert_eq!(dig("web.default.vnet", "A"), lease.address.to_string());
    assert_eq!(dig("WEB", "A"), lease.address.to_string());
    let [a, b, c, d] = lease.address.octets();
    assert_eq!(dig(&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), "PTR"), "web.default.vnet.");
    assert_eq!(dig("gateway.default.vnet", "A"), "192.168.122.1");
    assert_eq!(dig(Lan::SERVER_NAME, "A"), Lan::SERVER.to_string());
    assert_eq!(dig("nobody.default.vnet", "A"), "");
}

#[test]
fn the_host_resolves_guests_at_its_own_address() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let lease = Udhcpc::on(&guest.ns, "eth0").hostname("web").obtain();
    for transport in ["+notcp", "+tcp"] {
        let arguments =
            ["dig", "+short", "+time=2", transport, "@192.168.122.1", "web.default.vnet"];
        assert_eq!(host.ns().run(arguments).trim(), lease.address.to_string());
    }
}

#[test]
fn the_hosts_resolvers_are_followed_as_they_change() {
    let host = Host::new();
    // Nobody listens there.
    std::fs::write(host.resolv_conf(), "nameserver 127.0.0.9\n").unwrap();
    let _netd = host.netd();
    host.create_default();
    let dig = || {
        let arguments =
            ["dig", "+short", "+time=5", "+tries=1", "@192.168.122.1", Lan::SERVER_NAME];
        host.ns().run(arguments).trim().to_owned()
    };
    assert_eq!(dig(), "");
    std::fs::write(host.resolv_conf(), format!("nameserver {}\n", Lan::SERVER)).unwrap();
    // The file is looked at once a second at most.
    let deadline = Instant::now() + Duration::from_secs(20);
    while dig() != Lan::SERVER.to_string() {
        assert!(Instant::now() < deadline, "the old server is still asked");
    }
}

#[test]
fn a_stopped_network_comes_back_with_its_leases() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let lease = Udhcpc::obtain(&guest.ns, "eth0");
    let before = host.leases();
    assert_eq!(before.len(), 1);
    host.stop("default").unwrap();
    assert_eq!(host.ns().run(["nft", "list", "ruleset"]).trim(), "");
    assert_eq!(host.ns().sysctl("net.ipv4.ip_forward"), "0");
    host.start("default").unwrap();
    assert_eq!(host.leases(), before);
    assert_eq!(host.leases()[0].address, lease.address);
}

#[test]
fn a_host_whose_new_interfaces_do_not_forward_is_no_obstacle() {
    let host = Host::new();
    host.ns().set_sysctl("net.ipv4.ip_forward", "1");
    host.ns().set_sysctl("net.ipv4.conf.default.forwarding", "0");
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    Udhcpc::obtain(&guest.ns, "eth0");
    ping(&guest.ns, Lan::SERVER.to_string().parse().unwrap()).unwrap();
}

#[test]
fn forwarding_of_others_is_put_back_to_the_letter() {
    let host = Host::new();
    let _netd = host.netd();
    // A router for one of its interfaces only, with redirects off: ip_forward would change both.
    host.ns().set_sysctl("net.ipv4.conf.eth0.forwarding", "1");
    host.ns().set_sysctl("net.ipv4.conf.all.accept_redirects", "0");
    let before = HostState::of(host.ns());
    host.create_default();
    host.delete("default").unwrap();
    before.assert_same(&HostState::of(host.ns()));
}
