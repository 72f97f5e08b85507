//! The card with its worker running.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::GuestMemory;
use crate::interrupt::Interrupt;
use crate::queue::{QueueConfig, Ring};
use crate::testing::{BUFFERS, Driver, MEMORY, QUEUE, SIZE, memory, receive, tap};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 1, 2, 3]);
/// A card with one pair of queues, on a socket.
fn card(near: OwnedFd, mtu: u16) -> NetDevice {
    let (limits, threads) = (Limits::default(), Threads::default());
    NetDevice::new(NetConfig { mac: MAC, taps: vec![near], mtu, is_up: true, limits, threads })
        .unwrap()
}

const PATIENCE: Duration = Duration::from_secs(20);

/// What the card said.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Used(u16),
    Config,
    Reset,
}

struct Teller(Mutex<Sender<Said>>);

impl Teller {
    fn tell(&self, said: Said) {
        // A test that has ended doesn't listen.
        let _ = self.0.lock().unwrap().send(said);
    }
}

impl Interrupt for Teller {
    fn used(&self, index: u16, _: bool) {
        self.tell(Said::Used(index));
    }

    fn config_changed(&self) {
        self.tell(Said::Config);
    }

    fn needs_reset(&self) {
        self.tell(Said::Reset);
    }
}

/// An empty queue in the last pages of memory, for the direction that isn't tested.
fn idle_ring(memory: &GuestMemory) -> Ring {
    let base = MEMORY - 0x3000;
    let config = QueueConfig {
        size: SIZE,
        enabled: true,
        descriptors: base,
        available: base + 0x1000,
        used: base + 0x2000,
    };
    Ring::new(&config, SIZE, false, memory.clone()).unwrap()
}

/// Starts `card` with `tx` as its transmit queue; returns that queue's kick.
fn start(card: &mut NetDevice, memory: &GuestMemory, tx: Ring) -> (EventFd, Receiver<Said>) {
    let (sender, said) = channel();
    let kick = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let queue =
        |index, ring, kick: &EventFd| ActiveQueue { index, ring, kick: kick.try_clone().unwrap() };
    let idle = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let queues = vec![queue(0, idle_ring(memory), &idle), queue(1, tx, &kick)];
    let interrupt = Arc::new(Teller(Mutex::new(sender)));
    let features = feature::CTRL_VQ | feature::GUEST_ANNOUNCE;
    let activation = Activation { memory: memory.clone(), queues, features, interrupt };
    card.activate(activation).unwrap();
    (kick, said)
}

#[test]
fn a_kick_sends_a_frame_and_a_reset_stops_the_worker() {
    let (memory, (near, far)) = (memory(), tap());
    let mut card = card(near, 1500);
    let mut driver = Driver::new(&memory);
    let (kick, said) = start(&mut card, &memory, driver.ring());
    driver.chain(&[(BUFFERS, 72)], 0);
    kick.write(1).unwrap();
    assert_eq!(said.recv_timeout(PATIENCE), Ok(Said::Used(1)));
    assert_eq!(receive(&far).map(|frame| frame.len()), Some(72));
    card.reset();
    // Only the worker held the other end of the channel.
    assert!(said.recv_timeout(PATIENCE).is_err());
    // The card can be started again, with queues set up anew.
    memory.write_slice(&[0; 0x1000], GuestAddress(QUEUE)).unwrap();
    let mut driver = Driver::new(&memory);
    let (kick, said) = start(&mut card, &memory, driver.ring());
    driver.chain(&[(BUFFERS, 80)], 0);
    kick.write(1).unwrap();
    assert_eq!(said.recv_timeout(PATIENCE), Ok(Said::Used(1)));
}

#[test]
fn a_malformed_chain_stops_its_queue_and_is_counted_once() {
    let (memory, (near, _far)) = (memory(), tap());
    let mut card = card(near, 1500);
    let counters = card.counters();
    let mut driver = Driver::new(&memory);
    driver.chain(&[(MEMORY, 72)], 0);
    let (kick, said) = start(&mut card, &memory, driver.ring());
    kick.write(1).unwrap();
    assert_eq!(said.recv_timeout(PATIENCE), Ok(Said::Reset));
    kick.write(1).unwrap();
    card.reset();
    assert_eq!(counters.figures().malformed, 1);
}

#[test]
fn pulling_the_cable_is_told_once_and_shows_in_the_configuration() {
    let (memory, (near, _far)) = (memory(), tap());
    let mut card = card(near, 1400);
    let mut config = [0; 14];
    card.read_config(0, &mut config);
    assert_eq!(config, [0x52, 0x54, 0, 1, 2, 3, 1, 0, 0, 0, 0x78, 0x05, 0, 0]);
    let driver = Driver::new(&memory);
    let (_kick, said) = start(&mut card, &memory, driver.ring());
    card.link().set_up(false);
    card.link().set_up(false);
    assert_eq!(said.try_iter().collect::<Vec<_>>(), [Said::Config]);
    card.read_config(6, &mut config[..2]);
    assert_eq!(config[..2], [0, 0]);
    // Plugged in again, the guest is asked to announce itself, until it has.
    card.link().set_up(true);
    card.read_config(6, &mut config[..2]);
    assert_eq!(config[..2], [3, 0]);
    card.link().announced();
    card.read_config(6, &mut config[..2]);
    assert_eq!(config[..2], [1, 0]);
}

#[test]
fn a_change_between_the_drivers_look_and_its_start_is_told_at_the_start() {
    let (memory, (near, _far)) = (memory(), tap());
    let mut card = card(near, 1500);
    card.read_config(6, &mut [0; 2]);
    card.link().set_up(false);
    let driver = Driver::new(&memory);
    let (_kick, said) = start(&mut card, &memory, driver.ring());
    assert_eq!(said.recv_timeout(PATIENCE), Ok(Said::Config));
}

#[test]
fn an_mtu_shows_from_the_next_start_on() {
    let (near, _far) = tap();
    let mut card = card(near, 1500);
    card.link().set_mtu(1280);
    let mut mtu = [0; 2];
    card.read_config(10, &mut mtu);
    assert_eq!(u16::from_le_bytes(mtu), 1500);
    card.reset();
    card.read_config(10, &mut mtu);
    assert_eq!(u16::from_le_bytes(mtu), 1280);
}
