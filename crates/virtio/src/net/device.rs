//! The card as its driver sees it: features, configuration, link; and the start and end of its
//! worker.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use vmm_sys_util::eventfd::EventFd;
use vnet_tap::Offloads;
use vnet_types::MacAddr;

use super::counters::Counters;
use super::feature;
use super::rx::RxMode;
use super::worker::Worker;
use crate::device::{ActivateError, Activation, ActiveQueue, Kind, VirtioDevice};
use crate::interrupt::Interrupt;

/// Descriptors of each queue, at most.
const QUEUE_SIZE: u16 = 256;
/// Descriptors of the control queue, at most.
const CONTROL_SIZE: u16 = 64;
/// `VIRTIO_NET_S_LINK_UP` (virtio 1.2 §5.1.4).
const LINK_UP: u16 = 1;
/// `VIRTIO_NET_S_ANNOUNCE` (virtio 1.2 §5.1.4).
const ANNOUNCE: u16 = 2;
/// Bytes of the configuration up to and with the MTU (virtio 1.2 §5.1.4).
const CONFIG_BYTES: usize = 12;

const FEATURES: u64 = feature::CSUM
    | feature::GUEST_CSUM
    | feature::MTU
    | feature::MAC
    | feature::GUEST_TSO4
    | feature::GUEST_TSO6
    | feature::GUEST_ECN
    | feature::HOST_TSO4
    | feature::HOST_TSO6
    | feature::HOST_ECN
    | feature::MRG_RXBUF
    | feature::STATUS
    | feature::CTRL_VQ
    | feature::CTRL_RX
    | feature::GUEST_ANNOUNCE;

/// The cable: what whoever runs the machine can change while it runs.
pub struct Link {
    up: AtomicBool,
    /// What the driver has read last.
    seen_up: AtomicBool,
    /// Whether the driver can announce itself, and is to do so: after the cable has been plugged
    /// in, perhaps into another network, bridges have to learn where the guest is.
    can_announce: AtomicBool,
    announce: AtomicBool,
    mtu: AtomicU16,
    driver: Mutex<Option<Arc<dyn Interrupt>>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("up", &self.up).field("mtu", &self.mtu).finish()
    }
}

impl Link {
    pub(super) fn new(mtu: u16, is_up: bool) -> Self {
        Self {
            up: AtomicBool::new(is_up),
            seen_up: AtomicBool::new(is_up),
            can_announce: AtomicBool::new(false),
            announce: AtomicBool::new(false),
            mtu: AtomicU16::new(mtu),
            driver: Mutex::new(None),
        }
    }

    /// Whether the guest sees a link. Without one, no frame goes through.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Plugs the cable in, or pulls it out; the guest hears of it.
    pub fn set_up(&self, up: bool) {
        if self.up.swap(up, Ordering::SeqCst) != up {
            let announce = up && self.can_announce.load(Ordering::SeqCst);
            self.announce.store(announce, Ordering::SeqCst);
            let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(driver) = driver {
                driver.config_changed();
            }
        }
    }

    /// Sets the MTU that a driver sees when it starts next: a running one must not see it change
    /// (virtio 1.2 §5.1.4.1).
    pub fn set_mtu(&self, mtu: u16) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }

    /// From now on `driver` hears of changes; and at once if there was one since it looked.
    fn set_driver(&self, driver: Option<Arc<dyn Interrupt>>) {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&driver);
        let is_stale = self.up.load(Ordering::SeqCst) != self.seen_up.load(Ordering::SeqCst);
        if let Some(driver) = driver.filter(|_| is_stale) {
            driver.config_changed();
        }
    }

    /// The driver has announced itself.
    pub(super) fn announced(&self) {
        self.announce.store(false, Ordering::SeqCst);
    }

    /// The state of the link, for the driver.
    fn show(&self) -> u16 {
        let up = self.up.load(Ordering::SeqCst);
        self.seen_up.store(up, Ordering::SeqCst);
        let announce = self.announce.load(Ordering::SeqCst);
        (u16::from(up) * LINK_UP) | (u16::from(announce) * ANNOUNCE)
    }
}

/// A network card.
pub struct NetDevice {
    mac: MacAddr,
    /// The MTU that the present driver sees.
    mtu: u16,
    tap: Arc<OwnedFd>,
    link: Arc<Link>,
    counters: Arc<Counters>,
    running: Option<Running>,
}

struct Running {
    stop: EventFd,
    thread: JoinHandle<()>,
}

