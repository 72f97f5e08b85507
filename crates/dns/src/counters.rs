//! What a server has done so far.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a server has done since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests that came, over UDP and TCP.
    pub queries: u64,
    /// Of these, answered from the zone.
    pub local: u64,
    /// Of these, answered from the cache.
    pub cache_hits: u64,
    /// Of these, asked upstream; several that ask the same at once share one answer.
    pub forwarded: u64,
    /// Answers other than NOERROR and NXDOMAIN, whatever the reason.
    pub failures: u64,
    /// Of these, answered SERVFAIL because too many were in flight.
    pub overloads: u64,
    /// TCP connections accepted.
    pub connections: u64,
    /// TCP connections closed to make room for others.
    pub evicted: u64,
}

/// The counters as they are counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) queries: AtomicU64,
    pub(crate) local: AtomicU64,
    pub(crate) cache_hits: AtomicU64,
    pub(crate) forwarded: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) overloads: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) evicted: AtomicU64,
}

impl Tally {
    pub(crate) fn read(&self) -> Counters {
        Counters {
            queries: self.queries.load(Relaxed),
            local: self.local.load(Relaxed),
            cache_hits: self.cache_hits.load(Relaxed),
            forwarded: self.forwarded.load(Relaxed),
            failures: self.failures.load(Relaxed),
            overloads: self.overloads.load(Relaxed),
            connections: self.connections.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
        }
    }
}
