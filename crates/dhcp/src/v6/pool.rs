//! The addresses of a network: who has which, and who gets which next.
//!
//! ```text
//!   fresh (never leased) ──── bind ────► idle, by the end of its lease
//!             ▲                                │
//!             └──────────── forget ◄───────────┘ once it has ended
//! ```
//!
//! `idle` holds every dynamic address with a lease, running ones included: they end last, so the
//! first entry is the one that has been free for longest. Nothing is kept for what was merely
//! advertised: a client whose address was taken meanwhile gets another one in the REPLY
//! (RFC 9915 §18.3.2), which DHCPv4 has no word for.
//!
//! A prefix has more addresses than memory could note, so their number does not bound what a
//! guest can make the server remember. [`MAX_LEASES`] does, and [`MAX_PER_CARD`] keeps one guest
//! from taking them all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use vnet_types::{DnsName, MacAddr};

use super::config::{Reservations, ServerConfig};
use super::event::Refusal;
use super::lease::Lease;
use super::message::{Client, Ia};
use super::{Duid, Record};
use crate::config::Identity;
use crate::event::Choice;
use crate::intervals::Intervals;
use crate::lease::LeaseState;

/// Leases that are remembered at most, ended ones included.
pub const MAX_LEASES: usize = 65_536;
/// Of these, those of one card at most.
pub const MAX_PER_CARD: usize = 32;
/// For how many seconds a declined address rests.
const QUARANTINE: u64 = 600;
/// Declined addresses at most; of a small range, an eighth.
const MAX_QUARANTINED: u128 = 1024;

/// Whose an association is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    duid: Duid,
    iaid: u32,
    /// Only where identifiers are not trusted: then whoever sends another's is somebody else.
    mac: Option<MacAddr>,
}

/// The addresses of a network.
#[derive(Debug)]
pub(super) struct Pool {
    /// Where addresses without a reservation come from.
    range: Option<RangeInclusive<Ipv6Addr>>,
    /// The host's own address.
    host: Ipv6Addr,
    identity: Identity,
    reservations: Reservations,
    by_ip: BTreeMap<Ipv6Addr, Lease>,
    /// Where the client is, or was last. Declined addresses are no client's.
    by_key: BTreeMap<Key, Ipv6Addr>,
    by_name: BTreeMap<DnsName, Ipv6Addr>,
    by_card: BTreeMap<MacAddr, BTreeSet<(u64, Ipv6Addr)>>,
    fresh: Intervals<Ipv6Addr>,
    idle: BTreeSet<(u64, Ipv6Addr)>,
    quarantined: BTreeSet<(u64, Ipv6Addr)>,
}

/// Whether a client can have an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Availability {
    /// It has it.
    Own,
    /// Nobody has it.
    Free,
    /// It can't.
    No,
}

impl Pool {
    pub(super) fn new(config: &ServerConfig, leases: impl IntoIterator<Item = Lease>) -> Self {
        let mut pool = Self {
            range: None,
            host: config.address,
            identity: config.identity,
            reservations: Reservations::default(),
            by_ip: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_card: BTreeMap::new(),
            fresh: Intervals::default(),
            idle: BTreeSet::new(),
            quarantined: BTreeSet::new(),
        };
        pool.reconfigure(config);
        for lease in leases {
            if config.prefix.contains(&lease.ip) && pool.by_ip.len() < MAX_LEASES {
                // Two leases of one association can only be those of an edited file, or of a
                // write that was cut: the later one counts.
                let known = pool.of_key(&pool.key_of(&lease));
                match known.map(|known| (known.ip, known.expires)) {
                    Some((ip, expires))
                        if ip != lease.ip && lease.state != LeaseState::Declined =>
                    {
                        if expires > lease.expires {
                            continue;
                        }
                        pool.forget(ip);
                    }
                    _ => {}
                }
                pool.put(lease);
            }
        }
        pool
    }

    /// Takes over what `config` says about addresses. Leases stay.
    pub(super) fn reconfigure(&mut self, config: &ServerConfig) {
        self.range = config.range.clone().filter(|range| !range.is_empty()).map(|range| {
            let (net, last) = (config.prefix.network(), config.prefix.broadcast());
            (*range.start()).max(net)..=(*range.end()).min(last)
        });
        self.host = config.address;
        self.identity = config.identity;
        self.reservations = Reservations::new(config);
        self.fresh = match &self.range {
            Some(range) => Intervals::full(*range.start(), *range.end()),
            None => Intervals::default(),
        };
        // The first address of a prefix is every router's (RFC 4291 §2.6.1).
        for ip in
            [self.host, config.prefix.network()].into_iter().chain(self.reservations.addresses())
        {
            self.fresh.remove(ip);
        }
        self.by_key.clear();
        self.by_name.clear();
        self.by_card.clear();
        self.idle.clear();
        self.quarantined.clear();
        for (_, lease) in std::mem::take(&mut self.by_ip) {
            if config.prefix.contains(&lease.ip) {
                self.put(lease);
            }
        }
    }

