//! The ACPI tables: RSDP, XSDT, FADT, MADT, MCFG and the DSDT (ACPI 6.5 §5.2).
//!
//! ```text
//! RSDP → XSDT → FADT → DSDT (PCI root, serial port, S5)
//!             → MADT (processors, I/O APIC)
//!             → MCFG (where PCI configuration space is)
//! ```

mod dsdt;

use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, fadt};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use vnet_virtio::GuestMemory;

use crate::layout;

const OEM: [u8; 6] = *b"VNET  ";
const TABLE: [u8; 8] = *b"VNETVMM ";
const REVISION: u32 = 1;

/// Why the tables cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// There are too many processors for the room.
    #[error("the ACPI tables do not fit: use fewer CPUs")]
    NoRoom,
    /// Guest memory cannot be written.
    #[error("cannot write the ACPI tables to guest memory")]
    Memory(#[from] GuestMemoryError),
}

/// Writes the tables for a machine with `cpus` processors at [`layout::ACPI`], and returns the
/// address of the root pointer.
///
/// # Errors
/// They do not fit, or guest memory is too small.
pub fn write(memory: &GuestMemory, cpus: u8) -> Result<u64, AcpiError> {
    let mut writer = Writer { memory, next: layout::ACPI + Rsdp::len() as u64 };
    let dsdt = writer.place(&dsdt::build())?;
    let fadt = writer.place(&bytes(&fadt(dsdt)))?;
    let madt = writer.place(&bytes(&madt(cpus)))?;
    let mut mcfg = MCFG::new(OEM, TABLE, REVISION);
    mcfg.add_ecam(layout::ECAM, 0, 0, 0);
    let mcfg = writer.place(&bytes(&mcfg))?;
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    for table in [fadt, madt, mcfg] {
        xsdt.add_entry(table);
    }
    let xsdt = writer.place(&bytes(&xsdt))?;
    memory.write_slice(&bytes(&Rsdp::new(OEM, xsdt)), GuestAddress(layout::ACPI))?;
    Ok(layout::ACPI)
}

struct Writer<'a> {
    memory: &'a GuestMemory,
    next: u64,
}

impl Writer<'_> {
    fn place(&mut self, table: &[u8]) -> Result<u64, AcpiError> {
        let address = self.next.next_multiple_of(16);
        let end = address + table.len() as u64;
        if end > layout::ACPI_END {
            return Err(AcpiError::NoRoom);
        }
        self.memory.write_slice(table, GuestAddress(address))?;
        self.next = end;
        Ok(address)
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn io_register(port: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, port.into())
}

/// ACPI 6.5 §5.2.9. Power management is the PC's fixed hardware, without SMM: ACPI mode is always
/// on, so there is no SMI command port.
fn fadt(dsdt: u64) -> fadt::FADT {
    // ACPI 6.5 §5.2.9.3: neither VGA nor a CMOS clock.
    const NO_VGA: u16 = 1 << 2;
    const NO_CMOS_CLOCK: u16 = 1 << 5;
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::Wbinvd)
        .flag(Flags::SlpButton)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    fadt.sci_int = layout::SCI_IRQ.into();
    fadt.pm1a_evt_blk = u32::from(layout::PM1A_EVENT).into();
    fadt.pm1_evt_len = 4;
    fadt.x_pm1a_evt_blk = io_register(layout::PM1A_EVENT, 32, AccessSize::WordAccess);
    fadt.pm1a_cnt_blk = u32::from(layout::PM1A_CONTROL).into();
    fadt.pm1_cnt_len = 2;
    fadt.x_pm1a_cnt_blk = io_register(layout::PM1A_CONTROL, 16, AccessSize::WordAccess);
    fadt.pm_tmr_blk = u32::from(layout::PM_TIMER).into();
    fadt.pm_tmr_len = 4;
    fadt.x_pm_tmr_blk = io_register(layout::PM_TIMER, 32, AccessSize::DwordAccess);
    // No C2 and C3 states (ACPI 6.5 §5.2.9, P_LVL2_LAT and P_LVL3_LAT).
    fadt.p_lvl2_lat = 101.into();
    fadt.p_lvl3_lat = 1001.into();
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_CLOCK).into();
    fadt.reset_reg = io_register(layout::RESET_PORT, 8, AccessSize::ByteAccess);
    fadt.reset_value = layout::RESET_VALUE;
    fadt.finalize()
}

/// ACPI 6.5 §5.2.12. ISA interrupts go to the I/O APIC's inputs of the same number, which is how
/// KVM routes them.
fn madt(cpus: u8) -> Sdt {
    const PC_COMPATIBLE: u32 = 1;
    let mut madt = Sdt::new(*b"APIC", 36, 5, OEM, TABLE, REVISION);
    madt.append_slice(&layout::LOCAL_APIC.to_le_bytes());
    madt.append_slice(&PC_COMPATIBLE.to_le_bytes());
    for cpu in 0..cpus {
        // §5.2.12.2: type, length, processor, APIC id, flags (enabled).
        madt.append_slice(&[0, 8, cpu, cpu, 1, 0, 0, 0]);
    }
    // §5.2.12.3: type, length, id, reserved, address, first interrupt.
    madt.append_slice(&[1, 12, 0, 0]);
    madt.append_slice(&layout::IO_APIC.to_le_bytes());
    madt.append_slice(&[0; 4]);
    // §5.2.12.5: type, length, ISA bus, source, interrupt (4 bytes), active high and edge: the SCI.
    // The status bit stays until it has been seen, so an edge is enough; and a kernel that goes down
    // need not wait for a level.
    let [low, high] = layout::SCI_IRQ.to_le_bytes();
    madt.append_slice(&[2, 10, 0, low, low, high, 0, 0, 0x5, 0]);
    // §5.2.12.7: type, length, all processors, no flags, LINT1 is the NMI.
    madt.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    madt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    fn table(memory: &GuestMemory, address: u64) -> Vec<u8> {
        let length: u32 = memory.read_obj(GuestAddress(address + 4)).unwrap();
        let mut bytes = vec![0; length as usize];
        memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    #[test]
    fn every_table_can_be_reached_from_the_root_and_sums_to_zero() {
        let memory = memory::reserve(64).unwrap();
        let rsdp = write(&memory, 3).unwrap();
        let mut root = [0; 36];
        memory.read_slice(&mut root, GuestAddress(rsdp)).unwrap();
        assert_eq!(&root[..8], b"RSD PTR ");
        assert_eq!(root.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b)), 0);
        let xsdt = table(&memory, u64::from_le_bytes(root[24..32].try_into().unwrap()));
        let mut found = Vec::new();
        for entry in xsdt[36..].chunks(8) {
            let bytes = table(&memory, u64::from_le_bytes(entry.try_into().unwrap()));
            assert_eq!(bytes.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b)), 0);
            found.push(String::from_utf8(bytes[..4].to_vec()).unwrap());
            if bytes.starts_with(b"FACP") {
                let dsdt = table(&memory, u64::from_le_bytes(bytes[140..148].try_into().unwrap()));
                assert!(dsdt.starts_with(b"DSDT"));
                assert_eq!(dsdt.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b)), 0);
            }
        }
        assert_eq!(found, ["FACP", "APIC", "MCFG"]);
    }

    #[test]
    fn there_is_one_local_apic_a_processor() {
        let memory = bytes(&madt(3));
        let apics = memory[44..].chunks(8).take_while(|entry| entry[0] == 0).count();
        assert_eq!(apics, 3);
    }
}
