//! What went over the wire, beside what smoltcp says: the reasons for silence.
//!
//! smoltcp reports that something worked. Why it didn't is in the frames: a DISCOVER that nobody
//! answered, an OFFER without an ACK, an ARP request without a reply, an ICMP error.

use smoltcp::wire::{
    ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetFrame, EthernetProtocol,
    Icmpv4Message, Icmpv4Packet, IpProtocol, Ipv4Address, Ipv4Packet, UdpPacket,
};

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;

/// Sources of ARP packets that are remembered.
const ARP_SOURCES: usize = 16;

/// DHCP messages since the last DISCOVER phase began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DhcpCounts {
    /// DISCOVERs sent.
    pub(crate) discovers: u32,
    /// OFFERs received.
    pub(crate) offers: u32,
    /// Who made the last OFFER (its server identifier).
    pub(crate) offered_by: Option<Ipv4Address>,
    /// REQUESTs sent.
    pub(crate) requests: u32,
    /// ACKs received.
    pub(crate) acks: u32,
    /// NAKs received.
    pub(crate) naks: u32,
}

/// An ICMP "destination unreachable" (RFC 792) about a packet of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unreachable {
    /// Who sent it.
    pub(crate) from: Ipv4Address,
    /// Where our packet was going.
    pub(crate) to: Ipv4Address,
    /// Its code.
    pub(crate) code: u8,
}

impl Unreachable {
    /// Its code in words (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1).
    pub(crate) fn meaning(&self) -> &'static str {
        match self.code {
            0 | 6 => "no route to the network",
            1 | 7 => "no route to the host",
            2 => "no such protocol",
            3 => "nobody listens on the port",
            9 | 10 | 13 => "prohibited by a firewall",
            _ => "destination unreachable",
        }
    }
}

/// Everything that was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed {
    mac: [u8; 6],
    /// DHCP messages.
    pub(crate) dhcp: DhcpCounts,
    /// The last addresses that ARP packets came from, and where the next one goes.
    arp: [Ipv4Address; ARP_SOURCES],
    arp_next: usize,
    /// The last ICMP error.
    pub(crate) unreachable: Option<Unreachable>,
    /// Buffers that the driver refused: always 0, unless the device misbehaves.
    pub(crate) lost_buffers: u32,
}

impl Observed {
    /// Nothing seen yet; `mac` is our own address.
    pub(crate) fn new(mac: [u8; 6]) -> Self {
        Self {
            mac,
            dhcp: DhcpCounts::default(),
            arp: [Ipv4Address::UNSPECIFIED; ARP_SOURCES],
            arp_next: 0,
            unreachable: None,
            lost_buffers: 0,
        }
    }

    /// Whether `address` was heard of by ARP. A request of its own counts: it makes it a neighbour
    /// as well as an answer does (RFC 826).
    pub(crate) fn arp_heard(&self, address: Ipv4Address) -> bool {
        self.arp.contains(&address)
    }

    /// Looks at a frame that was sent.
    pub(crate) fn sent(&mut self, frame: &[u8]) {
        let Some((EthernetProtocol::Ipv4, packet)) = ethernet(frame) else { return };
        let Some((_, payload)) = dhcp_payload(packet, DHCP_SERVER) else { return };
        match message_type(payload) {
            Some((DhcpMessageType::Discover, _)) => self.dhcp.discovers += 1,
            Some((DhcpMessageType::Request, _)) => self.dhcp.requests += 1,
            _ => {}
        }
    }

    /// Looks at a frame that was received.
    pub(crate) fn received(&mut self, frame: &[u8]) {
        match ethernet(frame) {
            Some((EthernetProtocol::Arp, packet)) => self.received_arp(packet),
            Some((EthernetProtocol::Ipv4, packet)) => {
                if let Some((mac, payload)) = dhcp_payload(packet, DHCP_CLIENT) {
                    if mac == self.mac {
                        self.received_dhcp(payload);
                    }
                } else {
                    self.received_icmp(packet);
                }
            }
            _ => {}
        }
    }

    fn received_arp(&mut self, packet: &[u8]) {
        let Ok(packet) = ArpPacket::new_checked(packet) else { return };
        let Ok(ArpRepr::EthernetIpv4 { source_protocol_addr: source, .. }) =
            ArpRepr::parse(&packet)
        else {
            return;
        };
        if !self.arp_heard(source) {
            self.arp[self.arp_next] = source;
            self.arp_next = (self.arp_next + 1) % self.arp.len();
        }
    }

    fn received_dhcp(&mut self, payload: &[u8]) {
        match message_type(payload) {
            Some((DhcpMessageType::Offer, server)) => {
                self.dhcp.offers += 1;
                self.dhcp.offered_by = server;
            }
            Some((DhcpMessageType::Ack, _)) => self.dhcp.acks += 1,
            Some((DhcpMessageType::Nak, _)) => self.dhcp.naks += 1,
            _ => {}
        }
    }

    fn received_icmp(&mut self, packet: &[u8]) {
        let Ok(packet) = Ipv4Packet::new_checked(packet) else { return };
        if packet.next_header() != IpProtocol::Icmp {
            return;
        }
        let Ok(icmp) = Icmpv4Packet::new_checked(packet.payload()) else { return };
        if icmp.msg_type() != Icmpv4Message::DstUnreachable {
            return;
        }
        // The packet that it is about follows, cut short: its header is all there is to check.
        let quoted = Ipv4Packet::new_unchecked(icmp.data());
        if icmp.data().len() >= 20 {
            self.unreachable = Some(Unreachable {
                from: packet.src_addr(),
                to: quoted.dst_addr(),
                code: icmp.msg_code(),
            });
        }
    }
}

fn ethernet(frame: &[u8]) -> Option<(EthernetProtocol, &[u8])> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    Some((frame.ethertype(), frame.payload()))
}

/// The hardware address in a DHCP message to UDP `port`, and the message.
fn dhcp_payload(packet: &[u8], port: u16) -> Option<([u8; 6], &[u8])> {
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    if packet.next_header() != IpProtocol::Udp {
        return None;
    }
    let udp = UdpPacket::new_checked(packet.payload()).ok()?;
    if udp.dst_port() != port {
        return None;
    }
    let payload = udp.payload();
    let message = DhcpPacket::new_checked(payload).ok()?;
    Some((message.client_hardware_address().0, payload))
}

fn message_type(payload: &[u8]) -> Option<(DhcpMessageType, Option<Ipv4Address>)> {
    let packet = DhcpPacket::new_checked(payload).ok()?;
    let message = DhcpRepr::parse(&packet).ok()?;
    Some((message.message_type, message.server_identifier))
}
