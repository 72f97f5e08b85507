//! systemd-networkd as a DHCP client, through what a guest's whole life asks of the server.

use std::net::Ipv4Addr;

use vnet_api::client::Run;
use vnet_api::model::Reserve;
use vnet_testkit::{Guest, Networkd};

use vnet_tests::port_guest::until;
use vnet_tests::timeline::{assert_heard, heard, timeline};
use vnet_tests::{Host, network, wait};

/// A network whose leases are renewed after three seconds, by everybody after six.
fn hurried(host: &Host) {
    host.define(
        "default",
        r#"name = "default"
mode = "nat"
bridge = "virbr0"
subnet = "192.168.122.0/24"
domain = "default.vnet"

[dhcp]
range = "192.168.122.100-192.168.122.150"
options = { renewal-time = 3, rebinding-time = 6 }
"#,
    );
}

/// Pulls the guest's cable, and puts it into this bridge.
fn replug(host: &Host, guest: &Guest, bridge: &str) {
    host.ns().ip(&format!("link set {} down", guest.port));
    let down = || guest.ns.json("link show eth0")[0]["operstate"] != "UP";
    until("end of the carrier", down);
    host.ns().enslave(&guest.port, bridge);
    host.ns().up(&guest.port);
}

#[test]
fn networkd_obtains_a_lease_and_gives_it_back() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let networkd = Networkd::client(&guest.ns, "web");
    let lease = networkd.lease(|_| true);
    let gateway = Ipv4Addr::new(192, 168, 122, 1);
    assert_eq!((lease.prefix, lease.router, lease.server), (24, Some(gateway), Some(gateway)));
    assert_eq!((lease.lease_seconds, &lease.dns[..]), (3600, &[gateway][..]));
    assert_eq!(lease.domain.as_deref(), Some("default.vnet"));
    let leases = host.leases();
    assert_eq!((leases[0].address, leases[0].mac), (lease.address.into(), guest.mac));
    assert_eq!(leases[0].hostname.as_deref(), Some("web"));
    networkd.terminate();
    until("release", || host.leases()[0].state == "released");
    assert_heard(&host, guest.mac, "RELEASE", "-", "was given back");
}

#[test]
fn networkd_renews_its_lease_and_moves_to_its_reservation() {
    let host = Host::new();
    hurried(&host);
    let _netd = host.netd();
    let guest = host.lan.guest_on("virbr0");
    let networkd = Networkd::client(&guest.ns, "web");
    let first = networkd.lease(|_| true);
    let renewed = || heard(&host, guest.mac, "REQUEST", "ACK", "because the client has it");
    until("renewal", renewed);
    assert_eq!(networkd.lease(|_| true).address, first.address);
    let ip = Ipv4Addr::new(192, 168, 122, 201);
    let reserve = Reserve { ip: Some(ip), ip6: None, hostname: None };
    wait(host.client().reserve(&network("default"), guest.mac, &reserve, Run::Real)).unwrap();
    // It hears no broadcast while it renews, and a NAK is one (RFC 2131 §4.1): it moves when it
    // rebinds.
    networkd.lease(|lease| lease.address == ip);
    assert_heard(&host, guest.mac, "REQUEST", "NAK", "is reserved for the client");
}

#[test]
fn networkd_asks_for_its_address_when_its_cable_is_back() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let mut other = vnet_tests::nat("other");
    other.subnet = Some("10.9.8.0/24".parse().unwrap());
    host.create(&other).unwrap();
    let guest = host.lan.guest_on("virbr0");
    let networkd = Networkd::client(&guest.ns, "web");
    let first = networkd.lease(|_| true);
    let begun = timeline(&host, guest.mac).len();
    replug(&host, &guest, "virbr0");
    let more = || timeline(&host, guest.mac).len() > begun;
    until("message of networkd", more);
    assert_eq!(networkd.lease(|_| true).address, first.address);
    // INIT-REBOOT: no DISCOVER comes before the REQUEST.
    let all = timeline(&host, guest.mac);
    assert!(all[begun..].iter().all(|(message, ..)| message == "REQUEST"), "{all:#?}");
    // The cable leads to another network now.
    replug(&host, &guest, "virbr1");
    let lease = networkd.lease(|lease| lease.address != first.address);
    assert_eq!(lease.address.octets()[..3], [10, 9, 8]);
    assert_heard(&host, guest.mac, "REQUEST", "NAK", "the address is not on this network");
}
