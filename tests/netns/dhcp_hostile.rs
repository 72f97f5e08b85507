//! Guests that flood the DHCP server, or speak in others' names: the others are served.

use std::net::Ipv4Addr;

use vnet_testkit::frames::{DhcpMessage, Udp};
use vnet_testkit::{FakeGuest, Netd, Udhcpc, random_mac};
use vnet_types::MacAddr;

use vnet_tests::Host;
use vnet_tests::port_guest::PortGuest;
use vnet_tests::timeline::{assert_heard, heard};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 1);
/// kB that netd may need more after any flood: offers and histories are bounded.
const MOST_KB: u64 = 48 << 10;

fn define(host: &Host, guarded: bool, range: &str) {
    let text = format!(
        r#"name = "default"
mode = "nat"
bridge = "virbr0"
subnet = "10.4.0.0/16"
domain = "default.vnet"
anti_spoofing = {guarded}

[dhcp]
range = "{range}"
probe = false
"#
    );
    host.define("default", &text);
}

/// The kB of memory that netd has.
fn resident(netd: &Netd) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", netd.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn card(number: u32) -> MacAddr {
    let [_, a, b, c] = number.to_be_bytes();
    MacAddr([0x52, 0x54, 0x77, a, b, c])
}

/// The message from `from`, as one who has `ip` sends it to the server.
fn unicast(message: &DhcpMessage, from: MacAddr, ip: Ipv4Addr) -> Vec<u8> {
    let datagram =
        Udp { from: ip, from_port: 68, to: SERVER, to_port: 67, payload: message.bytes() };
    datagram.frame(MacAddr::BROADCAST, from)
}

#[test]
fn a_flood_of_made_up_cards_keeps_nobody_from_its_address() {
    let host = Host::new();
    define(&host, false, "10.4.1.0-10.4.250.255");
    let netd = host.netd();
    let (old, new, flooder) =
        (host.lan.guest_on("virbr0"), host.lan.guest_on("virbr0"), host.lan.guest_on("virbr0"));
    let mut client = Udhcpc::on(&old.ns, "eth0").start().unwrap();
    let before = resident(&netd);
    flooder.ns.up("eth0");
    let wire = FakeGuest::on(&flooder.ns, "eth0");
    let mut fresh = None;
    for number in 0..30_000 {
        let mac = card(number);
        wire.send(&DhcpMessage::discover(number, mac).client_frame(mac));
        if number == 15_000 {
            // In the midst of it.
            fresh = Some(Udhcpc::obtain(&new.ns, "eth0").address);
        }
    }
    let had = client.lease().address;
    assert_eq!(client.renew().unwrap().address, had);
    assert_ne!(fresh, Some(had));
    assert_eq!(host.leases().len(), 2, "an offer is no lease");
    let more = resident(&netd).saturating_sub(before);
    assert!(more < MOST_KB, "{more} kB more");
    // What was heard of those with leases is still known.
    assert!(heard(&host, old.mac, "DISCOVER", "OFFER", "nobody has had it yet"));
}

#[test]
fn a_guarded_port_floods_in_its_own_name_only() {
    let host = Host::new();
    define(&host, true, "10.4.1.1-10.4.1.3");
    let _netd = host.netd();
    let (flooder, other) = (random_mac(), random_mac());
    let guest = PortGuest::attach(&host, "default", "flooder", flooder);
    for number in 0..2_000 {
        // Another card's message, from its own card and from the other one.
        let message = DhcpMessage::discover(number, card(number));
        guest.send(&message.client_frame(flooder));
        guest.send(&message.client_frame(card(number)));
    }
    guest.lease(SERVER);
    // Not one of the three addresses was offered to a card that was made up.
    let victim = PortGuest::attach(&host, "default", "other", other);
    victim.lease(SERVER);
    assert_eq!(host.leases().len(), 2);
    assert_heard(&host, flooder, "-", "-", "about another network card");
}

#[test]
fn nobody_takes_a_lease_by_anothers_client_identifier() {
    let host = Host::new();
    define(&host, true, "10.4.1.1-10.4.1.9");
    let _netd = host.netd();
    let (mac, thief) = (random_mac(), random_mac());
    let id = [0xff, 1, 2, 3, 4];
    let victim = PortGuest::attach(&host, "default", "victim", mac);
    let offer = victim.dhcp(&DhcpMessage::discover(1, mac).with(61, &id), 2);
    let request = DhcpMessage::request(2, mac, offer.yiaddr, SERVER).with(61, &id);
    let ip = victim.dhcp(&request, 5).yiaddr;
    let guest = PortGuest::attach(&host, "default", "thief", thief);
    let own = guest.dhcp(&DhcpMessage::discover(3, thief).with(61, &id), 2).yiaddr;
    assert_ne!(own, ip);
    let steal = DhcpMessage::request(4, thief, ip, SERVER).with(61, &id);
    guest.dhcp(&steal, 6);
    let (own, ciaddr) = (guest.lease(SERVER), ip);
    let release = DhcpMessage::from_client(7, 5, thief).with(61, &id).with(54, &SERVER.octets());
    guest.send(&unicast(&DhcpMessage { ciaddr, ..release }, thief, own));
    // One after the other: what comes after it has been heard.
    guest.lease(SERVER);
    assert_heard(&host, thief, "RELEASE", "-", "");
    let held = host.leases().into_iter().find(|lease| lease.address == ip).unwrap();
    assert_eq!((held.mac, held.state.as_str()), (mac, "bound"));
}

#[test]
fn nobody_speaks_for_anothers_card() {
    for guarded in [true, false] {
        let host = Host::new();
        define(&host, guarded, "10.4.1.1-10.4.1.9");
        let _netd = host.netd();
        let (mac, liar) = (random_mac(), random_mac());
        let victim = PortGuest::attach(&host, "default", "victim", mac);
        let ip = victim.lease(SERVER);
        let guest = PortGuest::attach(&host, "default", "liar", liar);
        let own = guest.lease(SERVER);
        for kind in [7, 4] {
            // RELEASE and DECLINE of the victim's address, in the victim's name.
            let message = DhcpMessage::from_client(kind, 9, mac).with(54, &SERVER.octets());
            let message = DhcpMessage { ciaddr: ip, ..message.with(50, &ip.octets()) };
            guest.send(&unicast(&message, liar, own));
        }
        guest.lease(SERVER);
        let held = host.leases().into_iter().find(|lease| lease.address == ip).unwrap();
        assert_eq!((held.mac, held.state.as_str()), (mac, "bound"), "guarded: {guarded}");
    }
}
