//! The IPv6 of a network: router advertisements and DHCPv6, through one socket on its bridge.
//!
//! ```text
//! bridge ─► all frames that wait ─┬─ solicitations ─► advertiser ─► when its time comes ─► bridge
//!                                 └─ DHCPv6 ─► server ─► records ─► journal ─► replies ─► bridge
//!                                                └────── names ──► DNS
//! ```
//!
//! A network whose guests make their addresses themselves has DHCPv6 too: it gives options.

use std::io;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use vnet_dhcp::ip6::{self, Content, Endpoint, Packet};
use vnet_dhcp::ra::{self, Advertisement, Advertiser, Target};
use vnet_dhcp::v6::{self, Answer, Decision, SERVER_PORT};
use vnet_dhcp::{ConfigError, journal};
use vnet_types::{IfName, MacAddr, NetworkDefinition, NetworkName, link_local};

use super::dhcp::{self, EXPIRY_CHECK, ROUND};
use super::dns::Zones;
use super::packet::{MAX_FRAME, PacketSocket};
use super::{Changes, ServiceError, unix_now};
use crate::guard;
use crate::history::{Heard, History};
use crate::leases::Journal;

/// The IPv6 services of one network.
pub(super) struct Six {
    state: Arc<State>,
    task: JoinHandle<()>,
    journal: Journal,
    /// For the last word of a network that ends.
    farewell: PacketSocket,
    mac: MacAddr,
}

/// What the task shares with those who ask and change it.
struct State {
    server: Mutex<v6::Server>,
    advertiser: Mutex<Advertiser>,
    /// Another advertisement may be due.
    changed: Notify,
    /// Where the advertiser's clock begins.
    start: Instant,
}

/// Why the definition of a network cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unservable {
    /// In DHCPv4.
    #[error(transparent)]
    Dhcp(#[from] ConfigError),
    /// In router advertisements.
    #[error(transparent)]
    Advertisements(#[from] ra::ConfigError),
}

/// Whether router advertisements can say what `network` asks for.
pub(super) fn check(network: &NetworkDefinition) -> Result<(), Unservable> {
    if let Some(config) = ra::Config::for_network(network, MacAddr::BROADCAST) {
        Advertiser::new(config, Duration::ZERO)?;
    }
    Ok(())
}

impl Six {
    /// Starts the services of `network` on its bridge, which has the address `mac`; none where it
    /// has no IPv6.
    pub(super) async fn start(
        network: &NetworkDefinition,
        mac: MacAddr,
        journal: Journal,
        zones: Arc<Mutex<Zones>>,
        changes: Changes<'_>,
    ) -> Result<Option<Self>, ServiceError> {
        let (Some(config), Some(router)) =
            (v6::ServerConfig::for_network(network, mac), ra::Config::for_network(network, mac))
        else {
            return Ok(None);
        };
        let bridge = network.bridge.to_string();
        let (leases, records) = dhcp::load::<v6::Lease>(&journal).await?;
        let advertiser = Advertiser::new(router, Duration::ZERO)
            .map_err(|source| ServiceError::Advertisements { bridge: bridge.clone(), source })?;
        let state = Arc::new(State {
            server: Mutex::new(v6::Server::new(config, leases.into_values())),
            advertiser: Mutex::new(advertiser),
            changed: Notify::new(),
            start: Instant::now(),
        });
        let guard = network
            .anti_spoofing
            .then(|| guard::Leases::new(network.name.clone(), changes.guard.clone()));
        let open = |link: &IfName| {
            PacketSocket::open_ipv6(link)
                .map_err(|source| ServiceError::Dhcp { bridge: bridge.clone(), source })
        };
        let service = Service {
            network: network.name.clone(),
            socket: open(&network.bridge)?,
            mac,
            state: state.clone(),
            journal: journal.clone(),
            records,
            zones,
            guard,
            history: changes.history.clone(),
        };
        let farewell = open(&network.bridge)?;
        let task = tokio::spawn(service.run());
        Ok(Some(Self { state, task, journal, farewell, mac }))
    }

    pub(super) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// All that is known of addresses.
    pub(super) fn leases(&self) -> Vec<v6::Lease> {
        self.state.server().leases().cloned().collect()
    }

    /// Takes over a changed definition: guests hear of it soon.
    pub(super) fn reconfigure(&self, network: &NetworkDefinition) -> Result<(), ServiceError> {
        let (Some(config), Some(router)) = (
            v6::ServerConfig::for_network(network, self.mac),
            ra::Config::for_network(network, self.mac),
        ) else {
            return Ok(());
        };
        let bridge = network.bridge.to_string();
        self.state
            .advertiser()
            .reconfigure(router, self.state.now())
            .map_err(|source| ServiceError::Advertisements { bridge, source })?;
        self.state.server().reconfigure(config);
        self.state.changed.notify_one();
        Ok(())
    }

    /// Puts the leases that there are now in place of the journal.
    pub(super) async fn write_snapshot(&self) -> io::Result<()> {
        self.journal.replace(journal::snapshot(&self.leases())).await
    }

    /// Ends. With a farewell, guests forget the router and the addresses at once (RFC 4861
    /// §6.2.5); where the network is there again in a moment, they need not.
    pub(super) async fn stop(self, farewell: Farewell) {
        self.task.abort();
        // It ends because it was told to.
        let _ = self.task.await;
        if farewell == Farewell::Say {
            let message = self.state.advertiser().farewell();
            let to = (ip6::group_mac(ra::ALL_NODES), ra::ALL_NODES);
            send_icmp(&self.farewell, self.mac, to, &message);
        }
    }
}

/// Whether guests are told that a network is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// They are.
    Say,
    /// It is there again in a moment.
    Omit,
}

