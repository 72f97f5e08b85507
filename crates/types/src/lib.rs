//! The words of vnet as validated types: names, MAC addresses, subnets, and the network
//! definition that a person writes. No I/O, no clock, no sockets.
//!
//! A value of one of these types is valid by construction: what parses may be handed to the
//! kernel, printed, or used as a file name without another look.

mod bridged;
mod dhcp;
mod dns;
mod forward;
mod ipv6;
mod limit;
mod mac;
mod names;
mod network;
#[cfg(feature = "openapi")]
mod schema;
mod subnet;

pub use bridged::{BRIDGED, BridgedDefinition, BridgedMode};
pub use dhcp::{Boot, ClientId, ClientIdError, DhcpOptionError, DhcpOptions, Excluded, Firmware};
pub use dns::{Dns, DnsError, Mx, Srv, Upstream, UpstreamError, UpstreamTransport};
pub use forward::{
    Forward, ForwardError, Listen, MAX_FORWARDED_PORTS, PortRange, Protocol, Target, TargetHost,
};
pub use ipv6::{
    AddrRange6, Ipv6, Ipv6Error, MIN_MTU6, Prefix6, Prefix6Error, Reservation6, link_local,
};
pub use limit::{Limit, LimitError, Limits, LinkLimits};
pub use mac::{MacAddr, MacError};
pub use names::{DnsName, DomainName, IfName, NameError, NetworkName, RecordName};
pub use network::{
    DEFAULT_LEASE_SECONDS, DEFAULT_MTU, DefinitionError, Dhcp, MAX_MTU, MIN_MTU, Mode,
    NetworkDefinition, Reservation,
};
pub use subnet::{AddrRange, Subnet, SubnetError};