impl NetDevice {
    /// A card with this address on `tap`, whose network has packets of up to `mtu` bytes.
    #[must_use]
    pub fn new(mac: MacAddr, tap: OwnedFd, mtu: u16, is_up: bool) -> Self {
        let link = Link::new(mtu, is_up);
        Self {
            mac,
            mtu,
            tap: Arc::new(tap),
            link: Arc::new(link),
            counters: Arc::default(),
            running: None,
        }
    }

    /// The cable.
    #[must_use]
    pub fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link)
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    fn start(&mut self, activation: Activation) -> Result<Running, ActivateError> {
        let Activation { queues, features, interrupt, memory: _ } = activation;
        set_offloads(&self.tap, features)?;
        let mut queues = queues.into_iter();
        let mut next = |index| match queues.next() {
            Some(queue) if queue.index == index => Ok(queue),
            _ => Err(ActivateError::MissingQueue(index)),
        };
        let (rx, tx): (ActiveQueue, ActiveQueue) = (next(0)?, next(1)?);
        // virtio 1.2 §5.1.2: without multiqueue, the control queue is queue 2.
        let has = |bits| features & bits != 0;
        let control = queues.next().filter(|queue| queue.index == 2 && has(feature::CTRL_VQ));
        let host = |what| move |source: io::Error| ActivateError::Host { what, source };
        let stop = EventFd::new(libc::EFD_CLOEXEC).map_err(host("make an event descriptor"))?;
        let worker = Worker {
            rx,
            tx,
            control,
            mode: RxMode::new(
                has(feature::MRG_RXBUF),
                has(feature::GUEST_TSO4 | feature::GUEST_TSO6),
                self.mtu,
            ),
            tap: Arc::clone(&self.tap),
            link: Arc::clone(&self.link),
            counters: Arc::clone(&self.counters),
            interrupt: Arc::clone(&interrupt),
            stop: stop.try_clone().map_err(host("duplicate an event descriptor"))?,
        };
        let epoll = worker.epoll().map_err(host("watch a tap"))?;
        let thread = thread::Builder::new()
            .name("net".to_owned())
            .spawn(move || worker.run(&epoll))
            .map_err(host("start a network card's thread"))?;
        let can_announce = has(feature::CTRL_VQ) && has(feature::GUEST_ANNOUNCE);
        self.link.can_announce.store(can_announce, Ordering::SeqCst);
        self.link.set_driver(Some(interrupt));
        Ok(Running { stop, thread })
    }
}

/// Lets the tap leave to the driver what the driver has accepted (virtio 1.2 §5.1.3.1). What is
/// no tap (a socket, in tests) has no offloads.
fn set_offloads(tap: &OwnedFd, features: u64) -> Result<(), ActivateError> {
    let has = |bit| features & bit != 0;
    let csum = has(feature::GUEST_CSUM);
    let offloads = Offloads {
        csum,
        tso4: csum && has(feature::GUEST_TSO4),
        tso6: csum && has(feature::GUEST_TSO6),
        ecn: csum && has(feature::GUEST_ECN),
        uso: false,
    };
    match vnet_tap::set_offloads(tap.as_fd(), offloads) {
        Err(error) if offloads != Offloads::default() => Err(ActivateError::Host {
            what: "set the offloads of a tap",
            source: io::Error::other(error),
        }),
        _ => Ok(()),
    }
}

impl VirtioDevice for NetDevice {
    fn kind(&self) -> Kind {
        Kind::Net
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE, CONTROL_SIZE]
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        // virtio 1.2 §5.1.4: mac, status, max_virtqueue_pairs (only with MQ), mtu.
        let mut config = [0; CONFIG_BYTES];
        config[..6].copy_from_slice(&self.mac.octets());
        config[6..8].copy_from_slice(&self.link.show().to_le_bytes());
        config[10..12].copy_from_slice(&self.mtu.to_le_bytes());
        data.fill(0);
        for (to, from) in data.iter_mut().zip(config.iter().skip(offset)) {
            *to = *from;
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.reset();
        self.running = Some(self.start(activation)?);
        Ok(())
    }

    fn reset(&mut self) {
        self.link.set_driver(None);
        self.link.can_announce.store(false, Ordering::SeqCst);
        self.link.announced();
        self.mtu = self.link.mtu.load(Ordering::Relaxed);
        if let Some(Running { stop, thread }) = self.running.take() {
            // Only a full counter can fail, and then the event is there already.
            let _ = stop.write(1);
            // A panic of the thread has been printed; the card is without a worker either way.
            let _ = thread.join();
        }
    }
}

impl Drop for NetDevice {
    fn drop(&mut self) {
        self.reset();
    }
}

#[cfg(test)]
mod tests;
