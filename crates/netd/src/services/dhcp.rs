//! The DHCP of a network: frames from its bridge through the server and back.
//!
//! ```text
//! bridge ─► all frames that wait ─► server ─► records ─► journal (one flush) ─► replies ─► bridge
//!                                     └────── names ──► DNS
//! ```
//!
//! Frames that come during the flush wait in the socket and make up the next round: the busier
//! the network, the more of them share a flush.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use vnet_dhcp::frame::{Checksum, Received};
use vnet_dhcp::{Decision, Event, Lease, Now, Record, Server, frame, journal};
use vnet_types::{MacAddr, NetworkDefinition, NetworkName};

use super::dns::Zones;
use super::packet::{MAX_FRAME, PacketSocket};
use super::probing::{Conflict, Pending, Probing};
use super::{ServiceError, unix_now};
use crate::guard;
use crate::history::{Heard, History};
use crate::leases::Journal;

/// Frames that are answered in one round, at most: what a flush may hold up.
pub(super) const ROUND: usize = 256;
/// How often names are looked through for leases that have ended.
pub(super) const EXPIRY_CHECK: Duration = Duration::from_secs(5);

/// Reads the leases of before, and cuts off what a crash has left half written.
pub(super) async fn load<L: journal::Stored>(
    journal: &Journal,
) -> Result<(BTreeMap<L::Address, L>, usize), ServiceError> {
    let error =
        |source| ServiceError::Leases { path: journal.path().display().to_string(), source };
    let bytes = match std::fs::read(journal.path()) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(error(source)),
    };
    let replay = journal::replay::<L>(&bytes);
    if replay.damaged > 0 {
        tracing::warn!(
            "{}: {} damaged lines are left out; the leases in them are lost",
            journal.path().display(),
            replay.damaged
        );
    }
    if replay.good < bytes.len() {
        journal.truncate(replay.good as u64).await.map_err(error)?;
    }
    Ok((replay.leases, replay.records))
}

/// What a network's DHCP service shares with the rest of netd.
pub(crate) struct State {
    pub(crate) server: Arc<Mutex<Server>>,
    pub(crate) journal: Journal,
    /// How many records the journal has.
    pub(crate) records: usize,
    pub(crate) zones: Arc<Mutex<Zones>>,
    pub(crate) history: History,
}

/// The DHCP service of one network.
pub(crate) struct Service {
    network: NetworkName,
    socket: PacketSocket,
    server: Arc<Mutex<Server>>,
    journal: Journal,
    records: usize,
    zones: Arc<Mutex<Zones>>,
    history: History,
    /// None where addresses are offered unprobed.
    probing: Option<Probing>,
    /// None where ports are not guarded.
    guard: Option<guard::Leases<Ipv4Addr>>,
}

/// What one round of frames has led to.
#[derive(Default)]
struct Round {
    records: Vec<u8>,
    count: usize,
    /// Replies that may leave at once, and those that wait for the flush.
    now: Vec<Vec<u8>>,
    later: Vec<Vec<u8>>,
    /// Whose answers these latter are.
    waiting: Vec<MacAddr>,
    /// Whether the guard must hear of a record before the replies leave.
    guard: bool,
}

impl Round {
    fn add(&mut self, records: &[Record]) {
        self.count += records.len();
        records.iter().for_each(|record| journal::encode(&mut self.records, record));
    }
}

/// Waits until there is something to do about offers that are probed; for ever if none are.
async fn probing_ready(probing: Option<&Probing>) -> io::Result<()> {
    match probing {
        Some(probing) => probing.ready().await,
        None => std::future::pending().await,
    }
}

impl Service {
    pub(crate) fn open(
        network: &NetworkDefinition,
        state: State,
        guard: Option<guard::Leases<Ipv4Addr>>,
    ) -> io::Result<Self> {
        let socket = PacketSocket::open(&network.bridge, network.subnet.gateway())?;
        let probing = vnet_dhcp::probes(network)
            .then(|| {
                let server = state.server.lock().unwrap_or_else(PoisonError::into_inner);
                Probing::open(&network.bridge, server.config().server_mac)
            })
            .transpose()?;
        let network = network.name.clone();
        let State { server, journal, records, zones, history } = state;
        Ok(Self { network, socket, server, journal, records, zones, history, probing, guard })
    }

