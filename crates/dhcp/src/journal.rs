//! The lease journal: records to bytes, and back after a crash.
//!
//! Text, one record a line: eight hexadecimal digits of CRC-32, a space, and the record as
//! JSON. A record is there if its line is whole and its sum right, so a write that was cut at
//! any byte leaves what was before it intact and adds nothing. Text rather than binary, because
//! a line end finds the next record after a damaged one without trusting a length, a person can
//! read what the server remembers, and a later version may add fields; the price is about a
//! microsecond a record, which the disk's flush hides many times over.
//!
//! The file is the caller's. It appends the bytes of [`encode`] and flushes them before the
//! replies leave; after [`replay`] it cuts the file to [`Replay::good`]; when
//! [`compaction_due`] says so, it writes a [`snapshot`] beside the file, flushes it, and renames
//! it over.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::lease::Lease;

/// Digits of the sum, and the space.
const PREFIX: usize = 9;
/// Below this many records, a journal is not worth rewriting.
const SMALL: usize = 4096;

/// What a journal keeps: a lease of an address of either kind.
pub trait Stored: Clone + Serialize + DeserializeOwned {
    /// What it is a lease of.
    type Address: Copy + Ord + Serialize + DeserializeOwned;

    /// The address.
    fn address(&self) -> Self::Address;
}

impl Stored for Lease {
    type Address = Ipv4Addr;

    fn address(&self) -> Ipv4Addr {
        self.ip
    }
}

/// One change to what is known of an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", bound = "")]
pub enum Record<L: Stored = Lease> {
    /// The address now has this lease, whatever it had before.
    Put(L),
    /// The address now has none.
    Forget(L::Address),
}

/// What a journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay<L: Stored = Lease> {
    /// The leases after its last record, by address.
    pub leases: BTreeMap<L::Address, L>,
    /// Records that were read.
    pub records: usize,
    /// Bytes up to the end of the last whole record: what follows is a write that was cut, to
    /// be cut off before anything is appended.
    pub good: usize,
    /// Damaged or unknown lines before that: the file has suffered something else than a crash.
    pub damaged: usize,
}

/// Appends `record` to `bytes`, as one line.
pub fn encode<L: Stored>(bytes: &mut Vec<u8>, record: &Record<L>) {
    let start = bytes.len();
    bytes.extend_from_slice(&[b' '; PREFIX]);
    // Writing plain data to memory has no way to fail.
    if serde_json::to_writer(&mut *bytes, record).is_err() {
        bytes.truncate(start);
        return;
    }
    let sum = crc32fast::hash(&bytes[start + PREFIX..]);
    for (digit, shift) in bytes[start..].iter_mut().take(8).zip((0..8).rev()) {
        *digit = b"0123456789abcdef"[(sum >> (4 * shift) & 0xf) as usize];
    }
    bytes.push(b'\n');
}

/// The bytes of a journal that says what `leases` are and nothing else.
pub fn snapshot<'a, L: Stored + 'a>(leases: impl IntoIterator<Item = &'a L>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for lease in leases {
        encode(&mut bytes, &Record::Put(lease.clone()));
    }
    bytes
}

/// Reads a journal. Whatever the bytes are, the records whose lines are whole are found, and
/// nothing else is.
#[must_use]
pub fn replay<L: Stored>(bytes: &[u8]) -> Replay<L> {
    let mut replay = Replay { leases: BTreeMap::new(), records: 0, good: 0, damaged: 0 };
    let (mut position, mut damaged) = (0, 0);
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        position += line.len();
        let Some(record) = decode::<L>(line) else {
            damaged += 1;
            continue;
        };
        match record {
            Record::Put(lease) => {
                replay.leases.insert(lease.address(), lease);
            }
            Record::Forget(ip) => {
                replay.leases.remove(&ip);
            }
        }
        replay.records += 1;
        replay.good = position;
        replay.damaged = damaged;
    }
    replay
}

