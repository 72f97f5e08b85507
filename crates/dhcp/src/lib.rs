//! Servers that own no socket and know no clock: frames, time and stored leases in, frames and
//! records out. DHCPv4 is here; DHCPv6 is [`v6`], router advertisements are [`ra`].
//!
//! ```text
//!   frame from the bridge                                    frame to the bridge
//!        │                                                          ▲
//!        ▼                                                          │ after the records
//!   frame::parse ──► Server::handle(now) ──► Outcome { persist, event } + reply
//!                      │  message: what the client says                 │
//!                      │  pool:    which address, and why               ▼
//!                      │  reply:   what it is told           journal::encode ──► file
//!                      ▼                                            │
//!                    leases  ◄──────────── journal::replay ◄────────┘ at the next start
//! ```
//!
//! The caller keeps one promise: the records in [`Outcome::persist`] are on stable storage
//! before the reply leaves (RFC 2131 §4.3.1: an allocated address outlives a crash of the
//! server). Any number of outcomes may share one write.
//!
//! Nothing here scans the pool: each message costs a few map operations, whatever the number
//! of leases. What a client can make the server remember is bounded by the number of addresses.

pub mod arp;
mod config;
mod event;
pub mod frame;
mod hostname;
mod intervals;
pub mod ip6;
pub mod journal;
mod lease;
mod leases;
mod message;
mod offers;
mod options;
mod pool;
pub mod ra;
mod reply;
mod server;
pub mod v6;

pub use config::{Boot, Identity, Route, ServerConfig, probes};
pub use event::{Choice, Decision, Event, NakReason, Silence};
pub use journal::Record;
pub use lease::{ClientKey, ClientKeyError, Lease, LeaseState};
pub use message::{Kind, MessageError};
pub use server::{ConfigError, Now, Outcome, Server};
