//! Forwarding: several servers, of which the first that answers in time wins.
//!
//! ```text
//! query ─ cache? ─ same query already under way? ─ ask the first server
//!                                                   │ silent for a moment: ask the next one too
//!                                                   │ refused, unreachable: ask the next one now
//!                                                   └ answer: keep it, give it to all who wait
//! ```
//!
//! A server that let others overtake it is passed over from then on. Every few seconds one query
//! is sent to it as well, beside the server that is asked for the answer: when it answers that, it
//! has its place again. So nobody waits for a dead server but the first one.

mod exchange;
mod rules;
mod source;
mod stream;
mod tls;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OnceCell, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::cache::{Cache, Hit};
use crate::name::Key;
use crate::wire::{Query, Stored, rcode};
use rules::{Server, Table};

pub use rules::{Rules, Upstreams};
pub use source::{HostServers, RESOLVED_UPLINK};
pub use tls::Trust;

/// Attempts for one query, over all servers.
const MAX_ATTEMPTS: usize = 6;

/// Looks at servers that are passed over, and askings that go on though nobody waits, at once.
const MAX_BACKGROUND: usize = 64;

/// The times of forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Silence after which the next server is asked as well.
    pub stagger: Duration,
    /// Time for one query in all. Guests' resolvers ask again after 5 s.
    pub deadline: Duration,
    /// How long a server that did not answer is passed over before it is looked at again.
    pub backoff: Duration,
    /// How long a client waits before it gets an answer that has expired (RFC 8767 §5: 1.8 s).
    pub patience: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            stagger: Duration::from_millis(400),
            deadline: Duration::from_secs(4),
            backoff: Duration::from_secs(10),
            patience: Duration::from_millis(1800),
        }
    }
}

type Pending = Arc<OnceCell<Option<Arc<Stored>>>>;

/// Asks other servers, and remembers what they said.
pub(crate) struct Forwarder {
    timing: Timing,
    /// Servers that are this server itself, or ask it.
    never: BTreeSet<SocketAddr>,
    born: Instant,
    table: ArcSwap<Table>,
    cache: Cache,
    trust: Trust,
    pending: Mutex<HashMap<Box<[u8]>, Pending>>,
    background: Mutex<JoinSet<()>>,
}

impl Forwarder {
    pub(crate) fn new(
        rules: Rules,
        never: BTreeSet<SocketAddr>,
        timing: Timing,
        cache_bytes: usize,
        trust: Trust,
    ) -> Self {
        if let Upstreams::Host(host) = &rules.upstreams {
            host.leave_out(&never);
        }
        Self {
            timing,
            born: Instant::now(),
            table: ArcSwap::from_pointee(Table::new(rules, &never, &Table::default())),
            never,
            cache: Cache::new(cache_bytes),
            trust,
            pending: Mutex::default(),
            background: Mutex::default(),
        }
    }

    /// Asks by other rules from now on.
    pub(crate) fn set_rules(&self, rules: Rules) {
        let old = self.table.load();
        match &rules.upstreams {
            Upstreams::Host(host) if old.host().is_none() => host.leave_out(&self.never),
            Upstreams::List(_) => self.leave(&old),
            Upstreams::Host(_) => {}
        }
        let table = Table::new(rules, &self.never, &old);
        // Other servers may know other names: a VPN's, say.
        let same = table.asks_as(&old);
        self.table.store(Arc::new(table));
        if !same {
            self.cache.clear();
        }
    }

    /// The servers that are asked at the moment, those for all names first.
    pub(crate) fn servers(&self) -> Vec<SocketAddr> {
        self.current().all().map(|server| server.addr()).collect()
    }

    /// How long a client waits before it gets an answer that has expired.
    pub(crate) fn patience(&self) -> Duration {
        self.timing.patience
    }

    /// Whether there is anybody to ask about a name.
    pub(crate) fn is_able(&self, key: &Key) -> bool {
        !self.current().servers(key).is_empty()
    }

    /// Whether the addresses of a name may be private ones.
    pub(crate) fn may_be_private(&self, key: &Key) -> bool {
        self.table.load().may_be_private(key)
    }

    /// What is kept under a cache's key.
    pub(crate) fn cached(&self, key: &[u8]) -> Option<Hit> {
        self.cache.get(key, Instant::now().into_std())
    }

    /// Bytes that the cache takes, and answers in it.
    pub(crate) fn cache_usage(&self) -> (usize, usize) {
        self.cache.usage()
    }

