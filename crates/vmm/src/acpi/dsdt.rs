//! The DSDT: the PCI root, the serial port, pvpanic, and the sleep state in which the machine is off.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name,
    Package, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;

use super::{OEM, REVISION, TABLE};
use crate::layout;

/// The table, checksum and all.
pub(super) fn build() -> Vec<u8> {
    let mut code = Vec::new();
    Scope::new("_SB_".into(), vec![&Raw(pci_root()), &Raw(ecam()), &Raw(serial()), &Raw(panic())])
        .to_aml_bytes(&mut code);
    // ACPI 6.5 §7.4.2: both sleep types are 0, as in PM1A_CONTROL's S5.
    let off = Package::new(vec![&ZERO, &ZERO, &ZERO, &ZERO]);
    Name::new("_S5_".into(), &off).to_aml_bytes(&mut code);
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM, TABLE, REVISION);
    table.append_slice(&code);
    table.as_slice().to_vec()
}

/// AML that is already encoded.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

fn device(name: &str, id: &str, more: &[&dyn Aml]) -> Vec<u8> {
    named(name, &EISAName::new(id), more)
}

fn named(name: &str, id: &dyn Aml, more: &[&dyn Aml]) -> Vec<u8> {
    let mut code = Vec::new();
    let hid = Name::new("_HID".into(), id);
    let mut children: Vec<&dyn Aml> = vec![&hid];
    children.extend(more);
    Device::new(Path::new(name), children).to_aml_bytes(&mut code);
    code
}

/// Bus 0 of segment 0, with the window for BARs. Interrupts are messages only: no _PRT.
fn pci_root() -> Vec<u8> {
    let compatible = EISAName::new("PNP0A03");
    // The window lies below 4 GiB, so 32 bits hold both ends.
    let (first, last) = (layout::PCI_WINDOW as u32, layout::PCI_WINDOW_LAST as u32);
    let bus = AddressSpace::<u16>::new_bus_number(0, 0);
    let config = IO::new(0xcf8, 0xcf8, 1, 8);
    let [below, above] = [(0, 0xcf7), (0xd00, 0xffff)]
        .map(|(first, last)| AddressSpace::<u16>::new_io(first, last, None));
    let window = AddressSpace::<u32>::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        first,
        last,
        None,
    );
    let resources = ResourceTemplate::new(vec![&bus, &config, &below, &above, &window]);
    device(
        "PCI0",
        "PNP0A08",
        &[
            &Name::new("_CID".into(), &compatible),
            &Name::new("_SEG".into(), &ZERO),
            &Name::new("_BBN".into(), &ZERO),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &resources),
        ],
    )
}

/// Reserves the ECAM, which PCI Firmware 3.3 §4.1.2 wants in a motherboard resource.
fn ecam() -> Vec<u8> {
    let memory = Memory32Fixed::new(true, layout::ECAM as u32, layout::ECAM_SIZE as u32);
    let resources = ResourceTemplate::new(vec![&memory]);
    device(
        "ECAM",
        "PNP0C02",
        &[&Name::new("_UID".into(), &ZERO), &Name::new("_CRS".into(), &resources)],
    )
}

fn serial() -> Vec<u8> {
    let ports = IO::new(layout::SERIAL_PORT, layout::SERIAL_PORT, 1, 8);
    let line = Interrupt::new(true, true, false, false, layout::SERIAL_IRQ);
    let resources = ResourceTemplate::new(vec![&ports, &line]);
    device(
        "COM1",
        "PNP0501",
        &[&Name::new("_UID".into(), &ZERO), &Name::new("_CRS".into(), &resources)],
    )
}

/// pvpanic, by the id that Linux knows it by.
fn panic() -> Vec<u8> {
    let port = IO::new(layout::PANIC_PORT, layout::PANIC_PORT, 1, 1);
    let resources = ResourceTemplate::new(vec![&port]);
    // _STA: present, enabled, working, not shown.
    named(
        "PVPN",
        &"QEMU0001",
        &[&Name::new("_STA".into(), &0xb_u8), &Name::new("_CRS".into(), &resources)],
    )
}
