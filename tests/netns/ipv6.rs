//! IPv6 on networks with a subnet: what it is made of, what passes through it, and that nothing is
//! left. Guests here have their addresses by hand; `addresses6` has those that get them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use vnet_api::client::{ClientError, Run};
use vnet_api::model::{CreateIpv6, CreateNetwork, ErrorKind, State};
use vnet_testkit::{
    FakeGuest, Guest, HostState, Lan, frames, http_seen_as, ping6, tcp_seen_as, udp_seen_as,
};
use vnet_types::Mode;

use vnet_tests::{Host, nat, network, refusal, request, request6, wait};

const PREFIX: &str = "fd12:3456:789a::/64";
const GATEWAY: &str = "fd12:3456:789a::1";
const PATIENCE: Duration = Duration::from_secs(10);

fn server(port: u16) -> SocketAddr {
    SocketAddr::new(Lan::SERVER6.into(), port)
}

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// Waits for something that the kernel gives no notice of. Each look asks netd first, which answers
/// when it has done what it was at.
pub(crate) fn until(host: &Host, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + 2 * PATIENCE;
    while !done() {
        let state = host.network("default").state;
        assert!(Instant::now() < deadline, "not in time: {what}; the network is {state:?}");
    }
}

/// A guest with an address and the gateway as its router, set by hand.
pub(crate) fn guest_with(host: &Host, bridge: &str, own: &str, gateway: &str) -> Guest {
    let guest = host.lan.guest_on(bridge);
    guest.ns.ip(&format!("addr add {own}/64 dev eth0 nodad"));
    guest.ns.route("default", gateway);
    guest
}

fn addresses(host: &Host, link: &str) -> Vec<String> {
    let all = host.ns().json(&format!("addr show {link}"));
    let all = all[0]["addr_info"].as_array().unwrap().iter();
    all.map(|info| format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"])).collect()
}

#[test]
fn create_makes_exactly_what_it_says() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    let before = HostState::of(host.ns());
    let network = host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap().network.unwrap();
    assert_eq!(network.gateway6, Some(address(GATEWAY)));
    let link_local = vnet_types::link_local(network.bridge_mac.unwrap());
    let mut expected = vec![format!("{GATEWAY}/64"), format!("{link_local}/64")];
    expected.extend(["192.168.122.1/24".to_owned()]);
    expected.sort();
    let mut present = addresses(&host, "virbr0");
    present.sort();
    assert_eq!(present, expected);
    // At once, though there is no guest and so no carrier.
    let listed = host.ns().ip("-6 addr show virbr0");
    assert!(!listed.contains("tentative") && !listed.contains("dadfailed"), "{listed}");
    for (key, value) in [
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv6.conf.virbr0.forwarding", "1"),
        ("net.ipv6.conf.virbr0.accept_ra", "0"),
        ("net.ipv6.conf.eth0.accept_ra", "2"),
    ] {
        assert_eq!(host.ns().sysctl(key), value, "{key}");
    }
    host.delete("default").unwrap();
    before.assert_same(&HostState::of(host.ns()));
}

#[test]
fn a_prefix_is_chosen_at_random_and_kept() {
    let host = Host::new();
    let netd = host.netd();
    let ipv6 = || Some(CreateIpv6::default());
    host.create(&CreateNetwork { ipv6: ipv6(), ..nat("one") }).unwrap();
    host.create(&CreateNetwork { ipv6: ipv6(), ..nat("two") }).unwrap();
    let prefix = |name: &str| host.network(name).definition.ipv6.unwrap().prefix;
    let (one, two) = (prefix("one"), prefix("two"));
    assert!(one.is_unique_local() && one.fits_slaac(), "{one}");
    // RFC 4193 §3.2: 40 random bits, of which two networks do not have the same.
    assert_ne!(one.net().network().segments()[..3], two.net().network().segments()[..3]);
    netd.kill9();
    let _netd = host.netd();
    assert_eq!((prefix("one"), prefix("two")), (one, two));
    assert!(addresses(&host, "virbr0").contains(&format!("{}/64", one.gateway())));
}

