//! When a guest's port is guarded, and which addresses are its own: from the lease to its end, over
//! netd's death, and as the definition says.

use std::net::Ipv4Addr;

use vnet_api::client::Run;
use vnet_api::model::CreateNetwork;
use vnet_testkit::frames::{self, DhcpMessage, Udp};
use vnet_testkit::{FakeGuest, HostState};
use vnet_types::MacAddr;

use vnet_tests::port_guest::{seen_in, until};
use vnet_tests::{Host, nat, network, wait};

use crate::guest_frames::*;

#[test]
fn nobody_takes_over_or_ends_anothers_lease() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (guest, other) = two_guests(&host);
    let id = [&[1][..], &MAC.octets()].concat();
    let offer = guest.dhcp(&DhcpMessage::discover(7, MAC).with(61, &id), 2);
    let request = DhcpMessage::request(8, MAC, offer.yiaddr, GATEWAY).with(61, &id);
    let own = guest.dhcp(&request, 5).yiaddr;
    let theirs = other.lease(GATEWAY);
    let leases = host.leases();
    // In the guest's name, though from the other's port.
    let release = DhcpMessage { ciaddr: own, ..DhcpMessage::from_client(7, 20, MAC) }
        .with(54, &GATEWAY.octets())
        .with(61, &id);
    other.send(
        &Udp { payload: release.bytes(), ..udp(theirs, 68, ALL, 67) }
            .frame(MacAddr::BROADCAST, OTHER),
    );
    // With the guest's identifier.
    let stolen = DhcpMessage::request(21, OTHER, own, GATEWAY).with(61, &id);
    assert_eq!(other.dhcp(&stolen, 6).kind(), Some(6));
    assert_eq!(host.leases(), leases);
    guest.passes(&other, "its own address", &datagram(own));
}

#[test]
fn an_address_is_the_guests_until_its_lease_ends() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (guest, other) = two_guests(&host);
    let first = guest.lease(GATEWAY);
    guest.passes(&other, "its own address", &datagram(first));
    let release = DhcpMessage { ciaddr: first, ..DhcpMessage::from_client(7, 9, MAC) }
        .with(54, &GATEWAY.octets());
    guest.send(
        &Udp { payload: release.bytes(), ..udp(first, 68, ALL, 67) }.frame(MacAddr::BROADCAST, MAC),
    );
    until("the released address is stopped", || !guest.reaches(&other, &datagram(first)));
    // The other guest moves to it, and from its own one.
    let theirs = other.lease(GATEWAY);
    let move_to = DhcpMessage::discover(10, OTHER).with(50, &first.octets());
    other.dhcp(&move_to, 2);
    let release = DhcpMessage { ciaddr: theirs, ..DhcpMessage::from_client(7, 11, OTHER) }
        .with(54, &GATEWAY.octets());
    other.send(
        &Udp { payload: release.bytes(), ..udp(theirs, 68, ALL, 67) }
            .frame(MacAddr::BROADCAST, OTHER),
    );
    let second = guest.lease(GATEWAY);
    assert_eq!(host.leases().iter().find(|lease| lease.mac == MAC).unwrap().address, second);
    guest.passes(&other, "the new address", &datagram(second));
}

#[test]
fn a_reservation_is_the_guests_without_a_lease() {
    let host = Host::new();
    host.define(
        "default",
        "name = \"default\"\nmode = \"nat\"\nbridge = \"virbr0\"\nsubnet = \"192.168.122.0/24\"\n\
         domain = \"default.vnet\"\nautostart = true\n\
         [dhcp]\nrange = \"192.168.122.2-192.168.122.100\"\n\
         [[dhcp.reservations]]\nmac = \"52:54:00:00:00:09\"\nip = \"192.168.122.150\"\n",
    );
    let _netd = host.netd();
    let (guest, other) = two_guests(&host);
    let reserved = Ipv4Addr::new(192, 168, 122, 150);
    guest.passes(&other, "a reserved address", &datagram(reserved));
    let forged = Udp { from: reserved, ..udp(reserved, 5000, ALL, 5001) };
    other.is_stopped(&guest, "it", &forged.frame(MacAddr::BROADCAST, OTHER));
}

#[test]
fn without_dhcp_a_guest_chooses_its_address_but_not_the_gateways() {
    let host = Host::new();
    let _netd = host.netd();
    host.create(&CreateNetwork { dhcp: false, ..nat("default") }).unwrap();
    let (guest, other) = two_guests(&host);
    let chosen = Ipv4Addr::new(192, 168, 122, 40);
    guest.passes(&other, "an address", &datagram(chosen));
    guest.passes(&other, "its announcement", &announcement(MAC, chosen));
    guest.is_stopped(&other, "the gateway's address", &datagram(GATEWAY));
    guest.is_stopped(&other, "the gateway's announcement", &announcement(MAC, GATEWAY));
    guest.is_stopped(&other, "a foreign address", &datagram(Ipv4Addr::new(8, 8, 8, 8)));
    guest.is_stopped(&other, "a MAC address", &with_source(datagram(chosen), OTHER));
    let offer = udp(chosen, 67, ALL, 68).frame(MacAddr::BROADCAST, MAC);
    guest.is_stopped(&other, "an OFFER", &offer);
}

