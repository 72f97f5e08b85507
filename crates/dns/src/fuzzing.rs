//! What fuzz/ gets hold of: the server without its sockets. Only with the feature `fuzzing`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::handler::{FlightLimits, Forwarding, Handler, Step, Transport};
use crate::upstream::{Forwarder, Rules, Timing, Trust, Upstreams};
use crate::wire::{self, Age, Query, Stored, flag};
use crate::zone::Zone;

/// Of a client on the network 10.0.0.0/24, at a port that can be answered.
const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)), 1024);

/// A server whose upstream is never asked.
pub struct Server(Handler);

/// What became of a request.
#[derive(Debug)]
pub enum Fate {
    /// Nothing.
    Dropped,
    /// This answer was sent.
    Answered(Vec<u8>),
    /// This was sent upstream.
    Asked(Vec<u8>),
}

impl Server {
    /// Serves a zone, which is to have the subnet 10.0.0.0/24.
    #[must_use]
    pub fn new(zone: Zone) -> Self {
        let rules = Rules::new(Upstreams::list([Ipv4Addr::new(192, 0, 2, 1).into()]));
        let forwarder = Forwarder::new(rules, BTreeSet::new(), Timing::default(), 0, Trust::Host);
        let limits = FlightLimits { total: 8, per_client: 4 };
        Self(Handler::new(zone, Vec::new(), Forwarding::On, forwarder, limits))
    }

    /// Takes a request.
    #[must_use]
    pub fn request(&self, request: &[u8], udp: bool) -> Fate {
        let mut out = Vec::new();
        let transport = if udp { Transport::Udp } else { Transport::Tcp };
        match self.0.step(request, CLIENT, transport, &mut out) {
            Step::Drop => Fate::Dropped,
            Step::Reply => Fate::Answered(out),
            Step::Forward(_) => {
                let mut asked = Vec::new();
                if let Ok(query) = Query::parse(request, udp) {
                    query.upstream(4711, true, &mut asked);
                }
                Fate::Asked(asked)
            }
        }
    }
}

/// The answer of an upstream as it is given on to the client of `request`, so many seconds later,
/// or after it has expired; and the most bytes that the client takes. None where one of the two
/// makes no sense, or they are not about the same: that is looked at when an answer comes.
#[must_use]
pub fn given_on(
    request: &[u8],
    udp: bool,
    reply: &[u8],
    age: Option<u32>,
) -> Option<(Vec<u8>, usize)> {
    let query = Query::parse(request, udp).ok()?;
    wire::same_question(query.question(), wire::question(reply)?).then_some(())?;
    let is_answer = wire::u16_at(reply, 2)? & (flag::QR | flag::OPCODE) == flag::QR;
    (is_answer && wire::u16_at(reply, 4) == Some(1)).then_some(())?;
    let stored = Stored::parse(reply)?;
    let mut out = Vec::new();
    stored.answer(&query, age.map_or(Age::Stale, Age::Fresh), &mut out);
    Some((out, query.limit))
}
