//! The DHCP of a network: frames from its bridge through the server and back
//! ([`super::desk`] has the way).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;
use vnet_dhcp::frame::{Checksum, Received};
use vnet_dhcp::{Decision, Event, Lease, Now, Server, frame};
use vnet_types::{NetworkDefinition, NetworkName};

use super::desk::{self, Desk, Leases, Round};
use super::dns::Zones;
use super::holders::Holders;
use super::packet::PacketSocket;
use super::probing::{Conflict, Pending, Probing};
use super::unix_now;
use crate::guard;
use crate::history::{Heard, History};
use crate::leases::Journal;

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
    desk: Desk<Lease>,
    server: Shared,
    /// None where addresses are offered unprobed.
    probing: Option<Probing>,
    /// The reply that is put together.
    reply: Vec<u8>,
}

/// The server, which the API looks at as well.
struct Shared(Arc<Mutex<Server>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Server> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leases<Lease> for Shared {
    fn look<T>(&self, work: impl FnOnce(&mut dyn ExactSizeIterator<Item = &Lease>) -> T) -> T {
        work(&mut self.lock().leases())
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
        guard: Option<guard::Leases>,
    ) -> io::Result<Self> {
        let State { server, journal, records, zones, history } = state;
        let (socket, server) =
            (PacketSocket::open(&network.bridge, network.subnet.gateway())?, Shared(server));
        let probing = vnet_dhcp::probes(network)
            .then(|| Probing::open(&network.bridge, server.lock().config().server_mac))
            .transpose()?;
        let (network, holders, expiry) = (network.name.clone(), Holders::default(), Instant::now());
        let publish = None;
        let desk = Desk {
            network,
            socket,
            journal,
            records,
            zones,
            history,
            guard,
            holders,
            expiry,
            publish,
        };
        Ok(Self { desk, server, probing, reply: Vec::new() })
    }

    /// Serves until it is aborted, or the bridge is gone.
    pub(crate) async fn run(mut self) {
        self.desk.ticked(&self.server);
        let mut round = Round::default();
        loop {
            let served = tokio::select! {
                ready = self.desk.socket.readable() => match ready {
                    Ok(()) => self.answer_waiting(&mut round),
                    Err(error) => Err(error),
                },
                ready = probing_ready(self.probing.as_ref()) => match ready {
                    Ok(()) => self.probed(&mut round),
                    Err(error) => Err(error),
                },
                () = self.desk.tick() => {
                    self.desk.ticked(&self.server);
                    Ok(())
                }
            };
            self.desk.finish(&mut round, &self.server).await;
            if !self.desk.goes_on(served, "DHCP") {
                return;
            }
        }
    }

    /// Sends the offers whose addresses nobody has, and makes others in place of those whose
    /// addresses somebody has.
    fn probed(&mut self, round: &mut Round) -> io::Result<()> {
        let conflicts = match &mut self.probing {
            Some(probing) => probing.conflicts()?,
            None => Vec::new(),
        };
        for Conflict { ip, holder, pending } in conflicts {
            let retry = self.probing.as_mut().is_some_and(|probing| probing.retry(&pending));
            let Pending { client, request, checksum, .. } = pending;
            tracing::warn!(
                "network {}: {ip} is not given, because {holder} has it already",
                self.desk.network
            );
            self.desk.history.note(client, Heard::Conflict { ip, holder });
            let now = now();
            if let Ok(received) = frame::parse(&request, checksum) {
                let records = self.server.lock().conflict(now, &received, ip);
                self.desk.note(&records, now.unix, round);
            }
            if retry {
                self.answer(&request, checksum, now, round);
            }
            if let Some(probing) = &mut self.probing {
                probing.done();
            }
        }
        if let Some(probing) = &mut self.probing {
            probing.due().iter().for_each(|reply| round.send_now(reply));
        }
        Ok(())
    }

    fn answer_waiting(&mut self, round: &mut Round) -> io::Result<()> {
        let now = now();
        desk::waiting(
            self,
            |service| &service.desk.socket,
            |service, frame, checksum| service.answer(frame, checksum, now, round),
        )
    }

    /// Answers one frame: what comes of it goes to `round`.
    fn answer(&mut self, bytes: &[u8], checksum: Checksum, now: Now, round: &mut Round) {
        let network = &self.desk.network;
        let received = match frame::parse(bytes, checksum) {
            Ok(received) => received,
            Err(error) => {
                tracing::trace!("network {network}: a frame is ignored: {error}");
                return;
            }
        };
        if self.desk.guard.is_some() && !speaks_for_itself(&received) {
            let from = received.src_mac;
            tracing::debug!("network {network}: a message of {from} for another card is ignored");
            self.desk.history.note(from, Heard::ForOther);
            return;
        }
        let outcome = self.server.lock().handle(now, &received, &mut self.reply);
        log(network, &outcome.event);
        self.desk.note(&outcome.persist, now.unix, round);
        let client = outcome.event.mac;
        if !self.reply.is_empty() && outcome.persist.is_empty() {
            match (&outcome.event.decision, &mut self.probing) {
                (Decision::Offered { ip, why }, Some(probing))
                    if probing.must_ask(*ip, client, *why) =>
                {
                    probing.hold(*ip, client, (bytes, checksum), self.reply.clone());
                }
                _ => round.send_now(&self.reply),
            }
        } else if !self.reply.is_empty() {
            round.send_later(&self.reply, Some(client));
        }
        self.desk.history.note(client, Heard::Dhcp(outcome.event));
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
