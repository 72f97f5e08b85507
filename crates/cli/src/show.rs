//! `vnet show`: everything about one network.

use clap::Args;
use vnet_api::model::{AnyNetwork, BridgedNetwork, Network, PortView, State};
use vnet_types::{BRIDGED, IfName, Ipv6, MacAddr, Mode};

use crate::args::Target;
use crate::context::{Context, Format};
use crate::output;
use crate::table::{Cell, Pairs};
use crate::{list, time};

/// Show everything about one network
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet show default")]
pub(crate) struct Show {
    #[command(flatten)]
    target: Target,
}

/// Runs the command.
///
/// # Errors
/// There is no such network, or netd cannot be reached.
pub(crate) async fn run(args: &Show, context: &Context) -> anyhow::Result<()> {
    let network = context.client.network(&args.target.network).await?;
    match context.format {
        Format::Json => output::print_json(&network),
        Format::Text => output::print(
            &match &network {
                AnyNetwork::Network(network) => pairs(network),
                AnyNetwork::Bridged(network) => bridged(network),
            }
            .render(),
        ),
    }
}

fn pairs(network: &Network) -> Pairs {
    let definition = &network.definition;
    let mut pairs = Pairs::default();
    pairs.add("name", Cell::text(&definition.name));
    pairs.add("mode", Cell::text(definition.mode));
    pairs.add("state", list::state(&network.state));
    if let State::Failed { reason } = &network.state {
        pairs.add("reason", Cell::text(reason));
    }
    pairs.add("bridge", bridge(&definition.bridge, network.bridge_mac));
    pairs.add("gateway", Cell::text(network.gateway));
    pairs.add("subnet", Cell::text(definition.subnet));
    if let (Some(ipv6), Some(gateway)) = (&definition.ipv6, network.gateway6) {
        pairs.add("IPv6 gateway", Cell::text(gateway));
        pairs.add("IPv6 prefix", Cell::text(ipv6.prefix));
    }
    match &definition.dhcp {
        Some(dhcp) => {
            let lasts = time::length(dhcp.lease_seconds.into());
            pairs.add("DHCP range", Cell::text(dhcp.range));
            pairs.add("lease time", Cell::text(lasts));
            for reservation in &dhcp.reservations {
                let name = reservation.hostname.as_ref().map(|name| format!(" ({name})"));
                let client = match (&reservation.mac, &reservation.client_id) {
                    (Some(mac), _) => mac.to_string(),
                    (None, Some(id)) => format!("client {id}"),
                    (None, None) => "nobody".to_owned(),
                };
                let line = format!("{} for {client}{}", reservation.ip, name.unwrap_or_default());
                pairs.add("reservation", Cell::text(line));
            }
        }
        None => pairs.add("DHCP range", Cell::text("none: this network has no DHCP")),
    }
    if let Some(ipv6) = &definition.ipv6 {
        add_ipv6(&mut pairs, ipv6);
    }
    pairs.add("domain", Cell::text(&definition.domain));
    pairs.add("DNS upstreams", Cell::text(upstreams(network)));
    for (name, addresses) in &definition.dns.hosts {
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        pairs.add("DNS host", Cell::text(format!("{name} {}", addresses.join(", "))));
    }
    for (index, forward) in definition.forwards.iter().enumerate() {
        pairs.add(if index == 0 { "forwards" } else { "" }, Cell::text(forward));
    }
    let uplink = definition.uplink.as_ref().map_or("any", |uplink| uplink.as_str());
    pairs.add("uplink", Cell::text(uplink));
    let follows = definition.mtu.is_none() && definition.mode != Mode::Hostonly;
    let origin = if follows { ", the uplink's" } else { "" };
    pairs.add("MTU", Cell::text(format!("{}{origin}", network.mtu)));
    let limits = &definition.limits;
    for (name, limit) in [
        ("rate in", limits.inbound),
        ("rate out", limits.outbound),
        ("port rate in", limits.port_in),
        ("port rate out", limits.port_out),
    ] {
        if let Some(limit) = limit {
            pairs.add(name, Cell::text(limit));
        }
    }
    pairs.add("autostart", yes_or_no(definition.autostart));
    guests(&network.ports, &mut pairs);
    pairs.add("leases", Cell::text(network.leases));
    pairs
}

