//! A virtio device as a PCI function.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmm_sys_util::eventfd::EventFd;

use super::common::{self, Common};
use super::config::{ConfigSpace, Identity};
use super::function::Function;
use super::msix::{ENTRY_BYTES, Msix};
use super::platform::Platform;
use super::signals::Signals;
use crate::GuestMemory;
use crate::device::{
    Activation, ActiveQueue, RING_EVENT_IDX, RING_INDIRECT_DESC, VERSION_1, VirtioDevice,
};
use crate::interrupt::Interrupt;
use crate::queue::{QueueConfig, Ring};
use crate::wake::Wake;

/// Bytes of BAR 0.
pub const BAR_SIZE: u32 = 0x8000;
/// Where the structures are in it, a page each; see the module's documentation.
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const MSIX_TABLE: u64 = 0x4000;
const MSIX_PENDING: u64 = 0x5000;
const PAGE: u64 = 0x1000;
/// Bytes between the notification addresses of two queues.
const NOTIFY_STEP: u64 = 4;

/// virtio's vendor id, and the number to which a modern device adds its kind.
const VENDOR: u16 = 0x1af4;
const FIRST_MODERN: u16 = 0x1040;
/// Capability ids: vendor-specific, MSI-X.
const VENDOR_CAPABILITY: u8 = 0x09;
const MSIX_CAPABILITY: u8 = 0x11;

/// What a transport consists of.
pub struct Parts {
    /// The device.
    pub device: Box<dyn VirtioDevice>,
    /// Guest memory.
    pub memory: GuestMemory,
    /// The machine.
    pub platform: Arc<dyn Platform>,
    /// Told of everything that happens.
    pub wake: Arc<Wake>,
    /// Where BAR 0 is at first.
    pub bar: u32,
}

/// The function.
pub struct VirtioPci {
    space: ConfigSpace,
    /// Where the capabilities are that act when they are accessed.
    access_capability: usize,
    msix_capability: usize,
    common: Common,
    signals: Arc<Signals>,
    device: Box<dyn VirtioDevice>,
    memory: GuestMemory,
    platform: Arc<dyn Platform>,
    kicks: Vec<EventFd>,
    /// The addresses at which writes signal `kicks` without leaving the kernel, while the device
    /// works.
    doorbells: Vec<u64>,
    is_live: bool,
}

