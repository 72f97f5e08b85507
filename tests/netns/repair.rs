//! Something else on the host undoes what netd made: it comes back, and guests work again.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use vnet_api::model::State;
use vnet_testkit::{HostState, Lan, Netd, Udhcpc, http_seen_as, ping};
use vnet_types::Mode;

use std::os::fd::OwnedFd;
use vnet_api::ports::{Port, PortConnection, Request};
use vnet_tests::{Host, behind_its_back, network, request};

/// What netd says when it has repaired something.
const REPAIRED: &str = "has undone this, now done again: ";
/// Far longer than any repair takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A host with the network `default`, settled.
fn host_with_default() -> (Host, Netd) {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    (host, netd)
}

/// A guest's port, for as long as the first part lives.
fn attach(host: &Host) -> ((PortConnection, Vec<OwnedFd>), Port) {
    let request = Request::Attach {
        network: network("default"),
        domain: "web".parse().unwrap(),
        nic: 0,
        mac: "52:54:00:00:00:09".parse().unwrap(),
        queues: 1,
        limits: vnet_types::LinkLimits::default(),
    };
    let opened = PortConnection::open(&host.paths().ports_socket(), &request);
    let (connection, port, queues) = opened.unwrap();
    // A bridge takes a moment to find out that it has a carrier.
    host.ns().settle("virbr0");
    ((connection, queues), port)
}

/// Does `damage`, waits for its repair, checks that all is as before, and gives back what netd says.
fn damage_is_repaired(host: &Host, netd: &Netd, damage: &[&str]) -> String {
    let before = HostState::of(host.ns());
    host.ns().run(damage);
    let line = netd.wait_for_log(REPAIRED, PATIENCE);
    // A bridge takes a moment to find out whether it has a carrier.
    let state = || before.difference(&HostState::of(host.ns()));
    host.ns().wait_for("return to the state of before", PATIENCE, || state().is_empty());
    assert_eq!(host.network("default").state, State::Active);
    line
}

/// A new guest gets a lease, resolves a name and reaches the outside.
fn a_guest_works(host: &Host) {
    let guest = host.lan.guest_on("virbr0");
    let lease = Udhcpc::on(&guest.ns, "eth0").hostname("web").obtain();
    let server = std::net::SocketAddr::new(Lan::SERVER.into(), 80);
    assert_eq!(http_seen_as(&guest.ns, server).unwrap().ip(), Lan::HOST);
    let answer = guest.ns.run(["dig", "+short", "@192.168.122.1", "web.default.vnet"]);
    assert_eq!(answer.trim(), lease.address.to_string());
}

#[test]
fn a_table_that_was_deleted_comes_back() {
    let (host, netd) = host_with_default();
    let line = damage_is_repaired(&host, &netd, &["nft", "delete", "table", "inet", "vnet"]);
    assert!(line.contains("nftables tables inet vnet"), "{line}");
    a_guest_works(&host);
}

#[test]
fn a_flushed_ruleset_comes_back() {
    let (host, netd) = host_with_default();
    let line = damage_is_repaired(&host, &netd, &["nft", "flush", "ruleset"]);
    assert!(line.contains("nftables tables inet vnet"), "{line}");
    a_guest_works(&host);
}

#[test]
fn a_rule_of_ours_that_was_changed_is_replaced() {
    let (host, netd) = host_with_default();
    let chain = ["nft", "flush", "chain", "inet", "vnet", "to_nat"];
    let line = damage_is_repaired(&host, &netd, &chain);
    assert!(line.contains("replace nftables tables inet vnet"), "{line}");
}

#[test]
fn a_bridge_that_was_deleted_comes_back_with_its_services() {
    let (host, netd) = host_with_default();
    let mac = host.network("default").bridge_mac;
    let guest = host.lan.guest_on("virbr0");
    let lease = Udhcpc::obtain(&guest.ns, "eth0");
    // A cable that no port of netd's is: nobody else would put it back.
    host.ns().ip(&format!("link set {} nomaster", guest.port));
    host.ns().ip("link del virbr0");
    let line = netd.wait_for_log(REPAIRED, PATIENCE);
    assert!(line.contains("create bridge virbr0"), "{line}");
    // The gateway is who it was: guests have its address in their neighbour tables.
    assert_eq!(host.network("default").bridge_mac, mac);
    assert_eq!(host.leases().len(), 1);
    host.ns().enslave(&guest.port, "virbr0");
    ping(&guest.ns, Lan::SERVER).unwrap();
    assert_eq!(Udhcpc::obtain(&guest.ns, "eth0").address, lease.address);
    a_guest_works(&host);
}

#[test]
fn a_port_returns_to_a_bridge_that_was_deleted() {
    let (host, netd) = host_with_default();
    let (_guest, port) = attach(&host);
    damage_is_repaired(&host, &netd, &["ip", "link", "del", "virbr0"]);
    assert_eq!(host.ns().json(&format!("link show {}", port.name))[0]["master"], "virbr0");
}

#[test]
fn a_port_that_was_pulled_out_is_put_back() {
    let (host, netd) = host_with_default();
    let (_guest, port) = attach(&host);
    let name = port.name.as_str();
    let line = damage_is_repaired(&host, &netd, &["ip", "link", "set", name, "nomaster"]);
    assert!(line.contains(&format!("put port {name} on virbr0")), "{line}");
}

#[test]
fn addresses_that_were_flushed_come_back() {
    let (host, netd) = host_with_default();
    let line = damage_is_repaired(&host, &netd, &["ip", "addr", "flush", "dev", "virbr0"]);
    assert!(line.contains("add address 192.168.122.1/24 to virbr0"), "{line}");
    a_guest_works(&host);
}

