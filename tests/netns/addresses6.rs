//! How guests get IPv6 addresses: the kernel's own SLAAC, rdisc6, and real DHCPv6 clients.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use vnet_api::client::Run;
use vnet_api::model::{CreateIpv6, CreateNetwork, Reserve};
use vnet_testkit::{Client6Kind, Guest, Lan, Lease6, ping6, tcp_seen_as};
use vnet_types::{Mode, link_local};

use crate::ipv6::{edit, until};
use vnet_tests::{Host, network, request6, wait};

const PREFIX: &str = "fd12:3456:789a::/64";
const RANGE: &str = "fd12:3456:789a::1000-fd12:3456:789a::1fff";
const PATIENCE: Duration = Duration::from_secs(20);

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A network whose guests get their addresses by DHCPv6 alone.
fn given(mode: Mode) -> CreateNetwork {
    let ipv6 = CreateIpv6 { slaac: Some(false), ..range_of(PREFIX, RANGE) };
    CreateNetwork { ipv6: Some(ipv6), ..request6(mode, "default", PREFIX) }
}

fn range_of(prefix: &str, range: &str) -> CreateIpv6 {
    CreateIpv6 { prefix: prefix.parse().ok(), range: range.parse().ok(), slaac: None }
}

/// Waits until the guest's kernel has made an address of `prefix`, and gives it back.
fn made(guest: &Guest, prefix: &str) -> Ipv6Addr {
    let mut found = None;
    guest.ns.wait_for(&format!("an address of {prefix}"), PATIENCE, || {
        let all = guest.ns.json("-6 addr show eth0 scope global");
        let all = all[0]["addr_info"].as_array().cloned().unwrap_or_default();
        let fitting = all.iter().filter(|info| info["tentative"].is_null());
        let fitting = fitting.filter_map(|info| info["local"].as_str());
        found = fitting.filter(|text| text.starts_with(prefix)).map(address).next();
        found.is_some()
    });
    found.unwrap()
}

fn default_route(guest: &Guest) -> String {
    guest.ns.ip("-6 route show default")
}

/// Waits until the guest has heard its router.
fn online(guest: &Guest) {
    guest.ns.wait_for("a default route", PATIENCE, || default_route(guest).contains("proto ra"));
}

fn dig(guest: &Guest, server: &str, name: &str, kind: &str) -> String {
    let server = format!("@{server}");
    let words = ["dig", "+short", "+time=2", "+tries=2", &server, kind, name];
    guest.ns.run(words).trim().to_owned()
}

#[test]
fn a_guest_makes_its_own_address_and_finds_its_way() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    let network = host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap().network.unwrap();
    let router = link_local(network.bridge_mac.unwrap());
    let guest = host.lan.guest_on("virbr0");
    let own = made(&guest, "fd12:3456:789a:");
    assert!(default_route(&guest).contains(&format!("via {router} dev eth0 proto ra")));
    let seen = tcp_seen_as(&guest.ns, SocketAddr::new(Lan::SERVER6.into(), 7)).unwrap();
    assert_eq!(seen.ip(), IpAddr::V6(Lan::HOST6));
    ping6(&guest.ns, network.gateway6.unwrap()).unwrap();
    ping6(host.ns(), own).unwrap();
    // RFC 6724: an address of one's own that is there is no duplicate of another one.
    let gateway = network.gateway6.unwrap().to_string();
    assert_eq!(dig(&guest, &gateway, "gateway.default.vnet", "AAAA"), gateway);
    assert_eq!(dig(&guest, &gateway, Lan::SERVER_NAME, "AAAA"), Lan::SERVER6.to_string());
}

#[test]
fn what_the_router_says_is_what_the_network_is() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    let slaac = CreateNetwork { mtu: Some(1400), ..request6(Mode::Nat, "default", PREFIX) };
    host.create(&slaac).unwrap();
    let guest = host.lan.guest_on("virbr0");
    made(&guest, "fd12:3456:789a:");
    let said = guest.ns.run(["rdisc6", "-1", "-w", "5000", "eth0"]);
    let line =
        |words: &str| said.lines().find(|line| line.contains(words)).unwrap_or("").to_owned();
    for (words, value) in [
        ("Stateful address conf", "No"),
        ("Stateful other conf", "Yes"),
        ("Router lifetime", "1800"),
        ("Recursive DNS server", "fd12:3456:789a::1"),
        ("DNS search list", "default.vnet"),
        ("MTU", "1400"),
        ("Prefix    ", PREFIX),
        ("On-link", "Yes"),
        ("Autonomous address conf", "Yes"),
    ] {
        assert!(line(words).contains(value), "{words}: {said}");
    }
    // With a range and without SLAAC, guests are sent to DHCPv6.
    edit(&host, |text| {
        text.replace("slaac = true", &format!("slaac = false\nrange = \"{RANGE}\""))
    })
    .unwrap();
    until(&host, "guests are told of DHCPv6", || {
        let said = guest.ns.run(["rdisc6", "-1", "-w", "5000", "eth0"]);
        let line = |words: &str| said.lines().find(|line| line.contains(words)).unwrap_or("");
        line("Stateful address conf").contains("Yes")
            && line("Autonomous address conf").contains("No")
    });
}

#[test]
fn a_hostonly_network_is_no_way_out() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    let network = host.create(&request6(Mode::Hostonly, "default", PREFIX)).unwrap();
    let guest = host.lan.guest_on("virbr0");
    made(&guest, "fd12:3456:789a:");
    assert_eq!(default_route(&guest).trim(), "");
    ping6(&guest.ns, network.network.unwrap().gateway6.unwrap()).unwrap();
}