#[test]
fn a_guest_reaches_the_outside_behind_the_hosts_address() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap();
    let guest = guest_with(&host, "virbr0", "fd12:3456:789a::50", GATEWAY);
    for seen in [
        http_seen_as(&guest.ns, server(80)).unwrap(),
        tcp_seen_as(&guest.ns, server(7)).unwrap(),
        udp_seen_as(&guest.ns, server(7)).unwrap(),
    ] {
        assert_eq!(seen.ip(), IpAddr::V6(Lan::HOST6));
        assert!(seen.port() >= 1024, "masqueraded to {seen}");
    }
    ping6(&guest.ns, Lan::SERVER6).unwrap();
    ping6(&guest.ns, address(GATEWAY)).unwrap();
    // Nobody comes in, though the outside has a route.
    host.lan.outside.route(PREFIX, &Lan::HOST6.to_string());
    ping6(&host.lan.outside, address("fd12:3456:789a::50")).unwrap_err();
    ping6(host.ns(), address("fd12:3456:789a::50")).unwrap();
}

#[test]
fn a_routed_network_is_reached_with_its_own_addresses() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&request6(Mode::Routed, "lab", "2001:db8:7::/64")).unwrap();
    host.lan.outside.route("2001:db8:7::/64", &Lan::HOST6.to_string());
    let guest = guest_with(&host, "virbr0", "2001:db8:7::50", "2001:db8:7::1");
    let seen = tcp_seen_as(&guest.ns, server(7)).unwrap();
    assert_eq!(seen.ip(), IpAddr::V6(address("2001:db8:7::50")));
    ping6(&host.lan.outside, address("2001:db8:7::50")).unwrap();
    // What is another's does not leave, though there is a way back.
    host.lan.outside.route("2001:db8:9::/64", &Lan::HOST6.to_string());
    host.ns().route("2001:db8:9::/64", "2001:db8:7::50");
    guest.ns.ip("addr add 2001:db8:9::1/128 dev eth0 nodad");
    let forged = guest.ns.enter(|| {
        let socket = std::net::UdpSocket::bind("[2001:db8:9::1]:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.send_to(b"x", server(7)).unwrap();
        socket.recv(&mut [0; 100]).is_ok()
    });
    assert!(!forged);
    // Nor does it come in by such a route.
    ping6(&host.lan.outside, address("2001:db8:9::1")).unwrap_err();
}

#[test]
fn a_hostonly_network_leads_nowhere() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&request6(Mode::Hostonly, "lab", PREFIX)).unwrap();
    assert_eq!(host.ns().sysctl("net.ipv6.conf.all.forwarding"), "0");
    // Even where somebody else has turned forwarding on, or another network has.
    host.create(&request6(Mode::Nat, "default", "fd00:2::/64")).unwrap();
    let guest = guest_with(&host, "virbr0", "fd12:3456:789a::50", GATEWAY);
    let other = guest_with(&host, "virbr1", "fd00:2::50", "fd00:2::1");
    ping6(&guest.ns, address(GATEWAY)).unwrap();
    ping6(host.ns(), address("fd12:3456:789a::50")).unwrap();
    ping6(&other.ns, Lan::SERVER6).unwrap();
    for (from, to) in [
        (&guest.ns, Lan::SERVER6),
        (&guest.ns, address("fd00:2::50")),
        (&other.ns, address("fd12:3456:789a::50")),
        (&host.lan.outside, address("fd12:3456:789a::50")),
    ] {
        host.lan.outside.ip(&format!("route replace {PREFIX} via {}", Lan::HOST6));
        ping6(from, to).unwrap_err();
    }
}

#[test]
fn networks_do_not_reach_each_other() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&request6(Mode::Nat, "one", PREFIX)).unwrap();
    host.create(&request6(Mode::Routed, "two", "fd00:2::/64")).unwrap();
    let one = guest_with(&host, "virbr0", "fd12:3456:789a::50", GATEWAY);
    let two = guest_with(&host, "virbr1", "fd00:2::50", "fd00:2::1");
    ping6(&one.ns, address("fd00:2::50")).unwrap_err();
    ping6(&two.ns, address("fd12:3456:789a::50")).unwrap_err();
    ping6(&one.ns, Lan::SERVER6).unwrap();
}

