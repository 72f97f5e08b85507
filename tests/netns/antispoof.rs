//! What a guest's port may send, frame by frame: each one goes in at one port, and another port
//! on the same bridge shows whether it came through.

use std::net::{Ipv4Addr, Ipv6Addr};

use vnet_testkit::frames::{self, Arp, DhcpMessage, Udp, ipv4, link_local};
use vnet_types::MacAddr;

use vnet_tests::Host;

use crate::guest_frames::*;

#[test]
fn the_guard_is_the_same_with_br_netfilter() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (guest, other) = two_guests(&host);
    br_netfilter(&host, 1);
    let own = guest.lease(GATEWAY);
    guest.passes(&other, "its own address", &datagram(own));
    guest.passes(&other, "its announcement", &announcement(MAC, own));
    guest.is_stopped(&other, "a forged address", &datagram(GATEWAY));
    guest.is_stopped(&other, "a forged MAC address", &with_source(datagram(own), OTHER));
    guest.is_stopped(&other, "a router advertisement", &frames::router_advertisement(MAC));
}

#[test]
fn a_guest_without_an_address_can_get_one() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (guest, other) = two_guests(&host);
    let discover = DhcpMessage::discover(7, MAC).client_frame(MAC);
    guest.passes(&other, "a DISCOVER from 0.0.0.0", &discover);
    let probe = Arp::request(MAC, NONE, Ipv4Addr::new(192, 168, 122, 77));
    guest.passes(&other, "an ARP probe", &probe.frame(MacAddr::BROADCAST, MAC));
    let report = ipv4(NONE, Ipv4Addr::new(224, 0, 0, 22), 2, &[0x22, 0, 0xdd, 0xff, 0, 0, 0, 0]);
    let to = MacAddr([0x01, 0, 0x5e, 0, 0, 22]);
    let report = frames::ethernet(to, MAC, frames::IPV4, &report);
    guest.passes(&other, "an IGMP report from 0.0.0.0", &report);
    let solicitation = neighbour(135, NONE6, link_local(MAC));
    guest.passes(&other, "duplicate address detection", &solicitation);
    guest.passes(&other, "an MLD report from ::", &mldv2_report(NONE6));
    guest.passes(&other, "a router solicitation from ::", &icmpv6_of(133, NONE6));
    guest.is_stopped(&other, "a datagram from 0.0.0.0", &datagram(NONE));
    guest.is_stopped(&other, "an echo request from ::", &icmpv6_of(128, NONE6));
    let address = guest.lease(GATEWAY);
    guest.passes(&other, "an announcement right after the ACK", &announcement(MAC, address));
}

#[test]
fn a_guest_uses_what_is_its_own() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (guest, other) = two_guests(&host);
    let (own, theirs) = (guest.lease(GATEWAY), other.lease(GATEWAY));
    guest.passes(&other, "a gratuitous ARP", &announcement(MAC, own));
    let request = Arp::request(MAC, own, theirs);
    guest.passes(&other, "an ARP request", &request.frame(MacAddr::BROADCAST, MAC));
    let reply = Arp { operation: 2, target_mac: OTHER, ..request };
    guest.passes(&other, "an ARP reply", &reply.frame(OTHER, MAC));
    guest.passes(&other, "a broadcast", &datagram(own));
    let unicast = udp(own, 5000, theirs, 5001).frame(OTHER, MAC);
    guest.passes(&other, "a datagram", &unicast);
    guest.passes(&other, "an echo request", &frames::ping((OTHER, theirs), (MAC, own), 1));
    let mut later = ipv4(own, theirs, 17, &[0; 64]);
    later[6..8].copy_from_slice(&[0x00, 0xb9]);
    let later = frames::ethernet(OTHER, MAC, frames::IPV4, &later);
    guest.passes(&other, "a later fragment", &later);
    // RENEWING, though to everybody, so that it can be seen.
    let renewal = DhcpMessage { ciaddr: own, ..DhcpMessage::from_client(3, 9, MAC) };
    let renewal = Udp { payload: renewal.bytes(), ..udp(own, 68, ALL, 67) };
    guest.passes(&other, "a renewal", &renewal.frame(MacAddr::BROADCAST, MAC));

    let mine = link_local(MAC);
    guest.passes(&other, "a neighbour advertisement", &neighbour(136, mine, mine));
    let solicitation = neighbour(135, mine, link_local(OTHER));
    guest.passes(&other, "a neighbour solicitation", &solicitation);
    guest.passes(&other, "an MLD report", &mldv2_report(mine));
    guest.passes(&other, "an ICMPv6 echo request", &icmpv6_of(128, mine));
    guest.passes(&other, "a router solicitation", &icmpv6_of(133, mine));
    let private: Ipv6Addr = "fe80::1234:5678:9abc:def0".parse().unwrap();
    guest.passes(&other, "detection for a private address", &neighbour(135, NONE6, private));
    guest.passes(&other, "a private address", &neighbour(136, private, private));
    let datagram = [&[0x13, 0x88, 0x13, 0x89, 0, 16, 1, 1][..], &[0; 8]].concat();
    guest.passes(&other, "a datagram over IPv6", &own_ipv6(17, &datagram));
    let first = [fragment(17, 0, true), datagram.clone()].concat();
    guest.passes(&other, "a first fragment over IPv6", &own_ipv6(44, &first));
    let later = [fragment(17, 2, false), vec![0; 16]].concat();
    guest.passes(&other, "a later fragment over IPv6", &own_ipv6(44, &later));
}

