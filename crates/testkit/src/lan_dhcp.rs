//! A DHCP server on the LAN side of the host's uplink: dnsmasq, as home routers have it.

use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::time::Instant;

use crate::lan::READY_PATIENCE;
use crate::process::{die_with_parent, read_line_within};
use crate::{Lan, Netns};

/// A running server; it ends with this value.
#[derive(Debug)]
pub struct LanDhcp(Child);

impl LanDhcp {
    /// The first and the last address that it gives.
    pub const RANGE: [Ipv4Addr; 2] =
        [Ipv4Addr::new(203, 0, 113, 50), Ipv4Addr::new(203, 0, 113, 99)];

    /// Starts it on `eth0` of `outside`, with the LAN's router for everything.
    ///
    /// # Panics
    /// dnsmasq is missing, or does not start.
    #[must_use]
    #[track_caller]
    pub fn start(outside: &Netns) -> Self {
        let [first, last] = Self::RANGE;
        let mut command = outside.command("dnsmasq");
        command
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--pid-file"])
            .args(["--interface=eth0", "--bind-interfaces", "--leasefile-ro", "--user=root"])
            .args(["--dhcp-authoritative", "--log-facility=-", "--no-ping"])
            .arg(format!("--dhcp-range={first},{last},300"))
            .arg(format!("--dhcp-option=3,{}", Lan::ROUTER))
            .arg(format!("--dhcp-option=6,{}", Lan::ROUTER))
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        die_with_parent(&mut command);
        let mut child = command.spawn().expect("dnsmasq can be started: install dnsmasq-base");
        let mut log = child.stderr.take().expect("its log is a pipe");
        let deadline = Instant::now() + READY_PATIENCE;
        loop {
            let line = read_line_within(&mut log, deadline)
                .unwrap_or_else(|error| panic!("dnsmasq has not said that it serves: {error}"));
            if line.contains("DHCP, IP range") {
                break;
            }
        }
        // What it still says must find a reader.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self(child)
    }
}

impl Drop for LanDhcp {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
