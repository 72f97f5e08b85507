//! The properties that make the planner safe to rely on, over a model of the kernel: applying a
//! plan arrives at what is desired; so does a crash after any of its operations followed by a new
//! plan; a second plan is empty; and what isn't ours is never touched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use ipnet::IpNet;
use proptest::prelude::*;
use vnet_plan::{
    Address, Alias, Conflict, Desired, FORWARD6, FirewallState, GuestAddresses, IP_FORWARD,
    Ipv6Settings, Link, LinkKind, Observed, Operation, Plan, Redirect, Shape, diff, free_mac,
};
use vnet_types::{
    Dns, Forward, Ipv6, Limits, MacAddr, Mode, NetworkDefinition, NetworkName, Subnet,
};

/// A kernel that does what an operation says, and nothing else.
#[derive(Clone)]
struct Model {
    state: Observed,
    next_index: u32,
}

impl Model {
    /// With a guest on one of the networks, whose port is there before and after.
    fn with_guest() -> Self {
        let mut model = Self::with_uplink();
        let tap = link(9, LinkKind::Tun, "52:54:00:00:00:09");
        let alias = Some("vnet:net1:web:0:52-54-00-00-00-01".to_owned());
        model
            .state
            .links
            .insert("vtap0".into(), Link { alias, ipv6: Ipv6Settings::default(), ..tap });
        model
    }

    fn with_uplink() -> Self {
        let mut state = Observed { ipv6: true, ..Observed::default() };
        state.links.insert("eth0".into(), link(2, LinkKind::Other, "02:00:00:00:00:01"));
        state.links.insert("docker0".into(), link(3, LinkKind::Bridge, "02:00:00:00:00:02"));
        for (index, net) in [(2, "203.0.113.2/24"), (3, "172.17.0.1/16")] {
            state.addresses.push(Address { link: index, net: net.parse().unwrap() });
        }
        // One that lives on router advertisements, and one that is told to do without.
        for (name, accept_ra) in [("eth0", 1), ("docker0", 0)] {
            state.links.get_mut(name).unwrap().ipv6.accept_ra = accept_ra;
        }
        state.sysctls.insert(IP_FORWARD.into(), "0".into());
        state.sysctls.insert(FORWARD6.into(), "0".into());
        Self { state, next_index: 10 }
    }

