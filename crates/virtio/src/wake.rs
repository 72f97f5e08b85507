//! Waiting for any device of the machine, for guests that poll: a count that grows with every
//! used-ring update and every change of a device's configuration, wanted as an interrupt or not.
//!
//! A waiter remembers the last count that it saw, so that what happens between two waits is
//! never lost.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The count, and those who wait for it to grow.
#[derive(Debug, Default)]
pub struct Wake {
    count: AtomicU64,
    waiters: AtomicU32,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Wake {
    /// Says that something has happened. Cheap while nobody waits.
    pub fn signal(&self) {
        // Sequentially consistent with `wait`: either it sees the new count, or this sees it wait.
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }

    /// Returns once the count differs from `seen`, or after `limit`; `seen` is then the count.
    pub fn wait(&self, seen: &mut u64, limit: Duration) {
        let mut now = self.count.load(Ordering::SeqCst);
        if now == *seen && !limit.is_zero() {
            self.waiters.fetch_add(1, Ordering::SeqCst);
            now = self.sleep(*seen, limit);
            self.waiters.fetch_sub(1, Ordering::SeqCst);
        }
        *seen = now;
    }

    fn sleep(&self, seen: u64, limit: Duration) -> u64 {
        let end = Instant::now() + limit;
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = self.count.load(Ordering::SeqCst);
            let left = end.saturating_duration_since(Instant::now());
            if now != seen || left.is_zero() {
                return now;
            }
            guard =
                self.changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn what_happened_before_the_wait_ends_it_at_once() {
        let wake = Wake::default();
        let mut seen = 0;
        wake.signal();
        wake.wait(&mut seen, LONG);
        assert_eq!(seen, 1);
    }

    #[test]
    fn a_signal_from_another_thread_ends_the_wait() {
        let wake = Arc::new(Wake::default());
        let other = Arc::clone(&wake);
        let thread = thread::spawn(move || other.wait(&mut 0, LONG));
        wake.signal();
        thread.join().unwrap();
    }

    #[test]
    fn a_wait_of_no_time_only_looks() {
        let wake = Wake::default();
        let mut seen = 0;
        wake.wait(&mut seen, Duration::ZERO);
        wake.wait(&mut seen, Duration::from_micros(1));
        assert_eq!(seen, 0);
    }
}
