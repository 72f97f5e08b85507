//! What a guest's port may send, frame by frame: each one goes in at one port, and another port
//! on the same bridge shows whether it came through.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vnet_api::client::Run;
use vnet_api::model::CreateNetwork;
use vnet_api::ports::{Port, PortConnection, Request};
use vnet_testkit::frames::{self, Arp, DhcpMessage, Udp, icmpv6, icmpv6_message, ipv4, link_local};
use vnet_testkit::{FakeGuest, HostState};
use vnet_types::MacAddr;

use vnet_tests::{Host, nat, network, wait};

pub(crate) const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 9]);
pub(crate) const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xa]);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 1);
const ALL: Ipv4Addr = Ipv4Addr::BROADCAST;
const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const NONE6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const PATIENCE: Duration = Duration::from_secs(10);
/// The header of virtio-net in front of each frame.
const HEADER: usize = 12;

/// A guest of one port, which does nothing by itself.
pub(crate) struct Guest {
    _connection: PortConnection,
    port: Port,
    queue: OwnedFd,
    mac: MacAddr,
}

impl Guest {
    pub(crate) fn attach(host: &Host, domain: &str, mac: MacAddr) -> Self {
        let request = Request::Attach {
            network: network("default"),
            domain: domain.parse().unwrap(),
            nic: 0,
            mac,
            queues: 1,
            limits: vnet_types::LinkLimits::default(),
        };
        let (connection, port, mut queues) =
            PortConnection::open(&host.paths().ports_socket(), &request).unwrap();
        Self { _connection: connection, port, queue: queues.remove(0), mac }
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        let bytes = [&[0; HEADER][..], frame].concat();
        assert_eq!(nix::unistd::write(&self.queue, &bytes).unwrap(), bytes.len());
    }

    fn receive(&self, deadline: Instant) -> Option<Vec<u8>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut ready = [PollFd::new(self.queue.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::try_from(left).unwrap()).unwrap() == 0 {
            return None;
        }
        let mut bytes = vec![0; 65_550];
        let length = nix::unistd::read(&self.queue, &mut bytes).unwrap();
        Some(bytes[HEADER..length].to_vec())
    }

    pub(crate) fn wait_for<T>(&self, what: &str, read: impl Fn(&[u8]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frame = self.receive(deadline).unwrap_or_else(|| panic!("no {what}"));
            if let Some(found) = read(&frame) {
                return found;
            }
        }
    }

    /// Whether `frame` comes through to `observer`. A probe that always does follows it.
    pub(crate) fn reaches(&self, observer: &Self, frame: &[u8]) -> bool {
        let marker = Arp::request(self.mac, NONE, Ipv4Addr::new(192, 168, 122, 250));
        self.send(frame);
        self.send(&marker.frame(MacAddr::BROADCAST, self.mac));
        let deadline = Instant::now() + PATIENCE;
        let mut seen = false;
        loop {
            let came = observer.receive(deadline).expect("the marker always comes through");
            seen |= seen_in(&came, frame);
            if Arp::parse(&came) == Some(marker) {
                return seen;
            }
        }
    }

    #[track_caller]
    pub(crate) fn passes(&self, observer: &Self, what: &str, frame: &[u8]) {
        assert!(self.reaches(observer, frame), "{what} was dropped");
    }

    #[track_caller]
    pub(crate) fn is_stopped(&self, observer: &Self, what: &str, frame: &[u8]) {
        assert!(!self.reaches(observer, frame), "{what} came through");
    }

    /// Sends a DHCP message and waits for the answer of this kind.
    fn dhcp(&self, message: &DhcpMessage, answer: u8) -> DhcpMessage {
        self.send(&message.client_frame(self.mac));
        self.wait_for("answer of the DHCP server", |frame| {
            DhcpMessage::parse_server_frame(frame)
                .filter(|reply| reply.xid == message.xid && reply.kind() == Some(answer))
        })
    }

    /// Gets a lease, as a client does.
    fn lease(&self) -> Ipv4Addr {
        let offer = self.dhcp(&DhcpMessage::discover(7, self.mac), 2);
        let request = DhcpMessage::request(8, self.mac, offer.yiaddr, GATEWAY);
        self.dhcp(&request, 5).yiaddr
    }
}

/// Whether `came` is what was sent, but for padding, which br_netfilter cuts off.
fn seen_in(came: &[u8], sent: &[u8]) -> bool {
    let bare = |frame: &[u8]| frame.iter().rposition(|&byte| byte != 0).map(|last| last + 1);
    came[..bare(came).unwrap_or(0)] == sent[..bare(sent).unwrap_or(0)]
}

