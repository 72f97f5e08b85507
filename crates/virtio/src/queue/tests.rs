//! What drivers can get wrong, and what they get back.

use proptest::prelude::*;

use super::*;
use crate::testing::{BUFFERS, Driver, INDIRECT, MEMORY, NEXT, QUEUE, SIZE, WRITE, config, memory};

fn pop(driver: &Driver<'_>, direction: Direction) -> Result<Option<Chain>, RingError> {
    let mut parts = Vec::new();
    let result = driver.ring().pop(direction, &mut parts);
    let expected = result.as_ref().ok().copied().flatten().map_or(0, |chain| chain.parts);
    assert_eq!(parts.len(), expected);
    result
}

#[test]
fn a_chain_comes_out_as_its_parts() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let head = driver.chain(&[(BUFFERS, 12), (BUFFERS + 0x1000, 100)], 0);
    assert_eq!(pop(&driver, Direction::Read), Ok(Some(Chain { head, bytes: 112, parts: 2 })));
}

#[test]
fn parts_without_bytes_are_left_out() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let head = driver.chain(&[(BUFFERS, 12), (BUFFERS, 0)], 0);
    assert_eq!(pop(&driver, Direction::Read), Ok(Some(Chain { head, bytes: 12, parts: 1 })));
}

#[test]
fn a_loop_of_descriptors_is_malformed() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    driver.descriptor(0, BUFFERS, 1, NEXT, 1);
    driver.descriptor(1, BUFFERS, 1, NEXT, 0);
    driver.offer(0);
    assert_eq!(pop(&driver, Direction::Read), Err(RingError::Chain));
}

#[test]
fn memory_that_is_not_there_is_malformed() {
    let memory = memory();
    for (address, length) in
        [(BUFFERS, u32::MAX), (MEMORY - 1, 2), (MEMORY, 1), (u64::MAX, 1), (u64::MAX - 1, u32::MAX)]
    {
        let mut driver = Driver::new(&memory);
        driver.chain(&[(address, length)], 0);
        assert_eq!(pop(&driver, Direction::Read), Err(RingError::Chain), "{address:#x}");
    }
}

#[test]
fn heads_and_links_beyond_the_table_are_malformed() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    driver.offer(SIZE);
    assert_eq!(pop(&driver, Direction::Read), Err(RingError::Chain));
    let mut driver = Driver::new(&memory);
    driver.descriptor(0, BUFFERS, 1, NEXT, SIZE);
    driver.offer(0);
    assert_eq!(pop(&driver, Direction::Read), Err(RingError::Chain));
}

#[test]
fn the_wrong_direction_is_an_error() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    driver.chain(&[(BUFFERS, 1)], WRITE);
    assert_eq!(pop(&driver, Direction::Read), Err(RingError::Direction));
    assert!(pop(&driver, Direction::Write).is_ok());
}

#[test]
fn an_index_that_jumps_is_an_error() {
    let memory = memory();
    let driver = Driver::new(&memory);
    driver.mock.avail().idx().store(SIZE + 1);
    assert_eq!(pop(&driver, Direction::Read), Err(RingError::Index));
    driver.mock.avail().idx().store(u16::MAX);
    assert_eq!(pop(&driver, Direction::Read), Err(RingError::Index));
}

/// Writes an indirect table of `count` descriptors, all alike, each naming the next.
fn indirect_table(driver: &Driver<'_>, count: u16, flags: u16) -> (u64, u32) {
    let table = BUFFERS + 0x8000;
    for index in 0..count {
        let more = if index + 1 < count { NEXT } else { 0 };
        let words = [BUFFERS, u64::from(index + 1) << 48 | u64::from(flags | more) << 32 | 1];
        let address = GuestAddress(table + u64::from(index) * 16);
        driver.memory.write_obj(words, address).unwrap();
    }
    (table, u32::from(count) * 16)
}

#[test]
fn an_indirect_chain_may_be_as_long_as_the_queue_and_no_longer() {
    let memory = memory();
    for (count, expected) in [
        (SIZE, Ok(Some(Chain { head: 0, bytes: 16, parts: 16 }))),
        (SIZE + 1, Err(RingError::Chain)),
    ] {
        let mut driver = Driver::new(&memory);
        let table = indirect_table(&driver, count, 0);
        driver.chain(&[table], INDIRECT);
        assert_eq!(pop(&driver, Direction::Read), expected);
    }
}

