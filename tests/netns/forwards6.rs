//! Published ports over IPv6: who reaches them, as whom, and what is refused.

use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use vnet_api::client::Run;
use vnet_api::model::{ErrorKind, Reserve};
use vnet_testkit::{
    Client6Kind, Guest, HostState, Lan, Netd, Netns, Udhcpc, tcp_seen_as, udp_seen_as,
};
use vnet_types::Mode;

use crate::forwards::{add, refuses_connections, try_add};
use crate::ipv6::{guest_with, until};
use vnet_tests::{Host, network, refusal, request6, wait};

const PREFIX: &str = "fd12:3456:789a::/64";
const GATEWAY: &str = "fd12:3456:789a::1";
const PATIENCE: Duration = Duration::from_secs(20);
const WEB: &str = "fd12:3456:789a::50";

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// Answers on TCP and UDP, over IPv4 and IPv6, as the echo of `vnet-outside` does, until the test
/// ends.
fn serve(ns: &Netns, port: u16) {
    let (tcp, udp) = ns.enter(|| {
        let any = at(Ipv6Addr::UNSPECIFIED, port);
        (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap())
    });
    let text = |peer: SocketAddr| format!("you are {}:{}\n", peer.ip().to_canonical(), peer.port());
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = tcp.accept() {
            let _ = stream.write_all(text(peer).as_bytes());
        }
    });
    std::thread::spawn(move || {
        while let Ok((_, peer)) = udp.recv_from(&mut [0; 100]) {
            let _ = udp.send_to(text(peer).as_bytes(), peer);
        }
    });
}

/// A host with a network that has IPv6, and on it a guest that serves port 80.
fn host_with_web() -> (Host, Netd, Guest) {
    let host = Host::dual_stack();
    let netd = host.netd();
    host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap();
    let web = guest_with(&host, "virbr0", WEB, GATEWAY);
    serve(&web.ns, 80);
    (host, netd, web)
}

#[test]
fn the_outside_the_host_and_neighbours_reach_a_guest() {
    let (host, _netd, web) = host_with_web();
    let other = guest_with(&host, "virbr0", "fd12:3456:789a::51", GATEWAY);
    host.create(&request6(Mode::Nat, "second", "fd00:2::/64")).unwrap();
    let stranger = guest_with(&host, "virbr1", "fd00:2::50", "fd00:2::1");
    add(&host, "[::]:8080", &format!("[{WEB}]:80"));
    add(&host, "[::]:8080/udp", &format!("[{WEB}]:80"));
    // With it, a guest does not reach itself, in IPv4 as in IPv6: see ARCHITECTURE.md.
    if std::path::Path::new("/proc/sys/net/bridge").exists() {
        host.ns().set_sysctl("net.bridge.bridge-nf-call-ip6tables", "0");
    }
    let published = at(Lan::HOST6, 8080);
    let gateway = IpAddr::V6(address(GATEWAY));
    for (who, ns, me) in [
        // From outside and from other networks, guests see who it is.
        ("outside", &host.lan.outside, IpAddr::V6(Lan::ROUTER6)),
        ("a stranger", &stranger.ns, IpAddr::V6(address("fd00:2::50"))),
        // What comes from the host and from its own network must come back through the host.
        ("a neighbour", &other.ns, gateway),
        ("itself", &web.ns, gateway),
        ("the host", host.ns(), gateway),
    ] {
        let seen = tcp_seen_as(ns, published).unwrap_or_else(|e| panic!("TCP from {who}: {e:#}"));
        assert_eq!(seen.ip(), me);
        let seen = udp_seen_as(ns, published).unwrap_or_else(|e| panic!("UDP from {who}: {e:#}"));
        assert_eq!(seen.ip(), me);
    }
    assert_eq!(tcp_seen_as(host.ns(), at(address(GATEWAY), 8080)).unwrap().ip(), gateway);
    // Only what is published, and not in IPv4.
    refuses_connections(&host.lan.outside, at(Lan::HOST6, 80));
    refuses_connections(&host.lan.outside, at(Lan::HOST, 8080));
    refuses_connections(host.ns(), at(Ipv6Addr::LOCALHOST, 8080));
    host.lan.outside.route(PREFIX, &Lan::HOST6.to_string());
    refuses_connections(&host.lan.outside, at(address(WEB), 80));
}

#[test]
fn one_address_is_not_all() {
    let (host, _netd, _web) = host_with_web();
    host.ns().ip("addr add 2001:db8:203::3/64 dev eth0 nodad");
    add(&host, "[2001:db8:203::3]:8000-8001", &format!("[{WEB}]:80-81"));
    let one = address("2001:db8:203::3");
    let router = IpAddr::V6(Lan::ROUTER6);
    assert_eq!(tcp_seen_as(&host.lan.outside, at(one, 8000)).unwrap().ip(), router);
    refuses_connections(&host.lan.outside, at(Lan::HOST6, 8000));
}

