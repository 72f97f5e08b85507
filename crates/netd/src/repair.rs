//! Networks stay as they were made, whatever else on the host reaches for them.
//!
//! ```text
//! a notice of the kernel ─► wait for the burst's end ─► observe, plan ─┬─ empty: nothing to do
//!           ▲                                                          └─ execute, services
//!           └────────── not before: 0.2 s, 0.4 s … 1 min after the last repair ◄┘
//! ```
//!
//! netd's own changes cause notices too; what they make it look at is as it should be. Another
//! program that undoes each repair is met less and less often: after some repairs in a row the
//! networks are shown as failed, with the reason, until one has held.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use vnet_kernel::Watch;

use crate::daemon::Shared;

/// A burst of notices ends when there has been none for as long as this.
const QUIET: Duration = Duration::from_millis(20);
/// A burst is not waited for any longer than this.
const BURST: Duration = Duration::from_millis(200);

/// Repairs the networks of `daemon` for as long as netd runs.
pub(crate) async fn keep_whole(daemon: Arc<Shared>, watch: Watch) {
    let mut backoff = Backoff::default();
    let mut burst: Option<Instant> = None;
    let mut due: Option<Instant> = None;
    loop {
        tokio::select! {
            noticed = watch.changed() => {
                if let Err(error) = noticed {
                    tracing::error!("changes by others are no longer seen: {error}");
                    return;
                }
                let now = Instant::now();
                let end = (now + QUIET).min(*burst.get_or_insert(now) + BURST);
                due = Some(end.max(backoff.not_before()));
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                burst = None;
                let patience = backoff.patience(Instant::now());
                let outcome = daemon.repair(patience).await;
                backoff.note(outcome, Instant::now());
                due = backoff.next_look(outcome);
            }
        }
    }
}

/// What a look at the networks has led to, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// All were as they should be.
    Whole,
    /// Something was missing, and is there again.
    Repaired,
    /// Something is missing.
    Failed,
}

/// How repairs have gone so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// There were none, few, or the last one has held.
    Left,
    /// One followed the other, and the last one has not held yet.
    Lost,
}

/// How long to wait between repairs.
#[derive(Debug)]
struct Backoff {
    /// Repairs, done or failed, that were each needed before the one before had held.
    in_a_row: u32,
    last: Instant,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { in_a_row: 0, last: Instant::now() }
    }
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(60);
    /// What undoes a repair takes some time for it, too.
    const HOLDS: Duration = Duration::from_secs(2);
    /// After so many repairs in a row, something fights with us.
    const LIMIT: u32 = 5;

    fn note(&mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Whole if self.has_held(now) => self.in_a_row = 0,
            Outcome::Whole => {}
            Outcome::Repaired | Outcome::Failed => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.last = now;
            }
        }
    }

    fn patience(&self, now: Instant) -> Patience {
        if self.in_a_row >= Self::LIMIT && !self.has_held(now) {
            Patience::Lost
        } else {
            Patience::Left
        }
    }

    fn has_held(&self, now: Instant) -> bool {
        now >= self.last + self.holds_after()
    }

    fn delay(&self) -> Duration {
        match self.in_a_row {
            0 => Duration::ZERO,
            many => (Self::FIRST * 2u32.pow((many - 1).min(16))).min(Self::LONGEST),
        }
    }

    fn not_before(&self) -> Instant {
        self.last + self.delay()
    }

    /// A repair has held when nothing was missing for as long as this.
    fn holds_after(&self) -> Duration {
        self.delay() + Self::HOLDS
    }

    /// When to look again though there was no notice: a failed repair is tried once more, and
    /// another one may hold.
    fn next_look(&self, outcome: Outcome) -> Option<Instant> {
        match outcome {
            Outcome::Failed => Some(self.not_before()),
            _ => (self.in_a_row > 0).then(|| self.last + self.holds_after()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_repair_is_done_at_once_and_forgotten_when_it_has_held() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        assert!(backoff.not_before() <= now);
        backoff.note(Outcome::Repaired, now);
        assert!(backoff.not_before() > now);
        let look = backoff.next_look(Outcome::Repaired).unwrap();
        backoff.note(Outcome::Whole, look);
        assert_eq!(backoff.next_look(Outcome::Whole), None);
        assert_eq!(backoff.delay(), Duration::ZERO);
    }

    #[test]
    fn a_fight_is_slowed_down_and_then_said_aloud() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut waited = Duration::ZERO;
        for _ in 0..Backoff::LIMIT {
            assert_eq!(backoff.patience(now), Patience::Left);
            waited += backoff.delay();
            backoff.note(Outcome::Repaired, now);
            now = backoff.not_before();
        }
        assert_eq!(backoff.patience(now), Patience::Lost);
        assert_eq!(backoff.patience(now + backoff.holds_after()), Patience::Left);
        assert!(waited < Duration::from_secs(10), "{waited:?}");
        for _ in 0..100 {
            backoff.note(Outcome::Failed, now);
        }
        assert_eq!(backoff.delay(), Backoff::LONGEST);
    }

    #[test]
    fn a_look_right_after_a_repair_does_not_end_the_row() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        backoff.note(Outcome::Repaired, now);
        backoff.note(Outcome::Whole, now);
        assert!(backoff.next_look(Outcome::Whole).is_some());
    }
}
