//! Networks on a real kernel, each test in network namespaces of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod antispoof;
mod bridge;
mod check;
mod crash;
mod dhcp_clients;
mod dhcp_life;
mod edit;
mod enslave;
mod foreign;
mod forwards;
mod mtu;
mod nat;
mod ports;
mod privilege;
mod refusals;
mod repair;
mod restart;