    /// Serves until it is aborted, or the bridge is gone.
    pub(crate) async fn run(mut self) {
        self.publish();
        let mut expiry = tokio::time::interval(EXPIRY_CHECK);
        loop {
            let served = tokio::select! {
                ready = self.socket.readable() => match ready {
                    Ok(()) => self.round().await,
                    Err(error) => Err(error),
                },
                ready = probing_ready(self.probing.as_ref()) => match ready {
                    Ok(()) => self.probed().await,
                    Err(error) => Err(error),
                },
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
                    tracing::error!("network {}: DHCP has ended: {error}", self.network);
                    return;
                }
            }
        }
    }

    async fn round(&mut self) -> io::Result<()> {
        let round = self.answer_waiting().await?;
        self.finish(round).await
    }

    /// Sends the offers whose addresses nobody has, and makes others in place of those whose
    /// addresses somebody has.
    async fn probed(&mut self) -> io::Result<()> {
        let mut round = Round::default();
        let conflicts = match &mut self.probing {
            Some(probing) => probing.conflicts().await?,
            None => Vec::new(),
        };
        for Conflict { ip, holder, pending } in conflicts {
            let retry = self.probing.as_mut().is_some_and(|probing| probing.retry(&pending));
            let Pending { client, request, checksum, .. } = pending;
            tracing::warn!(
                "network {}: {ip} is not given, because {holder} has it already",
                self.network
            );
            self.history.note(client, Heard::Conflict { ip, holder });
            if let Ok(received) = frame::parse(&request, checksum) {
                let records = self.server().conflict(now(), &received, ip);
                round.add(&records);
            }
            if retry {
                self.answer(&request, checksum, &mut round);
            }
            if let Some(probing) = &mut self.probing {
                probing.done();
            }
        }
        if let Some(probing) = &mut self.probing {
            round.now.extend(probing.due());
        }
        self.finish(round).await
    }

    async fn finish(&mut self, round: Round) -> io::Result<()> {
        self.send(&round.now);
        if round.count == 0 {
            return Ok(());
        }
        self.records += round.count;
        // A guest may use its address as soon as it has the ACK.
        let guarded = self.guard.as_ref().filter(|_| round.guard).map(guard::Leases::refresh);
        let (stored, _) = tokio::join!(self.journal.append(round.records), async {
            if let Some(guarded) = guarded {
                guarded.await;
            }
        });
        match stored {
            Ok(()) => self.send(&round.later),
            // No ACK without its record: the clients ask again.
            Err(error) => {
                tracing::error!(
                    "network {}: {} replies are withheld: cannot write {}: {error}",
                    self.network,
                    round.later.len(),
                    self.journal.path().display()
                );
                round.waiting.iter().for_each(|mac| self.history.note(*mac, Heard::Withheld));
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
            self.answer(&bytes[..length], checksum, &mut round);
        }
        Ok(round)
    }

    /// Answers one frame: what comes of it goes to `round`.
    fn answer(&mut self, bytes: &[u8], checksum: Checksum, round: &mut Round) {
        let received = match frame::parse(bytes, checksum) {
            Ok(received) => received,
            Err(error) => {
                tracing::trace!("network {}: a frame is ignored: {error}", self.network);
                return;
            }
        };
        if self.guard.is_some() && !speaks_for_itself(&received) {
            tracing::debug!(
                "network {}: a message of {} for another card is ignored",
                self.network,
                received.src_mac
            );
            self.history.note(received.src_mac, Heard::ForOther);
            return;
        }
        let mut reply = Vec::new();
        let outcome = self.server().handle(now(), &received, &mut reply);
        log(&self.network, &outcome.event);
        round.add(&outcome.persist);
        if let (Decision::Acked { ip, .. }, Some(guard)) =
            (&outcome.event.decision, &mut self.guard)
        {
            round.guard |= guard.note(*ip, outcome.event.mac);
        }
        let client = outcome.event.mac;
        if !reply.is_empty() && outcome.persist.is_empty() {
            match (&outcome.event.decision, &mut self.probing) {
                (Decision::Offered { ip, why }, Some(probing))
                    if probing.must_ask(*ip, client, *why) =>
                {
                    probing.hold(*ip, client, (bytes, checksum), reply);
                }
                _ => round.now.push(reply),
            }
        } else if !reply.is_empty() {
            round.later.push(reply);
            round.waiting.push(client);
        }
        self.history.note(client, Heard::Dhcp(outcome.event));
    }

    fn send(&self, frames: &[Vec<u8>]) {
        for frame in frames {
            if let Err(error) = self.socket.send(frame) {
                tracing::debug!("network {}: a DHCP reply is lost: {error}", self.network);
            }
        }
    }

    fn publish(&mut self) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        let now = unix_now();
        zones.publish(server.leases(), now);
        if let Some(guard) = &mut self.guard {
            let live = server.leases().filter(|lease| lease.is_live(now));
            guard.compare(live.map(|lease| (lease.ip, lease.mac)));
        }
    }

    async fn compact(&mut self) {
        let leases: Vec<Lease> = {
            let server = self.server();
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

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a message is about the card that sent it (RFC 2131 §2, `chaddr`), or came through a
/// relay, which a guarded port cannot be.
fn speaks_for_itself(received: &Received<'_>) -> bool {
    let relay = received.payload.get(24..28);
    relay.is_some_and(|relay| relay != [0; 4])
        || received.payload.get(28..34) == Some(&received.src_mac.octets())
}

/// The time on both clocks that the server asks for.
pub(super) fn now() -> Now {
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    Now { unix: unix_now(), uptime }
}

fn log(network: &NetworkName, event: &Event) {
    // What a guest can repeat as often as it likes is for those who look closely.
    match event.decision {
        Decision::Acked { .. } => tracing::debug!("network {network}: {event}"),
        _ => tracing::trace!("network {network}: {event}"),
    }
}
