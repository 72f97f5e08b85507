//! Exit codes and the errors that come with them: 1 failed, 2 wrong usage, 3 no netd.

use vnet_testkit::{Netns, vnet};

use crate::World;

#[test]
fn without_netd_every_command_exits_with_three_and_says_how_to_start_it() {
    let (ns, root) = (Netns::new(), tempfile::tempdir().unwrap());
    for command in [
        "list",
        "list --json",
        "show default",
        "create nat default",
        "start default",
        "stop default",
        "delete default",
        "edit default",
        "edit default --file /dev/null",
        "autostart default",
        "reserve default --mac 52:54:00:00:00:10 --ip 192.168.122.10",
        "unreserve default --mac 52:54:00:00:00:10",
        "leases",
        "run --net nat:default",
        "probe default",
    ] {
        let output = vnet(&ns, root.path(), command.split(' '));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{command}: {stderr}");
        assert!(stderr.starts_with("vnet: netd cannot be reached at /"), "{command}: {stderr}");
        assert!(stderr.contains("systemctl start vnet-netd"), "{command}: {stderr}");
        assert!(output.stdout.is_empty(), "{command}");
    }
}

#[test]
fn wrong_usage_exits_with_two_before_netd_is_asked() {
    let (ns, root) = (Netns::new(), tempfile::tempdir().unwrap());
    for (command, reason) in [
        ("", "Usage: vnet"),
        ("nonsense", "unrecognized subcommand"),
        ("create", "required"),
        ("create bridged br0", "nat, hostonly, routed"),
        ("create nat UPPER", "use 1 to 48"),
        ("create nat a --subnet 10.0.0.1/24", "did you mean 10.0.0.0/24?"),
        ("create nat a --subnet 10.0.0.0", "address/prefix"),
        ("create nat a --range 10.0.0.2-10.0.0.9", "--subnet"),
        ("create nat a --mtu 100", "576..=65521"),
        ("show", "required"),
        ("reserve default --mac 52:54 --ip 10.0.0.2", "six bytes in hexadecimal"),
        ("reserve default --mac 52:54:00:00:00:10", "--ip"),
        ("leases a b", "unexpected argument"),
        ("run --net bride:br0", "use nat, hostonly or routed"),
        ("run --json", "--report FILE"),
        ("probe default --connect nowhere", "HOST:PORT"),
        ("completions tcsh", "bash"),
        ("completions bash --json", "leave --json out"),
    ] {
        let output = vnet(&ns, root.path(), command.split_ascii_whitespace());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {stderr}");
        assert!(stderr.contains(reason), "{command}: {stderr}");
    }
}

#[test]
fn a_refusal_exits_with_one_and_names_the_way_out() {
    let world = World::new();
    let netd = &world.netd;
    netd.vnet_ok(["create", "nat", "default"]);
    for (command, reason) in [
        ("create nat default", "there is a network default already: `vnet show default`"),
        ("create nat b --subnet 192.168.122.0/25", "overlaps the network default"),
        ("create nat b --subnet 10.0.0.0/24 --range 10.0.1.2-10.0.1.9", "does not fit the subnet"),
        ("create nat b --bridge virbr0", "give another name"),
        ("show nope", "there is no network nope: `vnet list`"),
        ("start nope", "there is no network nope"),
        ("stop nope", "there is no network nope"),
        ("delete nope", "there is no network nope"),
        ("autostart nope", "there is no network nope"),
        ("edit nope", "there is no network nope"),
        ("unreserve default --mac 52:54:00:00:00:10", "nothing is reserved for 52:54:00:00:00:10"),
        ("leases nope", "there is no network nope"),
        ("run --net nat:nope", "`vnet create nat nope` makes it"),
        ("probe nope", "`vnet create nat nope` makes it"),
    ] {
        let (code, stderr) = netd.vnet_fails(command.split(' '));
        assert_eq!(code, 1, "{command}: {stderr}");
        assert!(stderr.starts_with("vnet: ") && stderr.contains(reason), "{command}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{command}: {stderr}");
    }
}

#[test]
fn a_mode_that_disagrees_is_wrong_usage() {
    let world = World::new();
    let netd = &world.netd;
    netd.vnet_ok(["create", "nat", "default"]);
    for net in ["default", "hostonly:default"] {
        let (code, stderr) = netd.vnet_fails(["run", "--net", net]);
        assert_eq!(
            (code, stderr.as_str()),
            (2, "vnet: `default` is a nat network: write --net nat:default\n")
        );
    }
    netd.vnet_ok(["stop", "default"]);
    let (code, stderr) = netd.vnet_fails(["run", "--net", "nat:default"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("`vnet start default` starts it"), "{stderr}");
}
