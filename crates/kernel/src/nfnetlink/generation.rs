//! The number that nf_tables counts up with each change of any rule in this network namespace.
//! Where it stands as we left it, our table does too, and nobody need list it.

use std::io;

use super::{HEADERS, Nfnetlink, SUBSYSTEM};
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
        self.ask(GET, 0)?;
        let mut answer = [0; 512];
        parse(self.receive(&mut answer)?).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "no generation in the answer")
        })
    }
}

fn parse(message: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    if kind != SUBSYSTEM | NEW {
        return None;
    }
    let id = find(message.get(HEADERS..)?, ID)?;
    Some(u32::from_be_bytes(id.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
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
