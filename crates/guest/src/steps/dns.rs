//! Looking up a name (RFC 1035), over UDP.
//!
//! smoltcp's own resolver reports only that a query failed, so the messages are made here: that a
//! name doesn't exist is another finding than a server that is silent.

use smoltcp::socket::udp;
use smoltcp::wire::{
    DnsFlags, DnsOpcode, DnsPacket, DnsQueryType, DnsQuestion, DnsRcode, DnsRecord, DnsRecordData,
    DnsRepr, IpAddress, IpEndpoint, Ipv4Address,
};

use crate::network::{Lease, Network};
use crate::observe::Unreachable;
use crate::steps::{Reason, reason};
use crate::time::Micros;

const PORT: u16 = 53;

/// Between two queries, in milliseconds; then the next server is asked.
const RETRY_MS: u64 = 1000;

/// RFC 1035 §2.3.4: of a name on the wire, and of a message over UDP.
const NAME: usize = 255;
const MESSAGE: usize = 512;
const LABEL: usize = 63;

/// Records of an answer that are looked at.
const RECORDS: u16 = 64;

/// A name on the wire.
struct WireName {
    bytes: [u8; NAME],
    length: usize,
}

impl WireName {
    fn new(name: &str) -> Option<Self> {
        let mut wire = Self { bytes: [0; NAME], length: 0 };
        let name = name.strip_suffix('.').unwrap_or(name);
        for label in name.split('.') {
            // One byte stays for the root.
            if !(1..=LABEL).contains(&label.len()) || wire.length + label.len() + 2 > NAME {
                return None;
            }
            wire.bytes[wire.length] = label.len() as u8;
            let start = wire.length + 1;
            wire.bytes[start..start + label.len()].copy_from_slice(label.as_bytes());
            wire.length = start + label.len();
        }
        wire.length += 1;
        Some(wire)
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// What an answer says.
enum Answer {
    None,
    Address(Ipv4Address),
    NoAddress,
    Error(DnsRcode),
}

/// Looks up the IPv4 address of `name` at the lease's name servers.
pub(crate) fn run(
    network: &mut Network<'_>,
    lease: &Lease,
    name: &str,
    deadline: Micros,
) -> Result<Ipv4Address, Reason> {
    let servers = lease.dns;
    let count = servers.iter().flatten().count();
    if count == 0 {
        return Err(reason!("DHCP gave no DNS server"));
    }
    let Some(wire) = WireName::new(name) else {
        return Err(reason!("{name} is not a DNS name"));
    };
    let (id, port) = {
        let seed = crate::entropy::next();
        (seed as u16, 49152 | (seed >> 16) as u16 & 0x3fff)
    };
    let handle = network.handles.udp;
    let socket = network.sockets.get_mut::<udp::Socket<'_>>(handle);
    socket.close();
    if socket.bind(port).is_err() {
        return Err(reason!("the DNS socket cannot be bound"));
    }
    network.nic.observed.unreachable = None;
    let mut asked = 0;
    let mut next = network.now();
    let answer = network.until(deadline, |network| {
        let now = network.now();
        let socket = network.sockets.get_mut::<udp::Socket<'_>>(handle);
        while let Ok((bytes, meta)) = socket.recv() {
            let from_server = servers
                .iter()
                .flatten()
                .any(|&server| meta.endpoint == IpEndpoint::new(IpAddress::Ipv4(server), PORT));
            if let (true, Some(answer)) = (from_server, read(bytes, id, &wire)) {
                return Some(answer);
            }
        }
        if now >= next
            && let Some(server) = servers.iter().flatten().nth(asked % count)
        {
            ask(socket, id, &wire, *server);
            asked += 1;
            next = now.plus_ms(RETRY_MS);
        }
        // With another server, that this one cannot be reached is no answer yet.
        (count == 1 && unreachable(network, lease).is_some()).then_some(Answer::None)
    });
    match answer {
        Some(Answer::Address(address)) => Ok(address),
        Some(Answer::NoAddress) => Err(reason!("{name} has no IPv4 address")),
        Some(Answer::Error(DnsRcode::NXDomain)) => Err(reason!("NXDOMAIN: {name} does not exist")),
        Some(Answer::Error(DnsRcode::ServFail)) => {
            Err(reason!("SERVFAIL: the server could not resolve {name}"))
        }
        Some(Answer::Error(DnsRcode::Refused)) => {
            Err(reason!("REFUSED: the server does not serve us"))
        }
        Some(Answer::Error(code)) => {
            Err(reason!("the server answered with the code {}", u8::from(code)))
        }
        Some(Answer::None) | None => Err(silence(network, lease, asked)),
    }
}

fn silence(network: &Network<'_>, lease: &Lease, asked: usize) -> Reason {
    match (unreachable(network, lease), lease.dns.iter().flatten().next()) {
        (Some(error), _) => {
            reason!("{} says of the server {}: {}", error.from, error.to, error.meaning())
        }
        (None, Some(server)) => reason!("no answer to {asked} queries to {server}"),
        (None, None) => reason!("DHCP gave no DNS server"),
    }
}

/// What ICMP said of one of the servers.
fn unreachable(network: &Network<'_>, lease: &Lease) -> Option<Unreachable> {
    network.nic.observed.unreachable.filter(|error| lease.dns.contains(&Some(error.to)))
}

fn ask(socket: &mut udp::Socket<'_>, id: u16, name: &WireName, server: Ipv4Address) {
    let query = DnsRepr {
        transaction_id: id,
        opcode: DnsOpcode::Query,
        flags: DnsFlags::RECURSION_DESIRED,
        question: DnsQuestion { name: name.as_bytes(), type_: DnsQueryType::A },
    };
    let mut message = [0; MESSAGE];
    let message = &mut message[..query.buffer_len()];
    query.emit(&mut DnsPacket::new_unchecked(&mut *message));
    // A full buffer is a query that was lost: the next one follows.
    let _ = socket.send_slice(message, IpEndpoint::new(IpAddress::Ipv4(server), PORT));
}

/// Reads a message; `None` if it doesn't answer our query.
fn read(message: &[u8], id: u16, name: &WireName) -> Option<Answer> {
    let packet = DnsPacket::new_checked(message).ok()?;
    if packet.transaction_id() != id
        || !packet.flags().contains(DnsFlags::RESPONSE)
        || packet.question_count() != 1
    {
        return None;
    }
    let (mut rest, question) = DnsQuestion::parse(packet.payload()).ok()?;
    // RFC 4343 §3: case does not matter.
    if question.type_ != DnsQueryType::A || !question.name.eq_ignore_ascii_case(name.as_bytes()) {
        return None;
    }
    if packet.rcode() != DnsRcode::NoError {
        return Some(Answer::Error(packet.rcode()));
    }
    for _ in 0..packet.answer_record_count().min(RECORDS) {
        let (after, record) = DnsRecord::parse(rest).ok()?;
        // Behind aliases, the address is a record of the same answer (RFC 1034 §3.6.2).
        if let DnsRecordData::A(address) = record.data {
            return Some(Answer::Address(address));
        }
        rest = after;
    }
    Some(Answer::NoAddress)
}
