//! What befalls real clients over a lease's life, and how `vnet explain` tells it.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use vnet_api::client::Run;
use vnet_api::model::Reserve;
use vnet_testkit::ClientKind::{self, Dhclient, Dhcpcd, Udhcpc};

use vnet_tests::port_guest::until;
use vnet_tests::timeline::{assert_heard, explain, timeline};
use vnet_tests::{Host, network, wait};

fn small(host: &Host) {
    host.define(
        "default",
        r#"name = "default"
mode = "nat"
bridge = "virbr0"
subnet = "192.168.122.0/24"
domain = "default.vnet"

[dhcp]
range = "192.168.122.100-192.168.122.100"
"#,
    );
}

#[test]
fn every_client_gives_its_address_back_when_it_is_told_to() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    for kind in ClientKind::ALL {
        let guest = host.lan.guest_on("virbr0");
        let client = kind.on(&guest.ns, "eth0").start().unwrap();
        let ip = client.lease().address;
        client.release().unwrap();
        let released = || {
            let leases = host.leases();
            leases.iter().any(|lease| lease.address == ip && lease.state == "released")
        };
        until("the release", released);
        assert_heard(&host, guest.mac, "RELEASE", "-", "was given back");
    }
}

#[test]
fn a_lease_is_renewed_by_udhcpc_and_by_dhcpcd() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    for kind in [Udhcpc, Dhcpcd] {
        let guest = host.lan.guest_on("virbr0");
        let mut client = kind.on(&guest.ns, "eth0").start().unwrap();
        let first = client.lease().clone();
        assert_eq!(client.renew().unwrap().address, first.address);
        assert_heard(&host, guest.mac, "REQUEST", "ACK", "because the client has it");
    }
}

#[test]
fn clients_that_reboot_ask_for_the_address_that_they_had() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    for kind in [Dhclient, Dhcpcd] {
        let guest = host.lan.guest_on("virbr0");
        let client = kind.on(&guest.ns, "eth0").start().unwrap();
        let first = client.lease().clone();
        let heard = timeline(&host, guest.mac).len();
        assert_eq!(client.reboot().unwrap().lease().address, first.address);
        // INIT-REBOOT: no DISCOVER comes before the REQUEST.
        let all = timeline(&host, guest.mac);
        let after = all.get(heard..).unwrap();
        assert!(after.iter().all(|(message, ..)| message == "REQUEST"), "{all:#?}");
    }
}

#[test]
fn clients_that_come_from_another_network_are_told_no() {
    for kind in [Dhclient, Dhcpcd] {
        let host = Host::new();
        let _netd = host.netd();
        host.create_default();
        let mut other = vnet_tests::nat("other");
        other.subnet = Some("10.9.8.0/24".parse().unwrap());
        host.create(&other).unwrap();
        let guest = host.lan.guest_on("virbr0");
        let client = kind.on(&guest.ns, "eth0").start().unwrap();
        host.ns().enslave(&guest.port, "virbr1");
        let client = client.reboot().unwrap();
        assert_eq!(client.lease().address.octets()[..3], [10, 9, 8]);
        assert_heard(&host, guest.mac, "REQUEST", "NAK", "the address is not on this network");
        // Both networks tell their part.
        let networks: Vec<_> =
            explain(&host, &guest.mac.to_string()).iter().map(|e| e.network.to_string()).collect();
        assert_eq!(networks, ["default", "other"]);
    }
}

