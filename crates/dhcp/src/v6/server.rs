//! The server's side of RFC 9915 §18.3: one message in, one decision out.
//!
//! ```text
//!   SOLICIT  ─► choose ─► ADVERTISE, or with rapid commit bind ─► REPLY
//!   REQUEST  ─► off-link? NotOnLink : choose ─► bind ─► REPLY
//!   RENEW, REBIND ─► the lease, else the address that the client names ─► bind ─► REPLY
//!                    what it may no longer use gets lifetimes of 0
//!   CONFIRM  ─► on this link? Success : NotOnLink
//!   RELEASE, DECLINE ─► unbind ─► Success      INFORMATION-REQUEST ─► options
//! ```

use std::net::Ipv6Addr;

use vnet_types::{DnsName, MacAddr};

use super::config::ServerConfig;
use super::event::{Answer, Decision, Event, Refusal, Silence};
use super::lease::Lease;
use super::message::{Client, ClientMessage, Ia, IaKind, Kind};
use super::pool::Pool;
use super::relay::Relays;
use super::reply::{self, Form, IaReply, Reply, Status};
use super::{ALL_AGENTS, ALL_SERVERS, CLIENT_PORT, Outcome, Received, Record, SERVER_PORT};
use crate::event::Choice;
use crate::lease::LeaseState;
use crate::server::Now;

/// The DHCPv6 server of one network.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    pool: Pool,
}

/// One message on its way through the server.
struct Exchange<'a> {
    unix: u64,
    message: &'a ClientMessage,
    out: &'a mut Vec<u8>,
}

/// A decision, with what goes with it.
struct Verdict {
    decision: Decision,
    persist: Vec<Record>,
    name_refused: Option<DnsName>,
}

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Self {
        Self { decision, persist: Vec::new(), name_refused: None }
    }
}

impl From<Silence> for Verdict {
    fn from(why: Silence) -> Self {
        Decision::Silent { why }.into()
    }
}

impl Server {
    /// A server for the network that `config` describes, which has given out `leases` before.
    #[must_use]
    pub fn new(config: ServerConfig, leases: impl IntoIterator<Item = Lease>) -> Self {
        let pool = Pool::new(&config, leases);
        Self { config, pool }
    }

    /// Takes over a changed configuration. Clients keep their leases; those whose address is no
    /// longer served are told so when they renew. Leases outside a changed prefix are forgotten:
    /// the caller writes its journal anew.
    pub fn reconfigure(&mut self, config: ServerConfig) {
        self.pool.reconfigure(&config);
        self.config = config;
    }

    /// What the server serves.
    #[must_use]
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// Everything that is known of addresses, in their order: running leases, ended ones that
    /// nobody has taken over, and declined addresses ([`Lease::is_live`] tells them apart).
    pub fn leases(&self) -> impl ExactSizeIterator<Item = &Lease> {
        self.pool.leases()
    }

    /// The same of one card.
    pub fn leases_of_card(&self, mac: MacAddr) -> impl Iterator<Item = &Lease> {
        self.pool.leases_of_card(mac)
    }

    /// Answers one message. `reply` is emptied, and holds the UDP payload of the answer
    /// afterwards if there is one ([`Outcome::to`] says where it goes).
    ///
    /// It may leave once [`Outcome::persist`] is on stable storage. If it cannot be stored, the
    /// reply must not leave: the client asks again, and gets the same answer.
    pub fn handle(&mut self, now: Now, received: &Received<'_>, reply: &mut Vec<u8>) -> Outcome {
        reply.clear();
        let malformed = |error| {
            let decision = Decision::Silent { why: Silence::Malformed { error } };
            let (mac, client, kind, xid, name_refused) = (received.src_mac, None, None, 0, None);
            let event = Event { mac, client, kind, xid, decision, name_refused };
            Outcome { persist: Vec::new(), event, to: None }
        };
        let (relays, bytes) = match Relays::unwrap(received.payload) {
            Ok(unwrapped) => unwrapped,
            Err(error) => return malformed(error),
        };
        let message = match ClientMessage::decode(bytes) {
            Ok(message) => message,
            Err(error) => return malformed(error),
        };
        let mac = card(received, &relays, &message);
        let verdict = match self.refuses(received, &relays, &message) {
            Some(why) => why.into(),
            None => {
                self.decide(mac, &mut Exchange { unix: now.unix, message: &message, out: reply })
            }
        };
        let to = (!reply.is_empty()).then(|| {
            relays.wrap(reply);
            let port = if relays.is_empty() { CLIENT_PORT } else { SERVER_PORT };
            (received.src_ip, port)
        });
        let Verdict { decision, persist, name_refused } = verdict;
        let ClientMessage { kind, xid, duid: client, .. } = message;
        let event = Event { mac, client, kind: Some(kind), xid, decision, name_refused };
        Outcome { persist, event, to }
    }

