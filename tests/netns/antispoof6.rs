//! What a guest's port may send on a network with IPv6, frame by frame: as `antispoof` does.

use std::net::Ipv6Addr;

use vnet_api::model::{CreateIpv6, CreateNetwork};
use vnet_testkit::frames::{self, link_local};
use vnet_types::{MacAddr, Mode};

use vnet_tests::port_guest::{PortGuest, until};
use vnet_tests::{Host, request6};

use crate::guest_frames::{MAC, OTHER, group, icmpv6_of, neighbour, two_guests};

const PREFIX: &str = "fd12:3456:789a::/64";
const NONE: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// What the guest with this card makes of the prefix.
fn made(mac: MacAddr) -> Ipv6Addr {
    PREFIX.parse::<vnet_types::Prefix6>().unwrap().eui64(mac).unwrap()
}

/// The same frame from the other guest's card.
fn from_other(mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&OTHER.octets());
    frame
}

fn given() -> CreateNetwork {
    let ipv6 = CreateIpv6 { prefix: PREFIX.parse().ok(), range: None, slaac: Some(false) };
    CreateNetwork { ipv6: Some(ipv6), ..request6(Mode::Nat, "default", PREFIX) }
}

#[test]
fn a_guest_uses_addresses_that_it_makes_and_no_other_ones() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    let network = host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap().network.unwrap();
    let (guest, other) = two_guests(&host);
    let private = address("fd12:3456:789a:0:1234:5678:9abc:def0");
    for (what, own) in [("made of its card", made(MAC)), ("made at random", private)] {
        guest.passes(&other, &format!("an address {what}"), &icmpv6_of(128, own));
        guest.passes(&other, &format!("detection of one {what}"), &neighbour(135, NONE, own));
        guest.passes(&other, &format!("a solicitation from one {what}"), &neighbour(135, own, own));
        guest.passes(&other, &format!("an advertisement of one {what}"), &neighbour(136, own, own));
    }
    let router = link_local(network.bridge_mac.unwrap());
    let gateway = network.gateway6.unwrap();
    for (whose, forged) in [
        ("the gateway's", gateway),
        ("the router's", router),
        ("every router's", address("fd12:3456:789a::")),
        ("the other guest's", made(OTHER)),
        ("the other guest's link-local", link_local(OTHER)),
    ] {
        guest.is_stopped(&other, &format!("{whose} address"), &icmpv6_of(128, forged));
        guest.is_stopped(&other, &format!("detection of {whose}"), &neighbour(135, NONE, forged));
        for source in [forged, private, link_local(MAC)] {
            let what = format!("an advertisement of {whose} address from {source}");
            guest.is_stopped(&other, &what, &neighbour(136, source, forged));
        }
    }
    for foreign in ["2001:db8::1", "fd12:3456:789b::1", "::1", "fec0::1", "ff02::1"] {
        let what = format!("the foreign address {foreign}");
        guest.is_stopped(&other, &what, &icmpv6_of(128, address(foreign)));
    }
    guest.is_stopped(&other, "a router advertisement", &frames::router_advertisement(MAC));
    let lying = frames::prefix_advertisement(MAC, address("2001:db8:bad::"));
    guest.is_stopped(&other, "another prefix", &lying);
    guest.is_stopped(&other, "a redirect", &icmpv6_of(137, made(MAC)));
}

/// To all DHCPv6 servers, from this card's link-local address.
fn to_servers(mac: MacAddr, message: &[u8]) -> Vec<u8> {
    let (group_mac, servers) = group(address("ff02::1:2"));
    frames::udp6((group_mac, servers, 547), (mac, link_local(mac), 546), message)
}

