//! Whether a table is there.

use std::io;

use super::{NETLINK_HEADER, Nfnetlink, SUBSYSTEM};
use crate::attributes::append;

/// `NFT_MSG_GETTABLE`, `NFT_MSG_NEWTABLE`, `NFTA_TABLE_NAME` (linux/netfilter/nf_tables.h).
const GET: u16 = 1;
const NEW: u16 = 0;
const NAME: u16 = 1;

impl Nfnetlink {
    /// Whether there is a table of this name in the family.
    ///
    /// # Errors
    /// The kernel does not answer, or with an error.
    pub(crate) fn has_table(&self, family: u8, name: &str) -> io::Result<bool> {
        let mut attributes = Vec::new();
        append(&mut attributes, NAME, &[name.as_bytes(), &[0]].concat());
        self.ask(GET, 0, family, &attributes)?;
        let mut answer = [0; 512];
        parse(self.receive(&mut answer)?)
    }
}

fn parse(message: &[u8]) -> io::Result<bool> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "an answer that is none");
    let kind = message.get(4..6).and_then(|bytes| bytes.try_into().ok());
    let kind = u16::from_ne_bytes(kind.ok_or_else(broken)?);
    if kind == SUBSYSTEM | NEW {
        return Ok(true);
    }
    let number = message.get(NETLINK_HEADER..NETLINK_HEADER + 4);
    let number = number.and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match number {
        Some(number) if i32::from(kind) == libc::NLMSG_ERROR => {
            let error = io::Error::from_raw_os_error(number.saturating_neg());
            if error.raw_os_error() == Some(libc::ENOENT) { Ok(false) } else { Err(error) }
        }
        _ => Err(broken()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_yes_or_no_or_why_not() {
        let message = |kind: u16, number: i32| {
            let mut bytes = [&[36, 0, 0, 0][..], &kind.to_ne_bytes(), &[0; 10]].concat();
            bytes.extend(number.to_ne_bytes());
            bytes
        };
        let error = libc::NLMSG_ERROR as u16;
        assert!(parse(&message(SUBSYSTEM | NEW, 0)).unwrap());
        assert!(!parse(&message(error, -libc::ENOENT)).unwrap());
        let refused = parse(&message(error, -libc::EPERM)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!((0..20).all(|length| parse(&message(error, -libc::ENOENT)[..length]).is_err()));
    }
}
