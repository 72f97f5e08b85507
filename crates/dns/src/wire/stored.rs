//! An upstream's answer as it is kept and given on.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::query::{EDE_STALE, extended_error};
use super::{
    HEADER, OPT_LEN, Query, RecordHead, flag, put_u16, question, rcode, rtype, u16_at, u32_at,
};

/// How old an answer is when it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// Seconds since it came; its TTLs are as much smaller.
    Fresh(u32),
    /// It has expired: its TTLs are [`STALE_TTL`].
    Stale,
}

/// Seconds for which an answer that has expired may be kept by others (RFC 8767 §4).
const STALE_TTL: u32 = 30;

/// An upstream's answer, ready to be given to any client that asks the same: without its OPT
/// record, with its TTLs found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    message: Box<[u8]>,
    /// Bytes in the question.
    question: usize,
    /// Where the TTLs are.
    ttls: Box<[u16]>,
    /// The response code with its upper bits.
    rcode: u16,
    /// Seconds for which it may be kept; none where it says nothing about that.
    lifetime: Option<u32>,
    /// Whether an address in it is a private one.
    private: bool,
}

impl Stored {
    /// Reads an upstream's answer. `None` where it is malformed.
    pub(crate) fn parse(reply: &[u8]) -> Option<Self> {
        let flags = u16_at(reply, 2)?;
        let question = question(reply)?.len();
        let mut counts = [u16_at(reply, 6)?, u16_at(reply, 8)?, u16_at(reply, 10)?];
        let (mut at, mut ttls) = (HEADER + question, Vec::new());
        let mut code = flags & flag::RCODE;
        let (mut positive, mut negative) = (None::<u32>, None::<u32>);
        let mut private = false;
        'sections: for (section, count) in counts.into_iter().enumerate() {
            for index in 0..count {
                let record = RecordHead::read(reply, at)?;
                if section == 2 && matches!(record.rtype, rtype::OPT | rtype::TSIG) {
                    // RFC 6891 §6.1.1: OPT is neither cached nor forwarded. What may follow it is
                    // dispensable, and cannot stay, because names may point behind the gap.
                    if record.rtype == rtype::OPT {
                        code |= ((record.ttl >> 24) as u16) << 4;
                    }
                    counts[2] = index;
                    break 'sections;
                }
                // RFC 2181 §8: a TTL with its top bit set is zero.
                let ttl = if record.ttl >> 31 == 1 { 0 } else { record.ttl };
                ttls.push(u16::try_from(record.fixed + 4).ok()?);
                if section == 1 && record.rtype == rtype::SOA {
                    // RFC 2308 §5
                    let minimum =
                        record.data.end.checked_sub(4).filter(|&at| at >= record.data.start);
                    negative = Some(ttl.min(u32_at(reply, minimum?)?));
                }
                private |= is_private(record.rtype, reply.get(record.data.clone())?);
                positive = Some(positive.map_or(ttl, |least| least.min(ttl)));
                at = record.data.end;
            }
        }
        let mut message: Box<[u8]> = reply.get(..at)?.into();
        put_u16(&mut message, 10, counts[2]);
        let lifetime = match code {
            rcode::NOERROR if counts[0] > 0 => positive,
            rcode::NOERROR | rcode::NXDOMAIN => {
                negative.map(|negative| positive.map_or(negative, |least| least.min(negative)))
            }
            _ => None,
        };
        Some(Self { message, question, ttls: ttls.into(), rcode: code, lifetime, private })
    }

    /// The response code with its upper bits.
    pub(crate) fn rcode(&self) -> u16 {
        self.rcode
    }

    /// Whether names were found to exist: a cap on lifetimes depends on it.
    pub(crate) fn is_positive(&self) -> bool {
        self.rcode == rcode::NOERROR && u16_at(&self.message, 6) != Some(0)
    }

    /// Whether it has an address of a private network, which a public name has no business with.
    pub(crate) fn has_private_address(&self) -> bool {
        self.private
    }

    /// Seconds for which it may be kept, as its records say; `None` where they say nothing.
    pub(crate) fn lifetime(&self) -> Option<u32> {
        self.lifetime
    }

    /// Bytes of memory that it takes, about.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.message.len() + 2 * self.ttls.len()
    }

    /// Writes the answer for `query`, whose question is the same.
    pub(crate) fn answer(&self, query: &Query, age: Age, out: &mut Vec<u8>) {
        let flags = u16_at(&self.message, 2).unwrap_or(0);
        // AD goes to those who understand it only (RFC 6840 §5.8).
        let wants_ad = query.flags & flag::AD != 0 || query.edns.is_some_and(|edns| edns.dnssec);
        let ad = if wants_ad { flags & flag::AD } else { 0 };
        let opt = if query.edns.is_some() { OPT_LEN } else { 0 };
        if self.message.len() + opt > query.limit || query.question().len() != self.question {
            query.truncated(flag::RA, self.rcode, out);
            return;
        }
        out.clear();
        out.extend_from_slice(&self.message);
        put_u16(out, 0, query.id);
        put_u16(out, 2, query.reply_flags(flag::RA | ad) | self.rcode & flag::RCODE);
        if let Some(room) = out.get_mut(HEADER..HEADER + self.question) {
            room.copy_from_slice(query.question());
        }
        for &at in &self.ttls {
            let at = usize::from(at);
            let Some(ttl) = u32_at(out, at) else { continue };
            let ttl = match age {
                _ if ttl >> 31 == 1 => 0,
                Age::Fresh(age) => ttl.saturating_sub(age),
                Age::Stale => STALE_TTL,
            };
            if let Some(room) = out.get_mut(at..at + 4) {
                room.copy_from_slice(&ttl.to_be_bytes());
            }
        }
        // There is room for the reason, too, where the answer is short.
        let reason = extended_error(EDE_STALE);
        let options = match age {
            Age::Stale if out.len() + opt + reason.len() <= query.limit => reason.as_slice(),
            _ => &[],
        };
        query.end(self.rcode, u16_at(out, 10).unwrap_or(0), options, out);
    }
}

