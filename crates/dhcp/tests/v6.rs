//! What clients of DHCPv6 get to hear, clause by clause of RFC 9915. Replies are read by
//! `dhcproto`, which the server does not use for DHCPv6.
#![allow(unreachable_pub, reason = "the helpers are a module of one binary")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "six/client.rs"]
mod client;
#[path = "six/leases.rs"]
mod leases;
#[path = "six/options.rs"]
mod options;
#[path = "six/properties.rs"]
mod properties;
#[path = "six/relays.rs"]
mod relays;
#[path = "six/validation.rs"]
mod validation;
