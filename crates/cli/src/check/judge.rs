//! What the facts mean: pure, and so tested without the hosts that they describe.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Serialize;
use vnet_api::model::{Network, State};
use vnet_plan::foreign::{Certainty, Flow, Needs, Obstacle, Ruleset, obstacles};
use vnet_plan::{Observed, clashes, free_subnet};
use vnet_types::Mode;

use super::facts::{Device, Facts, Group, Listener, Module, Netd, Nft};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Ok,
    Warning,
    Failed,
}

/// One row: what was looked at, what was found, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) state: Level,
    pub(crate) found: String,
    /// Commands or advice; empty where nothing is wrong.
    pub(crate) fix: Vec<String>,
}

fn ok(name: &'static str, found: impl Into<String>) -> Row {
    Row { name, state: Level::Ok, found: found.into(), fix: Vec::new() }
}

fn bad(name: &'static str, state: Level, found: impl Into<String>, fix: &[&str]) -> Row {
    let fix = fix.iter().map(ToString::to_string).collect();
    Row { name, state, found: found.into(), fix }
}

/// All rows, in the order in which things are needed.
pub(crate) fn judge(facts: &Facts) -> Vec<Row> {
    let mut rows = vec![kvm(&facts.kvm), tun(&facts.tun), vhost(facts.vhost_net), nft(&facts.nft)];
    rows.push(modules(&facts.modules));
    rows.extend([netd(&facts.netd), group(&facts.group)]);
    rows.extend(facts.networks.iter().filter_map(network));
    rows.push(forwarding(facts));
    rows.push(bridge_netfilter(facts));
    rows.extend(foreign_rules(facts));
    rows.extend(ports(facts));
    rows.extend(subnets(facts));
    rows.push(resolver(facts));
    rows
}

fn kvm(device: &Device) -> Row {
    /// `KVM_GET_API_VERSION` has been 12 since Linux 2.6.22, and will stay so.
    const VERSION: i32 = 12;
    match device {
        Device::Works(Some(VERSION)) => ok("kvm", "/dev/kvm can be used, API version 12"),
        Device::Works(version) => {
            let version = version.map_or("none".to_owned(), |version| version.to_string());
            let found = format!("/dev/kvm has the API version {version}, not 12");
            bad("kvm", Level::Failed, found, &["run a kernel with KVM as of Linux 2.6.22 or later"])
        }
        Device::Missing => bad(
            "kvm",
            Level::Failed,
            "there is no /dev/kvm: guests cannot run",
            &[
                "modprobe kvm_intel || modprobe kvm_amd",
                "turn on virtualisation (VT-x, AMD-V) in the firmware, or nested virtualisation in the host above",
            ],
        ),
        Device::Denied => bad(
            "kvm",
            Level::Failed,
            "this user may not open /dev/kvm",
            &["usermod -aG kvm $USER, and log in again"],
        ),
        Device::Broken(reason) => bad(
            "kvm",
            Level::Failed,
            format!("/dev/kvm cannot be opened: {reason}"),
            &["modprobe kvm"],
        ),
    }
}

fn tun(device: &Device) -> Row {
    match device {
        Device::Works(_) => ok("tun", "/dev/net/tun can be used"),
        Device::Missing => bad(
            "tun",
            Level::Failed,
            "there is no /dev/net/tun: guests get no ports",
            &["modprobe tun"],
        ),
        Device::Denied => bad(
            "tun",
            Level::Warning,
            "this user may not open /dev/net/tun; netd, as root, may",
            &[],
        ),
        Device::Broken(reason) => bad(
            "tun",
            Level::Failed,
            format!("/dev/net/tun cannot be opened: {reason}"),
            &["modprobe tun"],
        ),
    }
}

fn vhost(there: bool) -> Row {
    ok(
        "vhost-net",
        if there { "/dev/vhost-net is there" } else { "none: packets pass through vnet-vmm" },
    )
}

fn nft(nft: &Nft) -> Row {
    match nft {
        Nft::Rules(_) => ok("nft", "nft works, and the kernel has nf_tables"),
        Nft::Missing => {
            bad("nft", Level::Failed, "there is no program nft", &["apt-get install nftables"])
        }
        Nft::Denied => {
            bad("nft", Level::Warning, "nft is there; only root sees rules", &["sudo vnet check"])
        }
        Nft::Broken(reason) => bad(
            "nft",
            Level::Failed,
            format!("nft does not work: {reason}"),
            &["modprobe nf_tables"],
        ),
    }
}

fn modules(modules: &BTreeMap<&'static str, Module>) -> Row {
    let missing: Vec<_> = modules
        .iter()
        .filter(|(_, module)| **module == Module::Missing)
        .map(|(name, _)| *name)
        .collect();
    if missing.is_empty() {
        let names: Vec<_> = modules.keys().copied().collect();
        return ok("modules", format!("{} are there or can be loaded", names.join(", ")));
    }
    let names = missing.join(" ");
    Row {
        fix: vec![
            format!("modprobe -a {names}"),
            "install the package with this kernel's modules".into(),
        ],
        ..bad("modules", Level::Failed, format!("this kernel has no {names}"), &[])
    }
}

