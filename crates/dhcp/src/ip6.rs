//! Ethernet frames around IPv6: UDP datagrams and ICMPv6 messages, as a packet socket on the
//! bridge receives and sends them, every checksum complete.

use std::net::Ipv6Addr;

use vnet_types::MacAddr;

use crate::frame::{Checksum, FrameError, array, be16, fold, mac_at, sum, verifies};

const ETHERNET: usize = 14;
const IPV6: usize = 40;
const UDP: usize = 8;
/// Bytes before the payload in a frame that [`build_udp`] makes.
pub const UDP_HEADERS: usize = ETHERNET + IPV6 + UDP;

const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMP: u8 = 58;
/// Extension headers that are stepped over (RFC 8200 §4): hop-by-hop and destination options.
const OPTIONS: [u8; 2] = [0, 60];
const FRAGMENT: u8 = 44;
/// Extension headers in a row that anybody has a use for.
const MAX_EXTENSIONS: usize = 4;

/// A packet as it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The neighbour that the frame came from.
    pub src_mac: MacAddr,
    /// Where the frame went.
    pub dst_mac: MacAddr,
    /// The sender's address.
    pub src_ip: Ipv6Addr,
    /// Where the packet went.
    pub dst_ip: Ipv6Addr,
    /// 255 if no router has passed it on.
    pub hop_limit: u8,
    /// What it carries.
    pub content: Content<'a>,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// A UDP datagram.
    Udp {
        /// The sender's port.
        src_port: u16,
        /// The receiver's port.
        dst_port: u16,
        /// What it carries.
        payload: &'a [u8],
    },
    /// An ICMPv6 message, from its type on.
    Icmp(&'a [u8]),
}

/// Where a packet goes, or comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The station, or the group ([`group_mac`]).
    pub mac: MacAddr,
    /// Its address.
    pub ip: Ipv6Addr,
    /// The UDP port.
    pub port: u16,
}

/// The Ethernet address of a multicast group (RFC 2464 §7).
#[must_use]
pub fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// Finds the UDP datagram or ICMPv6 message in an Ethernet frame without VLAN tags.
///
/// # Errors
/// The frame is not a whole, undamaged packet of either kind.
pub fn parse(frame: &[u8], checksum: Checksum) -> Result<Packet<'_>, FrameError> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET).ok_or(FrameError::Truncated)?;
    if be16(ethernet, 12)? != ETHERTYPE_IPV6 {
        return Err(FrameError::NotDhcp);
    }
    let (header, rest) = packet.split_at_checked(IPV6).ok_or(FrameError::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(FrameError::Malformed);
    }
    // What follows the packet is Ethernet padding.
    let length = usize::from(be16(header, 4)?);
    let (protocol, body) = step_over(header[6], rest.get(..length).ok_or(FrameError::Truncated)?)?;
    let (src_ip, dst_ip) =
        (Ipv6Addr::from(array::<16>(header, 8)?), Ipv6Addr::from(array::<16>(header, 24)?));
    let content = match protocol {
        PROTOCOL_UDP => udp(body, src_ip, dst_ip, checksum)?,
        PROTOCOL_ICMP => {
            if checksum == Checksum::Verify
                && !verifies(sum(pseudo_header(src_ip, dst_ip, PROTOCOL_ICMP, body.len()), body))
            {
                return Err(FrameError::Checksum);
            }
            Content::Icmp(body)
        }
        _ => return Err(FrameError::NotDhcp),
    };
    let (src_mac, dst_mac) = (mac_at(ethernet, 6)?, mac_at(ethernet, 0)?);
    Ok(Packet { src_mac, dst_mac, src_ip, dst_ip, hop_limit: header[7], content })
}

/// Steps over extension headers; gives the protocol behind them and its bytes.
fn step_over(mut protocol: u8, mut body: &[u8]) -> Result<(u8, &[u8]), FrameError> {
    for _ in 0..=MAX_EXTENSIONS {
        if protocol == FRAGMENT {
            return Err(FrameError::Fragment);
        }
        if !OPTIONS.contains(&protocol) {
            return Ok((protocol, body));
        }
        let [next, units] = array::<2>(body, 0)?;
        protocol = next;
        body = body.get((usize::from(units) + 1) * 8..).ok_or(FrameError::Truncated)?;
    }
    Err(FrameError::Malformed)
}

