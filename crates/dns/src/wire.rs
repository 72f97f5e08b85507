//! Messages as bytes: just enough of RFC 1035 §4 to pass another server's answer on untouched, so
//! that types this server has never heard of, and DNSSEC's signatures, survive.
//!
//! Every function takes whatever the network brought; nothing here panics, and each walk moves
//! forward through the message, so it ends.

/// Bytes in the header (RFC 1035 §4.1.1).
pub(crate) const HEADER: usize = 12;

/// The largest UDP answer that is sent or asked for, in bytes: one that is not fragmented on any
/// common path (DNS Flag Day 2020, within RFC 6891 §6.2.5).
pub(crate) const UDP_PAYLOAD: u16 = 1232;

/// Bytes in an OPT record without options (RFC 6891 §6.1.2).
const OPT_LEN: usize = 11;

const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;
const TYPE_TSIG: u16 = 250;

/// Bits in the second word of the header (RFC 1035 §4.1.1, RFC 4035 §3.2).
pub(crate) mod flag {
    pub(crate) const QR: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
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

fn put_u16(message: &mut [u8], at: usize, value: u16) {
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
    // RFC 1035 §2.3.4
    (at + 1 - HEADER <= 255).then_some(())?;
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

/// What a client asked, as far as an answer depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    /// The client's id.
    pub(crate) id: u16,
    /// The client's header flags.
    pub(crate) flags: u16,
    /// Name, type and class as the client wrote them.
    pub(crate) question: Vec<u8>,
    /// The client's EDNS, if it has any.
    pub(crate) edns: Option<ClientEdns>,
    /// The largest answer that reaches the client, in bytes.
    pub(crate) limit: usize,
}

/// What counts of a client's OPT record (RFC 6891 §6.1.3, RFC 3225 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientEdns {
    /// The DO bit.
    pub(crate) dnssec: bool,
}

impl Query {
    /// What makes two queries have the same answer: name in lower case, type, DO and CD.
    pub(crate) fn cache_key(&self) -> Box<[u8]> {
        let mut key = self.question.to_ascii_lowercase();
        // The class is IN always: its room holds the flags. The type's bytes must stay as they are.
        let at = key.len().saturating_sub(4);
        let (_, tail) = key.split_at_mut(at);
        tail.copy_from_slice(&self.question[at..]);
        let dnssec = self.edns.is_some_and(|edns| edns.dnssec);
        let flags = u8::from(dnssec) | u8::from(self.flags & flag::CD != 0) << 1;
        if let Some(last) = tail.last_mut() {
            *last = flags;
        }
        key.into()
    }

    /// The query for an upstream: the question as it is, our own id, our own EDNS (RFC 6891 §6:
    /// OPT is hop by hop), the client's DO and CD.
    pub(crate) fn upstream(&self, id: u16, edns: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.question.len() + OPT_LEN);
        // AD in a query asks for AD in the answer (RFC 6840 §5.7).
        let flags = flag::RD | self.flags & (flag::CD | flag::AD);
        for word in [id, flags, 1, 0, 0, u16::from(edns)] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&self.question);
        if edns {
            put_opt(&mut out, 0, self.edns.is_some_and(|edns| edns.dnssec));
        }
        out
    }

    /// An answer without records.
    pub(crate) fn error(&self, rcode: u16, out: &mut Vec<u8>) {
        self.empty(flag::RA, rcode, out);
    }

    fn empty(&self, flags: u16, rcode: u16, out: &mut Vec<u8>) {
        out.clear();
        let flags = self.reply_flags(flags) | rcode & flag::RCODE;
        for word in [self.id, flags, 1, 0, 0, u16::from(self.edns.is_some())] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&self.question);
        if let Some(edns) = self.edns {
            put_opt(out, rcode >> 4, edns.dnssec);
        }
    }

    fn reply_flags(&self, flags: u16) -> u16 {
        flag::QR | flags | self.flags & (flag::RD | flag::CD)
    }
}

