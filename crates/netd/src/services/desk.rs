//! What DHCP and DHCPv6 do alike: frames in, and for each round of them replies out, those that
//! give an address once it is on stable storage and in the guard.
//!
//! ```text
//! bridge ─► all frames that wait ─► server ─► records ─► journal (one flush) ─► replies ─► bridge
//!                                     └─ new holders ─┬─► guard, meanwhile
//!                                                     └─► DNS, afterwards
//! ```
//!
//! Frames that come during the flush wait in the socket and make up the next round: the busier
//! the network, the more of them share a flush.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vnet_dhcp::frame::Checksum;
use vnet_dhcp::journal;
use vnet_types::{MacAddr, NetworkName};

use super::dns::Zones;
use super::holders::{Holders, Leased};
use super::packet::{Batch, Frames, PacketSocket};
use super::{ServiceError, unix_now};
use crate::guard;
use crate::history::{Heard, History};
use crate::leases::Journal;

/// Frames that are answered in one round, at most: what a flush may hold up.
const ROUND: usize = 512;
/// How often leases are looked through for those that have ended.
const EXPIRY_CHECK: Duration = Duration::from_secs(5);
/// Where that takes long, it is done so much less often: a thousandth of the time goes there.
const EXPIRY_SHARE: u32 = 1000;

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

/// Has `answer` deal with the frames that wait at the service's socket.
pub(super) fn waiting<S>(
    service: &mut S,
    socket: impl Fn(&S) -> &PacketSocket,
    mut answer: impl FnMut(&mut S, &[u8], Checksum),
) -> io::Result<()> {
    Batch::with(|batch| {
        let mut count = 0;
        loop {
            socket(service).receive(batch)?;
            batch.frames().for_each(|(frame, checksum)| answer(service, frame, checksum));
            count += batch.len();
            if !batch.is_full() || count >= ROUND {
                return Ok(());
            }
        }
    })
}

/// What one round of frames has led to.
#[derive(Default)]
pub(super) struct Round {
    records: Vec<u8>,
    count: usize,
    /// Replies that may leave at once, and those that wait for the flush.
    now: Frames,
    later: Frames,
    /// Whose answers these latter are, where that is known.
    waiting: Vec<Option<MacAddr>>,
    /// Whether somebody has an address that was not its.
    moved: bool,
}

impl Round {
    /// Has a reply leave at once.
    pub(super) fn send_now(&mut self, reply: &[u8]) {
        self.now.push(reply);
    }

    /// Has the reply to this card leave when all records of the round are on stable storage.
    pub(super) fn send_later(&mut self, reply: &[u8], to: Option<MacAddr>) {
        self.later.push(reply);
        self.waiting.push(to);
    }

    fn clear(&mut self) {
        self.records.clear();
        self.count = 0;
        self.now.clear();
        self.later.clear();
        self.waiting.clear();
        self.moved = false;
    }
}

/// What the desk of a network has to do its work with.
pub(super) struct Desk<L: Leased> {
    pub(super) network: NetworkName,
    pub(super) socket: PacketSocket,
    pub(super) journal: Journal,
    /// How many records the journal has.
    pub(super) records: usize,
    pub(super) zones: Arc<Mutex<Zones>>,
    pub(super) history: History,
    /// None where ports are not guarded.
    pub(super) guard: Option<guard::Leases>,
    pub(super) holders: Holders<L::Address>,
    /// When leases are looked through next.
    pub(super) expiry: Instant,
    /// When the DNS, which was told too much at once, is to be told the rest.
    pub(super) publish: Option<Instant>,
}

/// The leases that a server has, to look at.
pub(super) trait Leases<L> {
    /// Has `work` look at all of them, in the order of their addresses.
    fn look<T>(&self, work: impl FnOnce(&mut dyn ExactSizeIterator<Item = &L>) -> T) -> T;
}