fn udp(
    body: &[u8],
    src: Ipv6Addr,
    dst: Ipv6Addr,
    checksum: Checksum,
) -> Result<Content<'_>, FrameError> {
    let length = usize::from(be16(body, 4)?);
    if length < UDP {
        return Err(FrameError::Malformed);
    }
    let datagram = body.get(..length).ok_or(FrameError::Truncated)?;
    // Over IPv6 there is always a checksum (RFC 8200 §8.1).
    if checksum == Checksum::Verify
        && (be16(datagram, 6)? == 0
            || !verifies(sum(pseudo_header(src, dst, PROTOCOL_UDP, length), datagram)))
    {
        return Err(FrameError::Checksum);
    }
    Ok(Content::Udp {
        src_port: be16(datagram, 0)?,
        dst_port: be16(datagram, 2)?,
        payload: datagram.get(UDP..).ok_or(FrameError::Truncated)?,
    })
}

/// Puts the frame that carries `payload` from `from` to `to` into `frame`, in the place of what
/// was there. `payload` is cut at 65,527 bytes, the most that UDP carries.
pub fn build_udp(frame: &mut Vec<u8>, from: Endpoint, to: Endpoint, payload: &[u8]) {
    let payload = &payload[..payload.len().min(usize::from(u16::MAX) - UDP)];
    let length = UDP + payload.len();
    headers(frame, (from.mac, from.ip), (to.mac, to.ip), (PROTOCOL_UDP, 64, length));
    let start = frame.len();
    frame.extend(from.port.to_be_bytes());
    frame.extend(to.port.to_be_bytes());
    frame.extend(len16(length));
    frame.extend([0; 2]);
    frame.extend(payload);
    let checksum =
        match !fold(sum(pseudo_header(from.ip, to.ip, PROTOCOL_UDP, length), &frame[start..])) {
            // 0 would say that there is none (RFC 8200 §8.1).
            0 => 0xffff,
            checksum => checksum,
        };
    frame[start + 6..start + 8].copy_from_slice(&checksum.to_be_bytes());
}

/// Puts the frame that carries the ICMPv6 message `message` into `frame`, in the place of what
/// was there, with its hop limit at 255 as neighbour discovery wants it (RFC 4861 §4.2). The
/// checksum in the message is made anew. A message of less than four bytes, or of more than
/// 65,535, gives an empty frame.
pub fn build_icmp(
    frame: &mut Vec<u8>,
    (src_mac, src_ip): (MacAddr, Ipv6Addr),
    (dst_mac, dst_ip): (MacAddr, Ipv6Addr),
    message: &[u8],
) {
    frame.clear();
    if !(4..=usize::from(u16::MAX)).contains(&message.len()) {
        return;
    }
    let (src, dst) = ((src_mac, src_ip), (dst_mac, dst_ip));
    headers(frame, src, dst, (PROTOCOL_ICMP, 255, message.len()));
    let start = frame.len();
    frame.extend(message);
    frame[start + 2..start + 4].fill(0);
    let pseudo = pseudo_header(src_ip, dst_ip, PROTOCOL_ICMP, message.len());
    let checksum = !fold(sum(pseudo, &frame[start..]));
    frame[start + 2..start + 4].copy_from_slice(&checksum.to_be_bytes());
}

fn headers(
    frame: &mut Vec<u8>,
    (src_mac, src_ip): (MacAddr, Ipv6Addr),
    (dst_mac, dst_ip): (MacAddr, Ipv6Addr),
    (protocol, hop_limit, length): (u8, u8, usize),
) {
    frame.clear();
    frame.reserve(ETHERNET + IPV6 + length);
    frame.extend(dst_mac.octets());
    frame.extend(src_mac.octets());
    frame.extend(ETHERTYPE_IPV6.to_be_bytes());
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(len16(length));
    frame.extend([protocol, hop_limit]);
    frame.extend(src_ip.octets());
    frame.extend(dst_ip.octets());
}

