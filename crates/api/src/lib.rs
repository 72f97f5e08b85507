//! What travels on netd's sockets, and a client for each.
//!
//! | socket | protocol | for |
//! |---|---|---|
//! | `<root>/run/vnet/api.sock` | HTTP with JSON, [`model`] | the command line, and anything else: [`client`] |
//! | `<root>/run/vnet/ports.sock` | JSON packets with descriptors | a VMM that wants a tap: [`ports`] |

pub mod client;
pub mod model;
pub mod paths;
pub mod ports;
