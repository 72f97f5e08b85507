//! The host's own network goes under a bridge and comes back, and nobody notices.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use vnet_api::client::{ClientError, Guests, Run};
use vnet_api::model::{BridgeChanged, EnslaveUplink, ErrorKind, State};
use vnet_testkit::{HostState, Lan, Netns, Stream};

use vnet_tests::{Host, nat, refusal, wait};

fn eth0() -> EnslaveUplink {
    EnslaveUplink {
        bridge: "br0".parse().unwrap(),
        uplink: "eth0".parse().unwrap(),
        name: None,
        mtu: None,
        confirm_seconds: None,
    }
}

fn enslave(host: &Host, request: &EnslaveUplink) -> Result<BridgeChanged, ClientError> {
    wait(host.client().enslave(request, Run::Real))
}

fn release(host: &Host) -> Result<BridgeChanged, ClientError> {
    let (bridge, uplink) = ("br0".parse().unwrap(), "eth0".parse().unwrap());
    wait(host.client().release(&bridge, &uplink, Guests::Respect, Run::Real))
}

pub(crate) fn dual_stack() -> Host {
    Host { lan: Lan::dual_stack(), ..Host::new() }
}

/// Everything about an uplink that has to come along.
pub(crate) fn furnish(host: &Host) {
    let ns = host.ns();
    for line in [
        "addr add 203.0.113.77/24 dev eth0 label eth0:1",
        "addr add 10.9.0.2/16 dev eth0 scope link noprefixroute",
        "addr add 203.0.113.99/32 dev eth0 valid_lft 5000 preferred_lft 4000",
        "addr add 2001:db8:203::99/64 dev eth0 valid_lft 5000 preferred_lft 4000",
        "addr add 2001:db8:204::1/64 dev eth0 nodad noprefixroute",
        "route add 10.20.0.0/16 via 203.0.113.9 metric 77 src 203.0.113.77 mtu 1400 proto static",
        "route add 10.21.0.0/16 dev eth0 scope link table 1000 metric 5",
        "route add default via 203.0.113.1 table 1000",
        "route add 10.22.0.0/16 nexthop via 203.0.113.9 weight 2 nexthop via 203.0.113.10 weight 3",
        "route add 10.23.0.0/16 via 10.99.0.1 dev eth0 onlink",
        "route add local 10.24.0.0/16 dev eth0 table 1001",
        "-6 route add 2001:db8:20::/48 via 2001:db8:203::1 metric 55",
        "-6 route add 2001:db8:21::/48 metric 9 nexthop via 2001:db8:203::1 nexthop via 2001:db8:203::3",
        "-6 route add 2001:db8:22::/48 via fe80::1 dev eth0 table 1000 expires 3000",
        "rule add iif eth0 lookup 1000 priority 900",
        "rule add oif eth0 fwmark 7 lookup 1001 priority 901",
        "-6 rule add iif eth0 lookup 1000 priority 902",
        "neigh add 203.0.113.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
        "neigh add proxy 203.0.113.200 dev eth0",
        "link set eth0 mtu 1450",
    ] {
        ns.ip(line);
    }
    // The kernel makes the routes to IPv6 addresses a little later than the addresses.
    vnet_tests::port_guest::until("a host whose IPv6 addresses are in use", || {
        let routes = ns.ip("-6 route show table local");
        ["2001:db8:203::99", "2001:db8:204::1"].iter().all(|address| routes.contains(address))
    });
}

/// What is on a link, with the link's name replaced.
pub(crate) fn facts(host: &Host, link: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in [
        "-4 route show table all",
        "-6 route show table all",
        "rule",
        "-6 rule",
        "neigh show nud permanent",
    ] {
        let text = host.ns().ip(line);
        lines.extend(text.lines().filter(|line| line.contains(link)).map(str::to_owned));
    }
    let text = host.ns().ip(&format!("addr show dev {link}"));
    lines.extend(text.lines().filter(|line| line.trim().starts_with("inet")).map(str::to_owned));
    let mut lines: Vec<String> = lines
        .iter()
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let mut kept = Vec::new();
            let mut skip = false;
            for word in words {
                // What is left of a life.
                if !std::mem::take(&mut skip) {
                    kept.push(word.replace(link, "LINK"));
                    skip = word == "expires";
                }
            }
            kept.join(" ")
        })
        .filter(|line| !line.contains("multicast ff00::/8"))
        .collect();
    lines.sort();
    lines
}