    fn link(&mut self, name: &impl ToString) -> &mut Link {
        self.state
            .links
            .get_mut(&name.to_string())
            .expect("an operation on a link that is not there")
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Claim { bridge, claim } => {
                self.state.ledger.bridges.insert(bridge.clone(), *claim.clone());
            }
            Operation::Disclaim { bridge } => {
                assert!(!self.state.links.contains_key(bridge.as_str()), "{bridge} is still there");
                self.state.ledger.bridges.remove(bridge.as_str());
            }
            Operation::CreateBridge { name, mac } => {
                let claim = self.state.ledger.bridges.get(name.as_str());
                assert_eq!(claim.map(|claim| claim.mac), Some(*mac), "made before it was claimed");
                self.next_index += 1;
                let mut new =
                    Link { up: false, ..link(self.next_index, LinkKind::Bridge, &mac.to_string()) };
                new.ipv6.forwarding = self.state.sysctls[FORWARD6] == "1";
                assert!(self.state.links.insert(name.to_string(), new).is_none());
            }
            Operation::DeleteLink { name } => {
                let gone = self.state.links.remove(name.as_str()).expect("deleted twice");
                self.state.addresses.retain(|address| address.link != gone.index);
                self.state.shapes.remove(&gone.index);
                let leads_there = |shape: &Shape| shape.redirect == Some(Redirect::To(gone.index));
                assert!(!self.state.shapes.values().any(leads_there), "frames lead to nothing");
                for port in self.state.links.values_mut() {
                    port.master = port.master.filter(|master| *master != gone.index);
                }
            }
            Operation::SetAlias { link, alias } => self.link(link).alias = Some(alias.to_string()),
            Operation::SetMtu { link, mtu } => self.link(link).mtu = *mtu,
            Operation::Enslave { port, bridge } => {
                let index = self.link(bridge).index;
                self.link(port).master = Some(index);
            }
            Operation::AddAddress { link, address, prefix } => {
                let net = IpNet::new(*address, *prefix).unwrap();
                assert!(net.addr().is_ipv4() || self.link(link).ipv6.on, "no IPv6 on {link}");
                let link = self.link(link).index;
                self.state.addresses.push(Address { link, net });
            }
            Operation::DeleteAddress { link, address, prefix } => {
                let index = self.link(link).index;
                self.state.addresses.retain(|found| {
                    found.link != index
                        || found.net.addr() != *address
                        || found.net.prefix_len() != *prefix
                });
            }
            Operation::SetUp { link } => self.link(link).up = true,
            Operation::RouteLoopback { link, on } => {
                let guarded = matches!(self.state.firewall, FirewallState::Holds(_));
                assert!(guarded || !on, "loopback addresses on {link} without rules");
                self.link(link).route_localnet = *on;
            }
            Operation::DisableIpv6 { link } => {
                self.link(link).ipv6.on = false;
                let index = self.link(link).index;
                let gone = |a: &Address| a.link == index && a.net.addr().is_ipv6();
                self.state.addresses.retain(|address| !gone(address));
            }
            Operation::EnableIpv6 { link } => {
                let ipv6 = &mut self.link(link).ipv6;
                *ipv6 = Ipv6Settings { on: true, accept_ra: 0, link_local: false, ..*ipv6 };
            }
            Operation::ForwardOn { link } => self.link(link).forwarding = true,
            Operation::RememberForwarding6
            | Operation::RememberAcceptRa { .. }
            | Operation::RaiseAcceptRa { .. }
            | Operation::EnableForwarding6
            | Operation::Forward6On { .. }
            | Operation::RestoreForwarding6
            | Operation::RestoreAcceptRa { .. }
            | Operation::ForgetForwarding6 => self.apply_forwarding6(operation),
            Operation::RememberForwarding => {
                let value = self.state.sysctls[IP_FORWARD].clone();
                self.state.ledger.sysctls = BTreeMap::from([(IP_FORWARD.to_owned(), value)]);
            }
            Operation::Shape { link, bucket } => {
                let index = self.link(link).index;
                let shape = self.state.shapes.entry(index).or_default();
                shape.bucket = Some((bucket.rate, bucket.limit));
            }
            Operation::Unshape { link } => {
                let index = self.link(link).index;
                let gone = self.state.shapes.get_mut(&index).and_then(|shape| shape.bucket.take());
                gone.expect("a queue that is not there was removed");
                self.tidy_shapes();
            }
            Operation::CreateIntake { name, mac } => {
                self.next_index += 1;
                let new =
                    Link { up: false, ..link(self.next_index, LinkKind::Intake, &mac.to_string()) };
                assert!(self.state.links.insert(name.to_string(), new).is_none());
            }
            Operation::Redirect { link, to } => {
                let (index, to) = (self.link(link).index, self.link(to).index);
                assert!(self.state.shapes[&to].bucket.is_some(), "a queue without a rate");
                let shape = self.state.shapes.entry(index).or_default();
                shape.redirect = Some(Redirect::To(to));
            }
            Operation::Unredirect { link } => {
                let index = self.link(link).index;
                self.state.shapes.entry(index).or_default().redirect = None;
                self.tidy_shapes();
            }
            Operation::EnableForwarding => {
                assert!(!self.state.ledger.sysctls.is_empty(), "changed before it was remembered");
                self.state.sysctls.insert(IP_FORWARD.into(), "1".into());
            }
            Operation::RestoreForwarding => {
                self.state.sysctls.extend(self.state.ledger.sysctls.clone());
            }
            Operation::ForgetForwarding => self.state.ledger.sysctls.clear(),
            Operation::InstallFirewall { firewall } => {
                assert_eq!(self.state.firewall, FirewallState::Absent);
                self.state.firewall = FirewallState::Holds(firewall.clone());
            }
            Operation::ReplaceFirewall { firewall } => {
                assert_eq!(self.state.firewall, FirewallState::Altered);
                self.state.firewall = FirewallState::Holds(firewall.clone());
            }
            Operation::UpdateFirewall { from, to } => {
                assert_eq!(self.state.firewall, FirewallState::Holds(from.clone()));
                self.state.firewall = FirewallState::Holds(to.clone());
            }
            Operation::RemoveFirewall => self.state.firewall = FirewallState::Absent,
        }
    }

    fn apply_forwarding6(&mut self, operation: &Operation) {
        let switch = |name: &str| format!("net/ipv6/conf/{name}/forwarding");
        let word = |on: bool| if on { "1" } else { "0" }.to_owned();
        match operation {
            Operation::RememberForwarding6 => {
                let foreign = self.state.links.iter().filter(|(_, link)| link.index < 10);
                let each = foreign.map(|(name, link)| (switch(name), word(link.ipv6.forwarding)));
                let all = self.state.sysctls[FORWARD6].clone();
                let all = [(FORWARD6.to_owned(), all.clone()), (switch("default"), all)];
                self.state.ledger.forwarding6 = each.chain(all).collect();
            }
            Operation::RememberAcceptRa { link } => {
                self.state.ledger.accept_ra.insert(link.clone());
            }
            Operation::RaiseAcceptRa { link } => {
                assert!(self.state.ledger.accept_ra.contains(link), "raised before remembered");
                assert_eq!(self.link(link).ipv6.accept_ra, 1, "{link} was told otherwise");
                self.link(link).ipv6.accept_ra = 2;
            }
            Operation::EnableForwarding6 => {
                assert!(!self.state.ledger.forwarding6.is_empty(), "changed before remembered");
                for (name, link) in &mut self.state.links {
                    let hears =
                        link.ipv6.accept_ra != 1 || link.ipv6.forwarding || link.index >= 10;
                    assert!(hears, "{name} would lose its router");
                    link.ipv6.forwarding = true;
                }
                self.state.sysctls.insert(FORWARD6.into(), "1".into());
            }
            Operation::Forward6On { link } => self.link(link).ipv6.forwarding = true,
            Operation::RestoreForwarding6 => {
                let before = self.state.ledger.forwarding6.clone();
                let all = before[FORWARD6].clone();
                for (name, link) in &mut self.state.links {
                    let value = before.get(&switch(name)).unwrap_or(&all);
                    link.ipv6.forwarding = value == "1";
                }
                self.state.sysctls.insert(FORWARD6.into(), all);
            }
            Operation::RestoreAcceptRa { link } => {
                assert!(self.state.ledger.accept_ra.contains(link));
                assert!(!self.link(link).ipv6.forwarding, "{link} would lose its router");
                self.link(link).ipv6.accept_ra = 1;
            }
            Operation::ForgetForwarding6 => {
                self.state.ledger.forwarding6.clear();
                self.state.ledger.accept_ra.clear();
            }
            other => panic!("not about IPv6: {other}"),
        }
    }

    fn tidy_shapes(&mut self) {
        self.state.shapes.retain(|_, shape| *shape != Shape::default());
    }

    /// netd has died: what it knew of the table died with it.
    fn crash(&mut self) {
        if matches!(self.state.firewall, FirewallState::Holds(_)) {
            self.state.firewall = FirewallState::Altered;
        }
    }

    fn run(&mut self, plan: &Plan) {
        plan.operations.iter().for_each(|operation| self.apply(operation));
    }

    /// All links with their addresses, by name: a link that was made anew has another number, and
    /// one that has been an open network's may still forward, which the firewall decides.
    fn without_numbers(&self) -> Vec<(String, Link, Vec<IpNet>)> {
        let one = |(name, link): (&String, &Link)| {
            let on = |address: &&Address| address.link == link.index;
            let mut nets: Vec<_> =
                self.state.addresses.iter().filter(on).map(|address| address.net).collect();
            nets.sort();
            let mut link = Link { index: 0, forwarding: false, ..link.clone() };
            // Which of them are set is looked at where there is IPv6 only.
            link.ipv6 = Ipv6Settings { forwarding: false, ..link.ipv6 };
            if !link.ipv6.on {
                link.ipv6 = Ipv6Settings::default();
            }
            (name.clone(), link, nets)
        };
        self.state.links.iter().map(one).collect()
    }

    fn foreign(&self) -> (BTreeMap<String, Link>, Vec<Address>) {
        let links: BTreeMap<_, _> = self
            .state
            .links
            .iter()
            .filter(|(_, link)| link.index < 10)
            .map(|(name, link)| {
                // Forwarding is the host's, and goes back to what it was in the end.
                let ipv6 = Ipv6Settings { forwarding: false, accept_ra: 0, ..link.ipv6 };
                (name.clone(), Link { ipv6, ..link.clone() })
            })
            .collect();
        let addresses = self.state.addresses.iter().filter(|a| a.link < 10).cloned().collect();
        (links, addresses)
    }
}

