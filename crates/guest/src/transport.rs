//! virtio over PCI (virtio 1.2 §4.1), for the drivers of `virtio-drivers`.
//!
//! That crate's own PCI transport reads and writes more registers than it needs to, three for each
//! notification, and every access is an exit to the VMM. This one reads a queue's notification
//! address once, remembers which queue is selected, and decides for itself whether a notification
//! is due (§2.7.7.2), because the driver compares less exactly than the specification allows.

use core::cell::Cell;
use core::sync::atomic::{AtomicU16, Ordering, fence};

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::pci::{Capability, Function, Pci};
use crate::phys;

/// virtio-net, modern and transitional (§4.1.2), as they stand in register 0.
pub(crate) const NET_IDS: [u32; 2] = [0x1041_1af4, 0x1000_1af4];

const VIRTIO_F_EVENT_IDX: u64 = 1 << 29;

/// Receive and transmit.
const QUEUES: usize = 2;

/// Offsets in the common configuration (§4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: u64 = 0;
    pub(super) const DEVICE_FEATURE: u64 = 4;
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 8;
    pub(super) const DRIVER_FEATURE: u64 = 12;
    pub(super) const DEVICE_STATUS: u64 = 20;
    pub(super) const CONFIG_GENERATION: u64 = 21;
    pub(super) const QUEUE_SELECT: u64 = 22;
    pub(super) const QUEUE_SIZE: u64 = 24;
    pub(super) const QUEUE_ENABLE: u64 = 28;
    pub(super) const QUEUE_NOTIFY_OFF: u64 = 30;
    pub(super) const QUEUE_DESC: u64 = 32;
    pub(super) const QUEUE_DRIVER: u64 = 40;
    pub(super) const QUEUE_DEVICE: u64 = 48;
    pub(super) const LENGTH: u64 = 56;
}

/// Why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransportError {
    /// A structure is missing, too small, or in a BAR that has no address.
    Structure(&'static str),
}

#[derive(Clone, Copy, Default)]
struct Queue {
    size: u16,
    driver_area: u64,
    device_area: u64,
    notify: u64,
    /// The available index at the last look.
    seen: u16,
}

/// One device.
pub(crate) struct PciTransport {
    common: u64,
    notify: u64,
    notify_length: u64,
    notify_multiplier: u64,
    isr: u64,
    config: u64,
    config_length: u64,
    /// Features accepted beyond those that the driver knows, if they are offered.
    extra_features: u64,
    /// What the device offered.
    offered: u64,
    event_idx: bool,
    selected: Cell<u16>,
    queues: [Queue; QUEUES],
}

/// A structure's place: BAR, offset and length, read from its capability.
#[derive(Clone, Copy)]
struct Place {
    bar: u8,
    offset: u32,
    length: u32,
}

impl Place {
    fn read(pci: &Pci, function: Function, capability: Capability) -> Self {
        Self {
            bar: pci.read(function, capability.at + 4) as u8,
            offset: pci.read(function, capability.at + 8),
            length: pci.read(function, capability.at + 12),
        }
    }
}

impl PciTransport {
    /// Finds the structures of the device and lets it decode its BARs. Features in
    /// `extra_features` are negotiated as well, if the device offers them.
    pub(crate) fn new(
        pci: &mut Pci,
        function: Function,
        extra_features: u64,
    ) -> Result<Self, TransportError> {
        let mut places = [None; 5];
        let mut multiplier = 0;
        pci.vendor_capabilities(function, |pci, capability| {
            // §4.1.4: the first of each type is the one that the device prefers.
            if let Some(place @ None) = places.get_mut(usize::from(capability.kind))
                && capability.length >= 16
            {
                *place = Some(Place::read(pci, function, capability));
                if capability.kind == 2 {
                    multiplier = pci.read(function, capability.at + 16);
                }
            }
        });
        let mut bars = [None; 6];
        let mut locate = |kind: usize, name, least: u64| {
            let missing = TransportError::Structure(name);
            let place: Place = places[kind].ok_or(missing)?;
            let bar = bars.get_mut(usize::from(place.bar)).ok_or(missing)?;
            if bar.is_none() {
                *bar = pci.bar(function, place.bar);
            }
            let address = bar.ok_or(missing)? + u64::from(place.offset);
            let length = u64::from(place.length);
            if length < least || !phys::reachable(address, length) {
                return Err(missing);
            }
            Ok((address, length))
        };
        let (common, _) = locate(1, "common configuration", common::LENGTH)?;
        let (notify, notify_length) = locate(2, "notification structure", 2)?;
        let (isr, _) = locate(3, "ISR status", 1)?;
        let (config, config_length) = locate(4, "device configuration", 8)?;
        pci.enable(function);
        Ok(Self {
            common,
            notify,
            notify_length,
            notify_multiplier: multiplier.into(),
            isr,
            config,
            config_length,
            extra_features,
            offered: 0,
            event_idx: false,
            selected: Cell::new(u16::MAX),
            queues: [Queue::default(); QUEUES],
        })
    }

    /// Reads 16 bits of the device configuration; 0 beyond its end.
    pub(crate) fn config16(&self, offset: u64) -> u16 {
        if offset + 2 > self.config_length {
            return 0;
        }
        phys::read_register(self.config + offset)
    }