impl<L: Leased> Desk<L>
where
    L::Address: Into<IpAddr>,
{
    /// Waits until leases are to be looked through or the DNS is to be told something.
    pub(super) async fn tick(&self) {
        let next = self.publish.map_or(self.expiry, |publish| publish.min(self.expiry));
        tokio::time::sleep_until(next).await;
    }

    /// Does what is due.
    pub(super) fn ticked(&mut self, leases: &impl Leases<L>) {
        let begun = Instant::now();
        if self.expiry <= begun {
            self.tell(leases);
            self.expiry = Instant::now() + EXPIRY_CHECK.max(begun.elapsed() * EXPIRY_SHARE);
        }
        if self.publish.is_some_and(|at| at <= begun) {
            self.publish();
        }
    }

    /// Tells everybody what has changed since they were told last.
    fn tell(&mut self, leases: &impl Leases<L>) {
        let (holders, now) = (&mut self.holders, unix_now());
        let changes = leases.look(|leases| holders.compare(leases, now));
        if changes.is_empty() {
            return;
        }
        if let Some(guard) = &self.guard {
            drop(guard.refresh());
        }
        let mut zones = self.zones();
        changes.into_iter().for_each(|(ip, holder)| zones.note(ip.into(), holder));
        drop(zones);
        self.publish();
    }

    /// Adds records to the round.
    pub(super) fn note(&mut self, records: &[journal::Record<L>], unix: u64, round: &mut Round) {
        round.count += records.len();
        for record in records {
            journal::encode(&mut round.records, record);
            if let Some((ip, holder)) = self.holders.note(record, unix) {
                round.moved = true;
                self.zones().note(ip.into(), holder);
            }
        }
    }

    /// Sends what the round has led to; it is empty afterwards.
    pub(super) async fn finish(&mut self, round: &mut Round, leases: &impl Leases<L>) {
        self.send(&round.now);
        if round.count > 0 {
            self.records += round.count;
            self.store(round).await;
            if round.moved {
                self.publish();
            }
            self.compact(leases).await;
        }
        round.clear();
    }

    async fn store(&mut self, round: &mut Round) {
        // A guest may use its address as soon as it has the reply.
        let guarded = self.guard.as_ref().filter(|_| round.moved).map(guard::Leases::refresh);
        let records = std::mem::take(&mut round.records);
        let (stored, ()) = tokio::join!(self.journal.append(records), async {
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
                let waiting = round.waiting.iter().flatten();
                waiting.for_each(|mac| self.history.note(*mac, Heard::Withheld));
            }
        }
    }

    fn send(&self, frames: &Frames) {
        if let Some((lost, error)) = self.socket.send_all(frames) {
            tracing::debug!("network {}: {lost} replies are lost: {error}", self.network);
        }
    }

    fn publish(&mut self) {
        let next = self.zones().publish();
        self.publish = next;
    }

    async fn compact(&mut self, leases: &impl Leases<L>) {
        let records = self.records;
        let due = leases.look(|leases| {
            let due = journal::compaction_due(records, leases.len());
            due.then(|| (leases.len(), journal::snapshot(leases)))
        });
        let Some((count, snapshot)) = due else { return };
        match self.journal.replace(snapshot).await {
            Ok(()) => self.records = count,
            Err(error) => {
                tracing::warn!("cannot compact {}: {error}", self.journal.path().display());
            }
        }
    }

    fn zones(&self) -> MutexGuard<'_, Zones> {
        self.zones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what became of a service whose socket has failed: whether it goes on.
    pub(super) fn goes_on(&self, served: io::Result<()>, what: &str) -> bool {
        match served {
            Ok(()) => true,
            // The bridge was set down: it may come up again.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {
                tracing::warn!("network {}: the bridge is down", self.network);
                true
            }
            Err(error) => {
                tracing::error!("network {}: {what} has ended: {error}", self.network);
                false
            }
        }
    }
}
