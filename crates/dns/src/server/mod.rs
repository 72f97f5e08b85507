//! The sockets of one network's DNS server.
//!
//! One task reads UDP and answers what it can on the spot; each query that is asked elsewhere, and
//! each TCP connection, is a task of its own, within limits. All of them end with the server.
//!
//! Both sockets are bound to one address *and* one device, so port 53 stays free everywhere else
//! on the host, and nothing that arrives elsewhere reaches this server.

mod batch;
mod connection;
mod socket;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vnet_types::IfName;

use crate::counters::Counters;
use crate::handler::{FlightLimits, Forwarding, Handler};
use crate::resolv::DNS_PORT;
use crate::upstream::{Forwarder, Rules, Timing, Trust};
use crate::zone::Zone;

pub use socket::ServerError;

/// How much one server lets its clients use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Queries in flight to upstreams; each takes a descriptor or two. More are answered SERVFAIL.
    pub in_flight: usize,
    /// Of these, at most so many for one client, so that none can use up all of them.
    pub in_flight_per_client: usize,
    /// TCP connections. One more closes the oldest.
    pub connections: usize,
    /// Of these, at most so many from one client. One more closes that client's oldest.
    pub connections_per_client: usize,
    /// How long a TCP connection may be silent, or take to give or take one message.
    pub idle: Duration,
    /// Bytes of memory for answers that are kept; 0 keeps none.
    pub cache_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 512,
            in_flight_per_client: 192,
            connections: 256,
            connections_per_client: 32,
            // RFC 7766 §6.2.3: of the order of seconds.
            idle: Duration::from_secs(10),
            cache_bytes: 4 << 20,
        }
    }
}

/// What a server is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// What it answers by itself. Clients are the addresses of the zone's subnet.
    pub zone: Zone,
    /// Further addresses that are answered; others get REFUSED.
    pub clients: Vec<IpNet>,
    /// Whether other names are asked upstream.
    pub forwarding: Forwarding,
    /// Whom it asks for what.
    pub rules: Rules,
    /// Who says that servers that are asked over TLS are who they claim to be.
    pub trust: Trust,
    /// Servers that it never asks, beside itself: the servers of the host's other networks, say.
    pub never: Vec<SocketAddr>,
    /// The times of forwarding.
    pub timing: Timing,
    /// How much clients may use.
    pub limits: Limits,
}

impl Config {
    /// A server that asks by these rules, with the limits and times that fit most.
    #[must_use]
    pub fn new(zone: Zone, rules: Rules) -> Self {
        Self {
            zone,
            clients: Vec::new(),
            forwarding: Forwarding::On,
            rules,
            trust: Trust::Host,
            never: Vec::new(),
            timing: Timing::default(),
            limits: Limits::default(),
        }
    }
}

/// A running DNS server. Dropping it stops it soon; [`DnsServer::stop`] waits until it has.
pub struct DnsServer {
    handler: Arc<Handler>,
    addr: SocketAddr,
    stop: watch::Sender<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl DnsServer {
    /// Starts the server of one network on port 53 of each of `listen`, for what arrives on one of
    /// `devices`, or on any where none is given. What the host itself asks arrives on `lo`. To be
    /// called in a tokio runtime whose threads are in the network namespace.
    ///
    /// # Errors
    /// An address is not there (yet), the port is taken, or the privilege is missing
    /// (CAP_NET_BIND_SERVICE). The error names the address, and who holds the port if that can be
    /// seen.
    pub fn spawn(
        listen: &[IpAddr],
        devices: &[IfName],
        config: Config,
    ) -> Result<Self, ServerError> {
        let listen: Vec<_> = listen.iter().map(|addr| SocketAddr::new(*addr, DNS_PORT)).collect();
        Self::spawn_all(&listen, devices, config)
    }

    /// As [`DnsServer::spawn`], on another port of one address; port 0 is any free one.
    ///
    /// # Errors
    /// As for [`DnsServer::spawn`].
    pub fn spawn_at(
        listen: SocketAddr,
        devices: &[IfName],
        config: Config,
    ) -> Result<Self, ServerError> {
        Self::spawn_all(&[listen], devices, config)
    }

    fn spawn_all(
        listen: &[SocketAddr],
        devices: &[IfName],
        config: Config,
    ) -> Result<Self, ServerError> {
        let (mut sockets, mut addrs) = (Vec::new(), Vec::new());
        for listen in listen {
            let (pairs, addr) = socket::bind_all(*listen, devices)?;
            sockets.extend(pairs);
            addrs.push(addr);
        }
        let addr = *addrs.first().ok_or(ServerError::Nowhere)?;
        let never = config.never.into_iter().chain(addrs).collect();
        let (timing, cache) = (config.timing, config.limits.cache_bytes);
        let forwarder = Forwarder::new(config.rules, never, timing, cache, config.trust);
        let flights = FlightLimits {
            total: config.limits.in_flight,
            per_client: config.limits.in_flight_per_client,
        };
        let handler = Arc::new(Handler::new(
            config.zone,
            config.clients,
            config.forwarding,
            forwarder,
            flights,
        ));
        let (stop, stopped) = watch::channel(());
        let mut tasks = Vec::new();
        for (udp, tcp) in sockets {
            let (handler, stopped) = (handler.clone(), stopped.clone());
            tasks.push(tokio::spawn(udp::serve(udp, handler.clone(), stopped.clone())));
            tasks.push(tokio::spawn(tcp::serve(tcp, handler, config.limits, stopped)));
        }
        Ok(Self { handler, addr, stop, tasks })
    }

    /// Where it listens; the first of several places.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers from `zone` from now on. Takes effect between two queries.
    pub fn set_zone(&self, zone: Zone) {
        self.handler.set_zone(zone);
    }

    /// The zone that answers at the moment.
    #[must_use]
    pub fn zone(&self) -> Arc<Zone> {
        self.handler.zone()
    }

    /// Asks by other rules from now on, and forgets what was kept, unless the same servers are
    /// asked.
    pub fn set_rules(&self, rules: Rules) {
        self.handler.forwarder().set_rules(rules);
    }

    /// The servers that are asked at the moment, the server itself and those never asked left out.
    #[must_use]
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        self.handler.forwarder().servers()
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.handler.tally.read(self.handler.forwarder().cache_usage())
    }

    /// Stops, and returns when all sockets are closed. Queries in flight are not answered.
    pub async fn stop(self) {
        let Self { stop, tasks, handler, .. } = self;
        drop(stop);
        handler.forwarder().stop();
        for task in tasks {
            if let Err(error) = task.await {
                tracing::warn!(%error, "a task of the DNS server did not end well");
            }
        }
    }
}

impl std::fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnsServer").field("addr", &self.addr).finish_non_exhaustive()
    }
}
