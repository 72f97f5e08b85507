//! Offers that wait until it is clear that nobody has their address (RFC 2131 §2.2).
//!
//! ```text
//!   OFFER of an address ─► ARP probe ─► nobody answers for a while ─► the OFFER leaves
//!                                   └─► somebody does ─► quarantine, and another address
//! ```
//!
//! Each offer waits for itself: nothing else is held up, and what was asked a moment ago is not
//! asked again. Only where ports are not guarded ([`vnet_dhcp::probes`]).

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use tokio::time::{Duration, Instant};
use vnet_dhcp::frame::Checksum;
use vnet_dhcp::{Choice, arp};
use vnet_types::{IfName, MacAddr};

use super::desk;
use super::packet::PacketSocket;

/// How long a station may take to answer. On a bridge it is far quicker, unless it sleeps.
const WAIT: Duration = Duration::from_millis(100);
/// For how long an address counts as nobody's for the client that it was probed for.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// Offers that wait at a time; beyond, they leave unprobed.
const MAX_PENDING: usize = 1024;
/// Addresses that are tried for one request: the client asks again, and a station that answers for
/// all of them keeps nobody busy.
const MAX_TRIED: u32 = 16;

/// An offer that waits.
pub(super) struct Pending {
    pub(super) client: MacAddr,
    /// The frame that it answers.
    pub(super) request: Vec<u8>,
    pub(super) checksum: Checksum,
    reply: Vec<u8>,
    due: Instant,
    /// How many addresses were tried for this request before.
    tried: u32,
}

/// An address that a station other than the client has.
pub(super) struct Conflict {
    pub(super) ip: Ipv4Addr,
    pub(super) holder: MacAddr,
    pub(super) pending: Pending,
}

/// The offers of one network that wait.
pub(super) struct Probing {
    socket: PacketSocket,
    /// The bridge's own address.
    mac: MacAddr,
    pending: BTreeMap<Ipv4Addr, Pending>,
    probed: BTreeMap<(Ipv4Addr, MacAddr), Instant>,
    /// How many addresses were tried for the request that is answered now.
    tried: u32,
}

impl Probing {
    pub(super) fn open(link: &IfName, mac: MacAddr) -> io::Result<Self> {
        let socket = PacketSocket::open_arp(link)?;
        Ok(Self { socket, mac, pending: BTreeMap::new(), probed: BTreeMap::new(), tried: 0 })
    }

    /// Whether `ip`, which `client` is to be offered, must be asked for first.
    pub(super) fn must_ask(&self, ip: Ipv4Addr, client: MacAddr, why: Choice) -> bool {
        match why {
            // A reserved address may be the guest's own in any case; the others are its own.
            Choice::Reserved | Choice::Current => false,
            Choice::Offered => self.pending.contains_key(&ip),
            _ => {
                let probed = self.probed.get(&(ip, client));
                probed.is_none_or(|at| at.elapsed() >= GOOD_FOR)
                    && (self.pending.len() < MAX_PENDING || self.pending.contains_key(&ip))
            }
        }
    }

    /// Holds `reply`, the offer of `ip` in answer to `request`, back, and asks who has `ip`. An
    /// offer that waits already goes on waiting as long as it would have.
    pub(super) fn hold(
        &mut self,
        ip: Ipv4Addr,
        client: MacAddr,
        (request, checksum): (&[u8], Checksum),
        reply: Vec<u8>,
    ) {
        let before = self.pending.get(&ip).filter(|pending| pending.client == client);
        let due = before.map_or_else(|| Instant::now() + WAIT, |pending| pending.due);
        let tried = before.map_or(0, |pending| pending.tried) + self.tried;
        let request = request.to_vec();
        self.pending.insert(ip, Pending { client, request, checksum, reply, due, tried });
        let mut frame = Vec::new();
        arp::probe(&mut frame, self.mac, ip);
        if let Err(error) = self.socket.send(&frame) {
            tracing::debug!("an ARP probe for {ip} is lost: {error}");
        }
    }

    /// Waits until an ARP packet can be read, or an offer has waited long enough.
    pub(super) async fn ready(&self) -> io::Result<()> {
        let due = self.pending.values().map(|pending| pending.due).min();
        let waited = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = self.socket.readable() => ready,
            () = waited => Ok(()),
        }
    }

    /// The addresses that somebody was heard to have.
    pub(super) fn conflicts(&mut self) -> io::Result<Vec<Conflict>> {
        let mut all = Vec::new();
        desk::waiting(
            self,
            |probing| &probing.socket,
            |probing, frame, _| all.extend(probing.conflict(frame)),
        )?;
        Ok(all)
    }

    /// What the ARP packet in `frame` says against an offer that waits.
    fn conflict(&mut self, frame: &[u8]) -> Option<Conflict> {
        let (holder, ip) = arp::claim(frame).filter(|(mac, _)| *mac != self.mac)?;
        self.pending.get(&ip).filter(|pending| pending.client != holder)?;
        let pending = self.pending.remove(&ip)?;
        Some(Conflict { ip, holder, pending })
    }

    /// Begins with the request of `pending`, whose address somebody has, anew: whether it is to be
    /// answered once more. To be followed by [`Probing::done`].
    pub(super) fn retry(&mut self, pending: &Pending) -> bool {
        self.tried = pending.tried + 1;
        self.tried < MAX_TRIED
    }

    pub(super) fn done(&mut self) {
        self.tried = 0;
    }

    /// The offers that have waited long enough: nobody has their addresses.
    pub(super) fn due(&mut self) -> Vec<Vec<u8>> {
        let now = Instant::now();
        self.probed.retain(|_, at| at.elapsed() < GOOD_FOR);
        let due = self.pending.extract_if(.., |_, pending| pending.due <= now);
        let mut replies = Vec::new();
        for (ip, Pending { client, reply, .. }) in due {
            if self.probed.len() < MAX_PENDING {
                self.probed.insert((ip, client), now);
            }
            replies.push(reply);
        }
        replies
    }
}
