//! A kernel that does what an operation says, and nothing else, and minds the order.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use vnet_plan::{
    Address, FORWARD6, FirewallState, IP_FORWARD, Ipv6Settings, Ledger, Link, LinkKind, Observed,
    Operation, Plan, Redirect, Shape,
};
use vnet_types::IfName;

#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) state: Observed,
    next_index: u32,
}

impl Model {
    /// With a guest on one of the networks, whose port is there before and after.
    pub(crate) fn with_guest() -> Self {
        let mut model = Self::with_uplink();
        let tap = link(9, LinkKind::Tun, "52:54:00:00:00:09");
        let alias = "vnet:net1:web:0:52-54-00-00-00-01".parse().ok();
        model
            .state
            .links
            .insert("vtap0".into(), Link { alias, ipv6: Ipv6Settings::default(), ..tap });
        model
    }

    pub(crate) fn with_uplink() -> Self {
        let mut state = Observed { ipv6: true, ..Observed::default() };
        state.links.insert("eth0".into(), link(2, LinkKind::Other, "02:00:00:00:00:01"));
        state.links.insert("docker0".into(), link(3, LinkKind::Bridge, "02:00:00:00:00:02"));
        for (link, net) in [(2, "203.0.113.2/24"), (3, "172.17.0.1/16")] {
            state.addresses.insert(Address { link, net: net.parse().unwrap(), peer: None });
        }
        // One that lives on router advertisements, and one that is told to do without.
        for (name, accept_ra) in [("eth0", 1), ("docker0", 0)] {
            state.links.change(name, |link| link.ipv6.accept_ra = accept_ra);
        }
        state.sysctls.insert(IP_FORWARD.into(), "0".into());
        state.sysctls.insert(FORWARD6.into(), "0".into());
        Self { state, next_index: 10 }
    }

    pub(crate) fn link(&self, name: &impl ToString) -> &Link {
        self.state.links.get(&name.to_string()).expect("there is no such link")
    }

    fn change(&mut self, name: &impl ToString, change: impl FnOnce(&mut Link)) {
        self.link(name);
        self.state.links.change(&name.to_string(), change);
    }

