//! `vnet probe`: the network judged from a guest's seat.
//!
//! ```text
//! network (netd) → target → machine: vnet-vmm with the built-in guest → serial → report
//! ```

mod machine;
mod report;
mod serial;
mod target;

use std::ffi::OsString;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use vnet_api::model::{AnyNetwork, Network};
use vnet_types::{DnsName, DomainName, LinkLimits, MacAddr, NetworkName};

use self::report::{Expected, Report};
use self::target::Target;
use crate::attachment::{Attachment, Place, check_is_up, find};
use crate::context::{Context, Format};
use crate::{output, vmm};

/// Waits in a guest's life: a link, DHCP, an echo, two names, a connection, a reply.
const WAITS: u32 = 7;

const NOTES: &str = "\
The guest looks up gateway.DOMAIN, which netd itself knows, and connects to the first DNS server of
this host (or of the network's definition) on TCP port 53. Where there is none but this host itself,
or this host is offline, that step is skipped and does not count. With --connect it counts always,
and on port 80 the guest asks for a page as well. On a host-only network, the outside must not
answer.

Exit status: 0 the network does all that it should, 1 it doesn't, or the guest failed, 2 wrong
usage, 3 netd cannot be reached.

Example: vnet probe default
         vnet probe default --resolve www.example.com --connect www.example.com:80";

/// Boot the built-in guest on a network and report what it finds: link, DHCP, gateway, DNS, outside
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub(crate) struct Probe {
    /// The network
    #[arg(value_name = "NET")]
    network: NetworkName,
    /// The name to look up [default: gateway.DOMAIN]
    #[arg(long, value_name = "DNSNAME", alias = "name-to-resolve")]
    resolve: Option<DnsName>,
    /// Where to connect to [default: the host's DNS server, port 53]
    #[arg(long, value_name = "HOST:PORT")]
    connect: Option<Target>,
    /// How long each step may take
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=3600)
    )]
    timeout: u32,
}

/// Runs the command.
///
/// # Errors
/// The network cannot take a guest, there is no KVM or no VMM, or the network does not do what it
/// should.
pub(crate) async fn run(args: &Probe, context: &Context) -> anyhow::Result<()> {
    let all = context.client.all_networks().await?;
    let bridged = all.iter().find_map(|network| match network {
        AnyNetwork::Bridged(network) if network.definition.name == args.network => Some(network),
        _ => None,
    });
    if let Some(network) = bridged {
        bail!(
            "{} is a bridged network, whose services are the LAN's: `vnet run --net bridge:{}` \
             boots the built-in guest on it",
            args.network,
            network.definition.bridge
        );
    }
    let name = vmm::unused_name("probe", &all)?;
    let networks: Vec<Network> = all.into_iter().filter_map(AnyNetwork::into_network).collect();
    let network = find(&networks, &args.network)?;
    check_is_up(&args.network, &network.state)?;
    if network.definition.dhcp.is_none() {
        bail!(
            "the network {} has no DHCP, and the built-in guest takes its address from there: \
             probe a network that has",
            args.network
        );
    }
    vmm::check_kvm()?;
    let program = vmm::find()?;
    let connect = args.connect.clone().or_else(|| Target::usual(network));
    let limit = args.timeout * WAITS;
    let mut words: Vec<OsString> = vec!["--root".into(), context.paths.root().into()];
    words.extend(args.words(network, &name, connect.as_ref(), limit).into_iter().map(Into::into));
    let life = machine::run(&program, &words, Duration::from_secs(limit.into())).await?;
    let expected = Expected {
        network: args.network.clone(),
        mode: network.definition.mode,
        connect: connect.is_some(),
    };
    let report = Report::new(&expected, &life);
    match context.format {
        Format::Json => output::print_json(&report)?,
        Format::Text => output::print(&report.render())?,
    }
    if !report.ok {
        bail!(report.failure());
    }
    Ok(())
}

impl Probe {
    /// The VMM's arguments, but for the root.
    fn words(
        &self,
        network: &Network,
        name: &DomainName,
        connect: Option<&Target>,
        limit: u32,
    ) -> Vec<String> {
        let lookup = match &self.resolve {
            Some(name) => name.to_string(),
            None => format!("gateway.{}", network.definition.domain),
        };
        let mut line = format!(
            "vnet.mode=probe vnet.hostname={name} vnet.dns={lookup} vnet.timeout={}",
            u64::from(self.timeout) * 1000
        );
        if let Some(target) = connect {
            line.push_str(&format!(" vnet.connect={target}"));
            if target.is_http() {
                line.push_str(" vnet.http=1");
            }
        }
        let card = Attachment {
            place: Place::Network(Some(network.definition.mode), self.network.clone()),
            mac: Some(free_mac(network)),
            limits: LinkLimits::default(),
        };
        let words = [
            ("--name", name.to_string()),
            ("--net", card.to_string()),
            ("--append", line),
            ("--timeout", limit.to_string()),
        ];
        words.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).collect()
    }
}

/// An address that is the same for every probe of a network, so that a hundred probes take one
/// lease; but not that of a guest that is on it, be it another probe.
fn free_mac(network: &Network) -> MacAddr {
    let seed = format!("probe/{}", network.definition.name);
    let mut mac = MacAddr::derived(&seed, 0);
    for salt in 1.. {
        if !network.ports.iter().any(|port| port.mac == mac) {
            break;
        }
        mac = MacAddr::derived(&seed, salt);
    }
    mac
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        probe: Probe,
    }

    fn network(ports: serde_json::Value) -> Network {
        let value = serde_json::json!({
            "definition": {
                "name": "default", "mode": "nat", "bridge": "virbr0",
                "subnet": "192.168.122.0/24", "domain": "default.vnet"
            },
            "state": "active", "gateway": "192.168.122.1", "bridge_mac": null, "ports": ports,
            "leases": 0
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_guest_is_told_what_to_try() {
        let network = network(serde_json::json!([]));
        let name = "probe-1".parse().unwrap();
        let probe = Line::parse_from(["vnet", "default"]).probe;
        let words = probe.words(&network, &name, None, 35);
        assert_eq!(
            words[5],
            "vnet.mode=probe vnet.hostname=probe-1 vnet.dns=gateway.default.vnet vnet.timeout=5000"
        );
        let line = ["vnet", "default", "--resolve", "a.test", "--connect", "a.test:80"];
        let probe = Line::parse_from(line).probe;
        let words = probe.words(&network, &name, probe.connect.as_ref(), 35);
        assert!(words[5].contains(" vnet.dns=a.test "), "{words:?}");
        assert!(words[5].ends_with(" vnet.connect=a.test:80 vnet.http=1"), "{words:?}");
    }

    #[test]
    fn probes_share_an_address_unless_they_run_at_once() {
        let alone = free_mac(&network(serde_json::json!([])));
        let busy = network(serde_json::json!([
            {"interface": "vn0", "domain": "probe-1", "nic": 0, "mac": alone.to_string()}
        ]));
        assert_eq!(alone, free_mac(&network(serde_json::json!([]))));
        assert_ne!(alone, free_mac(&busy));
    }
}
