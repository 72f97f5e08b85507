//! The HTTP API's values.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/networks` | | [`Network`]s |
//! | `POST /v1/networks` | [`CreateNetwork`] | [`Changed`] |
//! | `GET /v1/networks/NAME` | | [`AnyNetwork`] |
//! | `DELETE /v1/networks/NAME?force=` | | [`Changed`] of any |
//! | `POST /v1/networks/NAME/start`, `…/stop?force=` | | [`Changed`] of any |
//! | `PUT /v1/networks/NAME/autostart` | `true` or `false` | [`Changed`] of any |
//! | `GET /v1/forwards?network=`, `GET /v1/networks/NAME/forwards` | | [`ForwardView`]s |
//! | `POST /v1/networks/NAME/forwards` | [`Forward`] | [`Changed`] |
//! | `DELETE /v1/networks/NAME/forwards?listen=[ADDR:]PORT/PROTOCOL` | | [`Changed`] |
//! | `GET /v1/networks/NAME/definition` | | TOML |
//! | `PUT /v1/networks/NAME/definition` | TOML | [`Changed`] of any |
//! | `PUT /v1/networks/NAME/reservations/MAC` | [`Reserve`] | [`Changed`] |
//! | `DELETE /v1/networks/NAME/reservations/MAC` | | [`Changed`] |
//! | `GET /v1/leases?network=` | | [`Lease`]s |
//! | `GET /v1/bridges` | | [`BridgedNetwork`]s |
//! | `POST /v1/bridges` | [`EnslaveUplink`] | [`BridgeChanged`] |
//! | `POST /v1/bridges/BRIDGE/confirm` | | [`BridgeChanged`] |
//! | `POST /v1/bridges/BRIDGE/release?force=` | the uplink's name | [`BridgeChanged`] |
//! | `GET /v1/openapi.json` | | all of this, as OpenAPI |
//!
//! A request that changes something and has `dry_run=true` is answered with what would be done,
//! and nothing is. What fails is answered with an [`ErrorBody`] and a status code of its
//! [`ErrorKind`].

mod bridged;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use vnet_types::{
    AddrRange, AddrRange6, DnsName, DomainName, Forward, IfName, Limits, LinkLimits, MacAddr, Mode,
    NetworkDefinition, NetworkName, Prefix6, Subnet,
};

pub use self::bridged::{AnyNetwork, BridgeChanged, BridgedNetwork, EnslaveUplink};

/// netd itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Files of definitions that cannot be used, and why.
    pub broken: Vec<BrokenDefinition>,
}

/// A definition file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BrokenDefinition {
    /// The file.
    pub path: String,
    /// What is wrong with it, with line and column where that is known.
    pub reason: String,
}

/// Whether a network works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// It does.
    Active,
    /// Nobody wants it to.
    Stopped,
    /// It should, and doesn't.
    Failed {
        /// Why not.
        reason: String,
    },
}

/// One network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Network {
    /// As a person wrote it.
    pub definition: NetworkDefinition,
    /// Whether it works.
    #[serde(flatten)]
    pub state: State,
    /// The host's address on it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Ipv4))]
    pub gateway: Ipv4Addr,
    /// The host's IPv6 address on it, where it has IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv6))]
    pub gateway6: Option<Ipv6Addr>,
    /// The address of its bridge; none while there is no bridge.
    pub bridge_mac: Option<MacAddr>,
    /// Bytes in its largest IP packet at the moment, be they given or the uplink's.
    #[serde(default)]
    pub mtu: u32,
    /// The guests that are on it now.
    pub ports: Vec<PortView>,
    /// How many leases are bound.
    pub leases: usize,
}

/// One guest's port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortView {
    /// The tap.
    pub interface: IfName,
    /// Whose it is.
    pub domain: DomainName,
    /// Which of that domain's network cards.
    pub nic: u8,
    /// The guest's address on it.
    pub mac: MacAddr,
    /// The IP addresses that the guest was seen to use and that netd has not given: those of the
    /// LAN on a bridged network, else the one that it has made for itself (SLAAC).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpAddr>,
    /// The limits that its VMM asked for.
    #[serde(default, skip_serializing_if = "LinkLimits::is_empty")]
    pub limits: LinkLimits,
}

