//! Fake guests talk with a real kernel's stack.
// Tests fail by panicking.
#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::time::Duration;

use vnet_testkit::frames::{self, Arp, DhcpMessage, Udp};
use vnet_testkit::{FakeGuest, Netns};
use vnet_types::MacAddr;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 2);
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_guest_on_a_tap_resolves_and_pings_the_host() {
    let host = Netns::new();
    host.bridge("br0");
    host.address("br0", "10.5.0.1/24");
    let guest = FakeGuest::on_tap(&host, "tap0", Some("br0"));
    guest.send(&Arp::request(guest.mac(), GUEST, HOST).frame(MacAddr::BROADCAST, guest.mac()));
    let answer = guest.wait_for("ARP reply", PATIENCE, |frame| {
        Arp::parse(frame).filter(|arp| arp.operation == 2)
    });
    assert_eq!((answer.sender, answer.sender_mac), (HOST, host.mac("br0")));
    guest.send(&frames::ping((answer.sender_mac, HOST), (guest.mac(), GUEST), 99));
    guest.wait_for("echo reply", PATIENCE, |frame| frames::is_pong(frame, 99).then_some(()));
}

#[test]
fn frames_from_a_tap_arrive_at_a_socket_with_right_checksums() {
    let (host, other) = (Netns::new(), Netns::new());
    host.bridge("br0");
    Netns::veth(&host, "p0", &other, "eth0");
    host.enslave("p0", "br0");
    other.address("eth0", "10.5.0.1/24");
    let socket = other.enter(|| std::net::UdpSocket::bind("10.5.0.1:7")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let guest = FakeGuest::on_tap(&host, "tap0", Some("br0"));
    let datagram =
        Udp { from: GUEST, from_port: 9, to: HOST, to_port: 7, payload: b"odd".to_vec() };
    guest.send(&datagram.frame(other.mac("eth0"), guest.mac()));
    let mut buffer = [0; 16];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"odd"[..], (GUEST, 9).into()));
}

#[test]
fn a_broadcast_reaches_a_listener_on_another_port_and_a_unicast_to_a_third_does_not() {
    let (host, other) = (Netns::new(), Netns::new());
    host.bridge("br0");
    Netns::veth(&host, "p0", &other, "eth0");
    host.enslave("p0", "br0");
    let (guest, third) = (
        FakeGuest::on_tap(&host, "tap0", Some("br0")),
        FakeGuest::on_tap(&host, "tap1", Some("br0")),
    );
    let listener = FakeGuest::on(&other, "eth0");
    assert_eq!(listener.mac(), other.mac("eth0"));
    // The bridge learns where the third is.
    third.send(&DhcpMessage::discover(1, third.mac()).client_frame(third.mac()));
    let from_third = |frame: &[u8]| frames::source(frame) == Some(third.mac());
    assert!(guest.seen(PATIENCE, from_third).is_some());
    let secret = Udp { from: GUEST, from_port: 1, to: HOST, to_port: 1, payload: Vec::new() };
    guest.send(&secret.frame(third.mac(), guest.mac()));
    guest.send(&DhcpMessage::discover(2, guest.mac()).client_frame(guest.mac()));
    // In order: had the unicast come here, it would have come first.
    let first = listener.seen(PATIENCE, |frame| frames::source(frame) == Some(guest.mac()));
    let message = Udp::parse(&first.unwrap()).and_then(|udp| DhcpMessage::parse(&udp.payload));
    assert_eq!(message.unwrap().xid, 2);
}

#[test]
fn a_kernel_believes_a_router_advertisement() {
    let host = Netns::new();
    host.bridge("br0");
    let guest = FakeGuest::on_tap(&host, "tap0", Some("br0"));
    host.settle("br0");
    guest.send(&frames::router_advertisement(guest.mac()));
    host.wait_for("default route by RA", PATIENCE, || {
        host.ip("-6 route show default").contains("proto ra")
    });
    // And a BPDU passes for one: the frame is well-formed enough to be sent and dropped.
    guest.send(&frames::bpdu(guest.mac()));
}
