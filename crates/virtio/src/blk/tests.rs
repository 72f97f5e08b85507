//! Requests as a driver makes them, on a raw image.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::EventFd;

use super::device::{BlkConfig, BlkDevice};
use super::raw::RawDisk;
use super::*;
use crate::GuestMemory;
use crate::device::{Activation, ActiveQueue, VirtioDevice};
use crate::interrupt::Interrupt;
use crate::limit::Limits;
use crate::queue::Ring;
use crate::testing::{BUFFERS, Driver, MEMORY, NEXT, QUEUE, SIZE, WRITE, memory};
use crate::worker::Threads;

const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of the image.
const IMAGE: u64 = 1 << 20;
const HEADER: u64 = BUFFERS;
const DATA: u64 = BUFFERS + 0x1000;
const STATUS: u64 = BUFFERS + 0x8000;

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Used,
    Reset,
}

struct Teller(Mutex<Sender<Said>>);

impl Interrupt for Teller {
    fn used(&self, _: u16, _: bool) {
        let _ = self.0.lock().unwrap().send(Said::Used);
    }

    fn config_changed(&self) {}

    fn needs_reset(&self) {
        let _ = self.0.lock().unwrap().send(Said::Reset);
    }
}

struct Bench {
    device: BlkDevice,
    file: File,
    kick: EventFd,
    said: Receiver<Said>,
}

/// A disk that works on `ring`.
fn bench(memory: &GuestMemory, ring: Ring, is_read_only: bool, limits: Limits) -> Bench {
    let file = tempfile::tempfile().unwrap();
    file.set_len(IMAGE).unwrap();
    let disk = RawDisk::new(file.try_clone().unwrap(), is_read_only).unwrap();
    let mut device = BlkDevice::new(BlkConfig {
        disk: Arc::new(disk),
        name: "test".to_owned(),
        serial: "a serial number of more than 20 bytes".to_owned(),
        queues: 1,
        limits,
        threads: Threads::default(),
    })
    .unwrap();
    let (sender, said) = channel();
    let kick = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let queue = ActiveQueue { index: 0, ring, kick: kick.try_clone().unwrap() };
    let interrupt = Arc::new(Teller(Mutex::new(sender)));
    let features = device.features();
    let activation =
        Activation { memory: memory.clone(), queues: vec![queue], features, interrupt };
    device.activate(activation).unwrap();
    Bench { device, file, kick, said }
}

/// Offers a request: type, sector, and data that the device reads or writes.
fn offer(driver: &mut Driver<'_>, kind: u32, sector: u64, bytes: u32, is_written: bool) {
    let memory = driver.memory;
    memory.write_obj(kind, GuestAddress(HEADER)).unwrap();
    memory.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
    memory.write_obj(0xaa_u8, GuestAddress(STATUS)).unwrap();
    driver.descriptor(0, HEADER, 16, NEXT, 1);
    let flag = if is_written { WRITE } else { 0 };
    if bytes > 0 {
        driver.descriptor(1, DATA, bytes, NEXT | flag, 2);
    } else {
        driver.descriptor(0, HEADER, 16, NEXT, 2);
    }
    driver.descriptor(2, STATUS, 1, WRITE, 0);
    driver.offer(0);
}

impl Bench {
    fn ask(&self, driver: &mut Driver<'_>, kind: u32, sector: u64, bytes: u32, out: bool) -> u8 {
        offer(driver, kind, sector, bytes, !out);
        self.kick.write(1).unwrap();
        assert_eq!(self.said.recv_timeout(PATIENCE), Ok(Said::Used));
        driver.memory.read_obj(GuestAddress(STATUS)).unwrap()
    }
}

