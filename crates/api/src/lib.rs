//! What travels on netd's sockets, and a client for each.
//!
//! [`ports`] is how a VMM gets a tap.

pub mod ports;
