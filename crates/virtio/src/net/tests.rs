//! Both directions, with a socket in place of the tap.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::rx::{RxMode, RxQueue};
use super::tx::TxQueue;
use super::{Counters, Progress};
use crate::GuestMemory;
use crate::queue::RingError;
use crate::testing::{BUFFERS, Driver, QUEUE, Recorder, SIZE, WRITE, memory, receive, send, tap};

const MERGEABLE: RxMode = RxMode { is_mergeable: true, usual: 1530 };
const SINGLE: RxMode = RxMode { is_mergeable: false, usual: 1530 };

/// A header of zeroes and `bytes` of frame.
fn frame(bytes: usize) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend((0..bytes).map(|n| n as u8));
    frame
}

struct Bench {
    near: OwnedFd,
    far: OwnedFd,
    recorder: Recorder,
    counters: Counters,
}

impl Bench {
    fn new() -> Self {
        let (near, far) = tap();
        Self { near, far, recorder: Recorder::default(), counters: Counters::default() }
    }

    fn rx(&self, queue: &mut RxQueue) -> Result<Progress, RingError> {
        queue.process(self.near.as_fd(), true, &self.recorder, &self.counters)
    }

    fn tx(&self, queue: &mut TxQueue) -> Result<Progress, RingError> {
        queue.process(self.near.as_fd(), true, &self.recorder, &self.counters)
    }
}

fn num_buffers(driver: &Driver<'_>, address: u64) -> u16 {
    driver.memory.read_obj(GuestAddress(address + 10)).unwrap()
}

#[test]
fn a_frame_in_several_parts_is_sent_as_one() {
    let (memory, bench) = (memory(), Bench::new());
    let mut driver = Driver::new(&memory);
    let sent = frame(100);
    memory.write_slice(&sent[..12], GuestAddress(BUFFERS)).unwrap();
    memory.write_slice(&sent[12..], GuestAddress(BUFFERS + 0x1000)).unwrap();
    let head = driver.chain(&[(BUFFERS, 12), (BUFFERS + 0x1000, 100)], 0);
    let mut queue = TxQueue::new(driver.ring(), 1);
    assert_eq!(bench.tx(&mut queue), Ok(Progress::WaitDriver));
    assert_eq!(receive(&bench.far), Some(sent));
    assert_eq!(driver.used(), [(head.into(), 0)]);
    assert_eq!(bench.recorder.used.load(Ordering::SeqCst), 1);
    assert_eq!(bench.counters.figures().tx_bytes, 100);
}

#[test]
fn what_the_tap_cannot_take_yet_is_sent_later_and_in_order() {
    let (memory, bench) = (memory(), Bench::new());
    let mut driver = Driver::new(&memory);
    // Fill the socket, as a tap's queue fills.
    while write_byte(&bench.near) {}
    driver.chain(&[(BUFFERS, 60)], 0);
    let mut queue = TxQueue::new(driver.ring(), 1);
    assert_eq!(bench.tx(&mut queue), Ok(Progress::WaitTap));
    assert!(driver.used().is_empty());
    while receive(&bench.far).is_some() {}
    assert_eq!(bench.tx(&mut queue), Ok(Progress::WaitDriver));
    assert_eq!(receive(&bench.far).map(|frame| frame.len()), Some(60));
    assert_eq!(driver.used().len(), 1);
}

fn write_byte(socket: &OwnedFd) -> bool {
    use std::os::fd::AsRawFd;
    // SAFETY: one byte of a live array is read.
    unsafe { libc::write(socket.as_raw_fd(), [0_u8].as_ptr().cast(), 1) == 1 }
}

#[test]
fn a_frame_that_the_tap_refuses_is_dropped_and_given_back() {
    let (memory, mut bench) = (memory(), Bench::new());
    let mut driver = Driver::new(&memory);
    driver.chain(&[(BUFFERS, 60)], 0);
    bench.far = tap().0;
    let mut queue = TxQueue::new(driver.ring(), 1);
    assert_eq!(bench.tx(&mut queue), Ok(Progress::WaitDriver));
    assert_eq!(driver.used().len(), 1);
    assert_eq!(bench.counters.figures().tx_dropped, 1);
}

#[test]
fn a_frame_lands_in_one_buffer_and_says_so() {
    let (memory, bench) = (memory(), Bench::new());
    for mode in [MERGEABLE, SINGLE] {
        let mut driver = Driver::new(&memory);
        let head = driver.chain(&[(BUFFERS, 2048)], WRITE);
        let mut queue = RxQueue::new(driver.ring(), 0, mode);
        send(&bench.far, &frame(60));
        assert_eq!(bench.rx(&mut queue), Ok(Progress::WaitDriver));
        assert_eq!(driver.used(), [(head.into(), 72)]);
        assert_eq!(driver.read(BUFFERS + 12, 60), &frame(60)[12..]);
        assert_eq!(num_buffers(&driver, BUFFERS), 1);
        driver.mock.used().idx().store(0);
    }
}