fn netd(netd: &Netd) -> Row {
    let own = env!("CARGO_PKG_VERSION");
    match netd {
        Netd::Version(version) if version == own => ok("netd", format!("netd {version} answers")),
        Netd::Version(version) => {
            let found = format!("netd is version {version}, vnet is version {own}");
            bad(
                "netd",
                Level::Warning,
                found,
                &["systemctl restart vnet-netd (guests keep their links)"],
            )
        }
        Netd::Unreachable => bad(
            "netd",
            Level::Failed,
            "netd does not answer: it does not run",
            &["systemctl enable --now vnet-netd"],
        ),
        Netd::Forbidden => bad(
            "netd",
            Level::Failed,
            "netd's socket is not for this user",
            &["usermod -aG vnet $USER, and log in again"],
        ),
        Netd::Broken(reason) => bad(
            "netd",
            Level::Failed,
            reason.clone(),
            &["systemctl restart vnet-netd (guests keep their links)"],
        ),
    }
}

fn group(group: &Group) -> Row {
    match group {
        Group::Root => ok("group", "root may do everything"),
        Group::Member => ok("group", "this user is in the group vnet"),
        Group::Stranger => bad(
            "group",
            Level::Warning,
            "this user is not in the group vnet",
            &["usermod -aG vnet $USER, and log in again"],
        ),
        Group::Missing => bad(
            "group",
            Level::Warning,
            "there is no group vnet: only root can use netd",
            &["groupadd --system vnet, and restart netd"],
        ),
    }
}

fn network(network: &Network) -> Option<Row> {
    let State::Failed { reason } = &network.state else { return None };
    let name = &network.definition.name;
    let fix = format!("vnet start {name}");
    Some(bad("network", Level::Failed, format!("{name} does not work: {reason}"), &[&fix]))
}

fn is_up(network: &&Network) -> bool {
    network.state != State::Stopped
}

fn forwarding(facts: &Facts) -> Row {
    let needs = |network: &&Network| network.definition.mode != Mode::Hostonly;
    match (facts.ip_forward, facts.networks.iter().filter(is_up).any(|network| needs(&network))) {
        (true, _) => ok("forwarding", "IPv4 forwarding is on"),
        (false, false) => {
            ok("forwarding", "IPv4 forwarding is off; netd turns it on with the first network")
        }
        (false, true) => bad(
            "forwarding",
            Level::Failed,
            "IPv4 forwarding is off: guests do not reach the outside",
            &["sysctl -w net.ipv4.ip_forward=1, and remove what turns it off from /etc/sysctl.d"],
        ),
    }
}

fn bridge_netfilter(facts: &Facts) -> Row {
    match facts.bridge_netfilter {
        None => ok("br_netfilter", "not loaded: frames between guests meet no rules of iptables"),
        Some(false) => ok("br_netfilter", "loaded, and bridge-nf-call-iptables is 0"),
        Some(true) => {
            ok("br_netfilter", "on: frames between guests meet the host's rules; see foreign rules")
        }
    }
}

/// The packets that must pass for the networks that are up, or for the first one that will be.
fn flows(facts: &Facts) -> Vec<Flow> {
    let uplink = facts.observed.as_ref().ok().and_then(uplink);
    let mut flows = Vec::new();
    let mut add = |bridge: &str, subnet: ipnet::IpNet, mode: Mode, bound: Option<&str>| {
        let uplink = bound.or(uplink.as_deref());
        let bridge_netfilter = match subnet {
            ipnet::IpNet::V4(_) => facts.bridge_netfilter == Some(true),
            ipnet::IpNet::V6(_) => facts.bridge_netfilter6 == Some(true),
        };
        flows.extend(Needs { bridge, subnet, mode, uplink, bridge_netfilter }.flows());
    };
    for network in facts.networks.iter().filter(is_up) {
        let definition = &network.definition;
        let bound = definition.uplink.as_ref().map(|uplink| uplink.as_str());
        let prefix = definition.ipv6.as_ref().map(|ipv6| ipv6.prefix.net().into());
        for subnet in std::iter::once(definition.subnet.net().into()).chain(prefix) {
            add(definition.bridge.as_str(), subnet, definition.mode, bound);
        }
    }
    if flows_are_missing(facts)
        && let Ok(subnet) = facts.observed.as_ref().map_or_else(
            |_| free_subnet(&Observed::default(), &[]),
            |observed| free_subnet(observed, &[]),
        )
    {
        add("virbr0", subnet.net().into(), Mode::Nat, None);
    }
    flows
}

fn flows_are_missing(facts: &Facts) -> bool {
    !facts.networks.iter().any(|network| is_up(&network))
}

fn uplink(observed: &Observed) -> Option<String> {
    let default = observed.routes.iter().find(|route| route.destination.prefix_len() == 0)?;
    observed.link_name(default.link?).map(str::to_owned)
}