/// A host with a network, and two guests on it that have no address yet.
pub(crate) fn two_guests(host: &Host) -> (Guest, Guest) {
    let ports = (Guest::attach(host, "web", MAC), Guest::attach(host, "other", OTHER));
    // Else reports of group membership go to queriers only.
    host.ns().run("ip link set virbr0 type bridge mcast_snooping 0".split(' '));
    br_netfilter(host, 0);
    ports
}

/// Sets whether bridged packets go through the host's IP rules as well, where the kernel can do
/// that. Connection tracking then holds back fragments, so that their way shows nothing.
fn br_netfilter(host: &Host, value: u8) {
    for family in ["iptables", "ip6tables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        host.ns().enter(|| match std::fs::write(&path, value.to_string()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{path}: {error}"),
            _ => {}
        });
    }
}

#[test]
fn the_guard_is_the_same_with_br_netfilter() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (guest, other) = two_guests(&host);
    br_netfilter(&host, 1);
    let own = guest.lease();
    guest.passes(&other, "its own address", &datagram(own));
    guest.passes(&other, "its announcement", &announcement(MAC, own));
    guest.is_stopped(&other, "a forged address", &datagram(GATEWAY));
    guest.is_stopped(&other, "a forged MAC address", &with_source(datagram(own), OTHER));
    guest.is_stopped(&other, "a router advertisement", &frames::router_advertisement(MAC));
}

fn udp(from: Ipv4Addr, from_port: u16, to: Ipv4Addr, to_port: u16) -> Udp {
    Udp { from, from_port, to, to_port, payload: vec![0; 300] }
}

/// A datagram from `from` to everybody.
fn datagram(from: Ipv4Addr) -> Vec<u8> {
    udp(from, 5000, ALL, 5001).frame(MacAddr::BROADCAST, MAC)
}

/// "I have `address`", to everybody.
fn announcement(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
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

fn mldv2_report(from: Ipv6Addr) -> Vec<u8> {
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
fn advertisement() -> Vec<u8> {
    let message = [&[134, 0, 0, 0, 64, 0, 7, 8][..], &[0; 8]].concat();
    icmpv6_message(all_nodes().1, link_local(MAC), &message)
}

pub(crate) fn own_ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    frames::ipv6(all_nodes(), (MAC, link_local(MAC)), next, payload)
}

/// A fragment header (RFC 8200 §4.5); `offset` in units of 8 bytes.
fn fragment(next: u8, offset: u16, more: bool) -> Vec<u8> {
    let field = (offset << 3) | u16::from(more);
    [&[next, 0][..], &field.to_be_bytes(), &[0, 0, 0, 1]].concat()
}

/// An empty destination options header.
fn options(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

fn tagged(frame: &[u8], protocol: u16, vlan: u16) -> Vec<u8> {
    [&frame[..12], &protocol.to_be_bytes(), &vlan.to_be_bytes(), &frame[12..]].concat()
}

fn with_source(mut frame: Vec<u8>, mac: MacAddr) -> Vec<u8> {
    frame[6..12].copy_from_slice(&mac.octets());
    frame
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
    let address = guest.lease();
    guest.passes(&other, "an announcement right after the ACK", &announcement(MAC, address));
}

#[test]
fn a_guest_uses_what_is_its_own() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (guest, other) = two_guests(&host);
    let (own, theirs) = (guest.lease(), other.lease());
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
    let (own, theirs) = (guest.lease(), other.lease());
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
    let (own, theirs) = (guest.lease(), other.lease());
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
    let theirs = other.lease();
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
    let first = guest.lease();
    guest.passes(&other, "its own address", &datagram(first));
    let release = DhcpMessage { ciaddr: first, ..DhcpMessage::from_client(7, 9, MAC) }
        .with(54, &GATEWAY.octets());
    guest.send(
        &Udp { payload: release.bytes(), ..udp(first, 68, ALL, 67) }.frame(MacAddr::BROADCAST, MAC),
    );
    until("the released address is stopped", || !guest.reaches(&other, &datagram(first)));
    // The other guest moves to it, and from its own one.
    let theirs = other.lease();
    let move_to = DhcpMessage::discover(10, OTHER).with(50, &first.octets());
    other.dhcp(&move_to, 2);
    let release = DhcpMessage { ciaddr: theirs, ..DhcpMessage::from_client(7, 11, OTHER) }
        .with(54, &GATEWAY.octets());
    other.send(
        &Udp { payload: release.bytes(), ..udp(theirs, 68, ALL, 67) }
            .frame(MacAddr::BROADCAST, OTHER),
    );
    let second = guest.lease();
    assert_eq!(host.leases().iter().find(|lease| lease.mac == MAC).unwrap().address, second);
    guest.passes(&other, "the new address", &datagram(second));
}

pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
    }
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
    let own = guest.lease();
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
    guest.lease();
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
    let own = guest.lease();
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
    let own = guest.lease();
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