    /// Why the message is not to be answered at all, whatever it asks for.
    fn refuses(
        &self,
        received: &Received<'_>,
        relays: &Relays<'_>,
        message: &ClientMessage,
    ) -> Option<Silence> {
        let source = received.src_ip;
        let local = source.is_unicast_link_local() || self.config.prefix.contains(&source);
        let group = source.is_multicast() || source.is_unspecified() || source.is_loopback();
        if group || (relays.is_empty() && !local) {
            return Some(Silence::BadSource { source });
        }
        // RFC 9915 §16
        let for_all = matches!(
            message.kind,
            Kind::Solicit | Kind::Confirm | Kind::Rebind | Kind::InformationRequest
        );
        let to_all = [ALL_AGENTS, ALL_SERVERS].contains(&received.dst_ip);
        if for_all && relays.is_empty() && !to_all {
            return Some(Silence::Unicast);
        }
        if let Some(link) = relays.link().filter(|link| !self.config.prefix.contains(link)) {
            return Some(Silence::WrongLink { link });
        }
        // RFC 9915 §16.4, §16.6, §16.8 to §16.10, §16.12
        let other = message.server.as_ref().is_some_and(|server| *server != self.config.duid);
        other.then_some(Silence::OtherServer)
    }

    fn decide(&mut self, mac: Option<MacAddr>, exchange: &mut Exchange<'_>) -> Verdict {
        let message = exchange.message;
        let Some(duid) = message.duid.clone() else {
            // Only INFORMATION-REQUEST may do without (RFC 9915 §16.12).
            return self.inform(exchange);
        };
        let client = Client { duid, mac };
        match message.kind {
            Kind::Solicit if message.rapid_commit && self.config.rapid_commit => {
                self.lease(exchange, &client, Form::RapidReply)
            }
            Kind::Solicit => self.advertise(exchange, &client),
            Kind::Request | Kind::Renew | Kind::Rebind => {
                self.lease(exchange, &client, Form::Reply)
            }
            Kind::Confirm => self.confirm(exchange),
            Kind::Release | Kind::Decline => self.give_back(exchange, &client),
            Kind::InformationRequest => self.inform(exchange),
        }
    }

