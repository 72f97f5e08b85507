//! The difference between what should be and what is, as operations in their order.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use vnet_types::{IfName, MacAddr, Mode, NetworkDefinition, NetworkName, link_local};

use crate::{
    Alias, BridgeClaim, Desired, FirewallState, Link, LinkKind, Observed, Operation, Plan, forward,
    forwarding6, shape,
};

/// What stands in the way of a plan, and isn't ours to remove.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The name of a network's bridge is taken by somebody else's link.
    #[error(
        "the interface {bridge}, which network {network} wants for its bridge, exists and is not \
         vnet's: choose another name with --bridge, or `bridge` in the definition"
    )]
    ForeignLink {
        /// The name.
        bridge: IfName,
        /// Who wants it.
        network: NetworkName,
    },
    /// Two networks want one bridge.
    #[error(
        "the networks {first} and {second} both want the bridge {bridge}: give one of them another"
    )]
    SharedBridge {
        /// The bridge.
        bridge: IfName,
        /// One of the networks.
        first: NetworkName,
        /// The other one.
        second: NetworkName,
    },
}

/// The steps that lead from `observed` to `desired`. They are empty when the two agree, touch
/// nothing that isn't ours, and may be broken off after any of them: the next difference leads to
/// the same end.
///
/// What goes comes before what is made, so that an address or a name can move from one network
/// to another. A network's rules are in force before it is up, and until it is gone.
///
/// # Errors
/// A link that isn't ours has the name of a bridge that is desired.
pub fn diff(desired: &Desired, observed: &Observed) -> Result<Plan, Conflict> {
    if let Some((_, conflict)) = conflicts(desired, observed).pop_first() {
        return Err(conflict);
    }
    let mut plan = Plan::default();
    shape::remove(desired, observed, &mut plan);
    remove_links(desired, observed, &mut plan);
    shape::remove_intakes(desired, observed, &mut plan);
    for (network, mac) in desired.networks.values() {
        build_bridge(network, *mac, observed, &mut plan);
    }
    // Never without the rules that guard it.
    route_loopback(false, desired, observed, &mut plan);
    firewall(desired, observed, &mut plan);
    route_loopback(true, desired, observed, &mut plan);
    forwarding(desired, observed, &mut plan);
    forwarding6::forwarding6(desired, observed, &mut plan);
    shape::add(desired, observed, &mut plan);
    let mut ports: BTreeMap<&NetworkName, Vec<(&str, &Link)>> = BTreeMap::new();
    for (name, link) in observed.links.iter().filter(|(_, link)| link.kind == LinkKind::Tun) {
        if let Some(Alias::Port { network, .. }) = &link.alias {
            ports.entry(network).or_default().push((name, link));
        }
    }
    for (network, _) in desired.networks.values() {
        let ports = ports.get(&network.name).map_or(&[][..], Vec::as_slice);
        bring_up(network, ports, observed, &mut plan);
    }
    forget_bridges(desired, observed, &mut plan);
    Ok(plan)
}

/// Whether the link is a bridge that we made: the ledger knows its address, or (should the ledger
/// be lost) its alias says so.
pub(crate) fn ours(name: &str, link: &Link, observed: &Observed) -> bool {
    let claimed =
        observed.ledger.bridges.get(name).is_some_and(|claim| link.mac == Some(claim.mac));
    link.kind == LinkKind::Bridge && (claimed || matches!(link.alias, Some(Alias::Bridge(_))))
}

/// The networks that something stands in the way of, and what.
#[must_use]
pub fn conflicts(desired: &Desired, observed: &Observed) -> BTreeMap<NetworkName, Conflict> {
    let mut seen: BTreeMap<&IfName, &NetworkName> = BTreeMap::new();
    let mut conflicts = BTreeMap::new();
    for (network, _) in desired.networks.values() {
        let (name, bridge) = (&network.name, &network.bridge);
        let link = observed.links.get(bridge.as_str());
        let conflict = match (seen.get(bridge), link) {
            (Some(first), _) => Conflict::SharedBridge {
                bridge: bridge.clone(),
                first: (*first).clone(),
                second: name.clone(),
            },
            (None, Some(link)) if !ours(bridge.as_str(), link, observed) => {
                Conflict::ForeignLink { bridge: bridge.clone(), network: name.clone() }
            }
            (None, _) => {
                seen.insert(bridge, name);
                continue;
            }
        };
        conflicts.insert(name.clone(), conflict);
    }
    conflicts
}

fn remove_links(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let bridges = desired.bridges();
    for (name, link) in observed.links.iter() {
        if ours(name, link, observed)
            && !bridges.contains(name)
            && let Ok(name) = name.parse()
        {
            plan.push(Operation::DeleteLink { name });
        }
    }
}

