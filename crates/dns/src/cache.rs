//! Answers of upstreams, kept for as long as they say, in bounded memory.
//!
//! Two generations: an answer enters the young one; when that is half of the memory, it becomes
//! the old one, and what was old is dropped. An answer that is used while old becomes young again,
//! so what is in use stays, at the cost of one map operation and with no list to keep.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::wire::Stored;

/// An answer is kept for an hour at most, whatever its TTL.
const MAX_TTL: u32 = 3600;

/// A negative answer is kept for 5 minutes at most (RFC 2308 §5 allows for more).
const MAX_NEGATIVE_TTL: u32 = 300;

/// What an entry costs beside its key and its answer, in bytes, about.
const OVERHEAD: usize = 96;

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
}

#[derive(Clone)]
struct Entry {
    answer: Arc<Stored>,
    since: Instant,
    lifetime: Duration,
}

impl Cache {
    /// A cache that takes at most `bytes` of memory; with 0, it keeps nothing.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { generation: bytes / 2, inner: Mutex::default() }
    }

    /// The answer kept under `key`, and its age in whole seconds.
    pub(crate) fn get(&self, key: &[u8], now: Instant) -> Option<(Arc<Stored>, u32)> {
        let mut inner = self.lock();
        let entry = match inner.young.get(key) {
            Some(entry) => entry.clone(),
            None => {
                let (key, entry) = inner.old.remove_entry(key)?;
                if entry.age(now).is_some() {
                    self.put(&mut inner, key, entry.clone());
                }
                entry
            }
        };
        drop(inner);
        Some((entry.answer.clone(), entry.age(now)?))
    }

    /// Keeps `answer` for as long as it says. One that says nothing is not kept (RFC 2308 §5).
    pub(crate) fn insert(&self, key: Box<[u8]>, answer: Arc<Stored>, now: Instant) {
        let cap = if answer.is_positive() { MAX_TTL } else { MAX_NEGATIVE_TTL };
        let Some(seconds @ 1..) = answer.lifetime().map(|seconds| seconds.min(cap)) else { return };
        let lifetime = Duration::from_secs(seconds.into());
        self.put(&mut self.lock(), key, Entry { answer, since: now, lifetime });
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        *self.lock() = Inner::default();
    }

    fn put(&self, inner: &mut Inner, key: Box<[u8]>, entry: Entry) {
        let size = key.len() + entry.answer.size() + OVERHEAD;
        if size > self.generation {
            return;
        }
        if inner.young_bytes + size > self.generation {
            inner.old = std::mem::take(&mut inner.young);
            inner.young_bytes = 0;
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

impl Entry {
    /// Whole seconds since it came, unless it has expired.
    fn age(&self, now: Instant) -> Option<u32> {
        let age = now.saturating_duration_since(self.since);
        (age < self.lifetime).then_some(age.as_secs() as u32)
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

    fn key(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    #[test]
    fn an_answer_is_kept_for_its_ttl() {
        let cache = Cache::new(10_000);
        let now = Instant::now();
        cache.insert(key("a"), answer(10), now);
        let after = |seconds| cache.get(b"a", now + Duration::from_secs(seconds)).map(|hit| hit.1);
        assert_eq!(after(0), Some(0));
        assert_eq!(after(9), Some(9));
        assert_eq!(after(10), None);
    }

    #[test]
    fn a_ttl_of_zero_is_not_kept() {
        let cache = Cache::new(10_000);
        let now = Instant::now();
        cache.insert(key("a"), answer(0), now);
        assert!(cache.get(b"a", now).is_none());
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let cache = Cache::new(10_000);
        let now = Instant::now();
        cache.insert(key("used"), answer(200), now);
        for number in 0..10_000 {
            cache.insert(key(&number.to_string()), answer(200), now);
            assert!(cache.get(b"used", now).is_some(), "after {number}");
        }
        assert!(cache.get(b"0", now).is_none());
        let inner = cache.lock();
        let bytes: usize = inner
            .young
            .iter()
            .chain(&inner.old)
            .map(|(key, entry)| key.len() + entry.answer.size() + OVERHEAD)
            .sum();
        assert!(bytes <= 10_000, "{bytes}");
    }

    #[test]
    fn what_is_larger_than_the_cache_is_not_kept() {
        let cache = Cache::new(0);
        cache.insert(key("a"), answer(10), Instant::now());
        assert!(cache.get(b"a", Instant::now()).is_none());
    }
}
