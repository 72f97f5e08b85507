//! From a request's bytes to an answer's bytes.
//!
//! [`Handler::step`] is all that local and cached queries need, and it never waits: it reads one
//! snapshot of the zone, takes no lock but the cache's own for the length of a map lookup, and
//! writes into the caller's buffer. What must be asked elsewhere comes back as a [`Pending`] for
//! [`Handler::forward`].
//!
//! hickory-server decodes requests and encodes local answers. Its `Server` loop is not used: it
//! spawns a task and logs a line for every datagram, accepts TCP connections without a limit, and
//! cannot pass on an upstream's answer as it came.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Metadata, ResponseCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_proto::serialize::binary::BinEncoder;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::Request;
use hickory_server::zone_handler::MessageResponseBuilder;
use ipnet::IpNet;

use crate::counters::Tally;
use crate::upstream::Forwarder;
use crate::wire::{self, ClientEdns, Query, flag, rcode};
use crate::zone::{Answer, Zone};

/// Records that a query may carry beside its question: OPT, TSIG, and an IXFR's SOA.
const MAX_QUERY_RECORDS: u32 = 4;

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
    Forward(Pending),
}

/// A query on its way to the upstreams. It counts as in flight while it lives.
#[derive(Debug)]
pub(crate) struct Pending {
    query: Query,
    key: Box<[u8]>,
    _ticket: Ticket,
}

/// How many queries may be in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlightLimits {
    pub(crate) total: usize,
    pub(crate) per_client: usize,
}

/// Answers the requests of one network.
pub(crate) struct Handler {
    zone: ArcSwap<Zone>,
    clients: Vec<IpNet>,
    forwarding: Forwarding,
    forwarder: Forwarder,
    flights: Arc<Mutex<Flights>>,
    limits: FlightLimits,
    pub(crate) tally: Tally,
}

#[derive(Debug, Default)]
struct Flights {
    total: usize,
    clients: HashMap<IpAddr, usize>,
}

