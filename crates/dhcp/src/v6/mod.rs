//! A DHCPv6 server (RFC 9915, formerly 8415) that owns no socket and knows no clock.
//!
//! ```text
//!   datagram to [ff02::1:2]:547                           datagram to the client's port 546
//!        │                                                          ▲
//!        ▼                                                          │ after the records
//!   Server::handle(now, Received) ──► Outcome { persist, event, to } + reply
//!                 │                              │
//!               leases ◄── journal::replay ◄── file ◄── journal::encode
//! ```
//!
//! How it is used: the caller joins [`ALL_AGENTS`] on the bridge and receives UDP on
//! [`SERVER_PORT`], through a socket bound to the bridge or as frames ([`crate::ip6`] takes them
//! apart and puts them together, with complete checksums). For each datagram it calls
//! [`Server::handle`]. Records go to the journal as DHCPv4's do ([`crate::journal`] keeps leases
//! of either kind, each kind in a file of its own), and the reply leaves for [`Outcome::to`] when
//! they are on stable storage; with no records it may leave at once. At a start,
//! `journal::replay::<v6::Lease>` gives [`Server::new`] its leases.
//!
//! Where ports are guarded, [`Received::src_mac`] must be what the frame said, and
//! [`Identity::Hardware`](crate::Identity::Hardware) makes it part of a client's identity:
//! whoever sends another guest's identifier is then somebody else, and cannot take, release or
//! decline that guest's addresses. `Decision::Leased` in the event names the addresses that the
//! guard must know before the reply leaves.
//!
//! A name in a lease is unique among IPv6 leases only. Who publishes it beside DHCPv4's leases
//! must check that both are the same card's.
//!
//! What is served: IA_NA, one address each; reservations by card or identifier; rapid commit;
//! CONFIRM, RENEW, REBIND, RELEASE, DECLINE with quarantine, INFORMATION-REQUEST; relays.
//! Prefixes and temporary addresses are refused with their status codes. Not offered:
//! RECONFIGURE, authentication, and the server unicast option, which RFC 9915 has no more.

mod config;
mod duid;
mod event;
mod lease;
mod message;
mod pool;
mod relay;
mod reply;
mod server;

use std::net::Ipv6Addr;

use vnet_types::MacAddr;

pub use config::{Reservation, ReservedFor, ServerConfig};
pub use duid::{Duid, DuidError};
pub use event::{Answer, Decision, Event, Refusal, Silence};
pub use lease::Lease;
pub use message::{Kind, MessageError};
pub use pool::{MAX_LEASES, MAX_PER_CARD};
pub use server::Server;

/// One change to what is known of an IPv6 address.
pub type Record = crate::journal::Record<Lease>;

/// The port of clients (RFC 9915 §7.2).
pub const CLIENT_PORT: u16 = 546;
/// The port of servers and relays.
pub const SERVER_PORT: u16 = 547;
/// All servers and relays on the link (RFC 9915 §7.1): where clients send.
pub const ALL_AGENTS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// All servers of the site, where relays may send.
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);

/// A DHCPv6 message as it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// The neighbour that the frame came from, where the caller can tell.
    pub src_mac: Option<MacAddr>,
    /// The sender's address.
    pub src_ip: Ipv6Addr,
    /// Where the packet went.
    pub dst_ip: Ipv6Addr,
    /// The message.
    pub payload: &'a [u8],
}

/// What is to be done about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the records belong on stable storage before the reply leaves"]
pub struct Outcome {
    /// To be on stable storage before the reply leaves. Not empty if any lease has changed.
    pub persist: Vec<Record>,
    /// What was decided, and why.
    pub event: Event,
    /// The address and the UDP port that the reply goes to; none if there is no reply.
    pub to: Option<(Ipv6Addr, u16)>,
}
