//! What a router says of itself and of the link.

use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;
use vnet_types::{DnsName, MacAddr, Mode, NetworkDefinition};

/// The least and the most that MaxRtrAdvInterval may be (RFC 4861 §6.2.1).
const MAX_INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(4)..=Duration::from_secs(1800);
/// The least that MinRtrAdvInterval may be.
const LEAST_INTERVAL: Duration = Duration::from_secs(3);
/// The longest life that a router may claim, in seconds (RFC 4861 §6.2.1, as it was written; RFC
/// 8319 has 65,535).
const MAX_LIFETIME: u16 = 9000;
/// The smallest MTU of a link that carries IPv6 (RFC 8200 §5).
const MIN_MTU: u32 = 1280;

/// One link as its router sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The bridge's own MAC address: the source link-layer address option.
    pub mac: MacAddr,
    /// Bytes in the largest packet on the link; 1280 at least.
    pub mtu: u32,
    /// How guests get their addresses.
    pub addressing: Addressing,
    /// For how long the router is a default router, in seconds: 0 if it is none, else from the
    /// longest interval to 9000.
    pub lifetime_seconds: u16,
    /// How it compares with other default routers (RFC 4191 §2.2).
    pub preference: Preference,
    /// Hops that guests give their packets; 0 leaves it to them.
    pub hop_limit: u8,
    /// The link's prefixes.
    pub prefixes: Vec<Prefix>,
    /// Routes through this router besides the default one (RFC 4191 §2.3).
    pub routes: Vec<Route>,
    /// Name servers (RFC 8106 §5.1); none for guests that ask DHCPv6 alone.
    pub dns_servers: Vec<Ipv6Addr>,
    /// Domains in which guests look for short names (RFC 8106 §5.2).
    pub search: Vec<DnsName>,
    /// The longest time between two advertisements that nobody asked for, 4 to 1800 seconds.
    pub max_interval: Duration,
    /// The shortest: 3 seconds to three quarters of the longest.
    pub min_interval: Duration,
}

/// How guests get addresses: the flags M and O (RFC 4861 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// They make them from a prefix, and there is no DHCPv6.
    Slaac,
    /// They make them from a prefix, and ask DHCPv6 for the rest (O).
    SlaacAndOptions,
    /// DHCPv6 gives them (M); from autonomous prefixes guests make further ones.
    Dhcp,
}

/// How a router or a route compares with others (RFC 4191 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preference {
    /// Rather than others.
    High,
    /// As others.
    #[default]
    Medium,
    /// Only where there is no other.
    Low,
}

/// A prefix of the link (RFC 4861 §4.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix.
    pub net: Ipv6Net,
    /// What guests use it for.
    pub used_for: PrefixUse,
    /// For how long it is valid, in seconds; `u32::MAX` is for ever.
    pub valid_seconds: u32,
    /// For how long addresses made from it serve new connections, in seconds.
    pub preferred_seconds: u32,
}

/// What guests use a prefix for: the flags L and A (RFC 4861 §4.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixUse {
    /// To know who is on the link (L).
    OnLink,
    /// To make addresses from it as well (L and A).
    Both,
    /// To make addresses from it alone (A): neighbours are reached through the router.
    Autonomous,
}

/// A route (RFC 4191 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub net: Ipv6Net,
    /// How it compares with others.
    pub preference: Preference,
    /// For how long it is valid, in seconds; `u32::MAX` is for ever.
    pub lifetime_seconds: u32,
}

