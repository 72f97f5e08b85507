//! The addresses of a network: who has which, and who gets which next.
//!
//! Every address that the server gives without a reservation is in exactly one place:
//!
//! ```text
//!             ┌──────── offer ─────────┐        ┌───── offer ended ─────┐
//!             │                        ▼        │                       ▼
//!   fresh (never leased) ◄─ ended ─ offered ────┴── bind ──►  idle, by the end of its lease
//!             ▲                        ▲                                │
//!             └──────── forget ────────┼───────────── offer ◄───────────┘ once it has ended
//! ```
//!
//! `idle` holds every address with a lease that is not on offer, running leases included: they
//! end last, so the first entry is the one that has been free for longest, and it is free if
//! its lease has ended. Choosing an address is one look-up in either set.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use vnet_types::{AddrRange, DnsName};

use crate::config::{Reservations, ServerConfig};
use crate::event::{Choice, NakReason, Silence};
use crate::intervals::Intervals;
use crate::journal::Record;
use crate::lease::{ClientKey, Lease, LeaseState};
use crate::leases::Leases;
use crate::message::Client;
use crate::offers::Offers;
use crate::server::Now;

/// How long an offered address waits for its client. Clients answer an offer within the ten
/// seconds after which they would ask anew (RFC 2131 §4.1: 4, 8, 16 … seconds).
const OFFER_LIFETIME: Duration = Duration::from_secs(20);
/// Offers outstanding at most, however many addresses there are.
const MAX_OFFERS: usize = 65_536;
/// For how many seconds a declined address rests.
const QUARANTINE: u64 = 600;
/// Declined addresses at most; a larger pool may have more, an eighth of it.
const MIN_QUARANTINED: u64 = 1;
const MAX_QUARANTINED: u64 = 1024;

/// The addresses of a network.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Where addresses without a reservation come from; None if nothing is left of the range.
    range: Option<AddrRange>,
    /// Addresses in the range that are nobody's: the host's own, and those kept back.
    excluded: Vec<AddrRange>,
    reservations: Reservations,
    leases: Leases,
    offers: Offers,
    fresh: Intervals<Ipv4Addr>,
    idle: BTreeSet<(u64, Ipv4Addr)>,
    quarantined: BTreeSet<(u64, Ipv4Addr)>,
}

/// Whether a client can have an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Availability {
    /// It has it.
    Own,
    /// Nobody has it.
    Free,
    /// It can't, and why.
    No(NakReason),
}

impl Pool {
    pub(crate) fn new(config: &ServerConfig, leases: impl IntoIterator<Item = Lease>) -> Self {
        let mut pool = Self {
            range: None,
            excluded: Vec::new(),
            reservations: Reservations::default(),
            leases: Leases::default(),
            offers: Offers::default(),
            fresh: Intervals::default(),
            idle: BTreeSet::new(),
            quarantined: BTreeSet::new(),
        };
        for lease in leases {
            // Two leases of one client can only be those of an edited file: the later one counts.
            // A declined address is no client's.
            if lease.state != LeaseState::Declined
                && let Some(known) = pool.leases.of_client(&lease.client)
            {
                if known.expires > lease.expires {
                    continue;
                }
                let known = known.ip;
                pool.leases.remove(known);
            }
            pool.leases.insert(lease);
        }
        pool.reconfigure(config);
        pool
    }

