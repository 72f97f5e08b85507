//! The server's side of RFC 2131: one message in, one decision out.
//!
//! ```text
//!   DISCOVER ─► choose ─► OFFER, or with rapid commit ACK
//!   REQUEST  ─► server identifier?  ─ ours ──────► SELECTING    ACK or NAK
//!               │                   └ another's ─► the offer is withdrawn
//!               ├ requested address ─────────────► INIT-REBOOT  ACK, NAK or silence
//!               └ ciaddr ── unicast ─────────────► RENEWING     ACK or NAK
//!                        └─ broadcast ───────────► REBINDING    ACK, NAK or silence
//!   RELEASE, DECLINE ─► no answer          INFORM ─► ACK without a lease
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use vnet_types::{DnsName, MacAddr};

use crate::config::ServerConfig;
use crate::event::{Choice, Decision, Event, NakReason, Silence};
use crate::frame::{self, CLIENT_PORT, Endpoint, Received, SERVER_PORT};
use crate::journal::Record;
use crate::lease::{ClientKey, Lease};
use crate::message::{ClientMessage, Kind};
use crate::pool::Pool;
use crate::reply::{Grant, Replier, Reply};

/// Seconds in the shortest lease that a client gets by asking for it.
const SHORTEST_LEASE: u32 = 60;

/// The time, as the caller's clocks have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Unix seconds: leases end by this clock, because they outlive a reboot.
    pub unix: u64,
    /// Since any fixed instant, never going back: offers end by this one.
    pub uptime: Duration,
}

/// What is to be done about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the records belong on stable storage before the reply leaves"]
pub struct Outcome {
    /// To be on stable storage before the reply leaves. Not empty if any lease has changed.
    pub persist: Vec<Record>,
    /// What was decided, and why.
    pub event: Event,
}

/// Why a configuration cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An option cannot carry what it is to say.
    #[error("a DHCP option of the network cannot be encoded")]
    Option(#[source] dhcproto::v4::EncodeError),
}

/// The DHCP server of one network.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    pool: Pool,
    replier: Replier,
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

/// One message on its way through the server.
struct Exchange<'a> {
    now: Now,
    received: &'a Received<'a>,
    message: &'a ClientMessage,
    frame: &'a mut Vec<u8>,
}

impl Server {
    /// A server for the network that `config` describes, which has given out `leases` before.
    ///
    /// # Errors
    /// The configuration has a value that no option can carry.
    pub fn new(
        config: ServerConfig,
        leases: impl IntoIterator<Item = Lease>,
    ) -> Result<Self, ConfigError> {
        let replier = Replier::new(&config).map_err(ConfigError::Option)?;
        let pool = Pool::new(&config, leases);
        Ok(Self { config, pool, replier })
    }

    /// Takes over a changed configuration. Clients keep their leases; those whose address is no
    /// longer served are told so when they renew.
    ///
    /// # Errors
    /// The configuration has a value that no option can carry; nothing has changed then.
    pub fn reconfigure(&mut self, config: ServerConfig) -> Result<(), ConfigError> {
        self.replier = Replier::new(&config).map_err(ConfigError::Option)?;
        self.pool.reconfigure(&config);
        self.config = config;
        Ok(())
    }

    /// What the server serves.
    #[must_use]
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// Everything that is known of addresses, in their order: running leases, ended ones that
    /// nobody has taken over, and declined addresses ([`Lease::is_live`] tells them apart).
    pub fn leases(&self) -> impl ExactSizeIterator<Item = &Lease> {
        self.pool.leases().iter()
    }

    /// The lease that `client` has, or had last.
    #[must_use]
    pub fn lease_of(&self, client: &ClientKey) -> Option<&Lease> {
        self.pool.leases().of_client(client)
    }

    /// Notes that somebody answers for `ip`, which was offered in answer to the message in
    /// `received`: nobody gets it for a while. The message may be handled again then, and is
    /// answered with another address. The records are as those of [`Outcome::persist`]; there are
    /// none if the message is no client's, or a client has the address.
    pub fn conflict(&mut self, now: Now, received: &Received<'_>, ip: Ipv4Addr) -> Vec<Record> {
        let message = ClientMessage::decode(received.payload, self.config.identity).ok();
        let noted = message.and_then(|message| self.pool.conflict(&message.client, ip, now));
        noted.map(|(records, _)| records).unwrap_or_default()
    }