    /// RFC 9915 §18.3.9.
    fn advertise(&self, exchange: &mut Exchange<'_>, client: &Client) -> Verdict {
        let (hostname, name_refused) = self.hostname(exchange, client);
        let (mut ias, mut answers, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        for ia in &exchange.message.ias {
            let chosen = self.choose(exchange, client, ia, &taken);
            taken.extend(chosen.map(|(ip, _)| ip));
            answers.push(match chosen {
                Ok((ip, why)) => Answer::Given { ip, why, expires: 0 },
                Err(why) => Answer::Refused { why },
            });
            let given = chosen.map(|(ip, _)| ip);
            ias.push(IaReply { kind: ia.kind, iaid: ia.iaid, given, withdrawn: Vec::new() });
        }
        let hostname = hostname.as_ref();
        let reply =
            Reply { form: Form::Advertise, status: None, ias: &ias, hostname, parameters: true };
        reply::encode(exchange.out, &self.config, exchange.message, &reply);
        Verdict { decision: Decision::Advertised { answers }, persist: Vec::new(), name_refused }
    }

    /// RFC 9915 §18.3.1 with rapid commit, §18.3.2, §18.3.4, §18.3.5: leases are given or kept.
    fn lease(&mut self, exchange: &mut Exchange<'_>, client: &Client, form: Form) -> Verdict {
        let message = exchange.message;
        let (hostname, name_refused) = self.hostname(exchange, client);
        let expires = exchange.unix.saturating_add(self.config.lease_seconds.into());
        let (mut ias, mut answers, mut persist, mut taken) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for ia in &message.ias {
            let chosen = match message.kind {
                // "the server MUST return the IA to the client with a Status Code option with
                // the value NotOnLink" (RFC 9915 §18.3.2)
                Kind::Request if !self.on_link(ia) => Err(Refusal::NotOnLink),
                Kind::Renew | Kind::Rebind => self.renewal(exchange, client, ia, &taken),
                _ => self.choose(exchange, client, ia, &taken),
            };
            let given = chosen.map(|(ip, _)| ip);
            answers.push(match chosen {
                Ok((ip, why)) => Answer::Given { ip, why, expires },
                Err(why) => Answer::Refused { why },
            });
            let tells = matches!(message.kind, Kind::Renew | Kind::Rebind)
                && matches!(given, Ok(_) | Err(Refusal::Withdrawn));
            let withdrawn = ia.addresses.iter().copied().filter(|&ip| tells && given != Ok(ip));
            let withdrawn = withdrawn.collect();
            ias.push(IaReply { kind: ia.kind, iaid: ia.iaid, given, withdrawn });
            if let Ok(ip) = given {
                taken.push(ip);
                persist.extend(self.pool.bind(
                    Lease {
                        ip,
                        duid: client.duid.clone(),
                        iaid: ia.iaid,
                        mac: client.mac,
                        // One address a name is enough for the zone.
                        hostname: hostname.clone(),
                        state: LeaseState::Bound,
                        expires,
                    },
                    exchange.unix,
                ));
            }
        }
        let hostname = hostname.as_ref();
        let reply = Reply { form, status: None, ias: &ias, hostname, parameters: true };
        reply::encode(exchange.out, &self.config, message, &reply);
        Verdict { decision: Decision::Leased { answers }, persist, name_refused }
    }

    /// The address of a new lease.
    fn choose(
        &self,
        exchange: &Exchange<'_>,
        client: &Client,
        ia: &Ia,
        taken: &[Ipv6Addr],
    ) -> Result<(Ipv6Addr, Choice), Refusal> {
        match ia.kind {
            IaKind::Addresses => self.pool.choose(client, ia, taken, exchange.unix),
            IaKind::Temporary => Err(Refusal::Temporary),
            IaKind::Prefixes => Err(Refusal::Prefixes),
        }
    }

    /// The address of a lease that goes on (RFC 9915 §18.3.4, §18.3.5).
    fn renewal(
        &self,
        exchange: &Exchange<'_>,
        client: &Client,
        ia: &Ia,
        taken: &[Ipv6Addr],
    ) -> Result<(Ipv6Addr, Choice), Refusal> {
        let now = exchange.unix;
        // What the client has, or gets instead: a reservation that was made meanwhile, or
        // another address where the range has changed.
        if ia.kind != IaKind::Addresses || self.pool.of_ia(client, ia.iaid).is_some() {
            return self.choose(exchange, client, ia, taken);
        }
        // No lease is known. The client keeps what it says it has as long as that is free: it
        // may have got it from us before a journal was lost.
        let mut named = ia.addresses.iter().filter(|ip| !taken.contains(ip));
        if let Some(&ip) = named.find(|&&ip| self.pool.can_take(client, ia.iaid, ip, now)) {
            return Ok((ip, Choice::Requested));
        }
        // "not appropriate for the link": lifetimes of 0 (RFC 9915 §18.3.4, §18.3.5).
        Err(if self.on_link(ia) { Refusal::NoBinding } else { Refusal::Withdrawn })
    }

    /// RFC 9915 §18.3.3.
    fn confirm(&self, exchange: &mut Exchange<'_>) -> Verdict {
        let ias = &exchange.message.ias;
        // "if there were no addresses in any of the IAs sent by the client, the server MUST NOT
        // send a Reply"
        if ias.iter().all(|ia| ia.addresses.is_empty()) {
            return Silence::NoAddress.into();
        }
        let (decision, status) = if ias.iter().all(|ia| self.on_link(ia)) {
            (Decision::Confirmed, (Status::Success, "the addresses fit this network"))
        } else {
            (Decision::NotOnLink, (Status::NotOnLink, "the addresses are another network's"))
        };
        self.answer(exchange, Some(status), &[], false);
        decision.into()
    }

    /// RFC 9915 §18.3.7, §18.3.8.
    fn give_back(&mut self, exchange: &mut Exchange<'_>, client: &Client) -> Verdict {
        let Exchange { unix, message, .. } = *exchange;
        let (mut ips, mut persist, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for ia in &message.ias {
            if self.pool.of_ia(client, ia.iaid).is_none() || ia.kind != IaKind::Addresses {
                let (kind, iaid) = (ia.kind, ia.iaid);
                let given = Err(Refusal::NoBinding);
                unknown.push(IaReply { kind, iaid, given, withdrawn: Vec::new() });
                continue;
            }
            for &ip in &ia.addresses {
                let records = match message.kind {
                    Kind::Decline => {
                        self.pool.decline(client, ia.iaid, ip, unix).map(|(records, _)| records)
                    }
                    _ => self.pool.release(client, ia.iaid, ip, unix).map(|record| vec![record]),
                };
                if let Some(records) = records {
                    ips.push(ip);
                    persist.extend(records);
                }
            }
        }
        // "the server MUST return a Reply message with Status Code Success", whatever was known.
        self.answer(exchange, Some((Status::Success, "")), &unknown, false);
        let decision = match message.kind {
            Kind::Decline => Decision::Declined { ips },
            _ => Decision::Released { ips },
        };
        Verdict { decision, persist, name_refused: None }
    }

    /// RFC 9915 §18.3.6.
    fn inform(&self, exchange: &mut Exchange<'_>) -> Verdict {
        self.answer(exchange, None, &[], true);
        Decision::Informed.into()
    }

    fn answer(
        &self,
        exchange: &mut Exchange<'_>,
        status: Option<(Status, &str)>,
        ias: &[IaReply],
        parameters: bool,
    ) {
        let reply = Reply { form: Form::Reply, status, ias, hostname: None, parameters };
        reply::encode(exchange.out, &self.config, exchange.message, &reply);
    }

    /// Whether all addresses that the association names are this network's.
    fn on_link(&self, ia: &Ia) -> bool {
        ia.addresses.iter().all(|ip| self.config.prefix.contains(ip))
    }

    /// What the client is called, and the name that it asked for in vain.
    fn hostname(
        &self,
        exchange: &Exchange<'_>,
        client: &Client,
    ) -> (Option<DnsName>, Option<DnsName>) {
        let reserved = self.pool.reservations().name_of(client);
        let asked = exchange.message.fqdn.as_ref().and_then(|fqdn| fqdn.name.as_ref());
        // A client need not repeat its name when it renews.
        let Some(name) = reserved.or(asked).or_else(|| self.pool.name_of(client)) else {
            return (None, None);
        };
        if self.pool.may_be_called(name, client, exchange.unix) {
            (Some(name.clone()), None)
        } else {
            (None, Some(name.clone()))
        }
    }
}

/// The client's card: from the frame, or the relay; else from what the client made of it, its
/// address (RFC 4291, appendix A) or its identifier.
fn card(received: &Received<'_>, relays: &Relays<'_>, message: &ClientMessage) -> Option<MacAddr> {
    let seen = if relays.is_empty() { received.src_mac } else { relays.mac };
    let address = if relays.is_empty() { Some(received.src_ip) } else { relays.client() };
    seen.or_else(|| address.and_then(card_of_address))
        .or_else(|| message.duid.as_ref().and_then(super::Duid::card))
}

fn card_of_address(ip: Ipv6Addr) -> Option<MacAddr> {
    match ip.octets() {
        [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a, b, c, 0xff, 0xfe, d, e, f] => {
            Some(MacAddr([a ^ 2, b, c, d, e, f]))
        }
        _ => None,
    }
}