/// Why a configuration cannot be advertised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An MTU that carries no IPv6.
    #[error("an MTU of {0} bytes carries no IPv6: choose {MIN_MTU} or more")]
    Mtu(u32),
    /// Intervals outside what RFC 4861 §6.2.1 allows.
    #[error(
        "router advertisements every {min:?} to {max:?} are not possible: choose a maximum of 4 \
         to 1800 seconds, and a minimum of 3 seconds to three quarters of it"
    )]
    Interval {
        /// The shorter one.
        min: Duration,
        /// The longer one.
        max: Duration,
    },
    /// A lifetime that ends between two advertisements, or is too long.
    #[error(
        "a router's lifetime of {0} seconds is not possible: choose 0, or the maximum interval to \
         {MAX_LIFETIME}"
    )]
    Lifetime(u16),
    /// Addresses that are to be preferred longer than they are valid (RFC 4861 §6.2.1).
    #[error("the prefix {0} is preferred for longer than it is valid")]
    Preferred(Ipv6Net),
    /// The link-local prefix (RFC 4861 §4.6.2).
    #[error("the prefix {0} is every link's own, and not advertised")]
    LinkLocal(Ipv6Net),
    /// More than one packet holds (RFC 4861 §6.2.3 would have several; nobody has so much to say).
    #[error("the router advertisement has {bytes} bytes, which the MTU of {mtu} does not carry")]
    TooLong {
        /// Bytes of ICMPv6.
        bytes: usize,
        /// The link's.
        mtu: u32,
    },
}

impl Config {
    /// A router with the times that RFC 4861 §6.2.1 has where nothing else is said, for a link
    /// on which it is the default router, with nothing to say yet of prefixes and names.
    #[must_use]
    pub fn new(mac: MacAddr, mtu: u32, addressing: Addressing) -> Self {
        Self {
            mac,
            mtu,
            addressing,
            lifetime_seconds: 1800,
            preference: Preference::default(),
            hop_limit: 64,
            prefixes: Vec::new(),
            routes: Vec::new(),
            dns_servers: Vec::new(),
            search: Vec::new(),
            max_interval: Duration::from_secs(600),
            min_interval: Duration::from_secs(200),
        }
    }

    /// What the router of `network` says from the bridge with the address `mac`. None where the
    /// network has no IPv6.
    #[must_use]
    pub fn for_network(network: &NetworkDefinition, mac: MacAddr) -> Option<Self> {
        let ipv6 = network.ipv6.as_ref()?;
        let addressing =
            if ipv6.gives_addresses() { Addressing::Dhcp } else { Addressing::SlaacAndOptions };
        let used_for = if ipv6.slaac { PrefixUse::Both } else { PrefixUse::OnLink };
        let mut config = Self::new(mac, network.mtu(), addressing);
        if network.mode == Mode::Hostonly {
            // A default route that leads nowhere would win over a guest's second network card.
            config.lifetime_seconds = 0;
        }
        config.prefixes = vec![Prefix::new(ipv6.prefix.net(), used_for)];
        config.dns_servers = vec![ipv6.prefix.gateway()];
        config.search = vec![network.domain.clone()];
        Some(config)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.mtu < MIN_MTU {
            return Err(ConfigError::Mtu(self.mtu));
        }
        let (min, max) = (self.min_interval, self.max_interval);
        if !MAX_INTERVAL.contains(&max) || min < LEAST_INTERVAL || min > max * 3 / 4 {
            return Err(ConfigError::Interval { min, max });
        }
        let lifetime = self.lifetime_seconds;
        if lifetime != 0 && (u64::from(lifetime) < max.as_secs() || lifetime > MAX_LIFETIME) {
            return Err(ConfigError::Lifetime(lifetime));
        }
        for prefix in &self.prefixes {
            if prefix.preferred_seconds > prefix.valid_seconds {
                return Err(ConfigError::Preferred(prefix.net));
            }
            if prefix.net.network().is_unicast_link_local() {
                return Err(ConfigError::LinkLocal(prefix.net));
            }
        }
        Ok(())
    }
}

impl Prefix {
    /// `net` with the lifetimes that RFC 4861 §6.2.1 has where nothing else is said: 30 days,
    /// of which 7 preferred.
    #[must_use]
    pub const fn new(net: Ipv6Net, used_for: PrefixUse) -> Self {
        let (valid_seconds, preferred_seconds) = (2_592_000, 604_800);
        Self { net, used_for, valid_seconds, preferred_seconds }
    }
}
