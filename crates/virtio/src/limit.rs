//! Limits on what a device may do in a second: token buckets, which fill steadily and hold at
//! most a burst. A request that costs more than is there is let through and leaves a debt, so
//! that none waits for ever; the next one waits until the debt is paid.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a device may do. 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in a second.
    pub bytes: u64,
    /// Operations (frames, requests) in a second.
    pub operations: u64,
    /// Milliseconds' worth of both that may come at once after a pause; 0 stands for 100.
    pub burst_ms: u64,
}

const USUAL_BURST_MS: u64 = 100;

/// The buckets of one device, shared by its threads.
#[derive(Debug)]
pub struct Limiter {
    buckets: Mutex<[Option<Bucket>; 2]>,
}

#[derive(Debug)]
struct Bucket {
    /// Tokens in a second.
    rate: f64,
    most: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: u64, burst_ms: u64, now: Instant) -> Option<Self> {
        let burst_ms = if burst_ms == 0 { USUAL_BURST_MS } else { burst_ms };
        let rate = rate as f64;
        let most = (rate * burst_ms as f64 / 1e3).max(1.0);
        (rate > 0.0).then_some(Self { rate, most, tokens: most, at: now })
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.most);
        self.at = now;
    }

    /// How long until there is something in it.
    fn wait(&self) -> Duration {
        if self.tokens > 0.0 {
            return Duration::ZERO;
        }
        // A little more than nothing, so that the wait is over when it ends.
        Duration::from_secs_f64((1e-3 - self.tokens) / self.rate)
    }
}

impl Limiter {
    /// The limiter for `limits`; none is needed where there are none.
    #[must_use]
    pub fn new(limits: &Limits) -> Option<Self> {
        let now = Instant::now();
        let buckets =
            [limits.bytes, limits.operations].map(|rate| Bucket::new(rate, limits.burst_ms, now));
        buckets.iter().any(Option::is_some).then(|| Self { buckets: Mutex::new(buckets) })
    }

    /// How long to wait before the next operation may begin; zero if it may now.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = buckets.iter_mut().flatten().map(|bucket| {
            bucket.fill(now);
            bucket.wait()
        });
        waits.max().unwrap_or_default()
    }

    /// Takes what an operation of `bytes` bytes costs.
    pub fn take(&self, bytes: u64) {
        self.take_many(1, bytes);
    }

    /// Takes what so many operations, of so many bytes in all, cost.
    pub fn take_many(&self, operations: u64, bytes: u64) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        for (bucket, cost) in buckets.iter_mut().zip([bytes, operations]) {
            if let Some(bucket) = bucket {
                bucket.tokens -= cost as f64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations of `bytes` that fit into `time`, in steps of the waits that are asked for.
    fn count(limits: Limits, bytes: u64, time: Duration) -> u64 {
        let limiter = Limiter::new(&limits).unwrap();
        let start = Instant::now();
        let (mut now, mut count) = (start, 0);
        while now - start < time {
            let wait = limiter.wait(now);
            if wait.is_zero() {
                limiter.take(bytes);
                count += 1;
            } else {
                now += wait;
            }
        }
        count
    }

    #[test]
    fn bytes_and_operations_are_limited_each() {
        let second = Duration::from_secs(10);
        let bytes = count(Limits { bytes: 1_000_000, ..Limits::default() }, 1000, second);
        assert!((9_900..=10_300).contains(&bytes), "{bytes}");
        let limits = Limits { operations: 50, bytes: 1_000_000, burst_ms: 0 };
        let operations = count(limits, 1000, second);
        assert!((495..=510).contains(&operations), "{operations}");
    }

    #[test]
    fn a_request_larger_than_the_burst_goes_through_and_is_paid_for() {
        let limits = Limits { bytes: 1000, ..Limits::default() };
        let large = count(limits, 5_000, Duration::from_secs(50));
        assert!((9..=11).contains(&large), "{large}");
    }

    #[test]
    fn no_limits_need_no_limiter() {
        assert!(Limiter::new(&Limits::default()).is_none());
    }
}
