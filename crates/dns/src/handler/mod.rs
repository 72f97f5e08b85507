//! From a request's bytes to an answer's bytes.
//!
//! [`Handler::step`] is all that local and cached queries need, and it never waits and allocates
//! nothing: it reads one snapshot of the zone, takes no lock but the cache's own for the length of
//! a map lookup, and writes into the caller's buffer. What must be asked elsewhere comes back as a
//! [`Pending`] for [`Handler::forward`].

mod flights;
mod local;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::time::timeout;

use crate::cache::Hit;
use crate::counters::{Tally, count};
use crate::name;
use crate::upstream::Forwarder;
use crate::wire::{self, Age, EDE_BLOCKED, Query, Stored, flag, rcode};
use crate::zone::Zone;

pub(crate) use flights::FlightLimits;
use flights::{Flights, Ticket};

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// Whether names that are not the network's own are asked elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forwarding {
    /// Asked upstream: for `nat` and `routed` networks.
    #[default]
    On,
    /// Refused: for `hostonly` networks. REFUSED rather than NXDOMAIN, because the names do exist:
    /// a guest with a second NIC asks the other network's server at once, and nothing that it
    /// would have to forget enters its cache when it is switched to a network with an outside.
    Off,
}

/// What is to be done with a request.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing: it was no request.
    Drop,
    /// The answer is in the buffer.
    Reply,
    /// It is asked elsewhere.
    Forward(Box<Pending>),
}

/// A query on its way to the upstreams. It counts as in flight while it lives.
#[derive(Debug)]
pub(crate) struct Pending {
    query: Query,
    client: IpAddr,
    /// An answer that has expired, for when no other is to be had.
    stale: Option<Arc<Stored>>,
    _ticket: Ticket,
}

/// Answers the requests of one network.
pub(crate) struct Handler {
    zone: ArcSwap<Zone>,
    clients: Vec<IpNet>,
    forwarding: Forwarding,
    forwarder: Arc<Forwarder>,
    flights: Arc<Mutex<Flights>>,
    limits: FlightLimits,
    /// How long a client waits before it gets an answer that has expired.
    patience: Duration,
    pub(crate) tally: Tally,
}

impl Handler {
    pub(crate) fn new(
        zone: Zone,
        clients: Vec<IpNet>,
        forwarding: Forwarding,
        forwarder: Forwarder,
        limits: FlightLimits,
    ) -> Self {
        Self {
            zone: ArcSwap::from_pointee(zone),
            clients,
            forwarding,
            patience: forwarder.patience(),
            forwarder: Arc::new(forwarder),
            flights: Arc::default(),
            limits,
            tally: Tally::default(),
        }
    }

    pub(crate) fn set_zone(&self, zone: Zone) {
        self.zone.store(Arc::new(zone));
    }

    pub(crate) fn zone(&self) -> Arc<Zone> {
        self.zone.load_full()
    }

