//! What commands change, and what they say about it.

use vnet_testkit::HostState;

use crate::World;

#[test]
fn a_network_lives_from_create_to_delete() {
    let world = World::new();
    let netd = &world.netd;
    assert_eq!(
        netd.vnet_ok(["create", "nat", "default"]),
        "network default is up: nat 192.168.122.0/24, gateway 192.168.122.1, bridge virbr0\n"
    );
    assert_eq!(netd.vnet_ok(["stop", "default"]), "network default is stopped\n");
    assert!(netd.vnet_ok(["list"]).contains("stopped"));
    assert_eq!(
        netd.vnet_ok(["start", "default"]),
        "network default is up: nat 192.168.122.0/24, gateway 192.168.122.1, bridge virbr0\n"
    );
    assert_eq!(netd.vnet_ok(["delete", "default"]), "network default is deleted\n");
    assert_eq!(netd.vnet_json(["list"]), serde_json::json!([]));
}

#[test]
fn every_option_of_create_takes_effect() {
    let world = World::new();
    let netd = &world.netd;
    netd.ns().run(["ip", "link", "add", "up0", "type", "bridge"]);
    let line = "create routed lab --subnet 10.9.0.0/24 --range 10.9.0.50-10.9.0.60 \
                --domain lab.test --bridge br-lab --uplink up0 --mtu 1400";
    netd.vnet_ok(line.split_ascii_whitespace());
    let shown = netd.vnet_ok(["show", "lab"]);
    let wanted = "routed 10.9.0.0/24 10.9.0.1 10.9.0.50-10.9.0.60 lab.test br-lab up0 1400";
    for value in wanted.split(' ') {
        assert!(shown.contains(value), "{value} is not in\n{shown}");
    }
    assert!(netd.ns().ip("link show br-lab").contains("mtu 1400"));
    netd.vnet_ok(["create", "hostonly", "quiet", "--no-dhcp"]);
    assert!(netd.vnet_ok(["show", "quiet"]).contains("this network has no DHCP"));
}

#[test]
fn a_dry_run_prints_a_numbered_plan_and_changes_nothing() {
    let world = World::new();
    let (netd, root) = (&world.netd, &world.root);
    let before = HostState::of(netd.ns());
    let plan = netd.vnet_ok(["create", "nat", "default", "--dry-run"]);
    for (index, line) in plan.lines().enumerate() {
        let number = format!("{}. ", index + 1);
        assert!(line.trim_start().starts_with(&number), "{plan}");
    }
    assert!(plan.contains("create bridge virbr0"), "{plan}");
    before.assert_same(&HostState::of(netd.ns()));
    assert!(!root.path().join("etc/vnet/networks/default.toml").exists());
    netd.vnet_ok(["create", "nat", "default"]);
    let before = HostState::of(netd.ns());
    for command in ["stop", "delete"] {
        let plan = netd.vnet_ok([command, "default", "--dry-run"]);
        assert!(plan.contains("delete link virbr0"), "{plan}");
    }
    before.assert_same(&HostState::of(netd.ns()));
    assert!(netd.vnet_ok(["list"]).contains("active"));
}

#[test]
fn autostart_is_set_and_shown() {
    let world = World::new();
    let netd = &world.netd;
    netd.vnet_ok(["create", "nat", "default"]);
    assert_eq!(
        netd.vnet_ok(["autostart", "default", "--off"]),
        "network default does not start with netd\n"
    );
    let network = netd.vnet_json(["show", "default"]);
    assert_eq!(network["definition"]["autostart"], false);
    assert_eq!(netd.vnet_ok(["autostart", "default"]), "network default starts with netd\n");
}

#[test]
fn what_was_chosen_instead_of_the_usual_is_noted() {
    let world = World::new();
    let netd = &world.netd;
    netd.vnet_ok(["create", "nat", "default"]);
    let output = netd.vnet(["create", "nat", "second"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("note: the subnet is 192.168.123.0/24: "), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.starts_with("network second is up: nat 192.168.123.0/24"), "{stdout}");
}
