//! What the transport shares with the device's threads: the status, and how to call the driver.

use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::msix::{Msix, NO_VECTOR};
use crate::interrupt::Interrupt;
use crate::wake::Wake;

/// DEVICE_NEEDS_RESET (virtio 1.2 §2.1).
const NEEDS_RESET: u8 = 64;
/// DRIVER_OK (virtio 1.2 §2.1).
pub(super) const DRIVER_OK: u8 = 4;
/// ISR: a queue (virtio 1.2 §4.1.4.5).
const ISR_QUEUE: u8 = 1;
/// ISR: the configuration.
const ISR_CONFIG: u8 = 2;

/// The shared part of a transport.
pub(super) struct Signals {
    /// Device status.
    pub(super) status: AtomicU8,
    /// ISR status, cleared by reading.
    pub(super) isr: AtomicU8,
    /// Goes up with each change of the device's configuration.
    pub(super) generation: AtomicU8,
    /// The vector for changes of the configuration.
    pub(super) config_vector: AtomicU16,
    /// The vectors of the queues.
    pub(super) queue_vectors: Vec<AtomicU16>,
    msix: Mutex<Msix>,
    wake: Arc<Wake>,
}

impl Signals {
    pub(super) fn new(queues: usize, msix: Msix, wake: Arc<Wake>) -> Self {
        Self {
            status: AtomicU8::new(0),
            isr: AtomicU8::new(0),
            generation: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            msix: Mutex::new(msix),
            wake,
        }
    }

    pub(super) fn msix(&self) -> MutexGuard<'_, Msix> {
        self.msix.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Back to what it was at power-on, the vectors' messages excepted.
    pub(super) fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
        self.isr.store(0, Ordering::SeqCst);
        for vector in self.queue_vectors.iter().chain([&self.config_vector]) {
            vector.store(NO_VECTOR, Ordering::SeqCst);
        }
    }

    /// virtio 1.2 §4.1.5.1.2: a message where the driver uses MSI-X, the ISR status otherwise.
    fn notify(&self, vector: &AtomicU16, isr: u8) {
        let mut msix = self.msix();
        if msix.is_enabled() {
            msix.trigger(vector.load(Ordering::Relaxed));
        } else {
            self.isr.fetch_or(isr, Ordering::SeqCst);
        }
    }
}

impl Interrupt for Signals {
    fn used(&self, index: u16, wanted: bool) {
        if let Some(vector) = self.queue_vectors.get(usize::from(index)).filter(|_| wanted) {
            self.notify(vector, ISR_QUEUE);
        }
        self.wake.signal();
    }

    fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.notify(&self.config_vector, ISR_CONFIG);
        self.wake.signal();
    }

    fn needs_reset(&self) {
        // virtio 1.2 §2.1.2: and a notification of the change, if DRIVER_OK is set.
        if self.status.fetch_or(NEEDS_RESET, Ordering::SeqCst) & DRIVER_OK != 0 {
            self.config_changed();
        }
    }
}