/// What a new network is to be; what is left out is chosen so that it clashes with nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateNetwork {
    /// Its name.
    pub name: NetworkName,
    /// How it relates to the outside.
    pub mode: Mode,
    /// Its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Subnet>,
    /// The addresses that are given by DHCP; all that guests can have where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<AddrRange>,
    /// Whether it has DHCP.
    #[serde(default = "yes")]
    pub dhcp: bool,
    /// The domain of its guests in the DNS; `NAME.vnet` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DnsName>,
    /// Its bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<IfName>,
    /// The only interface through which it reaches the outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<IfName>,
    /// Bytes in the largest IP packet; the uplink's where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Its IPv6; none where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<CreateIpv6>,
    /// How fast it, and each port on it, may be.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

/// What a new network's IPv6 is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateIpv6 {
    /// Its addresses; a unique local /64 where they are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix6>,
    /// The addresses that are given by DHCPv6; none where they are left out, unless guests can get
    /// theirs in no other way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<AddrRange6>,
    /// Whether guests may make their own addresses; where it is left out, they may of a /64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slaac: Option<bool>,
}

fn yes() -> bool {
    true
}

/// An address to be kept for a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// The IPv4 address; where it is left out, what it is stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv4))]
    pub ip: Option<Ipv4Addr>,
    /// The IPv6 address; where it is left out, what it is stays. One of both is to be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv6))]
    pub ip6: Option<Ipv6Addr>,
    /// The guest's name in the network's domain; where it is left out, what it is stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<DnsName>,
}

/// What a request changed, or would have changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Changed<N = Network> {
    /// The network afterwards; none after a delete and in a dry run.
    pub network: Option<N>,
    /// The operations in words, in their order.
    pub plan: Vec<String>,
    /// What a person should know, as that another subnet was chosen, and why.
    pub notes: Vec<String>,
}

impl<N> Default for Changed<N> {
    fn default() -> Self {
        Self { network: None, plan: Vec::new(), notes: Vec::new() }
    }
}

/// One forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ForwardView {
    /// The network that it leads into.
    pub network: NetworkName,
    /// As a person wrote it.
    #[serde(flatten)]
    pub forward: Forward,
    /// The guest's IPv4 address at the moment; none while the guest has none, or the network is
    /// not up: connections are refused then.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv4))]
    pub to: Option<Ipv4Addr>,
    /// Its IPv6 address, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv6))]
    pub to6: Option<Ipv6Addr>,
}

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lease {
    /// The network that it is on.
    pub network: NetworkName,
    /// The address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: IpAddr,
    /// Whose it is; all zeroes for an IPv6 address where only a relay has seen the guest.
    pub mac: MacAddr,
    /// The guest's name in the network's domain.
    pub hostname: Option<String>,
    /// The client identifier in hexadecimal, where the guest sent one; for an IPv6 address, its
    /// DUID.
    pub client_id: Option<String>,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// `bound`, `expired`, `released` or `declined`.
    pub state: String,
}

/// What DHCP has heard of one network card on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explained {
    /// The network.
    pub network: NetworkName,
    /// Whether it is up.
    pub up: bool,
    /// Whether it has DHCP.
    pub dhcp: bool,
    /// The card.
    pub mac: MacAddr,
    /// The domain whose card it is, where one of netd's ports leads to it.
    pub domain: Option<DomainName>,
    /// That port.
    pub port: Option<IfName>,
    /// The address that is reserved for it.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv4))]
    pub reserved: Option<Ipv4Addr>,
    /// The lease that it has, or had last.
    pub lease: Option<Lease>,
    /// Its messages since netd started, the oldest first, as far as netd keeps them.
    pub exchanges: Vec<Exchange>,
}

/// A message of a client and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Exchange {
    /// When it came, in milliseconds since 1970; the first time where it came again.
    pub first_ms: u64,
    /// When it came last.
    pub last_ms: u64,
    /// How often it came, with the same outcome, and nothing between.
    pub times: u32,
    /// `DISCOVER`, `SOLICIT` and so on; none where it could not be read.
    pub message: Option<String>,
    /// The transaction, as the client numbers them.
    pub xid: Option<u32>,
    /// `OFFER`, `ACK` or `NAK`, of DHCPv6 `ADVERTISE` or `REPLY`; none where there was no answer.
    pub answer: Option<String>,
    /// The reason for the answer, or for the silence.
    pub reason: String,
}

/// Which kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request makes no sense.
    Invalid,
    /// The object is not there.
    NotFound,
    /// The object is there already, or something else is in its way.
    Conflict,
    /// The caller may not do this.
    Forbidden,
    /// The host refused.
    Failed,
}

/// Why a request was not done. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct ErrorBody {
    /// Which kind of failure.
    pub kind: ErrorKind,
    /// The object, the cause and the way out.
    pub message: String,
}

impl ErrorKind {
    /// The HTTP status code for it (RFC 9110 §15.5).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Failed => 500,
        }
    }
}
