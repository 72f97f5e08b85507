//! A client of DHCPv6, byte by byte, and a server with its clock and its journal.

use std::net::Ipv6Addr;
use std::time::Duration;

use dhcproto::v6::{DhcpOption, Message, MessageType, OptionCode, Status};
use dhcproto::{Decodable, Decoder};
use vnet_dhcp::v6::{
    ALL_AGENTS, Answer, CLIENT_PORT, Decision, Duid, Event, Lease, Received, Record, Server,
    ServerConfig, Silence,
};
use vnet_dhcp::{Identity, Now};
use vnet_types::MacAddr;

pub const START: u64 = 1_800_000_000;
pub const LEASE: u32 = 3600;

pub fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

pub fn mac(number: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, number])
}

pub fn duid(number: u8) -> Duid {
    Duid::of_card(mac(number))
}

pub fn config() -> ServerConfig {
    ServerConfig {
        duid: duid(0xff),
        address: ip("fd00::1"),
        prefix: "fd00::/64".parse().unwrap(),
        range: Some(ip("fd00::100")..=ip("fd00::1ff")),
        lease_seconds: LEASE,
        reservations: vec![],
        names: Default::default(),
        dns_servers: vec![ip("fd00::1")],
        domain: Some("default.vnet".parse().unwrap()),
        search: vec!["default.vnet".parse().unwrap()],
        ntp_servers: vec![ip("fd00::1"), ip("fd00::2")],
        refresh_seconds: Some(1800),
        max_retry_seconds: Some(3600),
        identity: Identity::ClientId,
        rapid_commit: true,
    }
}

/// A message of a client, to be filled in.
#[derive(Debug, Clone)]
pub struct Says {
    pub kind: u8,
    pub number: u8,
    pub mac: Option<MacAddr>,
    pub src: Ipv6Addr,
    pub dst: Ipv6Addr,
    pub options: Vec<(u16, Vec<u8>)>,
}

pub fn says(kind: u8, number: u8) -> Says {
    Says {
        kind,
        number,
        mac: Some(mac(number)),
        src: Ipv6Addr::from(0xfe80_u128 << 112 | u128::from(number)),
        dst: ALL_AGENTS,
        options: vec![],
    }
    .option(1, duid(number).as_bytes())
}

pub fn solicit(number: u8) -> Says {
    says(1, number).ia(1, &[])
}

pub fn request(number: u8, wanted: &[&str]) -> Says {
    says(3, number).for_us().ia(1, wanted)
}

pub fn confirm(number: u8, has: &[&str]) -> Says {
    says(4, number).ia(1, has)
}

pub fn renew(number: u8, has: &[&str]) -> Says {
    says(5, number).for_us().ia(1, has)
}

pub fn rebind(number: u8, has: &[&str]) -> Says {
    says(6, number).ia(1, has)
}

pub fn release(number: u8, has: &[&str]) -> Says {
    says(8, number).for_us().ia(1, has)
}

pub fn decline(number: u8, has: &[&str]) -> Says {
    says(9, number).for_us().ia(1, has)
}

pub fn inform(number: u8) -> Says {
    says(11, number)
}

impl Says {
    pub fn option(mut self, code: u16, value: &[u8]) -> Self {
        self.options.push((code, value.to_vec()));
        self
    }

    pub fn without(mut self, code: u16) -> Self {
        self.options.retain(|(other, _)| *other != code);
        self
    }

    pub fn for_us(self) -> Self {
        self.option(2, config().duid.as_bytes())
    }

    pub fn association(self, code: u16, iaid: u32, addresses: &[&str]) -> Self {
        let mut value = iaid.to_be_bytes().to_vec();
        value.resize(if code == 4 { 4 } else { 12 }, 0);
        for address in addresses {
            value.extend([0, 5, 0, 24]);
            value.extend(ip(address).octets());
            value.extend([0; 8]);
        }
        self.option(code, &value)
    }

    pub fn ia(self, iaid: u32, addresses: &[&str]) -> Self {
        self.association(3, iaid, addresses)
    }

    pub fn wants(self, codes: &[u16]) -> Self {
        let value: Vec<u8> = codes.iter().flat_map(|code| code.to_be_bytes()).collect();
        self.option(6, &value)
    }

    pub fn rapid(self) -> Self {
        self.option(14, &[])
    }

    pub fn named(self, label: &str) -> Self {
        let name = [&[1, label.len() as u8], label.as_bytes()].concat();
        self.option(39, &name)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind, 0, 0, self.number];
        for (code, value) in &self.options {
            bytes.extend(code.to_be_bytes());
            bytes.extend((value.len() as u16).to_be_bytes());
            bytes.extend(value);
        }
        bytes
    }
}

/// A server, its clock, and what it has stored.
pub struct Net {
    pub server: Server,
    pub now: Now,
    pub journal: Vec<u8>,
}

/// What came of one message.
#[derive(Debug)]
pub struct Heard {
    pub event: Event,
    pub persist: Vec<Record>,
    pub to: Option<(Ipv6Addr, u16)>,
    pub bytes: Vec<u8>,
}

impl Net {
    pub fn new() -> Self {
        Self::with(config())
    }

    pub fn with(config: ServerConfig) -> Self {
        let now = Now { unix: START, uptime: Duration::from_secs(1000) };
        Self { server: Server::new(config, []), now, journal: Vec::new() }
    }

    pub fn with_range(first: &str, last: &str) -> Self {
        Self::with(ServerConfig { range: Some(ip(first)..=ip(last)), ..config() })
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now.unix += seconds;
        self.now.uptime += Duration::from_secs(seconds);
    }