fn len16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// RFC 8200 §8.1.
fn pseudo_header(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, length: usize) -> u64 {
    sum(sum(u64::from(protocol) + length as u64, &src.octets()), &dst.octets())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(mac: u8, ip: &str, port: u16) -> Endpoint {
        Endpoint { mac: MacAddr([2, 0, 0, 0, 0, mac]), ip: ip.parse().unwrap(), port }
    }

    fn datagram(payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        build_udp(&mut frame, at(1, "fe80::1", 546), at(2, "ff02::1:2", 547), payload);
        frame
    }

    #[test]
    fn a_built_frame_parses_to_what_went_in() {
        for payload in [&b""[..], b"odd", b"even"] {
            let mut bytes = datagram(payload);
            bytes.resize(bytes.len() + 7, 0xaa); // Ethernet padding
            let packet = parse(&bytes, Checksum::Verify).unwrap();
            assert_eq!(packet.content, Content::Udp { src_port: 546, dst_port: 547, payload });
            assert_eq!(packet.src_mac, MacAddr([2, 0, 0, 0, 0, 1]));
            assert_eq!(packet.dst_ip.to_string(), "ff02::1:2");
        }
    }

    #[test]
    fn the_checksum_is_that_of_a_known_packet() {
        let mut frame = Vec::new();
        let ends = |ip: &str| (MacAddr([2; 6]), ip.parse().unwrap());
        build_icmp(&mut frame, ends("fe80::1"), ends("ff02::2"), &[133, 0, 9, 9, 0, 0, 0, 0]);
        // By hand: fe80+0001 + ff02+0002 + 003a + 0008 + 8500 folds to 82c8+2 carries...
        let words = [0xfe80u32, 1, 0xff02, 2, 0x3a, 8, 0x8500];
        let total: u32 = words.iter().sum();
        let folded = (total & 0xffff) + (total >> 16);
        assert_eq!(frame[56..58], (!(folded as u16)).to_be_bytes());
        assert_eq!(parse(&frame, Checksum::Verify).unwrap().hop_limit, 255);
    }

    #[test]
    fn any_damage_is_noticed() {
        let good = datagram(b"payload!");
        for byte in 14..good.len() {
            // Traffic class, flow label and hop limit are under no checksum.
            if (14..18).contains(&byte) || byte == 21 {
                continue;
            }
            let mut bytes = good.clone();
            bytes[byte] ^= 0x10;
            assert!(parse(&bytes, Checksum::Verify).is_err(), "byte {byte}");
        }
        let mut none = good.clone();
        none[60..62].fill(0);
        assert_eq!(parse(&none, Checksum::Verify), Err(FrameError::Checksum));
        assert!(parse(&none, Checksum::Trust).is_ok());
    }

    #[test]
    fn extension_headers_are_stepped_over_and_fragments_refused() {
        let plain = datagram(b"payload");
        let with = |headers: &[u8], first: u8| {
            let mut bytes = plain[..54].to_vec();
            bytes.extend(headers);
            bytes.extend(&plain[54..]);
            bytes[20] = first;
            let length = u16::from_be_bytes([bytes[18], bytes[19]]) + headers.len() as u16;
            bytes[18..20].copy_from_slice(&length.to_be_bytes());
            bytes
        };
        let options = [60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0];
        assert!(parse(&with(&options, 0), Checksum::Verify).is_ok());
        let fragment = [17, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(parse(&with(&fragment, 44), Checksum::Verify), Err(FrameError::Fragment));
        let many = [[60, 0, 1, 4, 0, 0, 0, 0]; 6].concat();
        assert_eq!(parse(&with(&many, 60), Checksum::Verify), Err(FrameError::Malformed));
        assert_eq!(parse(&with(&[17, 255], 60), Checksum::Verify), Err(FrameError::Truncated));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, Checksum::Verify);
            if bytes.len() > 20 {
                bytes[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
                let _ = parse(&bytes, Checksum::Trust);
            }
        }

        #[test]
        fn a_cut_frame_is_refused(cut in 0usize..70) {
            let bytes = datagram(b"payload!");
            prop_assert!(parse(&bytes[..cut.min(bytes.len() - 1)], Checksum::Trust).is_err());
        }
    }
}