fn ping(host: &Host) {
    let server = Lan::SERVER.to_string().parse().unwrap();
    vnet_testkit::ping(host.ns(), server).unwrap();
}

#[test]
fn everything_about_an_uplink_moves_to_the_bridge_and_back() {
    let host = dual_stack();
    furnish(&host);
    let _netd = host.netd();
    let before = HostState::of(host.ns());
    let was = facts(&host, "eth0");
    let changed = enslave(&host, &eth0()).unwrap();
    assert_eq!(changed.network.unwrap().state, State::Active);
    assert_eq!(facts(&host, "br0"), was);
    assert_eq!(facts(&host, "eth0"), Vec::<String>::new());
    assert_eq!(host.ns().mac("br0"), host.ns().mac("eth0"));
    let link = &host.ns().json("link show br0")[0];
    assert_eq!(link["linkinfo"]["info_data"]["stp_state"], 0);
    assert_eq!(link["linkinfo"]["info_data"]["forward_delay"], 0);
    assert_eq!(link["mtu"], 1450);
    ping(&host);
    release(&host).unwrap();
    before.assert_same(&HostState::of(host.ns()));
    assert_eq!(facts(&host, "eth0"), was);
    ping(&host);
}

#[test]
fn a_connection_survives_the_moves() {
    let host = dual_stack();
    let _netd = host.netd();
    let servers: [IpAddr; 2] = [Lan::SERVER.into(), Lan::SERVER6.into()];
    let streams = servers.map(|server| Stream::start(&host.lan, server).unwrap());
    let hear = || streams.iter().for_each(|stream| stream.hear(20).unwrap());
    hear();
    for _ in 0..3 {
        enslave(&host, &eth0()).unwrap();
        hear();
        release(&host).unwrap();
        hear();
    }
    for stream in streams {
        assert!(stream.end().unwrap() > 0);
    }
}

/// The kernel's news of IPv4 addresses in `ns` (those of IPv6 come late: after duplicate address
/// detection, though there is none), until the marker that is set on `lo` at the end.
fn news_of_addresses(ns: &Netns, meanwhile: impl FnOnce()) -> Vec<String> {
    let mut command = ns.command("ip");
    command.args(["-4", "-o", "monitor", "address"]).stdout(Stdio::piped());
    let mut monitor = command.spawn().unwrap();
    let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines().map(Result::unwrap);
    // It listens when it tells of this; until then, it is told again.
    let started = std::thread::scope(|scope| {
        let first = scope.spawn(|| lines.next());
        while !first.is_finished() {
            ns.ip("addr add 192.0.2.1/32 dev lo");
            ns.ip("addr del 192.0.2.1/32 dev lo");
        }
        first.join().unwrap()
    });
    assert!(started.is_some());
    meanwhile();
    ns.ip("addr add 192.0.2.2/32 dev lo");
    let news = lines.by_ref().take_while(|line| !line.contains("192.0.2.2")).collect();
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    ns.ip("addr del 192.0.2.2/32 dev lo");
    news
}

