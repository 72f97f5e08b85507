//! A guest on the LAN, from the command line.

use std::process::Stdio;
use std::time::Duration;

use vnet_testkit::{Lan, LanDhcp, Netd, binary, output_within};

#[test]
fn the_built_in_guest_gets_its_address_from_the_lan() {
    let (lan, root) = (Lan::new(), tempfile::tempdir().unwrap());
    let netd = Netd::start(&lan.host, root.path());
    let _dhcp = LanDhcp::start(&lan.outside);
    let enslaved = netd.vnet_ok(["bridge", "br0", "--enslave", "eth0", "--name", "lan"]);
    assert_eq!(enslaved, "network lan is up: bridged, bridge br0, uplink eth0\n");
    let mut command = lan.host.command(binary("vnet"));
    command.env("VNET_ROOT", root.path()).stdin(Stdio::null());
    command.args(["run", "--net", "bridge:br0", "--name", "web", "--timeout", "50"]);
    let output = output_within(&mut command, Duration::from_secs(60)).unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert!(stdout.contains("dhcp ok") && stdout.contains("address=203.0.113."), "{stdout}");
    assert!(stdout.contains("gateway ok"), "{stdout}");

    let shown = netd.vnet_ok(["show", "lan"]);
    assert!(shown.contains("mode:           bridged\n"), "{shown}");
    assert!(shown.contains("uplink:         eth0\n"), "{shown}");
    let json = netd.vnet_json(["show", "lan"]);
    assert_eq!(netd.vnet_json(["list"]), serde_json::json!([json]));
    let (code, text) = netd.vnet_fails(["run", "--net", "nat:lan"]);
    assert!(code == 2 && text.contains("write --net bridge:br0"), "{text}");
    let (_, text) = netd.vnet_fails(["probe", "lan"]);
    assert!(text.contains("`vnet run --net bridge:br0`"), "{text}");

    assert_eq!(netd.vnet_ok(["stop", "lan"]), "network lan is stopped\n");
    let listed = netd.vnet_ok(["list"]);
    let row = listed.lines().last().unwrap();
    assert!(row.contains("stopped") && row.ends_with(" -"), "its leases are the LAN's: {listed}");
    let started = netd.vnet_ok(["start", "lan"]);
    assert_eq!(started, "network lan is up: bridged, bridge br0, uplink eth0\n");
    let changed = netd.vnet_json(["autostart", "lan", "--off"]);
    assert_eq!(changed["network"]["definition"]["autostart"], false);
    assert_eq!(netd.vnet_ok(["delete", "lan"]), "network lan is deleted\n");
}