fn bridged(network: &BridgedNetwork) -> Pairs {
    let definition = &network.definition;
    let mut pairs = Pairs::default();
    pairs.add("name", Cell::text(&definition.name));
    pairs.add("mode", Cell::text(BRIDGED));
    pairs.add("state", list::state(&network.state));
    if let State::Failed { reason } = &network.state {
        pairs.add("reason", Cell::text(reason));
    }
    if let Some(seconds) = network.confirm_within {
        let line = format!("`vnet confirm {}` within {seconds} s", definition.bridge);
        pairs.add("to be kept", Cell::text(line));
    }
    pairs.add("bridge", bridge(&definition.bridge, network.bridge_mac));
    pairs.add("uplink", Cell::text(&definition.uplink));
    let mtu = definition.mtu.map_or_else(|| "the uplink's".to_owned(), |mtu| mtu.to_string());
    pairs.add("MTU", Cell::text(mtu));
    pairs.add("anti-spoofing", yes_or_no(definition.anti_spoofing));
    pairs.add("autostart", yes_or_no(definition.autostart));
    guests(&network.ports, &mut pairs);
    pairs
}

fn bridge(name: &IfName, mac: Option<MacAddr>) -> Cell {
    Cell::text(match mac {
        Some(mac) => format!("{name} ({mac})"),
        None => format!("{name} (not there)"),
    })
}

fn yes_or_no(yes: bool) -> Cell {
    Cell::text(if yes { "yes" } else { "no" })
}

fn guests(ports: &[PortView], pairs: &mut Pairs) {
    if ports.is_empty() {
        pairs.add("guests", Cell::text("none"));
    }
    for (index, port) in ports.iter().enumerate() {
        let name = if index == 0 { "guests" } else { "" };
        let mut line =
            format!("{} nic {} on {}, {}", port.domain, port.nic, port.interface, port.mac);
        for address in &port.addresses {
            line.push_str(&format!(", {address}"));
        }
        for (name, limit) in [("in", port.limits.inbound), ("out", port.limits.outbound)] {
            line.extend(limit.map(|limit| format!(", rate {name} {limit}")));
        }
        pairs.add(name, Cell::text(line));
    }
}

/// How guests get IPv6 addresses.
fn add_ipv6(pairs: &mut Pairs, ipv6: &Ipv6) {
    let slaac = if ipv6.slaac { "yes" } else { "no" };
    pairs.add("SLAAC", Cell::text(slaac));
    if let Some(range) = ipv6.range {
        pairs.add("DHCPv6 range", Cell::text(range));
    }
    for reservation in &ipv6.reservations {
        let name = reservation.hostname.as_ref().map(|name| format!(" ({name})"));
        let line =
            format!("{} for {}{}", reservation.ip, reservation.mac, name.unwrap_or_default());
        pairs.add("reservation", Cell::text(line));
    }
}