#[test]
fn an_indirect_table_within_one_or_of_odd_size_is_malformed() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let table = indirect_table(&driver, 2, INDIRECT);
    driver.chain(&[table], INDIRECT);
    assert_eq!(pop(&driver, Direction::Read), Err(RingError::Chain));
    let mut driver = Driver::new(&memory);
    driver.chain(&[(table.0, 17)], INDIRECT);
    assert_eq!(pop(&driver, Direction::Read), Err(RingError::Chain));
}

#[test]
fn impossible_sizes_and_addresses_are_refused() {
    let memory = memory();
    let driver = Driver::new(&memory);
    let good = config(&driver.mock);
    for bad in [
        QueueConfig { size: 0, ..good },
        QueueConfig { size: 3, ..good },
        QueueConfig { size: SIZE * 2, ..good },
        QueueConfig { descriptors: QUEUE + 1, ..good },
        QueueConfig { available: 0, ..good },
        QueueConfig { used: MEMORY, ..good },
        QueueConfig { used: !3, ..good },
        QueueConfig { enabled: false, ..good },
    ] {
        let ring = Ring::new(&bad, SIZE, true, memory.clone());
        assert_eq!(ring.err(), Some(RingError::Setup), "{bad:?}");
    }
}

#[test]
fn used_elements_show_only_once_published() {
    let memory = memory();
    let driver = Driver::new(&memory);
    let mut ring = driver.ring();
    ring.add_used(3, 7).unwrap();
    ring.add_used(4, 8).unwrap();
    assert!(driver.used().is_empty());
    ring.publish().unwrap();
    assert_eq!(driver.used(), [(3, 7), (4, 8)]);
}

#[test]
fn a_driver_can_suppress_interrupts_by_the_flag() {
    let memory = memory();
    let driver = Driver::new(&memory);
    let mut ring = driver.ring();
    for (flags, wanted) in [(0_u16, true), (1, false)] {
        memory.write_obj(flags, driver.mock.avail_addr()).unwrap();
        ring.add_used(0, 0).unwrap();
        ring.publish().unwrap();
        assert_eq!(ring.wants_interrupt(), Ok(wanted));
    }
    assert_eq!(ring.wants_interrupt(), Ok(false), "nothing was used");
}

#[test]
fn with_event_idx_an_interrupt_comes_when_the_index_passes_the_event() {
    let memory = memory();
    let driver = Driver::new(&memory);
    let mut ring = Ring::new(&config(&driver.mock), SIZE, true, memory.clone()).unwrap();
    let event = GuestAddress(driver.mock.avail_addr().0 + 4 + 2 * u64::from(SIZE));
    let mut use_two = |event_at: u16| {
        memory.write_obj(event_at, event).unwrap();
        ring.add_used(0, 0).unwrap();
        ring.add_used(1, 0).unwrap();
        ring.publish().unwrap();
        ring.wants_interrupt().unwrap()
    };
    assert!(use_two(0));
    assert!(use_two(3), "2 to 4 passes 3");
    assert!(!use_two(9), "4 to 6 is short of 9");
    assert!(!use_two(5), "6 to 8 is beyond 5");
}

proptest! {
    #[test]
    fn rubbish_never_panics_and_never_leads_outside_of_memory(
        bytes in proptest::collection::vec(any::<u8>(), 0x400),
        index in any::<u16>(),
    ) {
        let memory = memory();
        let driver = Driver::new(&memory);
        memory.write_slice(&bytes, GuestAddress(QUEUE)).unwrap();
        driver.mock.avail().idx().store(index);
        let mut ring = driver.ring();
        let start = memory.get_host_address(GuestAddress(0)).unwrap() as usize;
        for direction in [Direction::Read, Direction::Write] {
            let mut parts = Vec::new();
            for _ in 0..SIZE * 2 {
                match ring.pop(direction, &mut parts) {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(RingError::Index) => break,
                    Err(_) => {}
                }
            }
            for part in &parts {
                let offset = (part.iov_base as usize).wrapping_sub(start);
                prop_assert!(offset + part.iov_len <= MEMORY as usize);
            }
            prop_assert!(parts.len() <= usize::from(SIZE) * usize::from(SIZE) * 2);
        }
    }
}
