//! Published ports: who reaches them, as whom, and that nothing else is opened.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use vnet_api::client::Run;
use vnet_api::model::{Changed, ErrorKind};
use vnet_testkit::{DhcpClient, Guest, HostState, Lan, Netns, Udhcpc, tcp_seen_as, udp_seen_as};
use vnet_types::{Forward, Mode};

use vnet_tests::{Host, nat, network, refusal, request, wait};

/// The gateway of the first network.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 1);
/// How long netd may take to notice something.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn forward(listen: &str, target: &str) -> Forward {
    Forward::new(listen.parse().unwrap(), target.parse().unwrap())
}

pub(crate) fn try_add(
    host: &Host,
    name: &str,
    listen: &str,
    target: &str,
) -> Result<Changed, vnet_api::client::ClientError> {
    wait(host.client().add_forward(&network(name), &forward(listen, target), Run::Real))
}

pub(crate) fn add(host: &Host, listen: &str, target: &str) {
    try_add(host, "default", listen, target).unwrap();
}

fn remove(host: &Host, listen: &str) {
    let listen = listen.parse().unwrap();
    wait(host.client().remove_forward(&network("default"), &listen, Run::Real)).unwrap();
}

fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(address, port))
}

fn lan_host() -> Ipv4Addr {
    Lan::HOST
}

/// A guest with a lease under this name.
pub(crate) fn guest(host: &Host, bridge: &str, name: &str) -> (Guest, DhcpClient) {
    let guest = host.lan.guest_on(bridge);
    let client = Udhcpc::on(&guest.ns, "eth0").hostname(name).start().unwrap();
    (guest, client)
}

/// Answers on TCP and UDP as the echo of `vnet-outside` does, until the test ends.
pub(crate) fn serve(ns: &Netns, port: u16) {
    let (tcp, udp) = ns.enter(|| {
        let any = at(Ipv4Addr::UNSPECIFIED, port);
        (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap())
    });
    let text = |peer: SocketAddr| format!("you are {}:{}\n", peer.ip(), peer.port());
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

/// A host with the network `default`, and on it the guest `web`, which serves port 80.
fn host_with_web() -> (Host, vnet_testkit::Netd, Guest, DhcpClient) {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let (web, client) = guest(&host, "virbr0", "web");
    serve(&web.ns, 80);
    (host, netd, web, client)
}

/// Turns br_netfilter on or off, where the kernel has it.
fn filter_bridges(host: &Host, on: bool) {
    if std::path::Path::new("/proc/sys/net/bridge").exists() {
        let value = if on { "1" } else { "0" };
        host.ns().set_sysctl("net.bridge.bridge-nf-call-iptables", value);
    }
}

pub(crate) fn refuses_connections(ns: &Netns, to: SocketAddr) {
    let result = ns.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(2)).map(drop));
    assert!(result.is_err(), "{to} is open");
}

#[test]
fn the_outside_reaches_a_guest_and_is_seen_as_itself() {
    let (host, _netd, _web, _client) = host_with_web();
    add(&host, "8080", "web:80");
    add(&host, "8080/udp", "web:80");
    let published = at(lan_host(), 8080);
    let router = IpAddr::V4(Lan::ROUTER);
    assert_eq!(tcp_seen_as(&host.lan.outside, published).unwrap().ip(), router);
    assert_eq!(udp_seen_as(&host.lan.outside, published).unwrap().ip(), router);
}

#[test]
fn the_host_reaches_a_guest_at_all_its_addresses() {
    let (host, _netd, _web, _client) = host_with_web();
    add(&host, "8080", "web.default.vnet:80");
    add(&host, "8080/udp", "WEB:80");
    for address in [lan_host(), GATEWAY, Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 1, 2, 3)] {
        let published = at(address, 8080);
        assert_eq!(tcp_seen_as(host.ns(), published).unwrap().ip(), IpAddr::V4(GATEWAY));
        assert_eq!(udp_seen_as(host.ns(), published).unwrap().ip(), IpAddr::V4(GATEWAY));
    }
}

