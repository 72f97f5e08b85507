//! The common configuration (virtio 1.2 §4.1.4.3): the registers with which a driver negotiates
//! features and sets queues up. State only: what follows from a write is the transport's.

use std::sync::atomic::Ordering;

use super::msix::NO_VECTOR;
use super::signals::Signals;
use crate::queue::QueueConfig;

/// Bytes of the structure.
pub(super) const BYTES: usize = 64;
/// Offset of the device status.
pub(super) const DEVICE_STATUS: u64 = 0x14;

/// FEATURES_OK (virtio 1.2 §2.1).
const FEATURES_OK: u8 = 8;

/// The registers that are not shared with the device's threads.
#[derive(Debug)]
pub(super) struct Common {
    offered: u64,
    device_select: u32,
    driver_select: u32,
    /// What the driver has accepted.
    pub(super) accepted: u64,
    queue_select: u16,
    /// The queues as the driver has set them up.
    pub(super) queues: Vec<QueueConfig>,
    sizes: Vec<u16>,
}

impl Common {
    pub(super) fn new(offered: u64, sizes: &[u16]) -> Self {
        let mut common = Self {
            offered,
            device_select: 0,
            driver_select: 0,
            accepted: 0,
            queue_select: 0,
            queues: Vec::new(),
            sizes: sizes.to_vec(),
        };
        common.reset();
        common
    }

    pub(super) fn reset(&mut self) {
        let queue = |size: &u16| QueueConfig {
            size: *size,
            enabled: false,
            descriptors: 0,
            available: 0,
            used: 0,
        };
        self.queues = self.sizes.iter().map(queue).collect();
        (self.device_select, self.driver_select, self.queue_select) = (0, 0, 0);
        self.accepted = 0;
    }

    /// The status that results from the driver writing `status`. virtio 1.2 §3.1.1: FEATURES_OK
    /// stays off when we can't do what the driver has accepted.
    pub(super) fn accept_status(&self, status: u8) -> u8 {
        let version_1 = crate::device::VERSION_1;
        let possible = self.accepted & !self.offered == 0 && self.accepted & version_1 != 0;
        if possible { status } else { status & !FEATURES_OK }
    }

    /// Whether a status lets the device work (virtio 1.2 §3.1.1).
    pub(super) fn is_live(status: u8) -> bool {
        const LIVE: u8 = FEATURES_OK | super::signals::DRIVER_OK;
        status & LIVE == LIVE
    }

    fn word(features: u64, select: u32) -> u32 {
        match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        }
    }

    /// Reads from `offset`.
    pub(super) fn read(&self, offset: u64, data: &mut [u8], signals: &Signals) {
        let mut bytes = [0; BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0x00, &self.device_select.to_le_bytes());
        put(0x04, &Self::word(self.offered, self.device_select).to_le_bytes());
        put(0x08, &self.driver_select.to_le_bytes());
        put(0x0c, &Self::word(self.accepted, self.driver_select).to_le_bytes());
        put(0x10, &signals.config_vector.load(Ordering::SeqCst).to_le_bytes());
        put(0x12, &(self.queues.len() as u16).to_le_bytes());
        put(0x14, &[signals.status.load(Ordering::SeqCst)]);
        put(0x15, &[signals.generation.load(Ordering::SeqCst)]);
        put(0x16, &self.queue_select.to_le_bytes());
        let selected = usize::from(self.queue_select);
        // virtio 1.2 §4.1.4.3.1: a queue that isn't there has size 0.
        if let (Some(queue), Some(vector)) =
            (self.queues.get(selected), signals.queue_vectors.get(selected))
        {
            put(0x18, &queue.size.to_le_bytes());
            put(0x1a, &vector.load(Ordering::SeqCst).to_le_bytes());
            put(0x1c, &u16::from(queue.enabled).to_le_bytes());
            put(0x1e, &self.queue_select.to_le_bytes());
            put(0x20, &queue.descriptors.to_le_bytes());
            put(0x28, &queue.available.to_le_bytes());
            put(0x30, &queue.used.to_le_bytes());
        }
        data.fill(0);
        let offset = usize::try_from(offset).unwrap_or(BYTES);
        for (to, from) in data.iter_mut().zip(bytes.iter().skip(offset)) {
            *to = *from;
        }
    }

    /// Writes at `offset`, the device status excepted. Accesses have a field's width, or half of
    /// it for those of 64 bits (virtio 1.2 §4.1.3.1); others go nowhere.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], signals: &Signals) {
        let value = data.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        let vector = || {
            let vector = value as u16;
            // virtio 1.2 §4.1.5.1.2.1: a vector that isn't there reads back as none.
            if vector < signals.msix().len() { vector } else { NO_VECTOR }
        };
        let selected = usize::from(self.queue_select);
        match (offset, data.len()) {
            (0x00, 4) => self.device_select = value as u32,
            (0x08, 4) => self.driver_select = value as u32,
            (0x0c, 4) => {
                let (keep, shift) = match self.driver_select {
                    0 => (0xffff_ffff_0000_0000, 0),
                    1 => (0x0000_0000_ffff_ffff, 32),
                    _ => return,
                };
                self.accepted = self.accepted & keep | value << shift;
            }
            (0x10, 2) => signals.config_vector.store(vector(), Ordering::SeqCst),
            (0x16, 2) => self.queue_select = value as u16,
            (0x1a, 2) => {
                if let Some(queue) = signals.queue_vectors.get(selected) {
                    queue.store(vector(), Ordering::SeqCst);
                }
            }
            _ => {
                if let Some(queue) = self.queues.get_mut(selected) {
                    write_queue(queue, offset, data.len(), value);
                }
            }
        }
    }
}

fn write_queue(queue: &mut QueueConfig, offset: u64, width: usize, value: u64) {
    match (offset, width) {
        (0x18, 2) => queue.size = value as u16,
        // virtio 1.2 §4.1.4.3.2: the driver doesn't write 0.
        (0x1c, 2) => queue.enabled |= value == 1,
        (0x20..0x28, _) => write_address(&mut queue.descriptors, offset & 7, width, value),
        (0x28..0x30, _) => write_address(&mut queue.available, offset & 7, width, value),
        (0x30..0x38, _) => write_address(&mut queue.used, offset & 7, width, value),
        _ => {}
    }
}

fn write_address(address: &mut u64, within: u64, width: usize, value: u64) {
    match (within, width) {
        (0, 8) => *address = value,
        (0, 4) => *address = *address & !0xffff_ffff | value,
        (4, 4) => *address = *address & 0xffff_ffff | value << 32,
        _ => {}
    }
}