fn link(index: u32, kind: LinkKind, mac: &str) -> Link {
    Link {
        index,
        kind,
        mac: Some(mac.parse().unwrap()),
        up: true,
        mtu: 1500,
        master: None,
        alias: None,
        ipv6: Ipv6Settings { on: true, forwarding: false, accept_ra: 1, link_local: true },
        forwarding: false,
        route_localnet: false,
    }
}

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
        (network.name.clone(), (network, mac))
    };
    let networks: BTreeMap<_, _> = networks.into_iter().map(with_mac).collect();
    // Guests of every other network have an address.
    let address =
        |(number, (name, (network, _))): (usize, (&NetworkName, &(NetworkDefinition, _)))| {
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
    assert_eq!(kernel.state.links["eth1"].ipv6.accept_ra, 2);
    assert!(diff(&goal, &kernel.state).unwrap().is_empty());
    kernel.run(&diff(&Desired::default(), &kernel.state).unwrap());
    let late = kernel.state.links["eth1"].ipv6;
    assert_eq!((late.accept_ra, late.forwarding), (1, false));
}

#[test]
fn a_host_that_is_an_ipv6_router_already_is_left_alone() {
    let mut kernel = Model::with_uplink();
    kernel.state.sysctls.insert(FORWARD6.into(), "1".into());
    kernel.state.links.values_mut().for_each(|link| link.ipv6.forwarding = true);
    let untouched = kernel.state.clone();
    let mut net = network("default", "virbr0", Mode::Nat, 122, 1500);
    net.ipv6 = Some(Ipv6::new("fd12:3456:789a::/64".parse().unwrap()));
    let goal = desired(vec![net], &kernel.state);
    kernel.run(&diff(&goal, &kernel.state).unwrap());
    assert_eq!(kernel.state.links["eth0"], untouched.links["eth0"]);
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
    let tap =
        Link { alias: Some(alias.to_string()), ..link(9, LinkKind::Tun, "52:54:00:00:00:09") };
    kernel.state.links.insert("vtap0".into(), tap);
    kernel.run(&diff(&goal, &kernel.state).unwrap());
    assert_eq!(kernel.state.links["vtap0"].master, Some(kernel.state.links["virbr0"].index));
}