#[test]
fn guests_reach_a_guest_at_the_hosts_address() {
    let (host, _netd, _web, client) = host_with_web();
    add(&host, "8080", "web:80");
    add(&host, "8080/udp", "web:80");
    host.create(&nat("other")).unwrap();
    host.create(&request(Mode::Routed, "open")).unwrap();
    let (neighbour, _a) = guest(&host, "virbr0", "neighbour");
    let (stranger, stranger_client) = guest(&host, "virbr1", "stranger");
    let (routed, routed_client) = guest(&host, "virbr2", "routed");
    // With br_netfilter, and without: they lead through different parts of the kernel.
    let addresses = [lan_host(), GATEWAY].into_iter();
    for (address, filtered) in addresses.flat_map(|address| [(address, true), (address, false)]) {
        filter_bridges(&host, filtered);
        let published = at(address, 8080);
        // Answers must come back through the host.
        assert_eq!(tcp_seen_as(&neighbour.ns, published).unwrap().ip(), IpAddr::V4(GATEWAY));
        assert_eq!(udp_seen_as(&neighbour.ns, published).unwrap().ip(), IpAddr::V4(GATEWAY));
        for (guest, client) in [(&stranger, &stranger_client), (&routed, &routed_client)] {
            let seen = IpAddr::V4(client.lease().address);
            assert_eq!(tcp_seen_as(&guest.ns, published).unwrap().ip(), seen);
            assert_eq!(udp_seen_as(&guest.ns, published).unwrap().ip(), seen);
        }
    }
    // What isn't published stays apart.
    refuses_connections(&stranger.ns, at(client.lease().address, 80));
}

#[test]
fn a_guest_reaches_itself_at_the_hosts_address() {
    let (host, _netd, web, _client) = host_with_web();
    add(&host, "8080", "web:80");
    add(&host, "8080/udp", "web:80");
    // With br_netfilter, the kernel redirects the frame on the bridge, and a bridge sends none back
    // through the port that it came from.
    filter_bridges(&host, false);
    for address in [lan_host(), GATEWAY] {
        let published = at(address, 8080);
        assert_eq!(tcp_seen_as(&web.ns, published).unwrap().ip(), IpAddr::V4(GATEWAY));
        assert_eq!(udp_seen_as(&web.ns, published).unwrap().ip(), IpAddr::V4(GATEWAY));
    }
}

#[test]
fn a_hostonly_network_stays_closed() {
    let (host, _netd, _web, _client) = host_with_web();
    add(&host, "8080", "web:80");
    host.create(&request(Mode::Hostonly, "lab")).unwrap();
    let (inmate, _lease) = guest(&host, "virbr1", "inmate");
    inmate.ns.route("default", "192.168.123.1");
    serve(host.ns(), 9000);
    // The host itself is there for them, and nothing behind it.
    assert!(tcp_seen_as(&inmate.ns, at(lan_host(), 9000)).is_ok());
    refuses_connections(&inmate.ns, at(lan_host(), 8080));
    refuses_connections(&inmate.ns, at(Ipv4Addr::new(192, 168, 123, 1), 8080));
    let (kind, text) = refusal(try_add(&host, "lab", "81", "inmate"));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(text.contains("81/tcp") && text.contains("hostonly"), "{text}");
}

#[test]
fn a_range_keeps_its_offsets() {
    let (host, _netd, web, client) = host_with_web();
    serve(&web.ns, 9003);
    add(&host, "8000-8009", &format!("{}:9000-9009", client.lease().address));
    assert!(tcp_seen_as(&host.lan.outside, at(lan_host(), 8003)).is_ok());
    for port in [8002, 8004, 8010] {
        refuses_connections(&host.lan.outside, at(lan_host(), port));
    }
}