fn upstreams(network: &Network) -> String {
    let upstreams: Vec<_> =
        network.definition.dns.upstreams.iter().map(ToString::to_string).collect();
    match upstreams.as_slice() {
        [] => "the host's own".to_owned(),
        _ => upstreams.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_about_a_network_is_shown() {
        let network = serde_json::from_value(serde_json::json!({
            "definition": {
                "name": "lab", "mode": "routed", "bridge": "virbr1",
                "subnet": "10.0.5.0/24", "domain": "lab.vnet", "uplink": "eth1", "mtu": 1400,
                "autostart": false,
                "dhcp": {
                    "range": "10.0.5.2-10.0.5.254", "lease_seconds": 5400,
                    "reservations": [
                        {"mac": "52:54:00:00:00:09", "ip": "10.0.5.9", "hostname": "nine"}
                    ]
                },
                "dns": {"upstreams": ["192.0.2.53"], "hosts": {"printer": ["10.0.5.8"]}},
                "forwards": [
                    {"protocol": "tcp", "port": 8080, "target": "web:80"},
                    {"protocol": "udp", "port": "9000-9009", "target": "10.0.5.9"}
                ]
            },
            "state": "failed", "reason": "virbr1 is there already", "gateway": "10.0.5.1",
            "bridge_mac": "52:54:00:aa:bb:cc", "mtu": 1400,
            "ports": [
                {"interface": "vn0", "domain": "web", "nic": 0, "mac": "52:54:00:00:00:01"},
                {"interface": "vn1", "domain": "db", "nic": 0, "mac": "52:54:00:00:00:02"}
            ],
            "leases": 2
        }))
        .unwrap();
        assert_eq!(
            pairs(&network).render(),
            "name:           lab\n\
             mode:           routed\n\
             state:          failed\n\
             reason:         virbr1 is there already\n\
             bridge:         virbr1 (52:54:00:aa:bb:cc)\n\
             gateway:        10.0.5.1\n\
             subnet:         10.0.5.0/24\n\
             DHCP range:     10.0.5.2-10.0.5.254\n\
             lease time:     1 h 30 min\n\
             reservation:    10.0.5.9 for 52:54:00:00:00:09 (nine)\n\
             domain:         lab.vnet\n\
             DNS upstreams:  192.0.2.53\n\
             DNS host:       printer 10.0.5.8\n\
             forwards:       8080/tcp to web:80\n\
             \x20               9000-9009/udp to 10.0.5.9\n\
             uplink:         eth1\n\
             MTU:            1400\n\
             autostart:      no\n\
             guests:         web nic 0 on vn0, 52:54:00:00:00:01\n\
             \x20               db nic 0 on vn1, 52:54:00:00:00:02\n\
             leases:         2\n"
        );
    }
    #[test]
    fn everything_about_a_bridged_network_is_shown() {
        let network = serde_json::from_value(serde_json::json!({
            "definition": {"name": "lan", "mode": "bridged", "bridge": "br0", "uplink": "eth0"},
            "state": "active", "bridge_mac": "52:54:00:aa:bb:cc", "confirm_within": 90,
            "ports": [{
                "interface": "vn0", "domain": "web", "nic": 0, "mac": "52:54:00:00:00:01",
                "addresses": ["203.0.113.50", "2001:db8::50"]
            }]
        }))
        .unwrap();
        assert_eq!(
            bridged(&network).render(),
            "name:           lan\n\
             mode:           bridged\n\
             state:          active\n\
             to be kept:     `vnet confirm br0` within 90 s\n\
             bridge:         br0 (52:54:00:aa:bb:cc)\n\
             uplink:         eth0\n\
             MTU:            the uplink's\n\
             anti-spoofing:  yes\n\
             autostart:      yes\n\
             guests:         web nic 0 on vn0, 52:54:00:00:00:01, 203.0.113.50, 2001:db8::50\n"
        );
    }

    #[test]
    fn ipv6_is_shown_where_there_is_some() {
        let network: Network = serde_json::from_value(serde_json::json!({
            "definition": {
                "name": "six", "mode": "nat", "bridge": "virbr0",
                "subnet": "192.168.122.0/24", "domain": "six.vnet",
                "ipv6": {
                    "prefix": "fd00:6::/64", "slaac": false, "range": "fd00:6::10-fd00:6::1f",
                    "reservations": [{"mac": "52:54:00:00:00:09", "ip": "fd00:6::9"}]
                }
            },
            "state": "active", "gateway": "192.168.122.1", "gateway6": "fd00:6::1",
            "bridge_mac": null, "ports": [], "leases": 0
        }))
        .unwrap();
        let text = pairs(&network).render();
        for line in [
            "IPv6 gateway:   fd00:6::1\n",
            "IPv6 prefix:    fd00:6::/64\n",
            "SLAAC:          no\n",
            "DHCPv6 range:   fd00:6::10-fd00:6::1f\n",
            "reservation:    fd00:6::9 for 52:54:00:00:00:09\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(list::subnets(&network.definition), "192.168.122.0/24, fd00:6::/64");
    }
}
