//! netd killed at any instant: the next one converges, leases are kept, nothing is left over.

use vnet_api::client::{ClientError, Run};
use vnet_testkit::{HostState, Udhcpc};
use vnet_types::Mode;

use crate::edit::DEFINITION;
use vnet_tests::{Host, nat, request};

/// More operations than any plan here has.
const MANY: u32 = 60;

/// Runs `act` against a netd that dies after 1, 2, 3… operations, until it survives. After each
/// death, a new netd must leave the host in one of the two whole states.
pub(crate) fn dies_at_every_operation(
    prepare: impl Fn(&Host),
    act: impl Fn(&Host) -> Result<(), ClientError>,
    whole: impl Fn(&Host) -> bool,
) -> u32 {
    for survived in 1..MANY {
        let host = Host::new();
        let untouched = HostState::of(host.ns());
        {
            let _netd = host.netd();
            prepare(&host);
        }
        let ledger = std::fs::read(host.paths().ledger()).ok();
        let netd = host.try_netd(&[("VNET_CRASH_AFTER", &survived.to_string())]);
        let acted = netd.as_ref().ok().map(|_| act(&host));
        drop(netd);
        let _netd = host.netd();
        assert!(whole(&host), "after {survived} operations, from {ledger:?}");
        for network in vnet_tests::wait(host.client().networks()).unwrap() {
            host.delete(network.definition.name.as_str()).unwrap();
        }
        untouched.assert_same(&HostState::of(host.ns()));
        if matches!(acted, Some(Ok(()))) {
            return survived;
        }
    }
    panic!("netd died {MANY} times");
}

fn bridge(host: &Host, name: &str) -> bool {
    host.ns().try_run(["ip", "link", "show", name]).is_ok()
}

#[test]
fn while_it_creates_a_network() {
    let operations = dies_at_every_operation(
        |_| {},
        |host| host.create(&nat("default")).map(drop),
        |host| {
            // The definition was on disk before the first operation: the network is up.
            host.network("default").state == vnet_api::model::State::Active
                && bridge(host, "virbr0")
                && host.ns().sysctl("net.ipv4.ip_forward") == "1"
        },
    );
    assert!(operations > 5, "only {operations} operations");
}

#[test]
fn while_it_creates_one_more_network() {
    dies_at_every_operation(
        |host| drop(host.create_default()),
        |host| host.create(&request(Mode::Hostonly, "lab")).map(drop),
        |host| bridge(host, "virbr0"),
    );
}

#[test]
fn while_it_stops_a_network() {
    dies_at_every_operation(
        |host| drop(host.create_default()),
        |host| host.stop("default").map(drop),
        |host| {
            let active = host.network("default").state == vnet_api::model::State::Active;
            active == bridge(host, "virbr0")
                && active == (host.ns().sysctl("net.ipv4.ip_forward") == "1")
        },
    );
}

#[test]
fn while_it_deletes_a_network() {
    dies_at_every_operation(
        |host| drop(host.create_default()),
        |host| host.delete("default").map(drop),
        |host| {
            let defined = host.paths().network(&vnet_tests::network("default")).exists();
            defined == bridge(host, "virbr0")
        },
    );
}

/// What netd says it publishes is what the firewall holds.
fn forwards_are_whole(host: &Host) -> bool {
    let said = !vnet_tests::wait(host.client().forwards(None)).unwrap().is_empty();
    let element = "elements = { tcp . 8080 : 192.168.122.9 }";
    let held = host.ns().run(["nft", "list", "map", "inet", "vnet", "any_address"]);
    let localnet = host.ns().sysctl("net.ipv4.conf.virbr0.route_localnet") == "1";
    said == held.contains(element) && said == localnet
}

fn add_forward(host: &Host) -> Result<(), ClientError> {
    let forward =
        vnet_types::Forward::new("8080".parse().unwrap(), "192.168.122.9:80".parse().unwrap());
    let default = vnet_tests::network("default");
    vnet_tests::wait(host.client().add_forward(&default, &forward, Run::Real)).map(drop)
}

#[test]
fn while_it_publishes_a_port() {
    let operations = dies_at_every_operation(
        |host| drop(host.create_default()),
        add_forward,
        forwards_are_whole,
    );
    assert!(operations > 2, "only {operations} operations");
}

#[test]
fn while_it_publishes_a_port_no_more() {
    let operations = dies_at_every_operation(
        |host| {
            host.create_default();
            add_forward(host).unwrap();
        },
        |host| {
            let listen = "8080".parse().unwrap();
            let default = vnet_tests::network("default");
            vnet_tests::wait(host.client().remove_forward(&default, &listen, Run::Real)).map(drop)
        },
        forwards_are_whole,
    );
    assert!(operations > 2, "only {operations} operations");
}