#[test]
fn one_who_gets_no_address_is_told_of_by_name() {
    let host = Host::new();
    small(&host);
    let netd = host.netd();
    let (first, second) = (host.lan.guest_on("virbr0"), host.lan.guest_on("virbr0"));
    let holder = Udhcpc.on(&first.ns, "eth0").start().unwrap();
    let setup = Udhcpc.on(&second.ns, "eth0").patience(Duration::from_secs(3));
    assert!(setup.start().is_err());
    assert_heard(&host, second.mac, "DISCOVER", "-", "silent: every address is taken");
    let told = netd.vnet_ok(["explain", &second.mac.to_string()]);
    assert!(told.contains("no address"), "{told}");
    assert!(told.contains("every address is taken: make the range larger"), "{told}");
    assert!(told.contains(" times, last at "), "{told}");
    holder.release().unwrap();
    let gone = || host.leases()[0].state == "released";
    until("the release", gone);
    let lease = Udhcpc.obtain(&second.ns, "eth0");
    assert_eq!(lease.address, Ipv4Addr::new(192, 168, 122, 100));
}

#[test]
fn a_guest_moves_to_a_reservation_that_was_made_while_it_ran() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    for kind in ClientKind::ALL {
        let guest = host.lan.guest_on("virbr0");
        let mut client = kind.on(&guest.ns, "eth0").start().unwrap();
        let free = |ip: &Ipv4Addr| host.leases().iter().all(|lease| lease.address != *ip);
        let ip = (201..).map(|last| Ipv4Addr::new(192, 168, 122, last)).find(free).unwrap();
        let reserve = Reserve { ip: Some(ip), ip6: None, hostname: None };
        wait(host.client().reserve(&network("default"), guest.mac, &reserve, Run::Real)).unwrap();
        // dhcpcd hears no broadcast while it renews, and a NAK is one (RFC 2131 §4.1): it moves
        // when it rebinds or reboots. dhclient cannot be asked to renew.
        let lease = match kind {
            Udhcpc => client.renew().unwrap().clone(),
            Dhclient | Dhcpcd => {
                client = client.reboot().unwrap();
                client.lease().clone()
            }
        };
        assert_eq!(lease.address, ip);
        let reason = format!("{ip} is reserved for the client");
        assert_heard(&host, guest.mac, "REQUEST", "NAK", &reason);
        // The reservation goes, and the lease goes on.
        wait(host.client().unreserve(&network("default"), guest.mac, Run::Real)).unwrap();
        if kind != Dhclient {
            assert_eq!(client.renew().unwrap().address, ip);
        }
    }
}

#[test]
fn leases_can_be_followed() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let mut command = netd.ns().command(vnet_testkit::binary("vnet"));
    command.args(["leases", "--follow", "--json"]).env("VNET_ROOT", host.root.path());
    let mut follower = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let guest = host.lan.guest_on("virbr0");
    let client = Udhcpc.on(&guest.ns, "eth0").start().unwrap();
    let new = next();
    assert_eq!((&new["change"], &new["lease"]["state"]), (&"new".into(), &"bound".into()));
    assert_eq!(new["lease"]["mac"], Value::from(guest.mac.to_string()));
    client.release().unwrap();
    let changed = next();
    assert_eq!(changed["lease"]["state"], Value::from("released"));
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn a_guest_is_explained_by_name_address_and_card() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let lease = Udhcpc.on(&guest.ns, "eth0").hostname("web").obtain();
    let mac = guest.mac.to_string();
    for name in ["web", &lease.address.to_string(), &mac, &mac.to_uppercase()] {
        let told = netd.vnet_json(["explain", name]);
        let answers: Vec<_> = told[0]["exchanges"].as_array().unwrap().iter().collect();
        let answer = |at: usize| answers[at]["answer"].as_str().unwrap();
        assert_eq!((answer(0), answer(1)), ("OFFER", "ACK"), "{name}");
        assert_eq!(told[0]["lease"]["address"], Value::from(lease.address.to_string()));
    }
    let told = netd.vnet_ok(["explain", "web"]);
    assert!(told.starts_with(&format!("web ({mac}) on default: {}", lease.address)), "{told}");
    // Of one who never spoke there is nothing to tell, and a name that nobody has is an error.
    assert_eq!(netd.vnet_json(["explain", "52:54:00:99:99:99"]), serde_json::json!([]));
    let output = netd.vnet(["explain", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody is known as nobody"));
}
