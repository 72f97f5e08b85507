//! The addresses of guests that nobody on this host gives: by the LAN on bridged networks, by the
//! guest itself with SLAAC on others. They are learned from what a guest says on its own port.
//!
//! ```text
//! port ─► packet socket with a filter ─► ARP: the sender; ND: who asks, who advertises
//! ```
//!
//! What a guest claims is not checked here: `plan/made` says what of it counts. A guest that floods
//! is listened to for a moment at a time, and few of its addresses are kept.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use vnet_types::{IfName, MacAddr};

use crate::services::packet;

/// The addresses that are kept of one port: those that were used last.
const KEPT: usize = 8;
/// Bytes that are read of a frame; what matters stands in the first 86.
const FRAME: usize = 128;
/// Frames that are read at a time, and the rest after them.
const BATCH: usize = 32;
const REST: Duration = Duration::from_millis(50);
/// Bytes that may wait in the kernel.
const RECEIVE_BUFFER: libc::c_int = 64 << 10;

const ETHERNET: usize = 14;
const ICMPV6: usize = ETHERNET + 40;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// The guest of a port that is to be listened at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Its card.
    pub(crate) mac: MacAddr,
    /// Whose its addresses are to give.
    pub(crate) source: Source,
}

/// Where a guest's addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The LAN behind an uplink.
    Lan,
    /// The guest, which tells its neighbours of an address before it uses it (RFC 4862 §5.4): there
    /// may be nothing else that it says of it.
    Guest,
}

/// The ports that are listened at.
#[derive(Debug)]
pub(crate) struct Sightings {
    listeners: BTreeMap<IfName, Listener>,
    /// Who hears of an address that a guest has made, and of a guest that is gone.
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Listener {
    guest: Heard,
    addresses: Arc<Mutex<Vec<Sighting>>>,
    task: tokio::task::JoinHandle<()>,
}

/// An address that was used. The last one used comes first among those of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sighting {
    address: IpAddr,
    /// When that was heard first.
    since: Instant,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sightings {
    /// None yet. `changed` is told of addresses that guests make.
    pub(crate) fn new(changed: Arc<Notify>) -> Self {
        Self { listeners: BTreeMap::new(), changed }
    }

    /// Listens at these ports, and at no others. Gives back those that are new, and whose guest may
    /// have spoken before.
    pub(crate) fn follow(&mut self, ports: &BTreeMap<IfName, Heard>) -> Vec<IfName> {
        let before = self.listeners.len();
        self.listeners.retain(|name, listener| ports.get(name) == Some(&listener.guest));
        if self.listeners.len() < before {
            self.changed.notify_one();
        }
        let mut new = Vec::new();
        for (name, guest) in ports {
            // A port whose guest has ended, and one of the same name, are two.
            if self.listeners.get(name).is_some_and(|listener| !listener.task.is_finished()) {
                continue;
            }
            match Listener::start(name, *guest, Arc::clone(&self.changed)) {
                Ok(listener) => {
                    self.listeners.insert(name.clone(), listener);
                    new.extend((guest.source == Source::Guest).then(|| name.clone()));
                }
                Err(error) => tracing::debug!("cannot listen at {name}: {error}"),
            }
        }
        new
    }

    /// Takes over what the guest at `port` is known to have used.
    pub(crate) fn seed(&self, port: &IfName, address: IpAddr) {
        if let Some(listener) = self.listeners.get(port)
            && let Ok(mut addresses) = listener.addresses.lock()
            && note(&mut addresses, address, Instant::now())
        {
            self.changed.notify_one();
        }
    }

    /// The addresses that the guest at this port has used, in order.
    pub(crate) fn of(&self, port: &IfName) -> Vec<IpAddr> {
        let mut addresses: Vec<_> =
            self.all_of(port).into_iter().map(|sighting| sighting.address).collect();
        addresses.sort();
        addresses
    }

    /// Those of IPv6, each with when it was first heard of.
    pub(crate) fn since(&self, port: &IfName) -> Vec<(Instant, Ipv6Addr)> {
        let six = |Sighting { address, since }| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some((since, address)),
        };
        self.all_of(port).into_iter().filter_map(six).collect()
    }

