//! A network with its server, and clients that write their messages byte by byte, so that they
//! can be wrong. Replies are read back by `dhcproto`.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{Decodable, Decoder, DhcpOption, Message, MessageType, OptionCode};
use vnet_dhcp::frame::{self, Checksum, Endpoint, Received};
use vnet_dhcp::{Decision, Event, Lease, Now, Record, Server, ServerConfig};
use vnet_types::{Dhcp, Dns, MacAddr, Mode, NetworkDefinition, Reservation, Subnet};

/// When every test begins, in Unix seconds.
pub const START: u64 = 1_800_000_000;
pub const LEASE: u32 = 3600;
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 1);
pub const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

pub fn server_mac() -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0xff, 0, 1])
}

pub fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 122, last)
}

pub fn mac(number: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, number])
}

pub fn reservation(number: u8, address: u8, name: Option<&str>) -> Reservation {
    let hostname = name.map(|name| name.parse().unwrap());
    Reservation { hostname, ..Reservation::new(mac(number), ip(address)) }
}

pub fn definition(mode: Mode) -> NetworkDefinition {
    let subnet: Subnet = "192.168.122.0/24".parse().unwrap();
    NetworkDefinition {
        name: "default".parse().unwrap(),
        mode,
        bridge: "virbr0".parse().unwrap(),
        subnet,
        domain: "default.vnet".parse().unwrap(),
        uplink: None,
        mtu: None,
        limits: vnet_types::Limits::default(),
        autostart: true,
        anti_spoofing: false,
        dhcp: Some(Dhcp {
            lease_seconds: LEASE,
            probe: false,
            ..Dhcp::new("192.168.122.2-192.168.122.254".parse().unwrap())
        }),
        dns: Dns::default(),
        ipv6: None,
        forwards: Vec::new(),
    }
}

pub fn config() -> ServerConfig {
    ServerConfig::for_network(&definition(Mode::Nat), server_mac()).unwrap()
}

/// A server, its clock, and what it has stored.
pub struct Net {
    pub server: Server,
    pub now: Now,
    pub journal: Vec<u8>,
}

/// What came of one message.
#[derive(Debug)]
pub struct Answer {
    pub event: Event,
    pub persist: Vec<Record>,
    pub reply: Option<Answered>,
}

/// A reply, taken apart.
#[derive(Debug)]
pub struct Answered {
    pub to: Endpoint,
    pub from: Endpoint,
    pub payload: Vec<u8>,
    pub message: Message,
}

/// A message of a client, to be filled in.
#[derive(Debug, Clone)]
pub struct Says {
    pub kind: u8,
    pub mac: MacAddr,
    pub src_mac: MacAddr,
    pub xid: u32,
    pub broadcast: bool,
    pub ciaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub to: Ipv4Addr,
    pub options: Vec<(u8, Vec<u8>)>,
}

pub fn says(kind: MessageType, number: u8) -> Says {
    Says {
        kind: kind.into(),
        mac: mac(number),
        src_mac: mac(number),
        xid: 0x1234_5600 | u32::from(number),
        broadcast: false,
        ciaddr: ANY,
        giaddr: ANY,
        to: Ipv4Addr::BROADCAST,
        options: vec![],
    }
}

pub fn discover(number: u8) -> Says {
    says(MessageType::Discover, number)
}

/// SELECTING.
pub fn select(number: u8, ip: Ipv4Addr) -> Says {
    says(MessageType::Request, number).option(50, &ip.octets()).option(54, &SERVER.octets())
}

/// INIT-REBOOT.
pub fn reboot(number: u8, ip: Ipv4Addr) -> Says {
    says(MessageType::Request, number).option(50, &ip.octets())
}

/// RENEWING.
pub fn renew(number: u8, ip: Ipv4Addr) -> Says {
    Says { ciaddr: ip, to: SERVER, ..says(MessageType::Request, number) }
}

/// REBINDING.
pub fn rebind(number: u8, ip: Ipv4Addr) -> Says {
    Says { ciaddr: ip, ..says(MessageType::Request, number) }
}