#[test]
fn without_an_address_it_is_at_both_and_follows_the_guest() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap();
    let web = host.lan.guest_on("virbr0");
    let client = Udhcpc::on(&web.ns, "eth0").hostname("web").start().unwrap();
    serve(&web.ns, 80);
    add(&host, "8080", "web:80");
    let (four, six) = (at(Lan::HOST, 8080), at(Lan::HOST6, 8080));
    assert_eq!(tcp_seen_as(&host.lan.outside, four).unwrap().ip(), IpAddr::V4(Lan::ROUTER));
    refuses_connections(&host.lan.outside, six);
    // It gets an IPv6 address: the forward leads there as well.
    for last in [0x50, 0x60] {
        let own = Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 0, 0, 0, 0, last);
        let reserve = Reserve { ip: None, ip6: Some(own), hostname: "web".parse().ok() };
        let default = network("default");
        wait(host.client().reserve(&default, web.mac, &reserve, Run::Real)).unwrap();
        web.ns.ip("-6 addr flush dev eth0 scope global");
        web.ns.ip(&format!("addr add {own}/64 dev eth0 nodad"));
        web.ns.ip(&format!("-6 route replace default via {GATEWAY} dev eth0"));
        until(&host, "the forward follows", || {
            let views = wait(host.client().forwards(None)).unwrap();
            views[0].to6 == Some(own) && views[0].to == Some(client.lease().address)
        });
        assert_eq!(tcp_seen_as(&host.lan.outside, six).unwrap().ip(), IpAddr::V6(Lan::ROUTER6));
        assert_eq!(tcp_seen_as(&host.lan.outside, four).unwrap().ip(), IpAddr::V4(Lan::ROUTER));
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let (host, _netd, _web) = host_with_web();
    let _held = host.ns().enter(|| {
        let [one, own] = ["[2001:db8:203::2]:8443", "[::1]:9000"];
        (TcpListener::bind(one).unwrap(), TcpListener::bind(own).unwrap())
    });
    let before = HostState::of(host.ns());
    let web = format!("[{WEB}]:80");
    for (listen, target, kind, words) in [
        ("[::1]:8080", &*web, ErrorKind::Invalid, "leads nothing from ::1 elsewhere"),
        ("[fe80::1]:8080", &web, ErrorKind::Invalid, "no address of a host"),
        ("0.0.0.0:8080", &web, ErrorKind::Invalid, "cannot be led to each other"),
        ("[::]:8080", "192.168.122.9", ErrorKind::Invalid, "cannot be led to each other"),
        ("[::]:8080", "[fd00:9::1]:80", ErrorKind::Invalid, "does not fit the prefix"),
        ("[::]:8443", &web, ErrorKind::Conflict, "listens at [2001:db8:203::2]:8443"),
    ] {
        let (found, text) = refusal(try_add(&host, "default", listen, target));
        assert_eq!(found, kind, "{text}");
        assert!(text.contains(words), "{text}");
    }
    before.assert_same(&HostState::of(host.ns()));
    // What listens at ::1 alone stays where it is.
    add(&host, "9000", &web);
    host.ns().enter(|| TcpStream::connect("[::1]:9000").unwrap());
}

#[test]
fn it_follows_a_lease_of_dhcpv6() {
    let host = Host::dual_stack();
    let netd = host.netd();
    host.create(&request6(Mode::Nat, "default", "fd00:8::/112")).unwrap();
    add(&host, "[::]:8080", "web:80");
    let published = at(Lan::HOST6, 8080);
    refuses_connections(&host.lan.outside, published);
    let web = host.lan.guest_on("virbr0");
    serve(&web.ns, 80);
    let obtained = Client6Kind::Dhclient.obtain(&web.ns, "eth0", "web");
    let (_client, lease) = obtained.unwrap_or_else(|error| panic!("{error:#}"));
    web.ns.wait_for("a default route", PATIENCE, || {
        web.ns.ip("-6 route show default").contains("proto ra")
    });
    let leads_there = || wait(host.client().forwards(None)).unwrap()[0].to6 == lease.address;
    until(&host, "the forward leads to the lease", leads_there);
    let router = IpAddr::V6(Lan::ROUTER6);
    assert_eq!(tcp_seen_as(&host.lan.outside, published).unwrap().ip(), router);
    // The next netd knows it from the journal, before the guest is heard of again.
    netd.kill9();
    let _netd = host.netd();
    assert!(leads_there());
    assert_eq!(tcp_seen_as(&host.lan.outside, published).unwrap().ip(), router);
}
