//! Ethernet frames made byte by byte, honest and forged, and a look into those that come back.

use std::net::{Ipv4Addr, Ipv6Addr};

use vnet_types::MacAddr;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// A frame: destination, source, EtherType, payload; padded to 60 bytes as a card would.
#[must_use]
pub fn ethernet(to: MacAddr, from: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to.octets()[..], &from.octets(), &ethertype.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// Who asks for whom, as an ARP packet says it (RFC 826).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// 1 is a request, 2 a reply.
    pub operation: u16,
    /// The sender's hardware address, as claimed in the packet.
    pub sender_mac: MacAddr,
    /// The sender's address, as claimed in the packet.
    pub sender: Ipv4Addr,
    /// The target's hardware address; zeros in a request.
    pub target_mac: MacAddr,
    /// The target's address.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Who has `target`? Tell `sender`.
    #[must_use]
    pub fn request(sender_mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self { operation: 1, sender_mac, sender, target_mac: MacAddr([0; 6]), target }
    }

    /// The packet in a frame between these two.
    #[must_use]
    pub fn frame(&self, to: MacAddr, from: MacAddr) -> Vec<u8> {
        let payload = [
            // Ethernet, IPv4, and the lengths of their addresses.
            &[0, 1, 8, 0, 6, 4][..],
            &self.operation.to_be_bytes(),
            &self.sender_mac.octets(),
            &self.sender.octets(),
            &self.target_mac.octets(),
            &self.target.octets(),
        ]
        .concat();
        ethernet(to, from, ARP, &payload)
    }

    /// The packet in a frame, if there is one.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let payload = payload_of(frame, ARP)?.get(..28)?;
        let mac = |at: usize| Some(MacAddr(payload.get(at..at + 6)?.try_into().ok()?));
        Some(Self {
            operation: u16::from_be_bytes(payload.get(6..8)?.try_into().ok()?),
            sender_mac: mac(8)?,
            sender: ipv4_at(payload, 14)?,
            target_mac: mac(18)?,
            target: ipv4_at(payload, 24)?,
        })
    }
}

/// A UDP datagram over IPv4, with the addresses around it; what is claimed need not be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Udp {
    /// Source address.
    pub from: Ipv4Addr,
    /// Source port.
    pub from_port: u16,
    /// Destination address.
    pub to: Ipv4Addr,
    /// Destination port.
    pub to_port: u16,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Udp {
    /// The datagram in a frame between these two, with right checksums.
    #[must_use]
    pub fn frame(&self, to: MacAddr, from: MacAddr) -> Vec<u8> {
        let length = length(8 + self.payload.len());
        let mut segment = [
            &self.from_port.to_be_bytes()[..],
            &self.to_port.to_be_bytes(),
            &length.to_be_bytes(),
            &[0, 0],
            &self.payload,
        ]
        .concat();
        let pseudo =
            [&self.from.octets()[..], &self.to.octets(), &[0, 17], &length.to_be_bytes()].concat();
        // RFC 768: a sum of zero is sent as all ones.
        let sum = match checksum(&[&pseudo[..], &segment].concat()) {
            0 => 0xffff,
            sum => sum,
        };
        segment[6..8].copy_from_slice(&sum.to_be_bytes());
        ethernet(to, from, IPV4, &ipv4(self.from, self.to, 17, &segment))
    }

    /// The datagram in a frame, if there is a whole one.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let packet = payload_of(frame, IPV4)?;
        let header = usize::from(packet.first()? & 0xf) * 4;
        if *packet.get(9)? != 17 {
            return None;
        }
        let segment = packet.get(header..)?;
        let port = |at: usize| Some(u16::from_be_bytes(segment.get(at..at + 2)?.try_into().ok()?));
        Some(Self {
            from: ipv4_at(packet, 12)?,
            from_port: port(0)?,
            to: ipv4_at(packet, 16)?,
            to_port: port(2)?,
            // Without the frame's padding.
            payload: segment.get(8..usize::from(port(4)?))?.to_vec(),
        })
    }
}

/// A frame with an ICMP echo request (RFC 792) of eight bytes.
#[must_use]
pub fn ping(
    (to_mac, to): (MacAddr, Ipv4Addr),
    (from_mac, from): (MacAddr, Ipv4Addr),
    id: u16,
) -> Vec<u8> {
    ethernet(to_mac, from_mac, IPV4, &ipv4(from, to, 1, &echo_request(id)))
}

