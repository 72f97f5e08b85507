//! The IPv6 of a network: router advertisements and DHCPv6, through one socket on its bridge.
//!
//! ```text
//! bridge ─► all frames that wait ─┬─ solicitations ─► advertiser ─► when its time comes ─► bridge
//!                                 └─ DHCPv6 ─► server ─► records ─► journal ─► replies ─► bridge
//!                                                └────── names ──► DNS
//! ```
//!
//! A network whose guests make their addresses themselves has DHCPv6 too: it gives options.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use vnet_dhcp::frame::Checksum;
use vnet_dhcp::ip6::{self, Content, Endpoint, Packet};
use vnet_dhcp::ra::{self, Advertisement, Advertiser, Target};
use vnet_dhcp::v6::{self, SERVER_PORT};
use vnet_dhcp::{ConfigError, Now, journal};
use vnet_plan::Leased6;
use vnet_types::{IfName, MacAddr, NetworkDefinition, link_local};

use super::desk::{self, Desk, Leases, Round};
use super::dhcp;
use super::dns::Zones;
use super::holders::Holders;
use super::packet::PacketSocket;
use super::{Changes, ServiceError};
use crate::guard;
use crate::history::Heard;
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
        let (leases, records) = desk::load::<v6::Lease>(&journal).await?;
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
        let desk = Desk {
            network: network.name.clone(),
            socket: open(&network.bridge)?,
            journal: journal.clone(),
            records,
            zones,
            history: changes.history.clone(),
            guard,
            holders: Holders::default(),
            expiry: Instant::now(),
            publish: None,
        };
        let (reply, frame) = (Vec::new(), Vec::new());
        let service = Service { desk, mac, state: state.clone(), reply, frame };
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

    /// The leases of these cards that run at `now` in Unix seconds.
    pub(super) fn leased_by(&self, cards: &BTreeSet<MacAddr>, now: u64) -> Leased6 {
        let server = self.state.server();
        super::leased6(cards.iter().flat_map(|mac| server.leases_of_card(*mac)), now)
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
    desk: Desk<v6::Lease>,
    mac: MacAddr,
    state: Arc<State>,
    /// The reply that is put together, and its frame.
    reply: Vec<u8>,
    frame: Vec<u8>,
}

impl Leases<v6::Lease> for State {
    fn look<T>(&self, work: impl FnOnce(&mut dyn ExactSizeIterator<Item = &v6::Lease>) -> T) -> T {
        work(&mut self.server().leases())
    }
}

impl Service {
    /// Serves until it is aborted, or the bridge is gone.
    async fn run(mut self) {
        self.desk.ticked(&*self.state);
        let mut round = Round::default();
        loop {
            let next = self.state.advertiser().next().map(|at| self.state.start + at);
            let served = tokio::select! {
                ready = self.desk.socket.readable() => match ready {
                    Ok(()) => self.answer_waiting(&mut round),
                    Err(error) => Err(error),
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    self.advertise();
                    Ok(())
                }
                () = self.state.changed.notified() => Ok(()),
                () = self.desk.tick() => {
                    self.desk.ticked(&*self.state);
                    Ok(())
                }
            };
            self.desk.finish(&mut round, &*self.state).await;
            if !self.desk.goes_on(served, "IPv6") {
                return;
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
            send_icmp(&self.desk.socket, self.mac, to, &message);
        }
    }

    fn answer_waiting(&mut self, round: &mut Round) -> io::Result<()> {
        let now = dhcp::now();
        desk::waiting(
            self,
            |service| &service.desk.socket,
            |service, frame, checksum| service.take(frame, checksum, now, round),
        )
    }

    /// Deals with one frame: what comes of it goes to `round`, or to the advertiser.
    fn take(&mut self, bytes: &[u8], checksum: Checksum, now: Now, round: &mut Round) {
        let packet = match ip6::parse(bytes, checksum) {
            Ok(packet) => packet,
            Err(error) => {
                tracing::trace!("network {}: a frame is ignored: {error}", self.desk.network);
                return;
            }
        };
        match packet.content {
            Content::Icmp(_) => self.solicited(&packet),
            Content::Udp { dst_port: SERVER_PORT, payload, .. } => {
                self.answer(&packet, payload, now, round);
            }
            Content::Udp { .. } => {}
        }
    }

    fn solicited(&self, packet: &Packet<'_>) {
        let Some(received) = ra::Received::new(packet) else { return };
        match ra::parse_solicitation(&received) {
            Ok(solicitation) => {
                self.state.advertiser().solicited(self.state.now(), &solicitation, random());
            }
            Err(error) => {
                tracing::trace!(
                    "network {}: a solicitation is ignored: {error}",
                    self.desk.network
                );
            }
        }
    }

    fn answer(&mut self, packet: &Packet<'_>, payload: &[u8], now: Now, round: &mut Round) {
        let received = v6::Received {
            src_mac: Some(packet.src_mac),
            src_ip: packet.src_ip,
            dst_ip: packet.dst_ip,
            payload,
        };
        let outcome = self.state.server().handle(now, &received, &mut self.reply);
        // What a guest can repeat as often as it likes is for those who look closely.
        tracing::trace!("network {}: {}", self.desk.network, outcome.event);
        self.desk.note(&outcome.persist, now.unix, round);
        let client = outcome.event.mac;
        if let Some(mac) = client {
            self.desk.history.note(mac, Heard::Dhcp6(outcome.event));
        }
        let Some((ip, port)) = outcome.to else { return };
        let from = Endpoint { mac: self.mac, ip: link_local(self.mac), port: SERVER_PORT };
        let to = Endpoint { mac: packet.src_mac, ip, port };
        self.frame.clear();
        ip6::build_udp(&mut self.frame, from, to, &self.reply);
        if outcome.persist.is_empty() {
            round.send_now(&self.frame);
        } else {
            round.send_later(&self.frame, client);
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
