//! Choices that are made once, when a network is created, so that it clashes with nothing on the
//! host.

use std::collections::HashSet;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use vnet_types::{IfName, MacAddr, NetworkDefinition, NetworkName, Prefix6, Subnet};

use crate::Observed;
use crate::diff::ours;

/// Random prefixes that are tried. The first one is free unless somebody has a route to all of
/// fd00::/8.
const PREFIX_TRIES: usize = 16;

/// Nothing is left to choose from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// Every subnet that is tried is in use on this host.
    #[error("no private /24 subnet is free on this host: give one with --subnet")]
    Subnet,
    /// Every unique local prefix that is tried is in use on this host.
    #[error("no unique local IPv6 prefix is free on this host: give one with --ipv6=PREFIX")]
    Prefix6,
    /// Every name that is tried is taken.
    #[error("no bridge name from virbr0 to virbr9999 is free: give one with --bridge")]
    Bridge,
}

/// What on the host, or among our own networks, has addresses of a subnet already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clash {
    /// An address of a link of the host.
    Address {
        /// The address with its prefix.
        net: IpNet,
        /// The link.
        link: String,
    },
    /// A route of the host.
    Route {
        /// Where it leads.
        destination: IpNet,
        /// The link that it leaves by.
        link: Option<String>,
    },
    /// Another network of ours, running or not.
    Network {
        /// Its name.
        name: NetworkName,
        /// Its subnet, or its IPv6 prefix.
        subnet: IpNet,
    },
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { net, link } => write!(f, "the address {net} of {link}"),
            Self::Route { destination, link: Some(link) } => {
                write!(f, "the route to {destination} through {link}")
            }
            Self::Route { destination, link: None } => write!(f, "the route to {destination}"),
            Self::Network { name, subnet } => write!(f, "the network {name} ({subnet})"),
        }
    }
}

/// The first thing that a network with this `subnet` would clash with: one of `networks`, or what
/// is on a link that isn't ours. A default route leads everywhere and clashes with nothing.
#[must_use]
pub fn clashes(
    subnet: Subnet,
    observed: &Observed,
    networks: &[&NetworkDefinition],
) -> Option<Clash> {
    clash(subnet.net().into(), observed, networks)
}

/// The same for an IPv6 prefix.
#[must_use]
pub fn clashes6(
    prefix: Prefix6,
    observed: &Observed,
    networks: &[&NetworkDefinition],
) -> Option<Clash> {
    clash(prefix.net().into(), observed, networks)
}

fn clash(wanted: IpNet, observed: &Observed, networks: &[&NetworkDefinition]) -> Option<Clash> {
    let name = |index: u32| observed.link_name(index).map(str::to_owned);
    taken(observed, networks).find(|(net, _)| overlap(wanted, *net)).map(|(net, by)| match by {
        Owner::Network(name) => Clash::Network { name: name.clone(), subnet: net },
        Owner::Link(link) => {
            Clash::Address { net, link: name(link).unwrap_or_else(|| "a link that is gone".into()) }
        }
        Owner::Route(link) => Clash::Route { destination: net, link: link.and_then(name) },
    })
}

fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one)
}

/// Who has addresses already.
enum Owner<'a> {
    Network(&'a NetworkName),
    Link(u32),
    Route(Option<u32>),
}

/// All addresses that are taken: by `networks`, and by what is on links that aren't ours.
fn taken<'a>(
    observed: &'a Observed,
    networks: &'a [&NetworkDefinition],
) -> impl Iterator<Item = (IpNet, Owner<'a>)> {
    // A bridge of ours may have another name, or another subnet, than it is to have.
    let own =
        |link: u32| observed.links.at(link).is_some_and(|(name, link)| ours(name, link, observed));
    let networks = networks.iter().flat_map(|network| {
        let prefix = network.ipv6.as_ref().map(|ipv6| IpNet::from(ipv6.prefix.net()));
        let nets = std::iter::once(network.subnet.net().into()).chain(prefix);
        nets.map(|net| (net, Owner::Network(&network.name)))
    });
    let addresses = observed.addresses.iter().filter(move |address| !own(address.link));
    let addresses = addresses.map(|address| (address.net, Owner::Link(address.link)));
    let routes = observed
        .routes
        .iter()
        .filter(move |route| route.destination.prefix_len() > 0 && !route.link.is_some_and(own));
    let routes = routes.map(|route| (route.destination, Owner::Route(route.link)));
    networks.chain(addresses).chain(routes)
}