#[test]
fn leases_and_connections_survive_kill_9() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    let lease = Udhcpc::on(&guest.ns, "eth0").hostname("web").obtain();
    let leases = host.leases();
    let rules = host.ns().run(["nft", "-s", "list", "ruleset"]);
    netd.kill9();
    // The kernel carries the guests meanwhile.
    vnet_testkit::ping(&guest.ns, vnet_testkit::Lan::SERVER.to_string().parse().unwrap()).unwrap();
    let before = HostState::of(host.ns());
    let _netd = host.netd();
    before.assert_same(&HostState::of(host.ns()));
    assert_eq!(host.ns().run(["nft", "-s", "list", "ruleset"]), rules);
    assert_eq!(host.leases(), leases);
    let answer = guest.ns.run(["dig", "+short", "@192.168.122.1", "web.default.vnet"]);
    assert_eq!(answer.trim(), lease.address.to_string());
}

#[test]
fn an_address_is_not_given_twice_across_a_crash() {
    let host = Host::new();
    let mut addresses = std::collections::BTreeSet::new();
    {
        let _netd = host.netd();
        host.create_default();
    }
    for _ in 0..5 {
        let netd = host.netd();
        let guest = host.lan.guest_on("virbr0");
        let lease = Udhcpc::obtain(&guest.ns, "eth0");
        netd.kill9();
        assert!(addresses.insert(lease.address), "{} was given twice", lease.address);
    }
}

#[test]
fn a_torn_last_record_costs_that_record_only() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    Udhcpc::obtain(&guest.ns, "eth0");
    let leases = host.leases();
    netd.kill9();
    let path = host.paths().leases(&vnet_tests::network("default"));
    let mut bytes = std::fs::read(&path).unwrap();
    let good = bytes.len();
    let torn = bytes.clone();
    bytes.extend(&torn[..torn.len() / 2]);
    std::fs::write(&path, &bytes).unwrap();
    let _netd = host.netd();
    assert_eq!(host.leases(), leases);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), good as u64);
}

#[test]
fn a_stopped_network_stays_stopped_over_a_restart() {
    let host = Host::new();
    {
        let _netd = host.netd();
        host.create_default();
        host.stop("default").unwrap();
    }
    let _netd = host.netd();
    assert_eq!(host.network("default").state, vnet_api::model::State::Stopped);
    assert!(!bridge(&host, "virbr0"));
}

#[test]
fn rules_that_were_tampered_with_are_replaced_at_the_next_start() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let rules = host.ns().run(["nft", "-s", "list", "ruleset"]);
    netd.kill9();
    host.ns().run(["nft", "flush", "chain", "inet", "vnet", "to_nat"]);
    let _netd = host.netd();
    assert_eq!(host.ns().run(["nft", "-s", "list", "ruleset"]), rules);
}

#[test]
fn while_it_applies_an_edit() {
    // Everything that an edit can change, at once: a plan with operations of every kind.
    let edits: [(&str, &str); 3] = [
        ("192.168.122.", "10.20.30."),
        ("\"virbr0\"   # as libvirt calls it", "\"br-lab\""),
        ("\"nat\"", "\"hostonly\""),
    ];
    let all = |text: &str| edits.iter().fold(text.to_owned(), |text, (a, b)| text.replace(a, b));
    for (old, new) in [
        (DEFINITION.to_owned(), all(DEFINITION).replace("1500", "1400")),
        (DEFINITION.to_owned(), DEFINITION.replace("192.168.122.", "10.20.30.")),
        (all(DEFINITION), DEFINITION.to_owned()),
    ] {
        dies_while_it_edits(&old, &new);
    }
}

/// A netd that dies while it turns `old` into `new` leaves one of the two, whole, to the next.
fn dies_while_it_edits(old: &str, new: &str) {
    let default = vnet_tests::network("default");
    let operations = dies_at_every_operation(
        |host| {
            host.define("default", old);
            host.start("default").unwrap();
        },
        |host| vnet_tests::wait(host.client().edit(&default, new.to_owned(), Run::Real)).map(drop),
        |host| {
            let text = std::fs::read_to_string(host.paths().network(&default)).unwrap();
            assert!(text == old || text == new, "{text}");
            let network = host.network("default");
            let bridge_is = |name| host.ns().try_run(["ip", "-4", "addr", "show", name]);
            let bridges = [bridge_is("virbr0"), bridge_is("br-lab")];
            let [one] = bridges.iter().flatten().collect::<Vec<_>>()[..] else { return false };
            let address = format!("inet {}/24", network.gateway);
            let forwards = network.definition.mode != Mode::Hostonly;
            network.state == vnet_api::model::State::Active
                && text.contains(&format!("\"{}\"", network.definition.bridge))
                && text.contains(&network.definition.subnet.to_string())
                && one.contains(&format!("mtu {}", network.mtu))
                && one.matches("inet ").count() == 1
                && one.contains(&address)
                && forwards == (host.ns().sysctl("net.ipv4.ip_forward") == "1")
        },
    );
    assert!(operations > 3, "only {operations} operations");
}
