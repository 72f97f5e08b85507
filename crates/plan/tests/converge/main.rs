//! The properties that make the planner safe to rely on, over a model of the kernel: applying a
//! plan arrives at what is desired; so does a crash after any of its operations followed by a new
//! plan; a second plan is empty; and what isn't ours is never touched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod model;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use vnet_plan::{
    Alias, Conflict, Desired, FORWARD6, FirewallState, GuestAddresses, IP_FORWARD, Link, LinkKind,
    Observed, Operation, Plan, diff, free_mac,
};
use vnet_types::{
    Dns, Forward, Ipv6, Limits, MacAddr, Mode, NetworkDefinition, NetworkName, Subnet,
};

use model::{Model, link};

fn network(name: &str, bridge: &str, mode: Mode, third: u8, mtu: u32) -> NetworkDefinition {
    let subnet: Subnet = format!("192.168.{third}.0/24").parse().unwrap();
    NetworkDefinition {
        name: name.parse().unwrap(),
        mode,
        bridge: bridge.parse().unwrap(),
        subnet,
        domain: format!("{name}.vnet").parse().unwrap(),
        uplink: None,
        mtu: Some(mtu),
        limits: Limits::default(),
        autostart: true,
        anti_spoofing: true,
        dhcp: None,
        ipv6: None,
        dns: Dns::default(),
        forwards: Vec::new(),
    }
}

fn desired(networks: Vec<NetworkDefinition>, observed: &Observed) -> Desired {
    let with_mac = |network: NetworkDefinition| {
        let mac: MacAddr = free_mac(&network, observed);
        (network.name.clone(), (Arc::new(network), mac))
    };
    let networks: BTreeMap<_, _> = networks.into_iter().map(with_mac).collect();
    // Guests of every other network have an address.
    let address =
        |(number, (name, (network, _))): (usize, (&NetworkName, &(Arc<NetworkDefinition>, _)))| {
            let v6 = network.ipv6.as_ref().map(|ipv6| ipv6.prefix.guests().first());
            let here = GuestAddresses { v4: Some(network.subnet.guests().first()), v6 };
            let web = ("web".parse().unwrap(), here);
            (number % 2 == 0).then(|| (name.clone(), BTreeMap::from([web])))
        };
    let addresses = networks.iter().enumerate().filter_map(address).collect();
    Desired { networks, addresses, ..Desired::default() }
}