#[test]
fn a_renamed_bridge_keeps_its_address_and_its_ports() {
    let mut kernel = Model::with_uplink();
    let goal = desired(vec![network("default", "virbr0", Mode::Nat, 122, 1500)], &kernel.state);
    kernel.run(&diff(&goal, &kernel.state).unwrap());
    let mac = kernel.state.links["virbr0"].mac;
    let alias = Alias::Port {
        network: "default".parse().unwrap(),
        domain: "web".parse().unwrap(),
        nic: 0,
        mac: "52:54:00:00:00:01".parse().unwrap(),
        limits: Default::default(),
    };
    let tap = Link {
        alias: Some(alias.to_string()),
        master: Some(kernel.state.links["virbr0"].index),
        ..link(9, LinkKind::Tun, "52:54:00:00:00:09")
    };
    kernel.state.links.insert("vtap0".into(), tap);
    let goal = desired(vec![network("default", "br-lab", Mode::Nat, 123, 9000)], &kernel.state);
    kernel.run(&diff(&goal, &kernel.state).unwrap());
    let links = &kernel.state.links;
    assert!(!links.contains_key("virbr0"));
    assert_eq!(links["br-lab"].mac, mac);
    assert_eq!(links["vtap0"].master, Some(links["br-lab"].index));
    assert_eq!(links["vtap0"].mtu, 9000);
    assert!(diff(&goal, &kernel.state).unwrap().is_empty());
}

#[test]
fn a_bridge_is_known_by_its_label_when_the_ledger_is_lost() {
    let mut kernel = Model::with_uplink();
    let goal = desired(vec![network("default", "virbr0", Mode::Nat, 122, 1500)], &kernel.state);
    kernel.run(&diff(&goal, &kernel.state).unwrap());
    kernel.state.ledger.bridges.clear();
    kernel.run(&diff(&Desired::default(), &kernel.state).unwrap());
    assert!(!kernel.state.links.contains_key("virbr0"));
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
                let enslaved = kernel.state.links["vtap0"].master.is_some();
                prop_assert!(!enslaved || firewall.to_string().contains("vtap0"));
            }
            prop_assert_eq!(diff(&desired, &kernel.state).unwrap(), Plan::default());
        }
    }
}