#[test]
fn a_bridge_that_was_set_down_is_set_up() {
    let (host, netd) = host_with_default();
    let line = damage_is_repaired(&host, &netd, &["ip", "link", "set", "virbr0", "down"]);
    assert!(line.contains("set virbr0 up"), "{line}");
    a_guest_works(&host);
}

#[test]
fn forwarding_that_was_turned_off_is_turned_on_and_restored_in_the_end() {
    let host = Host::new();
    let untouched = HostState::of(host.ns());
    let netd = host.netd();
    host.create_default();
    let line = damage_is_repaired(&host, &netd, &["sysctl", "-qw", "net.ipv4.ip_forward=0"]);
    assert!(line.contains("turn on IPv4 forwarding"), "{line}");
    a_guest_works(&host);
    host.delete("default").unwrap();
    // The namespace of the guest, and the cable's end in it, go in the background.
    let state = || untouched.difference(&HostState::of(host.ns()));
    host.ns().wait_for("return to the first state", PATIENCE, || state().is_empty());
}

#[test]
fn all_at_once_is_one_repair() {
    let (host, netd) = host_with_default();
    let before = HostState::of(host.ns());
    behind_its_back(&netd, || {
        host.ns().run(["nft", "flush", "ruleset"]);
        host.ns().ip("link del virbr0");
        host.ns().set_sysctl("net.ipv4.ip_forward", "0");
    });
    let line = netd.wait_for_log(REPAIRED, PATIENCE);
    for part in ["create bridge virbr0", "install nftables tables", "turn on IPv4 forwarding"] {
        assert!(line.contains(part), "{line}");
    }
    let state = || before.difference(&HostState::of(host.ns()));
    host.ns().wait_for("return to the state of before", PATIENCE, || state().is_empty());
    a_guest_works(&host);
}

#[test]
fn what_netd_does_itself_is_no_damage() {
    let (host, netd) = host_with_default();
    host.create(&request(Mode::Hostonly, "lab")).unwrap();
    host.stop("default").unwrap();
    host.start("default").unwrap();
    host.delete("lab").unwrap();
    host.stop("default").unwrap();
    // Foreign changes make netd look, and so this one is the last that it looks at.
    host.start("default").unwrap();
    host.ns().run(["nft", "flush", "ruleset"]);
    netd.wait_for_log(REPAIRED, PATIENCE);
    assert_eq!(netd.log().matches(REPAIRED).count(), 1, "{}", netd.log());
}

#[test]
fn a_stopped_network_stays_stopped_whatever_happens_beside_it() {
    let (host, netd) = host_with_default();
    host.create(&request(Mode::Hostonly, "lab")).unwrap();
    host.stop("default").unwrap();
    host.ns().run(["nft", "flush", "ruleset"]);
    netd.wait_for_log(REPAIRED, PATIENCE);
    assert_eq!(host.network("default").state, State::Stopped);
    assert!(host.ns().try_run(["ip", "link", "show", "virbr0"]).is_err());
}

#[test]
fn thousands_of_notices_lose_nothing() {
    let (host, netd) = host_with_default();
    // More than a socket's buffer holds: the kernel drops some of them (ENOBUFS).
    let batch = host.root.path().join("batch");
    let lines: String = (0..4000)
        .map(|n| {
            let address = Ipv4Addr::from(0x0a00_0000 + n);
            format!("address add {address}/32 dev lo\naddress del {address}/32 dev lo\n")
        })
        .collect();
    std::fs::write(&batch, lines + "address flush dev virbr0\n").unwrap();
    damage_is_repaired(&host, &netd, &["ip", "-batch", batch.to_str().unwrap()]);
}

#[test]
fn two_that_fight_are_slowed_down_and_shown_until_one_gives_up() {
    let (host, netd) = host_with_default();
    let mut repairs = 0;
    let begun = Instant::now();
    let failed = || match host.network("default").state {
        State::Failed { reason } => Some(reason),
        _ => None,
    };
    let reason = loop {
        host.ns().run(["ip", "addr", "flush", "dev", "virbr0"]);
        host.ns().wait_for("address", PATIENCE, || {
            host.ns().ip("addr show virbr0").contains("192.168.122.1")
        });
        repairs += 1;
        if let Some(reason) = failed() {
            break reason;
        }
        assert!(repairs < 20, "nobody gives up:\n{}", netd.log());
    };
    assert!(reason.contains("add address 192.168.122.1/24 to virbr0"), "{reason}");
    assert!(begun.elapsed() > Duration::from_secs(5), "{repairs} repairs, but not slower");
    // It works all the same, and a person can say that it is over.
    a_guest_works(&host);
    host.start("default").unwrap();
    assert_eq!(failed(), None);
}

#[test]
fn a_foreign_link_in_the_bridges_place_is_named_and_left_alone() {
    let (host, netd) = host_with_default();
    behind_its_back(&netd, || {
        host.ns().ip("link del virbr0");
        host.ns().ip("link add virbr0 type bridge");
    });
    netd.wait_for_log("does not stay whole", PATIENCE);
    let foreign = host.ns().mac("virbr0");
    match host.network("default").state {
        State::Failed { reason } => assert!(reason.contains("is not vnet's"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(host.ns().mac("virbr0"), foreign);
    host.ns().ip("link del virbr0");
    netd.wait_for_log("network default is whole again", PATIENCE);
    a_guest_works(&host);
}
