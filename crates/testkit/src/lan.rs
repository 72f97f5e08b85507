//! The scenario of most tests: a host with an uplink, and the outside beyond it.
//!
//! ```text
//!   guest eth0 ── vgN ┐                                        lo   198.51.100.10
//!   guest eth0 ── vgN ┤ virbr0   host   eth0 ───────── eth0  outside
//!                     ┘        203.0.113.2/24    203.0.113.1/24   HTTP 80, DNS 53, echo 7
//! ```
//!
//! The outside has no route to anything behind the host: what comes back has been masqueraded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vnet_types::MacAddr;

use crate::Netns;
use crate::process::{binary, die_with_parent, read_line_within};

/// How long `vnet-outside` may take to bind its sockets.
pub(crate) const READY_PATIENCE: Duration = Duration::from_secs(20);

/// A host with an uplink `eth0`, and the world outside, with servers in it. The servers die with
/// the thread that made the LAN: make one in each test, not one in a static for all.
#[derive(Debug)]
pub struct Lan {
    /// The machine that netd is to run on.
    pub host: Netns,
    /// The router and the servers at the other end of the host's uplink.
    pub outside: Netns,
    servers: Child,
    guests: AtomicU32,
}

/// A machine on a bridge of the host: a namespace whose `eth0` has no address yet.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The guest's own namespace.
    pub ns: Netns,
    /// The bridge port on the host.
    pub port: String,
    /// The address of the guest's `eth0`.
    pub mac: MacAddr,
}

impl Lan {
    /// The host's address on the uplink, in a /24.
    pub const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
    /// The host's router, which also serves HTTP, DNS and the echo.
    pub const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    /// A server one hop beyond the router.
    pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
    /// The same three in IPv6, where the LAN has it; the host's and the router's are in a /64.
    pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x203, 0, 0, 0, 0, 2);
    /// See [`HOST6`](Self::HOST6).
    pub const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x203, 0, 0, 0, 0, 1);
    /// See [`HOST6`](Self::HOST6).
    pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x198, 0, 0, 0, 0, 0x10);
    /// The name that the DNS outside knows, with the addresses of the server.
    pub const SERVER_NAME: &str = "server.example";

    /// A LAN with IPv4 only (and the link-local addresses that Linux sets by itself).
    ///
    /// # Panics
    /// Namespaces cannot be made, or `vnet-outside` has not been built.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a default that starts processes would surprise"
    )]
    pub fn new() -> Self {
        Self::build(false)
    }

    /// A LAN with IPv4 and IPv6 on the uplink and outside.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn dual_stack() -> Self {
        Self::build(true)
    }

    fn build(ipv6: bool) -> Self {
        let (host, outside) = (Netns::new(), Netns::new());
        Netns::veth(&host, "eth0", &outside, "eth0");
        host.address("eth0", &format!("{}/24", Self::HOST));
        outside.address("eth0", &format!("{}/24", Self::ROUTER));
        outside.address("lo", &format!("{}/32", Self::SERVER));
        host.route("default", &Self::ROUTER.to_string());
        let mut served: Vec<IpAddr> = vec![Self::ROUTER.into(), Self::SERVER.into()];
        if ipv6 {
            host.address("eth0", &format!("{}/64", Self::HOST6));
            outside.address("eth0", &format!("{}/64", Self::ROUTER6));
            outside.address("lo", &format!("{}/128", Self::SERVER6));
            host.route("default", &Self::ROUTER6.to_string());
            served.extend([IpAddr::from(Self::ROUTER6), Self::SERVER6.into()]);
        }
        let servers = Self::serve(&outside, &served);
        Self { host, outside, servers, guests: AtomicU32::new(0) }
    }

    /// Starts `vnet-outside` on these addresses. On each of them, not on the wildcard, so that
    /// datagrams are answered from the address that was asked.
    fn serve(outside: &Netns, addresses: &[IpAddr]) -> Child {
        let mut command = outside.command(binary("vnet-outside"));
        for address in addresses {
            for (option, port) in [("--http", 80), ("--dns", 53), ("--echo", 7)] {
                command.arg(option).arg(std::net::SocketAddr::new(*address, port).to_string());
            }
        }
        let router = [IpAddr::from(Self::ROUTER), Self::ROUTER6.into()];
        for address in addresses.iter().filter(|address| !router.contains(address)) {
            command.arg("--record").arg(format!("{}={address}", Self::SERVER_NAME));
        }
        die_with_parent(&mut command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("vnet-outside can be started");
        let mut stdout = child.stdout.take().expect("its output is a pipe");
        let line = read_line_within(&mut stdout, Instant::now() + READY_PATIENCE);
        assert!(
            line.as_deref().is_ok_and(|line| line == "ready"),
            "vnet-outside is not ready: {line:?}; its errors are above"
        );
        child
    }

    /// A new machine, with a cable to the bridge `bridge` of the host.
    ///
    /// # Panics
    /// The host has no such bridge.
    #[must_use]
    #[track_caller]
    pub fn guest_on(&self, bridge: &str) -> Guest {
        let ns = Netns::new();
        let port = format!("vg{}", self.guests.fetch_add(1, Ordering::Relaxed));
        Netns::veth(&self.host, &port, &ns, "eth0");
        self.host.enslave(&port, bridge);
        let mac = ns.mac("eth0");
        Guest { ns, port, mac }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.servers.kill();
        let _ = self.servers.wait();
    }
}