#[test]
fn a_forged_source_is_stopped() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (guest, other) = two_guests(&host);
    let (own, theirs) = (guest.lease(GATEWAY), other.lease(GATEWAY));
    let stopped = |what: &str, frame: &[u8]| guest.is_stopped(&other, what, frame);
    let gateway_mac = host.network("default").bridge_mac.unwrap();

    for (whose, mac) in [
        ("another guest's", OTHER),
        ("the gateway's", gateway_mac),
        ("a stranger's", MacAddr([2, 0, 0, 0, 0, 1])),
        ("a group", MacAddr([0x53, 0x54, 0, 0, 0, 9])),
        ("no", MacAddr([0; 6])),
    ] {
        stopped(&format!("{whose} MAC address"), &with_source(datagram(own), mac));
        stopped(
            &format!("{whose} MAC address in ARP's frame"),
            &with_source(announcement(MAC, own), mac),
        );
        stopped(&format!("{whose} MAC address in ARP"), &announcement(mac, own));
        let discover = DhcpMessage::discover(7, mac).client_frame(mac);
        stopped(&format!("a DISCOVER from {whose} MAC address"), &discover);
    }
    for (whose, address) in [
        ("another guest's", theirs),
        ("the gateway's", GATEWAY),
        ("nobody's", Ipv4Addr::new(192, 168, 122, 200)),
        ("a foreign", Ipv4Addr::new(8, 8, 8, 8)),
        ("the broadcast", ALL),
        ("a loopback", Ipv4Addr::LOCALHOST),
    ] {
        stopped(&format!("{whose} address"), &datagram(address));
        stopped(&format!("a gratuitous ARP for {whose} address"), &announcement(MAC, address));
        let request = Arp::request(MAC, address, theirs);
        stopped(&format!("an ARP request from {whose} address"), &request.frame(OTHER, MAC));
        let reply = Arp { operation: 2, target_mac: OTHER, ..request };
        stopped(&format!("an ARP reply for {whose} address"), &reply.frame(OTHER, MAC));
        let mut later = ipv4(address, theirs, 17, &[0; 64]);
        later[6..8].copy_from_slice(&[0x00, 0xb9]);
        let later = frames::ethernet(OTHER, MAC, frames::IPV4, &later);
        stopped(&format!("a later fragment from {whose} address"), &later);
    }
    let from_none = Arp { operation: 2, ..Arp::request(MAC, NONE, theirs) };
    stopped("an ARP reply from 0.0.0.0", &from_none.frame(OTHER, MAC));
    let reverse = Arp { operation: 3, ..Arp::request(MAC, own, theirs) };
    stopped("reverse ARP in ARP", &reverse.frame(OTHER, MAC));
    for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16)] {
        let mut odd = announcement(MAC, own);
        odd[14 + at] = value;
        stopped("ARP of another kind", &odd);
    }

    let (mine, others) = (link_local(MAC), link_local(OTHER));
    stopped("another guest's IPv6 address", &icmpv6_of(128, others));
    stopped("a global IPv6 address", &icmpv6_of(128, "2001:db8::1".parse().unwrap()));
    stopped("a site's IPv6 address", &icmpv6_of(128, "fd00::1".parse().unwrap()));
    stopped("an advertisement of another's address", &neighbour(136, mine, others));
    stopped("an advertisement from another's address", &neighbour(136, others, others));
    stopped("detection of another's address", &neighbour(135, NONE6, others));
    let private: Ipv6Addr = "fe80::1234:5678:9abc:def0".parse().unwrap();
    stopped("an advertisement from a private address", &neighbour(136, private, others));
}

