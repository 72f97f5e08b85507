//! Message-signalled interrupts to KVM: each source has an event descriptor (irqfd) bound to an
//! interrupt number whose entry in KVM's routing table is the message.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;
use vnet_virtio::pci::{MsiMessage, MsiVector, Platform};

use crate::layout;

/// Interrupt numbers that KVM can route (`KVM_MAX_IRQ_ROUTES`).
const MOST_ROUTES: u32 = 4096;

/// The machine's interrupt routing and doorbells.
pub struct KvmPlatform {
    router: Arc<Router>,
}

struct Router {
    vm: Arc<VmFd>,
    table: Mutex<Table>,
}

struct Table {
    messages: BTreeMap<u32, MsiMessage>,
    next: u32,
}

impl fmt::Debug for KvmPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvmPlatform").finish_non_exhaustive()
    }
}

impl KvmPlatform {
    /// The platform of `vm`, whose interrupt controllers are KVM's.
    #[must_use]
    pub fn new(vm: Arc<VmFd>) -> Self {
        let table = Table { messages: BTreeMap::new(), next: layout::FIRST_MSI_GSI };
        Self { router: Arc::new(Router { vm, table: Mutex::new(table) }) }
    }
}

impl Router {
    /// Sets the message of `gsi`, and tells KVM the whole table, which is the only way.
    fn set(&self, gsi: u32, message: MsiMessage) -> io::Result<()> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.messages.insert(gsi, message) == Some(message) {
            return Ok(());
        }
        let entries: Vec<_> = wired()
            .chain(table.messages.iter().map(|(gsi, message)| message_entry(*gsi, *message)))
            .collect();
        let routing = KvmIrqRouting::from_entries(&entries).map_err(io::Error::other)?;
        self.vm.set_gsi_routing(&routing).map_err(io::Error::from)
    }
}

/// The interrupt lines: each to the I/O APIC's input of the same number and, the first 16, to the
/// PICs as well, as KVM has them by default.
fn wired() -> impl Iterator<Item = kvm_irq_routing_entry> {
    let entry = |gsi: u32, chip: u32, pin: u32| {
        let mut entry =
            kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
        entry.u.irqchip.irqchip = chip;
        entry.u.irqchip.pin = pin;
        entry
    };
    let pics = (0..16).map(move |gsi| {
        let chip = if gsi < 8 { KVM_IRQCHIP_PIC_MASTER } else { KVM_IRQCHIP_PIC_SLAVE };
        entry(gsi, chip, gsi % 8)
    });
    pics.chain((0..layout::FIRST_MSI_GSI).map(move |gsi| entry(gsi, KVM_IRQCHIP_IOAPIC, gsi)))
}

fn message_entry(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi.address_lo = message.address as u32;
    entry.u.msi.address_hi = (message.address >> 32) as u32;
    entry.u.msi.data = message.data;
    entry
}

struct Vector {
    router: Arc<Router>,
    gsi: u32,
    event: EventFd,
    is_bound: Mutex<bool>,
}

impl MsiVector for Vector {
    fn route(&self, message: Option<MsiMessage>) -> io::Result<()> {
        let mut is_bound = self.is_bound.lock().unwrap_or_else(PoisonError::into_inner);
        match message {
            Some(message) => {
                self.router.set(self.gsi, message)?;
                if !*is_bound {
                    self.router.vm.register_irqfd(&self.event, self.gsi)?;
                    *is_bound = true;
                }
            }
            None if *is_bound => {
                self.router.vm.unregister_irqfd(&self.event, self.gsi)?;
                *is_bound = false;
            }
            None => {}
        }
        Ok(())
    }

    fn trigger(&self) {
        // Only a full counter can fail, and then an interrupt is on its way already.
        let _ = self.event.write(1);
    }
}

impl Platform for KvmPlatform {
    fn new_vector(&self) -> io::Result<Box<dyn MsiVector>> {
        let mut table = self.router.table.lock().unwrap_or_else(PoisonError::into_inner);
        let gsi = table.next;
        if gsi >= MOST_ROUTES {
            return Err(io::Error::other("there are no interrupt numbers left"));
        }
        table.next += 1;
        let event = EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)?;
        let router = Arc::clone(&self.router);
        Ok(Box::new(Vector { router, gsi, event, is_bound: Mutex::new(false) }))
    }

    fn add_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()> {
        let address = IoEventAddress::Mmio(address);
        Ok(self.router.vm.register_ioevent(event, &address, NoDatamatch)?)
    }

    fn remove_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()> {
        let address = IoEventAddress::Mmio(address);
        Ok(self.router.vm.unregister_ioevent(event, &address, NoDatamatch)?)
    }
}