/// The ICMP message of a [`ping`].
pub(crate) fn echo_request(id: u16) -> Vec<u8> {
    let mut message = [&[8, 0, 0, 0][..], &id.to_be_bytes(), &[0, 1], b"vnetping"].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// Whether an IPv4 packet is the answer to the [`ping`] with this id.
pub(crate) fn is_echo_reply(packet: &[u8], id: u16) -> bool {
    let answer = || {
        let message = packet.get(usize::from(packet.first()? & 0xf) * 4..)?;
        let is = *packet.get(9)? == 1 && *message.first()? == 0;
        Some(is && message.get(4..6)? == id.to_be_bytes())
    };
    answer().unwrap_or(false)
}

/// Whether a frame is the answer to the [`ping`] with this id.
#[must_use]
pub fn is_pong(frame: &[u8], id: u16) -> bool {
    payload_of(frame, IPV4).is_some_and(|packet| is_echo_reply(packet, id))
}

/// A spanning tree BPDU (IEEE 802.1D §9.3.1) of a bridge that wants to be the root.
#[must_use]
pub fn bpdu(from: MacAddr) -> Vec<u8> {
    // The bridge group address, and a length in place of an EtherType: LLC with the SAP of STP.
    let group = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0]);
    let id = [&[0, 0][..], &from.octets()].concat();
    let configuration = [
        &[0x42, 0x42, 0x03, 0, 0, 0, 0, 0][..],
        &id,
        &[0; 4],
        &id,
        // Port, then message age, maximum age, hello time and forward delay, in 1/256 seconds.
        &[0x80, 1, 0, 0, 20, 0, 2, 0, 15, 0],
    ]
    .concat();
    ethernet(group, from, length(configuration.len()), &configuration)
}

/// A router advertisement (RFC 4861 §4.2) that offers itself as the default router for half an
/// hour, without a prefix, from a link-local address made of `from`.
#[must_use]
pub fn router_advertisement(from: MacAddr) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let message = [
        &[134, 0, 0, 0, 64, 0][..],
        &1800_u16.to_be_bytes(),
        &[0; 8],
        // The source link-layer address option.
        &[1, 1],
        &from.octets(),
    ]
    .concat();
    icmpv6((MacAddr([0x33, 0x33, 0, 0, 0, 1]), all_nodes), (from, link_local(from)), &message)
}

/// A router advertisement to all nodes of a default router, from `from`, with a prefix of 64 bits
/// of which hosts make addresses (RFC 4861 §4.2, §4.6.2).
#[must_use]
pub fn prefix_advertisement(from: MacAddr, prefix: Ipv6Addr) -> Vec<u8> {
    let forever = [0xff; 4];
    let message = [
        &[134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[1, 1],
        &from.octets(),
        &[3, 4, 64, 0xc0],
        &forever,
        &forever,
        &[0; 4],
        &prefix.octets(),
    ]
    .concat();
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let to = (MacAddr([0x33, 0x33, 0, 0, 0, 1]), all_nodes);
    icmpv6(to, (from, link_local(from)), &message)
}

/// The link-local address made of `mac` (RFC 4291 appendix A: modified EUI-64).
#[must_use]
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, g] = mac.octets();
    let id = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, g]);
    Ipv6Addr::from_bits((0xfe80 << 112) | u128::from(id))
}

/// A frame with an ICMPv6 message, whose checksum is filled in.
#[must_use]
pub fn icmpv6(to: (MacAddr, Ipv6Addr), from: (MacAddr, Ipv6Addr), message: &[u8]) -> Vec<u8> {
    ipv6(to, from, 58, &icmpv6_message(to.1, from.1, message))
}

