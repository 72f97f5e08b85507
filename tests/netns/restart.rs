//! netd started again on a host that has changed meanwhile: guests lose nothing by it.

use vnet_api::model::State;
use vnet_testkit::{HostState, Lan, Udhcpc, ping};
use vnet_tests::{Host, behind_its_back, nat, network};

/// The index of a link: it changes if the link is made anew.
fn index(host: &Host, name: &str) -> u64 {
    host.ns().json(&format!("link show {name}"))[0]["ifindex"].as_u64().unwrap()
}

fn reason(host: &Host, name: &str) -> String {
    match host.network(name).state {
        State::Failed { reason } => reason,
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn a_route_that_overlaps_takes_no_running_network_down() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    Udhcpc::obtain(&guest.ns, "eth0");
    let before = index(&host, "virbr0");
    netd.kill9();
    // As a VPN does.
    host.ns().route("192.168.0.0/16", "203.0.113.1");
    let _netd = host.netd();
    assert_eq!(host.network("default").state, State::Active);
    assert_eq!(index(&host, "virbr0"), before);
    ping(&guest.ns, Lan::SERVER.to_string().parse().unwrap()).unwrap();
}

#[test]
fn a_file_that_was_broken_takes_no_running_network_down() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    Udhcpc::obtain(&guest.ns, "eth0");
    let before = index(&host, "virbr0");
    netd.kill9();
    let path = host.paths().network(&network("default"));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("bridge =", "brigde =")).unwrap();
    let netd = host.netd();
    netd.wait_for_log("stays as it was started", std::time::Duration::from_secs(5));
    assert_eq!(host.network("default").state, State::Active);
    assert_eq!(index(&host, "virbr0"), before);
    Udhcpc::obtain(&guest.ns, "eth0");
}

#[test]
fn a_network_that_cannot_be_started_costs_no_other_its_bridge() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    host.create(&nat("two")).unwrap();
    let before = [index(&host, "virbr0"), index(&host, "virbr1")];
    netd.kill9();
    let text = std::fs::read_to_string(host.paths().network(&network("two"))).unwrap();
    let text = text.replace("\"two", "\"three").replace("192.168.123", "192.168.140");
    host.define("three", &text.replace("virbr1", "eth0"));
    host.define("four", &text.replace("\"three", "\"four").replace("168.140", "168.141"));
    let _netd = host.netd();
    assert_eq!([index(&host, "virbr0"), index(&host, "virbr1")], before);
    assert_eq!(host.network("default").state, State::Active);
    assert!(reason(&host, "three").contains("eth0"));
    // The one that wants a bridge which another has: either is right, both is not.
    let states = ["two", "four"].map(|name| host.network(name).state == State::Active);
    assert_ne!(states[0], states[1]);
    host.ns().run(["ip", "addr", "show", "eth0"]).contains("203.0.113.2").then_some(()).unwrap();
}

#[test]
fn a_port_that_is_taken_costs_guests_their_dns_and_not_their_bridge() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let before = index(&host, "virbr0");
    netd.kill9();
    let taken = host.ns().enter(|| std::net::TcpListener::bind("0.0.0.0:53").unwrap());
    let _netd = host.netd();
    assert!(reason(&host, "default").contains("192.168.122.1:53"));
    assert_eq!(index(&host, "virbr0"), before);
    // Another change leaves it alone.
    let mut lab = vnet_tests::request(vnet_types::Mode::Hostonly, "lab");
    lab.dhcp = false;
    let _ = host.create(&lab);
    assert_eq!(index(&host, "virbr0"), before);
    drop(taken);
    host.start("default").unwrap();
    assert_eq!(host.network("default").state, State::Active);
    assert_eq!(index(&host, "virbr0"), before);
}

#[test]
fn somebody_elses_link_in_a_networks_place_hinders_no_other() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    host.create(&nat("two")).unwrap();
    behind_its_back(&netd, || {
        host.ns().ip("link del virbr0");
        host.ns().ip("link add virbr0 type veth peer name elsewhere");
    });
    host.create(&nat("three")).unwrap();
    assert!(reason(&host, "default").contains("virbr0"));
    host.stop("two").unwrap();
    host.ns().run(["ip", "link", "show", "elsewhere"]);
}

#[test]
fn a_network_that_is_up_stays_up_though_it_is_not_to_start_by_itself_any_more() {
    let host = Host::new();
    host.define("default", crate::edit::DEFINITION);
    let netd = host.netd();
    assert_eq!(host.network("default").state, State::Active);
    let before = index(&host, "virbr0");
    vnet_tests::wait(host.client().autostart(&network("default"), false)).unwrap();
    netd.kill9();
    let netd = host.netd();
    assert_eq!(host.network("default").state, State::Active);
    assert_eq!(index(&host, "virbr0"), before);
    // Once it has been stopped, it is down until somebody starts it.
    host.stop("default").unwrap();
    netd.kill9();
    let _netd = host.netd();
    assert_eq!(host.network("default").state, State::Stopped);
}

#[test]
fn a_stop_that_cannot_be_written_down_takes_nothing_from_the_bridge() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let before = HostState::of(host.ns());
    let bridge = index(&host, "virbr0");
    // The name under which the ledger is written before it replaces the old one.
    let new = host.paths().ledger().with_extension("new");
    std::fs::create_dir(&new).unwrap();
    // Without it, the whole of it is to be written.
    std::fs::remove_file(host.paths().ledger()).unwrap();
    for result in [host.stop("default"), host.delete("default")] {
        let (_, text) = vnet_tests::refusal(result);
        assert!(text.contains("cannot write the ledger"), "{text}");
        assert_eq!(index(&host, "virbr0"), bridge);
        before.assert_same(&HostState::of(host.ns()));
    }
    assert!(host.paths().network(&network("default")).exists());
    Udhcpc::obtain(&guest.ns, "eth0");
    std::fs::remove_dir(new).unwrap();
    host.delete("default").unwrap();
}
