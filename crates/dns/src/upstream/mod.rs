//! Forwarding: several servers, of which the first that answers in time wins.
//!
//! ```text
//! query ─ cache? ─ same query already under way? ─ ask the first server
//!                                                   │ silent for a moment: ask the next one too
//!                                                   │ refused, unreachable: ask the next one now
//!                                                   └ answer: keep it, give it to all who wait
//! ```
//!
//! A server that let others overtake it is passed over for some seconds, after which one query
//! tries it again while all others still go elsewhere: nobody waits for a dead server twice.

mod exchange;
mod source;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::cache::Cache;
use crate::wire::{Query, Stored, rcode};
use source::Watched;

pub use source::{RESOLVED_UPLINK, Upstreams};

/// How long a followed file is taken as unchanged, in milliseconds.
const RECHECK_MS: u64 = 1000;

/// Attempts for one query, over all servers.
const MAX_ATTEMPTS: usize = 6;

/// The times of forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Silence after which the next server is asked as well.
    pub stagger: Duration,
    /// Time for one query in all. Guests' resolvers ask again after 5 s.
    pub deadline: Duration,
    /// How long a server that did not answer is passed over.
    pub backoff: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            stagger: Duration::from_millis(400),
            deadline: Duration::from_secs(4),
            backoff: Duration::from_secs(10),
        }
    }
}

/// One upstream server and what is remembered about it.
struct Server {
    addr: SocketAddr,
    /// When it is tried again, in milliseconds of the forwarder's clock; 0 while it is well.
    retry_at: AtomicU64,
}

type Pending = Arc<OnceCell<Option<Arc<Stored>>>>;

/// Asks other servers, and remembers what they said.
pub(crate) struct Forwarder {
    timing: Timing,
    /// Servers that are this server itself, or ask it.
    never: BTreeSet<SocketAddr>,
    born: Instant,
    watched: Mutex<Watched>,
    /// When the source was last looked at, in milliseconds of the forwarder's clock.
    checked: AtomicU64,
    servers: ArcSwap<Vec<Arc<Server>>>,
    cache: Cache,
    pending: Mutex<HashMap<Box<[u8]>, Pending>>,
}

impl Forwarder {
    pub(crate) fn new(
        upstreams: Upstreams,
        never: BTreeSet<SocketAddr>,
        timing: Timing,
        cache_bytes: usize,
    ) -> Self {
        let forwarder = Self {
            timing,
            never,
            born: Instant::now(),
            watched: Mutex::new(Watched::new(upstreams)),
            checked: AtomicU64::new(0),
            servers: ArcSwap::default(),
            cache: Cache::new(cache_bytes),
            pending: Mutex::default(),
        };
        forwarder.reread();
        forwarder
    }

    /// Takes the servers from somewhere else from now on.
    pub(crate) fn set_upstreams(&self, upstreams: Upstreams) {
        *lock(&self.watched) = Watched::new(upstreams);
        self.reread();
    }

    /// The servers that are asked at the moment.
    pub(crate) fn servers(&self) -> Vec<SocketAddr> {
        self.servers.load().iter().map(|server| server.addr).collect()
    }

    /// Whether there is anybody to ask; looks at the source if that was long ago.
    pub(crate) fn is_able(&self) -> bool {
        let now = self.now();
        let checked = self.checked.load(Ordering::Relaxed);
        if now.saturating_sub(checked) >= RECHECK_MS
            && self
                .checked
                .compare_exchange(checked, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.reread();
        }
        !self.servers.load().is_empty()
    }

    /// A kept answer for `key`, and its age in seconds.
    pub(crate) fn cached(&self, key: &[u8]) -> Option<(Arc<Stored>, u32)> {
        self.cache.get(key, Instant::now().into_std())
    }

    /// Asks the servers. Queries for the same thing wait for one answer: fewer packets, and a
    /// forger has one chance instead of many (RFC 5452 §5).
    pub(crate) async fn resolve(&self, key: &[u8], query: &Query) -> Option<Arc<Stored>> {
        let cell = lock(&self.pending).entry(key.into()).or_default().clone();
        let guard = PendingGuard { forwarder: self, key, cell: &cell };
        let answer = cell
            .get_or_init(|| async {
                let answer = Arc::new(self.ask(query).await?);
                self.cache.insert(key.into(), answer.clone(), Instant::now().into_std());
                Some(answer)
            })
            .await
            .clone();
        drop(guard);
        answer
    }