/// An answer with nothing but a header, for what could not be read as a query.
pub(crate) fn bare_error(request: &[u8], rcode: u16, out: &mut Vec<u8>) {
    let word = |at| u16_at(request, at).unwrap_or(0);
    out.clear();
    let flags = flag::QR | word(2) & (flag::OPCODE | flag::RD) | rcode;
    for word in [word(0), flags, 0, 0, 0, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// OPT with the upper bits of the response code and the DO bit, which a response copies from its
/// query (RFC 3225 §3).
fn put_opt(out: &mut Vec<u8>, rcode_high: u16, dnssec: bool) {
    out.push(0);
    out.extend_from_slice(&TYPE_OPT.to_be_bytes());
    out.extend_from_slice(&UDP_PAYLOAD.to_be_bytes());
    out.extend_from_slice(&[rcode_high as u8, 0, u8::from(dnssec) << 7, 0, 0, 0]);
}

/// An upstream's answer, ready to be given to any client that asks the same: without its OPT
/// record, with its TTLs found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    message: Vec<u8>,
    /// Bytes in the question.
    question: usize,
    /// Where the TTLs are.
    ttls: Vec<u16>,
    /// The response code with its upper bits.
    rcode: u16,
    /// Seconds for which it may be kept; none where it says nothing about that.
    lifetime: Option<u32>,
}

impl Stored {
    /// Reads an upstream's answer. `None` where it is malformed.
    pub(crate) fn parse(reply: &[u8]) -> Option<Self> {
        let flags = u16_at(reply, 2)?;
        let question = question(reply)?.len();
        let mut counts = [u16_at(reply, 6)?, u16_at(reply, 8)?, u16_at(reply, 10)?];
        let mut at = HEADER + question;
        let mut stored = Self {
            message: Vec::new(),
            question,
            ttls: Vec::new(),
            rcode: flags & flag::RCODE,
            lifetime: None,
        };
        let mut positive: Option<u32> = None;
        let mut negative: Option<u32> = None;
        'sections: for section in 0..3 {
            for index in 0..counts[section] {
                let start = at;
                let fixed = skip_name(reply, at)?;
                let rtype = u16_at(reply, fixed)?;
                let ttl = u32_at(reply, fixed + 4)?;
                let data = fixed + 10;
                at = data + usize::from(u16_at(reply, fixed + 8)?);
                (at <= reply.len()).then_some(())?;
                if section == 2 && matches!(rtype, TYPE_OPT | TYPE_TSIG) {
                    // RFC 6891 §6.1.1: OPT is neither cached nor forwarded. What may follow it is
                    // dispensable, and cannot stay, because names may point behind the gap.
                    if rtype == TYPE_OPT {
                        stored.rcode |= ((ttl >> 24) as u16) << 4;
                    }
                    counts[2] = index;
                    at = start;
                    break 'sections;
                }
                // RFC 2181 §8: a TTL with its top bit set is zero.
                let ttl = if ttl >> 31 == 1 { 0 } else { ttl };
                stored.ttls.push(u16::try_from(fixed + 4).ok()?);
                if section == 1 && rtype == TYPE_SOA {
                    // RFC 2308 §5
                    let minimum = u32_at(reply, at.checked_sub(4).filter(|&at| at >= data)?)?;
                    negative = Some(ttl.min(minimum));
                }
                positive = Some(positive.map_or(ttl, |least| least.min(ttl)));
            }
        }
        stored.message = reply[..at].to_vec();
        put_u16(&mut stored.message, 10, counts[2]);
        stored.lifetime = match stored.rcode {
            rcode::NOERROR if counts[0] > 0 => positive,
            rcode::NOERROR | rcode::NXDOMAIN => {
                negative.map(|negative| positive.map_or(negative, |least| least.min(negative)))
            }
            _ => None,
        };
        Some(stored)
    }

    /// The response code with its upper bits.
    pub(crate) fn rcode(&self) -> u16 {
        self.rcode
    }

    /// Whether names were found to exist: a cap on lifetimes depends on it.
    pub(crate) fn is_positive(&self) -> bool {
        self.rcode == rcode::NOERROR && u16_at(&self.message, 6) != Some(0)
    }

    /// Seconds for which it may be kept, as its records say; `None` where they say nothing.
    pub(crate) fn lifetime(&self) -> Option<u32> {
        self.lifetime
    }

    /// Bytes of memory that it takes, about.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.message.len() + 2 * self.ttls.len()
    }

    /// Writes the answer for `query`, whose question is the same, `age` seconds after it came.
    pub(crate) fn answer(&self, query: &Query, age: u32, out: &mut Vec<u8>) {
        let flags = u16_at(&self.message, 2).unwrap_or(0);
        // AD goes to those who understand it only (RFC 6840 §5.8).
        let wants_ad = query.flags & flag::AD != 0 || query.edns.is_some_and(|edns| edns.dnssec);
        let ad = if wants_ad { flags & flag::AD } else { 0 };
        let opt = if query.edns.is_some() { OPT_LEN } else { 0 };
        if self.message.len() + opt > query.limit || query.question.len() != self.question {
            // RFC 2181 §9: the client ignores what a truncated answer holds, so it holds nothing.
            query.empty(flag::RA | flag::TC, self.rcode, out);
            return;
        }
        out.clear();
        out.extend_from_slice(&self.message);
        put_u16(out, 0, query.id);
        let rcode = self.rcode & flag::RCODE;
        put_u16(out, 2, query.reply_flags(flag::RA | ad) | rcode);
        if let Some(room) = out.get_mut(HEADER..HEADER + self.question) {
            room.copy_from_slice(&query.question);
        }
        for &at in &self.ttls {
            let at = usize::from(at);
            let Some(ttl) = u32_at(out, at) else { continue };
            let ttl = if ttl >> 31 == 1 { 0 } else { ttl.saturating_sub(age) };
            if let Some(room) = out.get_mut(at..at + 4) {
                room.copy_from_slice(&ttl.to_be_bytes());
            }
        }
        if let Some(edns) = query.edns {
            let additional = u16_at(out, 10).unwrap_or(0);
            put_u16(out, 10, additional.saturating_add(1));
            put_opt(out, self.rcode >> 4, edns.dnssec);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(edns: bool, limit: usize) -> Query {
        Query {
            id: 7,
            flags: flag::RD,
            question: b"\x03WwW\x02ex\x00\x00\x01\x00\x01".to_vec(),
            edns: edns.then_some(ClientEdns { dnssec: true }),
            limit,
        }
    }

    /// An answer with one address, an OPT record with the code BADVERS' upper bits, and a record
    /// behind that.
    fn reply() -> Vec<u8> {
        let mut reply = query(false, 0).upstream(99, false);
        reply[2] |= 0x80;
        reply[7] = 1;
        reply[11] = 2;
        reply
            .extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x0a\x00\x04\xc0\x00\x02\x01");
        put_opt(&mut reply, 0, true);
        reply
            .extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\xc0\x00\x02\x02");
        reply
    }

    #[test]
    fn an_answer_is_given_on_without_the_upstreams_opt_and_what_follows_it() {
        let stored = Stored::parse(&reply()).unwrap();
        assert_eq!(stored.lifetime(), Some(10));
        let mut out = Vec::new();
        stored.answer(&query(false, 512), 4, &mut out);
        assert_eq!(out[..12], [0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(out[12..16], *b"\x03WwW", "the client's case");
        assert_eq!(out[out.len() - 10..], *b"\x00\x00\x00\x06\x00\x04\xc0\x00\x02\x01");
        stored.answer(&query(true, 512), 99, &mut out);
        assert_eq!(out[11], 1);
        assert_eq!(out[out.len() - 11..], *b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00");
        assert_eq!(out[out.len() - 21..out.len() - 17], [0; 4], "no TTL below zero");
    }

    #[test]
    fn an_answer_that_is_too_long_is_cut_to_the_question() {
        let mut out = Vec::new();
        Stored::parse(&reply()).unwrap().answer(&query(true, 30), 0, &mut out);
        assert_eq!(out[..12], [0, 7, 0x83, 0x80, 0, 1, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn questions_are_compared_without_case_but_with_type() {
        let q = |text: &[u8]| text.to_vec();
        assert!(same_question(&q(b"\x01a\x00\x00\x01\x00\x01"), &q(b"\x01A\x00\x00\x01\x00\x01")));
        // Types 65 and 97 differ as the letters A and a do.
        assert!(!same_question(&q(b"\x01a\x00\x00\x41\x00\x01"), &q(b"\x01a\x00\x00\x61\x00\x01")));
    }

    #[test]
    fn cache_keys_tell_types_and_dnssec_apart() {
        let key = |edns: bool, rtype: u8| {
            let mut query = query(edns, 512);
            let at = query.question.len() - 3;
            query.question[at] = rtype;
            query.cache_key()
        };
        assert_eq!(key(true, 1), key(true, 1));
        assert_ne!(key(true, 1), key(false, 1));
        assert_ne!(key(true, 65), key(true, 97));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read_as_an_upstreams_answer(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            edns in any::<bool>(),
            age in any::<u32>(),
        ) {
            if let Some(stored) = Stored::parse(&bytes) {
                stored.answer(&query(edns, 512), age, &mut Vec::new());
            }
        }

        #[test]
        fn any_change_of_an_answer_can_be_read(
            changes in prop::collection::vec((0..60_usize, any::<u8>()), 1..8),
            cut in 0..70_usize,
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
                stored.answer(&query(true, 512), 1, &mut out);
                prop_assert!(out.len() <= 512);
            }
        }
    }
}