#[test]
fn only_what_is_published_is_open() {
    let (host, _netd, web, client) = host_with_web();
    serve(&web.ns, 81);
    add(&host, "8080", "web:80");
    host.lan.outside.route("192.168.122.0/24", &Lan::HOST.to_string());
    let address = client.lease().address;
    for (address, port) in
        [(lan_host(), 8081), (lan_host(), 80), (address, 80), (address, 81), (address, 8080)]
    {
        refuses_connections(&host.lan.outside, at(address, port));
    }
    assert!(udp_seen_as_soon(&host.lan.outside, at(lan_host(), 8080)).is_none());
}

/// As `udp_seen_as`, where no answer is expected.
fn udp_seen_as_soon(ns: &Netns, to: SocketAddr) -> Option<usize> {
    ns.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.connect(to).unwrap();
        socket.send(b"x").unwrap();
        socket.recv(&mut [0; 100]).ok()
    })
}

#[test]
fn an_address_of_the_host_is_published_alone() {
    let (host, _netd, _web, _client) = host_with_web();
    host.ns().address("eth0", "203.0.113.3/24");
    add(&host, "203.0.113.3:8080", "web:80");
    assert!(tcp_seen_as(&host.lan.outside, at(Ipv4Addr::new(203, 0, 113, 3), 8080)).is_ok());
    refuses_connections(&host.lan.outside, at(lan_host(), 8080));
    refuses_connections(host.ns(), at(Ipv4Addr::LOCALHOST, 8080));
    // Not at 127.0.0.1, so nothing of the loopback network is let onto the bridge.
    assert_eq!(host.ns().sysctl("net.ipv4.conf.virbr0.route_localnet"), "0");
}

#[test]
fn the_hosts_loopback_stays_its_own() {
    let (host, _netd, web, _client) = host_with_web();
    add(&host, "127.0.0.1:8080", "web:80");
    assert_eq!(host.ns().sysctl("net.ipv4.conf.virbr0.route_localnet"), "1");
    assert!(tcp_seen_as(host.ns(), at(Ipv4Addr::LOCALHOST, 8080)).is_ok());
    refuses_connections(&host.lan.outside, at(lan_host(), 8080));

    // Something that listens for the host alone, and neighbours that send to 127.0.0.1 over the
    // wire: what they reach, they could attack.
    let _private = host.ns().enter(|| {
        let listener = TcpListener::bind("127.0.0.1:7000").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:7000").unwrap();
        (listener, udp)
    });
    for (neighbour, gateway) in [(&web.ns, GATEWAY), (&host.lan.outside, lan_host())] {
        neighbour.set_sysctl("net.ipv4.conf.all.route_localnet", "1");
        neighbour.ip("link set lo down");
        neighbour.ip("addr flush dev lo");
        neighbour.ip(&format!("route add 127.0.0.0/8 via {gateway}"));
        for port in [7000, 8080] {
            refuses_connections(neighbour, at(Ipv4Addr::LOCALHOST, port));
        }
    }
    remove(&host, "127.0.0.1:8080");
    assert_eq!(host.ns().sysctl("net.ipv4.conf.virbr0.route_localnet"), "0");
}

#[test]
fn a_forward_follows_its_guest() {
    let (host, netd, web, client) = host_with_web();
    add(&host, "8080", "web:80");
    let before = client.lease().address;
    client.release().unwrap();
    netd.wait_for_log("forwards follow their guests", PATIENCE);
    refuses_connections(&host.lan.outside, at(lan_host(), 8080));
    drop(web);

    // Another machine takes the old address, and a new one comes as `web`.
    let (_other, _other_client) = guest(&host, "virbr0", "other");
    let (new, new_client) = guest(&host, "virbr0", "web");
    serve(&new.ns, 80);
    let address = new_client.lease().address;
    assert_ne!(address, before);
    host.ns().wait_for("the forward to lead to the new guest", PATIENCE, || {
        wait(host.client().forwards(None)).unwrap()[0].to == Some(address)
            && host
                .ns()
                .run(["nft", "list", "map", "inet", "vnet", "any_address"])
                .contains(&address.to_string())
    });
    assert!(tcp_seen_as(&host.lan.outside, at(lan_host(), 8080)).is_ok());
}