#[test]
fn no_ipv4_address_is_missing_at_any_instant() {
    let host = dual_stack();
    furnish(&host);
    let _netd = host.netd();
    let addresses = || -> BTreeSet<(String, String)> {
        let links = host.ns().json("-4 addr show");
        let of_link = |link: &serde_json::Value| -> Vec<(String, String)> {
            let name = link["ifname"].as_str().unwrap().to_owned();
            let infos = link["addr_info"].as_array().unwrap().clone();
            infos
                .iter()
                .map(|info| {
                    (
                        name.clone(),
                        format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"]),
                    )
                })
                .collect()
        };
        links.as_array().unwrap().iter().flat_map(of_link).collect()
    };
    let mut present = addresses();
    let all: BTreeSet<String> = present.iter().map(|(_, address)| address.clone()).collect();
    assert!(all.len() > 4, "{all:?}");
    let news = news_of_addresses(host.ns(), || {
        enslave(&host, &eth0()).unwrap();
        release(&host).unwrap();
    });
    let mut moves = 0;
    for line in &news {
        // `Deleted 2: eth0    inet 203.0.113.2/24 …`, or without the first word.
        let words: Vec<_> =
            line.split_whitespace().skip_while(|word| !word.ends_with(':')).collect();
        let place = (words[1].to_owned(), words[3].to_owned());
        match line.starts_with("Deleted") {
            true => present.remove(&place),
            false => present.insert(place),
        };
        moves += 1;
        for address in &all {
            let is_there = present.iter().any(|(_, other)| other == address);
            assert!(is_there, "{address} is nowhere after `{line}` of {news:#?}");
        }
    }
    assert!(moves >= 4 * (all.len() - 1), "{news:#?}");
    assert_eq!(present, addresses());
}

#[test]
fn an_address_that_is_being_checked_for_duplicates_is_not_checked_again() {
    let host = dual_stack();
    for link in ["all", "default", "eth0"] {
        host.ns().set_sysctl(&format!("net.ipv6.conf.{link}.accept_dad"), "1");
    }
    let _netd = host.netd();
    enslave(&host, &eth0()).unwrap();
    let text = host.ns().ip("-6 addr show dev br0");
    assert!(text.contains("2001:db8:203::2/64"), "{text}");
    assert!(!text.contains("tentative") && !text.contains("nodad"), "{text}");
}

#[test]
fn without_confirmation_all_is_put_back() {
    let host = dual_stack();
    furnish(&host);
    let netd = host.netd();
    let before = HostState::of(host.ns());
    let changed = enslave(&host, &EnslaveUplink { confirm_seconds: Some(1), ..eth0() }).unwrap();
    assert!(changed.network.unwrap().confirm_within.is_some());
    netd.wait_for_log("br0 was not confirmed in time", Duration::from_secs(20));
    host.ns().wait_for("host without br0", Duration::from_secs(20), || {
        host.ns().try_run(["ip", "link", "show", "br0"]).is_err()
    });
    // The list waits for netd to have done with it.
    assert_eq!(wait(host.client().bridges()).unwrap(), []);
    before.assert_same(&HostState::of(host.ns()));
    assert!(!host.paths().network(&"br0".parse().unwrap()).exists());
    let (kind, text) = refusal(wait(host.client().confirm(&"br0".parse().unwrap())));
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(text.contains("does not wait to be confirmed"), "{text}");
}

#[test]
fn with_confirmation_it_stays() {
    let host = Host::new();
    let netd = host.netd();
    enslave(&host, &EnslaveUplink { confirm_seconds: Some(600), ..eth0() }).unwrap();
    let changed = wait(host.client().confirm(&"br0".parse().unwrap())).unwrap();
    assert_eq!(changed.network.unwrap().confirm_within, None);
    let state = HostState::of(host.ns());
    netd.kill9();
    let _netd = host.netd();
    state.assert_same(&HostState::of(host.ns()));
    assert_eq!(wait(host.client().bridges()).unwrap()[0].state, State::Active);
}

#[test]
fn netd_that_dies_before_the_confirmation_puts_all_back() {
    let host = Host::new();
    let before = HostState::of(host.ns());
    let netd = host.netd();
    enslave(&host, &EnslaveUplink { confirm_seconds: Some(600), ..eth0() }).unwrap();
    netd.kill9();
    let _netd = host.netd();
    before.assert_same(&HostState::of(host.ns()));
}