    /// The server dies and comes back with what it has stored.
    pub fn crash(&mut self) {
        let stored = vnet_dhcp::journal::replay::<Lease>(&self.journal);
        assert_eq!((stored.good, stored.damaged), (self.journal.len(), 0));
        let before: Vec<_> = self.server.leases().cloned().collect();
        self.server = Server::new(self.server.config().clone(), stored.leases.into_values());
        assert_eq!(self.server.leases().cloned().collect::<Vec<_>>(), before);
    }

    pub fn hears(&mut self, says: &Says) -> Heard {
        self.receives(says, &says.bytes())
    }

    pub fn receives(&mut self, says: &Says, payload: &[u8]) -> Heard {
        let received = Received { src_mac: says.mac, src_ip: says.src, dst_ip: says.dst, payload };
        let mut bytes = Vec::new();
        let outcome = self.server.handle(self.now, &received, &mut bytes);
        for record in &outcome.persist {
            vnet_dhcp::journal::encode(&mut self.journal, record);
        }
        assert_eq!(outcome.to.is_some(), !bytes.is_empty());
        Heard { event: outcome.event, persist: outcome.persist, to: outcome.to, bytes }
    }

    /// SOLICIT, ADVERTISE, REQUEST, REPLY; the address that the client has then.
    pub fn obtain(&mut self, number: u8) -> Ipv6Addr {
        let advertised = self.hears(&solicit(number)).advertised();
        let leased = self.hears(&request(number, &[&advertised.to_string()])).leased();
        assert_eq!(leased, advertised);
        leased
    }

    pub fn lease(&self, ip: Ipv6Addr) -> Option<&Lease> {
        self.server.leases().find(|lease| lease.ip == ip)
    }
}

impl Heard {
    #[track_caller]
    pub fn message(&self) -> Message {
        assert!(!self.bytes.is_empty(), "no reply: {}", self.event);
        let message = Message::decode(&mut Decoder::new(&self.bytes)).unwrap();
        assert!(matches!(self.to, Some((_, CLIENT_PORT))));
        let server = DhcpOption::ServerId(config().duid.as_bytes().to_vec());
        assert_eq!(message.opts().get(OptionCode::ServerId), Some(&server));
        message
    }

    #[track_caller]
    pub fn of_kind(&self, kind: MessageType) -> Message {
        let message = self.message();
        assert_eq!(message.msg_type(), kind, "{}", self.event);
        message
    }

    #[track_caller]
    pub fn option(&self, code: u16) -> Option<DhcpOption> {
        self.message().opts().get(OptionCode::from(code)).cloned()
    }

    /// The association's addresses with their valid lifetimes, and its status.
    #[track_caller]
    pub fn association(&self, iaid: u32) -> (Vec<(Ipv6Addr, u32)>, Option<Status>) {
        let message = self.message();
        let all = message.opts().get_all(OptionCode::IANA).unwrap_or_default();
        let ia = all.iter().find_map(|option| match option {
            DhcpOption::IANA(ia) if ia.id == iaid => Some(ia),
            _ => None,
        });
        let ia = ia.unwrap_or_else(|| panic!("no IA {iaid}: {message:?}"));
        let mut addresses = Vec::new();
        let mut status = None;
        for option in ia.opts.iter() {
            match option {
                DhcpOption::IAAddr(address) => {
                    assert_eq!(address.preferred_life, address.valid_life);
                    addresses.push((address.addr, address.valid_life));
                }
                DhcpOption::StatusCode(code) => status = Some(code.status),
                other => panic!("{other:?}"),
            }
        }
        if addresses.iter().any(|(_, life)| *life > 0) {
            assert_eq!((ia.t1, ia.t2), (LEASE / 2, LEASE / 5 * 4));
        }
        (addresses, status)
    }

    /// The status of the message as a whole.
    #[track_caller]
    pub fn status(&self) -> Option<Status> {
        match self.option(13) {
            Some(DhcpOption::StatusCode(code)) => Some(code.status),
            _ => None,
        }
    }

    #[track_caller]
    fn only(&self) -> Ipv6Addr {
        let (addresses, status) = self.association(1);
        assert_eq!(status, None);
        match addresses.as_slice() {
            [(ip, LEASE)] => *ip,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn advertised(&self) -> Ipv6Addr {
        self.of_kind(MessageType::Advertise);
        assert_eq!(self.persist, [], "what is advertised is not stored");
        self.only()
    }

    /// The address of association 1, which has been stored.
    #[track_caller]
    pub fn leased(&self) -> Ipv6Addr {
        self.of_kind(MessageType::Reply);
        let ip = self.only();
        let stored = |record: &Record| matches!(record, Record::Put(lease) if lease.ip == ip);
        assert!(self.persist.iter().any(stored), "a lease without its record");
        ip
    }

    #[track_caller]
    pub fn silent(&self) -> Silence {
        assert!(self.bytes.is_empty() && self.persist.is_empty(), "{}", self.event);
        match self.event.decision {
            Decision::Silent { why } => why,
            _ => panic!("{}", self.event),
        }
    }

    #[track_caller]
    pub fn why(&self) -> vnet_dhcp::Choice {
        match &self.event.decision {
            Decision::Advertised { answers } | Decision::Leased { answers } => match answers[0] {
                Answer::Given { why, .. } => why,
                Answer::Refused { .. } => panic!("{}", self.event),
            },
            _ => panic!("{}", self.event),
        }
    }
}