#[test]
fn a_large_frame_is_merged_over_buffers_that_show_together() {
    let (memory, bench) = (memory(), Bench::new());
    let mut driver = Driver::new(&memory);
    for n in 0..4 {
        driver.chain(&[(BUFFERS + n * 0x1000, 512)], WRITE);
    }
    let mut queue = RxQueue::new(driver.ring(), 0, MERGEABLE);
    let sent = frame(1200);
    send(&bench.far, &sent);
    assert_eq!(bench.rx(&mut queue), Ok(Progress::WaitTap));
    assert_eq!(driver.used(), [(0, 512), (1, 512), (2, 188)]);
    assert_eq!(num_buffers(&driver, BUFFERS), 3);
    assert_eq!(driver.read(BUFFERS + 0x2000, 188), &sent[1024..]);
}

#[test]
fn a_frame_larger_than_the_buffers_waits_for_more_of_them() {
    let (memory, bench) = (memory(), Bench::new());
    let mut driver = Driver::new(&memory);
    driver.chain(&[(BUFFERS, 512)], WRITE);
    let mut queue = RxQueue::new(driver.ring(), 0, MERGEABLE);
    let sent = frame(5000);
    send(&bench.far, &sent);
    assert_eq!(bench.rx(&mut queue), Ok(Progress::WaitDriver));
    assert!(driver.used().is_empty());
    driver.chain(&[(BUFFERS + 0x1000, 8192)], WRITE);
    assert_eq!(bench.rx(&mut queue), Ok(Progress::WaitDriver));
    assert_eq!(driver.used(), [(0, 512), (1, 4500)]);
    assert_eq!(num_buffers(&driver, BUFFERS), 2);
    assert_eq!(driver.read(BUFFERS + 12, 500), &sent[12..512]);
    assert_eq!(driver.read(BUFFERS + 0x1000, 4500), &sent[512..]);
}

#[test]
fn a_frame_that_can_never_fit_is_dropped_and_the_next_one_goes_through() {
    let (memory, bench) = (memory(), Bench::new());
    let mut driver = Driver::new(&memory);
    driver.chain(&[(BUFFERS, 100)], WRITE);
    let mut queue = RxQueue::new(driver.ring(), 0, SINGLE);
    send(&bench.far, &frame(200));
    send(&bench.far, &frame(60));
    assert_eq!(bench.rx(&mut queue), Ok(Progress::WaitDriver));
    assert_eq!(driver.used(), [(0, 72)]);
    assert_eq!(bench.counters.figures().rx_dropped, 1);
}

#[test]
fn without_buffers_frames_stay_in_the_tap() {
    let (memory, bench) = (memory(), Bench::new());
    let driver = Driver::new(&memory);
    let mut queue = RxQueue::new(driver.ring(), 0, MERGEABLE);
    send(&bench.far, &frame(60));
    assert_eq!(bench.rx(&mut queue), Ok(Progress::WaitDriver));
    assert_eq!(receive(&bench.near), Some(frame(60)));
}

#[test]
fn while_the_link_is_down_nothing_goes_through_either_way() {
    let (memory, bench) = (memory(), Bench::new());
    let mut driver = Driver::new(&memory);
    driver.chain(&[(BUFFERS, 2048)], WRITE);
    let mut queue = RxQueue::new(driver.ring(), 0, MERGEABLE);
    send(&bench.far, &frame(60));
    let down = queue.process(bench.near.as_fd(), false, &bench.recorder, &bench.counters);
    assert_eq!(down, Ok(Progress::WaitTap));
    assert!(driver.used().is_empty());
    let mut driver = Driver::new(&memory);
    driver.chain(&[(BUFFERS, 60)], 0);
    let mut queue = TxQueue::new(driver.ring(), 1);
    queue.process(bench.near.as_fd(), false, &bench.recorder, &bench.counters).unwrap();
    assert_eq!(receive(&bench.far), None);
    let figures = bench.counters.figures();
    assert_eq!((figures.rx_dropped, figures.tx_dropped), (1, 1));
}

#[test]
fn a_receive_buffer_without_room_for_the_header_is_malformed() {
    let (memory, bench) = (memory(), Bench::new());
    for length in [0, 11] {
        let mut driver = Driver::new(&memory);
        driver.chain(&[(BUFFERS, length)], WRITE);
        let mut queue = RxQueue::new(driver.ring(), 0, MERGEABLE);
        assert_eq!(bench.rx(&mut queue), Err(RingError::Chain));
    }
}

fn rubbish(memory: &GuestMemory, bytes: &[u8], index: u16) {
    memory.write_slice(bytes, GuestAddress(QUEUE)).unwrap();
    Driver::new(memory).mock.avail().idx().store(index);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn rubbish_in_the_rings_ends_in_an_error_or_in_waiting(
        bytes in proptest::collection::vec(any::<u8>(), 0x400),
        index in 0..=SIZE,
    ) {
        let bench = Bench::new();
        let memory = memory();
        let ring = || Driver::new(&memory).ring();
        let (mut rx, mut tx) = (RxQueue::new(ring(), 0, MERGEABLE), TxQueue::new(ring(), 1));
        rubbish(&memory, &bytes, index);
        send(&bench.far, &frame(3000));
        for _ in 0..4 {
            if bench.rx(&mut rx).is_err() {
                break;
            }
        }
        rubbish(&memory, &bytes, index);
        for _ in 0..4 {
            if bench.tx(&mut tx).is_err() {
                break;
            }
        }
    }
}
