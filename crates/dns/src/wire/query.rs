//! What a client asks, and the parts of an answer that follow from it.

use super::{
    CLASS_IN, HEADER, PLAIN_PAYLOAD, RecordHead, UDP_PAYLOAD, flag, put_opt, question, rcode,
    rtype, skip_name, u16_at,
};
use crate::name::{Key, MAX_NAME};

/// Records that a query may carry beside its question: OPT, TSIG, and an IXFR's SOA.
const MAX_RECORDS: u32 = 4;

/// Bytes of the longest question: name, type and class.
const MAX_QUESTION: usize = MAX_NAME + 4;

/// The extended error "Blocked" (RFC 8914 §4.16).
pub(crate) const EDE_BLOCKED: u16 = 15;
/// The extended error "Stale Answer" (RFC 8914 §4.4).
pub(crate) const EDE_STALE: u16 = 3;

/// What a client asked, as far as an answer depends on it. Lives on the stack.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    /// The client's id.
    pub(crate) id: u16,
    /// The client's header flags.
    pub(crate) flags: u16,
    /// The name as it is compared.
    pub(crate) key: Key,
    /// The type.
    pub(crate) rtype: u16,
    /// The class.
    pub(crate) class: u16,
    /// The client's EDNS, if it has any.
    pub(crate) edns: Option<ClientEdns>,
    /// The largest answer that reaches the client, in bytes.
    pub(crate) limit: usize,
    question: [u8; MAX_QUESTION],
    question_len: usize,
}

/// What counts of a client's OPT record (RFC 6891 §6.1.3, RFC 3225 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientEdns {
    /// The version that it speaks.
    pub(crate) version: u8,
    /// The DO bit.
    pub(crate) dnssec: bool,
    /// Bytes of UDP that it takes.
    payload: u16,
}

/// What makes two queries have the same answer: name in lower case, type, DO and CD.
pub(crate) struct CacheKey {
    bytes: [u8; MAX_NAME + 3],
    len: usize,
}

impl CacheKey {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Query {
    /// Reads a request with the opcode QUERY. `udp` says how it came.
    ///
    /// # Errors
    /// The response code for what is no such thing.
    pub(crate) fn parse(request: &[u8], udp: bool) -> Result<Self, u16> {
        let read = || {
            let word = |at| u16_at(request, at);
            let records = u32::from(word(6)?) + u32::from(word(8)?) + u32::from(word(10)?);
            // RFC 9619 §4: a query has one question.
            (word(4)? == 1 && records <= MAX_RECORDS).then_some(())?;
            let asked = question(request)?;
            let edns = read_edns(request, HEADER + asked.len(), records)?;
            let limit = match edns {
                _ if !udp => u16::MAX,
                // RFC 6891 §6.2.3: less than 512 counts as 512.
                Some(edns) => edns.payload.clamp(PLAIN_PAYLOAD, UDP_PAYLOAD),
                None => PLAIN_PAYLOAD,
            };
            let mut query = Self {
                id: word(0)?,
                flags: word(2)?,
                key: Key::read(asked)?,
                rtype: u16_at(asked, asked.len().checked_sub(4)?)?,
                class: u16_at(asked, asked.len().checked_sub(2)?)?,
                edns,
                limit: limit.into(),
                question: [0; MAX_QUESTION],
                question_len: asked.len(),
            };
            query.question.get_mut(..asked.len())?.copy_from_slice(asked);
            Some(query)
        };
        read().ok_or(rcode::FORMERR)
    }

    /// Name, type and class as the client wrote them.
    pub(crate) fn question(&self) -> &[u8] {
        self.question.get(..self.question_len).unwrap_or_default()
    }

    /// Whether it is about what this server can have, and does not ask for a transfer of a zone
    /// or for what is no type of records (RFC 8906 §3.1: understood, and not served).
    pub(crate) fn is_served(&self) -> bool {
        use rtype::{AXFR, IXFR, MAILA, MAILB, OPT, TKEY, TSIG};
        self.class == CLASS_IN
            && !matches!(self.rtype, OPT | TKEY | TSIG | IXFR | AXFR | MAILB | MAILA)
    }

    pub(crate) fn cache_key(&self) -> CacheKey {
        let mut key = CacheKey { bytes: [0; MAX_NAME + 3], len: 0 };
        let name = self.key.as_bytes();
        let dnssec = self.edns.is_some_and(|edns| edns.dnssec);
        let flags = u8::from(dnssec) | u8::from(self.flags & flag::CD != 0) << 1;
        let [high, low] = self.rtype.to_be_bytes();
        let (head, tail) = key.bytes.split_at_mut(name.len());
        head.copy_from_slice(name);
        for (to, from) in tail.iter_mut().zip([high, low, flags]) {
            *to = from;
        }
        key.len = name.len() + 3;
        key
    }

    /// The query for an upstream: the question as it is, our own id, our own EDNS (RFC 6891 §6:
    /// OPT is hop by hop), the client's DO and CD.
    pub(crate) fn upstream(&self, id: u16, edns: bool, out: &mut Vec<u8>) {
        out.clear();
        // AD in a query asks for AD in the answer (RFC 6840 §5.7).
        let flags = flag::RD | self.flags & (flag::CD | flag::AD);
        for word in [id, flags, 1, 0, 0, u16::from(edns)] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(self.question());
        if edns {
            put_opt(out, 0, self.edns.is_some_and(|edns| edns.dnssec), &[]);
        }
    }

