//! What replies say, and where they go (RFC 2131 §4.1, §4.3; RFC 2132).

mod common;

use std::net::Ipv4Addr;

use common::*;
use dhcproto::v4::MessageType;
use vnet_dhcp::{Boot, Route, ServerConfig, Silence};
use vnet_types::{MacAddr, Mode};

const RELAY: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 250);

fn relay_mac() -> MacAddr {
    mac(250)
}

#[test]
fn a_client_without_an_address_is_reached_by_its_card() {
    let mut net = Net::new();
    let answer = net.hears(&discover(1));
    let reply = answer.reply();
    assert_eq!((reply.to.mac, reply.to.ip, reply.to.port), (mac(1), answer.offered(), 68));
    assert_eq!((reply.from.mac, reply.from.ip, reply.from.port), (server_mac(), SERVER, 67));
    assert!(!reply.message.flags().broadcast());
}

#[test]
fn a_client_that_needs_broadcasts_gets_them() {
    let mut net = Net::new();
    let answer = net.hears(&Says { broadcast: true, ..discover(1) });
    let reply = answer.reply();
    assert_eq!((reply.to.mac, reply.to.ip), (MacAddr::BROADCAST, Ipv4Addr::BROADCAST));
    assert!(reply.message.flags().broadcast());
}

#[test]
fn nothing_is_sent_to_an_address_outside_the_network_for_the_asking() {
    let mut net = Net::new();
    for ciaddr in [Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(0, 0, 0, 24), SERVER] {
        let answer = net.hears(&Says { ciaddr, ..discover(1) });
        assert_eq!(answer.reply().to.ip, answer.offered());
        assert_eq!(answer.reply().to.mac, mac(1));
    }
}

#[test]
fn a_renewing_client_is_reached_at_its_address() {
    let mut net = Net::new();
    let address = net.dora(&discover(1));
    let answer = net.hears(&Says { broadcast: true, ..renew(1, address) });
    let reply = answer.reply();
    assert_eq!((reply.to.mac, reply.to.ip, reply.to.port), (mac(1), address, 68));
    assert_eq!((reply.message.ciaddr(), reply.message.yiaddr()), (address, address));
}

#[test]
fn a_refusal_is_broadcast_and_says_nothing_but_why() {
    let mut net = Net::new();
    let taken = net.dora(&discover(1));
    let answer = net.hears(&renew(2, taken).id(b"two").wants(&[1, 3, 51]));
    answer.refused();
    let reply = answer.reply();
    assert_eq!((reply.to.mac, reply.to.ip), (MacAddr::BROADCAST, Ipv4Addr::BROADCAST));
    assert_eq!((reply.message.ciaddr(), reply.message.yiaddr()), (ANY, ANY));
    assert_eq!(reply.codes(), [53, 54, 56, 61]);
    assert_eq!(reply.bytes(56).unwrap(), b"another client has the address");
}

#[test]
fn a_relayed_client_is_reached_through_its_relay() {
    let mut net = Net::new();
    let info = [1, 4, b'p', b'o', b'r', b't', 2, 1, 9];
    let answer = net.hears(&discover(1).relayed(RELAY, relay_mac()).option(82, &info));
    answer.offered();
    let reply = answer.reply();
    assert_eq!((reply.to.mac, reply.to.ip, reply.to.port), (relay_mac(), RELAY, 67));
    assert_eq!(reply.message.giaddr(), RELAY);
    // RFC 3046 §2.2: given back as it was, and last.
    assert_eq!(reply.codes().last(), Some(&82));
    assert_eq!(reply.bytes(82).unwrap(), info);
}

#[test]
fn a_relayed_refusal_has_the_relay_broadcast_it() {
    let mut net = Net::new();
    let elsewhere = Ipv4Addr::new(10, 0, 0, 9);
    let answer = net.hears(&reboot(1, elsewhere).relayed(RELAY, relay_mac()));
    answer.refused();
    assert_eq!((answer.reply().to.ip, answer.reply().to.port), (RELAY, 67));
    assert!(answer.reply().message.flags().broadcast());
}