#[test]
fn a_network_without_ipv6_is_closed_for_it() {
    let host = Host::dual_stack();
    let netd = host.netd();
    host.create_default();
    host.create(&request(Mode::Routed, "lab")).unwrap();
    netd.kill9();
    host.ns().set_sysctl("net.ipv6.conf.all.forwarding", "1");
    for (bridge, prefix) in [("virbr0", "fd00:1::"), ("virbr1", "fd00:2::")] {
        host.ns().set_sysctl(&format!("net.ipv6.conf.{bridge}.disable_ipv6"), "0");
        host.ns().ip(&format!("addr add {prefix}1/64 dev {bridge} nodad"));
        host.lan.outside.route(&format!("{prefix}/64"), &Lan::HOST6.to_string());
        let guest = guest_with(&host, bridge, &format!("{prefix}50"), &format!("{prefix}1"));
        ping6(&guest.ns, address(&format!("{prefix}1"))).unwrap();
        ping6(&guest.ns, Lan::SERVER6).unwrap_err();
        ping6(&host.lan.outside, address(&format!("{prefix}50"))).unwrap_err();
    }
}

/// Has the host's uplink live on the router advertisements of the outside: an address and a
/// default route.
fn live_on_advertisements(host: &Host) {
    let router = FakeGuest::on(&host.lan.outside, "eth0");
    host.lan.outside.set_sysctl("net.ipv6.conf.all.forwarding", "1");
    let advertisement = frames::prefix_advertisement(router.mac(), address("2001:db8:5::"));
    host.ns().wait_for("a default route from a router advertisement", PATIENCE, || {
        router.send(&advertisement);
        host.ns().ip("-6 route show default").contains("proto ra")
    });
    host.ns().settle("eth0");
}

#[test]
fn an_uplink_that_lives_on_router_advertisements_keeps_its_router() {
    let host = Host::new();
    live_on_advertisements(&host);
    let before = HostState::of(host.ns());
    let routes = host.ns().ip("-6 route show default");
    let netd = host.netd();
    host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap();
    assert_eq!(host.ns().sysctl("net.ipv6.conf.eth0.accept_ra"), "2");
    let after = host.ns().ip("-6 route show default");
    let word = |text: &str| text.split(" expires").next().unwrap().to_owned();
    assert_eq!(word(&after), word(&routes));
    // And hears of another prefix of it.
    let router = FakeGuest::on(&host.lan.outside, "eth0");
    let advertisement = frames::prefix_advertisement(router.mac(), address("2001:db8:6::"));
    host.ns().wait_for("an address of the new prefix", PATIENCE, || {
        router.send(&advertisement);
        host.ns().ip("-6 addr show eth0").contains("2001:db8:6:")
    });
    host.ns().ip("-6 addr flush dev eth0 to 2001:db8:6::/64");
    let removal = host.ns().try_run("ip -6 route del 2001:db8:6::/64 dev eth0".split(' '));
    drop(removal);
    // One that comes while netd is there, and one while it is not, hear theirs too.
    host.ns().ip("link add up1 type veth peer name peer1");
    until(&host, "the later link is raised", || {
        host.ns().sysctl("net.ipv6.conf.up1.accept_ra") == "2"
    });
    netd.kill9();
    let _netd = host.netd();
    assert_eq!(host.ns().sysctl("net.ipv6.conf.eth0.accept_ra"), "2");
    host.ns().ip("link del up1");
    host.delete("default").unwrap();
    before.assert_same(&HostState::of(host.ns()));
}

#[test]
fn forwarding_of_others_is_put_back_to_the_letter() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.ns().set_sysctl("net.ipv6.conf.eth0.forwarding", "1");
    host.ns().set_sysctl("net.ipv6.conf.default.accept_ra", "0");
    let before = HostState::of(host.ns());
    host.create(&request6(Mode::Routed, "default", PREFIX)).unwrap();
    host.delete("default").unwrap();
    before.assert_same(&HostState::of(host.ns()));
}