    /// Begins an answer: its header, with no records yet, and the question.
    pub(crate) fn begin(&self, flags: u16, out: &mut Vec<u8>) {
        out.clear();
        for word in [self.id, self.reply_flags(flags), 1, 0, 0, 0] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(self.question());
    }

    /// Ends an answer, which has `additional` records in its last section so far: with EDNS where
    /// the query has it.
    pub(crate) fn end(&self, rcode: u16, additional: u16, options: &[u8], out: &mut Vec<u8>) {
        if let Some(edns) = self.edns {
            super::put_u16(out, 10, additional.saturating_add(1));
            put_opt(out, rcode >> 4, edns.dnssec, options);
        }
    }

    /// An answer without records.
    pub(crate) fn error(&self, rcode: u16, out: &mut Vec<u8>) {
        self.empty(flag::RA, rcode, &[], out);
    }

    /// An answer without records, with the reason for those who understand it (RFC 8914).
    pub(crate) fn error_because(&self, rcode: u16, reason: u16, out: &mut Vec<u8>) {
        self.empty(flag::RA, rcode, &extended_error(reason), out);
    }

    /// An answer that says no more than that TCP has it: what a truncated answer holds is ignored
    /// (RFC 2181 §9).
    pub(crate) fn truncated(&self, flags: u16, rcode: u16, out: &mut Vec<u8>) {
        self.empty(flags | flag::TC, rcode, &[], out);
    }

    fn empty(&self, flags: u16, rcode: u16, options: &[u8], out: &mut Vec<u8>) {
        self.begin(flags | rcode & flag::RCODE, out);
        self.end(rcode, 0, options, out);
    }

    /// What a reply's flags take over from its query's. The rest, bits without a meaning among it,
    /// is clear (RFC 8906 §3.1.2).
    pub(crate) fn reply_flags(&self, flags: u16) -> u16 {
        flag::QR | flags | self.flags & (flag::RD | flag::CD)
    }
}

/// The option with an extended error and no text (RFC 8914 §2).
pub(crate) fn extended_error(reason: u16) -> [u8; 6] {
    let [high, low] = reason.to_be_bytes();
    [0, 15, 0, 2, high, low]
}

/// The client's EDNS among the `records` at `at`. The outer `None` is for what is malformed.
fn read_edns(request: &[u8], mut at: usize, records: u32) -> Option<Option<ClientEdns>> {
    let mut edns = None;
    for _ in 0..records {
        let record = RecordHead::read(request, at)?;
        if record.rtype == rtype::OPT {
            // RFC 6891 §6.1.1: one at most, at the root.
            (edns.is_none() && skip_name(request, at)? == at + 1).then_some(())?;
            let [_, version, high, _] = record.ttl.to_be_bytes();
            // Options are all ignored, but they must be some (RFC 6891 §6.1.2, RFC 8906 §3.2.2).
            let mut option = record.data.start;
            while option < record.data.end {
                option += 4 + usize::from(u16_at(request, option + 2)?);
            }
            (option == record.data.end).then_some(())?;
            let payload = u16_at(request, record.fixed + 2)?;
            edns = Some(ClientEdns { version, dnssec: high & 0x80 != 0, payload });
        }
        at = record.data.end;
    }
    Some(edns)
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A query for the addresses of `WwW.ex.`.
    pub(crate) fn query(edns: bool, limit: usize) -> Query {
        let mut request = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
        request.extend_from_slice(b"\x03WwW\x02ex\x00\x00\x01\x00\x01");
        if edns {
            put_opt(&mut request, 0, true, &[]);
        }
        let mut query = Query::parse(&request, true).unwrap();
        query.limit = limit;
        query
    }

    #[test]
    fn cache_keys_tell_types_and_dnssec_apart() {
        let key = |edns: bool, rtype: u16| {
            let mut query = query(edns, 512);
            query.rtype = rtype;
            query.cache_key().as_bytes().to_vec()
        };
        assert_eq!(key(true, 1), key(true, 1));
        assert_ne!(key(true, 1), key(false, 1));
        assert_ne!(key(true, 65), key(true, 97));
    }

    #[test]
    fn two_opts_an_opt_with_a_name_and_options_that_overrun_are_malformed() {
        let request = |records: u8, tail: &[u8]| {
            let mut request = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, records];
            request.extend_from_slice(b"\x01a\x00\x00\x01\x00\x01");
            request.extend_from_slice(tail);
            Query::parse(&request, true).map(|query| query.edns.map(|edns| edns.payload))
        };
        let opt = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
        assert_eq!(request(1, opt), Ok(Some(1232)));
        assert_eq!(request(0, b""), Ok(None));
        assert_eq!(request(2, &[opt.as_slice(), opt].concat()), Err(rcode::FORMERR));
        let named = [b"\x01b".as_slice(), opt].concat();
        assert_eq!(request(1, &named), Err(rcode::FORMERR));
        let cookie = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x05\x00\x0a\x00\x01x";
        assert_eq!(request(1, cookie), Ok(Some(1232)));
        let overrun = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x05\x00\x0a\x00\x02x";
        assert_eq!(request(1, overrun), Err(rcode::FORMERR));
    }
}