    pub(super) fn leases(&self) -> impl ExactSizeIterator<Item = &Lease> {
        self.by_ip.values()
    }

    pub(super) fn leases_of_card(&self, mac: MacAddr) -> impl Iterator<Item = &Lease> {
        let of_card = self.by_card.get(&mac).into_iter().flatten();
        of_card.filter_map(|(_, ip)| self.by_ip.get(ip))
    }

    pub(super) fn reservations(&self) -> &Reservations {
        &self.reservations
    }

    /// The lease that the association has or had last.
    pub(super) fn of_ia(&self, client: &Client, iaid: u32) -> Option<&Lease> {
        self.of_key(&self.key(client, iaid))
    }

    /// The name that some association of the client has.
    pub(super) fn name_of(&self, client: &Client) -> Option<&DnsName> {
        let from = self.key(client, 0);
        let mut own = self.by_key.range(from..).take_while(|(key, _)| key.duid == client.duid);
        own.find_map(|(_, ip)| self.by_ip.get(ip)?.hostname.as_ref())
    }

    /// Which address the association is to get, and why. `taken` are those that the client's
    /// other associations get from the same message.
    pub(super) fn choose(
        &self,
        client: &Client,
        ia: &Ia,
        taken: &[Ipv6Addr],
        now: u64,
    ) -> Result<(Ipv6Addr, Choice), Refusal> {
        let reserved = self.reservations.of(client).map(|own| (own.ip, Choice::Reserved));
        let previous = self.of_ia(client, ia.iaid).map(|lease| {
            (lease.ip, if lease.is_live(now) { Choice::Current } else { Choice::Previous })
        });
        let hints = ia.addresses.iter().map(|&ip| (ip, Choice::Requested));
        let free = |&(ip, _): &(Ipv6Addr, Choice)| {
            !taken.contains(&ip) && self.can_have(client, ia.iaid, ip, now)
        };
        let known: Vec<_> = reserved.into_iter().chain(previous).filter(free).collect();
        if let Some(&choice) = known.first() {
            return Ok(choice);
        }
        if self.range.is_none() {
            return Err(Refusal::NotServed);
        }
        if self.card_is_full(client, ia.iaid, taken.len(), now) {
            return Err(Refusal::TooManyForOne);
        }
        let room = self.by_ip.len() + taken.len() < MAX_LEASES;
        if let Some(hint) = hints.into_iter().find(|hint| {
            // An address that nobody had needs room; one that somebody had has it.
            free(hint) && (room || self.by_ip.contains_key(&hint.0))
        }) {
            return Ok(hint);
        }
        let fresh = || self.fresh_for(client, ia.iaid, taken).filter(|_| room);
        fresh()
            .map(|ip| (ip, Choice::Unused))
            .or_else(|| Some((self.longest_free(taken, now)?, Choice::LeastRecent)))
            .ok_or(Refusal::Exhausted)
    }

    /// Whether the association can have or keep `ip`.
    pub(super) fn can_have(&self, client: &Client, iaid: u32, ip: Ipv6Addr, now: u64) -> bool {
        self.availability(client, iaid, ip, now) != Availability::No
    }

    /// Whether the association may take `ip`, which it says it has from before.
    pub(super) fn can_take(&self, client: &Client, iaid: u32, ip: Ipv6Addr, now: u64) -> bool {
        let room = self.by_ip.len() < MAX_LEASES || self.by_ip.contains_key(&ip);
        self.can_have(client, iaid, ip, now)
            && (self.reservations.holder_of(ip).is_some()
                || (room && !self.card_is_full(client, iaid, 0, now)))
    }

    /// Gives `lease.ip` to the association, which loses any other address that it had. In this
    /// order: a journal that was cut between the two records still has a lease of the client.
    pub(super) fn bind(&mut self, lease: Lease, now: u64) -> Vec<Record> {
        let key = self.key_of(&lease);
        let other = self.by_key.get(&key).copied().filter(|&other| other != lease.ip);
        let oldest = lease.mac.and_then(|mac| {
            let of_card = self.by_card.get(&mac).filter(|all| all.len() >= MAX_PER_CARD)?;
            let &(expires, ip) = of_card.first()?;
            (expires <= now && ip != lease.ip).then_some(ip)
        });
        let mut records = Vec::with_capacity(2);
        records.push(self.put(lease));
        for ip in other.into_iter().chain(oldest) {
            if self.forget(ip) {
                records.push(Record::Forget(ip));
            }
        }
        records
    }