    /// Does something to its end though nobody may wait for it any more, but no longer than the
    /// forwarder lives. What it finds comes from the receiver; nothing, if there is too much to do.
    pub(crate) fn background<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (found, receiver) = oneshot::channel();
        let mut tasks = lock(&self.background);
        while tasks.try_join_next().is_some() {}
        if tasks.len() < MAX_BACKGROUND {
            tasks.spawn(async move {
                // Nobody may wait for it any more.
                let _ = found.send(work.await);
            });
        }
        receiver
    }

    /// Ends what is done in the background.
    pub(crate) fn stop(&self) {
        lock(&self.background).abort_all();
        self.table.load().all().for_each(|server| server.connection.close());
        self.leave(&self.table.load());
    }

    /// Other networks' servers need not pass this one over any more.
    fn leave(&self, table: &Table) {
        if let Some(host) = table.host() {
            host.count_again(&self.never);
        }
    }

    /// Asks the servers. Queries for the same thing wait for one answer: fewer packets, and a
    /// forger has one chance instead of many (RFC 5452 §5).
    pub(crate) async fn resolve(&self, query: &Query) -> Option<Arc<Stored>> {
        let key = query.cache_key();
        let key = key.as_bytes();
        let cell = lock(&self.pending).entry(key.into()).or_default().clone();
        let guard = PendingGuard { forwarder: self, key, cell: &cell };
        let answer = cell
            .get_or_init(|| async {
                let now = || Instant::now().into_std();
                match self.ask(query).await.map(Arc::new) {
                    Some(answer) if is_final(&answer) => {
                        self.cache.insert(key, answer.clone(), now());
                        Some(answer)
                    }
                    failure => {
                        self.cache.failed(key, now());
                        failure
                    }
                }
            })
            .await
            .clone();
        drop(guard);
        answer
    }

    /// Asks server after server, each next one when those before are silent or refuse.
    async fn ask(&self, query: &Query) -> Option<Stored> {
        let mut queue = self.order(query);
        let mut attempts = FuturesUnordered::new();
        let mut waiting: Vec<(Arc<Server>, Instant)> = Vec::new();
        let mut refusal = None;
        let deadline = Instant::now() + self.timing.deadline;
        let mut next_at = Instant::now();
        let mut left = MAX_ATTEMPTS;
        loop {
            if next_at <= Instant::now()
                && left > 0
                && let Some(server) = queue.pop_front()
            {
                // It comes again after the others, as a repetition: packets do get lost.
                queue.push_back(server.clone());
                left -= 1;
                next_at = Instant::now() + self.timing.stagger;
                waiting.push((server.clone(), Instant::now()));
                attempts.push(async {
                    let reply = exchange::ask(&server, query, &self.trust).await;
                    (server, reply)
                });
            }
            let more = left > 0 && !queue.is_empty();
            if attempts.is_empty() && !more {
                return refusal;
            }
            tokio::select! {
                biased;
                Some((server, reply)) = attempts.next(), if !attempts.is_empty() => {
                    match reply {
                        Ok(reply) if is_final(&reply) => {
                            self.answered(&server, &waiting);
                            return Some(reply);
                        }
                        // It lives, but does not help: ask the others, and not it again.
                        Ok(reply) => {
                            server.set_well();
                            refusal = Some(reply);
                        }
                        Err(error) => {
                            tracing::debug!(server = %server.upstream, %error, "no answer");
                            self.failed(&server);
                        }
                    }
                    queue.retain(|other| other.upstream != server.upstream);
                    waiting.retain(|(other, _)| other.upstream != server.upstream);
                    next_at = Instant::now();
                }
                () = sleep_until(next_at.min(deadline)), if more => {
                    if Instant::now() >= deadline {
                        waiting.iter().for_each(|(server, _)| self.failed(server));
                        return refusal;
                    }
                }
                () = sleep_until(deadline), if !more => {
                    waiting.iter().for_each(|(server, _)| self.failed(server));
                    return refusal;
                }
            }
        }
    }

    /// The servers in the order in which to ask them: those that are well, then the others, of
    /// which those that have rested are looked at beside.
    fn order(&self, query: &Query) -> VecDeque<Arc<Server>> {
        let table = self.current();
        let servers = table.servers(&query.key);
        let (well, ill): (Vec<_>, Vec<_>) =
            servers.iter().cloned().partition(|server| server.is_well());
        if !well.is_empty() {
            ill.iter().for_each(|server| self.look_at(server, query));
        }
        well.into_iter().chain(ill).collect()
    }

    /// Sends the query to a server that is passed over, if it has rested, to see whether it is
    /// well again. Of those who find that it is time, one does.
    fn look_at(&self, server: &Arc<Server>, query: &Query) {
        let retry_at = server.retry_at.load(Ordering::Relaxed);
        if self.now() < retry_at || !self.pass_over(server, retry_at) {
            return;
        }
        let (server, query) = (server.clone(), query.clone());
        let (trust, deadline) = (self.trust.clone(), self.timing.deadline);
        drop(self.background(async move {
            if let Ok(Ok(_)) = timeout(deadline, exchange::ask(&server, &query, &trust)).await {
                server.set_well();
            }
        }));
    }

    fn pass_over(&self, server: &Server, from: u64) -> bool {
        let until = self.now() + self.timing.backoff.as_millis() as u64;
        let order = Ordering::Relaxed;
        server.retry_at.compare_exchange(from, until, order, order).is_ok()
    }

    /// A server has answered; those that had more time for it than they should have are ill.
    fn answered(&self, server: &Server, waiting: &[(Arc<Server>, Instant)]) {
        server.set_well();
        waiting
            .iter()
            .filter(|(other, since)| {
                other.upstream != server.upstream && since.elapsed() >= self.timing.stagger
            })
            .for_each(|(other, _)| self.failed(other));
    }

    fn failed(&self, server: &Server) {
        self.pass_over(server, server.retry_at.load(Ordering::Relaxed));
    }

    /// The table as it is to be, now that the host's servers may be others.
    fn current(&self) -> Arc<Table> {
        let table = self.table.load();
        table.look();
        if table.is_outdated()
            && let Some(rules) = table.rules()
        {
            self.set_rules(rules.clone());
            return self.table.load_full();
        }
        Arc::clone(&table)
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