impl VirtioPci {
    /// Makes a function of a device.
    ///
    /// # Errors
    /// The host has no descriptors or interrupt sources left.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let Parts { device, memory, platform, wake, bar } = parts;
        let kind = device.kind();
        let sizes = device.queue_sizes();
        let common =
            Common::new(device.features() | VERSION_1 | RING_EVENT_IDX | RING_INDIRECT_DESC, sizes);
        // A vector for each queue and one for the configuration.
        let sources = (0..=sizes.len()).map(|_| platform.new_vector());
        let msix = Msix::new(sources.collect::<io::Result<_>>()?);
        let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
        let kicks = sizes.iter().map(|_| EventFd::new(flags)).collect::<io::Result<Vec<_>>>()?;
        let identity = Identity {
            id: [VENDOR, FIRST_MODERN + kind.id()],
            // virtio 1.2 §4.1.2.1: 1 or higher, as is the subsystem's device from 0x40.
            revision: 1,
            class: kind.pci_class(),
            subsystem: [VENDOR, 0x40 + kind.id()],
        };
        let mut space = ConfigSpace::new(&identity, bar, BAR_SIZE);
        let vectors = msix.len();
        let (access_capability, msix_capability) = add_capabilities(&mut space, vectors);
        let signals = Arc::new(Signals::new(sizes.len(), msix, wake));
        Ok(Self {
            space,
            access_capability,
            msix_capability,
            common,
            signals,
            device,
            memory,
            platform,
            kicks,
            doorbells: Vec::new(),
            is_live: false,
        })
    }

    fn read_bar(&mut self, offset: u64, data: &mut [u8]) {
        match offset & !(PAGE - 1) {
            0 => self.common.read(offset, data, &self.signals),
            ISR => {
                data.fill(0);
                if let Some(byte) = data.first_mut().filter(|_| offset == ISR) {
                    *byte = self.signals.isr.swap(0, Ordering::SeqCst);
                }
            }
            DEVICE => self.device.read_config((offset - DEVICE) as usize, data),
            MSIX_TABLE => self.signals.msix().read_table(offset - MSIX_TABLE, data),
            MSIX_PENDING => self.signals.msix().read_pending(offset - MSIX_PENDING, data),
            _ => data.fill(0),
        }
    }

    fn write_bar(&mut self, offset: u64, data: &[u8]) {
        match offset & !(PAGE - 1) {
            0 if offset == common::DEVICE_STATUS => {
                if let [status] = data {
                    self.write_status(*status);
                }
            }
            0 => self.common.write(offset, data, &self.signals),
            NOTIFY => {
                // Usually the kernel takes these; this is for guests that go through the access
                // capability.
                if let Some(kick) = self.kicks.get(((offset - NOTIFY) / NOTIFY_STEP) as usize) {
                    // Only a full counter can fail, and then the event is there already.
                    let _ = kick.write(1);
                }
            }
            MSIX_TABLE => self.signals.msix().write_table(offset - MSIX_TABLE, data),
            _ => {}
        }
    }

    /// virtio 1.2 §2.1, §3.1: 0 resets; DRIVER_OK starts, if the features are agreed upon.
    fn write_status(&mut self, status: u8) {
        if status == 0 {
            self.reset();
            return;
        }
        let status = self.common.accept_status(status);
        // DEVICE_NEEDS_RESET, like any bit, goes away by a reset only.
        self.signals.status.fetch_or(status, Ordering::SeqCst);
        if Common::is_live(status) && !self.is_live && self.activate().is_none() {
            self.signals.needs_reset();
        }
    }

    /// Starts the device. None if the driver has set it up in a way that cannot work.
    fn activate(&mut self) -> Option<()> {
        let features = self.common.accepted;
        let queues = self
            .common
            .queues
            .iter()
            .zip(&self.kicks)
            .enumerate()
            .filter(|(_, (config, _))| config.enabled)
            .map(|(index, (config, kick))| self.active_queue(index, config, kick, features))
            .collect::<Option<Vec<_>>>()?;
        let interrupt: Arc<dyn Interrupt> = Arc::clone(&self.signals) as Arc<dyn Interrupt>;
        let memory = self.memory.clone();
        let activation = Activation { memory, queues, features, interrupt };
        if let Err(error) = self.device.activate(activation) {
            tracing::debug!(%error, "a virtio device cannot start");
            return None;
        }
        self.is_live = true;
        self.place_doorbells();
        Some(())
    }

    fn active_queue(
        &self,
        index: usize,
        config: &QueueConfig,
        kick: &EventFd,
        features: u64,
    ) -> Option<ActiveQueue> {
        let max_size = *self.device.queue_sizes().get(index)?;
        let has_event_idx = features & RING_EVENT_IDX != 0;
        let ring = Ring::new(config, max_size, has_event_idx, self.memory.clone()).ok()?;
        Some(ActiveQueue { index: index as u16, ring, kick: kick.try_clone().ok()? })
    }

    fn reset(&mut self) {
        self.remove_doorbells();
        self.device.reset();
        self.common.reset();
        self.signals.reset();
        for kick in &self.kicks {
            // An error means that there was no kick.
            let _ = kick.read();
        }
        self.is_live = false;
    }

    /// Lets the kernel take the kicks, where the BAR is now. Without, they arrive at
    /// [`write_bar`](Self::write_bar), only slower, so a refusal is no error.
    fn place_doorbells(&mut self) {
        self.remove_doorbells();
        let Some(range) = self.space.memory().filter(|_| self.is_live) else { return };
        for (kick, index) in self.kicks.iter().zip(0..) {
            let address = range.start + NOTIFY + index * NOTIFY_STEP;
            if self.platform.add_doorbell(address, kick).is_err() {
                break;
            }
            self.doorbells.push(address);
        }
    }

    fn remove_doorbells(&mut self) {
        for (kick, address) in self.kicks.iter().zip(self.doorbells.drain(..)) {
            // One that isn't there needs no removing.
            let _ = self.platform.remove_doorbell(address, kick);
        }
    }

    /// The access capability (virtio 1.2 §4.1.4.9): which part of the BAR its data register
    /// stands for, if that makes sense.
    fn access_window(&self) -> Option<(u64, usize)> {
        let mut body = [0; 12];
        self.space.read(self.access_capability + 4, &mut body);
        let [bar, _, _, _, o0, o1, o2, o3, l0, l1, l2, l3] = body;
        let offset = u32::from_le_bytes([o0, o1, o2, o3]);
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let is_sound = bar == 0
            && matches!(length, 1 | 2 | 4)
            && offset.is_multiple_of(length)
            && offset < BAR_SIZE;
        is_sound.then_some((offset.into(), length as usize))
    }

    fn is_access_data(&self, offset: usize) -> bool {
        offset == self.access_capability + 16
    }
}