fn build_bridge(
    network: &Arc<NetworkDefinition>,
    mac: MacAddr,
    observed: &Observed,
    plan: &mut Plan,
) {
    let bridge = &network.bridge;
    let link = observed.links.get(bridge.as_str());
    // A bridge that is there keeps its address: guests have it in their neighbour tables.
    let mac = link.and_then(|link| link.mac).unwrap_or(mac);
    let claim = BridgeClaim { mac, network: network.clone() };
    let before = observed.ledger.bridges.get(bridge);
    let addresses = addresses_of(network, mac);
    // The address that is to go is forgotten only after it is gone.
    if let (Some(link), Some(before)) = (link, before) {
        for old in addresses_of(&before.network, mac) {
            if !addresses.contains(&old) && observed.has_address(link.index, old.0, old.1) {
                plan.push(Operation::delete_address(bridge, old));
            }
        }
    }
    if before != Some(&claim) {
        plan.push(Operation::Claim { bridge: bridge.clone(), claim: Box::new(claim) });
    }
    if link.is_none() {
        plan.push(Operation::CreateBridge { name: bridge.clone(), mac });
    }
    let wanted = Alias::Bridge(network.name.clone());
    if link.and_then(|link| link.alias.as_ref()) != Some(&wanted) {
        plan.push(Operation::SetAlias { link: bridge.clone(), alias: wanted });
    }
    // Before the MTU: below 1280 bytes a link has no IPv6 settings at all.
    if network.ipv6.is_none() && observed.ipv6 && link.is_none_or(|link| link.ipv6.on) {
        plan.push(Operation::DisableIpv6 { link: bridge.clone() });
    }
    if link.is_none_or(|link| link.mtu != network.mtu()) {
        plan.push(Operation::SetMtu { link: bridge.clone(), mtu: network.mtu() });
    }
    let right = |link: &Link| link.ipv6.on && link.ipv6.accept_ra == 0 && !link.ipv6.link_local;
    if network.ipv6.is_some() && !link.is_some_and(right) {
        plan.push(Operation::EnableIpv6 { link: bridge.clone() });
    }
    for address in addresses {
        if link.is_none_or(|link| !observed.has_address(link.index, address.0, address.1)) {
            plan.push(Operation::add_address(bridge, address));
        }
    }
}

/// The addresses of a network's bridge: the gateway's, and with IPv6 the link-local one that routers
/// speak from (RFC 4861 §6.1.2), which stays the same as long as the bridge has its MAC address.
fn addresses_of(network: &NetworkDefinition, mac: MacAddr) -> Vec<(IpAddr, u8)> {
    let subnet = network.subnet;
    let mut addresses = vec![(IpAddr::from(subnet.gateway()), subnet.prefix_len())];
    if let Some(ipv6) = &network.ipv6 {
        addresses.push((ipv6.prefix.gateway().into(), ipv6.prefix.prefix_len()));
        addresses.push((link_local(mac).into(), 64));
    }
    addresses
}

fn route_loopback(on: bool, desired: &Desired, observed: &Observed, plan: &mut Plan) {
    for (network, _) in desired.networks.values() {
        let is =
            observed.links.get(network.bridge.as_str()).is_some_and(|link| link.route_localnet);
        if forward::uses_loopback(network) == on && is != on {
            plan.push(Operation::RouteLoopback { link: network.bridge.clone(), on });
        }
    }
}

fn firewall(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let firewall = desired.firewall(observed);
    match (&observed.firewall, firewall.is_empty()) {
        (FirewallState::Absent, true) => {}
        (_, true) => plan.push(Operation::RemoveFirewall),
        (FirewallState::Holds(present), false) if *present == firewall => {}
        (FirewallState::Holds(present), false) => {
            plan.push(Operation::UpdateFirewall { from: present.clone(), to: firewall });
        }
        (FirewallState::Absent, false) => plan.push(Operation::InstallFirewall { firewall }),
        (FirewallState::Altered, false) => plan.push(Operation::ReplaceFirewall { firewall }),
    }
}

/// The removal of what limited ports that are gone.
#[must_use]
pub fn diff_intakes(desired: &Desired, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    shape::remove_intakes(desired, observed, &mut plan);
    plan
}

/// That part of [`diff`] that is about the firewall.
#[must_use]
pub fn diff_firewall(desired: &Desired, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    firewall(desired, observed, &mut plan);
    plan
}

fn forwarding(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let on = observed.sysctls.get(crate::observed::IP_FORWARD).is_some_and(|value| value == "1");
    let remembered = !observed.ledger.sysctls.is_empty();
    match (desired.forwards(), on) {
        (true, false) => {
            if !remembered {
                plan.push(Operation::RememberForwarding);
            }
            plan.push(Operation::EnableForwarding);
        }
        (false, _) if remembered => {
            plan.push(Operation::RestoreForwarding);
            plan.push(Operation::ForgetForwarding);
        }
        (true, true) | (false, _) => {}
    }
}

fn bring_up(
    network: &NetworkDefinition,
    ports: &[(&str, &Link)],
    observed: &Observed,
    plan: &mut Plan,
) {
    let bridge = &network.bridge;
    let link = observed.links.get(bridge.as_str());
    // A host that forwards may still be told to make its new interfaces without.
    if network.mode != Mode::Hostonly && link.is_none_or(|link| !link.forwarding) {
        plan.push(Operation::ForwardOn { link: bridge.clone() });
    }
    if link.is_none_or(|link| !link.up) {
        plan.push(Operation::SetUp { link: bridge.clone() });
    }
    // Guests whose bridge was gone for a while come back to it; all have the network's MTU.
    for (name, port) in ports {
        let Ok(name) = name.parse::<IfName>() else { continue };
        if port.mtu != network.mtu() {
            plan.push(Operation::SetMtu { link: name.clone(), mtu: network.mtu() });
        }
        if link.is_none() || port.master != link.map(|link| link.index) {
            plan.push(Operation::Enslave { port: name, bridge: bridge.clone() });
        }
    }
}

fn forget_bridges(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let bridges = desired.bridges();
    for bridge in observed.ledger.bridges.keys() {
        if !bridges.contains(bridge.as_str()) {
            plan.push(Operation::Disclaim { bridge: bridge.clone() });
        }
    }
}
