//! When advertisements leave, and to whom.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use super::Station;
use super::config::{Config, ConfigError};
use super::message::{Retired, Solicitation, Tense, check_length, encode};

/// RFC 4861 §10: advertisements that follow each other sooner, and how soon at the latest.
const MAX_INITIAL: u8 = 3;
const MAX_INITIAL_INTERVAL: Duration = Duration::from_secs(16);
/// Farewells.
const MAX_FINAL: u8 = 3;
/// The time between two advertisements to all nodes, at least.
const MIN_DELAY_BETWEEN: Duration = Duration::from_secs(3);
/// How long a solicitation waits for its answer, at most.
const MAX_DELAY: Duration = Duration::from_millis(500);
/// Stations that wait for an answer of their own at a time; the others share one.
const MAX_WAITING: usize = 64;
/// For how long guests are told that a prefix is the link's no longer: as long as they may keep
/// an address from it (RFC 4862 §5.5.3), so that one that slept meanwhile hears it too.
const RETIREMENT: Duration = Duration::from_secs(7200);
/// Prefixes and servers that are remembered as gone, at most.
const MAX_RETIRED: usize = 8;

/// An advertisement that is to leave now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// Who gets it.
    pub to: Target,
    /// The ICMPv6 message, its checksum 0.
    pub message: Vec<u8>,
}

/// Who gets an advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// All nodes on the link ([`super::ALL_NODES`]).
    AllNodes,
    /// The station that has asked.
    One(Station),
}

/// The router of one link.
#[derive(Debug)]
pub struct Advertiser {
    config: Config,
    phase: Phase,
    /// When the last advertisement to all nodes has left.
    last: Option<Duration>,
    /// When the next one leaves.
    scheduled: Duration,
    /// Stations that are answered one by one, and when.
    waiting: BTreeMap<Ipv6Addr, (Duration, Station)>,
    retired: Retired,
    /// When what is retired need not be said any longer.
    retired_until: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Advertising, with so many yet to follow soon.
    Advertising(u8),
    /// Saying farewell so many times more.
    Ceasing(u8),
    Ended,
}

impl Advertiser {
    /// A router that begins to advertise at `now`.
    ///
    /// # Errors
    /// The configuration is none that RFC 4861 §6.2.1 allows, or no packet holds it.
    pub fn new(config: Config, now: Duration) -> Result<Self, ConfigError> {
        config.check()?;
        check_length(&config)?;
        Ok(Self {
            config,
            phase: Phase::Advertising(MAX_INITIAL),
            last: None,
            scheduled: now,
            waiting: BTreeMap::new(),
            retired: Retired::default(),
            retired_until: now,
        })
    }

    /// What the router says.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes over a changed configuration, and tells all nodes soon (RFC 4861 §6.2.4). Prefixes
    /// and name servers that are gone are taken back for two hours.
    ///
    /// # Errors
    /// As of [`Advertiser::new`]; nothing has changed then.
    pub fn reconfigure(&mut self, config: Config, now: Duration) -> Result<(), ConfigError> {
        config.check()?;
        check_length(&config)?;
        if config == self.config || !matches!(self.phase, Phase::Advertising(_)) {
            return Ok(());
        }
        if now >= self.retired_until {
            self.retired = Retired::default();
        }
        let Retired { prefixes, dns_servers } = &mut self.retired;
        let former = &self.config;
        prefixes.extend(&former.prefixes);
        prefixes.retain(|old| config.prefixes.iter().all(|new| new.net != old.net));
        prefixes.sort_by_key(|prefix| prefix.net);
        prefixes.dedup_by_key(|prefix| prefix.net);
        prefixes.truncate(MAX_RETIRED);
        dns_servers.extend(&former.dns_servers);
        dns_servers.retain(|old| !config.dns_servers.contains(old));
        dns_servers.sort_unstable();
        dns_servers.dedup();
        dns_servers.truncate(MAX_RETIRED);
        self.retired_until = now + RETIREMENT;
        self.config = config;
        self.phase = Phase::Advertising(MAX_INITIAL);
        self.scheduled = self.not_before(now);
        Ok(())
    }

