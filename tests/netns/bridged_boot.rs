//! The next boot: each manager makes the bridge from the files that vnet wrote, on a host with the
//! same card on the same cable, and finds its old files again after a release.

use std::process::Command;
use std::time::Duration;

use vnet_api::client::{Guests, Run};
use vnet_api::model::EnslaveUplink;
use vnet_testkit::{Lan, LanDhcp, Netns, Networkd};
use vnet_types::MacAddr;

use vnet_tests::{Host, network, wait};

const PATIENCE: Duration = Duration::from_secs(20);

fn eth0() -> EnslaveUplink {
    EnslaveUplink {
        bridge: "br0".parse().unwrap(),
        uplink: "eth0".parse().unwrap(),
        name: Some(network("lan")),
        mtu: None,
        confirm_seconds: None,
    }
}

fn write(host: &Host, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = host.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// All files under a folder of the root, with their contents.
fn files(host: &Host, folder: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(host.root.path().join(folder)).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Enslaves with `files` in place, has `boot` start the manager with what is there then, and
/// checks that the release leaves `files` as they were.
fn written_and_put_back(folder: &str, before: &[(&str, &str)], boot: impl FnOnce(&Host)) {
    let host = Host::new();
    write(&host, before);
    let old = files(&host, folder);
    let _netd = host.netd();
    let dry = wait(host.client().enslave(&eth0(), Run::Dry)).unwrap();
    assert_eq!(files(&host, folder), old);
    let changed = wait(host.client().enslave(&eth0(), Run::Real)).unwrap();
    assert_eq!(dry.notes, changed.notes);
    for (path, text) in files(&host, folder) {
        let first = text.lines().next().unwrap();
        let known = old.iter().any(|(other, _)| *other == path);
        assert!(known || dry.plan.iter().any(|step| step.contains(first)), "{path} was not said");
    }
    boot(&host);
    wait(host.client().delete(&network("lan"), Guests::Respect, Run::Real)).unwrap();
    assert_eq!(files(&host, folder), old);
}

/// A host that has just come up, with the same card.
struct Booted {
    ns: Netns,
    outside: Netns,
}

impl Booted {
    fn like(host: &Host) -> Self {
        let (ns, outside) = (Netns::new(), Netns::new());
        Netns::veth(&ns, "eth0", &outside, "eth0");
        ns.ip("link set eth0 down");
        ns.ip(&format!("link set eth0 address {}", host.ns().mac("eth0")));
        outside.address("eth0", &format!("{}/24", Lan::ROUTER));
        Self { ns, outside }
    }

    /// The bridge with the host's address and route, over the card, and the LAN behind it.
    fn is_bridged(&self, mac: MacAddr) {
        let ns = &self.ns;
        ns.wait_for("bridge with the host's address", PATIENCE, || {
            ns.try_run(["ip", "addr", "show", "dev", "br0"])
                .is_ok_and(|text| text.contains("203.0.113.2/24"))
                && ns.ip("route show default").contains("via 203.0.113.1 dev br0")
                && ns.json("link show eth0")[0]["master"] == "br0"
        });
        assert_eq!(ns.mac("br0"), mac);
        let link = &ns.json("link show br0")[0]["linkinfo"]["info_data"];
        assert_eq!((&link["stp_state"], &link["forward_delay"]), (&0.into(), &0.into()));
        assert!(!ns.ip("addr show dev eth0").contains("203.0.113.2"));
        vnet_testkit::ping(ns, Lan::ROUTER).unwrap();
    }
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn networkd_makes_the_bridge_at_the_next_boot() {
    let lan = "[Match]\nName=eth*\n\n[Network]\nAddress=203.0.113.2/24\nLinkLocalAddressing=no\n";
    let gateway = "[Route]\nGateway=203.0.113.1\n";
    let before = [
        ("etc/systemd/network/20-lan.network", lan),
        // A drop-in belongs to its file, and so to the bridge.
        ("etc/systemd/network/20-lan.network.d/gateway.conf", gateway),
    ];
    let host = Host::new();
    write(&host, &before);
    let folder = host.root.path().join("etc/systemd/network");
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let _netd = host.netd();
    wait(host.client().enslave(&eth0(), Run::Real)).unwrap();
    assert_eq!(names().len(), 5, "{:?}", names());
    let booted = Booted::like(&host);
    let _networkd = Networkd::start(&booted.ns, &folder);
    booted.is_bridged(host.ns().mac("eth0"));
    host.delete("lan").unwrap();
    assert_eq!(names(), ["20-lan.network", "20-lan.network.d"]);
}

#[test]
fn networkd_asks_for_the_bridges_address_as_it_did_for_the_uplinks() {
    let lan = "[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n";
    let host = Host::new();
    write(&host, &[("etc/systemd/network/20-lan.network", lan)]);
    // The lease that networkd has for a card with a name of udev's, from which its IAID follows.
    let index = &host.ns().json("link show eth0")[0]["ifindex"];
    let lease = "ADDRESS=203.0.113.2\nCLIENTID=ff0a0b0c0d00020000ab11a1a2a3a4a5a6a7a8\n";
    write(&host, &[(&format!("run/systemd/netif/leases/{index}"), lease)]);
    let _netd = host.netd();
    wait(host.client().enslave(&eth0(), Run::Real)).unwrap();
    let booted = Booted::like(&host);
    let _server = LanDhcp::start(&booted.outside);
    let networkd = Networkd::start(&booted.ns, &host.root.path().join("etc/systemd/network"));
    booted.ns.wait_for("an address on the bridge", PATIENCE, || {
        let text = booted.ns.try_run(["ip", "-4", "addr", "show", "dev", "br0"]);
        text.is_ok_and(|text| text.contains("203.0.113."))
    });
    let ids = networkd.client_ids();
    assert!(matches!(&ids[..], [id] if id.starts_with("ff0a0b0c0d0002")), "{ids:?}");
}

#[test]
fn ifupdown_makes_the_bridge_at_the_next_boot() {
    let text = "auto lo\niface lo inet loopback\n\n# the LAN\nallow-hotplug eth0\n\
                iface eth0 inet static\n    address 203.0.113.2/24\n    gateway 203.0.113.1\n";
    written_and_put_back("etc/network", &[("etc/network/interfaces", text)], |host| {
        let booted = Booted::like(host);
        let state = tempfile::tempdir().unwrap();
        let run = |program: &str| {
            let mut command = booted.ns.command(program);
            command.arg("-a").arg("--state-dir").arg(state.path()).arg("-i");
            succeeds(command.arg(host.root.path().join("etc/network/interfaces")));
        };
        run("ifup");
        booted.is_bridged(host.ns().mac("eth0"));
        run("ifdown");
        assert!(booted.ns.try_run(["ip", "link", "show", "br0"]).is_err());
    });
}

#[test]
fn netplan_makes_the_bridge_at_the_next_boot() {
    let text = "# by the installer\nnetwork:\n  version: 2\n  renderer: networkd\n  ethernets:\n    \
                eth0:\n      addresses:\n        - 203.0.113.2/24\n      routes:\n        - to: \
                default\n          via: 203.0.113.1\n      link-local: []\n";
    written_and_put_back("etc/netplan", &[("etc/netplan/01-lan.yaml", text)], |host| {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc/netplan");
        std::fs::create_dir_all(&folder).unwrap();
        let written = host.root.path().join("etc/netplan/01-lan.yaml");
        std::fs::copy(written, folder.join("01-lan.yaml")).unwrap();
        let mut command = Command::new("netplan");
        succeeds(command.arg("generate").arg("--root-dir").arg(root.path()));
        let booted = Booted::like(host);
        let _networkd = Networkd::start(&booted.ns, &root.path().join("run/systemd/network"));
        booted.is_bridged(host.ns().mac("eth0"));
    });
}

#[test]
fn networkmanagers_profiles_are_closed_to_others_and_the_old_one_comes_back() {
    use std::os::unix::fs::PermissionsExt;
    let profile = "[connection]\nid=LAN\ntype=ethernet\ninterface-name=eth0\n\n[ipv4]\n\
                   address1=203.0.113.2/24,203.0.113.1\nmethod=manual\n";
    let folder = "etc/NetworkManager/system-connections";
    let path = format!("{folder}/LAN.nmconnection");
    written_and_put_back(folder, &[(&path, profile)], |host| {
        let files = files(host, folder);
        let names: Vec<_> =
            files.iter().map(|(path, _)| path.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["vnet-br0-eth0.nmconnection", "vnet-br0.nmconnection"]);
        for (path, _) in &files {
            // NetworkManager takes no profile that others can read.
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{path}");
        }
    });
}
