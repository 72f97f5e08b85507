//! Networks are closed to each other, whatever their modes, and packets cost the same with many.

use std::net::Ipv4Addr;
use std::thread;

use vnet_testkit::{Guest, Lan, Udhcpc, ping};
use vnet_types::Mode;

use vnet_tests::{Host, nat, network, request, wait};

const MODES: [Mode; 3] = [Mode::Nat, Mode::Hostonly, Mode::Routed];

/// A network of each mode, with a guest on it and the guest's address.
fn one_of_each(host: &Host) -> Vec<(Mode, Guest, Ipv4Addr)> {
    let one = |mode: Mode| {
        let network = host.create(&request(mode, mode.as_str())).unwrap().network.unwrap();
        let guest = host.lan.guest_on(network.definition.bridge.as_str());
        let address = Udhcpc::obtain(&guest.ns, "eth0").address;
        // Where a network leads nowhere its guests have no default route: one is tried all the same.
        let _ = guest.ns.try_run([
            "ip",
            "route",
            "add",
            "default",
            "via",
            &network.gateway.to_string(),
        ]);
        (mode, guest, address)
    };
    MODES.into_iter().map(one).collect()
}

#[test]
fn no_network_reaches_another_and_outside_only_reaches_the_routed_one() {
    let host = Host::new();
    let _netd = host.netd();
    let guests = one_of_each(&host);
    for (_, _, address) in &guests {
        host.lan.outside.route(&format!("{address}/32"), &Lan::HOST.to_string());
    }
    thread::scope(|scope| {
        for (mode, guest, _) in &guests {
            for (other, _, address) in guests.iter().filter(|(other, ..)| other != mode) {
                scope.spawn(move || {
                    assert!(ping(&guest.ns, *address).is_err(), "from {mode} to {other}");
                });
            }
            scope.spawn(move || {
                let reaches = ping(&guest.ns, Lan::SERVER).is_ok();
                assert_eq!(reaches, *mode != Mode::Hostonly, "{mode} to outside");
            });
        }
        for (mode, _, address) in &guests {
            let outside = &host.lan.outside;
            scope.spawn(move || {
                assert_eq!(ping(outside, *address).is_ok(), *mode == Mode::Routed, "{mode}");
            });
        }
    });
    // With their bridges they can talk: it is the rules that keep them apart.
    for (mode, guest, address) in &guests {
        ping(host.ns(), *address).unwrap_or_else(|error| panic!("{mode}: {error:#}"));
        assert!(guest.ns.ip("route").contains("default"));
    }
}

/// How many chains and rules there are of ours, and how many jumps lead from one to the next.
fn rules(host: &Host) -> (usize, usize) {
    let listing = host.ns().run(["nft", "-j", "list", "ruleset"]);
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    let count = |kind: &str| {
        let all = listing["nftables"].as_array().unwrap();
        all.iter().filter(|object| object[kind]["table"] == "vnet").count()
    };
    (count("chain"), count("rule"))
}

#[test]
fn more_networks_guests_forwards_and_limits_are_no_more_rules() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let before = rules(&host);
    assert!(before.0 > 5 && before.1 > 20, "{before:?}");
    one_of_each(&host);
    for number in 0..5 {
        let limits = vnet_types::Limits { outbound: "1gbit".parse().ok(), ..Default::default() };
        let more = vnet_api::model::CreateNetwork { limits, ..nat(&format!("more{number}")) };
        host.create(&more).unwrap();
    }
    for port in 8000..8005u16 {
        let forward = vnet_types::Forward::new(
            port.to_string().parse().unwrap(),
            "192.168.122.9:80".parse().unwrap(),
        );
        let (client, name) = (host.client(), network("default"));
        wait(client.add_forward(&name, &forward, vnet_api::client::Run::Real)).unwrap();
    }
    assert_eq!(rules(&host), before);
}
