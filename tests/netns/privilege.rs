//! Who may do what: netd without its capabilities, and users that are not netd's.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use vnet_testkit::{HostState, binary};
use vnet_tests::Host;

/// Runs `program` in the host's namespace by way of setpriv(1). It is copied to where everybody
/// can read it: the folder that it was built in may be its owner's alone.
fn with_privileges(host: &Host, privileges: &[&str], program: &str, arguments: &[&str]) -> Output {
    std::fs::set_permissions(host.root.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = host.root.path().join(program);
    std::fs::copy(binary(program), &copy).unwrap();
    host.ns()
        .command("setpriv")
        .args(privileges)
        .arg(copy)
        .args(arguments)
        .env("VNET_ROOT", host.root.path())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Nobody, and without a group that could help.
const STRANGER: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// A host on which a stranger gets as far as netd's own checks.
fn open_to_all(host: &Host) {
    for socket in [host.paths().api_socket(), host.paths().ports_socket()] {
        std::fs::set_permissions(socket, Permissions::from_mode(0o666)).unwrap();
    }
}

#[test]
fn netd_names_the_capability_that_it_lacks_and_changes_nothing() {
    let host = Host::new();
    let before = HostState::of(host.ns());
    for (capability, name) in [("net_admin", "CAP_NET_ADMIN"), ("net_raw", "CAP_NET_RAW")] {
        let output =
            with_privileges(&host, &[&format!("--bounding-set=-{capability}")], "netd", &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(name), "{}", stderr(&output));
    }
    before.assert_same(&HostState::of(host.ns()));
}

#[test]
fn a_stranger_cannot_open_the_sockets() {
    let host = Host::new();
    let _netd = host.netd();
    let output = with_privileges(&host, &STRANGER, "vnet", &["list"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("join the group vnet"), "{}", stderr(&output));
}

#[test]
fn a_stranger_who_gets_to_a_socket_is_refused_by_netd_itself() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    open_to_all(&host);
    let before = HostState::of(host.ns());
    for arguments in [&["list"][..], &["delete", "default"]] {
        let output = with_privileges(&host, &STRANGER, "vnet", arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("may not speak to netd"), "{}", stderr(&output));
    }
    let output =
        with_privileges(&host, &STRANGER, "vnet-vmm", &["--net", "nat:default", "--timeout", "5"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(host.network("default").ports.is_empty());
    before.assert_same(&HostState::of(host.ns()));
}