    /// Asks server after server, each next one when those before are silent or refuse.
    async fn ask(&self, query: &Query) -> Option<Stored> {
        let mut queue = self.order();
        let mut attempts = JoinSet::new();
        let mut waiting: Vec<(Arc<Server>, Instant)> = Vec::new();
        let mut refusal = None;
        let deadline = Instant::now() + self.timing.deadline;
        let mut next_at = Instant::now();
        let mut left = MAX_ATTEMPTS;
        loop {
            let more = left > 0 && !queue.is_empty();
            if attempts.is_empty() && !more {
                return refusal;
            }
            tokio::select! {
                biased;
                Some(done) = attempts.join_next() => {
                    let Ok((server, reply)): Result<(Arc<Server>, std::io::Result<Stored>), _> =
                        done
                    else {
                        continue;
                    };
                    match reply {
                        Ok(reply) if is_final(&reply) => {
                            self.answered(&server, &waiting);
                            return Some(reply);
                        }
                        // It lives, but does not help: ask the others, and not it again.
                        Ok(reply) => {
                            server.retry_at.store(0, Ordering::Relaxed);
                            refusal = Some(reply);
                        }
                        Err(_) => self.failed(&server),
                    }
                    queue.retain(|other| other.addr != server.addr);
                    waiting.retain(|(other, _)| other.addr != server.addr);
                    next_at = Instant::now();
                }
                () = sleep_until(next_at.min(deadline)), if more => {
                    if next_at >= deadline {
                        self.give_up(&waiting);
                        return refusal;
                    }
                    let Some(server) = queue.pop_front() else { continue };
                    // It comes again after the others, as a repetition: packets do get lost.
                    queue.push_back(server.clone());
                    left -= 1;
                    next_at = Instant::now() + self.timing.stagger;
                    waiting.push((server.clone(), Instant::now()));
                    let query = query.clone();
                    attempts.spawn(async move {
                        let reply = exchange::ask(server.addr, &query).await;
                        (server, reply)
                    });
                }
                () = sleep_until(deadline) => {
                    self.give_up(&waiting);
                    return refusal;
                }
            }
        }
    }

    /// The servers in the order in which to ask them: those that are well, then the others.
    fn order(&self) -> VecDeque<Arc<Server>> {
        let now = self.now();
        let (well, ill): (Vec<_>, Vec<_>) =
            self.servers.load().iter().cloned().partition(|server| {
                let retry_at = server.retry_at.load(Ordering::Relaxed);
                // Of those who find that it is time to try again, one does.
                retry_at == 0 || now >= retry_at && self.pass_over(server, retry_at)
            });
        well.into_iter().chain(ill).collect()
    }

    fn pass_over(&self, server: &Server, from: u64) -> bool {
        let until = self.now() + self.timing.backoff.as_millis() as u64;
        let order = Ordering::Relaxed;
        server.retry_at.compare_exchange(from, until, order, order).is_ok()
    }

    fn answered(&self, server: &Server, waiting: &[(Arc<Server>, Instant)]) {
        server.retry_at.store(0, Ordering::Relaxed);
        let overtaken = waiting
            .iter()
            .filter(|(other, since)| {
                other.addr != server.addr && since.elapsed() >= self.timing.stagger
            })
            .map(|(other, _)| other);
        overtaken.for_each(|other| self.failed(other));
    }

    fn failed(&self, server: &Server) {
        self.pass_over(server, server.retry_at.load(Ordering::Relaxed));
    }

    fn give_up(&self, waiting: &[(Arc<Server>, Instant)]) {
        waiting.iter().for_each(|(server, _)| self.failed(server));
    }

    fn reread(&self) {
        let mut watched = lock(&self.watched);
        let Some(addrs) = watched.poll(&self.never) else { return };
        let old = self.servers.load();
        if old.iter().map(|server| server.addr).eq(addrs.iter().copied()) {
            return;
        }
        tracing::debug!(servers = ?addrs, "asking other upstreams");
        let known = |addr| old.iter().find(|server| server.addr == addr).cloned();
        let fresh = |addr| Arc::new(Server { addr, retry_at: AtomicU64::new(0) });
        let servers = addrs.into_iter().map(|addr| known(addr).unwrap_or_else(|| fresh(addr)));
        self.servers.store(Arc::new(servers.collect()));
        // Other servers may know other names: a VPN's, say.
        self.cache.clear();
    }

    /// Milliseconds since the forwarder was made, and 1 at least.
    fn now(&self) -> u64 {
        self.born.elapsed().as_millis() as u64 + 1
    }
}

/// Whether no other server would know better: NOERROR, NXDOMAIN, and what is new to us. Not so
/// SERVFAIL, REFUSED, NOTIMP and FORMERR, which are about the server.
fn is_final(reply: &Stored) -> bool {
    !matches!(reply.rcode(), rcode::SERVFAIL | rcode::REFUSED | rcode::NOTIMP | rcode::FORMERR)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No code that holds one of these locks can leave the value half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a query off the list when the last one that waits for it goes, whether answered or not.
struct PendingGuard<'a> {
    forwarder: &'a Forwarder,
    key: &'a [u8],
    cell: &'a Pending,
}

impl Drop for PendingGuard<'_> {
    fn drop(&mut self) {
        let mut pending = lock(&self.forwarder.pending);
        let ours = pending.get(self.key).is_some_and(|cell| Arc::ptr_eq(cell, self.cell));
        // The map's own and ours: nobody else waits. An answered one takes no new ones either.
        if ours && (self.cell.initialized() || Arc::strong_count(self.cell) <= 2) {
            pending.remove(self.key);
        }
    }
}
