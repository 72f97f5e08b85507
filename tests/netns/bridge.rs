//! The bridge itself: what of it no port and no protocol of others may change.

use std::time::Duration;

use serde_json::Value;
use vnet_testkit::{FakeGuest, frames};

use vnet_tests::Host;

/// What `ip` says of the bridge.
fn link(host: &Host) -> Value {
    let text = host.ns().run(["ip", "-d", "-j", "link", "show", "virbr0"]);
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

/// A bridge without a fixed address takes the lowest one of its ports, and all neighbours lose it.
#[test]
fn a_bridge_keeps_its_address_whatever_ports_come_and_go() {
    let host = Host::new();
    let _netd = host.netd();
    let address = host.create_default().bridge_mac.unwrap().to_string();
    let port = |name: &str, mac: &str| {
        host.ns().run(["ip", "link", "add", name, "address", mac, "type", "veth", "peer", "far"]);
        host.ns().run(["ip", "link", "set", name, "master", "virbr0", "up"]);
    };
    for mac in ["02:00:00:00:00:01", "fe:ff:ff:ff:ff:fe"] {
        port("near", mac);
        assert_eq!(link(&host)["address"], address.as_str(), "with a port with {mac}");
        host.ns().run(["ip", "link", "del", "near"]);
        assert_eq!(link(&host)["address"], address.as_str(), "after a port with {mac}");
    }
}

/// With spanning tree, a port listens and learns for twice the forward delay before it forwards
/// (IEEE 802.1D-2004 §17.20), and a guest's first DISCOVERs are lost.
#[test]
fn a_port_forwards_at_once_and_there_is_no_spanning_tree() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let bridge = &link(&host)["linkinfo"]["info_data"];
    assert_eq!((&bridge["stp_state"], &bridge["forward_delay"]), (&0.into(), &0.into()));
    let guest = FakeGuest::on_tap(host.ns(), "tap9", Some("virbr0"));
    let ports = host.ns().run(["bridge", "-j", "link", "show", "dev", "tap9"]);
    assert_eq!(serde_json::from_str::<Value>(&ports).unwrap()[0]["state"], "forwarding");
    host.ns().settle("virbr0");
    // The first one is heard: it is not sent again.
    guest.send(&frames::DhcpMessage::discover(7, guest.mac()).client_frame(guest.mac()));
    let offer =
        guest.wait_for("OFFER", Duration::from_secs(20), frames::DhcpMessage::parse_server_frame);
    assert_eq!(offer.kind(), Some(2));
}
