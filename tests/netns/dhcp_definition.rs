//! What a definition says about DHCP, as real clients get to feel it.

use std::net::Ipv4Addr;
use std::time::Duration;

use vnet_testkit::{Dhcpcd, Udhcpc};

use vnet_tests::{Host, refusal, wait};

fn define(host: &Host, root: &str, dhcp: &str) {
    host.define(
        "default",
        &format!(
            r#"name = "default"
mode = "nat"
bridge = "virbr0"
subnet = "192.168.122.0/24"
domain = "default.vnet"
{root}

[dhcp]
range = "192.168.122.100-192.168.122.103"
{dhcp}
"#
        ),
    );
}

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 122, last)
}

#[test]
fn an_address_that_somebody_has_already_is_not_given() {
    let host = Host::new();
    define(&host, "anti_spoofing = false", "exclude = [\"192.168.122.102-192.168.122.103\"]");
    let netd = host.netd();
    // Two guests chose for themselves what the range would have next.
    let squatters = [100, 101].map(|last| {
        let guest = host.lan.guest_on("virbr0");
        guest.ns.ip("link set eth0 up");
        guest.ns.ip(&format!("addr add {}/24 dev eth0", at(last)));
        guest
    });
    let guest = host.lan.guest_on("virbr0");
    let patience = Duration::from_secs(3);
    assert!(Udhcpc::on(&guest.ns, "eth0").patience(patience).start().is_err());
    let told = netd.vnet_ok(["explain", &guest.mac.to_string()]);
    for squatter in &squatters {
        let words = format!("because {} answers for it", squatter.mac);
        assert!(told.contains(&words), "no `{words}` in\n{told}");
    }
    assert!(host.leases().iter().all(|lease| lease.state == "declined"));
    // Others are served meanwhile, as soon as there is an address that is nobody's.
    define(&host, "anti_spoofing = false", "exclude = [\"192.168.122.103\"]");
    let text = std::fs::read_to_string(host.paths().network(&vnet_tests::network("default")));
    let run = vnet_api::client::Run::Real;
    wait(host.client().edit(&vnet_tests::network("default"), text.unwrap(), run)).unwrap();
    assert_eq!(Udhcpc::obtain(&guest.ns, "eth0").address, at(102));
}

#[test]
fn one_clients_probe_delays_no_other() {
    let host = Host::new();
    define(&host, "anti_spoofing = false", "");
    let _netd = host.netd();
    let guests = [(); 4].map(|()| host.lan.guest_on("virbr0"));
    let mut given: Vec<_> = std::thread::scope(|scope| {
        let obtain = |guest| scope.spawn(move || Udhcpc::obtain(guest, "eth0").address);
        let running: Vec<_> = guests.iter().map(|guest| obtain(&guest.ns)).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    given.sort();
    assert_eq!(given, [100, 101, 102, 103].map(at));
}

#[test]
fn options_reach_those_that_ask() {
    let host = Host::new();
    let options = r#"
[dhcp.options]
domain-search = ["lab.example", "example"]
routers = ["192.168.122.9"]
"#;
    define(&host, "", options);
    let _netd = host.netd();
    for kind in [vnet_testkit::ClientKind::Udhcpc, vnet_testkit::ClientKind::Dhcpcd] {
        let guest = host.lan.guest_on("virbr0");
        let lease = kind.obtain(&guest.ns, "eth0");
        assert_eq!(lease.router, Some(at(9)));
        assert_eq!(lease.search, ["lab.example", "example"]);
    }
}

#[test]
fn a_guest_is_known_by_its_client_identifier_on_any_card() {
    let host = Host::new();
    let reserved = r#"reservations = [{ client_id = "ff:00:01:02", ip = "192.168.122.50" }]"#;
    define(&host, "anti_spoofing = false", reserved);
    let _netd = host.netd();
    let guest = host.lan.guest_on("virbr0");
    let lease = Dhcpcd::on(&guest.ns, "eth0").client_id(&[0xff, 0, 1, 2]).obtain();
    assert_eq!(lease.address, at(50));
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let name = vnet_tests::network("default");
    let text = wait(host.client().definition(&name)).unwrap();
    for (more, words) in [
        ("exclude = [\"192.168.1.1\"]", "192.168.1.1 is not in the DHCP range"),
        ("options = { ntp = [\"10.0.0.1\"] }", "there is no DHCP option `ntp`"),
        (
            "reservations = [{ client_id = \"ff01\", ip = \"192.168.122.9\" }]",
            "set `anti_spoofing = false`",
        ),
        ("reservations = [{ ip = \"192.168.122.9\" }]", "give it either `mac` or `client_id`"),
    ] {
        let text = text.replace("[dhcp]\n", &format!("[dhcp]\n{more}\n"));
        let run = vnet_api::client::Run::Dry;
        let (_, message) = refusal(wait(host.client().edit(&name, text, run)));
        assert!(message.contains(words) && message.contains("line "), "{message}");
    }
}