    /// The address of the device configuration: for those who read it while a driver owns this.
    pub(crate) fn config_address(&self) -> u64 {
        self.config
    }

    /// The features that the device offers, reading them if that wasn't done yet.
    pub(crate) fn offered(&mut self) -> u64 {
        if self.offered == 0 {
            for (word, shift) in [(0_u32, 0), (1, 32)] {
                phys::write_register(self.common + common::DEVICE_FEATURE_SELECT, word);
                let bits: u32 = phys::read_register(self.common + common::DEVICE_FEATURE);
                self.offered |= u64::from(bits) << shift;
            }
        }
        self.offered
    }

    fn select(&self, queue: u16) {
        if self.selected.replace(queue) != queue {
            phys::write_register(self.common + common::QUEUE_SELECT, queue);
        }
    }

    /// 64-bit fields are written in halves (§4.1.3.1).
    fn write64(&self, offset: u64, value: u64) {
        phys::write_register(self.common + offset, value as u32);
        phys::write_register(self.common + offset + 4, (value >> 32) as u32);
    }

    /// Whether the device wants to hear of what was added since the last look (§2.7.7.2, §2.7.10).
    fn notification_is_due(&mut self, queue: usize) -> bool {
        let queue = &mut self.queues[queue];
        // The index must be visible before the device's wish is read.
        fence(Ordering::SeqCst);
        let available = shared16(queue.driver_area + 2);
        let before = core::mem::replace(&mut queue.seen, available);
        if !self.event_idx {
            return shared16(queue.device_area) & 1 == 0;
        }
        let event = shared16(queue.device_area + 4 + 8 * u64::from(queue.size));
        available.wrapping_sub(event).wrapping_sub(1) < available.wrapping_sub(before)
    }
}

/// Reads 16 bits of a ring, which the device may write at any time.
fn shared16(address: u64) -> u16 {
    let pointer = core::ptr::with_exposed_provenance_mut::<u16>(address as usize);
    // SAFETY: an aligned field of a ring that `queue_set` was given and that is never freed.
    unsafe { AtomicU16::from_ptr(pointer) }.load(Ordering::Acquire)
}

impl Transport for PciTransport {
    fn device_type(&self) -> DeviceType {
        DeviceType::Network
    }

    fn read_device_features(&mut self) -> u64 {
        self.offered()
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        let features = driver_features | self.extra_features & self.offered();
        self.event_idx = features & VIRTIO_F_EVENT_IDX != 0;
        for (word, bits) in [(0_u32, features as u32), (1, (features >> 32) as u32)] {
            phys::write_register(self.common + common::DRIVER_FEATURE_SELECT, word);
            phys::write_register(self.common + common::DRIVER_FEATURE, bits);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        phys::read_register::<u16>(self.common + common::QUEUE_SIZE).into()
    }

    fn notify(&mut self, queue: u16) {
        if self.notification_is_due(usize::from(queue)) {
            phys::write_register(self.queues[usize::from(queue)].notify, queue);
        }
    }

    fn get_status(&self) -> DeviceStatus {
        let status: u8 = phys::read_register(self.common + common::DEVICE_STATUS);
        DeviceStatus::from_bits_truncate(status.into())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        phys::write_register(self.common + common::DEVICE_STATUS, status.bits() as u8);
    }

    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.select(queue);
        let offset: u16 = phys::read_register(self.common + common::QUEUE_NOTIFY_OFF);
        // §4.1.4.4: the address must lie within the structure; a device that says otherwise is
        // notified at its start.
        let mut at = u64::from(offset) * self.notify_multiplier;
        if at + 2 > self.notify_length {
            at = 0;
        }
        self.queues[usize::from(queue)] = Queue {
            size: size as u16,
            driver_area,
            device_area,
            notify: self.notify + at,
            seen: 0,
        };
        phys::write_register(self.common + common::QUEUE_SIZE, size as u16);
        self.write64(common::QUEUE_DESC, descriptors);
        self.write64(common::QUEUE_DRIVER, driver_area);
        self.write64(common::QUEUE_DEVICE, device_area);
        phys::write_register(self.common + common::QUEUE_ENABLE, 1_u16);
    }

    fn queue_unset(&mut self, _: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        // The device was reset: no queue is in use that wasn't set up here.
        self.queues[usize::from(queue)].size != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let status: u8 = phys::read_register(self.isr);
        InterruptStatus::from_bits_retain(status.into())
    }

    fn read_config_generation(&self) -> u32 {
        phys::read_register::<u8>(self.common + common::CONFIG_GENERATION).into()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let mut value = T::new_zeroed();
        let bytes = value.as_mut_bytes();
        if (offset + bytes.len()) as u64 > self.config_length {
            return Err(Error::ConfigSpaceTooSmall);
        }
        // §4.1.3.1: fields are read with their own width; a MAC is read by bytes, or here in
        // pairs, which every field is made of.
        for (index, pair) in bytes.chunks_mut(2).enumerate() {
            let at = self.config + (offset + 2 * index) as u64;
            match pair {
                [low, high] => [*low, *high] = phys::read_register::<u16>(at).to_le_bytes(),
                [single] => *single = phys::read_register(at),
                _ => {}
            }
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _: usize,
        _: T,
    ) -> Result<(), Error> {
        // No field of virtio-net's configuration is writable (§5.1.4).
        Err(Error::Unsupported)
    }
}