    /// Takes `ip` back, which the association may have again later (RFC 9915 §18.3.7). None if
    /// it does not have it.
    pub(super) fn release(
        &mut self,
        client: &Client,
        iaid: u32,
        ip: Ipv6Addr,
        now: u64,
    ) -> Option<Record> {
        let lease = self.live_lease(client, iaid, ip, now)?.clone();
        Some(self.put(Lease { state: LeaseState::Released, expires: now, ..lease }))
    }

    /// Puts `ip`, which the client found in use, where nobody gets it for a while
    /// (RFC 9915 §18.3.8). Gives the records and the time when that ends; None if the
    /// association does not have the address. The number of such addresses is bounded: beyond
    /// it, the one that has rested for longest is given again.
    pub(super) fn decline(
        &mut self,
        client: &Client,
        iaid: u32,
        ip: Ipv6Addr,
        now: u64,
    ) -> Option<(Vec<Record>, u64)> {
        let lease = self.live_lease(client, iaid, ip, now)?.clone();
        let until = now.saturating_add(QUARANTINE);
        let size = self.range.as_ref().map_or(0, size);
        let most = usize::try_from((size / 8).clamp(1, MAX_QUARANTINED)).unwrap_or(usize::MAX);
        let mut records = Vec::with_capacity(2);
        if self.quarantined.len() >= most
            && let Some(&(_, oldest)) = self.quarantined.first()
            && let Some(rested) = self.by_ip.get(&oldest).cloned()
        {
            let expires = now.min(rested.expires);
            records.push(self.put(Lease { state: LeaseState::Released, expires, ..rested }));
        }
        let state = LeaseState::Declined;
        records.push(self.put(Lease { state, expires: until, hostname: None, ..lease }));
        Some((records, until))
    }

    /// Whether the client may be called `name`: the first to take a name keeps it as long as
    /// its lease lasts, and the names in reservations are those guests' own.
    pub(super) fn may_be_called(&self, name: &DnsName, client: &Client, now: u64) -> bool {
        let holder = self.by_name.get(name).and_then(|ip| self.by_ip.get(ip));
        let taken = holder.is_some_and(|lease| {
            let same = lease.duid == client.duid
                && (self.identity == Identity::ClientId || lease.mac == client.mac);
            lease.is_live(now) && !same
        });
        !taken && self.reservations.holder_of_name(name).is_none_or(|holder| holder.is(client))
    }

    fn key(&self, client: &Client, iaid: u32) -> Key {
        let mac = client.mac.filter(|_| self.identity == Identity::Hardware);
        Key { duid: client.duid.clone(), iaid, mac }
    }

    fn key_of(&self, lease: &Lease) -> Key {
        let mac = lease.mac.filter(|_| self.identity == Identity::Hardware);
        Key { duid: lease.duid.clone(), iaid: lease.iaid, mac }
    }

    fn of_key(&self, key: &Key) -> Option<&Lease> {
        self.by_key.get(key).and_then(|ip| self.by_ip.get(ip))
    }

    fn live_lease(&self, client: &Client, iaid: u32, ip: Ipv6Addr, now: u64) -> Option<&Lease> {
        let key = self.key(client, iaid);
        self.by_ip.get(&ip).filter(|lease| self.key_of(lease) == key && lease.is_live(now))
    }

    /// Whether the address is one that clients without a reservation get.
    fn is_dynamic(&self, ip: Ipv6Addr) -> bool {
        self.range.as_ref().is_some_and(|range| range.contains(&ip))
            && ip != self.host
            && self.reservations.holder_of(ip).is_none()
    }

    fn availability(&self, client: &Client, iaid: u32, ip: Ipv6Addr, now: u64) -> Availability {
        let reserved = match self.reservations.holder_of(ip) {
            Some(holder) if !holder.is(client) => return Availability::No,
            Some(_) => true,
            None if !self.is_dynamic(ip) => return Availability::No,
            None => false,
        };
        let Some(lease) = self.by_ip.get(&ip).filter(|lease| lease.holds_address(now)) else {
            return Availability::Free;
        };
        // The reservation is the card's, under whichever identifier its firmware, its boot
        // loader and its system ask one after the other, but one association's at a time.
        let same_card = reserved && lease.mac == client.mac && lease.duid != client.duid;
        match lease.state {
            LeaseState::Declined => Availability::No,
            _ if self.key_of(lease) == self.key(client, iaid) || same_card => Availability::Own,
            _ => Availability::No,
        }
    }

