//! Messages as bytes (RFC 1035 §4): just enough to read queries, to write what is known here, and
//! to pass another server's answer on untouched, so that types this server has never heard of, and
//! DNSSEC's signatures, survive.
//!
//! Every function takes whatever the network brought; nothing here panics, and each walk moves
//! forward through the message, so it ends.

mod query;
mod stored;

pub(crate) use query::{EDE_BLOCKED, Query, bare_error};
pub(crate) use stored::{Age, Stored};

/// Bytes in the header (RFC 1035 §4.1.1).
pub(crate) const HEADER: usize = 12;

/// The largest UDP answer that is sent or asked for, in bytes: one that is not fragmented on any
/// common path (DNS Flag Day 2020, within RFC 6891 §6.2.5).
pub(crate) const UDP_PAYLOAD: u16 = 1232;

/// The largest UDP answer for a client without EDNS (RFC 1035 §2.3.4).
pub(crate) const PLAIN_PAYLOAD: u16 = 512;

/// Bytes in an OPT record without options (RFC 6891 §6.1.2).
pub(crate) const OPT_LEN: usize = 11;

/// The class of the Internet (RFC 1035 §3.2.4).
pub(crate) const CLASS_IN: u16 = 1;

/// Types of records that this server looks at.
pub(crate) mod rtype {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const MX: u16 = 15;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const DS: u16 = 43;
    pub(crate) const HTTPS: u16 = 65;
    pub(crate) const TKEY: u16 = 249;
    pub(crate) const TSIG: u16 = 250;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const MAILB: u16 = 253;
    pub(crate) const MAILA: u16 = 254;
    pub(crate) const ANY: u16 = 255;
}

/// Bits in the second word of the header (RFC 1035 §4.1.1, RFC 4035 §3.2).
pub(crate) mod flag {
    pub(crate) const QR: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const AA: u16 = 0x0400;
    pub(crate) const TC: u16 = 0x0200;
    pub(crate) const RD: u16 = 0x0100;
    pub(crate) const RA: u16 = 0x0080;
    pub(crate) const AD: u16 = 0x0020;
    pub(crate) const CD: u16 = 0x0010;
    pub(crate) const RCODE: u16 = 0x000f;
}

/// Response codes (RFC 1035 §4.1.1, RFC 6891 §9).
pub(crate) mod rcode {
    pub(crate) const NOERROR: u16 = 0;
    pub(crate) const FORMERR: u16 = 1;
    pub(crate) const SERVFAIL: u16 = 2;
    pub(crate) const NXDOMAIN: u16 = 3;
    pub(crate) const NOTIMP: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    pub(crate) const BADVERS: u16 = 16;
}

/// The 16-bit number at `at`.
pub(crate) fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

pub(crate) fn put_u16(message: &mut [u8], at: usize, value: u16) {
    if let Some(to) = message.get_mut(at..at + 2) {
        to.copy_from_slice(&value.to_be_bytes());
    }
}

/// Where the name at `at` ends in place: behind its root label, or behind its first pointer.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            // RFC 1035 §4.1.4
            192.. => return (at + 2 <= message.len()).then_some(at + 2),
            _ => return None,
        }
    }
}

/// A record's fixed part, and where it stands.
struct RecordHead {
    /// Behind the owner's name: type, class, TTL, length.
    fixed: usize,
    rtype: u16,
    ttl: u32,
    /// Where the data is.
    data: std::ops::Range<usize>,
}

impl RecordHead {
    /// The record at `at`, which is all there.
    fn read(message: &[u8], at: usize) -> Option<Self> {
        let fixed = skip_name(message, at)?;
        let data = fixed + 10;
        let end = data + usize::from(u16_at(message, fixed + 8)?);
        (end <= message.len()).then_some(Self {
            fixed,
            rtype: u16_at(message, fixed)?,
            ttl: u32_at(message, fixed + 4)?,
            data: data..end,
        })
    }
}

/// The first question: its bytes from the name to the class. A compressed name is refused, as it
/// has nothing to point to.
pub(crate) fn question(message: &[u8]) -> Option<&[u8]> {
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => break,
            len @ 1..=63 => at += 1 + usize::from(len),
            _ => return None,
        }
    }
    (at + 1 - HEADER <= crate::name::MAX_NAME).then_some(())?;
    message.get(HEADER..at + 5)
}

/// Whether two questions are the same but for the case of letters (RFC 4343 §3). Length bytes are
/// below the letters, so the whole may be compared as text; type and class are compared exactly.
pub(crate) fn same_question(a: &[u8], b: &[u8]) -> bool {
    let split = |q: &[u8]| q.len().checked_sub(4);
    match (split(a), split(b)) {
        (Some(x), Some(y)) => x == y && a[x..] == b[y..] && a[..x].eq_ignore_ascii_case(&b[..y]),
        _ => false,
    }
}

/// OPT with the upper bits of the response code and the DO bit, which a response copies from its
/// query (RFC 3225 §3), and options.
pub(crate) fn put_opt(out: &mut Vec<u8>, rcode_high: u16, dnssec: bool, options: &[u8]) {
    out.push(0);
    out.extend_from_slice(&rtype::OPT.to_be_bytes());
    out.extend_from_slice(&UDP_PAYLOAD.to_be_bytes());
    out.extend_from_slice(&[rcode_high as u8, 0, u8::from(dnssec) << 7, 0]);
    out.extend_from_slice(&(options.len() as u16).to_be_bytes());
    out.extend_from_slice(options);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_compared_without_case_but_with_type() {
        let q = |text: &[u8]| text.to_vec();
        assert!(same_question(&q(b"\x01a\x00\x00\x01\x00\x01"), &q(b"\x01A\x00\x00\x01\x00\x01")));
        // Types 65 and 97 differ as the letters A and a do.
        assert!(!same_question(&q(b"\x01a\x00\x00\x41\x00\x01"), &q(b"\x01a\x00\x00\x61\x00\x01")));
    }
}
