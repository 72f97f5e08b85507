//! ARP probes (RFC 5227 §2.1.1): whether somebody has an address already.

use std::net::Ipv4Addr;

use vnet_types::MacAddr;

use crate::frame::{array, be16, mac_at};

const ETHERNET: usize = 14;
/// Ethernet's shortest frame, without its checksum: the rest is padding.
const SHORTEST: usize = 60;
const ETHERTYPE: u16 = 0x0806;
/// Ethernet and IPv4, with the lengths of their addresses (RFC 826).
const FIXED: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Puts the probe for `ip` by the station `mac` into `frame`, in the place of what was there.
pub fn probe(frame: &mut Vec<u8>, mac: MacAddr, ip: Ipv4Addr) {
    frame.clear();
    frame.extend(MacAddr::BROADCAST.octets());
    frame.extend(mac.octets());
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.extend(FIXED);
    // A request whose sender has no address, so that nobody notes one for it.
    frame.extend([0, 1]);
    frame.extend(mac.octets());
    frame.extend([0; 4]);
    frame.extend([0; 6]);
    frame.extend(ip.octets());
    frame.resize(SHORTEST, 0);
}

/// Who says in `frame`, an ARP packet of either kind, that it has which address. None for probes,
/// which claim nothing, and for what is no ARP.
#[must_use]
pub fn claim(frame: &[u8]) -> Option<(MacAddr, Ipv4Addr)> {
    if be16(frame, 12).ok()? != ETHERTYPE || frame.get(ETHERNET..ETHERNET + 6)? != FIXED {
        return None;
    }
    let mac = mac_at(frame, ETHERNET + 8).ok()?;
    let ip = array::<4>(frame, ETHERNET + 14).map(Ipv4Addr::from).ok()?;
    (!ip.is_unspecified()).then_some((mac, ip))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    #[test]
    fn a_probe_asks_and_claims_nothing() {
        let mut frame = Vec::new();
        probe(&mut frame, MAC, Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(frame.len(), 60);
        assert_eq!(frame[38..42], [10, 0, 0, 9]);
        assert_eq!(claim(&frame), None);
        // The answer: opcode 2, the sender's own address.
        frame[21] = 2;
        frame[28..32].copy_from_slice(&[10, 0, 0, 9]);
        assert_eq!(claim(&frame), Some((MAC, Ipv4Addr::new(10, 0, 0, 9))));
        assert_eq!(claim(&frame[..31]), None);
        frame[13] = 0;
        assert_eq!(claim(&frame), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = claim(&bytes);
        }
    }
}
