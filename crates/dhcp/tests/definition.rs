//! What a definition says beyond addresses: options, boot files, exclusions, identifiers.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{Net, config, definition, discover, ip, mac, reservation, server_mac};
use vnet_dhcp::{Choice, LeaseState, Silence};
use vnet_dhcp::{ServerConfig, frame};
use vnet_types::{Boot, DhcpOptions, Firmware, Mode, Reservation};

fn options(json: &str) -> DhcpOptions {
    serde_json::from_str(json).unwrap()
}

fn booting() -> ServerConfig {
    let mut network = definition(Mode::Nat);
    let files = [
        (Firmware::Default, "any.0"),
        (Firmware::Bios, "bios.0"),
        (Firmware::Efi64, "x64.efi"),
        (Firmware::HttpEfi64, "http://192.168.122.1/x64.efi"),
        (Firmware::Ipxe, "http://192.168.122.1/boot.ipxe"),
    ];
    let files = files.map(|(firmware, file)| (firmware, file.to_owned())).into();
    network.dhcp.as_mut().unwrap().boot = Some(Boot { server: None, files });
    ServerConfig::for_network(&network, server_mac()).unwrap()
}

#[test]
fn options_of_the_network_are_given_to_those_who_ask() {
    let text = r#"{"ntp-servers":["192.168.122.1"],"43":"hex:0104c0a87a01","routers":[],"dns-servers":["9.9.9.9"]}"#;
    let mut net = Net::with(ServerConfig { options: options(text), ..config() });
    let answer = net.hears(&discover(1).wants(&[3, 6, 42, 43]));
    let reply = answer.reply();
    assert_eq!(reply.bytes(42), Some(vec![192, 168, 122, 1]));
    assert_eq!(reply.bytes(43), Some(vec![1, 4, 192, 168, 122, 1]));
    assert_eq!(reply.bytes(6), Some(vec![9, 9, 9, 9]), "in place of what follows from the network");
    assert_eq!(reply.bytes(3), None, "an empty list is not sent");
    assert_eq!(net.hears(&discover(2).wants(&[3])).reply().bytes(42), None, "nobody asked");
}