fn foreign_rules(facts: &Facts) -> Vec<Row> {
    const NAME: &str = "foreign rules";
    let mut rows = Vec::new();
    if facts.legacy_iptables {
        rows.push(bad(NAME, Level::Warning, "there are rules of iptables-legacy, which are not looked at", &[
            "iptables-legacy -S; better, move them: update-alternatives --set iptables /usr/sbin/iptables-nft",
        ]));
    }
    match &facts.nft {
        Nft::Rules(ruleset) => rows.extend(foreign(ruleset, &flows(facts))),
        _ => rows.push(bad(
            NAME,
            Level::Warning,
            "not looked at: that takes root, and nft",
            &["sudo vnet check"],
        )),
    }
    rows
}

fn foreign(ruleset: &Ruleset, flows: &[Flow]) -> Vec<Row> {
    let row = |obstacle: Obstacle| Row {
        name: "foreign rules",
        state: match obstacle.certainty {
            Certainty::Sure => Level::Failed,
            Certainty::Possible => Level::Warning,
        },
        found: obstacle.to_string(),
        fix: obstacle.fix,
    };
    let rows: Vec<_> = obstacles(ruleset, flows).into_iter().map(row).collect();
    if rows.is_empty() {
        return vec![ok("foreign rules", "no rules of others drop packets of networks")];
    }
    rows
}

fn ports(facts: &Facts) -> Vec<Row> {
    const NAME: &str = "ports";
    let is_gateway = |address: Ipv4Addr| {
        facts.networks.iter().filter(is_up).any(|network| network.gateway == address)
    };
    // Our own wait at gateways, which are nobody else's.
    let foreign =
        |listener: &&Listener| listener.address.is_unspecified() && !is_gateway(listener.address);
    let rows: Vec<_> = facts.sockets.iter().filter(foreign).map(|listener| {
        let who = listener.program.as_deref().unwrap_or("a program");
        let (protocol, port) = (listener.protocol, listener.port);
        let found = format!("{who} waits on {protocol} port {port} of all addresses, those of bridges too");
        let fix = match port {
            53 => format!("let {who} wait on its own addresses only (dnsmasq: bind-interfaces; bind9: listen-on; unbound: interface)"),
            _ => format!("let {who} serve its own interfaces only (dnsmasq: interface, bind-interfaces; dhcpd: INTERFACESv4)"),
        };
        bad(NAME, Level::Warning, found, &[&fix])
    }).collect();
    if rows.is_empty() {
        return vec![ok(NAME, "nobody else waits on the ports 53 and 67 of all addresses")];
    }
    rows
}

fn subnets(facts: &Facts) -> Vec<Row> {
    const NAME: &str = "subnets";
    let observed = match &facts.observed {
        Ok(observed) => observed,
        Err(reason) => {
            return vec![bad(
                NAME,
                Level::Warning,
                format!("not looked at: {reason}"),
                &["sudo vnet check"],
            )];
        }
    };
    let all: Vec<_> = facts.networks.iter().map(|network| &network.definition).collect();
    let mut rows: Vec<_> = all
        .iter()
        .filter_map(|network| {
            let others: Vec<_> =
                all.iter().copied().filter(|other| other.name != network.name).collect();
            let clash = clashes(network.subnet, observed, &others)?;
            let (name, subnet) = (&network.name, network.subnet);
            let fix = format!("give {name} another subnet: vnet delete {name}, vnet create");
            Some(bad(
                NAME,
                Level::Warning,
                format!("the subnet {subnet} of {name} overlaps {clash}"),
                &[&fix],
            ))
        })
        .collect();
    match free_subnet(observed, &all) {
        Ok(subnet) => rows.push(ok(NAME, format!("{subnet} is free for the next network"))),
        Err(error) => {
            rows.push(bad(NAME, Level::Warning, error.to_string(), &["vnet create … --subnet"]));
        }
    }
    rows
}

fn resolver(facts: &Facts) -> Row {
    const NAME: &str = "names";
    let resolver = &facts.resolver;
    let unknown = resolver.asked.difference(&resolver.known).next();
    let network = unknown.and_then(|name| {
        facts.networks.iter().find(|network| network.definition.name.as_str() == name)
    });
    match network {
        Some(network) => {
            let (bridge, domain) = (&network.definition.bridge, &network.definition.domain);
            let gateway = network.gateway;
            let fix = if resolver.is_resolved {
                vec![
                    format!("resolvectl dns {bridge} {gateway}"),
                    format!("resolvectl domain {bridge} '~{domain}'"),
                ]
            } else {
                vec![
                    format!("dig @{gateway} NAME.{domain} asks the network itself"),
                    format!(
                        "forward {domain} to {gateway} in the host's resolver (dnsmasq: server=/{domain}/{gateway})"
                    ),
                ]
            };
            let found = format!("this host does not resolve guests' names in {domain}");
            Row { fix, ..bad(NAME, Level::Warning, found, &[]) }
        }
        None if !resolver.asked.is_empty() => ok(NAME, "this host resolves guests' names"),
        None if resolver.is_resolved => {
            ok(NAME, "systemd-resolved resolves for this host; no network is up")
        }
        None => ok(NAME, "/etc/resolv.conf names this host's resolvers; no network is up"),
    }
}