#[test]
fn what_is_written_is_read_again_and_is_in_the_file() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let bench = bench(&memory, driver.ring(), false, Limits::default());
    memory.write_slice(&[0x5a; 1024], GuestAddress(DATA)).unwrap();
    assert_eq!(bench.ask(&mut driver, 1, 7, 1024, true), 0);
    let mut bytes = [0; 1024];
    bench.file.read_exact_at(&mut bytes, 7 * SECTOR).unwrap();
    assert_eq!(bytes, [0x5a; 1024]);
    memory.write_slice(&[0; 1024], GuestAddress(DATA)).unwrap();
    assert_eq!(bench.ask(&mut driver, 0, 7, 1024, false), 0);
    assert_eq!(driver.read(DATA, 1024), bytes);
    assert_eq!(bench.ask(&mut driver, 4, 0, 0, true), 0);
    // The bytes of the data, and the status.
    assert_eq!(driver.used(), [(0, 1), (0, 1025), (0, 1)]);
    let figures = bench.device.counters().figures();
    assert_eq!((figures.reads, figures.writes, figures.flushes), (1, 1, 1));
    assert_eq!((figures.read_bytes, figures.written_bytes), (1024, 1024));
}

#[test]
fn the_serial_id_has_20_bytes() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let bench = bench(&memory, driver.ring(), false, Limits::default());
    assert_eq!(bench.ask(&mut driver, 8, 0, 20, false), 0);
    assert_eq!(driver.read(DATA, 20), b"a serial number of m");
}

#[test]
fn beyond_the_end_and_unknown_requests_are_errors_and_the_disk_goes_on() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let bench = bench(&memory, driver.ring(), false, Limits::default());
    let last = IMAGE / SECTOR - 1;
    for (kind, sector, bytes, out, status) in [
        (0, last + 1, 512, false, 1),
        (0, last, 1024, false, 1),
        (1, u64::MAX, 512, true, 1),
        (1, u64::MAX / SECTOR, 512, true, 1),
        (0, 0, 100, false, 1),
        (99, 0, 512, true, 2),
        (0, last, 512, false, 0),
        // A read of nothing is no error.
        (0, last, 0, false, 0),
    ] {
        let answer = bench.ask(&mut driver, kind, sector, bytes, out);
        assert_eq!(answer, status, "{kind} {sector} {bytes}");
    }
}

#[test]
fn a_read_only_disk_is_not_written() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let bench = bench(&memory, driver.ring(), true, Limits::default());
    memory.write_slice(&[1; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(bench.ask(&mut driver, 1, 0, 512, true), 1);
    assert_eq!(bench.ask(&mut driver, 11, 0, 16, true), 1);
    assert_eq!(bench.ask(&mut driver, 0, 0, 512, false), 0);
    assert_eq!(driver.read(DATA, 512), [0; 512]);
}

/// A range to discard or to zero.
fn range(memory: &GuestMemory, sector: u64, sectors: u32, flags: u32) {
    memory.write_obj(sector, GuestAddress(DATA)).unwrap();
    memory.write_obj(sectors, GuestAddress(DATA + 8)).unwrap();
    memory.write_obj(flags, GuestAddress(DATA + 12)).unwrap();
}

#[test]
fn a_discard_shrinks_the_file_and_zeroes_are_zeroes() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let bench = bench(&memory, driver.ring(), false, Limits::default());
    bench.file.write_all_at(&[7; IMAGE as usize], 0).unwrap();
    (&bench.file).flush().unwrap();
    let full = bench.file.metadata().unwrap().blocks();
    range(&memory, 0, 1024, 0);
    assert_eq!(bench.ask(&mut driver, 11, 0, 16, true), 0);
    assert!(bench.file.metadata().unwrap().blocks() <= full - 1024);
    for (sector, unmap) in [(1024, 0), (1032, 1)] {
        range(&memory, sector, 8, unmap);
        assert_eq!(bench.ask(&mut driver, 13, 0, 16, true), 0);
        let mut bytes = [1; 4096];
        bench.file.read_exact_at(&mut bytes, sector * SECTOR).unwrap();
        assert_eq!(bytes, [0; 4096]);
    }
    // An unknown flag, a flag where none is allowed, a range beyond the end, half a range.
    for (kind, sectors, flags, bytes, status) in
        [(13, 8, 2, 16, 2), (11, 8, 1, 16, 2), (11, 9000, 0, 16, 1), (11, 8, 0, 24, 1)]
    {
        range(&memory, 0, sectors, flags);
        assert_eq!(bench.ask(&mut driver, kind, 0, bytes, true), status);
    }
}

