//! The addresses that guests make for themselves (SLAAC) are known to who looks, to the DNS and to
//! forwards, as far as they can be held to be theirs.

use std::net::{IpAddr, Ipv6Addr};

use vnet_testkit::frames::DhcpMessage;
use vnet_types::{MacAddr, Mode};

use vnet_tests::port_guest::{PortGuest, until};
use vnet_tests::{Host, request6};

use crate::forwards::add;
use crate::guest_frames::{MAC, OTHER, neighbour, two_guests};

const PREFIX: &str = "fd12:3456:789a::/64";
const NONE: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
/// Made at random, as most guests do today.
const OWN: &str = "fd12:3456:789a:0:1234:5678:9abc:def0";

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// The address that each card is shown with.
fn shown(host: &Host) -> Vec<(MacAddr, Vec<IpAddr>)> {
    let ports = host.network("default").ports.into_iter();
    ports.map(|port| (port.mac, port.addresses)).collect()
}

fn shown_with(host: &Host, mac: MacAddr) -> Vec<IpAddr> {
    shown(host).into_iter().find(|(card, _)| *card == mac).unwrap().1
}

/// Gets an IPv4 address in the name of `web`.
fn call_itself_web(host: &Host, guest: &PortGuest) {
    let gateway = host.network("default").gateway;
    let offer = guest.dhcp(&DhcpMessage::discover(1, MAC).with(12, b"web"), 2);
    let request = DhcpMessage::request(2, MAC, offer.yiaddr, gateway).with(12, b"web");
    guest.dhcp(&request, 5);
}

fn quad_a(host: &Host) -> String {
    let server = format!("@{}", host.network("default").gateway);
    let words = ["dig", "+short", "+time=2", "+tries=2", &server, "AAAA", "web.default.vnet"];
    host.ns().run(words).trim().to_owned()
}

fn leads_to(host: &Host) -> Option<Ipv6Addr> {
    vnet_tests::wait(host.client().forwards(None)).unwrap()[0].to6
}

#[test]
fn an_address_that_a_guest_makes_is_shown_named_and_forwarded_to() {
    let host = Host::dual_stack();
    let netd = host.netd();
    host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap();
    let (guest, _other) = two_guests(&host);
    add(&host, "8080", "web:80");
    call_itself_web(&host, &guest);
    assert_eq!((quad_a(&host), leads_to(&host)), (String::new(), None));

    // All that it ever says of it: that nobody else is to have it.
    let own = address(OWN);
    guest.send(&neighbour(135, NONE, own));
    until("the address of web", || shown_with(&host, MAC) == [IpAddr::V6(own)]);
    until("its name", || quad_a(&host) == OWN);
    until("the forward", || leads_to(&host) == Some(own));
    let rules = host.ns().run(["nft", "list", "table", "inet", "vnet"]);
    assert!(rules.contains(&format!("tcp . 8080 : {OWN}")), "{rules}");

    // The next netd has it from the kernel, which has spoken with the guest.
    host.ns().ip(&format!("-6 neigh replace {OWN} lladdr {MAC} dev virbr0 nud stale"));
    netd.kill9();
    let _netd = host.netd();
    assert_eq!(leads_to(&host), Some(own));
    assert_eq!(shown_with(&host, MAC), [IpAddr::V6(own)]);
    until("its name", || quad_a(&host) == OWN);

    drop(guest);
    until("no address", || quad_a(&host).is_empty() && leads_to(&host).is_none());
}

#[test]
fn what_another_guest_has_is_not_taken_from_it() {
    let host = Host::dual_stack();
    let _netd = host.netd();
    host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap();
    let (guest, other) = two_guests(&host);
    let made = PREFIX.parse::<vnet_types::Prefix6>().unwrap().eui64(MAC).unwrap();
    let own = address(OWN);
    guest.send(&neighbour(136, own, own));
    until("the address of the first", || shown_with(&host, MAC) == [IpAddr::V6(own)]);
    let from_other = |mut frame: Vec<u8>| {
        frame[6..12].copy_from_slice(&OTHER.octets());
        frame
    };
    // The first one's, what follows from the first one's card, the gateway's, and at last its own.
    for claim in [own, made, address("fd12:3456:789a::1"), address("fd12:3456:789a::77")] {
        other.send(&from_other(neighbour(135, NONE, claim)));
    }
    let last = IpAddr::V6(address("fd12:3456:789a::77"));
    until("the address of the other", || shown_with(&host, OTHER) == [last]);
    assert_eq!(shown_with(&host, MAC), [IpAddr::V6(own)]);
    // What follows from its card is its own before all others.
    guest.send(&neighbour(135, NONE, made));
    until("the address of the card", || shown_with(&host, MAC) == [IpAddr::V6(made)]);
}
