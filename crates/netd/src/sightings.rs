//! The addresses of guests on bridged networks: the LAN gives them, so they are learned from what
//! a guest says on its own port.
//!
//! ```text
//! port ─► packet socket with a filter ─► ARP: the sender; ND: who asks, who advertises
//! ```
//!
//! What a guest claims is believed, and only shown. A guest that floods is listened to for a
//! moment at a time, and few of its addresses are kept.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::unix::AsyncFd;
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

/// The ports that are listened at.
#[derive(Debug, Default)]
pub(crate) struct Sightings(BTreeMap<IfName, Listener>);

#[derive(Debug)]
struct Listener {
    mac: MacAddr,
    /// The last one used comes first.
    addresses: Arc<Mutex<Vec<IpAddr>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sightings {
    /// Listens at these ports, which are a guest's with this address each, and at no others.
    pub(crate) fn follow(&mut self, ports: &BTreeMap<IfName, MacAddr>) {
        self.0.retain(|name, listener| ports.get(name) == Some(&listener.mac));
        for (name, mac) in ports {
            // A port whose guest has ended, and one of the same name, are two.
            if self.0.get(name).is_some_and(|listener| !listener.task.is_finished()) {
                continue;
            }
            match Listener::start(name, *mac) {
                Ok(listener) => drop(self.0.insert(name.clone(), listener)),
                Err(error) => tracing::debug!("cannot listen at {name}: {error}"),
            }
        }
    }

    /// The addresses that the guest at this port has used, in order.
    pub(crate) fn of(&self, port: &IfName) -> Vec<IpAddr> {
        let Some(listener) = self.0.get(port) else { return Vec::new() };
        let mut addresses =
            listener.addresses.lock().map(|addresses| addresses.clone()).unwrap_or_default();
        addresses.sort();
        addresses
    }
}

impl Listener {
    fn start(port: &IfName, mac: MacAddr) -> io::Result<Self> {
        let socket = packet::listen(port, &claims(), RECEIVE_BUFFER)?;
        let addresses = Arc::default();
        let task = tokio::spawn(listen(socket, mac, Arc::clone(&addresses)));
        Ok(Self { mac, addresses, task })
    }
}

async fn listen(socket: AsyncFd<OwnedFd>, mac: MacAddr, addresses: Arc<Mutex<Vec<IpAddr>>>) {
    let mut frame = [0; FRAME];
    loop {
        for _ in 0..BATCH {
            let Ok(mut ready) = socket.readable().await else { return };
            let received =
                ready.try_io(|socket| Ok(recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty())?));
            match received {
                Ok(Ok(length)) => {
                    if let Some(address) = claimed(&frame[..length], mac)
                        && let Ok(mut addresses) = addresses.lock()
                    {
                        note(&mut addresses, address);
                    }
                }
                // A port that is not up yet, and one that is gone, say so once.
                Ok(Err(_)) | Err(_) => break,
            }
        }
        tokio::time::sleep(REST).await;
    }
}

fn note(addresses: &mut Vec<IpAddr>, address: IpAddr) {
    addresses.retain(|present| *present != address);
    addresses.insert(0, address);
    addresses.truncate(KEPT);
}

/// The address that a frame of the guest with the address `mac` claims, if it claims one.
fn claimed(frame: &[u8], mac: MacAddr) -> Option<IpAddr> {
    (frame.get(6..12)? == mac.octets()).then_some(())?;
    let address = match frame.get(12..14)? {
        // RFC 826: after two types, two lengths and the operation come the sender's two addresses.
        [0x08, 0x06] => {
            (frame.get(ETHERNET + 8..ETHERNET + 14)? == mac.octets()).then_some(())?;
            let sender: [u8; 4] = frame.get(ETHERNET + 14..ETHERNET + 18)?.try_into().ok()?;
            Ipv4Addr::from(sender).into()
        }
        [0x86, 0xdd] => {
            let at = match *frame.get(ICMPV6)? {
                SOLICITATION => ETHERNET + 8,
                // RFC 4861 §4.4: the target follows four bytes of header and four of flags.
                ADVERTISEMENT => ICMPV6 + 8,
                _ => return None,
            };
            let bytes: [u8; 16] = frame.get(at..at + 16)?.try_into().ok()?;
            IpAddr::from(Ipv6Addr::from(bytes))
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
        assert_eq!(claimed(&arp([203, 0, 113, 50]), MAC), Some([203, 0, 113, 50].into()));
        assert_eq!(claimed(&nd(SOLICITATION, own, other), MAC), Some(own.into()));
        assert_eq!(claimed(&nd(ADVERTISEMENT, own, other), MAC), Some(other.into()));
        // A probe, and duplicate address detection, are no claims yet.
        assert_eq!(claimed(&arp([0; 4]), MAC), None);
        assert_eq!(claimed(&nd(SOLICITATION, Ipv6Addr::UNSPECIFIED, own), MAC), None);
    }

    #[test]
    fn what_is_cut_or_anothers_is_none() {
        let arp = arp([203, 0, 113, 50]);
        for length in 0..arp.len() {
            claimed(&arp[..length], MAC);
        }
        assert_eq!(claimed(&arp, MacAddr([2; 6])), None);
        let mut forged = arp.clone();
        forged[ETHERNET + 8] = 2;
        assert_eq!(claimed(&forged, MAC), None);
    }

    #[test]
    fn a_guest_with_many_addresses_keeps_the_last() {
        let mut addresses = Vec::new();
        (0..20).for_each(|last| note(&mut addresses, [10, 0, 0, last].into()));
        note(&mut addresses, [10, 0, 0, 15].into());
        assert_eq!(addresses.len(), KEPT);
        assert_eq!(addresses[..2], [IpAddr::from([10, 0, 0, 15]), [10, 0, 0, 19].into()]);
    }
}