#[test]
fn a_gateway_that_does_not_answer_undoes_it() {
    let host = dual_stack();
    furnish(&host);
    host.lan.outside.ip("link set eth0 arp off");
    let _netd = host.netd();
    let before = HostState::of(host.ns());
    let (_, text) = refusal(enslave(&host, &eth0()));
    assert!(text.contains("the gateway 203.0.113.1 does not answer"), "{text}");
    assert!(text.contains("eth0 is as it was"), "{text}");
    before.assert_same(&HostState::of(host.ns()));
}

#[test]
fn a_host_without_a_gateway_needs_no_answer() {
    let host = Host::new();
    host.ns().ip("route del default");
    let _netd = host.netd();
    enslave(&host, &eth0()).unwrap();
}

#[test]
fn an_uplink_without_any_address_goes_under_a_bridge_and_comes_back() {
    let host = Host::new();
    host.ns().set_sysctl("net.ipv6.conf.eth0.disable_ipv6", "1");
    host.ns().ip("addr flush dev eth0");
    let _netd = host.netd();
    let before = HostState::of(host.ns());
    enslave(&host, &eth0()).unwrap();
    assert_eq!(facts(&host, "br0"), Vec::<String>::new());
    assert_eq!(host.ns().json("link show eth0")[0]["master"], "br0");
    release(&host).unwrap();
    before.assert_same(&HostState::of(host.ns()));
}

/// Whether the kernel of this host has the kind of link that `line` makes; says so if not.
fn can(ns: &Netns, line: &str) -> bool {
    let made = ns.try_run(["ip"].into_iter().chain(line.split(' ')));
    if let Err(error) = &made {
        assert!(error.to_string().contains("Unknown device type"), "{error}");
        eprintln!("not tested: this kernel cannot do `ip {line}`");
    }
    made.is_ok()
}

/// The host's network, on `uplink` after `lines`, goes to a bridge and back.
fn is_an_uplink(host: &Host, uplink: &str, lines: &[&str]) {
    let ns = host.ns();
    lines.iter().for_each(|line| drop(ns.ip(line)));
    ns.settle(uplink);
    let _netd = host.netd();
    let before = HostState::of(ns);
    let was = facts(host, uplink);
    assert!(!was.is_empty());
    let request = EnslaveUplink { uplink: uplink.parse().unwrap(), ..eth0() };
    enslave(host, &request).unwrap();
    assert_eq!(facts(host, "br0"), was);
    ping(host);
    let EnslaveUplink { bridge, uplink, .. } = request;
    wait(host.client().release(&bridge, &uplink, Guests::Respect, Run::Real)).unwrap();
    before.assert_same(&HostState::of(ns));
    ping(host);
}

#[test]
fn a_bond_can_be_an_uplink() {
    let host = Host::new();
    if !can(host.ns(), "link add bond0 type bond mode active-backup miimon 50") {
        return;
    }
    let lines = [
        "link add spare0 type veth peer name spare1",
        "addr flush dev eth0",
        "link set eth0 down",
        "link set spare1 up",
        "link set eth0 master bond0",
        "link set spare0 master bond0",
        "link set bond0 type bond primary eth0",
        "link set bond0 up",
        "addr add 203.0.113.2/24 dev bond0",
        "route add default via 203.0.113.1",
    ];
    is_an_uplink(&host, "bond0", &lines);
}

#[test]
fn a_vlan_can_be_an_uplink() {
    let host = Host::new();
    let vlan = "link add link eth0 name eth0.5 type vlan id 5";
    // The gateway is behind the same tag.
    let outside = &host.lan.outside;
    if !can(outside, vlan) {
        return;
    }
    for line in ["addr flush dev eth0", "link set eth0.5 up", "addr add 203.0.113.1/24 dev eth0.5"]
    {
        outside.ip(line);
    }
    let lines = [
        vlan,
        "addr flush dev eth0",
        "link set eth0.5 up",
        "addr add 203.0.113.2/24 dev eth0.5",
        "route add default via 203.0.113.1",
    ];
    is_an_uplink(&host, "eth0.5", &lines);
}

