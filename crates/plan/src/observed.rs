//! What is: a dump of the kernel's state, as far as a plan looks at it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use vnet_types::{MacAddr, NetworkDefinition};

use crate::links::Addresses;
use crate::{Alias, FirewallState, Ledger, Links, Shape};

/// The host's network in one network namespace, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// All links.
    pub links: Links,
    /// All addresses of all links.
    pub addresses: Addresses,
    /// The routes of all tables but `local`, those of IPv4 first.
    pub routes: Arc<Vec<Route>>,
    /// The index of the link by which packets leave for the outside; none on a host without a
    /// way there.
    pub outlet: Option<u32>,
    /// What limits links, by their index; looked at where something of ours may.
    pub shapes: Arc<BTreeMap<u32, Shape>>,
    /// Whether the host has IPv6 at all.
    pub ipv6: bool,
    /// The switches for forwarding, by their paths under `/proc/sys`.
    pub sysctls: BTreeMap<String, String>,
    /// The state of our nftables table.
    pub firewall: FirewallState,
    /// What we remember to be ours.
    pub ledger: Arc<Ledger>,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// What it is, as far as we care.
    pub kind: LinkKind,
    /// Its Ethernet address; none for links that aren't Ethernet.
    pub mac: Option<MacAddr>,
    /// Whether it is set up by its administrator.
    pub up: bool,
    /// Bytes in its largest packet.
    pub mtu: u32,
    /// The index of the bridge, bond or VRF that it belongs to.
    pub master: Option<u32>,
    /// What we have written on it.
    pub alias: Option<Alias>,
    /// How it is set for IPv6.
    pub ipv6: Ipv6Settings,
    /// Whether IPv4 packets that come from it are forwarded; looked at for our own links only.
    pub forwarding: bool,
    /// Its own `route_localnet`; read for bridges of ours only.
    pub route_localnet: bool,
}

/// How a link is set for IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ipv6Settings {
    /// Whether it has IPv6 at all. A link with an MTU below 1280 bytes has not (RFC 8200 §5).
    pub on: bool,
    /// Whether it forwards: what makes a router of the host there.
    pub forwarding: bool,
    /// Its `accept_ra`: 0 never, 1 while it does not forward, 2 always.
    pub accept_ra: i32,
    /// Whether the kernel gives it a link-local address.
    pub link_local: bool,
}

/// The kinds of link that a plan tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// A tap or tun.
    Tun,
    /// One through whose queue goes what comes in by another (`ifb`).
    Intake,
    /// Anything else.
    #[default]
    Other,
}

/// One address of one link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The index of its link.
    pub link: u32,
    /// The address with its prefix.
    pub net: IpNet,
    /// Who is at the other end, where there is one.
    pub peer: Option<IpAddr>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; `0.0.0.0/0` or `::/0` for a default route.
    pub destination: IpNet,
    /// The index of the link that it leaves by; none for blackholes and the like.
    pub link: Option<u32>,
}

impl Observed {
    /// The name of the link with this index.
    #[must_use]
    pub fn link_name(&self, index: u32) -> Option<&str> {
        self.links.at(index).map(|(name, _)| name)
    }

    /// The network whose bridge this is, as it was when it was started, if the ledger knows it and
    /// it is there.
    #[must_use]
    pub fn started(&self, bridge: &str) -> Option<&Arc<NetworkDefinition>> {
        let claim = self.ledger.bridges.get(bridge)?;
        let link = self.links.get(bridge)?;
        (link.mac == Some(claim.mac)).then_some(&claim.network)
    }

    /// Whether the link has exactly this address with this prefix.
    #[must_use]
    pub fn has_address(&self, link: u32, address: IpAddr, prefix: u8) -> bool {
        self.addresses.contains(link, address, prefix)
    }
}

/// The path of the switch for IPv6 forwarding under `/proc/sys`.
pub const FORWARD6: &str = "net/ipv6/conf/all/forwarding";
/// The path of the switch for IPv4 forwarding under `/proc/sys`.
pub const IP_FORWARD: &str = "net/ipv4/ip_forward";
