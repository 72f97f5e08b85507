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
    let host = Host::new();
    make_foreign(&host);
    let untouched = HostState::of(host.ns());
    for survived in 1..MANY {
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

/// What others have on the host, and what no plan may touch: a bridge with an address and a port,
/// routes in a table of their own, a rule, a neighbour, queues, and rules of both kinds.
fn make_foreign(host: &Host) {
    let ns = host.ns();
    ns.ip("link add docker0 type bridge");
    ns.ip("link add veth1 type veth peer name veth2");
    for link in ["docker0", "veth1", "veth2"] {
        ns.up(link);
    }
    ns.enslave("veth1", "docker0");
    ns.address("docker0", "172.17.0.1/16");
    ns.ip("route add 10.99.0.0/16 via 203.0.113.1 table 77 metric 5");
    ns.ip("route add blackhole 10.98.0.0/16");
    ns.ip("rule add from 172.17.0.0/16 lookup 77 priority 1000");
    ns.ip("neigh add 203.0.113.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent");
    ns.run("tc qdisc add dev docker0 root tbf rate 9mbit burst 9kb limit 9kb".split(' '));
    ns.nft(
        "table inet others { set s { type ipv4_addr; elements = { 10.0.0.1 }\n}
         chain forward { type filter hook forward priority 5; ip saddr @s drop; }\n}
         table bridge others { chain c { type filter hook prerouting priority 0; }\n}",
    );
    ns.settle("docker0");
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

const MODES: [Mode; 3] = [Mode::Nat, Mode::Hostonly, Mode::Routed];

/// Everything that can be done to a network, from a state that makes each of its plans as long as
/// it gets: with forwards (but for hostonly networks, which have none), limits, and a second network.
struct Action {
    name: &'static str,
    prepare: fn(&Host, Mode),
    act: fn(&Host, Mode) -> Result<(), ClientError>,
}

fn edit_text(host: &Host, change: impl Fn(&str) -> String) -> Result<(), ClientError> {
    let default = vnet_tests::network("default");
    let text = std::fs::read_to_string(host.paths().network(&default)).unwrap();
    vnet_tests::wait(host.client().edit(&default, change(&text), Run::Real)).map(drop)
}

fn limited(host: &Host, mode: Mode) -> Result<(), ClientError> {
    let all = |text: &str| Some(text.parse().unwrap());
    let limits = vnet_types::Limits {
        inbound: all("80mbit"),
        outbound: all("40mbit"),
        port_in: all("20mbit"),
        port_out: all("10mbit"),
    };
    let request = vnet_api::model::CreateNetwork { limits, ..request(mode, "default") };
    host.create(&request).map(drop)
}

fn full(host: &Host, mode: Mode) {
    limited(host, mode).unwrap();
    if mode != Mode::Hostonly {
        crate::crash_forwards::add(host).unwrap();
    }
    host.create(&nat("other")).unwrap();
}

fn plain(host: &Host, mode: Mode) {
    host.create(&request(mode, "default")).unwrap();
}

const ACTIONS: [Action; 6] = [
    Action { name: "create", prepare: |_, _| {}, act: limited },
    Action { name: "stop", prepare: full, act: |host, _| host.stop("default").map(drop) },
    Action {
        name: "start",
        prepare: |host, mode| {
            full(host, mode);
            host.stop("default").unwrap();
        },
        act: |host, _| host.start("default").map(drop),
    },
    Action { name: "delete", prepare: full, act: |host, _| host.delete("default").map(drop) },
    Action {
        name: "limit",
        prepare: plain,
        act: |host, _| {
            edit_text(host, |text| format!("{text}\n[limits]\nin = \"9mbit\"\nout = \"8mbit\"\n"))
        },
    },
    Action {
        name: "limit no more, elsewhere",
        prepare: full,
        act: |host, _| {
            edit_text(host, |text| {
                let text = text.replace("192.168.122.", "10.20.30.").replace("virbr0", "br-lab");
                text.replace("port_in", "in").replace("in = \"80mbit\"\n", "")
            })
        },
    },
];

/// Every action of every mode in `share`: one of as many tests as there are processors to use.
fn dies_in_every_plan(share: usize) {
    let all = MODES.iter().flat_map(|mode| ACTIONS.iter().map(move |action| (*mode, action)));
    // Shifted by one with each mode, so that each share has some of every action.
    let mine = all.enumerate().filter(|(at, _)| (at + at / ACTIONS.len()) % 3 == share);
    for (mode, action) in mine.map(|(_, one)| one) {
        println!("{} {mode}", action.name);
        let operations = dies_at_every_operation(
            |host| (action.prepare)(host, mode),
            |host| (action.act)(host, mode),
            |host| {
                let name = vnet_tests::network("default");
                let networks = vnet_tests::wait(host.client().networks()).unwrap();
                let found = networks.iter().find(|network| network.definition.name == name);
                let is_up =
                    found.is_some_and(|network| network.state == vnet_api::model::State::Active);
                let there = ["virbr0", "br-lab"].map(|link| {
                    found.is_some_and(|network| network.definition.bridge.as_str() == link) && is_up
                });
                // The other network has virbr0 if this one was defined after it, never before.
                bridge(host, "br-lab") == there[1] && bridge(host, "virbr0") == there[0]
            },
        );
        assert!(operations > 1, "{} {mode}: only {operations} operations", action.name);
    }
}

#[test]
fn in_every_plan_of_every_mode_part_1() {
    dies_in_every_plan(0);
}

#[test]
fn in_every_plan_of_every_mode_part_2() {
    dies_in_every_plan(1);
}

#[test]
fn in_every_plan_of_every_mode_part_3() {
    dies_in_every_plan(2);
}