#[test]
fn what_cannot_be_an_uplink_is_refused_and_nothing_changes() {
    let host = Host::new();
    let _netd = host.netd();
    let ns = host.ns();
    host.create(&nat("default")).unwrap();
    for line in [
        "link add down0 type veth peer name down1",
        "link add br7 type bridge",
        "link add br8 type bridge stp_state 1",
        "link add port0 type veth peer name port1",
        "link set port0 up master br7",
        "link add low0 type veth peer name low1",
        "link set low0 up",
        "link add mac0 link low0 type macvlan",
        "tuntap add tap7 mode tap",
    ] {
        ns.ip(line);
    }
    let before = HostState::of(ns);
    for (bridge, uplink, reason) in [
        ("br0", "eth7", "there is no interface eth7"),
        ("br0", "down0", "down0 is down"),
        ("br0", "lo", "loopback"),
        ("br0", "br7", "a bridge itself"),
        ("br0", "port0", "a port of the bridge br7 already"),
        ("br0", "low0", "mac0 (macvlan) stands on low0"),
        ("br0", "mac0", "is a macvlan"),
        ("br0", "tap7", "tap or tun"),
        ("virbr0", "eth0", "default"),
        ("br8", "eth0", "spanning tree"),
        ("low0", "eth0", "no bridge"),
        ("eth0", "eth0", "its own uplink"),
    ] {
        let request = EnslaveUplink {
            bridge: bridge.parse().unwrap(),
            uplink: uplink.parse().unwrap(),
            ..eth0()
        };
        let (_, text) = refusal(enslave(&host, &request));
        assert!(text.contains(reason), "{bridge} over {uplink}: {text}");
        before.assert_same(&HostState::of(ns));
    }
}

#[test]
fn a_bridge_that_was_there_is_adopted_and_given_back() {
    let host = Host::new();
    let ns = host.ns();
    ns.ip("link add br0 address 02:00:00:00:00:77 type bridge");
    ns.ip("addr add 10.55.0.1/24 dev br0");
    ns.ip("link add p0 type veth peer name p1");
    ns.ip("link set p0 master br0 up");
    ns.ip("link set p1 up");
    ns.up("br0");
    ns.settle("br0");
    let _netd = host.netd();
    let before = HostState::of(ns);
    enslave(&host, &eth0()).unwrap();
    assert_eq!(ns.mac("br0"), ns.mac("eth0"));
    assert!(ns.ip("addr show dev br0").contains("10.55.0.1/24"));
    ping(&host);
    let released = release(&host).unwrap();
    assert!(released.notes[0].contains("was there before"), "{:?}", released.notes);
    before.assert_same(&HostState::of(ns));
}

#[test]
fn the_managers_files_are_written_and_put_back() {
    let host = Host::new();
    let path = host.root.path().join("etc/network/interfaces");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = "auto eth0\niface eth0 inet static\n    address 203.0.113.2/24\n";
    std::fs::write(&path, text).unwrap();
    let _netd = host.netd();
    let dry = wait(host.client().enslave(&eth0(), Run::Dry)).unwrap();
    let last = dry.plan.last().unwrap();
    assert!(
        last.contains("write /etc/network/interfaces") && last.contains("iface br0 inet static"),
        "{last}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    enslave(&host, &eth0()).unwrap();
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written.contains("auto br0") && written.contains("iface eth0 inet manual"),
        "{written}"
    );
    release(&host).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn an_uplink_that_lost_its_bridge_is_put_under_it_at_the_next_start() {
    let host = Host::new();
    host.define("lan", "name = \"lan\"\nmode = \"bridged\"\nbridge = \"br0\"\nuplink = \"eth0\"\n");
    let _netd = host.netd();
    let networks = wait(host.client().bridges()).unwrap();
    assert_eq!(networks[0].state, State::Active);
    assert!(host.ns().ip("addr show dev br0").contains("203.0.113.2/24"));
}