#[test]
fn a_relay_of_another_network_hears_nothing_unless_it_selects_this_one() {
    let mut net = Net::new();
    let far = Ipv4Addr::new(10, 9, 9, 9);
    let discover = discover(1).relayed(far, relay_mac());
    assert_eq!(net.hears(&discover).silent(), Silence::WrongLink { link: far });
    let answer = net.hears(&discover.option(82, &[5, 4, 192, 168, 122, 0]));
    answer.offered();
    assert_eq!((answer.reply().to.mac, answer.reply().to.ip), (relay_mac(), far));
}

#[test]
fn the_client_identifier_is_given_back() {
    let mut net = Net::new();
    let id = [vec![0xff], vec![7; 254]].concat();
    let answer = net.hears(&discover(1).id(&id));
    assert_eq!(answer.reply().bytes(61).unwrap(), id);
}

#[test]
fn options_come_in_the_order_in_which_they_are_asked_for() {
    let mut net = Net::new();
    let codes = |net: &mut Net, wants: &[u8]| net.hears(&discover(1).wants(wants)).reply().codes();
    let lease = [53, 54, 51, 58, 59];
    let expected = |rest: &[u8]| [&lease[..], rest].concat();
    assert_eq!(codes(&mut net, &[15, 6, 1, 3, 28]), expected(&[15, 6, 1, 3, 28]));
    // RFC 2132 §3.3: the mask before the routers.
    assert_eq!(codes(&mut net, &[6, 3, 1]), expected(&[6, 1, 3]));
    // Unknown, repeated, and those that come anyway.
    assert_eq!(codes(&mut net, &[1, 222, 6, 6, 51, 54, 53, 0, 255]), expected(&[1, 6]));
    assert_eq!(codes(&mut net, &[26, 119]), expected(&[1, 26, 119]));
}

#[test]
fn a_nat_network_gives_what_guests_need() {
    let mut net = Net::new();
    let answer = net.hears(&discover(1).named("web").wants(&[1, 3, 6, 12, 15, 26, 28, 119]));
    let bytes = |code| answer.reply().bytes(code).unwrap();
    assert_eq!(bytes(1), [255, 255, 255, 0]);
    assert_eq!(bytes(3), SERVER.octets());
    assert_eq!(bytes(6), SERVER.octets());
    assert_eq!(bytes(12), b"web");
    assert_eq!(bytes(15), b"default.vnet");
    assert_eq!(bytes(26), 1500u16.to_be_bytes());
    assert_eq!(bytes(28), ip(255).octets());
    assert_eq!(bytes(119), b"\x07default\x04vnet\0");
    assert_eq!(bytes(51), LEASE.to_be_bytes());
    assert_eq!(bytes(54), SERVER.octets());
    assert_eq!(bytes(58), 1800u32.to_be_bytes());
    assert_eq!(bytes(59), 3150u32.to_be_bytes());
}

#[test]
fn a_host_only_network_has_no_router() {
    let config = ServerConfig::for_network(&definition(Mode::Hostonly), server_mac()).unwrap();
    let mut net = Net::with(config);
    let codes = net.hears(&discover(1).wants(&[1, 3, 6])).reply().codes();
    assert_eq!(codes, [53, 54, 51, 58, 59, 1, 6]);
    assert!(ServerConfig::for_network(&definition(Mode::Routed), server_mac()).is_some());
    let mut without = definition(Mode::Nat);
    without.dhcp = None;
    assert_eq!(ServerConfig::for_network(&without, server_mac()), None);
}

#[test]
fn routes_time_servers_boot_files_and_ipv6_only_are_given_where_configured() {
    let mut net = Net::with(ServerConfig {
        routes: vec![Route { destination: "10.7.0.0/16".parse().unwrap(), router: ip(3) }],
        ntp_servers: vec![ip(4)],
        boot: Some(Boot {
            server: ip(5),
            files: [(vnet_types::Firmware::Default, "pxe.0".to_owned())].into(),
        }),
        ipv6_only_seconds: Some(1800),
        ..config()
    });
    let answer = net.hears(&discover(1).wants(&[121, 3, 42, 66, 67, 150, 108]));
    let bytes = |code| answer.reply().bytes(code).unwrap();
    // RFC 3442: the default route is among them.
    assert_eq!(bytes(121), [&[16, 10, 7][..], &ip(3).octets(), &[0], &SERVER.octets()].concat());
    assert_eq!(bytes(42), ip(4).octets());
    assert_eq!(bytes(66), b"192.168.122.5");
    assert_eq!(bytes(67), b"pxe.0");
    assert_eq!(bytes(150), ip(5).octets());
    assert_eq!(bytes(108), 1800u32.to_be_bytes());
    assert_eq!(answer.reply().message.siaddr(), ip(5));
    assert!(answer.reply().message.fname().unwrap().starts_with(b"pxe.0"));
    // RFC 8925 §3.3: not unless asked.
    let codes = net.hears(&discover(2)).reply().codes();
    assert!(!codes.contains(&108) && !codes.contains(&121));
}