fn networks() -> impl Strategy<Value = Vec<NetworkDefinition>> {
    let mode = prop_oneof![Just(Mode::Nat), Just(Mode::Hostonly), Just(Mode::Routed)];
    // Names and bridges are shuffled against each other, so that bridges change hands.
    let mtu = prop_oneof![Just(1500u32), Just(9000)];
    let ipv6 = prop::option::of(0..3u64);
    let one = (0..4usize, mode, 0..6u8, mtu, forwards(), limits(), ipv6);
    (prop::collection::vec(one, 0..4), 0..4usize).prop_map(|(all, shift)| {
        let mut by_name = BTreeMap::new();
        for (number, mode, third, mtu, forwards, limits, ipv6) in all {
            let bridge = format!("virbr{}", (number + shift) % 4);
            let mut network = network(&format!("net{number}"), &bridge, mode, 122 + third, mtu);
            network.ipv6 = ipv6.map(|id| Ipv6::new(vnet_types::Prefix6::unique_local(id)));
            if mode != Mode::Hostonly {
                network.forwards = forwards;
            }
            network.limits = limits;
            by_name.insert(number, network);
        }
        by_name.into_values().collect()
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let one = || prop::option::of(prop_oneof![Just("10mbit"), Just("1gbit/64kbyte")]);
    (one(), one(), one(), one()).prop_map(|all| {
        let [inbound, outbound, port_in, port_out] =
            [all.0, all.1, all.2, all.3].map(|text| text.map(|text| text.parse().unwrap()));
        Limits { inbound, outbound, port_in, port_out }
    })
}

fn forwards() -> impl Strategy<Value = Vec<Forward>> {
    let listens = ["8080", "203.0.113.2:81", "127.0.0.1:82/udp", "9000-9002/udp", "[::]:8081"];
    prop::sample::subsequence(listens.to_vec(), 0..=2).prop_map(|listens| {
        let forward =
            |listen: &str| Forward::new(listen.parse().unwrap(), "web:7".parse().unwrap());
        listens.into_iter().map(forward).collect()
    })
}

proptest! {
    #[test]
    fn a_plan_arrives_and_the_next_one_is_empty(steps in prop::collection::vec(networks(), 1..4)) {
        let mut kernel = Model::with_uplink();
        let foreign = kernel.foreign();
        for networks in steps {
            let desired = desired(networks, &kernel.state);
            let plan = diff(&desired, &kernel.state).unwrap();
            kernel.run(&plan);
            prop_assert_eq!(diff(&desired, &kernel.state).unwrap(), Plan::default());
            prop_assert_eq!(kernel.foreign(), foreign.clone());
        }
    }

    #[test]
    fn a_crash_after_any_operation_changes_nothing_in_the_end(before in networks(), after in networks()) {
        let mut kernel = Model::with_uplink();
        let untouched = kernel.clone();
        kernel.run(&diff(&desired(before.clone(), &kernel.state), &kernel.state).unwrap());
        let whole = kernel.clone();
        let goal = desired(after, &kernel.state);
        let plan = diff(&goal, &kernel.state).unwrap();
        for survived in 0..=plan.operations.len() {
            let mut kernel = kernel.clone();
            plan.operations[..survived].iter().for_each(|operation| kernel.apply(operation));
            kernel.crash();
            // An edit that did not come to its end leads back.
            let mut back = kernel.clone();
            let start = desired(before.clone(), &back.state);
            back.run(&diff(&start, &back.state).unwrap());
            prop_assert_eq!(&back.state.ledger, &whole.state.ledger);
            prop_assert_eq!(&back.state.firewall, &whole.state.firewall);
            prop_assert_eq!(back.without_numbers(), whole.without_numbers());
            let repair = diff(&goal, &kernel.state).unwrap();
            kernel.run(&repair);
            prop_assert_eq!(diff(&goal, &kernel.state).unwrap(), Plan::default());
            // And all of it can be taken down to what was there before.
            let nothing = diff(&Desired::default(), &kernel.state).unwrap();
            kernel.run(&nothing);
            prop_assert_eq!(&kernel.state, &untouched.state);
        }
    }
}

#[test]
fn a_network_that_is_up_and_right_needs_nothing() {
    let mut kernel = Model::with_uplink();
    let goal = desired(vec![network("default", "virbr0", Mode::Nat, 122, 1500)], &kernel.state);
    kernel.run(&diff(&goal, &kernel.state).unwrap());
    assert!(diff(&goal, &kernel.state).unwrap().is_empty());
}

#[test]
fn the_first_network_in_words() {
    let kernel = Model::with_uplink();
    let goal = desired(vec![network("default", "virbr0", Mode::Nat, 122, 1500)], &kernel.state);
    let plan = diff(&goal, &kernel.state).unwrap().to_string();
    let expected = "  1. note that the bridge virbr0 of default is ours
  2. create bridge virbr0 with address MAC
  3. label virbr0 vnet:default
  4. keep IPv6 off virbr0
  5. set virbr0 mtu 1500
  6. add address 192.168.122.1/24 to virbr0
  7. install nftables tables inet vnet and bridge vnet for virbr0 (nat 192.168.122.0/24)
  8. note the present settings of IPv4 forwarding
  9. turn on IPv4 forwarding
 10. forward what comes from virbr0
 11. set virbr0 up
";
    let mac = goal.networks.values().next().unwrap().1;
    assert_eq!(plan, expected.replace("MAC", &mac.to_string()));
}

#[test]
fn a_network_with_ipv6_in_words() {
    let kernel = Model::with_uplink();
    let mut net = network("default", "virbr0", Mode::Nat, 122, 1500);
    net.ipv6 = Some(Ipv6::new("fd12:3456:789a::/64".parse().unwrap()));
    let goal = desired(vec![net], &kernel.state);
    let plan = diff(&goal, &kernel.state).unwrap().to_string();
    let mac = goal.networks.values().next().unwrap().1;
    let expected = format!(
        "  4. set virbr0 mtu 1500
  5. let virbr0 have IPv6, with the addresses that it is given
  6. add address 192.168.122.1/24 to virbr0
  7. add address fd12:3456:789a::1/64 to virbr0
  8. add address {}/64 to virbr0
  9. install nftables tables inet vnet and bridge vnet for virbr0 (nat 192.168.122.0/24 and \
         fd12:3456:789a::/64)
 10. note the present settings of IPv4 forwarding
 11. turn on IPv4 forwarding
 12. note the present settings of IPv6 forwarding
 13. note that eth0 takes router advertisements while it does not forward
 14. let eth0 take router advertisements though it forwards
 15. turn on IPv6 forwarding
 16. be an IPv6 router on virbr0
 17. forward what comes from virbr0
",
        vnet_types::link_local(mac)
    );
    assert!(plan.contains(&expected), "{plan}");
}

#[test]
fn an_uplink_that_comes_later_hears_its_router_too() {
    let mut kernel = Model::with_uplink();
    let mut net = network("default", "virbr0", Mode::Nat, 122, 1500);
    net.ipv6 = Some(Ipv6::new("fd12:3456:789a::/64".parse().unwrap()));
    let goal = desired(vec![net], &kernel.state);
    kernel.run(&diff(&goal, &kernel.state).unwrap());
    let mut late = link(8, LinkKind::Other, "02:00:00:00:00:08");
    late.ipv6.forwarding = true;
    kernel.state.links.insert("eth1".into(), late);
    kernel.run(&diff(&goal, &kernel.state).unwrap());
    assert_eq!(kernel.link(&"eth1").ipv6.accept_ra, 2);
    assert!(diff(&goal, &kernel.state).unwrap().is_empty());
    kernel.run(&diff(&Desired::default(), &kernel.state).unwrap());
    let late = kernel.link(&"eth1").ipv6;
    assert_eq!((late.accept_ra, late.forwarding), (1, false));
}

#[test]
fn a_host_that_is_an_ipv6_router_already_is_left_alone() {
    let mut kernel = Model::with_uplink();
    kernel.state.sysctls.insert(FORWARD6.into(), "1".into());
    kernel.change_all(|_, link| link.ipv6.forwarding = true);
    let untouched = kernel.state.clone();
    let mut net = network("default", "virbr0", Mode::Nat, 122, 1500);
    net.ipv6 = Some(Ipv6::new("fd12:3456:789a::/64".parse().unwrap()));
    let goal = desired(vec![net], &kernel.state);
    kernel.run(&diff(&goal, &kernel.state).unwrap());
    assert_eq!(kernel.state.links.get("eth0"), untouched.links.get("eth0"));
    kernel.run(&diff(&Desired::default(), &kernel.state).unwrap());
    assert_eq!(kernel.state, untouched);
}

#[test]
fn a_foreign_link_with_our_name_is_left_alone() {
    let kernel = Model::with_uplink();
    let goal = desired(vec![network("default", "docker0", Mode::Nat, 122, 1500)], &kernel.state);
    let error = diff(&goal, &kernel.state).unwrap_err();
    assert!(matches!(error, Conflict::ForeignLink { .. }));
}

#[test]
fn two_networks_on_one_bridge_are_refused() {
    let kernel = Model::with_uplink();
    let both = vec![
        network("a", "virbr0", Mode::Nat, 122, 1500),
        network("b", "virbr0", Mode::Nat, 123, 1500),
    ];
    let error = diff(&desired(both, &kernel.state), &kernel.state).unwrap_err();
    assert!(matches!(error, Conflict::SharedBridge { .. }));
}

#[test]
fn forwarding_that_was_on_before_stays_on_after() {
    let mut kernel = Model::with_uplink();
    kernel.state.sysctls.insert(IP_FORWARD.into(), "1".into());
    let goal = desired(vec![network("default", "virbr0", Mode::Nat, 122, 1500)], &kernel.state);
    kernel.run(&diff(&goal, &kernel.state).unwrap());
    kernel.run(&diff(&Desired::default(), &kernel.state).unwrap());
    assert_eq!(kernel.state.sysctls[IP_FORWARD], "1");
}

#[test]
fn a_hostonly_network_turns_no_forwarding_on() {
    let kernel = Model::with_uplink();
    let goal = desired(vec![network("lab", "virbr0", Mode::Hostonly, 122, 1500)], &kernel.state);
    let plan = diff(&goal, &kernel.state).unwrap();
    assert!(!plan.operations.contains(&Operation::EnableForwarding));
}

#[test]
fn ports_return_to_a_bridge_that_was_lost() {
    let mut kernel = Model::with_uplink();
    let goal = desired(vec![network("default", "virbr0", Mode::Nat, 122, 1500)], &kernel.state);
    let alias = Alias::Port {
        network: "default".parse().unwrap(),
        domain: "web".parse().unwrap(),
        nic: 0,
        mac: "52:54:00:00:00:01".parse().unwrap(),
        limits: Default::default(),
    };
    let tap = Link { alias: Some(alias), ..link(9, LinkKind::Tun, "52:54:00:00:00:09") };
    kernel.state.links.insert("vtap0".into(), tap);
    kernel.run(&diff(&goal, &kernel.state).unwrap());
    assert_eq!(kernel.link(&"vtap0").master, Some(kernel.link(&"virbr0").index));
}

#[test]
fn a_renamed_bridge_keeps_its_address_and_its_ports() {
    let mut kernel = Model::with_uplink();
    let goal = desired(vec![network("default", "virbr0", Mode::Nat, 122, 1500)], &kernel.state);
    kernel.run(&diff(&goal, &kernel.state).unwrap());
    let mac = kernel.link(&"virbr0").mac;
    let alias = Alias::Port {
        network: "default".parse().unwrap(),
        domain: "web".parse().unwrap(),
        nic: 0,
        mac: "52:54:00:00:00:01".parse().unwrap(),
        limits: Default::default(),
    };
    let tap = Link {
        alias: Some(alias),
        master: Some(kernel.link(&"virbr0").index),
        ..link(9, LinkKind::Tun, "52:54:00:00:00:09")
    };
    kernel.state.links.insert("vtap0".into(), tap);
    let goal = desired(vec![network("default", "br-lab", Mode::Nat, 123, 9000)], &kernel.state);
    kernel.run(&diff(&goal, &kernel.state).unwrap());
    assert!(kernel.state.links.get("virbr0").is_none());
    assert_eq!(kernel.link(&"br-lab").mac, mac);
    assert_eq!(kernel.link(&"vtap0").master, Some(kernel.link(&"br-lab").index));
    assert_eq!(kernel.link(&"vtap0").mtu, 9000);
    assert!(diff(&goal, &kernel.state).unwrap().is_empty());
}

#[test]
fn a_bridge_is_known_by_its_label_when_the_ledger_is_lost() {
    let mut kernel = Model::with_uplink();
    let goal = desired(vec![network("default", "virbr0", Mode::Nat, 122, 1500)], &kernel.state);
    kernel.run(&diff(&goal, &kernel.state).unwrap());
    Arc::make_mut(&mut kernel.state.ledger).bridges.clear();
    kernel.run(&diff(&Desired::default(), &kernel.state).unwrap());
    assert!(kernel.state.links.get("virbr0").is_none());
}

proptest! {
    #[test]
    fn a_guest_is_guarded_while_it_is_on_a_bridge(steps in prop::collection::vec(networks(), 1..4)) {
        let mut kernel = Model::with_guest();
        for networks in steps {
            let desired = desired(networks, &kernel.state);
            for operation in diff(&desired, &kernel.state).unwrap().operations {
                kernel.apply(&operation);
                let FirewallState::Holds(firewall) = &kernel.state.firewall else { continue };
                let enslaved = kernel.link(&"vtap0").master.is_some();
                prop_assert!(!enslaved || firewall.to_string().contains("vtap0"));
            }
            prop_assert_eq!(diff(&desired, &kernel.state).unwrap(), Plan::default());
        }
    }
}
