//! The network daemon.
//!
//! ```text
//! http ──► daemon (one owner of state) ──► store      definitions on disk
//! ports ─►   │                        ├──► reconcile  observe, plan, execute, observe
//!            │                        └──► services   DHCP and DNS, a pair for each network
//!            └──◄ leases              one writer for all networks' leases
//! ```
//!
//! netd may be killed at any instant: what it made is in the ledger before it is made, and a
//! lease is on disk before its ACK leaves. Guests keep their links and leases meanwhile.

pub mod access;
pub mod daemon;
mod definition;
mod edit;
pub mod failure;
mod forwards;
mod guard;
mod history;
pub mod http;
pub mod instance;
mod lease_view;
pub mod leases;
mod links;
mod metrics;
mod network_view;
mod owners;
pub mod ports;
mod reconcile;
mod repair;
mod request;
mod reservation;
pub mod run;
mod services;
mod sightings;
mod store;
mod watch;