#[test]
fn a_request_without_room_for_its_status_stops_the_queue() {
    let memory = memory();
    for parts in [&[(HEADER, 16)][..], &[(HEADER, 8)], &[(MEMORY, 16)]] {
        memory.write_slice(&[0; 0x1000], GuestAddress(QUEUE)).unwrap();
        let mut driver = Driver::new(&memory);
        driver.chain(parts, 0);
        let bench = bench(&memory, driver.ring(), false, Limits::default());
        assert_eq!(bench.said.recv_timeout(PATIENCE), Ok(Said::Reset));
        assert_eq!(bench.device.counters().figures().malformed, 1);
    }
}

#[test]
fn more_requests_than_can_be_under_way_are_all_served_after_one_kick() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let bench = bench(&memory, driver.ring(), false, Limits::default());
    memory.write_slice(&[0; 16], GuestAddress(HEADER)).unwrap();
    for number in 0..5_u16 {
        let at = number * 3;
        driver.descriptor(at, HEADER, 16, NEXT, at + 1);
        driver.descriptor(at + 1, DATA + u64::from(number) * 512, 512, NEXT | WRITE, at + 2);
        driver.descriptor(at + 2, STATUS + u64::from(number), 1, WRITE, 0);
        driver.offer(at);
    }
    bench.kick.write(1).unwrap();
    while driver.used().len() < 5 {
        assert_eq!(bench.said.recv_timeout(PATIENCE), Ok(Said::Used));
    }
    assert_eq!(driver.read(STATUS, 5), [0; 5]);
}

#[test]
fn a_limited_disk_serves_all_requests_only_later() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let limits = Limits { operations: 100, bytes: 0, burst_ms: 10 };
    let bench = bench(&memory, driver.ring(), false, limits);
    for sector in 0..8 {
        assert_eq!(bench.ask(&mut driver, 0, sector, 512, false), 0);
    }
}

#[test]
fn a_reset_waits_for_what_is_under_way_and_the_disk_can_be_used_again() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut bench = bench(&memory, driver.ring(), false, Limits::default());
    offer(&mut driver, 0, 0, 0x4000, true);
    bench.kick.write(1).unwrap();
    bench.device.reset();
    // Only the worker held the other end of the channel.
    while bench.said.recv_timeout(PATIENCE).is_ok() {}
}

#[test]
fn the_engine_without_io_uring_does_the_same() {
    use super::disk::Parts;
    use super::engine::{Engine, Transfer};
    let file = tempfile::tempfile().unwrap();
    file.set_len(IMAGE).unwrap();
    let disk = Arc::new(RawDisk::new(file.try_clone().unwrap(), false).unwrap());
    let memory = memory();
    memory.write_slice(&[3; 512], GuestAddress(DATA)).unwrap();
    let address = memory.get_host_address(GuestAddress(DATA)).unwrap();
    let parts = [libc::iovec { iov_base: address.cast(), iov_len: 512 }];
    for mut engine in [Engine::direct(disk.clone()), Engine::new(disk)] {
        for durable in [false, true] {
            engine.start(5, Transfer::Write(Parts::new(&parts), 512, durable));
            engine.wait();
            let (number, result) = engine.finished().unwrap();
            assert_eq!((number, result.unwrap()), (5, 512));
        }
        engine.start(6, Transfer::Flush);
        engine.wait();
        assert!(engine.finished().unwrap().1.is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn rubbish_in_the_ring_harms_nothing_but_the_queue(
        bytes in proptest::collection::vec(any::<u8>(), 0x400),
        header in proptest::collection::vec(any::<u8>(), 64),
        index in 0..=SIZE,
    ) {
        let memory = memory();
        let ring = Driver::new(&memory).ring();
        memory.write_slice(&header, GuestAddress(HEADER)).unwrap();
        memory.write_slice(&bytes, GuestAddress(QUEUE)).unwrap();
        Driver::new(&memory).mock.avail().idx().store(index);
        let mut bench = bench(&memory, ring, false, Limits::default());
        bench.kick.write(1).unwrap();
        bench.device.reset();
    }
}