/// A SOLICIT with rapid commit (RFC 8415 §16.2, §21.14) of the client whose identifier is made of
/// the card `duid`.
fn solicit(duid: MacAddr) -> Vec<u8> {
    let option = |code: u16, value: &[u8]| {
        let length = u16::try_from(value.len()).unwrap();
        [&code.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
    };
    let client = option(1, &[&[0, 3, 0, 1][..], &duid.octets()].concat());
    let association = option(3, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    [&[1, 7, 7, 7][..], &client, &association, &option(14, &[]), &option(8, &[0, 0])].concat()
}

/// The address in a REPLY.
fn replied(frame: &[u8]) -> Option<Ipv6Addr> {
    let message = frame.get(62..).filter(|_| frame.get(54..56) == Some(&547u16.to_be_bytes()))?;
    let mut options = message.get(4..).filter(|_| message[0] == 7)?;
    while let [a, b, c, d, rest @ ..] = options {
        let (value, after) = rest.split_at_checked(usize::from(u16::from_be_bytes([*c, *d])))?;
        if [*a, *b] == [0, 3] {
            return value.get(16..32).map(|ip| Ipv6Addr::from(<[u8; 16]>::try_from(ip).unwrap()));
        }
        options = after;
    }
    None
}

fn lease(guest: &PortGuest, mac: MacAddr, duid: MacAddr) -> Ipv6Addr {
    guest.send(&to_servers(mac, &solicit(duid)));
    guest.wait_for("answer of the DHCPv6 server", replied)
}

#[test]
fn a_leased_address_is_its_guests_from_the_reply_on() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&given()).unwrap();
    let (guest, other) = two_guests(&host);
    let solicitation = to_servers(MAC, &solicit(MAC));
    guest.passes(&other, "a SOLICIT", &solicitation);
    guest.is_stopped(&other, "an address that it has made", &icmpv6_of(128, made(MAC)));
    guest.is_stopped(
        &other,
        "one that was not given",
        &icmpv6_of(128, address("fd12:3456:789a::1000")),
    );
    let own = lease(&guest, MAC, MAC);
    guest.passes(&other, "the leased address", &icmpv6_of(128, own));
    guest.passes(&other, "its advertisement", &neighbour(136, own, own));
    guest.passes(&other, "its detection", &neighbour(135, NONE, own));
    other.is_stopped(&guest, "it from another port", &from_other(icmpv6_of(128, own)));
    let claim = frames::icmpv6(
        group(address("ff02::1")),
        (OTHER, link_local(OTHER)),
        &[&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &own.octets()].concat(),
    );
    other.is_stopped(&guest, "its advertisement from another port", &claim);
    // With the guest's identifier, another card is another client.
    let theirs = lease(&other, OTHER, MAC);
    assert_ne!(theirs, own);
    other.passes(&guest, "the other's own", &from_other(icmpv6_of(128, theirs)));
    let leases = host.leases();
    let held = |mac: MacAddr| leases.iter().find(|lease| lease.mac == mac).unwrap().address;
    assert_eq!((held(MAC), held(OTHER)), (own.into(), theirs.into()));
    // It stays the guest's, whoever serves.
    drop(_netd);
    let _netd = host.netd();
    guest.passes(&other, "the leased address", &icmpv6_of(128, own));
    other.is_stopped(&guest, "it from another port", &from_other(icmpv6_of(128, own)));
}

#[test]
fn what_dhcpv6_servers_and_relays_send_is_stopped() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&given()).unwrap();
    let (guest, other) = two_guests(&host);
    let own = lease(&guest, MAC, MAC);
    let (to_mac, to) = (OTHER, link_local(OTHER));
    for source in [own, link_local(MAC)] {
        for (what, from_port, to_port) in [("a reply", 547, 546), ("one from elsewhere", 9, 546)] {
            let reply = frames::udp6((to_mac, to, to_port), (MAC, source, from_port), &[7; 40]);
            guest.is_stopped(&other, what, &reply);
        }
        for kind in [12, 13] {
            let (group_mac, servers) = group(address("ff02::1:2"));
            let relayed = frames::udp6((group_mac, servers, 547), (MAC, source, 546), &[kind; 60]);
            guest.is_stopped(&other, "a relayed message", &relayed);
        }
    }
}

#[test]
fn a_reservation_is_its_guests_without_a_lease_and_nobody_elses() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap();
    let (guest, other) = two_guests(&host);
    let reserved = address("fd12:3456:789a::42");
    other.passes(&guest, "any address of the prefix", &from_other(icmpv6_of(128, reserved)));
    let reserve = vnet_api::model::Reserve { ip: None, ip6: Some(reserved), hostname: None };
    let default = vnet_tests::network("default");
    let client = host.client();
    vnet_tests::wait(client.reserve(&default, MAC, &reserve, vnet_api::client::Run::Real)).unwrap();
    guest.passes(&other, "a reserved address", &icmpv6_of(128, reserved));
    other.is_stopped(&guest, "it", &from_other(icmpv6_of(128, reserved)));
    drop(guest);
    until("the port is struck off", || host.network("default").ports.len() == 1);
}
