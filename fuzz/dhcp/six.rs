//! The whole server of DHCPv6, as `dhcp_server` does it for DHCPv4.
#![no_main]

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use dhcproto::v6::{Message, RelayMessage};
use dhcproto::{Decodable, Decoder};
use libfuzzer_sys::fuzz_target;
use vnet_dhcp::v6::{
    ALL_AGENTS, Duid, Lease, Received, Reservation, ReservedFor, Server, ServerConfig,
};
use vnet_dhcp::{Identity, Now, journal};
use vnet_fuzz::{Input, START, card, link_local};

/// Addresses of the range, and the two that are reserved.
const ADDRESSES: usize = 18;

struct World {
    server: Server,
    now: Now,
    journal: Vec<u8>,
    /// Who has an address, and until when.
    promised: BTreeMap<Ipv6Addr, (Vec<u8>, u64)>,
}

fn ip(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
}

fn config(identity: Identity) -> ServerConfig {
    let reserve = |client, last| Reservation { client, ip: ip(last), hostname: None };
    ServerConfig {
        duid: Duid::of_card(card(0xff)),
        address: ip(1),
        prefix: "fd00::/64".parse().unwrap(),
        range: Some(ip(0x100)..=ip(0x10f)),
        lease_seconds: 3600,
        reservations: vec![
            reserve(ReservedFor::Card(card(1)), 0x105),
            reserve(ReservedFor::Duid(Duid::of_card(card(2))), 0x200),
        ],
        names: Default::default(),
        dns_servers: vec![ip(1)],
        domain: Some("default.vnet".parse().unwrap()),
        search: vec!["default.vnet".parse().unwrap()],
        ntp_servers: vec![ip(1), ip(2)],
        refresh_seconds: Some(1800),
        max_retry_seconds: Some(3600),
        identity,
        rapid_commit: true,
    }
}

impl World {
    fn hears(&mut self, number: u8, dst_ip: Ipv6Addr, payload: &[u8]) {
        let src_mac = (number < 0x80).then(|| card(number % 16));
        let received = Received { src_mac, src_ip: link_local(number % 16), dst_ip, payload };
        let mut reply = Vec::new();
        let outcome = self.server.handle(self.now, &received, &mut reply);
        assert!(!outcome.event.to_string().is_empty());
        assert_eq!(outcome.to.is_some(), !reply.is_empty());
        outcome.persist.iter().for_each(|record| journal::encode(&mut self.journal, record));
        if let Some((to, port)) = outcome.to {
            assert_eq!(to, received.src_ip, "a reply goes to nobody else");
            assert!(reply.len() <= 1232.max(payload.len() + 1232), "{} bytes", reply.len());
            let mut decoder = Decoder::new(&reply);
            if port == 546 {
                Message::decode(&mut decoder).expect("a reply can be read");
            } else {
                RelayMessage::decode(&mut decoder).expect("a relayed reply can be read");
            }
        }
        self.judge();
    }

    fn judge(&mut self) {
        let now = self.now.unix;
        assert!(self.server.leases().len() <= ADDRESSES);
        let config = self.server.config();
        for lease in self.server.leases().filter(|lease| lease.is_live(now)) {
            let reserved = config.reservations.iter().any(|r| r.ip == lease.ip);
            if let Some((holder, until)) = self.promised.get(&lease.ip) {
                let same = holder.as_slice() == lease.duid.as_bytes();
                assert!(same || *until <= now || reserved, "{} is given twice", lease.ip);
            }
            assert!(config.prefix.contains(&lease.ip) && lease.ip != config.address);
            self.promised.insert(lease.ip, (lease.duid.as_bytes().to_vec(), lease.expires));
        }
        let live =
            |ip: &Ipv6Addr| self.server.leases().any(|lease| lease.ip == *ip && lease.is_live(now));
        self.promised.retain(|ip, _| live(ip));
    }

    fn crashes(&mut self) {
        let stored = journal::replay::<Lease>(&self.journal);
        assert_eq!((stored.good, stored.damaged), (self.journal.len(), 0));
        let before: Vec<_> = self.server.leases().cloned().collect();
        self.server = Server::new(self.server.config().clone(), stored.leases.into_values());
        assert!(self.server.leases().eq(&before));
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 8 {
            0 | 1 => {
                let (number, to) =
                    (input.byte(), if input.byte() & 1 == 0 { ALL_AGENTS } else { ip(1) });
                let payload = input.sized();
                self.hears(number, to, payload);
            }
            2..=5 => {
                let number = input.byte();
                let payload = message(input, number % 16);
                self.hears(number, ALL_AGENTS, &payload);
            }
            6 => {
                let seconds = u64::from(input.short());
                self.now.unix += seconds;
                self.now.uptime += Duration::from_secs(seconds);
            }
            _ => self.crashes(),
        }
    }
}

/// A well-formed message with associations and whatever options there are.
fn message(input: &mut Input<'_>, number: u8) -> Vec<u8> {
    let kind = 1 + input.byte() % 11;
    let mut bytes = vec![kind, 0, 0, number];
    let mut option = |code: u16, value: &[u8]| {
        bytes.extend(code.to_be_bytes());
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(value);
    };
    option(1, Duid::of_card(card(number)).as_bytes());
    let flags = input.byte();
    if flags & 1 != 0 {
        option(2, Duid::of_card(card(0xff)).as_bytes());
    }
    for _ in 0..flags >> 1 & 3 {
        let mut value = vec![0, 0, 0, input.byte() & 3, 0, 0, 0, 0, 0, 0, 0, 0];
        for _ in 0..input.byte() & 3 {
            value.extend([0, 5, 0, 24]);
            value.extend(ip(0x100 + u16::from(input.byte() & 31)).octets());
            value.extend([0; 8]);
        }
        option(3, &value);
    }
    if flags & 8 != 0 {
        option(14, &[]);
    }
    bytes.extend(input.sized());
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let identity = if input.byte() & 1 == 0 { Identity::ClientId } else { Identity::Hardware };
    let mut world = World {
        server: Server::new(config(identity), []),
        now: Now { unix: START, uptime: Duration::from_secs(1000) },
        journal: Vec::new(),
        promised: BTreeMap::new(),
    };
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
});
