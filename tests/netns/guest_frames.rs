//! Frames that a guest sends of itself, or forges; and two guests to send them.

use std::net::{Ipv4Addr, Ipv6Addr};

use vnet_testkit::frames::{self, Arp, Udp, icmpv6, icmpv6_message, link_local};
use vnet_types::MacAddr;

use vnet_tests::Host;
use vnet_tests::port_guest::PortGuest;

pub(crate) const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 9]);
pub(crate) const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xa]);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 1);
pub(crate) const ALL: Ipv4Addr = Ipv4Addr::BROADCAST;
pub(crate) const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
pub(crate) const NONE6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// A host with a network, and two guests on it that have no address yet.
pub(crate) fn two_guests(host: &Host) -> (PortGuest, PortGuest) {
    let ports = (
        PortGuest::attach(host, "default", "web", MAC),
        PortGuest::attach(host, "default", "other", OTHER),
    );
    // Else reports of group membership go to queriers only.
    host.ns().run("ip link set virbr0 type bridge mcast_snooping 0".split(' '));
    br_netfilter(host, 0);
    ports
}

/// Sets whether bridged packets go through the host's IP rules as well, where the kernel can do
/// that. Connection tracking then holds back fragments, so that their way shows nothing.
pub(crate) fn br_netfilter(host: &Host, value: u8) {
    for family in ["iptables", "ip6tables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        host.ns().enter(|| match std::fs::write(&path, value.to_string()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{path}: {error}"),
            _ => {}
        });
    }
}

pub(crate) fn udp(from: Ipv4Addr, from_port: u16, to: Ipv4Addr, to_port: u16) -> Udp {
    Udp { from, from_port, to, to_port, payload: vec![0; 300] }
}

/// A datagram from `from` to everybody.
pub(crate) fn datagram(from: Ipv4Addr) -> Vec<u8> {
    udp(from, 5000, ALL, 5001).frame(MacAddr::BROADCAST, MAC)
}

/// "I have `address`", to everybody.
pub(crate) fn announcement(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    Arp::request(mac, address, address).frame(MacAddr::BROADCAST, MAC)
}

pub(crate) fn group(address: Ipv6Addr) -> (MacAddr, Ipv6Addr) {
    let [.., a, b, c, d] = address.octets();
    (MacAddr([0x33, 0x33, a, b, c, d]), address)
}

pub(crate) fn all_nodes() -> (MacAddr, Ipv6Addr) {
    group("ff02::1".parse().unwrap())
}

/// A neighbour solicitation (135) or advertisement (136) about `target`, with its option.
pub(crate) fn neighbour(kind: u8, from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let flags = if kind == 136 { 0x20 } else { 0 };
    let option = if from.is_unspecified() {
        Vec::new()
    } else {
        [&[if kind == 136 { 2 } else { 1 }, 1][..], &MAC.octets()].concat()
    };
    let message = [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target.octets(), &option].concat();
    icmpv6(all_nodes(), (MAC, from), &message)
}

pub(crate) fn icmpv6_of(kind: u8, from: Ipv6Addr) -> Vec<u8> {
    icmpv6(all_nodes(), (MAC, from), &[&[kind, 0, 0, 0][..], &[0; 20]].concat())
}

pub(crate) fn mldv2_report(from: Ipv6Addr) -> Vec<u8> {
    let to = group("ff02::16".parse().unwrap());
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 9);
    let record = [&[4, 0, 0, 0][..], &group.octets()].concat();
    let message = [&[143, 0, 0, 0, 0, 0, 0, 1][..], &record].concat();
    let message = icmpv6_message(to.1, from, &message);
    // Hop-by-hop options with a router alert (RFC 3810 §5).
    let payload = [&[58, 0, 5, 2, 0, 0, 1, 0][..], &message].concat();
    frames::ipv6(to, (MAC, from), 0, &payload)
}

/// A router advertisement's message, to be wrapped.
pub(crate) fn advertisement() -> Vec<u8> {
    let message = [&[134, 0, 0, 0, 64, 0, 7, 8][..], &[0; 8]].concat();
    icmpv6_message(all_nodes().1, link_local(MAC), &message)
}

pub(crate) fn own_ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    frames::ipv6(all_nodes(), (MAC, link_local(MAC)), next, payload)
}

/// A fragment header (RFC 8200 §4.5); `offset` in units of 8 bytes.
pub(crate) fn fragment(next: u8, offset: u16, more: bool) -> Vec<u8> {
    let field = (offset << 3) | u16::from(more);
    [&[next, 0][..], &field.to_be_bytes(), &[0, 0, 0, 1]].concat()
}

/// An empty destination options header.
pub(crate) fn options(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

pub(crate) fn tagged(frame: &[u8], protocol: u16, vlan: u16) -> Vec<u8> {
    [&frame[..12], &protocol.to_be_bytes(), &vlan.to_be_bytes(), &frame[12..]].concat()
}

pub(crate) fn with_source(mut frame: Vec<u8>, mac: MacAddr) -> Vec<u8> {
    frame[6..12].copy_from_slice(&mac.octets());
    frame
}
