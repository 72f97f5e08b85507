//! The steps in their order.

use core::fmt;

use smoltcp::iface::{SocketSet, SocketStorage};
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::wire::Ipv4Address;

use crate::cmdline::{Host, Mode, Options};
use crate::entropy;
use crate::network::{Handles, Lease, Network};
use crate::nic::{Nic, NicError};
use crate::pci::Pci;
use crate::serial::{Quoted, say};
use crate::steps::{self, Reason, dhcp, dns, outside, ping, reason, release};
use crate::time::{Clock, Micros, Span};
use crate::transport::TransportError;
use crate::wait;

/// Runs all steps and prints the line `done`, then calls `afterwards` if there is a network card.
/// Whether no step failed.
pub(crate) fn run(
    mut pci: Pci,
    clock: Clock,
    options: &Options<'_>,
    afterwards: impl FnOnce(&mut Network<'_>, Option<Lease>),
) -> bool {
    let start = clock.now();
    let nic = match Nic::new(&mut pci) {
        Ok(nic) => nic,
        Err(error) => {
            no_link(clock.now().since(start), &why(error));
            return false;
        }
    };
    let up = wait_for_link(&nic, clock, start.plus_ms(options.timeout_ms));
    let took = clock.now().since(start);
    if up {
        steps::ok("link", took, format_args!("mac={} mtu={}", Mac(&nic), nic.mtu));
    } else {
        no_link(took, &reason!("link down"));
    }
    entropy::seed(nic.mac().0);

    let mut storage: [SocketStorage<'_>; 4] = Default::default();
    let mut buffers = Buffers::new();
    let host_name = options.hostname.map(dhcp::host_name);
    let (sockets, handles) = buffers.sockets(&mut storage, host_name.as_slice());
    let mut network = Network::new(nic, sockets, handles, clock, entropy::next());

    let mut probe = Probe { network: &mut network, options, ok: up };
    let lease = if up { probe.all() } else { None };
    let ok = probe.ok;
    afterwards(&mut network, lease);
    ok
}

/// Reports that there is no link, and all that follows from it.
fn no_link(took: Span, reason: &Reason) {
    steps::failed("link", took, reason);
    for step in ["dhcp", "gateway", "dns", "outside"] {
        steps::skipped(step, "no link");
    }
    say!("done failed");
}

/// Why there is no card.
fn why(error: NicError) -> Reason {
    match error {
        NicError::None => reason!("no virtio-net device"),
        NicError::Transport(TransportError::Structure(name)) => {
            reason!("the virtio-net device has no usable {name}")
        }
        NicError::Driver(error) => reason!("the virtio-net device does not start: {error}"),
    }
}

/// Whether the link came up in time.
fn wait_for_link(nic: &Nic, clock: Clock, deadline: Micros) -> bool {
    while !nic.link_is_up() {
        let now = clock.now();
        if now >= deadline {
            return false;
        }
        wait::idle(deadline.since(now).0);
    }
    true
}

/// Memory for the sockets.
struct Buffers {
    dhcp: [u8; 2048],
    icmp: [[u8; 256]; 2],
    icmp_meta: [[icmp::PacketMetadata; 4]; 2],
    udp: [[u8; 2048]; 2],
    udp_meta: [[udp::PacketMetadata; 4]; 2],
    tcp: [[u8; 4096]; 2],
}

impl Buffers {
    fn new() -> Self {
        Self {
            dhcp: [0; 2048],
            icmp: [[0; 256]; 2],
            icmp_meta: [[icmp::PacketMetadata::EMPTY; 4]; 2],
            udp: [[0; 2048]; 2],
            udp_meta: [[udp::PacketMetadata::EMPTY; 4]; 2],
            tcp: [[0; 4096]; 2],
        }
    }

    fn sockets<'a>(
        &'a mut self,
        storage: &'a mut [SocketStorage<'a>],
        dhcp_options: &'a [smoltcp::wire::DhcpOption<'a>],
    ) -> (SocketSet<'a>, Handles) {
        let mut sockets = SocketSet::new(storage);
        let [icmp_rx, icmp_tx] = &mut self.icmp;
        let [icmp_rx_meta, icmp_tx_meta] = &mut self.icmp_meta;
        let [udp_rx, udp_tx] = &mut self.udp;
        let [udp_rx_meta, udp_tx_meta] = &mut self.udp_meta;
        let [tcp_rx, tcp_tx] = &mut self.tcp;
        let handles = Handles {
            dhcp: sockets.add(dhcp::socket(dhcp_options, &mut self.dhcp)),
            icmp: sockets.add(icmp::Socket::new(
                icmp::PacketBuffer::new(&mut icmp_rx_meta[..], &mut icmp_rx[..]),
                icmp::PacketBuffer::new(&mut icmp_tx_meta[..], &mut icmp_tx[..]),
            )),
            udp: sockets.add(udp::Socket::new(
                udp::PacketBuffer::new(&mut udp_rx_meta[..], &mut udp_rx[..]),
                udp::PacketBuffer::new(&mut udp_tx_meta[..], &mut udp_tx[..]),
            )),
            tcp: sockets.add(tcp::Socket::new(
                tcp::SocketBuffer::new(&mut tcp_rx[..]),
                tcp::SocketBuffer::new(&mut tcp_tx[..]),
            )),
        };
        (sockets, handles)
    }
}