#[test]
fn guests_forget_a_network_that_stops() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap();
    let guest = host.lan.guest_on("virbr0");
    made(&guest, "fd12:3456:789a:");
    assert!(default_route(&guest).contains("proto ra"));
    host.stop("default").unwrap();
    guest
        .ns
        .wait_for("the default route to go", PATIENCE, || default_route(&guest).trim().is_empty());
    let own = guest.ns.ip("-6 addr show eth0 scope global");
    assert!(own.contains("deprecated"), "{own}");
}

#[test]
fn guests_move_to_another_prefix() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap();
    let guest = host.lan.guest_on("virbr0");
    let first = made(&guest, "fd12:3456:789a:");
    edit(&host, |text| text.replace(PREFIX, "fd00:7::/64")).unwrap();
    made(&guest, "fd00:7:");
    tcp_seen_as(&guest.ns, SocketAddr::new(Lan::SERVER6.into(), 7)).unwrap();
    let old = guest.ns.ip(&format!("-6 addr show eth0 to {first}"));
    assert!(old.contains("deprecated"), "{old}");
}

fn obtain(kind: Client6Kind, guest: &Guest, name: &str) -> (vnet_testkit::Client6, Lease6) {
    kind.obtain(&guest.ns, "eth0", name).unwrap_or_else(|error| panic!("{error:#}"))
}

#[test]
fn real_clients_get_an_address_a_name_and_servers() {
    for kind in [Client6Kind::Dhclient, Client6Kind::Dhcpcd] {
        let host = Host::dual_stack();
        let netd = host.netd();
        host.create(&given(Mode::Nat)).unwrap();
        let guest = host.lan.guest_on("virbr0");
        let (_client, lease) = obtain(kind, &guest, "web");
        let own = lease.address.unwrap();
        assert!(host.network("default").definition.ipv6.unwrap().range.unwrap().contains(own));
        assert_eq!(lease.dns_servers, [address("fd12:3456:789a::1")]);
        assert!(lease.search.starts_with("default.vnet"), "{lease:?}");
        let listed = host.leases();
        let [one] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!((one.address, one.mac, &*one.state), (own.into(), guest.mac, "bound"));
        assert_eq!(one.hostname.as_deref(), Some("web"), "{kind:?}");
        let told = netd.vnet_ok(["explain", &guest.mac.to_string()]);
        assert!(told.contains("REPLY") && told.contains(&format!("leased {own}")), "{told}");
        made(&guest, &own.to_string());
        if kind == Client6Kind::Dhclient {
            online(&guest);
        }
        let gateway = "fd12:3456:789a::1";
        assert_eq!(dig(&guest, gateway, "web.default.vnet", "AAAA"), own.to_string());
        let reverse =
            guest.ns.run(["dig", "+short", &format!("@{gateway}"), "-x", &own.to_string()]);
        assert_eq!(reverse.trim(), "web.default.vnet.");
        let seen = tcp_seen_as(&guest.ns, SocketAddr::new(Lan::SERVER6.into(), 7)).unwrap();
        assert_eq!(seen.ip(), IpAddr::V6(Lan::HOST6), "{kind:?}");
        // It was on disk before the client had it.
        netd.kill9();
        let _netd = host.netd();
        assert_eq!(host.leases(), listed);
        let other = host.lan.guest_on("virbr0");
        let (_other, second) = obtain(kind, &other, "other");
        assert_ne!(second.address.unwrap(), own);
        assert_eq!(host.leases().len(), 2);
    }
}

#[test]
fn a_client_that_asks_for_options_only_gets_them() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap();
    let guest = host.lan.guest_on("virbr0");
    let (_client, lease) = obtain(Client6Kind::DhclientStateless, &guest, "web");
    assert_eq!(lease.address, None);
    assert_eq!(lease.dns_servers, [address("fd12:3456:789a::1")]);
    assert!(lease.search.starts_with("default.vnet"), "{lease:?}");
    assert!(host.leases().is_empty());
}

#[test]
fn a_reservation_is_kept_for_its_guest() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap();
    let guest = host.lan.guest_on("virbr0");
    let ip6 = address("fd12:3456:789a::42");
    let reserve = Reserve { ip: None, ip6: Some(ip6), hostname: "db".parse().ok() };
    let default = network("default");
    wait(host.client().reserve(&default, guest.mac, &reserve, Run::Real)).unwrap();
    let (_client, lease) = obtain(Client6Kind::Dhclient, &guest, "web");
    online(&guest);
    assert_eq!(lease.address, Some(ip6));
    assert_eq!(dig(&guest, "fd12:3456:789a::1", "db.default.vnet", "AAAA"), ip6.to_string());
    wait(host.client().unreserve(&default, guest.mac, Run::Real)).unwrap();
    assert!(host.network("default").definition.ipv6.unwrap().reservations.is_empty());
}

#[test]
fn a_prefix_that_is_no_64_is_given_by_dhcpv6() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    let changed = host.create(&request6(Mode::Nat, "default", "fd00:8::/112")).unwrap();
    assert!(changed.notes.iter().any(|note| note.contains("fd00:8::1000-fd00:8::1fff")));
    let guest = host.lan.guest_on("virbr0");
    let (_client, lease) = obtain(Client6Kind::Dhclient, &guest, "web");
    online(&guest);
    assert!(address("fd00:8::1000") <= lease.address.unwrap());
    tcp_seen_as(&guest.ns, SocketAddr::new(Lan::SERVER6.into(), 7)).unwrap();
}
