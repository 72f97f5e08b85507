//! `vnet run`: a guest on a network, from its start to its end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vnet_testkit::{Netns, binary, output_within, vnet, wait_within};

use crate::World;

const PATIENCE: Duration = Duration::from_secs(60);

/// A guest that stays on the network `default`.
struct Staying {
    vnet: Child,
    /// Kept open: what the guest still has to say is to find a reader.
    _console: BufReader<ChildStdout>,
}

impl Staying {
    fn on_default(world: &World, name: &str) -> Self {
        let mut command = world.netd.ns().command(binary("vnet"));
        command
            .args(["run", "--net", "nat:default", "--name", name, "--append", "vnet.mode=stay"])
            // The guest ends with the test, should that end before it.
            .args(["--timeout", "60"])
            .env("VNET_ROOT", world.root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut vnet = command.spawn().unwrap();
        let mut console = BufReader::new(vnet.stdout.take().unwrap());
        let mut text = String::new();
        while !text.contains("vnet-guest: done ok\n") {
            let length = console.read_line(&mut text).unwrap();
            assert!(length > 0, "the guest ended:\n{text}");
        }
        Self { vnet, _console: console }
    }

    fn interrupt(mut self) -> Option<i32> {
        kill(Pid::from_raw(self.vnet.id().cast_signed()), Signal::SIGINT).unwrap();
        wait_within(&mut self.vnet, PATIENCE).unwrap().expect("it ends").code()
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.vnet.kill();
        let _ = self.vnet.wait();
    }
}

#[test]
fn a_guest_is_on_its_network_until_it_is_stopped() {
    let world = World::new();
    let netd = &world.netd;
    netd.vnet_ok(["create", "nat", "default"]);
    let guest = Staying::on_default(&world, "web");
    let network = netd.vnet_json(["show", "default"]);
    assert_eq!(network["ports"][0]["domain"], "web");
    let mac = network["ports"][0]["mac"].as_str().unwrap();
    let shown = netd.vnet_ok(["show", "default"]);
    assert!(shown.contains("guests:         web nic 0 on ") && shown.contains(mac), "{shown}");
    let leases = netd.vnet_json(["leases", "default"]);
    assert_eq!((&leases[0]["hostname"], &leases[0]["mac"]), (&"web".into(), &mac.into()));
    for command in ["stop", "delete"] {
        let (code, stderr) = netd.vnet_fails([command, "default"]);
        assert!(code == 1 && stderr.contains("web") && stderr.contains("--force"), "{stderr}");
    }
    // vnet has become the VMM, whose code for a signal is 6.
    assert_eq!(guest.interrupt(), Some(6));
    assert_eq!(netd.vnet_json(["show", "default"])["ports"], serde_json::json!([]));
}

#[test]
fn force_cuts_guests_off() {
    let world = World::new();
    world.netd.vnet_ok(["create", "nat", "default"]);
    let _guest = Staying::on_default(&world, "web");
    let deleted = world.netd.vnet_ok(["delete", "default", "--force"]);
    assert_eq!(deleted, "network default is deleted\n");
    assert_eq!(world.netd.vnet_json(["list"]), serde_json::json!([]));
}

#[test]
fn a_guest_that_ends_by_itself_leaves_its_report() {
    let world = World::new();
    world.netd.vnet_ok(["create", "nat", "default"]);
    let report = world.root.path().join("report.json");
    let mut command = world.netd.ns().command(binary("vnet"));
    command.env("VNET_ROOT", world.root.path()).stdin(Stdio::null());
    command.args(["run", "--net", "nat:default,mac=52:54:00:12:34:56", "--timeout", "50"]);
    command.arg("--report").arg(&report);
    let output = output_within(&mut command, PATIENCE).unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert!(stdout.contains("link ok") && stdout.contains("mac=52:54:00:12:34:56"), "{stdout}");
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(report["outcome"], "power_off");
}

#[test]
fn a_vmm_that_is_not_installed_is_said_so() {
    let (ns, root) = (Netns::new(), tempfile::tempdir().unwrap());
    let mut command = ns.command(binary("vnet"));
    command.arg("run").env("VNET_ROOT", root.path()).env("VNET_LIBEXEC", "/nowhere");
    let output = output_within(&mut command, PATIENCE).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("there is no vnet-vmm in /nowhere"), "{stderr}");
    assert!(stderr.contains("set VNET_LIBEXEC"), "{stderr}");
}

#[test]
fn a_guest_without_a_network_needs_no_netd() {
    let (ns, root) = (Netns::new(), tempfile::tempdir().unwrap());
    let output = vnet(&ns, root.path(), ["run", "--timeout", "50"]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("link failed") && stdout.contains("no virtio-net"), "{stdout}");
}
