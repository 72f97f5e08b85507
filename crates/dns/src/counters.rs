//! What a server has done so far, in numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::wire::{rcode, rtype};

/// Upper bounds of the histogram of response times, in microseconds. Above the last one there is
/// one more bucket.
pub const LATENCY_BOUNDS: [u64; 12] =
    [50, 100, 250, 500, 1000, 2500, 5000, 10_000, 50_000, 250_000, 1_000_000, 2_500_000];

/// The names of the kinds that queries are counted by.
pub const QUERY_TYPES: [&str; 9] =
    ["A", "AAAA", "PTR", "SRV", "TXT", "MX", "HTTPS", "ANY", "other"];

/// The names of the response codes that answers are counted by.
pub const RESPONSE_CODES: [&str; 7] =
    ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "other"];

/// What a server has done since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests that came, over UDP and TCP.
    pub queries: u64,
    /// Of these, over TCP.
    pub tcp: u64,
    /// Of these, answered from the zone.
    pub local: u64,
    /// Of these, answered from the cache.
    pub cache_hits: u64,
    /// Of these, answered with what has expired, since nobody answered in time (RFC 8767).
    pub stale: u64,
    /// Of these, asked upstream; several that ask the same at once share one answer.
    pub forwarded: u64,
    /// Of these, refused because a public name has a private address (DNS rebinding).
    pub blocked: u64,
    /// Answers other than NOERROR and NXDOMAIN, whatever the reason.
    pub failures: u64,
    /// Of these, answered SERVFAIL because too many were in flight.
    pub overloads: u64,
    /// TCP connections accepted.
    pub connections: u64,
    /// TCP connections closed to make room for others.
    pub evicted: u64,
    /// Queries by [`QUERY_TYPES`].
    pub types: [u64; QUERY_TYPES.len()],
    /// Answers by [`RESPONSE_CODES`].
    pub codes: [u64; RESPONSE_CODES.len()],
    /// Answers by the time they took, by [`LATENCY_BOUNDS`]; each is counted once.
    pub latency: [u64; LATENCY_BOUNDS.len() + 1],
    /// Microseconds that all answers took.
    pub latency_sum: u64,
    /// Bytes of memory that the cache takes, about.
    pub cache_bytes: u64,
    /// Answers in the cache.
    pub cache_entries: u64,
}

/// The counters as they are counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) queries: AtomicU64,
    pub(crate) tcp: AtomicU64,
    pub(crate) local: AtomicU64,
    pub(crate) cache_hits: AtomicU64,
    pub(crate) stale: AtomicU64,
    pub(crate) forwarded: AtomicU64,
    pub(crate) blocked: AtomicU64,
    pub(crate) overloads: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) evicted: AtomicU64,
    types: [AtomicU64; QUERY_TYPES.len()],
    codes: [AtomicU64; RESPONSE_CODES.len()],
    latency: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    latency_sum: AtomicU64,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Tally {
    /// A query for this type.
    pub(crate) fn asked(&self, kind: u16) {
        let place = match kind {
            rtype::A => 0,
            rtype::AAAA => 1,
            rtype::PTR => 2,
            rtype::SRV => 3,
            rtype::TXT => 4,
            rtype::MX => 5,
            rtype::HTTPS => 6,
            rtype::ANY => 7,
            _ => 8,
        };
        self.types.get(place).into_iter().for_each(count);
    }

    /// An answer with this code.
    pub(crate) fn answered(&self, code: u16) {
        let place = usize::from(code.min(rcode::REFUSED + 1));
        self.codes.get(place).into_iter().for_each(count);
    }

    /// So many answers that took so long.
    pub(crate) fn took(&self, time: Duration, answers: u64) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let place = LATENCY_BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.latency.get(place) {
            bucket.fetch_add(answers, Relaxed);
        }
        self.latency_sum.fetch_add(micros.saturating_mul(answers), Relaxed);
    }

    pub(crate) fn read(&self, (cache_bytes, cache_entries): (usize, usize)) -> Counters {
        let codes = read_all(&self.codes);
        let [fine, _, _, absent, ..] = codes;
        Counters {
            queries: self.queries.load(Relaxed),
            tcp: self.tcp.load(Relaxed),
            local: self.local.load(Relaxed),
            cache_hits: self.cache_hits.load(Relaxed),
            stale: self.stale.load(Relaxed),
            forwarded: self.forwarded.load(Relaxed),
            blocked: self.blocked.load(Relaxed),
            failures: codes.iter().sum::<u64>() - fine - absent,
            overloads: self.overloads.load(Relaxed),
            connections: self.connections.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
            types: read_all(&self.types),
            codes,
            latency: read_all(&self.latency),
            latency_sum: self.latency_sum.load(Relaxed),
            cache_bytes: cache_bytes as u64,
            cache_entries: cache_entries as u64,
        }
    }
}

fn read_all<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|at| counters.get(at).map_or(0, |counter| counter.load(Relaxed)))
}
