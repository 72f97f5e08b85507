//! For tests only: namespaces, LANs, daemons, fake guests, real DHCP clients.
//!
//! A test builds its world ([`Lan`]: a host with an uplink, and the outside beyond it), starts the
//! daemon in it ([`Netd`]), attaches guests ([`Lan::guest_on`], [`FakeGuest`]), lets real clients
//! get their leases ([`Udhcpc`], [`Dhclient`], [`Dhcpcd`]), and compares what it finds
//! ([`HostState`]). All of it lives in unnamed network namespaces that end with the test, so any
//! number of tests run side by side, as root or as root of a user namespace (`unshare -Ur`).
//!
//! Helpers panic where a test could do nothing but fail; those that a test may want to see fail
//! come as `try_…` as well and give an [`anyhow::Result`].
// Tests fail by panicking; a helper that panics with the reason is what they want.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clients;
mod daemon;
mod dump;
mod fake_guest;
pub mod frames;
mod lan;
mod lan_dhcp;
mod netns;
mod networkd;
mod peer;
mod process;
mod reach;
mod userland;

pub use clients::{
    Client6, Client6Kind, ClientKind, ClientLease, ClientSetup, Dhclient, DhcpClient, Dhcpcd,
    Lease6, Udhcpc,
};
pub use daemon::{Netd, vnet};
pub use dump::HostState;
pub use fake_guest::{FakeGuest, random_mac};
pub use lan::{Guest, Lan};
pub use lan_dhcp::LanDhcp;
pub use netns::Netns;
pub use networkd::Networkd;
pub use peer::{Pulse, Stream};
pub use process::{binary, output_within, wait_within};
pub use reach::{http_seen_as, ping, ping6, tcp_seen_as, udp_seen_as};
pub use userland::{Running, Userland};
