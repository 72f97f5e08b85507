//! The network stack: smoltcp's interface and sockets on the card, and the loop that drives them.

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Address, Ipv4Cidr};

use crate::nic::Nic;
use crate::time::{Clock, Micros};
use crate::wait;

/// Without a notice of them, changes of the link are looked for this often, in microseconds.
const LINK_POLL: u64 = 100_000;

/// The sockets, one of each kind.
#[derive(Clone, Copy)]
pub(crate) struct Handles {
    /// DHCP client.
    pub(crate) dhcp: SocketHandle,
    /// Echo requests.
    pub(crate) icmp: SocketHandle,
    /// DNS queries.
    pub(crate) udp: SocketHandle,
    /// The connection outside.
    pub(crate) tcp: SocketHandle,
}

/// What DHCP gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Address and prefix length.
    pub(crate) address: Ipv4Cidr,
    /// The first router.
    pub(crate) router: Option<Ipv4Address>,
    /// Name servers.
    pub(crate) dns: [Option<Ipv4Address>; 3],
    /// The server's identifier.
    pub(crate) server: Ipv4Address,
    /// Seconds that it's valid for; 0 if the server didn't say.
    pub(crate) seconds: u32,
}

/// The stack.
pub(crate) struct Network<'a> {
    /// The card.
    pub(crate) nic: Nic,
    /// Addresses and routes.
    pub(crate) interface: Interface,
    /// The sockets.
    pub(crate) sockets: SocketSet<'a>,
    /// Their handles.
    pub(crate) handles: Handles,
    /// The clock.
    pub(crate) clock: Clock,
}

impl<'a> Network<'a> {
    /// A stack on `nic`, without an address yet.
    pub(crate) fn new(
        mut nic: Nic,
        sockets: SocketSet<'a>,
        handles: Handles,
        clock: Clock,
        seed: u64,
    ) -> Self {
        let mut config = Config::new(HardwareAddress::Ethernet(nic.mac()));
        config.random_seed = seed;
        let interface = Interface::new(config, &mut nic, clock.now().instant());
        Self { nic, interface, sockets, handles, clock }
    }

    /// The time now.
    pub(crate) fn now(&self) -> Micros {
        self.clock.now()
    }

    /// Takes what was received and sends what is due.
    pub(crate) fn poll(&mut self) {
        let now = self.now().instant();
        self.interface.poll(now, &mut self.nic, &mut self.sockets);
    }

    /// Waits for a frame, smoltcp's next timer, or `deadline`, whichever comes first. May return
    /// early.
    pub(crate) fn idle(&mut self, deadline: Micros) {
        if self.nic.has_frame() {
            return;
        }
        let now = self.now();
        let timer = self.interface.poll_delay(now.instant(), &self.sockets);
        let timer = timer.map_or(u64::MAX, |delay| delay.total_micros());
        let notice = if wait::has_register() { wait::LONGEST } else { LINK_POLL };
        let micros = deadline.since(now).0.min(timer).min(notice);
        if micros > 0 {
            wait::idle(micros);
        }
    }

    /// Does nothing at all until `end`: what comes meanwhile waits in the queue.
    pub(crate) fn pause(&self, end: Micros) {
        while self.now() < end {
            wait::idle(end.since(self.now()).0);
        }
    }

    /// Drives the stack until `done` gives something, or `deadline` has passed.
    pub(crate) fn until<T>(
        &mut self,
        deadline: Micros,
        mut done: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<T> {
        loop {
            self.poll();
            if let Some(result) = done(self) {
                // What `done` has sent leaves at once.
                self.poll();
                return Some(result);
            }
            if self.now() >= deadline {
                return None;
            }
            self.idle(deadline);
        }
    }

    /// Takes on a lease's address and route.
    pub(crate) fn configure(&mut self, lease: &Lease) {
        self.deconfigure();
        self.interface.update_ip_addrs(|addresses| {
            // It was emptied: there is room.
            let _ = addresses.push(IpCidr::Ipv4(lease.address));
        });
        if let Some(router) = lease.router {
            // Likewise.
            let _ = self.interface.routes_mut().add_default_ipv4_route(router);
        }
    }

    /// Drops the address and the route.
    pub(crate) fn deconfigure(&mut self) {
        self.interface.update_ip_addrs(|addresses| addresses.clear());
        self.interface.routes_mut().remove_default_ipv4_route();
    }
}
