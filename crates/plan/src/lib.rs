//! What should be, what is, and the steps between the two. Pure: no I/O, no clock.
//!
//! ```text
//! definitions ──► Desired ─┐
//!                          ├──► diff ──► Plan (ordered Operations) ──► kernel::execute
//! kernel::observe ► Observed ┘                                          │
//!            ▲                                                          │
//!            └──────────────── observe again: the plan is empty ◄───────┘
//! ```
//!
//! Every decision is taken here, from two values, so each can be tested without privileges.
//! The order of a plan is chosen so that a crash after any of its operations leaves a state from
//! which the next plan arrives at the same end: what is ours is written to the [`Ledger`] before
//! it is made, and struck off after it is gone.

mod alias;
mod choose;
mod desired;
mod diff;
pub mod firewall;
pub mod foreign;
mod forward;
mod forwarding6;
mod ledger;
mod links;
mod made;
mod mtu;
mod observed;
mod operation;
pub mod persist;
mod shape;
pub mod uplink;

pub use alias::{Alias, BRIDGE_PORT_PATTERN};
pub use choose::{
    ChooseError, Clash, clashes, clashes6, free_bridge, free_mac, free_prefix6, free_subnet,
};
pub use desired::{Desired, Leased, Leased6, allowed, allowed6};
pub use diff::{Conflict, conflicts, diff, diff_firewall, diff_intakes};
pub use firewall::{Firewall, FirewallState, TABLE, Transaction};
pub use forward::{Addresses, GuestAddresses, Tenant, addresses};
pub use ledger::{BridgeClaim, Ledger, LedgerChange};
pub use links::{Addresses as HostAddresses, Links};
pub use made::{Claim, made};
pub use mtu::with_mtu;
pub use observed::{Address, FORWARD6, IP_FORWARD, Ipv6Settings, Link, LinkKind, Observed, Route};
pub use operation::{Operation, Plan};
pub use shape::{Bucket, Redirect, Shape, intake, may_be_shaped, of_link};
