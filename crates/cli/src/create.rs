//! `vnet create`: defines a network and starts it.

use clap::Args;
use vnet_api::model::{CreateIpv6, CreateNetwork};
use vnet_types::{
    AddrRange, AddrRange6, DnsName, IfName, Limit, Limits, MAX_MTU, MIN_MTU, Mode, NetworkName,
    Prefix6, Subnet,
};

use crate::args::{DryRun, mode_parser};
use crate::change;
use crate::context::Context;

/// Define a network and start it
///
/// What is left out is chosen so that it clashes with nothing on this host. It starts with netd
/// from then on; see `vnet autostart`.
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet create nat default
         vnet create nat six --ipv6
         vnet create hostonly lab --subnet 10.0.5.0/24 --range 10.0.5.100-10.0.5.199 --dry-run")]
pub(crate) struct Create {
    /// How guests relate to the outside: behind the host's address, not at all, or with their own
    #[arg(value_parser = mode_parser())]
    mode: Mode,
    /// The network's name
    name: NetworkName,
    /// Its addresses; the first one is the host's [default: 192.168.122.0/24, or one that is free]
    #[arg(long, value_name = "CIDR")]
    subnet: Option<Subnet>,
    /// The addresses that DHCP gives [default: all that guests can have]
    #[arg(long, value_name = "FIRST-LAST", requires = "subnet", conflicts_with = "no_dhcp")]
    range: Option<AddrRange>,
    /// Give no addresses by DHCP
    #[arg(long)]
    no_dhcp: bool,
    /// The domain of the guests' names in the DNS [default: NAME.vnet]
    #[arg(long, value_name = "DNSNAME")]
    domain: Option<DnsName>,
    /// The bridge's name [default: the first free one of virbr0, virbr1, …]
    #[arg(long, value_name = "IFNAME")]
    bridge: Option<IfName>,
    /// The only interface through which guests reach the outside [default: any]
    #[arg(long, value_name = "IFNAME")]
    uplink: Option<IfName>,
    /// Bytes in the largest IP packet [default: as the uplink has]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(i64::from(MIN_MTU)..=i64::from(MAX_MTU)))]
    mtu: Option<u32>,
    /// IPv6 as well, with this prefix [default: a unique local /64, chosen at random]
    #[arg(long, value_name = "CIDR", num_args = 0..=1, require_equals = true)]
    ipv6: Option<Option<Prefix6>>,
    /// The addresses that DHCPv6 gives [default: none; guests make their own]
    #[arg(long, value_name = "FIRST-LAST", requires = "ipv6")]
    range6: Option<AddrRange6>,
    /// Let guests not make IPv6 addresses themselves: DHCPv6 gives them
    #[arg(long, requires = "ipv6")]
    no_slaac: bool,
    /// How fast all guests together may get from the host and the outside, as 10mbit or
    /// 10mbit/64kbyte (with a burst) [default: no limit]
    #[arg(long, value_name = "RATE[/BURST]")]
    rate_in: Option<Limit>,
    /// How fast all guests together may send there
    #[arg(long, value_name = "RATE[/BURST]")]
    rate_out: Option<Limit>,
    /// How fast each guest may get, from other guests too
    #[arg(long, value_name = "RATE[/BURST]")]
    port_rate_in: Option<Limit>,
    /// How fast each guest may send
    #[arg(long, value_name = "RATE[/BURST]")]
    port_rate_out: Option<Limit>,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Runs the command.
///
/// # Errors
/// netd refuses or cannot be reached.
pub(crate) async fn run(args: Create, context: &Context) -> anyhow::Result<()> {
    let run = args.dry_run.run();
    let name = args.name.clone();
    let changed = context.client.create(&args.into_request(), run).await?;
    change::print(&changed, run, context, |changed| match &changed.network {
        Some(network) => change::summary(network),
        None => format!("network {name} is defined"),
    })
}

impl Create {
    fn into_request(self) -> CreateNetwork {
        CreateNetwork {
            name: self.name,
            mode: self.mode,
            subnet: self.subnet,
            range: self.range,
            dhcp: !self.no_dhcp,
            domain: self.domain,
            bridge: self.bridge,
            uplink: self.uplink,
            mtu: self.mtu,
            ipv6: self.ipv6.map(|prefix| CreateIpv6 {
                prefix,
                range: self.range6,
                slaac: self.no_slaac.then_some(false),
            }),
            limits: Limits {
                inbound: self.rate_in,
                outbound: self.rate_out,
                port_in: self.port_rate_in,
                port_out: self.port_rate_out,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    #[test]
    fn every_option_reaches_the_request() {
        let words = "vnet routed lab --subnet 10.0.5.0/24 --range 10.0.5.9-10.0.5.20 \
                     --domain lab.test --bridge br-lab --uplink eth1 --mtu 9000 --rate-in 10mbit \
                     --rate-out 5mbit/64kbyte --port-rate-in 1gbit --port-rate-out 8kbyte";
        let request = Line::parse_from(words.split(' ').filter(|w| !w.is_empty()));
        let request = request.create.into_request();
        assert_eq!(
            serde_json::to_value(&request).unwrap(),
            serde_json::json!({
                "name": "lab", "mode": "routed", "subnet": "10.0.5.0/24",
                "range": "10.0.5.9-10.0.5.20", "dhcp": true, "domain": "lab.test",
                "bridge": "br-lab", "uplink": "eth1", "mtu": 9000,
                "limits": {
                    "in": "10mbit", "out": "5mbit/64kbyte", "port_in": "1gbit", "port_out": "64kbit"
                }
            })
        );
    }

    #[test]
    fn ipv6_is_with_a_prefix_or_without() {
        let ipv6 = |words: &str| {
            let words = ["vnet", "nat", "six"].into_iter().chain(words.split(' '));
            let request = Line::try_parse_from(words).map(|line| line.create.into_request());
            request.map(|request| serde_json::to_value(request.ipv6).unwrap())
        };
        assert_eq!(ipv6("--ipv6").unwrap(), serde_json::json!({}));
        assert_eq!(
            ipv6("--ipv6=fd00::/64 --range6 fd00::10-fd00::20 --no-slaac").unwrap(),
            serde_json::json!({
                "prefix": "fd00::/64", "range": "fd00::10-fd00::20", "slaac": false
            })
        );
        for (words, rule) in [
            ("--ipv6=fd00::1/64", "did you mean fd00::/64"),
            ("--ipv6=fe80::/64", "unique local"),
            ("--no-slaac", "--ipv6"),
        ] {
            let error = ipv6(words).unwrap_err().to_string();
            assert!(error.contains(rule), "{error}");
        }
    }

    #[test]
    fn what_is_left_out_is_for_netd_to_choose() {
        let request = Line::parse_from(["vnet", "nat", "default", "--no-dhcp"]);
        assert_eq!(
            serde_json::to_value(request.create.into_request()).unwrap(),
            serde_json::json!({"name": "default", "mode": "nat", "dhcp": false})
        );
    }
}
