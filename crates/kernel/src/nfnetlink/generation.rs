//! The number that nf_tables counts up with each change of any rule in this network namespace.
//! Where it stands as we left it, our table does too, and nobody need list it.

use std::io;

use super::{NETLINK_HEADER, Nfnetlink, SUBSYSTEM};
use crate::attributes::find;

/// `NFT_MSG_GETGEN`, `NFT_MSG_NEWGEN`, `NFTA_GEN_ID` (linux/netfilter/nf_tables.h).
const GET: u16 = 16;
const NEW: u16 = 15;
const ID: u16 = 1;

impl Nfnetlink {
    /// The present number.
    ///
    /// # Errors
    /// The kernel does not answer, or has no nf_tables.
    pub(crate) fn generation(&self) -> io::Result<u32> {
        self.ask(GET, 0, 0, &[])?;
        let mut answer = [0; 512];
        parse(self.receive(&mut answer)?).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "no generation in the answer")
        })
    }
}

/// The type of an answer, and of the last notice of each change.
pub(crate) const NEW_GENERATION: u16 = SUBSYSTEM | NEW;

fn parse(message: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    (kind == NEW_GENERATION).then(|| generation_of(message.get(NETLINK_HEADER..)?))?
}

/// The number in the body of a message of that type.
pub(crate) fn generation_of(body: &[u8]) -> Option<u32> {
    let id = find(body.get(4..)?, ID)?;
    Some(u32::from_be_bytes(id.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::HEADERS;
    use super::*;

    #[test]
    fn an_answer_that_is_no_generation_is_none() {
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[0; HEADERS]), None);
        let mut message = vec![0; HEADERS];
        message[4..6].copy_from_slice(&(SUBSYSTEM | NEW).to_ne_bytes());
        assert_eq!(parse(&message), None);
        // An attribute of length 0 must not be looked at for ever.
        let mut endless = message.clone();
        endless.extend([0; 4]);
        assert_eq!(parse(&endless), None);
        message.extend([8, 0, 1, 0, 0, 0, 0, 7]);
        assert_eq!(parse(&message), Some(7));
        assert_eq!(parse(&message[..HEADERS + 6]), None);
    }
}