/// Whether a record's data is the address of a private network or of this host (RFC 1918,
/// RFC 6598, RFC 3927, RFC 4193, RFC 4291), which DNS rebinding is about.
fn is_private(kind: u16, data: &[u8]) -> bool {
    let v4 = |addr: Ipv4Addr| {
        let [a, b, ..] = addr.octets();
        addr.is_private()
            || addr.is_loopback()
            || addr.is_link_local()
            || a == 0
            || (a == 100 && b >> 6 == 1)
    };
    match kind {
        rtype::A => <[u8; 4]>::try_from(data).is_ok_and(|octets| v4(octets.into())),
        rtype::AAAA => <[u8; 16]>::try_from(data).is_ok_and(|octets| {
            let addr = Ipv6Addr::from(octets);
            addr.is_unique_local()
                || addr.is_unicast_link_local()
                || addr.is_loopback()
                || addr.is_unspecified()
                || addr.to_ipv4_mapped().is_some_and(v4)
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::put_opt;
    use super::super::query::tests::query;
    use super::*;

    /// An answer with one address, an OPT record with the code BADVERS' upper bits, and a record
    /// behind that.
    fn reply() -> Vec<u8> {
        let mut reply = Vec::new();
        query(false, 0).upstream(99, false, &mut reply);
        reply[2] |= 0x80;
        reply[7] = 1;
        reply[11] = 2;
        reply
            .extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x0a\x00\x04\xc0\x00\x02\x01");
        put_opt(&mut reply, 0, true, &[]);
        reply
            .extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\xc0\x00\x02\x02");
        reply
    }

    #[test]
    fn an_answer_is_given_on_without_the_upstreams_opt_and_what_follows_it() {
        let stored = Stored::parse(&reply()).unwrap();
        assert_eq!(stored.lifetime(), Some(10));
        let mut out = Vec::new();
        stored.answer(&query(false, 512), Age::Fresh(4), &mut out);
        assert_eq!(out[..12], [0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(out[12..16], *b"\x03WwW", "the client's case");
        assert_eq!(out[out.len() - 10..], *b"\x00\x00\x00\x06\x00\x04\xc0\x00\x02\x01");
        stored.answer(&query(true, 512), Age::Fresh(99), &mut out);
        assert_eq!(out[11], 1);
        assert_eq!(out[out.len() - 11..], *b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00");
        assert_eq!(out[out.len() - 21..out.len() - 17], [0; 4], "no TTL below zero");
    }

    #[test]
    fn a_stale_answer_has_a_short_ttl_and_says_why() {
        let mut out = Vec::new();
        Stored::parse(&reply()).unwrap().answer(&query(true, 512), Age::Stale, &mut out);
        assert_eq!(out[out.len() - 6..], [0, 15, 0, 2, 0, 3], "RFC 8914 §4.4");
        assert_eq!(out[out.len() - 27..out.len() - 23], [0, 0, 0, 30], "RFC 8767 §4");
    }

    #[test]
    fn an_answer_that_is_too_long_is_cut_to_the_question() {
        let mut out = Vec::new();
        Stored::parse(&reply()).unwrap().answer(&query(true, 30), Age::Fresh(0), &mut out);
        assert_eq!(out[..12], [0, 7, 0x83, 0x80, 0, 1, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn private_addresses_are_seen() {
        let with = |kind: u8, data: &[u8]| {
            let mut reply = Vec::new();
            query(false, 0).upstream(99, false, &mut reply);
            (reply[2], reply[7]) = (0x80, 1);
            reply.extend_from_slice(&[0xc0, 0x0c, 0, kind, 0, 1, 0, 0, 0, 9, 0, data.len() as u8]);
            reply.extend_from_slice(data);
            Stored::parse(&reply).unwrap().has_private_address()
        };
        for private in [
            "10.0.0.1",
            "172.31.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.1.1",
            "0.0.0.0",
            "100.64.0.1",
        ] {
            assert!(with(1, &private.parse::<Ipv4Addr>().unwrap().octets()), "{private}");
        }
        for private in ["fd00::1", "fe80::1", "::1", "::", "::ffff:10.0.0.1"] {
            assert!(with(28, &private.parse::<Ipv6Addr>().unwrap().octets()), "{private}");
        }
        assert!(
            !with(1, &[192, 0, 2, 1]) && !with(1, &[172, 32, 0, 1]) && !with(1, &[100, 128, 0, 1])
        );
        assert!(!with(28, &"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets()));
        assert!(!with(16, &[10, 0, 0, 1]));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read_as_an_upstreams_answer(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            edns in any::<bool>(),
            age in any::<u32>(),
        ) {
            if let Some(stored) = Stored::parse(&bytes) {
                stored.answer(&query(edns, 512), Age::Fresh(age), &mut Vec::new());
            }
        }

        #[test]
        fn any_change_of_an_answer_can_be_read(
            changes in prop::collection::vec((0..60_usize, any::<u8>()), 1..8),
            cut in 0..70_usize,
            stale in any::<bool>(),
        ) {
            let mut bytes = reply();
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(cut);
            if let Some(stored) = Stored::parse(&bytes) {
                let mut out = Vec::new();
                let age = if stale { Age::Stale } else { Age::Fresh(1) };
                stored.answer(&query(true, 512), age, &mut out);
                prop_assert!(out.len() <= 512);
            }
        }
    }
}