#[test]
fn a_forward_waits_for_a_guest_that_is_yet_to_come() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let changed = try_add(&host, "default", "8080", "web:80").unwrap();
    assert!(changed.notes[0].contains("web has no address on default yet"), "{:?}", changed.notes);
    refuses_connections(&host.lan.outside, at(lan_host(), 8080));
    let (web, _client) = guest(&host, "virbr0", "web");
    serve(&web.ns, 80);
    netd.wait_for_log("forwards follow their guests", PATIENCE);
    assert!(tcp_seen_as(&host.lan.outside, at(lan_host(), 8080)).is_ok());
}

#[test]
fn forwards_survive_kill_9() {
    let (host, netd, _web, _client) = host_with_web();
    add(&host, "8080", "web:80");
    add(&host, "9000-9009/udp", "192.168.122.77");
    let rules = host.ns().run(["nft", "-s", "list", "ruleset"]);
    netd.kill9();
    assert!(tcp_seen_as(&host.lan.outside, at(lan_host(), 8080)).is_ok());
    let before = HostState::of(host.ns());
    let _netd = host.netd();
    before.assert_same(&HostState::of(host.ns()));
    assert_eq!(host.ns().run(["nft", "-s", "list", "ruleset"]), rules);
    assert_eq!(wait(host.client().forwards(None)).unwrap().len(), 2);
    assert!(tcp_seen_as(host.ns(), at(Ipv4Addr::LOCALHOST, 8080)).is_ok());
}

#[test]
fn a_removed_forward_leaves_nothing() {
    let (host, _netd, _web, _client) = host_with_web();
    let definition = || std::fs::read_to_string(host.paths().network(&network("default"))).unwrap();
    let (text, before) = (definition(), HostState::of(host.ns()));
    add(&host, "8080", "web:80");
    add(&host, "203.0.113.2:9000-9009/udp", "web");
    assert!(!before.difference(&HostState::of(host.ns())).is_empty());
    remove(&host, "8080");
    remove(&host, "203.0.113.2:9000-9009/udp");
    before.assert_same(&HostState::of(host.ns()));
    assert_eq!(definition(), text);
    refuses_connections(&host.lan.outside, at(lan_host(), 8080));
    let gone = wait(host.client().remove_forward(
        &network("default"),
        &"8080".parse().unwrap(),
        Run::Real,
    ));
    let (kind, text) = refusal(gone);
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("8080/tcp") && text.contains("vnet forward list default"), "{text}");
}

#[test]
fn a_port_that_is_in_use_is_refused_with_its_holder() {
    let (host, _netd, _web, _client) = host_with_web();
    let _held = host.ns().enter(|| {
        let all = TcpListener::bind("0.0.0.0:8080").unwrap();
        let one = UdpSocket::bind("127.0.0.1:9000").unwrap();
        let six = TcpListener::bind("[::]:8443").unwrap();
        (all, one, six)
    });
    let me = format!("(pid {})", std::process::id());
    let before = HostState::of(host.ns());
    for (listen, place) in [
        ("8080", "0.0.0.0:8080"),
        ("203.0.113.2:8080", "0.0.0.0:8080"),
        ("8000-8100", "0.0.0.0:8080"),
        ("8443", "[::]:8443"),
        ("9000/udp", "127.0.0.1:9000"),
    ] {
        let (kind, text) = refusal(try_add(&host, "default", listen, "web"));
        assert_eq!(kind, ErrorKind::Conflict);
        assert!(text.contains(&me) && text.contains(place), "{text}");
    }
    let (_, text) = refusal(try_add(&host, "default", "53/udp", "web"));
    assert!(text.contains("netd (pid ") && text.contains("192.168.122.1:53"), "{text}");
    before.assert_same(&HostState::of(host.ns()));
    add(&host, "203.0.113.2:9000/udp", "web");
    add(&host, "8080/udp", "web");
}