pub fn release(number: u8, ip: Ipv4Addr) -> Says {
    Says { ciaddr: ip, to: SERVER, ..says(MessageType::Release, number) }
        .option(54, &SERVER.octets())
}

pub fn decline(number: u8, ip: Ipv4Addr) -> Says {
    says(MessageType::Decline, number).option(50, &ip.octets()).option(54, &SERVER.octets())
}

impl Says {
    pub fn option(mut self, code: u8, value: &[u8]) -> Self {
        self.options.push((code, value.to_vec()));
        self
    }

    pub fn id(self, id: &[u8]) -> Self {
        self.option(61, id)
    }

    pub fn named(self, name: &str) -> Self {
        self.option(12, name.as_bytes())
    }

    pub fn wants(self, codes: &[u8]) -> Self {
        self.option(55, codes)
    }

    pub fn relayed(self, giaddr: Ipv4Addr, relay: MacAddr) -> Self {
        Self { giaddr, src_mac: relay, to: SERVER, ..self }
    }

    pub fn payload(&self) -> Vec<u8> {
        let mut bytes = vec![0; 240];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(&self.xid.to_be_bytes());
        bytes[10] = u8::from(self.broadcast) << 7;
        bytes[12..16].copy_from_slice(&self.ciaddr.octets());
        bytes[24..28].copy_from_slice(&self.giaddr.octets());
        bytes[28..34].copy_from_slice(&self.mac.octets());
        bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend([53, 1, self.kind]);
        for (code, value) in &self.options {
            bytes.extend([*code, value.len() as u8]);
            bytes.extend(value);
        }
        bytes.push(255);
        bytes
    }

    pub fn frame(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let from = Endpoint { mac: self.src_mac, ip: self.ciaddr, port: 68 };
        let mac = if self.to.is_broadcast() { MacAddr::BROADCAST } else { server_mac() };
        frame::build(&mut bytes, from, Endpoint { mac, ip: self.to, port: 67 }, &self.payload());
        bytes
    }
}

impl Net {
    pub fn new() -> Self {
        Self::with(config())
    }

    pub fn with(config: ServerConfig) -> Self {
        let server = Server::new(config, []).unwrap();
        let now = Now { unix: START, uptime: Duration::from_secs(1000) };
        Self { server, now, journal: Vec::new() }
    }

    pub fn with_range(range: &str) -> Self {
        Self::with(ServerConfig { range: range.parse().unwrap(), ..config() })
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now.unix += seconds;
        self.now.uptime += Duration::from_secs(seconds);
    }

    /// The server dies and comes back with what it has stored.
    pub fn crash(&mut self) {
        let stored = vnet_dhcp::journal::replay(&self.journal);
        assert_eq!((stored.good, stored.damaged), (self.journal.len(), 0));
        self.server =
            Server::new(self.server.config().clone(), stored.leases.into_values()).unwrap();
    }

    pub fn hears(&mut self, says: &Says) -> Answer {
        let bytes = says.frame();
        let received = frame::parse(&bytes, Checksum::Verify).unwrap();
        self.receives(&received)
    }

    pub fn receives(&mut self, received: &Received<'_>) -> Answer {
        let mut frame = Vec::new();
        let outcome = self.server.handle(self.now, received, &mut frame);
        for record in &outcome.persist {
            vnet_dhcp::journal::encode(&mut self.journal, record);
        }
        let reply = (!frame.is_empty()).then(|| take_apart(frame));
        Answer { event: outcome.event, persist: outcome.persist, reply }
    }

    /// DISCOVER, OFFER, REQUEST, ACK; the address that the client has then.
    pub fn dora(&mut self, discover: &Says) -> Ipv4Addr {
        let offered = self.hears(discover).offered();
        let mut request = discover.clone();
        request.kind = MessageType::Request.into();
        request.options.retain(|(code, _)| *code != 50);
        let request = request.option(50, &offered.octets()).option(54, &SERVER.octets());
        assert_eq!(self.hears(&request).acked(), offered);
        offered
    }

