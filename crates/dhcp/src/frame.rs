//! Ethernet frames around DHCP messages: what a packet socket on the bridge receives and sends.
//!
//! The server sends whole frames because a client without an address cannot answer ARP
//! (RFC 2131 §4.1), and because the checksums are then complete on every frame that leaves.

use std::net::Ipv4Addr;

use vnet_types::MacAddr;

/// The port of servers and relays.
pub const SERVER_PORT: u16 = 67;
/// The port of clients.
pub const CLIENT_PORT: u16 = 68;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
/// Bytes of Ethernet, IPv4 and UDP headers before the message in a frame that [`build`] makes.
pub const HEADERS: usize = ETHERNET + IPV4 + UDP;
/// Bytes of IPv4 and UDP headers, which count against the MTU.
pub(crate) const IP_OVERHEAD: usize = IPV4 + UDP;

const ETHERTYPE_IPV4: u16 = 0x0800;
const PROTOCOL_UDP: u8 = 17;
/// DHCP messages stay on the link; a relay makes packets of its own.
const TTL: u8 = 64;

/// Whether the UDP checksum of a received frame means anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It does, unless it is 0.
    Verify,
    /// The sender left it to hardware that the frame never met (`TP_STATUS_CSUMNOTREADY`), or
    /// the kernel has verified it already.
    Trust,
}

/// A DHCP message as it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// The neighbour that the frame came from: the client, or the relay.
    pub src_mac: MacAddr,
    /// Where the frame went.
    pub dst_mac: MacAddr,
    /// The sender's address; 0.0.0.0 for a client that has none yet.
    pub src_ip: Ipv4Addr,
    /// Where the packet went.
    pub dst_ip: Ipv4Addr,
    /// The message.
    pub payload: &'a [u8],
}

/// Where a reply goes, or comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The station.
    pub mac: MacAddr,
    /// Its IP address.
    pub ip: Ipv4Addr,
    /// The UDP port.
    pub port: u16,
}

/// Why a frame is no DHCP message to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It ends before its headers or its lengths say.
    #[error("the frame is cut short")]
    Truncated,
    /// Another protocol, or another port.
    #[error("the frame is not UDP over IPv4 to the port of DHCP servers")]
    NotDhcp,
    /// A header contradicts itself.
    #[error("a header of the frame is malformed")]
    Malformed,
    /// A part of a packet.
    #[error("the packet is fragmented")]
    Fragment,
    /// Damaged on its way.
    #[error("a checksum of the packet is wrong")]
    Checksum,
}

/// Finds the DHCP message in an Ethernet frame without VLAN tags.
///
/// # Errors
/// The frame is not a whole, undamaged UDP packet to port 67.
pub fn parse(frame: &[u8], checksum: Checksum) -> Result<Received<'_>, FrameError> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET).ok_or(FrameError::Truncated)?;
    if be16(ethernet, 12)? != ETHERTYPE_IPV4 {
        return Err(FrameError::NotDhcp);
    }
    let header_len = match packet.first() {
        None => return Err(FrameError::Truncated),
        Some(first) if first >> 4 != 4 => return Err(FrameError::NotDhcp),
        // Options make the header longer than five words (RFC 791 §3.1).
        Some(first) => usize::from(first & 0x0f) * 4,
    };
    if header_len < IPV4 {
        return Err(FrameError::Malformed);
    }
    let total_len = usize::from(be16(packet, 2)?);
    // What follows the packet is Ethernet padding.
    let packet = packet.get(..total_len).ok_or(FrameError::Truncated)?;
    let (header, datagram) = packet.split_at_checked(header_len).ok_or(FrameError::Malformed)?;
    if header[9] != PROTOCOL_UDP {
        return Err(FrameError::NotDhcp);
    }
    // MF, or an offset: DHCP messages fit one packet, and reassembly is the kernel's.
    if be16(header, 6)? & 0x3fff != 0 {
        return Err(FrameError::Fragment);
    }
    if !verifies(sum(0, header)) {
        return Err(FrameError::Checksum);
    }
    let (src_ip, dst_ip) = (ip_at(header, 12)?, ip_at(header, 16)?);

    if be16(datagram, 2)? != SERVER_PORT {
        return Err(FrameError::NotDhcp);
    }
    let udp_len = usize::from(be16(datagram, 4)?);
    if udp_len < UDP {
        return Err(FrameError::Malformed);
    }
    let datagram = datagram.get(..udp_len).ok_or(FrameError::Truncated)?;
    // 0 says that there is no checksum (RFC 768).
    if checksum == Checksum::Verify
        && be16(datagram, 6)? != 0
        && !verifies(sum(pseudo_header(src_ip, dst_ip, udp_len), datagram))
    {
        return Err(FrameError::Checksum);
    }
    Ok(Received {
        src_mac: mac_at(ethernet, 6)?,
        dst_mac: mac_at(ethernet, 0)?,
        src_ip,
        dst_ip,
        payload: datagram.get(UDP..).ok_or(FrameError::Truncated)?,
    })
}

