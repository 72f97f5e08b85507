//! Real clients whose own timers ask for their leases anew: of their server, and where that does
//! not answer, of everybody (RFC 2131 §4.4.5).

use std::net::Ipv4Addr;
use std::time::Duration;

use vnet_testkit::ClientKind::{self, Dhclient, Dhcpcd, Udhcpc};
use vnet_testkit::frames::{self, DhcpMessage, Udp};
use vnet_testkit::{FakeGuest, Guest, Networkd};

use vnet_tests::Host;
use vnet_tests::timeline::assert_heard;

/// A loaded machine may be late, and dhclient draws its times at random.
const PATIENCE: Duration = Duration::from_secs(40);

/// A network whose leases are renewed after two seconds, and by everybody after six.
fn hurried(host: &Host) {
    host.define(
        "default",
        r#"name = "default"
mode = "nat"
bridge = "virbr0"
subnet = "192.168.122.0/24"
domain = "default.vnet"

[dhcp]
range = "192.168.122.100-192.168.122.150"
lease_seconds = 60
options = { renewal-time = 2, rebinding-time = 6 }
"#,
    );
}

/// The address to which a frame of the guest that asks for its lease anew goes.
fn asks_anew(frame: &[u8], guest: &Guest, has: Ipv4Addr) -> Option<Ipv4Addr> {
    let udp = Udp::parse(frame).filter(|udp| udp.to_port == 67)?;
    let message = DhcpMessage::parse(&udp.payload)?;
    let renews = frames::source(frame) == Some(guest.mac) && message.kind() == Some(3);
    (renews && message.ciaddr == has).then_some(udp.to)
}

/// The client asks its server, which it no longer reaches by its card, and then everybody: the
/// lease goes on.
fn rebinds(host: &Host, guest: &Guest, has: Ipv4Addr, hurry: impl FnOnce()) {
    let wire = FakeGuest::on(&guest.ns, "eth0");
    let nobody = "02:00:5e:00:53:99";
    guest.ns.ip(&format!("neigh replace 192.168.122.1 lladdr {nobody} dev eth0 nud permanent"));
    hurry();
    let server = Ipv4Addr::new(192, 168, 122, 1);
    for to in [server, Ipv4Addr::BROADCAST] {
        let wanted = |frame: &[u8]| (asks_anew(frame, guest, has)? == to).then_some(());
        wire.wait_for(&format!("request to {to}"), PATIENCE, wanted);
    }
    wire.wait_for("ACK", PATIENCE, |frame| {
        let reply = DhcpMessage::parse_server_frame(frame)?;
        (reply.kind() == Some(5) && reply.yiaddr == has).then_some(())
    });
    assert_heard(host, guest.mac, "REQUEST", "ACK", "because the client has it");
}

fn rebinds_by_timer(kind: ClientKind) {
    let host = Host::new();
    hurried(&host);
    let _netd = host.netd();
    let guest = host.lan.guest_on("virbr0");
    let mut client = kind.on(&guest.ns, "eth0").start().unwrap();
    let has = client.lease().address;
    rebinds(&host, &guest, has, || ());
    assert_eq!(client.wait_for_lease(PATIENCE).unwrap().address, has);
}

#[test]
fn dhclient_renews_and_rebinds_by_its_timers() {
    rebinds_by_timer(Dhclient);
}

#[test]
fn dhcpcd_renews_and_rebinds_by_its_timers() {
    rebinds_by_timer(Dhcpcd);
}

#[test]
fn networkd_renews_and_rebinds_by_its_timers() {
    let host = Host::new();
    hurried(&host);
    let _netd = host.netd();
    let guest = host.lan.guest_on("virbr0");
    let networkd = Networkd::client(&guest.ns, "web");
    rebinds(&host, &guest, networkd.lease(|_| true).address, || ());
}

/// udhcpc takes no times from the server (half a lease, at least thirty seconds); told to renew, it
/// goes on to rebind by itself.
#[test]
fn udhcpc_rebinds_where_its_server_does_not_answer() {
    let host = Host::new();
    hurried(&host);
    let _netd = host.netd();
    let guest = host.lan.guest_on("virbr0");
    let mut client = Udhcpc.on(&guest.ns, "eth0").start().unwrap();
    let has = client.lease().address;
    rebinds(&host, &guest, has, || client.ask_to_renew().unwrap());
    assert_eq!(client.wait_for_lease(PATIENCE).unwrap().address, has);
}