    /// Answers one message. `frame` is emptied, and holds the Ethernet frame of the reply
    /// afterwards if there is one.
    ///
    /// The frame may leave once [`Outcome::persist`] is on stable storage. If it cannot be
    /// stored, the frame must not leave: the client asks again, and gets the same answer.
    pub fn handle(&mut self, now: Now, received: &Received<'_>, frame: &mut Vec<u8>) -> Outcome {
        frame.clear();
        self.pool.end_offers(now.uptime);
        let message = match ClientMessage::decode(received.payload, self.config.identity) {
            Ok(message) => message,
            Err(error) => {
                let decision = Decision::Silent { why: Silence::Malformed { error } };
                let mac = received.src_mac;
                let (kind, xid, shared_with, name_refused) = (None, 0, None, None);
                let event = Event { mac, kind, xid, decision, shared_with, name_refused };
                return Outcome { persist: Vec::new(), event };
            }
        };
        let shared_with = self.shares_identifier(&message, now);
        let verdict = self.decide(&mut Exchange { now, received, message: &message, frame });
        let event = Event {
            mac: message.client.mac,
            kind: Some(message.kind),
            xid: message.xid,
            decision: verdict.decision,
            shared_with,
            name_refused: verdict.name_refused,
        };
        Outcome { persist: verdict.persist, event }
    }

    fn decide(&mut self, exchange: &mut Exchange<'_>) -> Verdict {
        let Exchange { received, message, .. } = exchange;
        let to = received.dst_ip;
        if !to.is_broadcast() && to != self.config.server && to != self.config.subnet.broadcast() {
            return Silence::NotForUs { to }.into();
        }
        // RFC 2131 §4.3.1: the relay's address says which subnet the client is on.
        if let Some(link) = message.link().filter(|&link| !self.config.subnet.contains(link)) {
            return Silence::WrongLink { link }.into();
        }
        // Without a relay between, a client speaks for itself: nobody gives another's address away.
        let gives_away = matches!(message.kind, Kind::Release | Kind::Decline);
        if gives_away && message.giaddr.is_unspecified() && received.src_mac != message.client.mac {
            return Silence::Forged { sender: received.src_mac }.into();
        }
        match message.kind {
            Kind::Discover => self.discover(exchange),
            Kind::Request => self.request(exchange),
            Kind::Release => self.release(exchange),
            Kind::Decline => self.decline(exchange),
            Kind::Inform => self.inform(exchange),
        }
    }

    /// RFC 2131 §4.3.1.
    fn discover(&mut self, exchange: &mut Exchange<'_>) -> Verdict {
        let Exchange { now, message, .. } = *exchange;
        let (ip, why) = match self.pool.choose(&message.client, message.requested, now) {
            Ok(chosen) => chosen,
            Err(why) => return why.into(),
        };
        // RFC 4039 §3.1: the server commits at once if it is configured to.
        if message.rapid_commit && self.config.rapid_commit {
            return self.ack(exchange, ip, why, true);
        }
        self.pool.offer(&message.client, ip, now);
        let (hostname, name_refused) = self.hostname(message, ip, now);
        let grant = Grant { ip, seconds: self.seconds(message), hostname };
        match self.send(exchange, &Reply::Offer(grant)) {
            Ok(()) => Verdict {
                decision: Decision::Offered { ip, why },
                persist: Vec::new(),
                name_refused,
            },
            Err(why) => why.into(),
        }
    }

    /// RFC 2131 §4.3.2.
    fn request(&mut self, exchange: &mut Exchange<'_>) -> Verdict {
        let message = exchange.message;
        let ciaddr = Some(message.ciaddr).filter(|ip| !ip.is_unspecified());
        match (message.server_id, message.requested, ciaddr) {
            // RFC 2131 §3.1, step 4: not choosing us declines our offer.
            (Some(server), ..) if server != self.config.server => {
                self.pool.withdraw(&message.client.key);
                Silence::OtherServer { server }.into()
            }
            (Some(_), Some(ip), _) => self.selecting(exchange, ip),
            (None, Some(ip), None) => self.init_reboot(exchange, ip),
            // A server identifier does not belong here, but does no harm when it is ours.
            (_, _, Some(ip)) => self.renewing(exchange, ip),
            (_, None, None) => Silence::NoAddress.into(),
        }
    }

    /// The client takes our offer; one that we do not remember, made before a restart or too
    /// long ago, is as good as long as the address is free.
    fn selecting(&mut self, exchange: &mut Exchange<'_>, ip: Ipv4Addr) -> Verdict {
        match self.entitlement(exchange, ip) {
            Ok(why) => self.ack(exchange, ip, why, false),
            Err(why) => self.nak(exchange, ip, why),
        }
    }

