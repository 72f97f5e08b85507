//! Real DHCP clients, through what a guest's whole life asks of the server.

use std::net::Ipv4Addr;

use vnet_testkit::{ClientKind, Dhclient, Dhcpcd, HostState, Udhcpc};
use vnet_types::MacAddr;

use vnet_tests::Host;
use vnet_tests::port_guest::until;

fn obtains(kind: ClientKind) {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let lease = kind.on(&guest.ns, "eth0").hostname("web").obtain();
    let gateway = Ipv4Addr::new(192, 168, 122, 1);
    assert_eq!(lease.address.octets()[..3], [192, 168, 122]);
    assert_eq!(lease.prefix, 24);
    assert_eq!(lease.router, Some(gateway));
    assert_eq!(lease.dns, [gateway]);
    assert_eq!(lease.server, Some(gateway));
    assert_eq!(lease.lease_seconds, 3600);
    assert_eq!(lease.domain.as_deref(), Some("default.vnet"));

    let leases = host.leases();
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].address, lease.address);
    assert_eq!(leases[0].mac, guest.mac);
    assert_eq!(leases[0].hostname.as_deref(), Some("web"));
    assert_eq!(leases[0].state, "bound");
    assert_eq!(host.network("default").leases, 1);
}

#[test]
fn udhcpc_obtains_a_lease() {
    obtains(ClientKind::Udhcpc);
}

#[test]
fn dhclient_obtains_a_lease() {
    obtains(ClientKind::Dhclient);
}

#[test]
fn dhcpcd_obtains_a_lease() {
    obtains(ClientKind::Dhcpcd);
}

#[test]
fn a_renewed_lease_keeps_its_address() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let mut client = Udhcpc::on(&guest.ns, "eth0").start().unwrap();
    let first = client.lease().clone();
    let renewed = client.renew().unwrap();
    assert_eq!(renewed.address, first.address);
}

#[test]
fn a_released_address_is_free_and_its_name_gone() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let client = Dhclient::on(&guest.ns, "eth0").hostname("web").start().unwrap();
    client.release().unwrap();
    until("the release", || host.leases()[0].state == "released");
}

#[test]
fn a_guest_that_reboots_gets_its_address_at_once() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let client = Dhclient::on(&guest.ns, "eth0").start().unwrap();
    let first = client.lease().clone();
    let again = client.reboot().unwrap();
    assert_eq!(again.lease().address, first.address);
}

#[test]
fn a_client_with_another_networks_address_is_told_no() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let client = Dhcpcd::on(&guest.ns, "eth0").start().unwrap();
    host.delete("default").unwrap();
    drop(netd);
    // The same cable leads to another network now.
    let _netd = host.netd();
    let mut request = vnet_tests::nat("default");
    request.subnet = Some("10.9.8.0/24".parse().unwrap());
    host.create(&request).unwrap();
    host.ns().enslave(&guest.port, "virbr0");
    let lease = client.reboot().unwrap();
    assert_eq!(lease.lease().address.octets()[..3], [10, 9, 8]);
}

#[test]
fn a_reservation_holds() {
    let host = Host::new();
    let mac = MacAddr::derived("reserved", 0);
    host.define(
        "default",
        &format!(
            r#"name = "default"
mode = "nat"
bridge = "virbr0"
subnet = "192.168.122.0/24"
domain = "default.vnet"

[dhcp]
range = "192.168.122.100-192.168.122.120"
reservations = [{{ mac = "{mac}", ip = "192.168.122.77", hostname = "db" }}]
"#
        ),
    );
    let _netd = host.netd();
    let guest = host.lan.guest_on("virbr0");
    guest.ns.ip(&format!("link set eth0 address {mac}"));
    let lease = Udhcpc::obtain(&guest.ns, "eth0");
    assert_eq!(lease.address, Ipv4Addr::new(192, 168, 122, 77));
    let other = host.lan.guest_on("virbr0");
    let lease = Udhcpc::obtain(&other.ns, "eth0");
    assert!((100..=120).contains(&lease.address.octets()[3]), "{}", lease.address);
}

#[test]
fn the_hosts_own_state_is_untouched_by_a_guests_lease() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let before = HostState::of(host.ns());
    Udhcpc::obtain(&guest.ns, "eth0");
    before.assert_same(&HostState::of(host.ns()));
}
