//! The transport as a driver meets it, with a device that only remembers.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::device::{ActivateError, Activation, Kind, VERSION_1, VirtioDevice};
use crate::interrupt::Interrupt;
use crate::testing::{MEMORY, memory};
use crate::wake::Wake;

const BAR: u32 = 0xc000_0000;

#[derive(Default)]
struct Host {
    doorbells: Mutex<Vec<u64>>,
    sent: Arc<Mutex<Vec<MsiMessage>>>,
}

struct Source {
    message: Mutex<Option<MsiMessage>>,
    sent: Arc<Mutex<Vec<MsiMessage>>>,
}

impl MsiVector for Source {
    fn route(&self, message: Option<MsiMessage>) -> io::Result<()> {
        *self.message.lock().unwrap() = message;
        Ok(())
    }

    fn trigger(&self) {
        self.sent.lock().unwrap().push(self.message.lock().unwrap().unwrap());
    }
}

impl Platform for Host {
    fn new_vector(&self) -> io::Result<Box<dyn MsiVector>> {
        Ok(Box::new(Source { message: Mutex::default(), sent: Arc::clone(&self.sent) }))
    }

    fn add_doorbell(&self, address: u64, _: &EventFd) -> io::Result<()> {
        self.doorbells.lock().unwrap().push(address);
        Ok(())
    }