#[test]
fn a_qualified_name_is_answered_in_kind() {
    let mut net = Net::new();
    // S and E, wire format.
    let answer = net.hears(&discover(1).option(81, b"\x05\0\0\x03web\x07example\0"));
    assert_eq!(answer.reply().bytes(81).unwrap(), b"\x05\xff\xff\x03web\x07default\x04vnet\0");
    // The client would update: overridden. ASCII.
    let answer = net.hears(&discover(2).option(81, b"\0\0\0db"));
    assert_eq!(answer.reply().bytes(81).unwrap(), b"\x03\xff\xffdb.default.vnet");
    // Nobody is to update.
    let answer = net.hears(&discover(3).option(81, b"\x08\0\0app"));
    assert_eq!(answer.reply().bytes(81).unwrap(), b"\x08\xff\xffapp.default.vnet");
}

#[test]
fn a_reply_is_no_longer_than_the_client_and_the_network_take() {
    let long: Vec<_> = (0..100).map(|n| Ipv4Addr::from(0x0a00_0000 + n)).collect();
    let mut net = Net::with(ServerConfig { ntp_servers: long.clone(), ..config() });
    let size = |net: &mut Net, most: u16, wants: &[u8]| {
        let answer = net.hears(&discover(1).option(57, &most.to_be_bytes()).wants(wants));
        (answer.reply().payload.len() + 28, answer.reply().codes())
    };
    let (bytes, codes) = size(&mut net, 1500, &[1, 42, 6]);
    assert!(bytes > 576 && codes.contains(&42) && codes.contains(&6), "{bytes}, {codes:?}");
    // 100 addresses no longer fit, what comes after them does.
    for most in [0, 300, 576] {
        let (bytes, codes) = size(&mut net, most, &[1, 42, 6]);
        assert!(bytes <= 576 && !codes.contains(&42) && codes.contains(&6), "{bytes}, {codes:?}");
    }
    let mut net = Net::with(ServerConfig { ntp_servers: long, mtu: 576, ..config() });
    assert!(size(&mut net, u16::MAX, &[1, 42, 6]).0 <= 576);
}

#[test]
fn the_longest_things_that_must_be_given_back_fit() {
    let mut net = Net::new();
    let info = [vec![1, 253], vec![7; 253]].concat();
    let all: Vec<u8> = (1..=254).collect();
    let answer = net.hears(
        &discover(1)
            .relayed(RELAY, relay_mac())
            .id(&[9; 255])
            .option(82, &info)
            .wants(&all)
            .named(&"n".repeat(63)),
    );
    let reply = answer.reply();
    assert_eq!(reply.bytes(82).unwrap(), info);
    assert_eq!(reply.bytes(61).unwrap(), [9; 255]);
    // RFC 3046 §2.2: the relay takes its option off again, and the client gets what it takes.
    assert!(reply.payload.len() + 28 - (info.len() + 2) <= 576, "{}", reply.payload.len());
    assert!(reply.bytes(1).is_some(), "the options that are asked for have their room");
    assert_eq!(reply.message.opts().msg_type(), Some(MessageType::Offer));
}

#[test]
fn what_identifies_the_transaction_is_given_back() {
    let mut net = Net::new();
    let answer = net.hears(&Says { xid: 0xdead_beef, ..discover(1) });
    let reply = &answer.reply().message;
    assert_eq!((reply.xid(), reply.chaddr(), reply.hlen()), (0xdead_beef, &mac(1).octets()[..], 6));
    assert_eq!((reply.hops(), reply.secs()), (0, 0));
    assert_eq!((answer.event.xid, answer.event.mac), (0xdead_beef, mac(1)));
    assert_eq!(reply.opcode(), dhcproto::v4::Opcode::BootReply);
}
