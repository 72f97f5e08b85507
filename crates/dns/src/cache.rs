//! Answers of upstreams, kept for as long as they say, and longer for when nobody answers; in
//! bounded memory.
//!
//! Two generations: an answer enters the young one; when that is half of the memory, it becomes
//! the old one, and what was old is dropped. An answer that is used while old becomes young again,
//! so what is in use stays, at the cost of one map operation and with no list to keep.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::wire::{Age, Stored};

/// An answer is kept for an hour at most, whatever its TTL.
const MAX_TTL: u32 = 3600;

/// A negative answer is kept for 5 minutes at most (RFC 2308 §5 allows for more).
const MAX_NEGATIVE_TTL: u32 = 300;

/// How long an answer that has expired may stand in for one that cannot be had (RFC 8767 §5: one
/// to three days).
const MAX_STALE: Duration = Duration::from_secs(24 * 3600);

/// How long nobody is asked again for what nobody has answered, while there is an answer that has
/// expired (RFC 8767 §5: 30 s at least, but for a person who has just plugged a cable in).
const RECHECK: Duration = Duration::from_secs(30);

/// What an entry costs beside its key and its answer, in bytes, about.
const OVERHEAD: usize = 112;

/// A cache of answers.
pub(crate) struct Cache {
    /// Bytes, of keys and answers, that one generation may take.
    generation: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    young: HashMap<Box<[u8]>, Entry>,
    old: HashMap<Box<[u8]>, Entry>,
    young_bytes: usize,
    old_bytes: usize,
}

#[derive(Clone)]
struct Entry {
    answer: Arc<Stored>,
    since: Instant,
    lifetime: Duration,
    /// When nobody could be reached for a newer one.
    failed: Option<Instant>,
}

/// What is kept under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) answer: Arc<Stored>,
    pub(crate) age: Age,
    /// Whether it has expired, and a newer one is to be asked for.
    pub(crate) ask: bool,
}

impl Cache {
    /// A cache that takes at most `bytes` of memory; with 0, it keeps nothing.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { generation: bytes / 2, inner: Mutex::default() }
    }

    /// What is kept under `key`.
    pub(crate) fn get(&self, key: &[u8], now: Instant) -> Option<Hit> {
        let mut inner = self.lock();
        if let Some(entry) = inner.young.get(key) {
            return entry.hit(now);
        }
        let (key, entry) = inner.old.remove_entry(key)?;
        inner.old_bytes = inner.old_bytes.saturating_sub(size(&key, &entry));
        let hit = entry.hit(now);
        if hit.is_some() {
            self.put(&mut inner, key, entry);
        }
        hit
    }

    /// Keeps `answer` for as long as it says. One that says nothing is not kept (RFC 2308 §5).
    pub(crate) fn insert(&self, key: &[u8], answer: Arc<Stored>, now: Instant) {
        let cap = if answer.is_positive() { MAX_TTL } else { MAX_NEGATIVE_TTL };
        let Some(seconds @ 1..) = answer.lifetime().map(|seconds| seconds.min(cap)) else { return };
        let lifetime = Duration::from_secs(seconds.into());
        let entry = Entry { answer, since: now, lifetime, failed: None };
        self.put(&mut self.lock(), key.into(), entry);
    }

    /// Notes that nobody can be reached for a newer answer than what is kept under `key`.
    pub(crate) fn failed(&self, key: &[u8], now: Instant) {
        if let Some(entry) = self.lock().young.get_mut(key) {
            entry.failed = Some(now);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        *self.lock() = Inner::default();
    }

    /// Bytes of memory that are in use, about, and how many answers there are.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.young_bytes + inner.old_bytes, inner.young.len() + inner.old.len())
    }

    fn put(&self, inner: &mut Inner, key: Box<[u8]>, entry: Entry) {
        let size = size(&key, &entry);
        if size > self.generation {
            return;
        }
        if inner.young_bytes + size > self.generation {
            inner.old = std::mem::take(&mut inner.young);
            inner.old_bytes = std::mem::take(&mut inner.young_bytes);
        }
        inner.young_bytes += size;
        // A replaced answer stays counted until its generation ends: too much, never too little.
        inner.young.insert(key, entry);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // No code that holds the lock can leave the maps half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(key: &[u8], entry: &Entry) -> usize {
    key.len() + entry.answer.size() + OVERHEAD
}

impl Entry {
    fn hit(&self, now: Instant) -> Option<Hit> {
        let age = now.saturating_duration_since(self.since);
        let answer = self.answer.clone();
        if age < self.lifetime {
            let age = Age::Fresh(u32::try_from(age.as_secs()).unwrap_or(u32::MAX));
            return Some(Hit { answer, age, ask: false });
        }
        let ask = self.failed.is_none_or(|at| now.saturating_duration_since(at) >= RECHECK);
        (age < self.lifetime + MAX_STALE).then_some(Hit { answer, age: Age::Stale, ask })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(ttl: u8) -> Arc<Stored> {
        let mut reply = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        reply.extend_from_slice(b"\x01a\x00\x00\x01\x00\x01");
        reply.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00");
        reply.extend_from_slice(&[ttl, 0, 4, 192, 0, 2, 1]);
        Arc::new(Stored::parse(&reply).unwrap())
    }

    #[test]
    fn an_answer_is_kept_for_its_ttl() {
        let cache = Cache::new(10_000);
        let now = Instant::now();
        cache.insert(b"a", answer(10), now);
        let after = |seconds| {
            let hit = cache.get(b"a", now + Duration::from_secs(seconds))?;
            Some((hit.age, hit.ask))
        };
        assert_eq!(after(0), Some((Age::Fresh(0), false)));
        assert_eq!(after(9), Some((Age::Fresh(9), false)));
        assert_eq!(after(10), Some((Age::Stale, true)));
        assert_eq!(after(24 * 3600 + 9), Some((Age::Stale, true)));
        assert_eq!(after(24 * 3600 + 10), None);
    }

    #[test]
    fn what_cannot_be_had_is_not_asked_for_again_at_once() {
        let cache = Cache::new(10_000);
        let now = Instant::now();
        cache.insert(b"a", answer(10), now);
        let ask = |seconds| cache.get(b"a", now + Duration::from_secs(seconds)).unwrap().ask;
        assert!(ask(10));
        cache.failed(b"a", now + Duration::from_secs(10));
        assert!(!ask(11) && !ask(39) && ask(40));
        cache.insert(b"a", answer(10), now + Duration::from_secs(41));
        assert!(!ask(42) && ask(51));
    }

    #[test]
    fn a_ttl_of_zero_is_not_kept() {
        let cache = Cache::new(10_000);
        let now = Instant::now();
        cache.insert(b"a", answer(0), now);
        assert!(cache.get(b"a", now).is_none());
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let cache = Cache::new(10_000);
        let now = Instant::now();
        cache.insert(b"used", answer(200), now);
        for number in 0..10_000 {
            cache.insert(number.to_string().as_bytes(), answer(200), now);
            assert!(cache.get(b"used", now).is_some(), "after {number}");
        }
        assert!(cache.get(b"0", now).is_none());
        let inner = cache.lock();
        let bytes: usize =
            inner.young.iter().chain(&inner.old).map(|(key, entry)| size(key, entry)).sum();
        assert!(bytes <= 10_000, "{bytes}");
        drop(inner);
        assert!((bytes..=10_000).contains(&cache.usage().0));
    }

    #[test]
    fn what_is_larger_than_the_cache_is_not_kept() {
        let cache = Cache::new(0);
        cache.insert(b"a", answer(10), Instant::now());
        assert!(cache.get(b"a", Instant::now()).is_none());
    }
}