#[test]
fn what_servers_and_switches_send_is_stopped() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (guest, other) = two_guests(&host);
    let (own, theirs) = (guest.lease(GATEWAY), other.lease(GATEWAY));
    let stopped = |what: &str, frame: &[u8]| guest.is_stopped(&other, what, frame);

    let offer = DhcpMessage::offer(7, OTHER, theirs, own).bytes();
    for (what, from_port, to_port) in
        [("an OFFER", 67, 68), ("an OFFER from another port", 6767, 68), ("to a relay", 67, 67)]
    {
        let reply = Udp { payload: offer.clone(), ..udp(own, from_port, ALL, to_port) };
        stopped(what, &reply.frame(MacAddr::BROADCAST, MAC));
        stopped(what, &reply.frame(OTHER, MAC));
    }
    let mut relayed = DhcpMessage::discover(7, OTHER).bytes();
    relayed[24..28].copy_from_slice(&own.octets());
    let relayed = Udp { payload: relayed, ..udp(own, 68, ALL, 67) };
    stopped("a relayed DISCOVER", &relayed.frame(MacAddr::BROADCAST, MAC));
    let relayed = Udp { from: NONE, ..relayed };
    stopped("a relayed DISCOVER from 0.0.0.0", &relayed.frame(MacAddr::BROADCAST, MAC));
    for (what, kind) in [("an ICMP redirect", 5), ("an ICMP router advertisement", 9)] {
        let packet = ipv4(own, theirs, 1, &[&[kind, 0, 0, 0][..], &[0; 32]].concat());
        stopped(what, &frames::ethernet(OTHER, MAC, frames::IPV4, &packet));
    }
    let mut tiny = ipv4(own, theirs, 17, &[0, 67]);
    tiny[6..8].copy_from_slice(&[0x20, 0]);
    let tiny = frames::ethernet(OTHER, MAC, frames::IPV4, &tiny);
    // Padding is no part of the packet, but it is there: send it without.
    stopped("a first fragment without its ports", &tiny[..14 + 22]);

    stopped("a router advertisement", &frames::router_advertisement(MAC));
    stopped("an ICMPv6 redirect", &icmpv6_of(137, link_local(MAC)));
    stopped("router renumbering", &icmpv6_of(138, link_local(MAC)));
    let ra = advertisement();
    stopped("one behind options", &own_ipv6(60, &[&options(58)[..], &ra].concat()));
    stopped(
        "one behind many",
        &own_ipv6(0, &[&options(60)[..], &options(60), &options(58), &ra].concat()),
    );
    stopped("one in a fragment", &own_ipv6(44, &[fragment(58, 0, false), ra.clone()].concat()));
    stopped(
        "the first of two fragments",
        &own_ipv6(44, &[fragment(58, 0, true), ra[..8].to_vec()].concat()),
    );
    let hidden = [&fragment(60, 0, true)[..], &options(58)].concat();
    stopped("a first fragment with options only", &own_ipv6(44, &hidden));
    stopped(
        "a first fragment that ends in options",
        &own_ipv6(44, &[&fragment(60, 0, true)[..], &[60, 1, 1, 12, 0, 0, 0, 0]].concat()),
    );
    let nested = [fragment(44, 0, true), fragment(58, 0, true)].concat();
    stopped("a fragment in a fragment", &own_ipv6(44, &nested));
    let hidden = [&fragment(60, 0, true)[..], &options(17)].concat();
    stopped("a first fragment without its ports over IPv6", &own_ipv6(44, &hidden));
    for (what, from, to) in [("DHCPv6's server", 547_u16, 9_u16), ("to DHCPv6's client", 9, 546)] {
        let datagram =
            [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 16, 1, 1], &[0; 8]].concat();
        stopped(what, &own_ipv6(17, &datagram));
        stopped(what, &own_ipv6(60, &[&options(17)[..], &datagram].concat()));
    }

    stopped("a BPDU", &frames::bpdu(MAC));
    for last in 0..16 {
        let to = MacAddr([0x01, 0x80, 0xc2, 0, 0, last]);
        stopped("a frame to bridges", &frames::ethernet(to, MAC, 0x88cc, &[0; 46]));
        let inside = udp(own, 5000, ALL, 5001).frame(to, MAC);
        stopped("an IPv4 packet to bridges", &inside);
    }
    let cisco = MacAddr([0x01, 0, 0x0c, 0xcc, 0xcc, 0xcd]);
    stopped("a BPDU per VLAN", &frames::ethernet(cisco, MAC, 50, &[0xaa; 50]));
    for ethertype in
        [0x0027, 0x05dc, 0x8035, 0x8137, 0x8847, 0x8863, 0x8864, 0x88a2, 0x88e5, 0x8906, 0x9000]
    {
        let frame = frames::ethernet(OTHER, MAC, ethertype, &[0; 46]);
        stopped(&format!("a frame of type {ethertype:#06x}"), &frame);
    }
    for protocol in [0x8100, 0x88a8, 0x9100] {
        for vlan in [0, 1, 100] {
            let what = format!("tag {vlan} of {protocol:#06x}");
            stopped(&what, &tagged(&datagram(own), protocol, vlan));
            stopped(&what, &tagged(&datagram(GATEWAY), protocol, vlan));
            stopped(&what, &tagged(&announcement(MAC, GATEWAY), protocol, vlan));
            stopped(&what, &tagged(&frames::router_advertisement(MAC), protocol, vlan));
            stopped(&what, &tagged(&tagged(&datagram(own), 0x8100, vlan), protocol, vlan));
        }
    }
}
