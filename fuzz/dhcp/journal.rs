//! The journal of leases, as a crash or a disk may leave it: what is whole is found, and what is
//! found can be written and is found again.
#![no_main]

use std::collections::BTreeMap;
use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use vnet_dhcp::journal::{self, Stored};
use vnet_dhcp::{Lease, Record, v6};
use vnet_fuzz::Input;

fn check<L>(bytes: &[u8])
where
    L: Stored<Address: Debug> + PartialEq + Debug,
{
    let all = journal::replay::<L>(bytes);
    assert!(all.good <= bytes.len() && all.leases.len() <= all.records);
    let good = journal::replay::<L>(&bytes[..all.good]);
    assert_eq!((&good.leases, good.records), (&all.leases, all.records));
    // A start after the crash: cut, and appended to.
    let snapshot = journal::snapshot(all.leases.values());
    let appended = [&bytes[..all.good], &snapshot].concat();
    let again = journal::replay::<L>(&appended);
    assert_eq!((&again.leases, again.good), (&all.leases, appended.len()));
    assert_eq!(journal::replay::<L>(&snapshot).leases, all.leases);
}

/// Lines with their sums put right, so that what is behind the sum is reached.
fn summed(mut input: Input<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in std::mem::take(&mut input.0).split(|byte| *byte == b'\n') {
        match serde_json::from_slice::<Record<Lease>>(line) {
            Ok(record) => journal::encode(&mut bytes, &record),
            Err(_) => bytes.extend([line, b"\n"].concat()),
        }
    }
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    if input.byte() & 1 == 0 {
        check::<Lease>(input.0);
        check::<v6::Lease>(input.0);
        return;
    }
    let bytes = summed(input);
    check::<Lease>(&bytes);
    // Cut at any byte, it says what it said before a record.
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let mut states = BTreeMap::from([(0, BTreeMap::new())]);
    states.extend(ends.map(|(at, _)| (at + 1, journal::replay::<Lease>(&bytes[..=at]).leases)));
    for cut in (0..bytes.len()).step_by(7) {
        let before = states.range(..=cut).next_back().map(|(_, leases)| leases);
        assert_eq!(Some(&journal::replay::<Lease>(&bytes[..cut]).leases), before);
    }
});