    fn all_of(&self, port: &IfName) -> Vec<Sighting> {
        let Some(listener) = self.listeners.get(port) else { return Vec::new() };
        listener.addresses.lock().map(|addresses| addresses.clone()).unwrap_or_default()
    }
}

impl Listener {
    fn start(port: &IfName, guest: Heard, changed: Arc<Notify>) -> io::Result<Self> {
        let socket = packet::listen(port, &claims(), RECEIVE_BUFFER)?;
        let addresses = Arc::default();
        let task = tokio::spawn(listen(socket, guest, Arc::clone(&addresses), changed));
        Ok(Self { guest, addresses, task })
    }
}

async fn listen(
    socket: AsyncFd<OwnedFd>,
    guest: Heard,
    addresses: Arc<Mutex<Vec<Sighting>>>,
    changed: Arc<Notify>,
) {
    let mut frame = [0; FRAME];
    loop {
        for _ in 0..BATCH {
            let Ok(mut ready) = socket.readable().await else { return };
            let received =
                ready.try_io(|socket| Ok(recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty())?));
            match received {
                Ok(Ok(length)) => {
                    if let Some(address) = claimed(&frame[..length], guest)
                        && let Ok(mut addresses) = addresses.lock()
                        && note(&mut addresses, address, Instant::now())
                        && guest.source == Source::Guest
                    {
                        changed.notify_one();
                    }
                }
                // A port that is not up yet, and one that is gone, say so once.
                Ok(Err(_)) | Err(_) => break,
            }
        }
        tokio::time::sleep(REST).await;
    }
}

/// Notes that an address was used; whether it is a new one.
fn note(addresses: &mut Vec<Sighting>, address: IpAddr, now: Instant) -> bool {
    let known = addresses.iter().position(|present| present.address == address);
    let since = known.map_or(now, |at| addresses.remove(at).since);
    addresses.insert(0, Sighting { address, since });
    addresses.truncate(KEPT);
    known.is_none()
}

/// The address that a frame of the guest claims, if it claims one.
fn claimed(frame: &[u8], Heard { mac, source }: Heard) -> Option<IpAddr> {
    (frame.get(6..12)? == mac.octets()).then_some(())?;
    let address: IpAddr = match frame.get(12..14)? {
        // RFC 826: after two types, two lengths and the operation come the sender's two addresses.
        [0x08, 0x06] => {
            (frame.get(ETHERNET + 8..ETHERNET + 14)? == mac.octets()).then_some(())?;
            let sender: [u8; 4] = frame.get(ETHERNET + 14..ETHERNET + 18)?.try_into().ok()?;
            Ipv4Addr::from(sender).into()
        }
        [0x86, 0xdd] => {
            let read = |at: usize| -> Option<Ipv6Addr> {
                Some(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?.into())
            };
            // RFC 4861 §4.3, §4.4: the target follows eight bytes.
            let (sender, target) = (read(ETHERNET + 8)?, read(ICMPV6 + 8));
            match *frame.get(ICMPV6)? {
                SOLICITATION if sender.is_unspecified() && source == Source::Guest => target?,
                SOLICITATION => sender,
                ADVERTISEMENT => target?,
                _ => return None,
            }
            .into()
        }
        _ => return None,
    };
    (!address.is_unspecified() && !address.is_multicast()).then_some(address)
}

