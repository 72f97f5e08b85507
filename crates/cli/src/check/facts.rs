//! What there is on this host, as [`super::judge`] wants to know it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use vnet_api::model::Network;
use vnet_plan::Observed;
use vnet_plan::foreign::Ruleset;

/// All of it. What could not be found out is told from what is not there.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) kvm: Device,
    pub(crate) tun: Device,
    pub(crate) vhost_net: bool,
    pub(crate) nft: Nft,
    /// Tables of the older iptables are in use, which nft does not show.
    pub(crate) legacy_iptables: bool,
    pub(crate) modules: BTreeMap<&'static str, Module>,
    pub(crate) ip_forward: bool,
    /// `bridge-nf-call-iptables`; none without br_netfilter.
    pub(crate) bridge_netfilter: Option<bool>,
    /// The same for rules of IPv6.
    pub(crate) bridge_netfilter6: Option<bool>,
    pub(crate) netd: Netd,
    pub(crate) networks: Vec<Network>,
    /// The host's links, addresses and routes, or why they are not known.
    pub(crate) observed: Result<Observed, String>,
    pub(crate) sockets: Vec<Listener>,
    pub(crate) resolver: Resolver,
    pub(crate) group: Group,
}

/// A device that a program must be able to open.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Device {
    #[default]
    Missing,
    /// This user may not open it.
    Denied,
    Broken(String),
    /// It works; with the version of its interface, if it has one.
    Works(Option<i32>),
}

/// The program nft and what it says.
#[derive(Debug, Default)]
pub(crate) enum Nft {
    #[default]
    Missing,
    /// Only root sees rules.
    Denied,
    Broken(String),
    Rules(Ruleset),
}

/// A part of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Module {
    /// It is there.
    Present,
    /// It is there as soon as somebody needs it.
    Loadable,
    /// This kernel has none, as far as can be seen.
    Missing,
}

#[derive(Debug, Default)]
pub(crate) enum Netd {
    #[default]
    Unreachable,
    Forbidden,
    Broken(String),
    Version(String),
}

/// A socket of another program that waits on port 53 or 67.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) protocol: &'static str,
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    /// The program, if this user may know it.
    pub(crate) program: Option<String>,
}

/// How the host resolves names.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    /// systemd-resolved does it.
    pub(crate) is_resolved: bool,
    /// The networks whose gateways' names the host was asked for.
    pub(crate) asked: BTreeSet<String>,
    /// Those among them that it knew.
    pub(crate) known: BTreeSet<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Group {
    /// This user is root.
    #[default]
    Root,
    Member,
    Stranger,
    Missing,
}