    /// When [`Advertiser::poll`] has something to give; None once all is said.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        if self.phase == Phase::Ended {
            return None;
        }
        let waiting = self.waiting.values().map(|(due, _)| *due).min();
        Some(waiting.map_or(self.scheduled, |due| due.min(self.scheduled)))
    }

    /// The next advertisement that is due at `now`. To be called again until there is none.
    pub fn poll(&mut self, now: Duration, random: u64) -> Option<Advertisement> {
        if self.phase == Phase::Ended {
            return None;
        }
        if let Some((&ip, &(_, station))) = self.waiting.iter().find(|(_, (due, _))| *due <= now) {
            self.waiting.remove(&ip);
            // RFC 4861 §6.2.6: the timer of the others runs on.
            return Some(self.say(Target::One(station), Tense::Present, now));
        }
        if self.scheduled > now {
            return None;
        }
        self.last = Some(now);
        let tense = match self.phase {
            Phase::Advertising(soon) => {
                // RFC 4861 §6.2.4: uniformly between both intervals, and sooner at first.
                let mut wait = between(self.config.min_interval, self.config.max_interval, random);
                let soon = soon.saturating_sub(1);
                if soon > 0 {
                    wait = wait.min(MAX_INITIAL_INTERVAL);
                }
                self.phase = Phase::Advertising(soon);
                self.scheduled = now + wait;
                // Whoever waits hears this one.
                self.waiting.clear();
                Tense::Present
            }
            Phase::Ceasing(left) if left > 1 => {
                self.phase = Phase::Ceasing(left - 1);
                self.scheduled = now + MIN_DELAY_BETWEEN;
                Tense::Past
            }
            Phase::Ceasing(_) | Phase::Ended => {
                self.phase = Phase::Ended;
                Tense::Past
            }
        };
        Some(self.say(Target::AllNodes, tense, now))
    }

    /// Notes that somebody asks (RFC 4861 §6.2.6). The answer leaves after a random delay of half
    /// a second at most: to the one who asks if it has an address, else to all, and to all no
    /// more often than every three seconds.
    pub fn solicited(&mut self, now: Duration, solicitation: &Solicitation, random: u64) {
        if !matches!(self.phase, Phase::Advertising(_)) {
            return;
        }
        let delay = between(Duration::ZERO, MAX_DELAY, random);
        let due = now + delay;
        // "If the computed value corresponds to a time later than the time the next multicast
        // Router Advertisement is scheduled to be sent, ignore the random delay".
        if due >= self.scheduled {
            return;
        }
        match solicitation.from {
            Some(station) if self.waiting.len() < MAX_WAITING => {
                self.waiting.entry(station.ip).or_insert((due, station));
            }
            _ => {
                let earliest = self.last.map_or(due, |last| last + MIN_DELAY_BETWEEN);
                let due = if earliest > now { due.max(earliest + delay) } else { due };
                self.scheduled = self.scheduled.min(due);
            }
        }
    }

    /// Ends advertising: all nodes are told up to three times that the router is gone
    /// (RFC 4861 §6.2.5).
    pub fn cease(&mut self, now: Duration) {
        if matches!(self.phase, Phase::Advertising(_)) {
            self.phase = Phase::Ceasing(MAX_FINAL);
            self.waiting.clear();
            self.scheduled = self.not_before(now);
        }
    }

    /// The message that ends advertising, for a caller that cannot wait until
    /// [`Advertiser::poll`] gives it.
    #[must_use]
    pub fn farewell(&self) -> Vec<u8> {
        encode(&self.config, &self.retired, Tense::Past)
    }

    fn not_before(&self, now: Duration) -> Duration {
        self.last.map_or(now, |last| now.max(last + MIN_DELAY_BETWEEN))
    }

    fn say(&mut self, to: Target, tense: Tense, now: Duration) -> Advertisement {
        if now >= self.retired_until {
            self.retired = Retired::default();
        }
        Advertisement { to, message: encode(&self.config, &self.retired, tense) }
    }
}

/// A time between both, evenly spread.
fn between(least: Duration, most: Duration, random: u64) -> Duration {
    let span = u64::try_from(most.saturating_sub(least).as_nanos()).unwrap_or(u64::MAX);
    least + Duration::from_nanos(((u128::from(random) * u128::from(span)) >> 64) as u64)
}