#[test]
fn two_forwards_of_one_port_are_refused() {
    let (host, _netd, _web, _client) = host_with_web();
    host.create(&nat("other")).unwrap();
    add(&host, "8080-8089", "web:80-89");
    let before = HostState::of(host.ns());
    let (kind, text) = refusal(try_add(&host, "default", "203.0.113.2:8089", "web"));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(text.contains("8080-8089/tcp to web:80-89") && text.contains("overlap"), "{text}");
    let (kind, text) = refusal(try_add(&host, "other", "8085", "192.168.123.9"));
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(text.contains("overlaps 8080-8089/tcp to web:80-89 of network default"), "{text}");
    let (kind, text) = refusal(try_add(&host, "other", "81", "192.168.122.9"));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(text.contains("192.168.122.9") && text.contains("192.168.123.0/24"), "{text}");
    before.assert_same(&HostState::of(host.ns()));
}

#[test]
fn a_dry_run_publishes_nothing() {
    let (host, _netd, _web, _client) = host_with_web();
    let before = HostState::of(host.ns());
    let changed =
        wait(host.client().add_forward(&network("default"), &forward("8080", "web:80"), Run::Dry))
            .unwrap();
    assert_eq!(
        changed.plan,
        [
            "note that the bridge virbr0 of default is ours",
            "update nftables tables inet vnet and bridge vnet for virbr0 (nat 192.168.122.0/24, 1 forward)",
            "let the host reach published ports on virbr0 at 127.0.0.1",
        ]
    );
    before.assert_same(&HostState::of(host.ns()));
    assert!(wait(host.client().forwards(None)).unwrap().is_empty());
}

#[test]
fn an_uplink_that_is_not_the_networks_own_leads_to_nothing_published() {
    let host = Host::new();
    let _netd = host.netd();
    Netns::veth(host.ns(), "eth1", &host.lan.outside, "eth1");
    host.ns().address("eth1", "198.18.0.2/24");
    host.lan.outside.address("eth1", "198.18.0.1/24");
    let mut only_eth1 = nat("default");
    only_eth1.uplink = Some("eth1".parse().unwrap());
    host.create(&only_eth1).unwrap();
    let (web, _client) = guest(&host, "virbr0", "web");
    serve(&web.ns, 80);
    add(&host, "8080", "web:80");
    assert!(tcp_seen_as(&host.lan.outside, at(Ipv4Addr::new(198, 18, 0, 2), 8080)).is_ok());
    assert!(tcp_seen_as(host.ns(), at(Ipv4Addr::LOCALHOST, 8080)).is_ok());
    refuses_connections(&host.lan.outside, at(lan_host(), 8080));
}

#[test]
fn the_command_line_adds_lists_and_removes() {
    let (host, netd, _web, client) = host_with_web();
    let text = netd.vnet_ok(["forward", "add", "default", "8080", "web:80"]);
    assert_eq!(text.trim(), "8080/tcp to web:80 on default is forwarded");
    let text = netd.vnet_ok(["forward", "list"]);
    let address = client.lease().address.to_string();
    assert!(text.contains("8080/tcp") && text.contains(&address), "{text}");
    assert!(netd.vnet_ok(["show", "default"]).contains("8080/tcp to web:80"));
    assert!(tcp_seen_as(host.ns(), at(Ipv4Addr::LOCALHOST, 8080)).is_ok());
    let text = netd.vnet_ok(["forward", "remove", "default", "8080/tcp"]);
    assert_eq!(text.trim(), "8080/tcp on default is forwarded no more");
    let (code, text) = netd.vnet_fails(["forward", "add", "default", "80/sctp", "web"]);
    assert!(code == 2 && text.contains("[ADDR:]PORT[-PORT][/tcp|/udp]"), "{text}");
}