fn decode<L: Stored>(line: &[u8]) -> Option<Record<L>> {
    let (prefix, json) = line.strip_suffix(b"\n")?.split_at_checked(PREFIX)?;
    let digits = std::str::from_utf8(prefix.strip_suffix(b" ")?).ok()?;
    if digits.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let sum = u32::from_str_radix(digits, 16).ok()?;
    if sum != crc32fast::hash(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// Whether a journal of `records` records that say what `leases` leases are is worth rewriting.
/// Rewriting then costs each record written a bounded share.
#[must_use]
pub fn compaction_due(records: usize, leases: usize) -> bool {
    records > SMALL && records / 4 > leases
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lease::LeaseState;

    fn lease(number: u8) -> Lease {
        Lease {
            ip: Ipv4Addr::new(10, 0, 0, number),
            client: format!("id:ff{number:02x}").parse().unwrap(),
            mac: format!("52:54:00:00:00:{number:02x}").parse().unwrap(),
            hostname: number.is_multiple_of(2).then(|| format!("guest-{number}").parse().unwrap()),
            state: LeaseState::Bound,
            expires: 1_800_000_000 + u64::from(number),
        }
    }

    /// Records, and where each one's line ends.
    fn journal() -> (Vec<u8>, Vec<(Record, usize)>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        let released = Lease { state: LeaseState::Released, ..lease(2) };
        for record in [
            Record::Put(lease(1)),
            Record::Put(lease(2)),
            Record::Forget(lease(1).ip),
            Record::Put(released),
            Record::Put(lease(3)),
        ] {
            encode(&mut bytes, &record);
            ends.push((record, bytes.len()));
        }
        (bytes, ends)
    }

    fn apply<'a>(records: impl Iterator<Item = &'a Record>) -> BTreeMap<Ipv4Addr, Lease> {
        let mut leases = BTreeMap::new();
        for record in records {
            match record {
                Record::Put(lease) => leases.insert(lease.ip, lease.clone()),
                Record::Forget(ip) => leases.remove(ip),
            };
        }
        leases
    }

    #[test]
    fn a_write_cut_at_any_byte_loses_only_what_it_cut() {
        let (bytes, records) = journal();
        for cut in 0..=bytes.len() {
            let replay = replay(&bytes[..cut]);
            let whole: Vec<_> = records.iter().filter(|(_, end)| *end <= cut).collect();
            assert_eq!(replay.leases, apply(whole.iter().map(|(record, _)| record)), "cut {cut}");
            assert_eq!(replay.good, whole.last().map_or(0, |(_, end)| *end), "cut {cut}");
            assert_eq!((replay.records, replay.damaged), (whole.len(), 0), "cut {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_loses_only_the_lines_that_it_is_in() {
        let (bytes, records) = journal();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                // A flipped line end takes the next line along.
                let lost = |index: usize| {
                    let start = index.checked_sub(1).map_or(0, |before| records[before].1);
                    let joined = start.checked_sub(1);
                    (start..records[index].1).contains(&at) || joined == Some(at)
                };
                let left = records.iter().enumerate().filter(|(index, _)| !lost(*index));
                let expected = apply(left.map(|(_, (record, _))| record));
                assert_eq!(replay(&bytes).leases, expected, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_snapshot_says_the_same_as_what_it_replaces() {
        let (bytes, _) = journal();
        let before = replay::<Lease>(&bytes);
        let after = replay::<Lease>(&snapshot(before.leases.values()));
        assert_eq!(after.leases, before.leases);
        assert_eq!(after.records, 2);
    }

    #[test]
    fn a_journal_is_rewritten_once_most_of_it_is_history() {
        assert!(!compaction_due(SMALL, 0));
        assert!(compaction_due(SMALL + 1, 100));
        assert!(!compaction_due(100_000, 30_000));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_say_nothing_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(replay::<Lease>(&bytes).records, 0);
        }
    }
}