    pub fn lease(&self, ip: Ipv4Addr) -> Option<&Lease> {
        self.server.leases().find(|lease| lease.ip == ip)
    }
}

/// Takes a reply's frame apart, with its checksums verified.
fn take_apart(mut frame: Vec<u8>) -> Answered {
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let (source, destination) = (port(34), port(36));
    // The parser takes what is for servers only; the checksum of the ports is put right.
    if destination == 68 {
        frame[37] = 67;
        let sum = u32::from(u16::from_be_bytes([frame[40], frame[41]])) + 1;
        let sum = (sum & 0xffff) + (sum >> 16);
        frame[40..42].copy_from_slice(&(sum as u16).to_be_bytes());
    }
    let received = frame::parse(&frame, Checksum::Verify).unwrap();
    let message = Message::decode(&mut Decoder::new(received.payload)).unwrap();
    assert!(received.payload.len() >= 300, "RFC 1542 §2.1");
    Answered {
        to: Endpoint { mac: received.dst_mac, ip: received.dst_ip, port: destination },
        from: Endpoint { mac: received.src_mac, ip: received.src_ip, port: source },
        payload: received.payload.to_vec(),
        message,
    }
}

impl Answer {
    #[track_caller]
    pub fn reply(&self) -> &Answered {
        self.reply.as_ref().unwrap_or_else(|| panic!("no reply: {}", self.event))
    }

    #[track_caller]
    fn of_kind(&self, kind: MessageType) -> &Answered {
        let reply = self.reply();
        assert_eq!(reply.message.opts().msg_type(), Some(kind), "{}", self.event);
        reply
    }

    #[track_caller]
    pub fn offered(&self) -> Ipv4Addr {
        assert_eq!(self.persist, [], "an offer is not stored");
        self.of_kind(MessageType::Offer).message.yiaddr()
    }

    #[track_caller]
    pub fn acked(&self) -> Ipv4Addr {
        let ip = self.of_kind(MessageType::Ack).message.yiaddr();
        let stored = |record: &Record| matches!(record, Record::Put(lease) if lease.ip == ip);
        assert!(self.persist.iter().any(stored), "an ACK without its record");
        ip
    }

    #[track_caller]
    pub fn refused(&self) -> vnet_dhcp::NakReason {
        self.of_kind(MessageType::Nak);
        match self.event.decision {
            Decision::Refused { why, .. } => why,
            _ => panic!("{}", self.event),
        }
    }

    #[track_caller]
    pub fn silent(&self) -> vnet_dhcp::Silence {
        assert!(self.reply.is_none(), "{}", self.event);
        match self.event.decision {
            Decision::Silent { why } => why,
            _ => panic!("{}", self.event),
        }
    }

    #[track_caller]
    pub fn why(&self) -> vnet_dhcp::Choice {
        match self.event.decision {
            Decision::Offered { why, .. } | Decision::Acked { why, .. } => why,
            _ => panic!("{}", self.event),
        }
    }
}

impl Answered {
    /// Codes of the options in the order in which they stand.
    pub fn codes(&self) -> Vec<u8> {
        let (mut codes, mut rest) = (Vec::new(), &self.payload[240..]);
        while let [code, length, tail @ ..] = rest {
            if *code == 255 {
                break;
            }
            codes.push(*code);
            rest = &tail[usize::from(*length)..];
        }
        codes
    }

    pub fn option(&self, code: u8) -> Option<&DhcpOption> {
        self.message.opts().get(OptionCode::from(code))
    }

    /// An option's bytes, its parts joined.
    pub fn bytes(&self, wanted: u8) -> Option<Vec<u8>> {
        let (mut found, mut rest) = (None, &self.payload[240..]);
        while let [code, length, tail @ ..] = rest {
            if *code == 255 {
                break;
            }
            if *code == wanted {
                found.get_or_insert_with(Vec::new).extend(&tail[..usize::from(*length)]);
            }
            rest = &tail[usize::from(*length)..];
        }
        found
    }
}