/// ARP, and ICMPv6 of the two types, right behind the IPv6 header: neighbour discovery has no
/// extension headers.
fn claims() -> [libc::sock_filter; 10] {
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET};
    let equals =
        |value: u32, yes, no| packet::instruction(BPF_JMP | BPF_JEQ | BPF_K, yes, no, value);
    let load = |size, at: usize| packet::instruction(BPF_LD | size | BPF_ABS, 0, 0, at as u32);
    [
        load(BPF_H, 12),
        equals(libc::ETH_P_ARP as u32, 7, 0),
        equals(libc::ETH_P_IPV6 as u32, 0, 5),
        load(BPF_B, ETHERNET + 6),
        equals(libc::IPPROTO_ICMPV6 as u32, 0, 3),
        load(BPF_B, ICMPV6),
        equals(SOLICITATION.into(), 2, 0),
        equals(ADVERTISEMENT.into(), 1, 0),
        packet::instruction(BPF_RET | BPF_K, 0, 0, 0),
        packet::instruction(BPF_RET | BPF_K, 0, 0, FRAME as u32),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
    const LAN: Heard = Heard { mac: MAC, source: Source::Lan };
    const GUEST: Heard = Heard { mac: MAC, source: Source::Guest };

    fn frame(ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend(MAC.octets());
        frame.extend(ethertype);
        frame.extend(payload);
        frame
    }

    fn arp(sender: [u8; 4]) -> Vec<u8> {
        let mut payload = vec![0, 1, 8, 0, 6, 4, 0, 1];
        payload.extend(MAC.octets());
        payload.extend(sender);
        payload.extend([0; 10]);
        frame([8, 6], &payload)
    }

    fn nd(kind: u8, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
        let mut payload = vec![0x60, 0, 0, 0, 0, 24, 58, 255];
        payload.extend(source.octets());
        payload.extend([0xff; 16]);
        payload.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend(target.octets());
        frame([0x86, 0xdd], &payload)
    }

    #[test]
    fn what_a_guest_claims_is_its_address() {
        let (own, other): (Ipv6Addr, Ipv6Addr) =
            ("2001:db8::5".parse().unwrap(), "2001:db8::9".parse().unwrap());
        assert_eq!(claimed(&arp([203, 0, 113, 50]), LAN), Some([203, 0, 113, 50].into()));
        assert_eq!(claimed(&nd(SOLICITATION, own, other), LAN), Some(own.into()));
        assert_eq!(claimed(&nd(ADVERTISEMENT, own, other), LAN), Some(other.into()));
        // A probe, and duplicate address detection, are no claims yet.
        assert_eq!(claimed(&arp([0; 4]), LAN), None);
        let detection = nd(SOLICITATION, Ipv6Addr::UNSPECIFIED, own);
        assert_eq!(claimed(&detection, LAN), None);
        // But of a guest that makes its addresses, it may be all that is ever heard.
        assert_eq!(claimed(&detection, GUEST), Some(own.into()));
    }

    #[test]
    fn what_is_cut_or_anothers_is_none() {
        let arp = arp([203, 0, 113, 50]);
        for length in 0..arp.len() {
            claimed(&arp[..length], LAN);
        }
        assert_eq!(claimed(&arp, Heard { mac: MacAddr([2; 6]), ..LAN }), None);
        let mut forged = arp.clone();
        forged[ETHERNET + 8] = 2;
        assert_eq!(claimed(&forged, LAN), None);
    }

    #[test]
    fn a_guest_with_many_addresses_keeps_the_last() {
        let mut addresses = Vec::new();
        let begun = Instant::now();
        let at = |last: u8| begun + Duration::from_secs(last.into());
        for last in 0..20 {
            assert!(note(&mut addresses, [10, 0, 0, last].into(), at(last)));
        }
        assert!(!note(&mut addresses, [10, 0, 0, 15].into(), at(30)));
        assert_eq!(addresses.len(), KEPT);
        let first = Sighting { address: [10, 0, 0, 15].into(), since: at(15) };
        let second = Sighting { address: [10, 0, 0, 19].into(), since: at(19) };
        assert_eq!(addresses[..2], [first, second]);
    }
}
