//! Who the kernel has found at which IPv6 address, through rtnetlink.

use std::net::Ipv6Addr;

use vnet_types::MacAddr;

use crate::{Kernel, MoveError};

/// `ndmsg`: its bytes, and those of the link's number and the state in it.
const HEADER: usize = 12;
/// `NUD_REACHABLE`, `NUD_STALE`, `NUD_DELAY`, `NUD_PROBE`: it has answered, now or before.
const FOUND: u16 = 0x02 | 0x04 | 0x08 | 0x10;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

impl Kernel {
    /// The neighbours on the link with this number that have answered.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn neighbours6(&mut self, link: u32) -> Result<Vec<(MacAddr, Ipv6Addr)>, MoveError> {
        let mut header = [0; HEADER];
        header[0] = libc::AF_INET6 as u8;
        let bodies = self.rtnetlink.dump(libc::RTM_GETNEIGH, &header).map_err(MoveError::Read)?;
        let on = |body: &&Vec<u8>| body.get(4..8) == Some(&link.to_ne_bytes());
        Ok(bodies.iter().filter(on).filter_map(|body| neighbour(body)).collect())
    }
}

fn neighbour(body: &[u8]) -> Option<(MacAddr, Ipv6Addr)> {
    let state = u16::from_ne_bytes(body.get(8..10)?.try_into().ok()?);
    let (mut mac, mut address) = (None, None);
    let mut rest = body.get(HEADER..)?;
    while let (Some(length), Some(kind)) = (rest.get(..2), rest.get(2..4)) {
        let length = usize::from(u16::from_ne_bytes(length.try_into().ok()?));
        let value = rest.get(4..length)?;
        match u16::from_ne_bytes(kind.try_into().ok()?) {
            NDA_DST => address = <[u8; 16]>::try_from(value).ok().map(Ipv6Addr::from),
            NDA_LLADDR => mac = <[u8; 6]>::try_from(value).ok().map(MacAddr),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    (state & FOUND != 0).then_some((mac?, address?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_one_that_has_answered() {
        let mut body = vec![10, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0];
        body.extend([20, 0, 1, 0]);
        body.extend("fd00::5".parse::<Ipv6Addr>().unwrap().octets());
        body.extend([10, 0, 2, 0, 0x52, 0x54, 0, 0, 0, 9, 0, 0]);
        let found = (MacAddr([0x52, 0x54, 0, 0, 0, 9]), "fd00::5".parse().unwrap());
        assert_eq!(neighbour(&body), Some(found));
        // NUD_FAILED.
        let mut failed = body.clone();
        failed[8] = 0x20;
        assert_eq!(neighbour(&failed), None);
        for length in 0..body.len() - 2 {
            assert_eq!(neighbour(&body[..length]), None, "{length} bytes");
        }
    }
}