    /// Whether the card of `client` has as many leases as one card may, and none that has ended
    /// to give for another.
    fn card_is_full(&self, client: &Client, iaid: u32, more: usize, now: u64) -> bool {
        let Some(of_card) = client.mac.and_then(|mac| self.by_card.get(&mac)) else {
            return more >= MAX_PER_CARD;
        };
        let own = usize::from(self.of_ia(client, iaid).is_some());
        let ended = of_card.first().is_some_and(|(expires, _)| *expires <= now);
        of_card.len() - own.min(of_card.len()) + more >= MAX_PER_CARD && !ended
    }

    /// An address that was never leased: always the same one for an association while it is
    /// free, so that a guest finds its address again even where no lease was kept.
    fn fresh_for(&self, client: &Client, iaid: u32, taken: &[Ipv6Addr]) -> Option<Ipv6Addr> {
        let range = self.range.as_ref()?;
        let offset = seed(client, iaid) % size(range);
        let mut start = Ipv6Addr::from(u128::from(*range.start()).checked_add(offset)?);
        // Each round steps over one address that is taken.
        for _ in 0..=taken.len() {
            let found = self.fresh.next_from(start)?;
            if !taken.contains(&found) {
                return Some(found);
            }
            start = Ipv6Addr::from(u128::from(found).checked_add(1).unwrap_or_default());
        }
        None
    }

    fn longest_free(&self, taken: &[Ipv6Addr], now: u64) -> Option<Ipv6Addr> {
        let mut ended = self.idle.iter().take_while(|(expires, _)| *expires <= now);
        ended.find(|(_, ip)| !taken.contains(ip)).map(|&(_, ip)| ip)
    }

    fn put(&mut self, lease: Lease) -> Record {
        self.forget(lease.ip);
        let record = Record::Put(lease.clone());
        let ip = lease.ip;
        if lease.state == LeaseState::Declined {
            self.quarantined.insert((lease.expires, ip));
        } else {
            self.by_key.insert(self.key_of(&lease), ip);
        }
        // Leases come in any order at a start: the name is the latest one's.
        if let Some(name) = &lease.hostname {
            let holder = self.by_name.get(name).and_then(|ip| self.by_ip.get(ip));
            if holder.is_none_or(|holder| holder.expires <= lease.expires) {
                self.by_name.insert(name.clone(), ip);
            }
        }
        if let Some(mac) = lease.mac {
            self.by_card.entry(mac).or_default().insert((lease.expires, ip));
        }
        if self.is_dynamic(ip) {
            self.fresh.remove(ip);
            self.idle.insert((lease.expires, ip));
        }
        self.by_ip.insert(ip, lease);
        record
    }

    /// Forgets what is known of `ip`; says whether anything was.
    fn forget(&mut self, ip: Ipv6Addr) -> bool {
        let Some(lease) = self.by_ip.remove(&ip) else { return false };
        let key = self.key_of(&lease);
        if self.by_key.get(&key) == Some(&ip) {
            self.by_key.remove(&key);
        }
        if let Some(name) = &lease.hostname
            && self.by_name.get(name) == Some(&ip)
        {
            self.by_name.remove(name);
        }
        if let Some(mac) = lease.mac
            && let Some(of_card) = self.by_card.get_mut(&mac)
        {
            of_card.remove(&(lease.expires, ip));
            if of_card.is_empty() {
                self.by_card.remove(&mac);
            }
        }
        self.quarantined.remove(&(lease.expires, ip));
        if self.idle.remove(&(lease.expires, ip)) {
            self.fresh.insert(ip);
        }
        true
    }
}

/// How many addresses a range that is not empty has; the whole address space counts one less.
fn size(range: &RangeInclusive<Ipv6Addr>) -> u128 {
    u128::from(*range.end()).saturating_sub(u128::from(*range.start())).saturating_add(1)
}

/// A number that is the same for the same association on every run, spread over 128 bits
/// (FNV-1a). Not for hash tables.
fn seed(client: &Client, iaid: u32) -> u128 {
    let bytes = client.duid.as_bytes().iter().copied().chain(iaid.to_be_bytes());
    let hash = bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    hash ^ (hash >> 64)
}
