//! Whether anybody else decides about packets to or through the host: a look at the chains that
//! are hooked in, without a look at their rules, which costs a listing of everything.

use std::io;

use super::{HEADERS, NETLINK_HEADER, Nfnetlink, SUBSYSTEM};
use crate::attributes::attributes;

/// `NFT_MSG_GETCHAIN`, `NFT_MSG_NEWCHAIN` (linux/netfilter/nf_tables.h).
const GET: u16 = 4;
const NEW: u16 = 3;
const TABLE: u16 = 1;
const HOOK: u16 = 4;
const TYPE: u16 = 7;
/// Within `HOOK`.
const HOOK_NUMBER: u16 = 1;
/// `NF_INET_LOCAL_IN` and `NF_INET_FORWARD` (linux/netfilter.h).
const DECIDING: [u32; 2] = [1, 2];
/// `NFPROTO_INET`, `NFPROTO_IPV4` and `NFPROTO_IPV6`.
const INET: u8 = 1;
const FAMILIES: [u8; 3] = [INET, 2, 10];
/// As much as the kernel puts into one datagram of a dump.
const DATAGRAM: usize = 32 << 10;

/// What a message of a dump says.
#[derive(Debug, PartialEq, Eq)]
enum Says {
    /// A chain that is somebody else's and decides.
    Foreign,
    /// Something else.
    Nothing,
    /// There are no more.
    Done,
    /// The kernel's error, or a dump that the chains have changed under.
    Broken,
}

impl Nfnetlink {
    /// Whether a filter of somebody else is hooked in where packets reach or pass the host; `ours`
    /// is the name of our table in the family `inet`.
    ///
    /// # Errors
    /// The kernel does not answer, or with an error.
    pub(crate) fn has_foreign_filter(&self, ours: &str) -> io::Result<bool> {
        self.ask(GET, libc::NLM_F_DUMP, 0, &[])?;
        let mut buffer = vec![0; DATAGRAM];
        let mut found = false;
        loop {
            let mut rest = self.receive(&mut buffer)?;
            while let Some((message, after)) = split(rest) {
                rest = after;
                match says(message, ours) {
                    Says::Foreign => found = true,
                    Says::Nothing => {}
                    Says::Done => return Ok(found),
                    Says::Broken => {
                        return Err(io::Error::other("the dump of chains is broken off"));
                    }
                }
            }
        }
    }
}

/// The first message of a datagram, and the rest.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let message = bytes.get(..length).filter(|message| message.len() >= NETLINK_HEADER)?;
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn says(message: &[u8], ours: &str) -> Says {
    let half = |at: usize| Some(u16::from_ne_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let (Some(kind), Some(flags)) = (half(4), half(6)) else { return Says::Broken };
    if i32::from(flags) & libc::NLM_F_DUMP_INTR != 0 || i32::from(kind) == libc::NLMSG_ERROR {
        return Says::Broken;
    }
    if i32::from(kind) == libc::NLMSG_DONE {
        return Says::Done;
    }
    let family = message.get(NETLINK_HEADER).copied().unwrap_or_default();
    if kind != SUBSYSTEM | NEW || !FAMILIES.contains(&family) {
        return Says::Nothing;
    }
    let (mut is_ours, mut is_filter, mut decides) = (false, false, false);
    for (kind, value) in attributes(message.get(HEADERS..).unwrap_or_default()) {
        let text = value.strip_suffix(&[0]).unwrap_or(value);
        match kind {
            TABLE => is_ours = family == INET && text == ours.as_bytes(),
            TYPE => is_filter = text == b"filter",
            HOOK => {
                let number = attributes(value).find(|(kind, _)| *kind == HOOK_NUMBER);
                let number = number.and_then(|(_, value)| value.try_into().ok());
                decides = number.is_some_and(|n| DECIDING.contains(&u32::from_be_bytes(n)));
            }
            _ => {}
        }
    }
    if !is_ours && is_filter && decides { Says::Foreign } else { Says::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        crate::attributes::append(&mut bytes, kind, value);
        bytes
    }

    fn chain(family: u8, table: &[u8], kind: &[u8], hook: u32) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0];
        body.extend(attribute(TABLE, table));
        body.extend(attribute(HOOK | 0x8000, &attribute(HOOK_NUMBER, &hook.to_be_bytes())));
        body.extend(attribute(TYPE, kind));
        let mut message = ((NETLINK_HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend((SUBSYSTEM | NEW).to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    #[test]
    fn a_filter_of_others_that_decides_is_told_from_all_else() {
        for (family, table, kind, hook, expected) in [
            (2, &b"filter\0"[..], &b"filter\0"[..], 2, Says::Foreign),
            (10, b"filter\0", b"filter\0", 1, Says::Foreign),
            (INET, b"other\0", b"filter\0", 2, Says::Foreign),
            (INET, b"vnet\0", b"filter\0", 2, Says::Nothing),
            (2, b"vnet\0", b"filter\0", 2, Says::Foreign),
            (2, b"nat\0", b"nat\0", 1, Says::Nothing),
            (2, b"filter\0", b"filter\0", 0, Says::Nothing),
            (7, b"filter\0", b"filter\0", 2, Says::Nothing),
        ] {
            let message = chain(family, table, kind, hook);
            let text = String::from_utf8_lossy(table);
            assert_eq!(says(&message, "vnet"), expected, "{family} {text} {hook}");
        }
    }

    #[test]
    fn what_is_cut_short_ends_and_is_no_chain() {
        let message = chain(2, b"filter\0", b"filter\0", 2);
        for length in 0..message.len() {
            assert_ne!(says(&message[..length], "vnet"), Says::Done);
            assert_eq!(split(&message[..length]), None);
        }
        assert_eq!(split(&message), Some((&message[..], &[][..])));
    }
}
