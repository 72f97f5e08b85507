//! The whole server of DHCPv4: frames, well-formed messages, time, crashes and changes of the
//! definition, in any order.
//!
//! What must hold: no panic; no address is given to two clients, nor two to one; a reply is no
//! longer than its client takes, and goes to nobody outside the network but the relay; what is
//! remembered is bounded by the number of addresses, and is the same after a crash.
#![no_main]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::Message;
use dhcproto::{Decodable, Decoder};
use libfuzzer_sys::fuzz_target;
use vnet_dhcp::frame::{self, Checksum, Received};
use vnet_dhcp::{ClientKey, Decision, Now, Record, Server, ServerConfig, journal};
use vnet_fuzz::{Input, SERVER_MAC, START, address, card, network};
use vnet_types::{AddrRange, MacAddr, Reservation};

/// Addresses that there are: those of the range, and the two that are reserved.
const ADDRESSES: usize = 13;
const MTU: usize = 1500;

struct World {
    server: Server,
    now: Now,
    journal: Vec<u8>,
    /// Who was told that an address is its own, and until when.
    promised: BTreeMap<Ipv4Addr, (ClientKey, u64)>,
    /// What the clients with numbers were offered last.
    offered: BTreeMap<MacAddr, Ipv4Addr>,
}

fn config(range: &str) -> ServerConfig {
    let config = ServerConfig::for_network(&network(), SERVER_MAC).unwrap();
    let reserved = |number, last, name: &str| Reservation {
        hostname: Some(name.parse().unwrap()),
        ..Reservation::new(card(number), address(last))
    };
    let reservations = vec![reserved(1, 105, "db"), reserved(2, 99, "web")];
    ServerConfig { range: range.parse::<AddrRange>().unwrap(), reservations, ..config }
}

impl World {
    fn new() -> Self {
        let config = config("192.168.122.100-192.168.122.111");
        Self {
            server: Server::new(config, []).unwrap(),
            now: Now { unix: START, uptime: Duration::from_secs(1000) },
            journal: Vec::new(),
            promised: BTreeMap::new(),
            offered: BTreeMap::new(),
        }
    }

    fn store(&mut self, records: &[Record]) {
        records.iter().for_each(|record| journal::encode(&mut self.journal, record));
    }

    fn hears(&mut self, received: &Received<'_>) {
        let mut frame = Vec::new();
        let outcome = self.server.handle(self.now, received, &mut frame);
        // Every event has its words.
        assert!(!outcome.event.to_string().is_empty());
        self.store(&outcome.persist);
        self.judge(&outcome.event.decision, &outcome.persist);
        if let Decision::Offered { ip, .. } = outcome.event.decision {
            self.offered.insert(outcome.event.mac, ip);
        }
        if !frame.is_empty() {
            judge_reply(received, &frame);
        }
        assert!(self.server.leases().len() <= ADDRESSES);
    }

    fn judge(&mut self, decision: &Decision, persist: &[Record]) {
        let now = self.now.unix;
        match *decision {
            Decision::Acked { ip, expires, .. } => {
                let stored = persist.iter().find_map(|record| match record {
                    Record::Put(lease) if lease.ip == ip => Some(lease),
                    _ => None,
                });
                let stored = stored.expect("an ACK without its record");
                assert!(stored.is_live(now) && stored.expires == expires);
                let reserved = self.server.config().reservations.iter().any(|r| r.ip == ip);
                if let Some((holder, until)) = self.promised.get(&ip) {
                    assert!(*holder == stored.client || *until <= now || reserved, "given twice");
                }
                self.promised.retain(|_, (holder, _)| *holder != stored.client);
                self.promised.insert(ip, (stored.client.clone(), expires));
            }
            Decision::Released { ip } | Decision::Declined { ip, .. } => {
                assert!(self.promised.remove(&ip).is_some(), "taken back from nobody");
            }
            _ => assert!(persist.is_empty(), "a lease has changed without a word"),
        }
    }