#[test]
fn what_is_in_use_is_refused_by_name() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&request6(Mode::Nat, "one", PREFIX)).unwrap();
    host.ns().route("fd00:99::/48", &Lan::ROUTER6.to_string());
    let before = HostState::of(host.ns());
    for (prefix, words) in [
        ("2001:db8:203::/64", "the address 2001:db8:203::2/64 of eth0"),
        ("fd00:99:0:7::/64", "the route to fd00:99::/48 through eth0"),
        (PREFIX, "the network one (fd12:3456:789a::/64)"),
    ] {
        let (kind, text) = refusal(host.create(&request6(Mode::Nat, "two", prefix)));
        assert_eq!(kind, ErrorKind::Conflict);
        assert!(text.contains(words), "{text}");
    }
    let small = CreateNetwork { mtu: Some(1200), ..request6(Mode::Nat, "two", "fd00:3::/64") };
    let (_, text) = refusal(host.create(&small));
    assert!(text.contains("IPv6 needs an MTU of 1280"), "{text}");
    let mut wide = request6(Mode::Nat, "two", "fd00:3::/96");
    wide.ipv6.as_mut().unwrap().slaac = Some(true);
    let (kind, text) = refusal(host.create(&wide));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(text.contains("of a /64 only"), "{text}");
    before.assert_same(&HostState::of(host.ns()));
}

pub(crate) fn edit(host: &Host, change: impl Fn(&str) -> String) -> Result<(), ClientError> {
    let default = network("default");
    let text = std::fs::read_to_string(host.paths().network(&default)).unwrap();
    wait(host.client().edit(&default, change(&text), Run::Real)).map(drop)
}

#[test]
fn ipv6_comes_and_goes_by_an_edit_and_guests_keep_their_ipv4() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let lease = vnet_testkit::Udhcpc::obtain(&guest.ns, "eth0");
    let before = HostState::of(host.ns());
    let index = host.ns().json("link show virbr0")[0]["ifindex"].clone();
    let ipv6 = |prefix: &str| format!("\n[ipv6]\nprefix = \"{prefix}\"\n");
    edit(&host, |text| text.to_owned() + &ipv6(PREFIX)).unwrap();
    guest.ns.ip("addr add fd12:3456:789a::50/64 dev eth0 nodad");
    guest.ns.ip(&format!("-6 route replace default via {GATEWAY} dev eth0"));
    ping6(&guest.ns, Lan::SERVER6).unwrap();
    // Another prefix takes the place of the first one.
    edit(&host, |text| text.replace(PREFIX, "fd00:7::/64")).unwrap();
    let present = addresses(&host, "virbr0");
    assert!(present.contains(&"fd00:7::1/64".to_owned()), "{present:?}");
    assert!(!present.contains(&format!("{GATEWAY}/64")), "{present:?}");
    edit(&host, |text| text.replace(&ipv6("fd00:7::/64"), "")).unwrap();
    // What is set for a bridge without IPv6 makes no difference to it.
    for line in before.difference(&HostState::of(host.ns())).lines() {
        let unused = line.contains("addr_gen_mode") || line.contains("virbr0/accept_ra");
        assert!(unused, "{line}");
    }
    assert_eq!(host.ns().json("link show virbr0")[0]["ifindex"], index);
    assert_eq!(host.leases()[0].address, IpAddr::V4(lease.address));
    vnet_testkit::ping(&guest.ns, Lan::SERVER).unwrap();
}

#[test]
fn an_edit_that_contradicts_itself_is_refused_at_its_line() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap();
    let before = HostState::of(host.ns());
    let (kind, text) = refusal(edit(&host, |text| text.replace("slaac = true", "slaac = false")));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(text.contains("line ") && text.contains("guests would get no IPv6 address"), "{text}");
    before.assert_same(&HostState::of(host.ns()));
}

#[test]
fn what_others_undo_is_done_again() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap();
    // Without a carrier, the kernel does not route groups to a link that was set down and up.
    let guest = guest_with(&host, "virbr0", "fd12:3456:789a::50", GATEWAY);
    ping6(&guest.ns, address(GATEWAY)).unwrap();
    let whole = HostState::of(host.ns());
    for damage in [
        "ip -6 addr flush dev virbr0",
        "ip link set virbr0 down",
        "sysctl -qw net.ipv6.conf.all.forwarding=0",
    ] {
        host.ns().run(damage.split(' '));
        let mut left = String::new();
        until(&host, &format!("{damage} is undone"), || {
            left = whole.difference(&HostState::of(host.ns()));
            left.is_empty()
        });
        assert_eq!(host.network("default").state, State::Active);
    }
}