/// Puts the frame that carries `payload` from `from` to `to` into `frame`, in the place of what
/// was there. `payload` is cut at 65,507 bytes, the most that UDP carries.
pub fn build(frame: &mut Vec<u8>, from: Endpoint, to: Endpoint, payload: &[u8]) {
    let payload = &payload[..payload.len().min(usize::from(u16::MAX) - IP_OVERHEAD)];
    let len16 = |len: usize| u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    frame.clear();
    frame.reserve(HEADERS + payload.len());
    frame.extend(to.mac.octets());
    frame.extend(from.mac.octets());
    frame.extend(ETHERTYPE_IPV4.to_be_bytes());

    let mut header = [0; IPV4];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&len16(IP_OVERHEAD + payload.len()));
    // Identification 0 with DF: never fragmented (RFC 6864 §4.1).
    header[6] = 0x40;
    header[8] = TTL;
    header[9] = PROTOCOL_UDP;
    header[12..16].copy_from_slice(&from.ip.octets());
    header[16..20].copy_from_slice(&to.ip.octets());
    let checksum = !fold(sum(0, &header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(header);

    let udp_len = UDP + payload.len();
    let mut udp = [0; UDP];
    udp[0..2].copy_from_slice(&from.port.to_be_bytes());
    udp[2..4].copy_from_slice(&to.port.to_be_bytes());
    udp[4..6].copy_from_slice(&len16(udp_len));
    let partial = sum(pseudo_header(from.ip, to.ip, udp_len), &udp);
    let checksum = match !fold(sum(partial, payload)) {
        // 0 would say that there is none (RFC 768).
        0 => 0xffff,
        checksum => checksum,
    };
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(udp);
    frame.extend(payload);
}

pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], FrameError> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(FrameError::Truncated)
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> Result<u16, FrameError> {
    array(bytes, at).map(u16::from_be_bytes)
}

fn ip_at(bytes: &[u8], at: usize) -> Result<Ipv4Addr, FrameError> {
    array::<4>(bytes, at).map(Ipv4Addr::from)
}

pub(crate) fn mac_at(bytes: &[u8], at: usize) -> Result<MacAddr, FrameError> {
    array(bytes, at).map(MacAddr)
}

/// Adds `bytes` as 16-bit words to the ones' complement sum `start` (RFC 1071), not yet folded.
/// All parts but the last must be of even length; 2^48 words fit.
pub(crate) fn sum(start: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let odd = words.remainder().first().map_or(0, |&last| u64::from(last) << 8);
    words.fold(start + odd, |sum, word| sum + u64::from(u16::from_be_bytes([word[0], word[1]])))
}

pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // The loop leaves 16 bits.
    sum as u16
}

pub(crate) fn verifies(sum: u64) -> bool {
    fold(sum) == 0xffff
}