    fn crashes(&mut self) {
        let before: Vec<_> = self.server.leases().cloned().collect();
        let stored = journal::replay(&self.journal);
        assert_eq!((stored.good, stored.damaged), (self.journal.len(), 0));
        let config = self.server.config().clone();
        self.server = Server::new(config, stored.leases.into_values()).unwrap();
        assert!(self.server.leases().eq(&before));
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 8 {
            0..=2 => {
                let bytes = input.sized();
                if let Ok(received) = frame::parse(bytes, Checksum::Trust) {
                    self.hears(&received);
                }
            }
            3 | 4 => {
                let (bytes, to) = message(input);
                let src_mac = MacAddr(bytes[28..34].try_into().unwrap());
                let src_ip = Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[12..16]).unwrap());
                let dst_mac = MacAddr::BROADCAST;
                self.hears(&Received { src_mac, dst_mac, src_ip, dst_ip: to, payload: &bytes });
            }
            5 => {
                // Takes what it was offered last.
                let mac = card(input.byte() % 16);
                if let Some(ip) = self.offered.get(&mac).copied() {
                    let server = self.server.config().server;
                    let options = [[50, 4], [54, 4]].into_iter().zip([ip, server]);
                    let options = options.flat_map(|(o, ip)| [&o[..], &ip.octets()].concat());
                    let bytes = header(3, mac, [0; 4], options);
                    let to = Ipv4Addr::BROADCAST;
                    let (src_mac, dst_mac, src_ip) = (mac, MacAddr::BROADCAST, [0; 4].into());
                    self.hears(&Received { src_mac, dst_mac, src_ip, dst_ip: to, payload: &bytes });
                }
            }
            6 => {
                let seconds = u64::from(input.short());
                self.now.unix += seconds;
                self.now.uptime += Duration::from_secs(seconds);
            }
            _ => match input.byte() % 4 {
                0 | 1 => self.crashes(),
                2 => {
                    let last = 103 + input.byte() % 9;
                    let range = format!("192.168.122.100-192.168.122.{last}");
                    self.server.reconfigure(config(&range)).unwrap();
                }
                _ => {
                    let (bytes, _) = message(input);
                    let src_mac = MacAddr(bytes[28..34].try_into().unwrap());
                    let (src_ip, dst_ip) = ([0; 4].into(), [255; 4].into());
                    let dst_mac = MacAddr::BROADCAST;
                    let received = Received { src_mac, dst_mac, src_ip, dst_ip, payload: &bytes };
                    let ip = address(95 + input.byte() % 20);
                    let held = self.promised.get(&ip).is_some_and(|(_, end)| *end > self.now.unix);
                    let records = self.server.conflict(self.now, &received, ip);
                    assert!(records.is_empty() || !held, "a lease is lost to a probe");
                    self.store(&records);
                }
            },
        }
    }
}

/// A well-formed message of one of sixteen clients.
fn message(input: &mut Input<'_>) -> (Vec<u8>, Ipv4Addr) {
    let kind = input.byte() % 9;
    let mac = card(input.byte() % 16);
    let ciaddr = match input.byte() {
        0..=127 => [0; 4],
        last => address(90 + last % 25).octets(),
    };
    let to = if input.byte() & 1 == 0 { Ipv4Addr::BROADCAST } else { address(1) };
    let options = input.sized();
    (header(kind, mac, ciaddr, options.iter().copied()), to)
}

fn header(
    kind: u8,
    mac: MacAddr,
    ciaddr: [u8; 4],
    options: impl IntoIterator<Item = u8>,
) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[12..16].copy_from_slice(&ciaddr);
    bytes[28..34].copy_from_slice(&mac.octets());
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, kind]);
    bytes.extend(options);
    bytes.push(255);
    bytes
}

fn judge_reply(received: &Received<'_>, frame: &[u8]) {
    let request = received.payload;
    // Option 57 may allow more (RFC 2132 §9.10); without its code nothing does. What the relay
    // takes off again is not the client's (RFC 3046 §2.2).
    let most = if request.contains(&57) { MTU } else { 576 };
    let length = frame.len() - 14;
    let relayed = option_length(&frame[42 + 240..], 82).map_or(0, |length| length + 2);
    assert!(length <= MTU && length - relayed <= most, "a reply of {length} bytes");
    let payload = &frame[42..];
    let message = Message::decode(&mut Decoder::new(payload)).expect("a reply can be read");
    assert_eq!(&payload[4..8], &request[4..8], "the transaction comes back");
    assert_eq!(message.chaddr(), &request[28..34]);
    let to = Ipv4Addr::from(<[u8; 4]>::try_from(&frame[30..34]).unwrap());
    let relay = Ipv4Addr::from(<[u8; 4]>::try_from(&request[24..28]).unwrap());
    let inside = network().subnet.contains(to);
    assert!(to.is_broadcast() || inside || to == relay, "a reply to {to}");
}

fn option_length(mut rest: &[u8], wanted: u8) -> Option<usize> {
    while let [code, length, tail @ ..] = rest {
        match code {
            0 => rest = &rest[1..],
            255 => break,
            code if *code == wanted => return Some((*length).into()),
            _ => rest = &tail[usize::from(*length)..],
        }
    }
    None
}

fuzz_target!(|bytes: &[u8]| {
    let (mut world, mut input) = (World::new(), Input(bytes));
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
});