/// The first free subnet: 192.168.122.0/24, then the following ones, then those of 172.16/12 and
/// of 10/8 from the top, where people number least.
///
/// # Errors
/// None is free.
pub fn free_subnet(
    observed: &Observed,
    networks: &[&NetworkDefinition],
) -> Result<Subnet, ChooseError> {
    let high = (122..=254).map(|third| [192, 168, third, 0]);
    let middle =
        (16..=31).rev().flat_map(|second| (0..=255).map(move |third| [172, second, third, 0]));
    let low = (0..=255).rev().flat_map(|second| (0..=255).map(move |third| [10, second, third, 0]));
    // In order and without overlaps, so that each candidate costs one look.
    let taken = taken(observed, networks).filter_map(|(net, _)| match net {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    });
    let taken = Ipv4Net::aggregate(&taken.collect());
    let is_free = |wanted: Ipv4Net| {
        let after = taken.partition_point(|net| net.broadcast() < wanted.network());
        taken.get(after).is_none_or(|net| wanted.broadcast() < net.network())
    };
    high.chain(middle)
        .chain(low)
        .filter_map(|octets| Ipv4Net::new(Ipv4Addr::from(octets), 24).ok())
        .find(|&net| is_free(net))
        .and_then(|net| Subnet::new(net).ok())
        .ok_or(ChooseError::Subnet)
}

/// A unique local prefix that is free. `random` gives global identifiers, which must be random for
/// the prefix to be unique elsewhere, too (RFC 4193 §3.2).
///
/// # Errors
/// None of those that `random` gave is free.
pub fn free_prefix6(
    observed: &Observed,
    networks: &[&NetworkDefinition],
    random: impl FnMut() -> u64,
) -> Result<Prefix6, ChooseError> {
    std::iter::repeat_with(random)
        .take(PREFIX_TRIES)
        .map(Prefix6::unique_local)
        .find(|&prefix| clashes6(prefix, observed, networks).is_none())
        .ok_or(ChooseError::Prefix6)
}

/// The first free bridge name: `virbr0`, `virbr1` and so on.
///
/// # Errors
/// None is free.
pub fn free_bridge(
    observed: &Observed,
    networks: &[&NetworkDefinition],
) -> Result<IfName, ChooseError> {
    let taken: HashSet<&IfName> = networks.iter().map(|network| &network.bridge).collect();
    (0..10_000)
        .filter_map(|number| format!("virbr{number}").parse::<IfName>().ok())
        .find(|name| observed.links.get(name.as_str()).is_none() && !taken.contains(name))
        .ok_or(ChooseError::Bridge)
}

/// The address for a network's bridge: always the same one for the same name, unless another link
/// has it. A bridge that the network has under another name is to go, and leaves its address to the
/// new one, so that guests need not learn another.
#[must_use]
pub fn free_mac(network: &NetworkDefinition, observed: &Observed) -> MacAddr {
    let own = |name: &str| {
        let claim = observed.ledger.bridges.get(name);
        name == network.bridge.as_str()
            || claim.is_some_and(|claim| claim.network.name == network.name)
    };
    let taken = |mac: MacAddr| observed.links.with_mac(mac).any(|name| !own(name));
    let seed = format!("network/{}", network.name);
    (0..u32::MAX)
        .map(|salt| MacAddr::derived(&seed, salt))
        .find(|&mac| !taken(mac))
        .unwrap_or_else(|| MacAddr::derived(&seed, 0))
}