/// One query's place among those in flight.
#[derive(Debug)]
struct Ticket {
    flights: Arc<Mutex<Flights>>,
    client: IpAddr,
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
            forwarder,
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
        self.tally.queries.fetch_add(1, Relaxed);
        let step = self.decide(request, flags, client, transport, out);
        if matches!(step, Step::Reply) {
            let code = wire::u16_at(out, 2).unwrap_or(0) & flag::RCODE;
            if !matches!(code, rcode::NOERROR | rcode::NXDOMAIN) {
                self.tally.failures.fetch_add(1, Relaxed);
            }
        }
        step
    }

    fn decide(
        &self,
        request: &[u8],
        flags: u16,
        client: SocketAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Step {
        let zone = self.zone.load();
        if let Some(code) = self.refusal(request, flags, client, &zone) {
            wire::bare_error(request, code, out);
            return Step::Reply;
        }
        let protocol = match transport {
            Transport::Udp => Protocol::Udp,
            Transport::Tcp => Protocol::Tcp,
        };
        let (Ok(request), Some(question)) =
            (Request::from_bytes(request.to_vec(), client, protocol), wire::question(request))
        else {
            wire::bare_error(request, rcode::FORMERR, out);
            return Step::Reply;
        };
        let Some(asked) = request.queries.queries().first() else {
            wire::bare_error(request.as_slice(), rcode::FORMERR, out);
            return Step::Reply;
        };
        let limit = match transport {
            Transport::Tcp => u16::MAX,
            // RFC 6891 §6.2.3: less than 512 counts as 512.
            Transport::Udp => request.max_payload().min(wire::UDP_PAYLOAD),
        };
        let edns = request.edns.as_ref().map(|edns| ClientEdns { dnssec: edns.flags().dnssec_ok });
        if request.version() > 0 {
            // RFC 6891 §6.1.3
            encode(&request, ResponseCode::BADVERS, &[], &[], limit, out);
            return Step::Reply;
        }
        // RFC 8906 §3.1: other classes and zone transfers are understood, and not served.
        let unserved = asked.query_class() != DNSClass::IN
            || matches!(asked.query_type(), RecordType::AXFR | RecordType::IXFR);
        if unserved {
            encode(&request, ResponseCode::Refused, &[], &[], limit, out);
            return Step::Reply;
        }
        let (code, answers, authority) =
            match zone.lookup(asked.original().name(), asked.query_type()) {
                Answer::Records(records) => (ResponseCode::NoError, records, None),
                Answer::NoData(soa) => (ResponseCode::NoError, [].as_slice().into(), Some(soa)),
                Answer::NxDomain(soa) => (ResponseCode::NXDomain, [].as_slice().into(), Some(soa)),
                Answer::NotOurs => {
                    let query = Query {
                        id: request.metadata.id,
                        flags,
                        question: question.to_vec(),
                        edns,
                        limit: limit.into(),
                    };
                    return self.elsewhere(query, client.ip(), out);
                }
            };
        self.tally.local.fetch_add(1, Relaxed);
        encode(
            &request,
            code,
            &answers,
            authority.map(std::slice::from_ref).unwrap_or(&[]),
            limit,
            out,
        );
        Step::Reply
    }

    /// The code for a request that is not even read, because of who sends it or what it is.
    fn refusal(&self, request: &[u8], flags: u16, client: SocketAddr, zone: &Zone) -> Option<u16> {
        let count = |at| u32::from(wire::u16_at(request, at).unwrap_or(0));
        let inside = match client.ip() {
            IpAddr::V4(v4) => zone.subnet().contains(v4),
            IpAddr::V6(_) => false,
        };
        if !inside && !self.clients.iter().any(|net| net.contains(&client.ip())) {
            return Some(rcode::REFUSED);
        }
        if flags & flag::OPCODE != 0 {
            // RFC 8906 §3.1.4
            return Some(rcode::NOTIMP);
        }
        // RFC 9619 §4: a query has one question.
        (count(4) != 1 || count(6) + count(8) + count(10) > MAX_QUERY_RECORDS)
            .then_some(rcode::FORMERR)
    }

    fn elsewhere(&self, query: Query, client: IpAddr, out: &mut Vec<u8>) -> Step {
        // Without RD, the client wants what is here, and it is not here (RFC 1035 §4.1.1).
        let wanted = query.flags & flag::RD != 0 && self.forwarding == Forwarding::On;
        if !wanted || !self.forwarder.is_able() {
            query.error(rcode::REFUSED, out);
            return Step::Reply;
        }
        let key = query.cache_key();
        if let Some((answer, age)) = self.forwarder.cached(&key) {
            self.tally.cache_hits.fetch_add(1, Relaxed);
            answer.answer(&query, age, out);
            return Step::Reply;
        }
        let Some(ticket) = Ticket::take(&self.flights, self.limits, client) else {
            self.tally.overloads.fetch_add(1, Relaxed);
            query.error(rcode::SERVFAIL, out);
            return Step::Reply;
        };
        Step::Forward(Pending { query, key, _ticket: ticket })
    }

    /// Asks the upstreams, and writes the answer into `out`.
    pub(crate) async fn forward(&self, pending: &Pending, out: &mut Vec<u8>) {
        self.tally.forwarded.fetch_add(1, Relaxed);
        match self.forwarder.resolve(&pending.key, &pending.query).await {
            Some(answer) => {
                if answer.rcode() != rcode::NOERROR && answer.rcode() != rcode::NXDOMAIN {
                    self.tally.failures.fetch_add(1, Relaxed);
                }
                answer.answer(&pending.query, 0, out);
            }
            None => {
                self.tally.failures.fetch_add(1, Relaxed);
                pending.query.error(rcode::SERVFAIL, out);
            }
        }
    }
}

/// Encodes a local answer: authoritative, with EDNS where the request has it, cut to `limit`.
fn encode(
    request: &Request,
    code: ResponseCode,
    answers: &[Record],
    authority: &[Record],
    limit: u16,
    out: &mut Vec<u8>,
) {
    let edns = request.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(wire::UDP_PAYLOAD);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.response_code = code;
    metadata.recursion_available = true;
    metadata.authoritative = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
    let mut emit = |metadata: Metadata, answers: &[Record], authority: &[Record]| {
        out.clear();
        let mut encoder = BinEncoder::new(out);
        encoder.set_max_size(limit);
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        builder.build(metadata, answers, authority, &[], &[]).destructive_emit(&mut encoder)
    };
    let done = emit(metadata, answers, authority);
    if !done.as_ref().is_ok_and(|info| !info.truncation) {
        // Without room for all, there may be none for OPT, which must not be missing (RFC 6891
        // §6.1.1): say no more than that TCP has it (RFC 2181 §9).
        metadata.truncation = true;
        if emit(metadata, &[], &[]).is_err() {
            wire::bare_error(request.as_slice(), rcode::SERVFAIL, out);
        }
    }
}