#[test]
fn options_of_a_reservation_are_that_guests_alone() {
    let text = r#"{"ntp-servers":["192.168.122.7"],"routers":["192.168.122.9"],"6":"hex:"}"#;
    let own = Reservation { options: options(text), ..reservation(1, 50, None) };
    let all = options(r#"{"ntp-servers":["192.168.122.1"]}"#);
    let mut net = Net::with(ServerConfig { options: all, reservations: vec![own], ..config() });
    let mut ntp = |number, code| {
        net.hears(&discover(number).wants(&[42, 3, 6])).reply().bytes(code).unwrap_or_default()
    };
    assert_eq!(ntp(1, 42), [192, 168, 122, 7]);
    assert_eq!(ntp(2, 42), [192, 168, 122, 1]);
    assert_eq!(ntp(1, 3), [192, 168, 122, 9]);
    assert_eq!(ntp(1, 6), [] as [u8; 0]);
    assert_eq!(ntp(2, 6), [192, 168, 122, 1]);
}

#[test]
fn a_definition_says_when_leases_are_renewed() {
    // RFC 2131 §4.4.5: T1 before T2, T2 before the end.
    let times = |text: &str, own: &str| {
        let own = Reservation { options: options(own), ..reservation(1, 50, None) };
        let reservations = vec![own];
        let mut net = Net::with(ServerConfig { options: options(text), reservations, ..config() });
        let answer = net.hears(&discover(1));
        let seconds =
            |code| u32::from_be_bytes(answer.reply().bytes(code).unwrap().try_into().unwrap());
        let codes = answer.reply().codes();
        assert_eq!(codes.iter().filter(|code| [58, 59].contains(*code)).count(), 2, "each once");
        (seconds(58), seconds(59))
    };
    assert_eq!(times("{}", "{}"), (1800, 3150));
    assert_eq!(times(r#"{"renewal-time":60,"rebinding-time":600}"#, "{}"), (60, 600));
    assert_eq!(times(r#"{"renewal-time":60}"#, r#"{"58":"u32:90"}"#), (90, 3150), "its own first");
    assert_eq!(times(r#"{"rebinding-time":600}"#, "{}"), (300, 600));
    assert_eq!(times(r#"{"renewal-time":9000,"rebinding-time":9999}"#, "{}"), (1575, 3150));
}

#[test]
fn long_options_are_split_and_routes_keep_the_default_one() {
    // RFC 3396 §5, RFC 3442
    let long = format!(r#"{{"43":"hex:{}","121":"hex:080ac0a87a05"}}"#, "ab".repeat(300));
    let mut net = Net::with(ServerConfig { options: options(&long), ..config() });
    let answer = net.hears(&discover(1).wants(&[121, 43]).option(57, &1400_u16.to_be_bytes()));
    let reply = answer.reply();
    assert_eq!(reply.bytes(43), Some(vec![0xab; 300]));
    assert_eq!(reply.codes().iter().filter(|code| **code == 43).count(), 2);
    let routes = [8, 10, 192, 168, 122, 5, 0, 192, 168, 122, 1];
    assert_eq!(reply.bytes(121), Some(routes.to_vec()));
}

#[test]
fn each_kind_of_firmware_gets_its_own_file() {
    // RFC 4578 §2.1
    let mut net = Net::with(booting());
    let pxe = |number, kind: u16| {
        discover(number)
            .wants(&[66, 67, 150])
            .option(60, b"PXEClient:Arch:00000:UNDI:002001")
            .option(93, &kind.to_be_bytes())
    };
    for (number, kind, file) in [
        (1, 0, "bios.0"),
        (2, 7, "x64.efi"),
        (3, 9, "x64.efi"),
        (4, 11, "any.0"),
        (5, 999, "any.0"),
    ] {
        let answer = net.hears(&pxe(number, kind));
        let reply = answer.reply();
        assert_eq!(reply.bytes(67), Some(file.as_bytes().to_vec()), "{kind}");
        assert_eq!(reply.bytes(66), Some(b"192.168.122.1".to_vec()));
        assert_eq!(reply.bytes(150), Some(vec![192, 168, 122, 1]));
        assert_eq!(reply.message.siaddr(), ip(1));
        assert!(reply.payload[108..].starts_with(file.as_bytes()));
    }
    let chained = net.hears(&pxe(6, 0).option(77, b"iPXE"));
    assert_eq!(chained.reply().bytes(67), Some(b"http://192.168.122.1/boot.ipxe".to_vec()));
}

#[test]
fn firmware_that_boots_over_http_gets_its_url() {
    let mut net = Net::with(booting());
    let http = |kind: u16| {
        discover(1).option(60, b"HTTPClient:Arch:00016").option(93, &kind.to_be_bytes())
    };
    let answer = net.hears(&http(16));
    let reply = answer.reply();
    assert_eq!(reply.bytes(60), Some(b"HTTPClient".to_vec()));
    assert_eq!(reply.bytes(67), Some(b"http://192.168.122.1/x64.efi".to_vec()));
    assert!(reply.message.siaddr().is_unspecified() && reply.message.fname().is_none());
    // For one without a URL there is nothing, least of all a TFTP path.
    let answer = net.hears(&http(19));
    assert_eq!((answer.reply().bytes(60), answer.reply().bytes(67)), (None, None));
}

#[test]
fn excluded_addresses_are_nobodys() {
    let excluded = vec!["192.168.122.3-192.168.122.9".parse().unwrap()];
    let range = "192.168.122.2-192.168.122.10".parse().unwrap();
    let mut net = Net::with(ServerConfig { excluded, range, ..config() });
    let got = [1, 2].map(|number| net.dora(&discover(number)));
    assert_eq!(
        got.iter().collect::<std::collections::BTreeSet<_>>(),
        [ip(2), ip(10)].iter().collect()
    );
    let asked = net.hears(&discover(3).option(50, &ip(5).octets()));
    assert_eq!(asked.silent(), Silence::Exhausted);
}

#[test]
fn a_reservation_by_identifier_holds_on_any_card() {
    let mut by_id = Reservation::new(mac(1), ip(50));
    (by_id.mac, by_id.client_id) = (None, Some("ff0102".parse().unwrap()));
    let mut net = Net::with(ServerConfig { reservations: vec![by_id], ..config() });
    let answer = net.hears(&discover(7).id(&[0xff, 1, 2]));
    assert_eq!((answer.offered(), answer.why()), (ip(50), Choice::Reserved));
    // The identifier is another client's without it, and the address nobody else's.
    let other = net.hears(&discover(8).option(50, &ip(50).octets()));
    assert_ne!(other.offered(), ip(50));
}

#[test]
fn an_address_that_somebody_answers_for_is_nobodys_for_a_while() {
    // RFC 2131 §2.2
    let mut net = Net::with_range("192.168.122.2-192.168.122.3");
    let says = discover(1);
    let first = net.hears(&says).offered();
    let bytes = says.frame();
    let received = frame::parse(&bytes, frame::Checksum::Verify).unwrap();
    let records = net.server.conflict(net.now, &received, first);
    assert_eq!(records.len(), 1);
    assert_eq!(net.lease(first).unwrap().state, LeaseState::Declined);
    let second = net.hears(&says).offered();
    assert_ne!(second, first);
    net.pass(600);
    net.dora(&says);
    // What a client has is not taken from it because it answers itself.
    let own = net.server.leases().find(|l| l.is_live(net.now.unix)).unwrap().ip;
    assert_eq!(net.server.conflict(net.now, &received, own), []);
    assert!(net.lease(own).unwrap().is_live(net.now.unix));
}
