//! Real guests on real KVM, on networks of a real netd: what holds only when all parts do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod guest;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use guest::Guest;
use vnet_api::model::State;
use vnet_testkit::{HostState, binary, ping};
use vnet_tests::Host;

const PATIENCE: Duration = Duration::from_secs(20);

fn address(line: &str) -> Ipv4Addr {
    let value = line.split_once(" address=").unwrap().1.split(['/', ' ']).next().unwrap();
    value.parse().unwrap()
}

#[test]
fn a_guest_gets_its_address_and_its_name_and_the_outside() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let words = "vnet.hostname=web vnet.dns=server.example vnet.connect=server.example:80 \
                 vnet.http=1 vnet.mode=stay";
    let mut guest = Guest::start(&host, "web", words);
    let web = address(&guest.wait_for("dhcp ok"));
    guest.wait_for("gateway ok");
    guest.wait_for("dns ok");
    let outside = guest.wait_for("outside ok");
    assert!(outside.contains("200 OK"), "{outside}");
    guest.wait_for("done ok");

    let leases = host.leases();
    assert_eq!((leases[0].address, leases[0].hostname.as_deref()), (web.into(), Some("web")));
    let network = host.network("default");
    assert_eq!(network.ports[0].domain.as_str(), "web");
    assert_eq!(network.ports[0].mac, leases[0].mac);
    let answer = host.ns().run(["dig", "+short", "@192.168.122.1", "web.default.vnet"]);
    assert_eq!(answer.trim(), web.to_string());
    ping(host.ns(), web).unwrap();

    let before = host.ns().ip("-br link show type tun");
    assert!(before.contains("vtap"), "{before}");
    guest.kill();
    assert_eq!(host.ns().ip("-br link show type tun"), "");
}

#[test]
fn a_guest_lives_through_the_death_of_netd() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let mut guest = Guest::start(&host, "web", "vnet.mode=stay");
    let web = address(&guest.wait_for("dhcp ok"));
    guest.wait_for("done ok");
    netd.kill9();
    ping(host.ns(), web).unwrap();
    let _netd = host.netd();
    ping(host.ns(), web).unwrap();
    assert_eq!(host.network("default").ports[0].domain.as_str(), "web");
    assert_eq!(host.leases()[0].address, web);
}

#[test]
fn guests_started_together_have_different_addresses_and_reach_each_other() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let names: Vec<String> = (0..4).map(|number| format!("g{number}")).collect();
    let mut guests: Vec<Guest> =
        names.iter().map(|name| Guest::start(&host, name, "vnet.mode=stay")).collect();
    let addresses: BTreeSet<Ipv4Addr> =
        guests.iter_mut().map(|guest| address(&guest.wait_for("dhcp ok"))).collect();
    assert_eq!(addresses.len(), guests.len());
    for guest in &mut guests {
        guest.wait_for("done ok");
    }
    for address in addresses {
        ping(host.ns(), address).unwrap();
    }
    // From one guest to another: the built-in guest's own TCP step, against a closed port.
    let target = host.leases()[0].address;
    let mut one = Guest::start(&host, "one", &format!("vnet.connect={target}:9"));
    let line = one.wait_for("outside failed");
    assert!(line.contains("refuses"), "{line}");
}

#[test]
fn a_network_that_was_cut_off_takes_its_guests_back() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let mut guest = Guest::start(&host, "web", "vnet.mode=stay");
    let web = address(&guest.wait_for("dhcp ok"));
    guest.wait_for("done ok");
    host.cut_off("default");
    assert_eq!(host.network("default").state, State::Stopped);
    ping(host.ns(), web).unwrap_err();
    host.start("default").unwrap();
    host.ns().wait_for("the guest's answer", PATIENCE, || ping(host.ns(), web).is_ok());
}

#[test]
fn a_host_without_kvm_is_said_so_and_left_as_it_was() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let before = HostState::of(host.ns());
    // In a mount namespace of its own, in which /dev is empty.
    let script = "mount -t tmpfs none /dev && exec \"$0\" run --net nat:default";
    let output = host
        .ns()
        .command("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(binary("vnet"))
        .env("VNET_ROOT", host.root.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("/dev/kvm"), "{text}");
    before.assert_same(&HostState::of(host.ns()));
}
