//! By which link packets leave for the outside.

use std::io;
use std::net::Ipv4Addr;

use crate::attributes::{append as attribute, find};
use crate::uplink::Rtnetlink;

/// An address that nobody has (RFC 5737): only a route to everywhere leads there.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// `RTA_DST`, `RTA_OIF` (linux/rtnetlink.h).
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
/// `rtmsg`.
const HEADER: usize = 12;

impl Rtnetlink {
    /// The index of the link by which a packet for the outside would leave now; none where there
    /// is no way. One lookup, however many routes there are.
    pub(crate) fn outlet(&mut self) -> io::Result<Option<u32>> {
        let mut body = vec![0; HEADER];
        body[0] = libc::AF_INET as u8;
        body[1] = 32;
        attribute(&mut body, RTA_DST, &OUTSIDE.octets());
        match self.get(libc::RTM_GETROUTE, &body) {
            Ok(route) => Ok(link_of(&route)),
            Err(error) => match error.raw_os_error() {
                // No route, or one that says there is none: blackhole, unreachable, prohibit.
                Some(
                    libc::ENETUNREACH
                    | libc::EHOSTUNREACH
                    | libc::EINVAL
                    | libc::EACCES
                    | libc::ESRCH
                    | libc::EAGAIN,
                ) => Ok(None),
                _ => Err(error),
            },
        }
    }
}

fn link_of(route: &[u8]) -> Option<u32> {
    let link = find(route.get(HEADER..)?, RTA_OIF)?;
    Some(u32::from_ne_bytes(link.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_found_among_other_attributes() {
        let mut route = vec![0; HEADER];
        attribute(&mut route, RTA_DST, &[192, 0, 2, 1]);
        assert_eq!(link_of(&route), None);
        attribute(&mut route, RTA_OIF, &7u32.to_ne_bytes());
        assert_eq!(link_of(&route), Some(7));
        assert_eq!(link_of(&route[..HEADER + 9]), None);
    }
}
