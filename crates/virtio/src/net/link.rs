//! The cable of a card, and what the driver hears of it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::interrupt::Interrupt;

/// `VIRTIO_NET_S_LINK_UP` (virtio 1.2 §5.1.4).
const LINK_UP: u16 = 1;
/// `VIRTIO_NET_S_ANNOUNCE` (virtio 1.2 §5.1.4).
const ANNOUNCE: u16 = 2;

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
    pub(super) fn set_driver(&self, driver: Option<Arc<dyn Interrupt>>) {
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
    pub(super) fn show(&self) -> u16 {
        let up = self.up.load(Ordering::SeqCst);
        self.seen_up.store(up, Ordering::SeqCst);
        let announce = self.announce.load(Ordering::SeqCst);
        (u16::from(up) * LINK_UP) | (u16::from(announce) * ANNOUNCE)
    }

    /// Whether the driver that starts now can announce itself.
    pub(super) fn set_can_announce(&self, can: bool) {
        self.can_announce.store(can, Ordering::SeqCst);
    }

    /// The MTU for the next driver.
    pub(super) fn next_mtu(&self) -> u16 {
        self.mtu.load(Ordering::Relaxed)
    }
}
