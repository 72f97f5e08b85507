//! From what a person asks for to a whole definition: what is left out is chosen so that it
//! clashes with nothing on the host.

use vnet_api::model::{CreateIpv6, CreateNetwork, ErrorBody, ErrorKind};
use vnet_plan::{Observed, clashes, clashes6, free_bridge, free_prefix6, free_subnet};
use vnet_types::{Dhcp, Dns, DnsName, IfName, Ipv6, NetworkDefinition, Prefix6, Subnet};

use crate::failure::{conflict, failed, invalid, refuse};

/// The definition, and what the person should know about the choices.
pub(crate) fn complete(
    request: CreateNetwork,
    observed: &Observed,
    others: &[&NetworkDefinition],
) -> Result<(NetworkDefinition, Vec<String>), ErrorBody> {
    let mut notes = Vec::new();
    let subnet = match request.subnet {
        Some(subnet) => subnet,
        None => choose_subnet(&request, observed, others, &mut notes)?,
    };
    let bridge = match request.bridge {
        Some(bridge) => {
            check_bridge(&bridge, observed, others)?;
            bridge
        }
        None => free_bridge(observed, others).map_err(|error| conflict(&error))?,
    };
    if let Some(uplink) = &request.uplink {
        check_uplink(uplink, &bridge, observed)?;
    }
    if request.range.is_some() && !request.dhcp {
        return Err(refuse(
            ErrorKind::Invalid,
            "a network without DHCP has no range: leave one out",
        ));
    }
    let domain = match request.domain {
        Some(domain) => domain,
        // A network's name may hold an underscore, which a name in the DNS may not.
        None => format!("{}.vnet", request.name.as_str().replace('_', "-"))
            .trim_end_matches('-')
            .parse()
            .map_err(|error| invalid(&error))?,
    };
    let range = request.range.unwrap_or(subnet.guests());
    let dhcp = request.dhcp.then(|| Dhcp::new(range));
    let ipv6 = match request.ipv6 {
        Some(request) => Some(choose_ipv6(&request, observed, others, &mut notes)?),
        None => None,
    };
    let definition = NetworkDefinition {
        name: request.name,
        mode: request.mode,
        bridge,
        subnet,
        domain,
        uplink: request.uplink,
        mtu: request.mtu,
        limits: request.limits,
        autostart: true,
        anti_spoofing: true,
        dhcp,
        ipv6,
        dns: Dns::default(),
        forwards: Vec::new(),
    };
    definition.validate().map_err(|error| invalid(&error))?;
    check_clash(&definition, observed, others)?;
    check_domain(&definition.domain, others)?;
    Ok((definition, notes))
}

/// Whether one of `others` has the domain already.
pub(crate) fn check_domain(
    domain: &DnsName,
    others: &[&NetworkDefinition],
) -> Result<(), ErrorBody> {
    let Some(other) = others.iter().find(|other| other.domain == *domain) else { return Ok(()) };
    Err(refuse(
        ErrorKind::Conflict,
        format!(
            "the domain {domain} is that of the network {}: give another one, with --domain or as \
             `domain` in the definition",
            other.name
        ),
    ))
}

/// A range that was given says in which subnet the network is to be.
fn choose_subnet(
    request: &CreateNetwork,
    observed: &Observed,
    others: &[&NetworkDefinition],
    notes: &mut Vec<String>,
) -> Result<Subnet, ErrorBody> {
    if request.range.is_some() {
        return Err(refuse(
            ErrorKind::Invalid,
            "--range needs --subnet: without it, the subnet is chosen from those that are free",
        ));
    }
    let subnet = free_subnet(observed, others).map_err(|error| failed(&error))?;
    let usual = Subnet::new(usual_subnet()).map_err(|error| failed(&error))?;
    if subnet != usual
        && let Some(clash) = clashes(usual, observed, others)
    {
        notes.push(format!("the subnet is {subnet}: {usual} overlaps {clash}"));
    }
    Ok(subnet)
}