/// An ICMPv6 message between these two with its checksum filled in.
#[must_use]
pub fn icmpv6_message(to: Ipv6Addr, from: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let pseudo = [
        &from.octets()[..],
        &to.octets(),
        &u32::from(length(message.len())).to_be_bytes(),
        &[0, 0, 0, 58],
        &message,
    ]
    .concat();
    message[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    message
}

/// A frame with a UDP datagram over IPv6, whose checksum is filled in; each end with its port.
#[must_use]
pub fn udp6(
    to: (MacAddr, Ipv6Addr, u16),
    from: (MacAddr, Ipv6Addr, u16),
    payload: &[u8],
) -> Vec<u8> {
    let size = length(8 + payload.len());
    let mut datagram =
        [&from.2.to_be_bytes()[..], &to.2.to_be_bytes(), &size.to_be_bytes(), &[0; 2], payload]
            .concat();
    let pseudo = [
        &from.1.octets()[..],
        &to.1.octets(),
        &u32::from(size).to_be_bytes(),
        &[0, 0, 0, 17],
        &datagram,
    ]
    .concat();
    datagram[6..8].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    ipv6((to.0, to.1), (from.0, from.1), 17, &datagram)
}

/// A frame with an IPv6 packet: `payload` begins with the header that `next` says.
#[must_use]
pub fn ipv6(
    (to_mac, to): (MacAddr, Ipv6Addr),
    (from_mac, from): (MacAddr, Ipv6Addr),
    next: u8,
    payload: &[u8],
) -> Vec<u8> {
    // RFC 4861 §6.1.2: the hop limit is 255, or the receiver drops what is neighbour discovery.
    let packet = [
        &[0x60, 0, 0, 0][..],
        &length(payload.len()).to_be_bytes(),
        &[next, 255],
        &from.octets(),
        &to.octets(),
        payload,
    ]
    .concat();
    ethernet(to_mac, from_mac, IPV6, &packet)
}

/// A DHCP message of a client or a server (RFC 2131 §2), as raw as a test wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpMessage {
    /// 1 from a client, 2 from a server.
    pub op: u8,
    /// The transaction.
    pub xid: u32,
    /// Whether the broadcast flag is set.
    pub broadcast: bool,
    /// The client's present address.
    pub ciaddr: Ipv4Addr,
    /// The address that the server gives.
    pub yiaddr: Ipv4Addr,
    /// The client's hardware address.
    pub chaddr: MacAddr,
    /// The options in order, without pad and end.
    pub options: Vec<(u8, Vec<u8>)>,
}

impl DhcpMessage {
    /// A message of a client that has no address yet; `kind` is option 53 (1 is DISCOVER).
    #[must_use]
    pub fn from_client(kind: u8, xid: u32, chaddr: MacAddr) -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        Self {
            op: 1,
            xid,
            broadcast: false,
            ciaddr: none,
            yiaddr: none,
            chaddr,
            options: vec![(53, vec![kind])],
        }
    }

    /// DHCPDISCOVER.
    #[must_use]
    pub fn discover(xid: u32, chaddr: MacAddr) -> Self {
        Self::from_client(1, xid, chaddr)
    }

    /// DHCPREQUEST in the state SELECTING: the answer to an offer of `address` by `server`.
    #[must_use]
    pub fn request(xid: u32, chaddr: MacAddr, address: Ipv4Addr, server: Ipv4Addr) -> Self {
        Self::from_client(3, xid, chaddr).with(50, &address.octets()).with(54, &server.octets())
    }

    /// DHCPOFFER, as a rogue server would send it.
    #[must_use]
    pub fn offer(xid: u32, chaddr: MacAddr, address: Ipv4Addr, server: Ipv4Addr) -> Self {
        let base = Self { op: 2, yiaddr: address, ..Self::from_client(2, xid, chaddr) };
        base.with(54, &server.octets()).with(51, &3600_u32.to_be_bytes())
    }

    /// With one more option.
    #[must_use]
    pub fn with(mut self, code: u8, value: &[u8]) -> Self {
        self.options.push((code, value.to_vec()));
        self
    }

    /// The value of an option.
    #[must_use]
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(has, _)| *has == code).map(|(_, value)| value.as_slice())
    }

    /// Option 53: 1 DISCOVER, 2 OFFER, 3 REQUEST, 4 DECLINE, 5 ACK, 6 NAK, 7 RELEASE, 8 INFORM.
    #[must_use]
    pub fn kind(&self) -> Option<u8> {
        self.option(53)?.first().copied()
    }

    /// The bytes of the message, 300 at least (RFC 1542 §2.1).
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let flags = if self.broadcast { 0x8000_u16 } else { 0 };
        let mut bytes = [
            &[self.op, 1, 6, 0][..],
            &self.xid.to_be_bytes(),
            &[0, 0],
            &flags.to_be_bytes(),
            &self.ciaddr.octets(),
            &self.yiaddr.octets(),
            &[0; 8],
            &self.chaddr.octets(),
            // The rest of chaddr, sname and file.
            &[0; 10 + 64 + 128],
            // The magic cookie.
            &[99, 130, 83, 99],
        ]
        .concat();
        for (code, value) in &self.options {
            let length = u8::try_from(value.len()).expect("an option has 255 bytes at most");
            bytes.extend_from_slice(&[*code, length]);
            bytes.extend_from_slice(value);
        }
        bytes.push(255);
        bytes.resize(bytes.len().max(300), 0);
        bytes
    }

    /// The message as a broadcast of a client without an address, from `from`.
    #[must_use]
    pub fn client_frame(&self, from: MacAddr) -> Vec<u8> {
        let (none, all) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        Udp { from: none, from_port: 68, to: all, to_port: 67, payload: self.bytes() }
            .frame(MacAddr::BROADCAST, from)
    }

    /// The message of a server in a frame (from port 67), if there is one.
    #[must_use]
    pub fn parse_server_frame(frame: &[u8]) -> Option<Self> {
        let datagram = Udp::parse(frame)?;
        if datagram.from_port != 67 { None } else { Self::parse(&datagram.payload) }
    }

    /// The message in these bytes, if there is a whole one.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.get(240..)?;
        if bytes.get(236..240)? != [99, 130, 83, 99] {
            return None;
        }
        let mut options = Vec::new();
        while let [code, after @ ..] = rest {
            rest = after;
            match code {
                0 => {}
                255 => break,
                code => {
                    let (length, after) = rest.split_first()?;
                    let (value, after) = after.split_at_checked(usize::from(*length))?;
                    options.push((*code, value.to_vec()));
                    rest = after;
                }
            }
        }
        Some(Self {
            op: *bytes.first()?,
            xid: u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?),
            broadcast: bytes.get(10)? & 0x80 != 0,
            ciaddr: ipv4_at(bytes, 12)?,
            yiaddr: ipv4_at(bytes, 16)?,
            chaddr: MacAddr(bytes.get(28..34)?.try_into().ok()?),
            options,
        })
    }
}