    /// The client remembers an address from before a reboot.
    fn init_reboot(&mut self, exchange: &mut Exchange<'_>, ip: Ipv4Addr) -> Verdict {
        let client = &exchange.message.client;
        let known = self.pool.leases().of_client(&client.key).map(|lease| lease.ip);
        let reserved = self.pool.reservations().of(client).is_some();
        match self.entitlement(exchange, ip) {
            // RFC 2131 §4.3.2: a wrong network is refused whether the client is known or not.
            Err(NakReason::WrongNetwork) => self.nak(exchange, ip, NakReason::WrongNetwork),
            // Not rebooted, but choosing our offer without naming us.
            Ok(why @ Choice::Offered) => self.ack(exchange, ip, why, false),
            // "If the DHCP server has no record of this client, then it MUST remain silent":
            // the client falls back to DISCOVER. That costs it some seconds, but what it
            // remembers may be another server's, and we cannot see who else is on a relayed
            // link.
            _ if known.is_none() && !reserved => Silence::UnknownClient { ip }.into(),
            Err(why) => self.nak(exchange, ip, why),
            // The client's notion of its address is not ours.
            Ok(Choice::Requested) => match known {
                Some(known) => self.nak(exchange, ip, NakReason::HasOther { ip: known }),
                None => Silence::UnknownClient { ip }.into(),
            },
            Ok(why) => self.ack(exchange, ip, why, false),
        }
    }

    /// The client uses the address and wants to keep it: RENEWING if it asks us directly,
    /// REBINDING if it asks everybody.
    fn renewing(&mut self, exchange: &mut Exchange<'_>, ip: Ipv4Addr) -> Verdict {
        let Exchange { now, message, received, .. } = *exchange;
        let known = self.pool.leases().of_client(&message.client.key);
        let other = known.filter(|lease| lease.ip != ip && lease.is_live(now.unix));
        if let Some(other) = other.map(|lease| lease.ip) {
            return self.nak(exchange, ip, NakReason::HasOther { ip: other });
        }
        match self.entitlement(exchange, ip) {
            Err(why) => self.nak(exchange, ip, why),
            // Nothing is known, and nobody else has it. A client that names us as its server
            // got it from us, and keeps it though we have lost the lease. One that asks
            // everybody may have got it from another server.
            Ok(Choice::Requested) if received.dst_ip != self.config.server => {
                Silence::UnknownClient { ip }.into()
            }
            Ok(why) => self.ack(exchange, ip, why, false),
        }
    }

    /// RFC 2131 §4.3.4.
    fn release(&mut self, exchange: &Exchange<'_>) -> Verdict {
        let Exchange { now, message, .. } = *exchange;
        let ip = message.ciaddr;
        if let Some(server) = message.server_id.filter(|&server| server != self.config.server) {
            return Silence::OtherServer { server }.into();
        }
        match self.pool.release(&message.client, ip, now) {
            Some(record) => Verdict {
                decision: Decision::Released { ip },
                persist: vec![record],
                name_refused: None,
            },
            None if ip.is_unspecified() => Silence::NoAddress.into(),
            None => Silence::NotTheirs { ip }.into(),
        }
    }

    /// RFC 2131 §4.3.3.
    fn decline(&mut self, exchange: &Exchange<'_>) -> Verdict {
        let Exchange { now, message, .. } = *exchange;
        if let Some(server) = message.server_id.filter(|&server| server != self.config.server) {
            return Silence::OtherServer { server }.into();
        }
        let Some(ip) = message.requested else { return Silence::NoAddress.into() };
        match self.pool.decline(&message.client, ip, now) {
            Some((persist, until)) => {
                Verdict { decision: Decision::Declined { ip, until }, persist, name_refused: None }
            }
            None => Silence::NotTheirs { ip }.into(),
        }
    }

    /// RFC 2131 §4.3.5: leases play no part in it.
    fn inform(&mut self, exchange: &mut Exchange<'_>) -> Verdict {
        let ip = exchange.message.ciaddr;
        if ip.is_unspecified() {
            return Silence::NoAddress.into();
        }
        // Else anybody could have us send to any address.
        if !self.config.is_guest_address(ip) {
            return Silence::NotTheirs { ip }.into();
        }
        match self.send(exchange, &Reply::Inform) {
            Ok(()) => Decision::Informed { ip }.into(),
            Err(why) => why.into(),
        }
    }

    fn entitlement(&self, exchange: &Exchange<'_>, ip: Ipv4Addr) -> Result<Choice, NakReason> {
        if !self.config.subnet.contains(ip) {
            return Err(NakReason::WrongNetwork);
        }
        self.pool.entitlement(&exchange.message.client, ip, exchange.now)
    }

