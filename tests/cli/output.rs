//! What goes to standard output and what to standard error, and how it looks.

use std::process::Stdio;

use vnet_testkit::{Netns, binary, vnet};

use crate::World;

#[test]
fn the_list_is_an_aligned_table_without_colours() {
    let world = World::new();
    let netd = &world.netd;
    netd.vnet_ok(["create", "nat", "default"]);
    netd.vnet_ok(["create", "hostonly", "lab"]);
    assert_eq!(
        netd.vnet_ok(["list"]),
        "NAME     MODE      STATE   BRIDGE  SUBNET            GUESTS  LEASES\n\
         default  nat       active  virbr0  192.168.122.0/24       0       0\n\
         lab      hostonly  active  virbr1  192.168.123.0/24       0       0\n"
    );
}

#[test]
fn an_empty_list_prints_nothing_and_hints_at_create() {
    let world = World::new();
    let netd = &world.netd;
    let output = netd.vnet(["list"]);
    assert!(output.status.success() && output.stdout.is_empty());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("`vnet create nat default`"), "{stderr}");
}

#[test]
fn a_broken_definition_is_a_warning_that_names_the_file() {
    let world = World::new();
    let (netd, root) = (&world.netd, &world.root);
    netd.vnet_ok(["create", "nat", "default"]);
    std::fs::write(root.path().join("etc/vnet/networks/bad.toml"), "name = 1\n").unwrap();
    let output = netd.vnet(["list"]);
    assert!(output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("vnet: warning: /") && stderr.contains("bad.toml"), "{stderr}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("default"));
}

#[test]
fn everything_about_a_network_is_shown() {
    let world = World::new();
    let netd = &world.netd;
    netd.vnet_ok(["create", "nat", "default"]);
    let mac = netd.ns().mac("virbr0");
    let expected = format!(
        "name:           default\n\
         mode:           nat\n\
         state:          active\n\
         bridge:         virbr0 ({mac})\n\
         gateway:        192.168.122.1\n\
         subnet:         192.168.122.0/24\n\
         DHCP range:     192.168.122.2-192.168.122.254\n\
         lease time:     1 h\n\
         domain:         default.vnet\n\
         DNS upstreams:  the host's own\n\
         uplink:         any\n\
         MTU:            1500, the uplink's\n\
         autostart:      yes\n\
         guests:         none\n\
         leases:         0\n"
    );
    assert_eq!(netd.vnet_ok(["show", "default"]), expected);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let root = tempfile::tempdir().unwrap();
    let mut command = Netns::new().command(binary("vnet"));
    command.args(["completions", "bash"]).env("VNET_ROOT", root.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // More is to come than a pipe holds, or else than anybody reads.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn help_and_version_need_no_netd() {
    let (ns, root) = (Netns::new(), tempfile::tempdir().unwrap());
    let output = vnet(&ns, root.path(), ["--version"]);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("vnet 0."));
    let help = vnet(&ns, root.path(), ["--help"]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for command in [
        "create",
        "list",
        "show",
        "start",
        "stop",
        "delete",
        "edit",
        "autostart",
        "reserve",
        "unreserve",
        "leases",
        "run",
        "probe",
        "completions",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}\n{help}");
        let its = vnet(&ns, root.path(), [command, "--help"]);
        assert!(its.status.success());
        assert!(String::from_utf8_lossy(&its.stdout).contains("Example: vnet "), "{command}");
    }
}