    pub(crate) fn change_all(&mut self, mut change: impl FnMut(&str, &mut Link)) {
        let names: Vec<_> = self.state.links.iter().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            self.state.links.change(&name, |link| change(&name, link));
        }
    }

    fn ledger(&mut self) -> &mut Ledger {
        Arc::make_mut(&mut self.state.ledger)
    }

    fn shapes(&mut self) -> &mut BTreeMap<u32, Shape> {
        Arc::make_mut(&mut self.state.shapes)
    }

    fn add(&mut self, name: &IfName, link: Link) {
        assert!(self.state.links.get(name.as_str()).is_none(), "{name} is there already");
        self.state.links.insert(name.to_string(), link);
    }

    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Claim { bridge, claim } => {
                self.ledger().bridges.insert(bridge.clone(), *claim.clone());
            }
            Operation::Disclaim { bridge } => {
                assert!(self.state.links.get(bridge.as_str()).is_none(), "{bridge} is still there");
                self.ledger().bridges.remove(bridge.as_str());
            }
            Operation::CreateBridge { name, mac } => {
                let claim = self.state.ledger.bridges.get(name.as_str());
                assert_eq!(claim.map(|claim| claim.mac), Some(*mac), "made before it was claimed");
                self.next_index += 1;
                let mut new =
                    Link { up: false, ..link(self.next_index, LinkKind::Bridge, &mac.to_string()) };
                new.ipv6.forwarding = self.state.sysctls[FORWARD6] == "1";
                self.add(name, new);
            }
            Operation::DeleteLink { name } => {
                let gone = self.state.links.remove(name.as_str()).expect("deleted twice");
                self.state.addresses.remove_all_of(gone.index);
                self.shapes().remove(&gone.index);
                let leads_there = |shape: &Shape| shape.redirect == Some(Redirect::To(gone.index));
                assert!(!self.state.shapes.values().any(leads_there), "frames lead to nothing");
                self.change_all(|_, port| {
                    port.master = port.master.filter(|master| *master != gone.index);
                });
            }
            Operation::SetAlias { link, alias } => {
                self.change(link, |link| link.alias = Some(alias.clone()));
            }
            Operation::SetMtu { link, mtu } => self.change(link, |link| link.mtu = *mtu),
            Operation::Enslave { port, bridge } => {
                let index = self.link(bridge).index;
                self.change(port, |port| port.master = Some(index));
            }
            Operation::AddAddress { link, address, prefix } => {
                let net = IpNet::new(*address, *prefix).unwrap();
                assert!(net.addr().is_ipv4() || self.link(link).ipv6.on, "no IPv6 on {link}");
                let link = self.link(link).index;
                self.state.addresses.insert(Address { link, net, peer: None });
            }
            Operation::DeleteAddress { link, address, prefix } => {
                let index = self.link(link).index;
                self.state.addresses.retain(|found| {
                    found.link != index
                        || found.net.addr() != *address
                        || found.net.prefix_len() != *prefix
                });
            }
            Operation::SetUp { link } => self.change(link, |link| link.up = true),
            Operation::RouteLoopback { link, on } => {
                let guarded = matches!(self.state.firewall, FirewallState::Holds(_));
                assert!(guarded || !on, "loopback addresses on {link} without rules");
                self.change(link, |link| link.route_localnet = *on);
            }
            Operation::DisableIpv6 { link } => {
                self.change(link, |link| link.ipv6.on = false);
                let index = self.link(link).index;
                let gone = |a: &Address| a.link == index && a.net.addr().is_ipv6();
                self.state.addresses.retain(|address| !gone(address));
            }
            Operation::EnableIpv6 { link } => {
                self.change(link, |Link { ipv6, .. }| {
                    *ipv6 = Ipv6Settings { on: true, accept_ra: 0, link_local: false, ..*ipv6 };
                });
            }
            Operation::ForwardOn { link } => self.change(link, |link| link.forwarding = true),
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
                self.ledger().sysctls = BTreeMap::from([(IP_FORWARD.to_owned(), value)]);
            }
            Operation::Shape { link, bucket } => {
                let index = self.link(link).index;
                let shape = self.shapes().entry(index).or_default();
                shape.bucket = Some((bucket.rate, bucket.limit));
            }
            Operation::Unshape { link } => {
                let index = self.link(link).index;
                let gone = self.shapes().get_mut(&index).and_then(|shape| shape.bucket.take());
                gone.expect("a queue that is not there was removed");
                self.tidy_shapes();
            }
            Operation::CreateIntake { name, mac } => {
                self.next_index += 1;
                let new =
                    Link { up: false, ..link(self.next_index, LinkKind::Intake, &mac.to_string()) };
                self.add(name, new);
            }
            Operation::Redirect { link, to } => {
                let (index, to) = (self.link(link).index, self.link(to).index);
                assert!(self.state.shapes[&to].bucket.is_some(), "a queue without a rate");
                let shape = self.shapes().entry(index).or_default();
                shape.redirect = Some(Redirect::To(to));
            }
            Operation::Unredirect { link } => {
                let index = self.link(link).index;
                self.shapes().entry(index).or_default().redirect = None;
                self.tidy_shapes();
            }
            Operation::EnableForwarding => {
                assert!(!self.state.ledger.sysctls.is_empty(), "changed before it was remembered");
                self.state.sysctls.insert(IP_FORWARD.into(), "1".into());
            }
            Operation::RestoreForwarding => {
                self.state.sysctls.extend(self.state.ledger.sysctls.clone());
            }
            Operation::ForgetForwarding => self.ledger().sysctls.clear(),
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
                let all = each.chain(all).collect();
                self.ledger().forwarding6 = all;
            }
            Operation::RememberAcceptRa { link } => {
                self.ledger().accept_ra.insert(link.clone());
            }
            Operation::RaiseAcceptRa { link } => {
                assert!(self.state.ledger.accept_ra.contains(link), "raised before remembered");
                assert_eq!(self.link(link).ipv6.accept_ra, 1, "{link} was told otherwise");
                self.change(link, |link| link.ipv6.accept_ra = 2);
            }
            Operation::EnableForwarding6 => {
                assert!(!self.state.ledger.forwarding6.is_empty(), "changed before remembered");
                self.change_all(|name, link| {
                    let hears =
                        link.ipv6.accept_ra != 1 || link.ipv6.forwarding || link.index >= 10;
                    assert!(hears, "{name} would lose its router");
                    link.ipv6.forwarding = true;
                });
                self.state.sysctls.insert(FORWARD6.into(), "1".into());
            }
            Operation::Forward6On { link } => self.change(link, |link| link.ipv6.forwarding = true),
            Operation::RestoreForwarding6 => {
                let before = self.state.ledger.forwarding6.clone();
                let all = before[FORWARD6].clone();
                self.change_all(|name, link| {
                    let value = before.get(&switch(name)).unwrap_or(&all);
                    link.ipv6.forwarding = value == "1";
                });
                self.state.sysctls.insert(FORWARD6.into(), all);
            }
            Operation::RestoreAcceptRa { link } => {
                assert!(self.state.ledger.accept_ra.contains(link));
                assert!(!self.link(link).ipv6.forwarding, "{link} would lose its router");
                self.change(link, |link| link.ipv6.accept_ra = 1);
            }
            Operation::ForgetForwarding6 => {
                self.ledger().forwarding6.clear();
                self.ledger().accept_ra.clear();
            }
            other => panic!("not about IPv6: {other}"),
        }
    }

    fn tidy_shapes(&mut self) {
        self.shapes().retain(|_, shape| *shape != Shape::default());
    }

    /// netd has died: what it knew of the table died with it.
    pub(crate) fn crash(&mut self) {
        if matches!(self.state.firewall, FirewallState::Holds(_)) {
            self.state.firewall = FirewallState::Altered;
        }
    }

    pub(crate) fn run(&mut self, plan: &Plan) {
        plan.operations.iter().for_each(|operation| self.apply(operation));
    }

    /// All links with their addresses, by name: a link that was made anew has another number, and
    /// one that has been an open network's may still forward, which the firewall decides.
    pub(crate) fn without_numbers(&self) -> Vec<(String, Link, Vec<IpNet>)> {
        let one = |(name, link): (&str, &Link)| {
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
            (name.to_owned(), link, nets)
        };
        self.state.links.iter().map(one).collect()
    }

    pub(crate) fn foreign(&self) -> (BTreeMap<String, Link>, Vec<Address>) {
        let links: BTreeMap<_, _> = self
            .state
            .links
            .iter()
            .filter(|(_, link)| link.index < 10)
            .map(|(name, link)| {
                // Forwarding is the host's, and goes back to what it was in the end.
                let ipv6 = Ipv6Settings { forwarding: false, accept_ra: 0, ..link.ipv6 };
                (name.to_owned(), Link { ipv6, ..link.clone() })
            })
            .collect();
        let addresses = self.state.addresses.iter().filter(|a| a.link < 10).cloned().collect();
        (links, addresses)
    }
}

pub(crate) fn link(index: u32, kind: LinkKind, mac: &str) -> Link {
    let ipv6 = Ipv6Settings { on: true, forwarding: false, accept_ra: 1, link_local: true };
    Link { index, kind, mac: mac.parse().ok(), up: true, mtu: 1500, ipv6, ..Link::default() }
}
