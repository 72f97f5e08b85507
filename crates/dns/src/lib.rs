//! The DNS of one network: authoritative for its own names, a forwarder for all others.
//!
//! ```text
//!  bytes ─ server ─ handler ─┬─ zone      names of the network, reverse and special names: pure
//!                            ├─ cache     what upstreams said
//!                            └─ upstream  asks the host's own servers (resolv.conf) or a list
//! ```
//!
//! There is one [`DnsServer`] per network, because a request does not tell at which address it
//! arrived. netd builds a [`zone::Zone`] from leases, reservations and static hosts, and gives a
//! new one to [`DnsServer::set_zone`] when they change; it is swapped in atomically, and queries
//! never wait for it.
//!
//! Standards: RFC 1034, 1035, 2181, 2308 (negative answers), 2782, 3225, 4343 (case), 5452
//! (forgery), 6303, 6761, 6762, 7686, 8375 and 9476 (names that never leave), 6891 (EDNS), 7766
//! (TCP), 7858 and 8310 (TLS), 8020 (NXDOMAIN), 8482 (ANY), 8767 (stale answers), 8906 (no response
//! is an error), 8914 (extended errors), 9619 (one question).

mod cache;
mod counters;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handler;
mod name;
pub mod resolv;
mod server;
mod upstream;
mod wire;
pub mod zone;

pub use counters::{Counters, LATENCY_BOUNDS, QUERY_TYPES, RESPONSE_CODES};
pub use handler::Forwarding;
pub use server::{Config, DnsServer, Limits, ServerError};
pub use upstream::{HostServers, RESOLVED_UPLINK, Rules, Timing, Trust, Upstreams};
