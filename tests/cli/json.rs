//! `--json`: what programs may rely on.

use std::collections::BTreeSet;

use serde_json::Value;
use vnet_api::model::{Changed, Lease, Network};
use vnet_testkit::{Lan, Netd, Udhcpc};

use crate::World;

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn changes_and_networks_have_the_fields_of_the_api() {
    let world = World::new();
    let netd = &world.netd;
    let plan = netd.vnet_json(["create", "nat", "default", "--dry-run"]);
    assert_eq!(keys(&plan), ["network", "notes", "plan"].into());
    assert!(plan["network"].is_null());
    assert!(!plan["plan"].as_array().unwrap().is_empty());

    let created = netd.vnet_json(["create", "nat", "default"]);
    assert_eq!(created["network"]["state"], "active");
    let network = netd.vnet_json(["show", "default"]);
    assert_eq!(network, created["network"]);
    assert_eq!(
        keys(&network),
        ["bridge_mac", "definition", "gateway", "leases", "mtu", "ports", "state"].into()
    );
    assert_eq!(
        keys(&network["definition"]),
        ["anti_spoofing", "autostart", "bridge", "dhcp", "domain", "mode", "name", "subnet"].into()
    );
    assert_eq!(netd.vnet_json(["list"]), Value::Array(vec![network]));

    for command in ["stop", "start", "autostart", "delete"] {
        let changed: Changed =
            serde_json::from_value(netd.vnet_json([command, "default"])).unwrap();
        assert_eq!(changed.network.is_none(), command == "delete");
    }
    let none: Vec<Network> = serde_json::from_value(netd.vnet_json(["list"])).unwrap();
    assert!(none.is_empty());
}

#[test]
fn a_lease_is_told_to_people_and_to_programs() {
    let lan = Lan::new();
    let root = tempfile::tempdir().unwrap();
    let netd = Netd::start(&lan.host, root.path());
    netd.vnet_ok(["create", "nat", "default"]);
    assert_eq!(netd.vnet_json(["leases"]), serde_json::json!([]));

    let guest = lan.guest_on("virbr0");
    let got = Udhcpc::on(&guest.ns, "eth0").hostname("web").obtain();
    let leases: Vec<Lease> = serde_json::from_value(netd.vnet_json(["leases"])).unwrap();
    let [lease] = leases.as_slice() else { panic!("{leases:?}") };
    assert_eq!(lease.mac, guest.mac);
    assert_eq!(lease.address, got.address);
    assert_eq!((lease.hostname.as_deref(), lease.state.as_str()), (Some("web"), "bound"));

    let table = netd.vnet_ok(["leases", "default"]);
    let row: Vec<&str> = table.lines().nth(1).unwrap().split("  ").map(str::trim).collect();
    assert!(row.contains(&"web") && row.contains(&guest.mac.to_string().as_str()), "{table}");
    assert!(table.lines().nth(1).unwrap().contains("  in "), "{table}");
    assert!(netd.vnet_ok(["list"]).lines().nth(1).unwrap().ends_with(" 1"), "one lease");
}