impl State {
    fn server(&self) -> std::sync::MutexGuard<'_, v6::Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advertiser(&self) -> std::sync::MutexGuard<'_, Advertiser> {
        self.advertiser.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

struct Service {
    network: NetworkName,
    socket: PacketSocket,
    mac: MacAddr,
    state: Arc<State>,
    journal: Journal,
    records: usize,
    zones: Arc<Mutex<Zones>>,
    /// None where ports are not guarded.
    guard: Option<guard::Leases<Ipv6Addr>>,
    history: History,
}

/// What one round of frames has led to.
#[derive(Default)]
struct Round {
    records: Vec<u8>,
    count: usize,
    /// Replies that may leave at once, and those that wait for the flush.
    now: Vec<Vec<u8>>,
    later: Vec<Vec<u8>>,
    /// Whether the guard must hear of a record before the replies leave.
    guard: bool,
}

impl Service {
    /// Serves until it is aborted, or the bridge is gone.
    async fn run(mut self) {
        self.publish();
        let mut expiry = tokio::time::interval(EXPIRY_CHECK);
        loop {
            let next = self.state.advertiser().next().map(|at| self.state.start + at);
            let served = tokio::select! {
                ready = self.socket.readable() => match ready {
                    Ok(()) => self.round().await,
                    Err(error) => Err(error),
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    self.advertise();
                    Ok(())
                }
                () = self.state.changed.notified() => Ok(()),
                _ = expiry.tick() => {
                    self.publish();
                    Ok(())
                }
            };
            match served {
                Ok(()) => {}
                // The bridge was set down: it may come up again.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {
                    tracing::warn!("network {}: the bridge is down", self.network);
                }
                Err(error) => {
                    tracing::error!(
                        "network {}: IPv6's services have ended: {error}",
                        self.network
                    );
                    return;
                }
            }
        }
    }

    /// Sends the advertisements that are due.
    fn advertise(&self) {
        while let Some(Advertisement { to, message }) =
            self.state.advertiser().poll(self.state.now(), random())
        {
            let to = match to {
                Target::AllNodes => (ip6::group_mac(ra::ALL_NODES), ra::ALL_NODES),
                Target::One(station) => (station.mac.unwrap_or(MacAddr::BROADCAST), station.ip),
            };
            send_icmp(&self.socket, self.mac, to, &message);
        }
    }

    async fn round(&mut self) -> io::Result<()> {
        let round = self.answer_waiting().await?;
        self.send(&round.now);
        if round.count == 0 {
            return Ok(());
        }
        self.records += round.count;
        // A guest may use its address as soon as it has the reply.
        let guarded = self.guard.as_ref().filter(|_| round.guard).map(guard::Leases::refresh);
        let (stored, _) = tokio::join!(self.journal.append(round.records), async {
            if let Some(guarded) = guarded {
                guarded.await;
            }
        });
        match stored {
            Ok(()) => self.send(&round.later),
            // No reply without its record: the clients ask again.
            Err(error) => {
                tracing::error!(
                    "network {}: {} replies are withheld: cannot write {}: {error}",
                    self.network,
                    round.later.len(),
                    self.journal.path().display()
                );
            }
        }
        self.publish();
        self.compact().await;
        Ok(())
    }

    async fn answer_waiting(&mut self) -> io::Result<Round> {
        let mut round = Round::default();
        let mut bytes = [0; MAX_FRAME];
        for _ in 0..ROUND {
            let Some((length, checksum)) = self.socket.receive(&mut bytes).await? else { break };
            let packet = match ip6::parse(&bytes[..length], checksum) {
                Ok(packet) => packet,
                Err(error) => {
                    tracing::trace!("network {}: a frame is ignored: {error}", self.network);
                    continue;
                }
            };
            match packet.content {
                Content::Icmp(_) => self.solicited(&packet),
                Content::Udp { dst_port: SERVER_PORT, payload, .. } => {
                    self.answer(&packet, payload, &mut round);
                }
                Content::Udp { .. } => {}
            }
        }
        Ok(round)
    }

    fn solicited(&self, packet: &Packet<'_>) {
        let Some(received) = ra::Received::new(packet) else { return };
        match ra::parse_solicitation(&received) {
            Ok(solicitation) => {
                self.state.advertiser().solicited(self.state.now(), &solicitation, random());
            }
            Err(error) => {
                tracing::trace!("network {}: a solicitation is ignored: {error}", self.network);
            }
        }
    }

    fn answer(&mut self, packet: &Packet<'_>, payload: &[u8], round: &mut Round) {
        let received = v6::Received {
            src_mac: Some(packet.src_mac),
            src_ip: packet.src_ip,
            dst_ip: packet.dst_ip,
            payload,
        };
        let mut reply = Vec::new();
        let outcome = self.state.server().handle(dhcp::now(), &received, &mut reply);
        // What a guest can repeat as often as it likes is for those who look closely.
        tracing::trace!("network {}: {}", self.network, outcome.event);
        round.count += outcome.persist.len();
        for record in &outcome.persist {
            journal::encode(&mut round.records, record);
        }
        if let (Decision::Leased { answers }, Some(guard), Some(mac)) =
            (&outcome.event.decision, &mut self.guard, outcome.event.mac)
        {
            for answer in answers {
                if let Answer::Given { ip, .. } = answer {
                    round.guard |= guard.note(*ip, mac);
                }
            }
        }
        if let Some(mac) = outcome.event.mac {
            self.history.note(mac, Heard::Dhcp6(outcome.event));
        }
        let Some((ip, port)) = outcome.to else { return };
        let from = Endpoint { mac: self.mac, ip: link_local(self.mac), port: SERVER_PORT };
        let mut frame = Vec::new();
        ip6::build_udp(&mut frame, from, Endpoint { mac: packet.src_mac, ip, port }, &reply);
        let replies = if outcome.persist.is_empty() { &mut round.now } else { &mut round.later };
        replies.push(frame);
    }

    fn send(&self, frames: &[Vec<u8>]) {
        for frame in frames {
            if let Err(error) = self.socket.send(frame) {
                tracing::debug!("network {}: a DHCPv6 reply is lost: {error}", self.network);
            }
        }
    }

    fn publish(&mut self) {
        let server = self.state.server();
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        let now = unix_now();
        zones.publish6(server.leases(), now);
        if let Some(guard) = &mut self.guard {
            let live = server.leases().filter(|lease| lease.is_live(now));
            guard.compare(live.filter_map(|lease| Some((lease.ip, lease.mac?))));
        }
    }

    async fn compact(&mut self) {
        let leases: Vec<v6::Lease> = {
            let server = self.state.server();
            if !journal::compaction_due(self.records, server.leases().len()) {
                return;
            }
            server.leases().cloned().collect()
        };
        match self.journal.replace(journal::snapshot(&leases)).await {
            Ok(()) => self.records = leases.len(),
            Err(error) => {
                tracing::warn!("cannot compact {}: {error}", self.journal.path().display());
            }
        }
    }
}

fn send_icmp(socket: &PacketSocket, mac: MacAddr, to: (MacAddr, Ipv6Addr), message: &[u8]) {
    let mut frame = Vec::new();
    ip6::build_icmp(&mut frame, (mac, link_local(mac)), to, message);
    if let Err(error) = socket.send(&frame) {
        tracing::debug!("a router advertisement is lost: {error}");
    }
}

/// RFC 4861 wants advertisements spread at random, not unpredictable.
fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}
