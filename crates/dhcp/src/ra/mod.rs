//! Router advertisements (RFC 4861 §6.2) by a router that owns no socket and knows no clock.
//!
//! ```text
//!           new                        cease                   3 sent
//!   ──────────────────► advertising ──────────► ceasing ──────────────► ended
//!                        │      ▲
//!      RS ─► solicited ──┘      └── unsolicited: 3 soon, then at random intervals
//! ```
//!
//! How it is used: the caller joins [`ALL_ROUTERS`] on the bridge and receives ICMPv6 there, as
//! frames ([`crate::ip6`]) or from a raw socket that has checked the checksum, with each packet's
//! hop limit. [`Received::new`] and [`parse_solicitation`] check what RFC 4861 §6.1.1 wants;
//! [`Advertiser::solicited`] takes what is left. Whenever the time that
//! [`Advertiser::next`] names has come, [`Advertiser::poll`] gives what is to be sent, one
//! advertisement a call until there is none: an ICMPv6 message, its checksum left to the raw socket
//! or to [`crate::ip6::build_icmp`], with hop limit 255, from the bridge's link-local address.
//!
//! Times are since any fixed instant of a clock that never goes back. `random` is a fresh random
//! number; all delays that RFC 4861 wants random are made of it.
//!
//! [`Advertiser::cease`] is for a network that ends: its guests forget the router, the name
//! servers and, for new connections, the addresses at once. The first of the three farewells is
//! due as soon as RFC 4861 §6.2.6 lets it leave; a caller in a hurry sends
//! [`Advertiser::farewell`] instead. A daemon that merely restarts sends nothing.

mod advertiser;
mod config;
mod message;

use std::net::Ipv6Addr;

use vnet_types::MacAddr;

pub use advertiser::{Advertisement, Advertiser, Target};
pub use config::{Addressing, Config, ConfigError, Preference, Prefix, PrefixUse, Route};
pub use message::{
    Advertised, AdvertisedPrefix, Difference, Invalid, Received, Solicitation, parse_advertisement,
    parse_solicitation,
};

/// All nodes on the link (RFC 4291 §2.7.1): where advertisements go.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers on the link: where solicitations go.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// The type of a router solicitation (RFC 4861 §4.1).
pub const SOLICITATION: u8 = 133;
/// The type of a router advertisement (RFC 4861 §4.2).
pub const ADVERTISEMENT: u8 = 134;

/// A station as it asks and is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Station {
    /// Its address.
    pub ip: Ipv6Addr,
    /// Its card, where it is known; else the kernel's neighbour discovery finds it.
    pub mac: Option<MacAddr>,
}