impl Ticket {
    fn take(flights: &Arc<Mutex<Flights>>, limits: FlightLimits, client: IpAddr) -> Option<Self> {
        let mut all = flights.lock().unwrap_or_else(PoisonError::into_inner);
        if all.total >= limits.total {
            return None;
        }
        let own = all.clients.entry(client).or_default();
        if *own >= limits.per_client {
            return None;
        }
        *own += 1;
        all.total += 1;
        Some(Self { flights: flights.clone(), client })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut all = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        all.total = all.total.saturating_sub(1);
        if let Some(own) = all.clients.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                all.clients.remove(&self.client);
            }
        }
    }
}

/// A forwarder's own addresses, which it must not ask.
pub(crate) fn own_addresses(
    listen: impl IntoIterator<Item = SocketAddr>,
    never: impl IntoIterator<Item = SocketAddr>,
) -> BTreeSet<SocketAddr> {
    never.into_iter().chain(listen).collect()
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::{Timing, Upstreams};

    static HANDLER: std::sync::LazyLock<Handler> = std::sync::LazyLock::new(handler);

    const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)), 1);

    fn handler() -> Handler {
        let mut zone = Zone::builder("lab.vnet".parse().unwrap(), "10.0.0.0/24".parse().unwrap());
        for octet in 2..200 {
            let addr = std::net::Ipv4Addr::new(10, 0, 0, octet);
            zone.insert(&"web".parse().unwrap(), addr.into()).unwrap();
        }
        // Nobody is asked here: what would be is dropped by the test.
        let upstreams = Upstreams::list(["192.0.2.1".parse().unwrap()]);
        let forwarder = Forwarder::new(upstreams, BTreeSet::new(), Timing::default(), 0);
        let limits = FlightLimits { total: 8, per_client: 4 };
        Handler::new(zone.build(), vec![], Forwarding::On, forwarder, limits)
    }

    /// What holds for every answer to every request.
    fn check(handler: &Handler, request: &[u8]) {
        for transport in [Transport::Udp, Transport::Tcp] {
            let mut out = Vec::new();
            match handler.step(request, CLIENT, transport, &mut out) {
                Step::Drop => assert!(request.len() < wire::HEADER || request[2] & 0x80 != 0),
                Step::Forward(pending) => assert_eq!(pending.query.id.to_be_bytes(), request[..2]),
                Step::Reply => {
                    assert_eq!(out[..2], request[..2], "the id");
                    assert_eq!(out[2] & 0x80, 0x80, "an answer");
                    if transport == Transport::Udp {
                        assert!(out.len() <= 1232);
                    }
                    Message::from_vec(&out).unwrap();
                }
            }
        }
    }

    fn web() -> Vec<u8> {
        let mut request = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        request.extend_from_slice(b"\x03web\x03lab\x04vnet\x00\x00\x01\x00\x01");
        request.extend_from_slice(b"\x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00");
        request
    }

    #[tokio::test]
    async fn flights_end_with_their_queries() {
        let handler = handler();
        let mut request = web();
        request[14] = b'x';
        request[17] = b'x';
        request[21] = b'x';
        let mut flights = Vec::new();
        for _ in 0..5 {
            let mut out = Vec::new();
            flights.push(handler.step(&request, CLIENT, Transport::Udp, &mut out));
        }
        assert!(matches!(flights[3], Step::Forward(_)) && matches!(flights[4], Step::Reply));
        drop(flights);
        let flights = handler.flights.lock().unwrap();
        assert!(flights.total == 0 && flights.clients.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn any_bytes_can_be_a_request(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            check(&HANDLER, &bytes);
        }

        #[test]
        fn any_change_of_a_request_is_answered(
            changes in prop::collection::vec((0..50_usize, any::<u8>()), 1..6),
            cut in 0..60_usize,
        ) {
            let mut request = web();
            for (at, value) in changes {
                if let Some(byte) = request.get_mut(at) {
                    *byte = value;
                }
            }
            request.truncate(cut);
            check(&HANDLER, &request);
        }
    }
}