#[test]
fn it_can_be_turned_off_for_a_network() {
    let host = Host::new();
    host.define(
        "default",
        "name = \"default\"\nmode = \"nat\"\nbridge = \"virbr0\"\nsubnet = \"192.168.122.0/24\"\n\
         domain = \"default.vnet\"\nautostart = true\nanti_spoofing = false\n",
    );
    let _netd = host.netd();
    let (guest, other) = two_guests(&host);
    guest.passes(&other, "any address", &datagram(GATEWAY));
    guest.passes(&other, "a router advertisement", &frames::router_advertisement(MAC));
    guest.passes(&other, "any MAC address", &with_source(datagram(GATEWAY), OTHER));
}

#[test]
fn what_is_not_our_port_is_not_guarded() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (_guest, other) = two_guests(&host);
    // An administrator's own port on our bridge.
    let stranger = host.lan.guest_on("virbr0");
    let sender = FakeGuest::on(&stranger.ns, "eth0");
    let frame = with_source(datagram(Ipv4Addr::new(10, 9, 8, 7)), stranger.mac);
    sender.send(&frame);
    other.wait_for("frame of a foreign port", |came| seen_in(came, &frame).then_some(()));
}

#[test]
fn the_guard_outlives_netd_and_the_next_one_keeps_it() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let (guest, other) = two_guests(&host);
    let own = guest.lease(GATEWAY);
    let rules = host.ns().run(["nft", "-s", "list", "ruleset"]);
    netd.kill9();
    guest.passes(&other, "its own address", &datagram(own));
    guest.is_stopped(&other, "the gateway's", &announcement(MAC, GATEWAY));
    let _netd = host.netd();
    assert_eq!(sorted(&host.ns().run(["nft", "-s", "list", "ruleset"])), sorted(&rules));
    guest.passes(&other, "its own address", &datagram(own));
    guest.is_stopped(&other, "the gateway's", &announcement(MAC, GATEWAY));
}

/// The words of a listing, in an order that does not depend on the kernel's hash tables.
fn sorted(rules: &str) -> Vec<String> {
    let words = rules.split_whitespace().map(|word| word.trim_end_matches(',').to_owned());
    let mut words: Vec<_> = words.collect();
    words.sort();
    words
}

#[test]
fn a_port_that_is_gone_leaves_nothing_in_the_guard() {
    let host = Host::new();
    let untouched = HostState::of(host.ns());
    let netd = host.netd();
    host.create_default();
    let rules = || sorted(&host.ns().run(["nft", "-s", "list", "ruleset"]));
    let without_guests = rules();
    let (guest, other) = two_guests(&host);
    guest.lease(GATEWAY);
    let name = guest.port.name.to_string();
    let named = || host.ns().run(["nft", "list", "table", "bridge", "vnet"]).contains(&name);
    assert!(named());
    drop(guest);
    until("the port is struck off", || !named());
    // One that goes while netd is away is struck off when it is back.
    netd.kill9();
    drop(other);
    let _netd = host.netd();
    assert_eq!(rules(), without_guests);
    br_netfilter(&host, 1);
    host.delete("default").unwrap();
    untouched.assert_same(&HostState::of(host.ns()));
}

#[test]
fn a_guest_cut_off_and_taken_back_is_guarded_again() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (guest, other) = two_guests(&host);
    let own = guest.lease(GATEWAY);
    host.cut_off("default");
    host.start("default").unwrap();
    guest.passes(&other, "its own address", &datagram(own));
    guest.is_stopped(&other, "the gateway's", &announcement(MAC, GATEWAY));
}

#[test]
fn it_is_turned_off_and_on_while_guests_are_there() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (guest, other) = two_guests(&host);
    let own = guest.lease(GATEWAY);
    guest.is_stopped(&other, "the gateway's address", &datagram(GATEWAY));
    let text = std::fs::read_to_string(host.paths().network(&network("default"))).unwrap();
    let edit = |text: &str| {
        wait(host.client().edit(&network("default"), text.to_owned(), Run::Real)).unwrap();
    };
    edit(&text.replace("anti_spoofing = true", "anti_spoofing = false"));
    guest.passes(&other, "any address", &datagram(GATEWAY));
    edit(&text);
    guest.is_stopped(&other, "the gateway's address", &datagram(GATEWAY));
    guest.passes(&other, "its own address", &datagram(own));
}