/// The address that a frame is for.
#[must_use]
pub fn destination(frame: &[u8]) -> Option<MacAddr> {
    Some(MacAddr(frame.get(..6)?.try_into().ok()?))
}

/// The address that a frame claims to be from.
#[must_use]
pub fn source(frame: &[u8]) -> Option<MacAddr> {
    Some(MacAddr(frame.get(6..12)?.try_into().ok()?))
}

fn payload_of(frame: &[u8], ethertype: u16) -> Option<&[u8]> {
    (frame.get(12..14)? == ethertype.to_be_bytes()).then(|| &frame[14..])
}

fn ipv4_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

/// An IPv4 packet.
#[must_use]
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = length(20 + payload.len());
    let mut packet = [
        &[0x45, 0][..],
        &length.to_be_bytes(),
        // No fragment, 64 hops.
        &[0, 0, 0x40, 0, 64, protocol, 0, 0],
        &from.octets(),
        &to.octets(),
    ]
    .concat();
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("a packet has 65535 bytes at most")
}

/// The Internet checksum (RFC 1071) of these bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| [pair[0], pair.get(1).copied().unwrap_or(0)]);
    let mut sum: u64 = words.map(|pair| u64::from(u16::from_be_bytes(pair))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("the loop has folded it")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 1, 2, 3]);

    #[test]
    fn what_is_built_is_parsed() {
        let discover = DhcpMessage::discover(7, MAC).with(12, b"web");
        let frame = discover.client_frame(MAC);
        let datagram = Udp::parse(&frame).unwrap();
        assert_eq!(DhcpMessage::parse(&datagram.payload), Some(discover));
        assert_eq!((source(&frame), destination(&frame)), (Some(MAC), Some(MacAddr::BROADCAST)));
        let arp = Arp::request(MAC, [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        assert_eq!(Arp::parse(&arp.frame(MacAddr::BROADCAST, MAC)), Some(arp));
    }

    #[test]
    fn cut_frames_are_no_messages() {
        let frame = DhcpMessage::discover(7, MAC).client_frame(MAC);
        for length in 0..frame.len() {
            assert_eq!(Udp::parse(&frame[..length]), None, "{length}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        // The example in RFC 1071 §3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }
}