fn choose_ipv6(
    request: &CreateIpv6,
    observed: &Observed,
    others: &[&NetworkDefinition],
    notes: &mut Vec<String>,
) -> Result<Ipv6, ErrorBody> {
    if request.range.is_some() && request.prefix.is_none() {
        return Err(refuse(
            ErrorKind::Invalid,
            "--range6 needs a prefix, as in --ipv6=fd12:3456:789a::/64: without it, the prefix is \
             chosen",
        ));
    }
    let prefix = match request.prefix {
        Some(prefix) => prefix,
        None => random_prefix(observed, others)?,
    };
    let slaac = request.slaac.unwrap_or(prefix.fits_slaac());
    let range = match request.range {
        None if !slaac => {
            let range = prefix.usual_range();
            notes.push(format!("DHCPv6 gives the addresses {range}"));
            Some(range)
        }
        range => range,
    };
    Ok(Ipv6 { slaac, range, ..Ipv6::new(prefix) })
}

/// A unique local prefix from the kernel's random numbers.
fn random_prefix(observed: &Observed, others: &[&NetworkDefinition]) -> Result<Prefix6, ErrorBody> {
    let mut failure = None;
    let random = || {
        getrandom::u64().unwrap_or_else(|error| {
            failure = Some(error);
            0
        })
    };
    let prefix = free_prefix6(observed, others, random).map_err(|error| failed(&error))?;
    match failure {
        Some(error) => Err(failed(&error)),
        None => Ok(prefix),
    }
}

const fn usual_subnet() -> ipnet::Ipv4Net {
    ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(192, 168, 122, 0), 24)
}

pub(crate) fn check_bridge(
    bridge: &IfName,
    observed: &Observed,
    others: &[&NetworkDefinition],
) -> Result<(), ErrorBody> {
    if let Some(other) = others.iter().find(|other| other.bridge == *bridge) {
        return Err(refuse(
            ErrorKind::Conflict,
            format!("the bridge {bridge} is that of the network {}: give another name", other.name),
        ));
    }
    if observed.links.get(bridge.as_str()).is_some() {
        return Err(refuse(
            ErrorKind::Conflict,
            format!("there is an interface {bridge} on this host already: give another name"),
        ));
    }
    Ok(())
}

pub(crate) fn check_uplink(
    uplink: &IfName,
    bridge: &IfName,
    observed: &Observed,
) -> Result<(), ErrorBody> {
    if uplink == bridge || observed.links.get(uplink.as_str()).is_none() {
        return Err(refuse(
            ErrorKind::Conflict,
            format!("there is no interface {uplink} on this host that could be an uplink"),
        ));
    }
    Ok(())
}

/// Whether the subnet of `network` is in use on the host, or by one of `others`.
pub(crate) fn check_clash(
    network: &NetworkDefinition,
    observed: &Observed,
    others: &[&NetworkDefinition],
) -> Result<(), ErrorBody> {
    check_clash6(network, observed, others)?;
    let Some(clash) = clashes(network.subnet, observed, others) else {
        return Ok(());
    };
    let free = free_subnet(observed, others)
        .map_or_else(|error| error.to_string(), |subnet| format!("{subnet} is free"));
    Err(refuse(
        ErrorKind::Conflict,
        format!(
            "the subnet {} of network {} overlaps {clash}: {free}",
            network.subnet, network.name
        ),
    ))
}

/// Whether the network can have its IPv6 prefix, and the host IPv6 at all.
fn check_clash6(
    network: &NetworkDefinition,
    observed: &Observed,
    others: &[&NetworkDefinition],
) -> Result<(), ErrorBody> {
    let Some(ipv6) = &network.ipv6 else { return Ok(()) };
    let name = &network.name;
    if !observed.ipv6 {
        let message = format!(
            "network {name} is to have IPv6, but this host's kernel has none: start it without \
             `ipv6.disable=1`, or leave out --ipv6 (the table [ipv6])"
        );
        return Err(refuse(ErrorKind::Conflict, message));
    }
    let Some(clash) = clashes6(ipv6.prefix, observed, others) else { return Ok(()) };
    let message = format!(
        "the IPv6 prefix {} of network {name} overlaps {clash}: give another one",
        ipv6.prefix
    );
    Err(refuse(ErrorKind::Conflict, message))
}