    /// Takes over what `config` says about addresses. Leases stay; offers are forgotten, and
    /// granted nevertheless where the new configuration allows.
    pub(crate) fn reconfigure(&mut self, config: &ServerConfig) {
        let guests = config.subnet.guests();
        // `guests` begins behind the gateway, which need not be the server here.
        let lowest = Ipv4Addr::from(u32::from(config.subnet.net().network()) + 1);
        let (first, last) =
            (config.range.first().max(lowest), config.range.last().min(guests.last()));
        self.range = AddrRange::new(first, last).ok();
        let hosts = [&[config.server][..], &config.routers].concat();
        let hosts = hosts.into_iter().filter_map(|ip| AddrRange::new(ip, ip).ok());
        self.excluded = hosts.chain(config.excluded.iter().copied()).collect();
        self.reservations = Reservations::new(config);
        self.offers = Offers::default();
        self.idle.clear();
        self.quarantined.clear();
        self.fresh = Intervals::full(first, last);
        for range in &self.excluded {
            self.fresh.remove_all(range.first(), range.last());
        }
        for ip in self.reservations.addresses() {
            self.fresh.remove(ip);
        }
        let known: Vec<_> = self.leases.iter().map(|lease| lease.ip).collect();
        for ip in known {
            if config.subnet.contains(ip) {
                self.fresh.remove(ip);
                self.index(ip);
            } else {
                // Of a subnet that the network no longer has: nobody can use it.
                self.leases.remove(ip);
            }
        }
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    pub(crate) fn reservations(&self) -> &Reservations {
        &self.reservations
    }

    /// Forgets the offers that have ended by `now`. Each is forgotten once, so this costs every
    /// offer a constant number of operations.
    pub(crate) fn end_offers(&mut self, now: Duration) {
        while let Some(ip) = self.offers.ended(now) {
            self.end_offer(ip);
        }
    }

    /// Which address `client` is to be offered, and why (RFC 2131 §4.3.1).
    pub(crate) fn choose(
        &self,
        client: &Client,
        requested: Option<Ipv4Addr>,
        now: Now,
    ) -> Result<(Ipv4Addr, Choice), Silence> {
        let reserved = self.reservations.of(client).map(|reservation| reservation.ip);
        let previous = self.leases.of_client(&client.key).map(|lease| {
            let live = lease.is_live(now.unix);
            (lease.ip, if live { Choice::Current } else { Choice::Previous })
        });
        let known = [
            reserved.map(|ip| (ip, Choice::Reserved)),
            previous,
            self.offers.of_client(&client.key).map(|ip| (ip, Choice::Offered)),
        ];
        let can_have = |&(ip, _): &(Ipv4Addr, Choice)| self.can_have(client, ip, now);
        if let Some(choice) = known.into_iter().flatten().find(can_have) {
            return Ok(choice);
        }
        if self.offers.len() >= MAX_OFFERS {
            return Err(Silence::TooManyOffers);
        }
        if let Some(ip) = requested.filter(|&ip| self.can_have(client, ip, now)) {
            return Ok((ip, Choice::Requested));
        }
        self.fresh_for(&client.key)
            .map(|ip| (ip, Choice::Unused))
            .or_else(|| Some((self.longest_free(now)?, Choice::LeastRecent)))
            .ok_or(Silence::Exhausted)
    }

    /// Whether `client` can have `ip`, and for what reason it can or cannot.
    pub(crate) fn entitlement(
        &self,
        client: &Client,
        ip: Ipv4Addr,
        now: Now,
    ) -> Result<Choice, NakReason> {
        // A guest whose reservation was made while it ran moves when it renews.
        let reserved = self.reservations.of(client).map(|reservation| reservation.ip);
        if let Some(reserved) = reserved.filter(|&reserved| reserved != ip)
            && self.can_have(client, reserved, now)
        {
            return Err(NakReason::HasReservation { ip: reserved });
        }
        match self.availability(ip, client, now) {
            Availability::No(why) => Err(why),
            _ if self.reservations.holder_of(ip).is_some() => Ok(Choice::Reserved),
            Availability::Own => Ok(Choice::Current),
            Availability::Free if self.offers.of_client(&client.key) == Some(ip) => {
                Ok(Choice::Offered)
            }
            Availability::Free => {
                let previous = self.leases.of_client(&client.key).is_some_and(|l| l.ip == ip);
                Ok(if previous { Choice::Previous } else { Choice::Requested })
            }
        }
    }

    /// Keeps `ip`, which [`Pool::choose`] has chosen, for `client` for a while.
    pub(crate) fn offer(&mut self, client: &Client, ip: Ipv4Addr, now: Now) {
        self.withdraw(&client.key);
        self.end_offer(ip);
        self.unindex(ip);
        self.offers.insert(client.clone(), ip, now.uptime + OFFER_LIFETIME);
    }

    /// Forgets what was offered to `client`.
    pub(crate) fn withdraw(&mut self, client: &ClientKey) {
        if let Some(ip) = self.offers.of_client(client) {
            self.end_offer(ip);
        }
    }

    /// Gives `lease.ip` to the client, which loses any other address that it had. In this order:
    /// a journal that was cut between the two records still has a lease of the client.
    pub(crate) fn bind(&mut self, lease: Lease) -> Vec<Record> {
        self.withdraw(&lease.client);
        self.end_offer(lease.ip);
        let other = self.leases.of_client(&lease.client).map(|known| known.ip);
        let other = other.filter(|&other| other != lease.ip);
        let mut records = Vec::with_capacity(2);
        records.push(self.put(lease));
        if let Some(other) = other {
            self.unindex(other);
            self.leases.remove(other);
            self.index(other);
            records.push(Record::Forget(other));
        }
        records
    }

    /// Takes `ip` back from `client`, which may have it again later (RFC 2131 §4.3.4). None if
    /// it was not the client's.
    pub(crate) fn release(&mut self, client: &Client, ip: Ipv4Addr, now: Now) -> Option<Record> {
        let lease = self.live_lease(client, ip, now)?;
        let lease = Lease { state: LeaseState::Released, expires: now.unix, ..lease.clone() };
        Some(self.put(lease))
    }

    /// Puts `ip`, which `client` found in use, where nobody gets it for a while
    /// (RFC 2131 §4.3.3). Gives the records and the time when that ends; None if the address
    /// was not the client's. The number of such addresses is bounded, or one guest could
    /// decline them all: beyond it, the one that has rested for longest is given again.
    pub(crate) fn decline(
        &mut self,
        client: &Client,
        ip: Ipv4Addr,
        now: Now,
    ) -> Option<(Vec<Record>, u64)> {
        let until = now.unix.saturating_add(QUARANTINE);
        let lease = self.live_lease(client, ip, now)?;
        let lease =
            Lease { state: LeaseState::Declined, expires: until, hostname: None, ..lease.clone() };
        let size = self.range.map_or(0, AddrRange::size);
        let most = (size / 8).clamp(MIN_QUARANTINED, MAX_QUARANTINED);
        Some((self.quarantine(lease, most, now), until))
    }

    /// Notes a declined address, in the place of the one that has rested for longest if there are
    /// `most` already.
    fn quarantine(&mut self, lease: Lease, most: u64, now: Now) -> Vec<Record> {
        let mut records = Vec::with_capacity(1);
        if self.quarantined.len() as u64 >= most
            && let Some(&(_, oldest)) = self.quarantined.first()
            && let Some(rested) = self.leases.get(oldest)
        {
            let expires = now.unix.min(rested.expires);
            let rested = Lease { state: LeaseState::Released, expires, ..rested.clone() };
            records.push(self.put(rested));
        }
        records.push(self.put(lease));
        records
    }

    /// Puts `ip`, which somebody else was found to use before `client` had it, where nobody gets
    /// it for a while (RFC 2131 §2.2), as [`Pool::decline`] does. None if somebody has a lease of
    /// it, who then is the one that was found.
    pub(crate) fn conflict(
        &mut self,
        client: &Client,
        ip: Ipv4Addr,
        now: Now,
    ) -> Option<(Vec<Record>, u64)> {
        if !self.is_dynamic(ip) || self.leases.get(ip).is_some_and(|l| l.holds_address(now.unix)) {
            return None;
        }
        self.end_offer(ip);
        let (expires, state) = (now.unix.saturating_add(QUARANTINE), LeaseState::Declined);
        let Client { key, mac } = client.clone();
        let lease = Lease { ip, client: key, mac, hostname: None, state, expires };
        // That somebody answers is no mere word of the client's: all of a small range may rest.
        Some((self.quarantine(lease, MAX_QUARANTINED, now), expires))
    }

    /// Whether `client` may be called `name` while it has `ip`: the first to take a name keeps
    /// it as long as its lease lasts, and the names in reservations are those guests' own.
    pub(crate) fn may_be_called(
        &self,
        name: &DnsName,
        client: &Client,
        ip: Ipv4Addr,
        now: Now,
    ) -> bool {
        let holder = self.leases.of_name(name);
        let taken =
            holder.is_some_and(|l| l.is_live(now.unix) && l.ip != ip && l.client != client.key);
        let reserved = self.reservations.of(client).and_then(|own| own.hostname.as_ref());
        !taken && (reserved == Some(name) || !self.reservations.has_name(name))
    }

    fn live_lease(&self, client: &Client, ip: Ipv4Addr, now: Now) -> Option<&Lease> {
        self.leases.get(ip).filter(|lease| lease.client == client.key && lease.is_live(now.unix))
    }

    /// Whether the address is one that clients without a reservation get.
    fn is_dynamic(&self, ip: Ipv4Addr) -> bool {
        self.range.is_some_and(|range| range.contains(ip))
            && !self.excluded.iter().any(|range| range.contains(ip))
            && self.reservations.holder_of(ip).is_none()
    }

    fn can_have(&self, client: &Client, ip: Ipv4Addr, now: Now) -> bool {
        !matches!(self.availability(ip, client, now), Availability::No(_))
    }

    fn availability(&self, ip: Ipv4Addr, client: &Client, now: Now) -> Availability {
        let reserved = match self.reservations.holder_of(ip) {
            Some(holder) if !holder.is(client) => {
                return Availability::No(NakReason::ReservedForOther);
            }
            Some(_) => true,
            None if !self.is_dynamic(ip) => return Availability::No(NakReason::NotServed),
            None => false,
        };
        // The reservation is the card's, under whichever identifier its firmware, its boot
        // loader and its system ask one after the other.
        let same = |key: &ClientKey, mac| *key == client.key || (reserved && mac == client.mac);
        if let Some(lease) = self.leases.get(ip).filter(|lease| lease.holds_address(now.unix)) {
            return match lease.state {
                LeaseState::Declined => Availability::No(NakReason::Quarantined),
                _ if same(&lease.client, lease.mac) => Availability::Own,
                _ => Availability::No(NakReason::InUse),
            };
        }
        match self.offers.holder(ip) {
            Some(other) if !same(&other.key, other.mac) => {
                Availability::No(NakReason::OfferedToOther)
            }
            _ => Availability::Free,
        }
    }

    /// An address that was never leased: always the same one for a client while it is free, so
    /// that a guest finds its address again even where no lease was kept.
    fn fresh_for(&self, client: &ClientKey) -> Option<Ipv4Addr> {
        let range = self.range?;
        let offset = u32::try_from(client.seed() % range.size()).ok()?;
        self.fresh.next_from(Ipv4Addr::from(u32::from(range.first()).checked_add(offset)?))
    }

    fn longest_free(&self, now: Now) -> Option<Ipv4Addr> {
        self.idle.first().filter(|(expires, _)| *expires <= now.unix).map(|&(_, ip)| ip)
    }

    fn end_offer(&mut self, ip: Ipv4Addr) {
        if self.offers.holder(ip).is_some() {
            self.offers.remove(ip);
            self.index(ip);
        }
    }

    fn put(&mut self, lease: Lease) -> Record {
        let record = Record::Put(lease.clone());
        let ip = lease.ip;
        self.unindex(ip);
        self.leases.insert(lease);
        self.index(ip);
        record
    }

    /// Puts `ip` into the set that it belongs to by its lease. The reverse of
    /// [`Pool::unindex`], with the lease unchanged in between or changed.
    fn index(&mut self, ip: Ipv4Addr) {
        let lease = self.leases.get(ip).map(|lease| (lease.expires, lease.state));
        if let Some((until, LeaseState::Declined)) = lease {
            self.quarantined.insert((until, ip));
        }
        if !self.is_dynamic(ip) || self.offers.holder(ip).is_some() {
            return;
        }
        match lease {
            Some((expires, _)) => drop(self.idle.insert((expires, ip))),
            None => self.fresh.insert(ip),
        }
    }

    fn unindex(&mut self, ip: Ipv4Addr) {
        match self.leases.get(ip) {
            Some(lease) => {
                self.idle.remove(&(lease.expires, ip));
                self.quarantined.remove(&(lease.expires, ip));
            }
            None => drop(self.fresh.remove(ip)),
        }
    }
}