    pub(crate) fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }

    /// Answers `request` into `out`, unless it has to be asked elsewhere.
    pub(crate) fn step(
        &self,
        request: &[u8],
        client: SocketAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Step {
        let Some(flags) = wire::u16_at(request, 2).filter(|_| request.len() >= wire::HEADER) else {
            return Step::Drop;
        };
        // An answer to an answer could be answered again, for ever.
        if flags & flag::QR != 0 || client.port() == 0 {
            return Step::Drop;
        }
        count(&self.tally.queries);
        if transport == Transport::Tcp {
            count(&self.tally.tcp);
        }
        let zone = self.zone.load();
        if let Some(code) = self.refusal(flags, client, &zone) {
            wire::bare_error(request, code, out);
            return self.reply(None, client.ip(), "refused", out);
        }
        let query = match Query::parse(request, transport == Transport::Udp) {
            Ok(query) => query,
            Err(code) => {
                wire::bare_error(request, code, out);
                return self.reply(None, client.ip(), "refused", out);
            }
        };
        self.tally.asked(query.rtype);
        if query.edns.is_some_and(|edns| edns.version > 0) {
            // RFC 6891 §6.1.3
            query.error(rcode::BADVERS, out);
        } else if !query.is_served() {
            query.error(rcode::REFUSED, out);
        } else if local::answer(&zone, &query, out) {
            count(&self.tally.local);
            return self.reply(Some(&query), client.ip(), "local", out);
        } else {
            return self.elsewhere(&query, client.ip(), out);
        }
        self.reply(Some(&query), client.ip(), "refused", out)
    }

    /// The code for a request that is not even read, because of who sends it or what it is.
    fn refusal(&self, flags: u16, client: SocketAddr, zone: &Zone) -> Option<u16> {
        let inside = match client.ip() {
            IpAddr::V4(v4) => zone.subnet().contains(v4),
            IpAddr::V6(_) => false,
        };
        if !inside && !self.clients.iter().any(|net| net.contains(&client.ip())) {
            return Some(rcode::REFUSED);
        }
        // RFC 8906 §3.1.4
        (flags & flag::OPCODE != 0).then_some(rcode::NOTIMP)
    }

    fn elsewhere(&self, query: &Query, client: IpAddr, out: &mut Vec<u8>) -> Step {
        // Without RD, the client wants what is here, and it is not here (RFC 1035 §4.1.1).
        let wanted = query.flags & flag::RD != 0 && self.forwarding == Forwarding::On;
        if !wanted || !self.forwarder.is_able(&query.key) {
            query.error(rcode::REFUSED, out);
            return self.reply(Some(query), client, "refused", out);
        }
        let stale = match self.forwarder.cached(query.cache_key().as_bytes()) {
            Some(Hit { answer, age, ask: false }) => {
                let source = self.give(&answer, query, age, out);
                return self.reply(Some(query), client, source, out);
            }
            Some(Hit { answer, .. }) => Some(answer),
            None => None,
        };
        let Some(ticket) = Ticket::take(&self.flights, self.limits, client) else {
            count(&self.tally.overloads);
            query.error(rcode::SERVFAIL, out);
            return self.reply(Some(query), client, "overload", out);
        };
        Step::Forward(Box::new(Pending { query: query.clone(), client, stale, _ticket: ticket }))
    }

    /// Asks the upstreams, and writes the answer into `out`.
    pub(crate) async fn forward(&self, pending: &Pending, out: &mut Vec<u8>) {
        count(&self.tally.forwarded);
        let query = &pending.query;
        let answer = match &pending.stale {
            None => self.forwarder.resolve(query).await,
            // RFC 8767 §5: the asking goes on when the client has an answer that has expired.
            Some(_) => {
                let (forwarder, query) = (self.forwarder.clone(), query.clone());
                let asking = async move { forwarder.resolve(&query).await };
                let asking = self.forwarder.background(asking);
                timeout(self.patience, asking).await.ok().and_then(Result::ok).flatten()
            }
        };
        let failed = answer.as_ref().is_none_or(|answer| !is_usable(answer));
        let source = match (&answer, &pending.stale) {
            (_, Some(stale)) if failed => self.give(stale, query, Age::Stale, out),
            (Some(answer), _) => {
                if self.blocks(answer, query, out) {
                    "blocked"
                } else {
                    answer.answer(query, Age::Fresh(0), out);
                    "upstream"
                }
            }
            (None, _) => {
                query.error(rcode::SERVFAIL, out);
                "failed"
            }
        };
        self.reply(Some(query), pending.client, source, out);
    }

    /// Gives what is kept, and says from where it was taken.
    fn give(&self, answer: &Stored, query: &Query, age: Age, out: &mut Vec<u8>) -> &'static str {
        if self.blocks(answer, query, out) {
            return "blocked";
        }
        answer.answer(query, age, out);
        match age {
            Age::Fresh(_) => {
                count(&self.tally.cache_hits);
                "cache"
            }
            Age::Stale => {
                count(&self.tally.stale);
                "stale"
            }
        }
    }

    /// Whether the answer is kept from the client, because it leads a public name to a private
    /// address; the refusal is in `out` then.
    fn blocks(&self, answer: &Stored, query: &Query, out: &mut Vec<u8>) -> bool {
        if !answer.has_private_address() || self.forwarder.may_be_private(&query.key) {
            return false;
        }
        count(&self.tally.blocked);
        query.error_because(rcode::REFUSED, EDE_BLOCKED, out);
        true
    }

    /// Counts and logs an answer.
    fn reply(&self, query: Option<&Query>, client: IpAddr, source: &str, out: &[u8]) -> Step {
        let code = wire::u16_at(out, 2).unwrap_or(0) & flag::RCODE;
        self.tally.answered(code);
        if tracing::enabled!(tracing::Level::DEBUG) {
            let domain = self.zone.load().domain().clone();
            let (name, kind) = match query {
                Some(query) => (name::text(query.key.as_bytes()), query.rtype),
                None => ("-".to_owned(), 0),
            };
            tracing::debug!(%domain, %client, %name, kind, code, source, "DNS");
        }
        Step::Reply
    }
}

/// Whether an answer is better than one that has expired: it says something about the name.
fn is_usable(answer: &Stored) -> bool {
    matches!(answer.rcode(), rcode::NOERROR | rcode::NXDOMAIN)
}
