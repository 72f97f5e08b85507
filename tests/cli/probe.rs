//! `vnet probe`: with the real guest, and with VMMs that fail in every way.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use nix::libc::O_NONBLOCK;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use vnet_testkit::{Lan, Netd, binary, output_within};

use crate::World;

const PATIENCE: Duration = Duration::from_secs(60);

/// `vnet probe default` with a shell script in the VMM's place.
fn probe_with(world: &World, script: &str) -> Output {
    install(world.root.path(), script);
    let mut command = world.netd.ns().command(binary("vnet"));
    command.args(["probe", "default"]);
    command.env("VNET_ROOT", world.root.path()).env("VNET_LIBEXEC", world.root.path());
    output_within(&mut command, PATIENCE).unwrap()
}

fn install(dir: &Path, script: &str) {
    let path = dir.join("vnet-vmm");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_nat_network_is_proved_from_a_guests_seat() {
    let lan = Lan::new();
    let root = tempfile::tempdir().unwrap();
    let netd = Netd::start(&lan.host, root.path());
    netd.vnet_ok(["create", "nat", "default"]);
    let target = format!("{}:80", Lan::SERVER);
    let report = netd.vnet_json(["probe", "default", "--connect", target.as_str()]);
    assert_eq!(report["ok"], true, "{report:#}");
    let steps = report["steps"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(names, ["link", "dhcp", "gateway", "dns", "outside"]);
    assert!(steps.iter().all(|step| step["result"] == "ok"), "{report:#}");
    assert_eq!(steps[3]["facts"]["name"], "gateway.default.vnet");
    let reply = steps[4]["facts"]["reply"].as_str().unwrap();
    assert!(reply.starts_with("HTTP/1.") && reply.contains("200"), "{reply}");
    assert!(report["address_ms"].as_f64() <= report["total_ms"].as_f64(), "{report:#}");

    let table = netd.vnet_ok(["probe", "default", "--connect", target.as_str()]);
    assert!(table.starts_with("STEP     RESULT  "), "{table}");
    assert!(table.contains("the guest had its address "), "{table}");
    // The second probe was the same guest to the network.
    assert_eq!(netd.vnet_json(["leases"]).as_array().unwrap().len(), 1);
    assert_eq!(netd.vnet_json(["show", "default"])["ports"], serde_json::json!([]));
}

#[test]
fn a_hostonly_network_is_proved_closed() {
    let lan = Lan::new();
    let root = tempfile::tempdir().unwrap();
    let netd = Netd::start(&lan.host, root.path());
    netd.vnet_ok(["create", "hostonly", "lab"]);
    let target = format!("{}:80", Lan::SERVER);
    let table = netd.vnet_ok(["probe", "lab", "--connect", target.as_str()]);
    let outside = table.lines().find(|line| line.starts_with("outside")).unwrap();
    assert!(outside.contains("closed, as a host-only network should be"), "{table}");
}

#[test]
fn an_outside_that_does_not_answer_is_a_failure_that_names_the_step() {
    let lan = Lan::new();
    let root = tempfile::tempdir().unwrap();
    let netd = Netd::start(&lan.host, root.path());
    netd.vnet_ok(["create", "nat", "default"]);
    let target = format!("{}:81", Lan::SERVER);
    let (code, stderr) = netd.vnet_fails(["probe", "default", "--connect", target.as_str()]);
    assert_eq!(code, 1);
    assert_eq!(stderr, "vnet: the network default does not work for its guests: outside failed\n");
}

#[test]
fn a_network_that_can_have_no_probe_says_why() {
    let world = World::new();
    let netd = &world.netd;
    netd.vnet_ok(["create", "nat", "quiet", "--no-dhcp"]);
    let (code, stderr) = netd.vnet_fails(["probe", "quiet"]);
    assert!(code == 1 && stderr.contains("the network quiet has no DHCP"), "{stderr}");
    netd.vnet_ok(["stop", "quiet"]);
    let (code, stderr) = netd.vnet_fails(["probe", "quiet"]);
    assert!(code == 1 && stderr.contains("`vnet start quiet` starts it"), "{stderr}");
}

#[test]
fn a_vmm_or_a_guest_that_fails_is_reported_as_what_it_is() {
    let world = World::new();
    world.netd.vnet_ok(["create", "nat", "default"]);
    for (script, reason) in [
        ("echo 'no kernel here' >&2; exit 1", "the guest could not be started: no kernel here"),
        ("exit 4", "the guest crashed"),
        ("exit 3", "the guest hung"),
        ("kill -SEGV $$", "vnet-vmm was killed by signal 11"),
        ("exit 0", "the guest ended before it was done"),
        ("head -c 4096 /dev/urandom", "the guest wrote a line that is not its own"),
        ("exec cat /dev/zero", "the guest wrote more than 64 KiB"),
        ("echo 'vnet-guest: panic reason=\"oh no\"'", "the guest panicked: oh no"),
    ] {
        let output = probe_with(&world, script);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{script}: {stderr}");
        assert!(stderr.contains(reason), "{script}: {stderr}");
        assert!(!stderr.contains("panicked at"), "{script}: {stderr}");
    }
}

/// Reads from `fifo` until `enough` says so, or its last writer has gone.
fn read_until(fifo: &mut fs::File, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    let mut text = Vec::new();
    while !enough(&text) {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap();
        let ready = poll(&mut [PollFd::new(fifo.as_fd(), PollFlags::POLLIN)], left).unwrap();
        assert_eq!(ready, 1, "nothing within {PATIENCE:?}");
        let mut bytes = [0; 64];
        match fifo.read(&mut bytes).unwrap() {
            0 => break,
            length => text.extend_from_slice(&bytes[..length]),
        }
    }
    text
}

#[test]
fn a_probe_that_is_interrupted_leaves_no_vmm() {
    let world = World::new();
    world.netd.vnet_ok(["create", "nat", "default"]);
    let root = world.root.path();
    let path = root.join("life");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    // Without O_NONBLOCK, opening it would wait for the writer.
    let mut fifo = fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(&path).unwrap();
    // The VMM holds the FIFO open for as long as it lives.
    install(root, &format!("exec 9> {}; echo started >&9; exec sleep 600", path.display()));
    let mut command = world.netd.ns().command(binary("vnet"));
    command.args(["probe", "default"]).env("VNET_ROOT", root).env("VNET_LIBEXEC", root);
    let mut probe = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(read_until(&mut fifo, |text| text.ends_with(b"\n")), b"started\n");
    kill(Pid::from_raw(probe.id().cast_signed()), Signal::SIGINT).unwrap();
    assert!(!probe.wait().unwrap().success());
    // The end of the file is the end of the VMM.
    assert_eq!(read_until(&mut fifo, |_| false), b"");
}
