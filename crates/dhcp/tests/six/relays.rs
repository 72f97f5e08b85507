//! Messages through relays (RFC 9915 §19).

use std::net::Ipv6Addr;

use vnet_dhcp::v6::{MessageError, Reservation, ReservedFor, SERVER_PORT, ServerConfig, Silence};

use super::client::{Net, Says, config, ip, mac, request, solicit};

/// What a relay makes of `inner`.
fn relayed(hops: u8, link: &str, peer: Ipv6Addr, extra: &[(u16, &[u8])], inner: &[u8]) -> Vec<u8> {
    let mut bytes = vec![12, hops];
    bytes.extend(ip(link).octets());
    bytes.extend(peer.octets());
    for (code, value) in extra.iter().chain([&(9, inner)]) {
        bytes.extend(code.to_be_bytes());
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(*value);
    }
    bytes
}

fn relay() -> Says {
    Says { src: ip("fd99::5"), dst: ip("fd00::1"), mac: Some(mac(0x99)), ..solicit(1) }
}

/// Takes one relay's wrapping off: header, interface, message.
fn unwrap(bytes: &[u8]) -> (&[u8], Option<&[u8]>, &[u8]) {
    assert_eq!(bytes[0], 13);
    let (header, mut rest) = bytes[1..].split_at(33);
    let (mut interface, mut message) = (None, None);
    while let [a, b, c, d, tail @ ..] = rest {
        let (value, next) = tail.split_at(usize::from(u16::from_be_bytes([*c, *d])));
        match u16::from_be_bytes([*a, *b]) {
            9 => message = Some(value),
            18 => interface = Some(value),
            other => panic!("option {other}"),
        }
        rest = next;
    }
    (header, interface, message.unwrap())
}

#[test]
fn an_answer_goes_back_the_way_that_the_message_came() {
    let mut net = Net::new();
    let says = solicit(1);
    let inner = relayed(0, "fd00::1", says.src, &[(18, b"port 7")], &says.bytes());
    let outer = relayed(1, "::", ip("fe80::77"), &[(18, b"trunk")], &inner);
    let heard = net.receives(&relay(), &outer);
    assert_eq!(heard.to, Some((ip("fd99::5"), SERVER_PORT)));
    let (header, interface, message) = unwrap(&heard.bytes);
    assert_eq!((header[0], interface), (1, Some(&b"trunk"[..])));
    let (header, interface, message) = unwrap(message);
    assert_eq!((header[0], interface), (0, Some(&b"port 7"[..])));
    assert_eq!(header[17..33], says.src.octets());
    assert_eq!(message[0], 2, "ADVERTISE");
}

#[test]
fn the_relay_next_to_the_client_names_the_link() {
    let mut net = Net::new();
    let bytes = relayed(0, "fd55::1", ip("fe80::1"), &[], &solicit(1).bytes());
    let why = net.receives(&relay(), &bytes).silent();
    assert_eq!(why, Silence::WrongLink { link: ip("fd55::1") });
    let outer = relayed(1, "fd55::1", ip("fe80::2"), &[], &{
        relayed(0, "fd00::1", ip("fe80::1"), &[], &solicit(1).bytes())
    });
    assert!(!net.receives(&relay(), &outer).bytes.is_empty());
}

#[test]
fn the_relay_knows_the_clients_card() {
    // RFC 6939
    let client = ReservedFor::Card(mac(0x42));
    let reservations = vec![Reservation { client, ip: ip("fd00::77"), hostname: None }];
    let mut net = Net::with(ServerConfig { reservations, ..config() });
    let card = [&[0, 1][..], &mac(0x42).octets()].concat();
    let inner = request(1, &[]).bytes();
    net.receives(&relay(), &relayed(0, "fd00::1", ip("fe80::1"), &[(79, &card)], &inner));
    assert_eq!(net.lease(ip("fd00::77")).unwrap().mac, Some(mac(0x42)));
}

#[test]
fn relays_without_end_are_refused() {
    let mut bytes = solicit(1).bytes();
    for hops in 0..9 {
        bytes = relayed(hops, "fd00::1", ip("fe80::1"), &[], &bytes);
    }
    let why = Net::new().receives(&relay(), &bytes).silent();
    assert_eq!(why, Silence::Malformed { error: MessageError::TooManyRelays });
    let empty = &relayed(0, "fd00::1", ip("fe80::1"), &[], &[])[..34];
    let why = Net::new().receives(&relay(), empty).silent();
    assert_eq!(why, Silence::Malformed { error: MessageError::Truncated });
}