    fn remove_doorbell(&self, address: u64, _: &EventFd) -> io::Result<()> {
        self.doorbells.lock().unwrap().retain(|other| *other != address);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Memo {
    activations: Arc<AtomicUsize>,
    interrupt: Arc<Mutex<Option<Arc<dyn Interrupt>>>>,
}

impl VirtioDevice for Memo {
    fn kind(&self) -> Kind {
        Kind::Net
    }

    fn queue_sizes(&self) -> &[u16] {
        &[16, 16]
    }

    fn features(&self) -> u64 {
        1 << 5
    }

    fn read_config(&self, _: usize, data: &mut [u8]) {
        data.fill(0x5a);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.activations.fetch_add(1, Ordering::SeqCst);
        *self.interrupt.lock().unwrap() = Some(activation.interrupt);
        Ok(())
    }

    fn reset(&mut self) {
        *self.interrupt.lock().unwrap() = None;
    }
}

struct Bench {
    function: VirtioPci,
    host: Arc<Host>,
    memo: Memo,
    wake: Arc<Wake>,
}

impl Bench {
    fn new() -> Self {
        let (host, memo, wake) = (Arc::new(Host::default()), Memo::default(), Arc::default());
        let platform: Arc<dyn Platform> = Arc::clone(&host) as Arc<dyn Platform>;
        let parts = Parts {
            device: Box::new(memo.clone()),
            memory: memory(),
            platform,
            wake: Arc::clone(&wake),
            bar: BAR,
        };
        Self { function: VirtioPci::new(parts).unwrap(), host, memo, wake }
    }

    fn write<const N: usize>(&mut self, offset: u64, bytes: [u8; N]) {
        self.function.write_memory(offset, &bytes);
    }

    fn read<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.function.read_memory(offset, &mut bytes);
        bytes
    }

    fn status(&mut self) -> u8 {
        self.read::<1>(0x14)[0]
    }

    /// Accepts `features`, sets queue 0 up with its rings from `rings` on, and starts.
    fn start(&mut self, features: u64, rings: u64) {
        self.write(0x14, [1]);
        self.write(0x14, [3]);
        for select in 0..2_u32 {
            self.write(0x08, select.to_le_bytes());
            self.write(0x0c, ((features >> (32 * select)) as u32).to_le_bytes());
        }
        self.write(0x14, [11]);
        self.write(0x16, 0_u16.to_le_bytes());
        self.write(0x1a, 0_u16.to_le_bytes());
        self.write(0x20, rings.to_le_bytes());
        self.write(0x28, (rings + 0x100).to_le_bytes());
        self.write(0x30, ((rings + 0x200) as u32).to_le_bytes());
        self.write(0x34, ((rings >> 32) as u32).to_le_bytes());
        self.write(0x1c, 1_u16.to_le_bytes());
        self.write(0x14, [15]);
    }

    fn interrupt(&self) -> Arc<dyn Interrupt> {
        self.memo.interrupt.lock().unwrap().clone().unwrap()
    }

    /// The capabilities of each kind, by their place in configuration space.
    fn capabilities(&mut self) -> BTreeMap<u16, [u8; 4]> {
        let mut found = BTreeMap::new();
        let mut at = [0];
        self.function.read_config(0x34, &mut at);
        while at[0] != 0 {
            let mut bytes = [0; 4];
            self.function.read_config(at[0].into(), &mut bytes);
            found.insert(at[0].into(), bytes);
            at[0] = bytes[1];
        }
        found
    }

    fn set_msix(&mut self, control: u16) {
        let capabilities = self.capabilities();
        let (at, _) = capabilities.iter().find(|(_, bytes)| bytes[0] == 0x11).unwrap();
        self.function.write_config(at + 2, &control.to_le_bytes());
    }

    fn sent(&self) -> Vec<u32> {
        self.host.sent.lock().unwrap().iter().map(|message| message.data).collect()
    }
}

#[test]
fn a_driver_that_agrees_starts_the_device_and_its_doorbells() {
    let mut bench = Bench::new();
    bench.start(VERSION_1, 0x1000);
    assert_eq!(bench.status(), 15);
    assert_eq!(bench.memo.activations.load(Ordering::SeqCst), 1);
    let base = u64::from(BAR) + 0x3000;
    assert_eq!(*bench.host.doorbells.lock().unwrap(), [base, base + 4]);
}

#[test]
fn features_that_were_not_offered_or_no_version_1_are_not_agreed_upon() {
    for features in [VERSION_1 | 1 << 60, 0] {
        let mut bench = Bench::new();
        bench.start(features, 0x1000);
        assert_eq!(bench.status() & 8, 0, "{features:#x}");
        assert_eq!(bench.memo.activations.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn rings_outside_of_memory_make_the_device_need_a_reset_which_helps() {
    for rings in [MEMORY, !0xfff, 0x1001] {
        let mut bench = Bench::new();
        bench.start(VERSION_1, rings);
        assert_eq!(bench.status() & 64, 64, "{rings:#x}");
        bench.write(0x14, [0]);
        assert_eq!(bench.status(), 0);
        bench.start(VERSION_1, 0x1000);
        assert_eq!(bench.status(), 15);
    }
}

#[test]
fn a_reset_removes_doorbells_and_the_queues_set_up() {
    let mut bench = Bench::new();
    bench.start(VERSION_1, 0x1000);
    bench.write(0x14, [0]);
    assert!(bench.host.doorbells.lock().unwrap().is_empty());
    assert_eq!(bench.read::<2>(0x1c), [0, 0]);
    assert_eq!(bench.read::<8>(0x20), [0; 8]);
}

#[test]
fn doorbells_follow_the_bar() {
    let mut bench = Bench::new();
    bench.start(VERSION_1, 0x1000);
    bench.function.write_config(0x10, &0xd000_0000_u32.to_le_bytes());
    assert_eq!(bench.host.doorbells.lock().unwrap()[0], 0xd000_3000);
}

#[test]
fn without_msix_the_isr_tells_and_reading_clears_it() {
    let mut bench = Bench::new();
    bench.start(VERSION_1, 0x1000);
    bench.interrupt().used(0, true);
    bench.interrupt().config_changed();
    assert_eq!(bench.read::<1>(0x1000), [3]);
    assert_eq!(bench.read::<1>(0x1000), [0]);
}

#[test]
fn those_who_poll_wake_even_if_no_interrupt_is_wanted() {
    let mut bench = Bench::new();
    bench.start(VERSION_1, 0x1000);
    let mut seen = 0;
    bench.interrupt().used(0, false);
    bench.wake.wait(&mut seen, std::time::Duration::ZERO);
    assert_eq!(seen, 1);
    assert_eq!(bench.read::<1>(0x1000), [0]);
}

#[test]
fn a_message_that_comes_while_masked_is_pending_and_goes_out_when_unmasked() {
    let mut bench = Bench::new();
    bench.set_msix(1 << 15);
    bench.start(VERSION_1, 0x1000);
    bench.write(0x4000, 0xfee0_0000_u32.to_le_bytes());
    bench.write(0x4008, 0x41_u32.to_le_bytes());
    bench.interrupt().used(0, true);
    assert_eq!(bench.read::<1>(0x5000), [1]);
    assert!(bench.sent().is_empty());
    bench.write(0x400c, 0_u32.to_le_bytes());
    assert_eq!(bench.read::<1>(0x5000), [0]);
    bench.interrupt().used(0, true);
    assert_eq!(bench.sent(), [0x41, 0x41]);
    // The function mask holds all of them back.
    bench.set_msix(3 << 14);
    bench.interrupt().used(0, true);
    assert_eq!(bench.sent().len(), 2);
    bench.set_msix(1 << 15);
    assert_eq!(bench.sent().len(), 3);
}

#[test]
fn a_vector_that_is_not_there_reads_back_as_none() {
    let mut bench = Bench::new();
    bench.write(0x10, 3_u16.to_le_bytes());
    assert_eq!(bench.read::<2>(0x10), [0xff, 0xff]);
    bench.write(0x10, 2_u16.to_le_bytes());
    assert_eq!(bench.read::<2>(0x10), [2, 0]);
}

#[test]
fn the_access_capability_reaches_the_bar() {
    let mut bench = Bench::new();
    let capabilities = bench.capabilities();
    let kinds: Vec<u8> = capabilities.values().filter(|c| c[0] == 9).map(|c| c[3]).collect();
    assert_eq!(kinds, [1, 2, 3, 4, 5]);
    let (at, _) = capabilities.iter().find(|(_, bytes)| bytes[0] == 9 && bytes[3] == 5).unwrap();
    bench.function.write_config(at + 8, &0x14_u32.to_le_bytes());
    bench.function.write_config(at + 12, &1_u32.to_le_bytes());
    bench.function.write_config(at + 16, &[1]);
    assert_eq!(bench.status(), 1);
    let mut data = [0xaa];
    bench.function.read_config(at + 16, &mut data);
    assert_eq!(data, [1]);
}

proptest! {
    #[test]
    fn rubbish_in_any_register_never_panics(
        accesses in proptest::collection::vec(
            (any::<bool>(), any::<bool>(), 0..0x8000_u64, 0..4_usize, any::<u64>()), 0..200),
    ) {
        let mut bench = Bench::new();
        for (is_write, is_config, offset, width, value) in accesses {
            // Most of what matters lies low.
            let offset = if value & 1 == 0 { offset & 0x7f } else { offset };
            let mut data = value.to_le_bytes();
            let data = &mut data[..1 << width];
            match (is_write, is_config) {
                (true, true) => bench.function.write_config((offset & 0xfff) as u16, data),
                (false, true) => bench.function.read_config((offset & 0xfff) as u16, data),
                (true, false) => bench.function.write_memory(offset, data),
                (false, false) => bench.function.read_memory(offset, data),
            }
        }
    }
}