fn pseudo_header(src: Ipv4Addr, dst: Ipv4Addr, udp_len: usize) -> u64 {
    sum(sum(u64::from(PROTOCOL_UDP) + udp_len as u64, &src.octets()), &dst.octets())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client() -> Endpoint {
        Endpoint {
            mac: "52:54:00:00:00:01".parse().unwrap(),
            ip: Ipv4Addr::UNSPECIFIED,
            port: CLIENT_PORT,
        }
    }

    fn server() -> Endpoint {
        Endpoint { mac: MacAddr::BROADCAST, ip: Ipv4Addr::BROADCAST, port: SERVER_PORT }
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        build(&mut frame, client(), server(), payload);
        frame
    }

    #[test]
    fn a_built_frame_parses_to_what_went_in() {
        for payload in [&b""[..], b"odd", b"even"] {
            let mut bytes = frame(payload);
            bytes.resize(bytes.len().max(60), 0xaa); // Ethernet padding
            let received = parse(&bytes, Checksum::Verify).unwrap();
            assert_eq!(received.payload, payload);
            assert_eq!(received.src_mac, client().mac);
            assert_eq!(received.dst_ip, Ipv4Addr::BROADCAST);
        }
    }

    #[test]
    fn the_checksums_are_those_of_a_known_packet() {
        let mut bytes = Vec::new();
        let at = |ip: [u8; 4], port| Endpoint { mac: MacAddr([2; 6]), ip: ip.into(), port };
        build(&mut bytes, at([192, 168, 0, 1], 67), at([192, 168, 0, 199], 68), b"\x01\x02\x03");
        // Worked out by hand: 0x4500+0x001f+0x4000+0x4011+0xc0a8+0x0001+0xc0a8+0x00c7.
        assert_eq!(bytes[24..26], [0xb8, 0xb5]);
        // 0xc0a8+0x0001+0xc0a8+0x00c7+0x0011+0x000b+0x0043+0x0044+0x000b+0x0102+0x0300.
        assert_eq!(bytes[40..42], [0x79, 0x36]);
    }

    #[test]
    fn ip_options_are_stepped_over() {
        let plain = frame(b"payload");
        let mut bytes = plain[..34].to_vec();
        bytes.extend([1, 1, 1, 0]); // three no-operations and the end
        bytes.extend(&plain[34..]);
        bytes[14] = 0x46;
        bytes[17] += 4;
        bytes[24..26].fill(0);
        let checksum = !fold(sum(0, &bytes[14..38]));
        bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(parse(&bytes, Checksum::Verify).unwrap().payload, b"payload");
    }

    #[test]
    fn any_damage_is_noticed() {
        let good = frame(b"payload!");
        for at in 14..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            assert!(parse(&bytes, Checksum::Verify).is_err(), "byte {at}");
        }
    }

    #[test]
    fn an_absent_or_partial_udp_checksum_passes() {
        let mut bytes = frame(b"payload!");
        bytes[40..42].fill(0);
        assert!(parse(&bytes, Checksum::Verify).is_ok());
        bytes[40] = 1;
        assert_eq!(parse(&bytes, Checksum::Verify), Err(FrameError::Checksum));
        assert!(parse(&bytes, Checksum::Trust).is_ok());
    }

    #[test]
    fn fragments_and_strangers_are_refused() {
        let fix = |mut bytes: Vec<u8>| {
            bytes[24..26].fill(0);
            let checksum = !fold(sum(0, &bytes[14..34]));
            bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
            parse(&bytes, Checksum::Trust).unwrap_err()
        };
        let with = |at: usize, value| {
            let mut bytes = frame(b"payload!");
            bytes[at] = value;
            bytes
        };
        assert_eq!(fix(with(20, 0x20)), FrameError::Fragment);
        assert_eq!(fix(with(21, 1)), FrameError::Fragment);
        assert_eq!(fix(with(23, 6)), FrameError::NotDhcp);
        assert_eq!(fix(with(37, 68)), FrameError::NotDhcp);
        assert_eq!(fix(with(12, 0x86)), FrameError::NotDhcp);
        assert_eq!(fix(with(14, 0x44)), FrameError::Malformed);
        assert_eq!(fix(with(39, 7)), FrameError::Malformed);
        assert_eq!(fix(with(39, 17)), FrameError::Truncated);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, Checksum::Verify);
        }

        #[test]
        fn a_cut_frame_is_refused(cut in 0usize..50) {
            let bytes = frame(b"payload!");
            prop_assert!(parse(&bytes[..cut.min(bytes.len() - 1)], Checksum::Trust).is_err());
        }
    }
}