/// The steps that need a stack.
struct Probe<'n, 'a, 'o> {
    network: &'n mut Network<'a>,
    options: &'o Options<'o>,
    ok: bool,
}

impl Probe<'_, '_, '_> {
    /// All steps, and the line `done`.
    fn all(&mut self) -> Option<Lease> {
        let lease = self.dhcp();
        match &lease {
            Some(lease) => {
                self.beyond(lease);
                if self.options.release && self.options.mode == Mode::Probe {
                    self.release(lease);
                }
            }
            None => {
                for step in ["gateway", "dns", "outside"] {
                    steps::skipped(step, "no address");
                }
            }
        }
        say!("done {}", if self.ok { "ok" } else { "failed" });
        lease
    }

    fn deadline(&self, start: Micros) -> Micros {
        start.plus_ms(self.options.timeout_ms)
    }

    fn failed(&mut self, step: &str, start: Micros, reason: &Reason) {
        self.ok = false;
        steps::failed(step, self.network.now().since(start), reason);
    }

    fn dhcp(&mut self) -> Option<Lease> {
        let start = self.network.now();
        match dhcp::run(self.network, self.deadline(start)) {
            Ok(lease) => {
                steps::ok(
                    "dhcp",
                    self.network.now().since(start),
                    format_args!("{}", Facts(&lease)),
                );
                Some(lease)
            }
            Err(reason) => {
                self.failed("dhcp", start, &reason);
                None
            }
        }
    }

    /// The steps that need an address.
    fn beyond(&mut self, lease: &Lease) {
        match lease.router {
            Some(router) => self.gateway(router),
            None => steps::skipped("gateway", "DHCP gave no router"),
        }
        let resolved = match self.options.name {
            Some(name) => self.dns(lease, name),
            None => {
                steps::skipped("dns", "no name was asked for");
                None
            }
        };
        match self.options.connect {
            Some((host, port)) => self.outside(lease, host, port, resolved),
            None => steps::skipped("outside", "no target was asked for"),
        }
    }

    fn gateway(&mut self, router: Ipv4Address) {
        let start = self.network.now();
        match ping::run(self.network, router, self.deadline(start)) {
            Ok(()) => {
                let took = self.network.now().since(start);
                steps::ok("gateway", took, format_args!("address={router}"));
            }
            Err(reason) => self.failed("gateway", start, &reason),
        }
    }

    fn dns(&mut self, lease: &Lease, name: &str) -> Option<Ipv4Address> {
        let start = self.network.now();
        match dns::run(self.network, lease, name, self.deadline(start)) {
            Ok(address) => {
                let took = self.network.now().since(start);
                steps::ok("dns", took, format_args!("name={name} address={address}"));
                Some(address)
            }
            Err(reason) => {
                self.failed("dns", start, &reason);
                None
            }
        }
    }

    fn outside(&mut self, lease: &Lease, host: Host<'_>, port: u16, resolved: Option<Ipv4Address>) {
        let start = self.network.now();
        let address = match host {
            Host::Address(address) => Ok(address),
            // The name of the step before: its answer holds.
            Host::Name(name) if self.options.name == Some(name) => match resolved {
                Some(address) => Ok(address),
                None => return steps::skipped("outside", "the name was not resolved"),
            },
            Host::Name(name) => dns::run(self.network, lease, name, self.deadline(start)),
        };
        let result = address.and_then(|address| {
            let deadline = self.deadline(self.network.now());
            outside::connect(self.network, lease, address, port, deadline)?;
            if !self.options.http {
                return Ok((address, None));
            }
            let reply = match host {
                Host::Name(name) => outside::request(self.network, name, deadline),
                Host::Address(_) => {
                    let text = reason!("{address}");
                    outside::request(self.network, text.as_str(), deadline)
                }
            };
            reply.map(|reply| (address, Some(reply)))
        });
        outside::close(self.network);
        let took = self.network.now().since(start);
        match result {
            Ok((address, None)) => {
                steps::ok("outside", took, format_args!("address={address} port={port}"));
            }
            Ok((address, Some(reply))) => steps::ok(
                "outside",
                took,
                format_args!("address={address} port={port} reply={}", Quoted(reply.as_str())),
            ),
            Err(reason) => self.failed("outside", start, &reason),
        }
    }

    /// Gives the address back. It's a courtesy, not a finding: the outcome doesn't depend on it.
    fn release(&mut self, lease: &Lease) {
        let outcome = if release::run(self.network, lease) { "released" } else { "not released" };
        say!("lease {outcome} address={}", lease.address);
    }
}

/// A lease, as it is printed.
pub(crate) struct Facts<'a>(pub(crate) &'a Lease);

impl fmt::Display for Facts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lease = self.0;
        write!(f, "address={}", lease.address)?;
        if let Some(router) = lease.router {
            write!(f, " router={router}")?;
        }
        for (index, server) in lease.dns.iter().flatten().enumerate() {
            let before = if index == 0 { " dns=" } else { "," };
            write!(f, "{before}{server}")?;
        }
        write!(f, " server={} lease={}", lease.server, lease.seconds)
    }
}

/// The card's address, as it is printed everywhere.
struct Mac<'a>(&'a Nic);

impl fmt::Display for Mac<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0.mac().0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
