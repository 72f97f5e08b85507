//! Records in the form in which they stand in an answer, so that to answer is to copy.

use crate::name;
use crate::wire::{CLASS_IN, HEADER, rtype};

/// A pointer to the question's name, which is always at the same place (RFC 1035 §4.1.4).
const QUESTION_NAME: u16 = 0xc000 | HEADER as u16;

/// Bytes before a record's data: a pointer, type, class, TTL, length.
pub(crate) const RECORD_HEAD: usize = 12;

/// The records of one name and type: one at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RrSet {
    pub(crate) rtype: u16,
    pub(crate) count: u16,
    /// The records, each with a pointer to the question's name as its owner.
    bytes: Vec<u8>,
}

impl RrSet {
    pub(super) fn new(rtype: u16, ttl: u32, data: &[u8]) -> Self {
        let mut set = Self { rtype, count: 0, bytes: Vec::new() };
        set.add(ttl, data);
        set
    }

    /// Adds a record, unless there is one with the same data.
    pub(super) fn add(&mut self, ttl: u32, data: &[u8]) {
        let Ok(len) = u16::try_from(data.len()) else { return };
        if self.count == u16::MAX || self.data().any(|had| had == data) {
            return;
        }
        self.bytes.extend_from_slice(&QUESTION_NAME.to_be_bytes());
        put_fixed(&mut self.bytes, self.rtype, ttl, len);
        self.bytes.extend_from_slice(data);
        self.count += 1;
    }

    /// The data of each record.
    pub(crate) fn data(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let len = usize::from(crate::wire::u16_at(rest, RECORD_HEAD - 2)?);
            let data = rest.get(RECORD_HEAD..RECORD_HEAD + len)?;
            rest = rest.get(RECORD_HEAD + len..)?;
            Some(data)
        })
    }

    /// Appends the records to an answer, in which their owner's name stands at `owner`; at the
    /// question where that is `None`.
    pub(crate) fn write(&self, owner: Option<usize>, out: &mut Vec<u8>) {
        let mut at = out.len();
        out.extend_from_slice(&self.bytes);
        // A pointer has 14 bits.
        let Some(owner) = owner.and_then(|at| u16::try_from(at).ok()).filter(|at| *at < 0x4000)
        else {
            return;
        };
        for data in self.data() {
            crate::wire::put_u16(out, at, 0xc000 | owner);
            at += RECORD_HEAD + data.len();
        }
    }
}

/// The record that goes with the absence of a name or type (RFC 2308 §3), whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Soa(Box<[u8]>);

impl Soa {
    /// The SOA record of the zone `apex`, whose TTL and minimum are both `negative`, the smaller
    /// of which counts (RFC 2308 §5).
    pub(super) fn new(apex: &str, data: &[u8], negative: u32) -> Self {
        let mut bytes = name::wire(apex);
        put_fixed(&mut bytes, rtype::SOA, negative, data.len() as u16);
        bytes.extend_from_slice(data);
        Self(bytes.into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn put_fixed(out: &mut Vec<u8>, rtype: u16, ttl: u32, len: u16) {
    out.extend_from_slice(&rtype.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
}