/// Adds the capabilities of virtio 1.2 §4.1.4 and MSI-X; returns where the access capability and
/// MSI-X are.
fn add_capabilities(space: &mut ConfigSpace, vectors: u16) -> (usize, usize) {
    // cap_len, cfg_type, bar, id, padding, offset, length, and what some have after that.
    let structure = |kind: u8, offset: u64, length: u32, extra: &[u8]| {
        let mut body = vec![16 + extra.len() as u8, kind, 0, 0, 0, 0];
        body.extend((offset as u32).to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(extra);
        body
    };
    let page = PAGE as u32;
    space.add_capability(VENDOR_CAPABILITY, &structure(1, 0, common::BYTES as u32, &[]), &[]);
    let step = (NOTIFY_STEP as u32).to_le_bytes();
    space.add_capability(VENDOR_CAPABILITY, &structure(2, NOTIFY, page, &step), &[]);
    space.add_capability(VENDOR_CAPABILITY, &structure(3, ISR, 1, &[]), &[]);
    space.add_capability(VENDOR_CAPABILITY, &structure(4, DEVICE, page, &[]), &[]);
    // The driver writes the BAR, the offset and the length.
    let mask = [0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let access = space.add_capability(VENDOR_CAPABILITY, &structure(5, 0, 0, &[0; 4]), &mask);
    // PCI 3.0 §6.8.2: message control, where the table is, where the pending bits are.
    let mut body = (vectors - 1).to_le_bytes().to_vec();
    body.extend((MSIX_TABLE as u32).to_le_bytes());
    body.extend((MSIX_PENDING as u32).to_le_bytes());
    debug_assert!(u64::from(vectors) * ENTRY_BYTES <= PAGE, "the table has a page");
    let msix = space.add_capability(MSIX_CAPABILITY, &body, &[0, 0xc0]);
    (access, msix)
}

impl Function for VirtioPci {
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        let offset = usize::from(offset);
        if self.is_access_data(offset)
            && let Some((target, length)) = self.access_window()
        {
            data.fill(0);
            let length = length.min(data.len());
            self.read_bar(target, &mut data[..length]);
        } else {
            self.space.read(offset, data);
        }
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        let offset = usize::from(offset);
        if self.is_access_data(offset) {
            if let Some((target, length)) = self.access_window() {
                self.write_bar(target, &data[..length.min(data.len())]);
            }
            return;
        }
        let before = self.space.memory();
        self.space.write(offset, data);
        if self.space.memory() != before {
            self.place_doorbells();
        }
        let control = self.msix_capability + 2;
        if offset < control + 2 && control < offset + data.len() {
            let mut bytes = [0; 2];
            self.space.read(control, &mut bytes);
            self.signals.msix().set_control(u16::from_le_bytes(bytes));
        }
    }

    fn memory(&self) -> Option<Range<u64>> {
        self.space.memory()
    }

    fn read_memory(&mut self, offset: u64, data: &mut [u8]) {
        self.read_bar(offset, data);
    }

    fn write_memory(&mut self, offset: u64, data: &[u8]) {
        self.write_bar(offset, data);
    }

    fn shut_down(&mut self) {
        self.reset();
    }
}