    /// Gives `ip` to the client, and says so. The record is in the verdict.
    fn ack(
        &mut self,
        exchange: &mut Exchange<'_>,
        ip: Ipv4Addr,
        why: Choice,
        rapid: bool,
    ) -> Verdict {
        let Exchange { now, message, .. } = *exchange;
        let seconds = self.seconds(message);
        let expires = match seconds {
            // RFC 2131 §3.3: for ever.
            u32::MAX => u64::MAX,
            seconds => now.unix.saturating_add(seconds.into()),
        };
        let (hostname, name_refused) = self.hostname(message, ip, now);
        // Encoded before the lease is changed, so that a failure leaves it as it was.
        let grant = Grant { ip, seconds, hostname: hostname.clone() };
        if let Err(why) = self.send(exchange, &Reply::Ack(grant, rapid)) {
            return why.into();
        }
        let lease = Lease {
            ip,
            client: message.client.key.clone(),
            mac: message.client.mac,
            hostname,
            state: crate::lease::LeaseState::Bound,
            expires,
        };
        let persist = self.pool.bind(lease);
        Verdict { decision: Decision::Acked { ip, why, expires }, persist, name_refused }
    }

    fn nak(&mut self, exchange: &mut Exchange<'_>, ip: Ipv4Addr, why: NakReason) -> Verdict {
        match self.send(exchange, &Reply::Nak(&why.to_string())) {
            Ok(()) => Decision::Refused { ip, why }.into(),
            Err(why) => why.into(),
        }
    }

    /// Puts the frame with `reply` together.
    fn send(&mut self, exchange: &mut Exchange<'_>, reply: &Reply<'_>) -> Result<(), Silence> {
        let to = self.destination(exchange, reply);
        let from =
            Endpoint { mac: self.config.server_mac, ip: self.config.server, port: SERVER_PORT };
        let own = self.pool.reservations().of(&exchange.message.client);
        let own = own.map(|reservation| &reservation.options);
        let payload =
            self.replier.encode(exchange.message, own, reply).map_err(|_| Silence::Unencodable)?;
        frame::build(exchange.frame, from, to, payload);
        Ok(())
    }

    /// Where a reply goes (RFC 2131 §4.1).
    fn destination(&self, exchange: &Exchange<'_>, reply: &Reply<'_>) -> Endpoint {
        let Exchange { message, received, .. } = exchange;
        let everybody =
            Endpoint { mac: MacAddr::BROADCAST, ip: Ipv4Addr::BROADCAST, port: CLIENT_PORT };
        if message.is_relayed() {
            return Endpoint { mac: received.src_mac, ip: message.giaddr, port: SERVER_PORT };
        }
        let yiaddr = match reply {
            // RFC 2131 §4.3.2: broadcast, whatever the client has for an address.
            Reply::Nak(_) => return everybody,
            Reply::Offer(grant) | Reply::Ack(grant, _) => grant.ip,
            // RFC 2131 §4.3.5: unicast, whatever the broadcast flag says.
            Reply::Inform => message.ciaddr,
        };
        // Only what a guest of ours can have, or anybody could have us send to any address.
        if self.config.is_guest_address(message.ciaddr) {
            Endpoint { mac: message.client.mac, ip: message.ciaddr, port: CLIENT_PORT }
        } else if message.broadcast {
            everybody
        } else {
            Endpoint { mac: message.client.mac, ip: yiaddr, port: CLIENT_PORT }
        }
    }

    /// How long the client gets its lease: as long as it asks, within bounds.
    fn seconds(&self, message: &ClientMessage) -> u32 {
        let most = self.config.lease_seconds;
        message.lease_seconds.map_or(most, |asked| asked.clamp(SHORTEST_LEASE.min(most), most))
    }

    /// What the client is called while it has `ip`, and the name that it asked for in vain.
    fn hostname(
        &self,
        message: &ClientMessage,
        ip: Ipv4Addr,
        now: Now,
    ) -> (Option<DnsName>, Option<DnsName>) {
        let client = &message.client;
        let reserved = self.pool.reservations().of(client);
        let reserved = reserved.and_then(|reservation| reservation.hostname.as_ref());
        // A client need not repeat its name when it renews.
        let before = self.pool.leases().of_client(&client.key).and_then(|l| l.hostname.as_ref());
        let Some(name) = reserved.or(message.hostname.as_ref()).or(before) else {
            return (None, None);
        };
        if self.pool.may_be_called(name, client, ip, now) {
            (Some(name.clone()), None)
        } else {
            (None, Some(name.clone()))
        }
    }

    /// Another card that has a lease under this client's identifier.
    fn shares_identifier(&self, message: &ClientMessage, now: Now) -> Option<MacAddr> {
        let lease = self.pool.leases().of_client(&message.client.key)?;
        (lease.mac != message.client.mac && lease.is_live(now.unix)).then_some(lease.mac)
    }
}
