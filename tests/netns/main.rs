//! Networks on a real kernel, each test in network namespaces of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod addresses6;
mod antispoof;
mod antispoof6;
mod antispoof_life;
mod bridge;
mod bridged;
mod bridged_boot;
mod bridged_crash;
mod check;
mod crash;
mod crash6;
mod dhcp_clients;
mod dhcp_definition;
mod dhcp_life;
mod dhcp_networkd;
mod dhcp_timers;
mod dns;
mod edit;
mod enslave;
mod firewalls;
mod foreign;
mod forwards;
mod forwards6;
mod guest_frames;
mod ipv6;
mod isolation;
mod limits;
mod mtu;
mod nat;
mod ports;
mod privilege;
mod refusals;
mod repair;
mod resolver;
mod restart;
