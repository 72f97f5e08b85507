//! The two things that the guest needs of ACPI: where PCI's configuration space is, and how to
//! power off. No AML is interpreted.

use crate::phys;
use crate::power::PowerOff;
use crate::start_info::StartInfo;

/// Tables that are looked at, and bytes of the largest one.
const TABLES: u64 = 64;
const TABLE_BYTES: u32 = 1 << 20;

/// What was found; see the fields.
#[derive(Clone, Copy, Default)]
pub(crate) struct Acpi {
    /// Base of PCI's memory-mapped configuration space for bus 0 (MCFG), or 0.
    pub(crate) ecam: u64,
    /// I/O port of the 3.579545 MHz timer (FADT), or 0.
    pub(crate) pm_timer: u16,
    /// How to power off.
    pub(crate) power_off: PowerOff,
}

impl Acpi {
    /// Reads the tables that the start info, or else the BIOS area, points to.
    pub(crate) fn read(info: &StartInfo) -> Self {
        let mut found = Self::default();
        let Some(rsdp) = (if info.rsdp != 0 { Some(info.rsdp) } else { scan_bios_area() }) else {
            return found;
        };
        // ACPI 6.4 §5.2.5.3: from revision 2 on there is an XSDT, with wide entries.
        let revision = phys::read::<u8>(rsdp + 15).unwrap_or(0);
        let xsdt = if revision >= 2 { phys::read::<u64>(rsdp + 24).unwrap_or(0) } else { 0 };
        let (root, width) = if xsdt != 0 {
            (xsdt, 8)
        } else {
            (u64::from(phys::read::<u32>(rsdp + 16).unwrap_or(0)), 4)
        };
        let entries = u64::from(table_length(root).saturating_sub(36)) / width;
        for index in 0..entries.min(TABLES) {
            let at = root + 36 + index * width;
            let table = if width == 8 {
                phys::read::<u64>(at).unwrap_or(0)
            } else {
                u64::from(phys::read::<u32>(at).unwrap_or(0))
            };
            match phys::bytes(table, 4) {
                Some(b"MCFG") => found.read_mcfg(table),
                Some(b"FACP") => found.read_fadt(table),
                _ => {}
            }
        }
        found
    }

    fn read_mcfg(&mut self, table: u64) {
        // PCI Firmware 3.0 §4.1.2: base, segment and first bus of the first entry.
        let length = table_length(table);
        let segment = phys::read::<u16>(table + 52).unwrap_or(1);
        let first_bus = phys::read::<u8>(table + 54).unwrap_or(1);
        if length >= 60 && segment == 0 && first_bus == 0 {
            self.ecam = phys::read(table + 44).unwrap_or(0);
        }
    }

    /// ACPI 6.4 §5.2.9.
    fn read_fadt(&mut self, table: u64) {
        let length = table_length(table);
        self.pm_timer = phys::read::<u32>(table + 76).unwrap_or(0) as u16;
        let flags = phys::read::<u32>(table + 112).unwrap_or(0);
        let mut dsdt = u64::from(phys::read::<u32>(table + 40).unwrap_or(0));
        if length >= 148
            && let Some(wide) = phys::read::<u64>(table + 140)
            && wide != 0
        {
            dsdt = wide;
        }
        // Without a DSDT that says otherwise: the value of most chipsets' emulations.
        let sleep_type = sleep_type(dsdt).unwrap_or(0);
        const HW_REDUCED_ACPI: u32 = 1 << 20;
        if flags & HW_REDUCED_ACPI != 0 && length >= 268 {
            let space = phys::read::<u8>(table + 244).unwrap_or(0);
            let address = phys::read::<u64>(table + 248).unwrap_or(0);
            self.power_off = PowerOff::sleep_register(space, address, sleep_type);
        } else {
            let port = phys::read::<u32>(table + 64).unwrap_or(0) as u16;
            self.power_off = PowerOff::pm1(port, sleep_type);
        }
    }
}

/// The SLP_TYP of S5: the first element of the package `\_S5_` (ACPI 6.4 §7.4.2), found by its
/// name in the DSDT's bytes.
fn sleep_type(dsdt: u64) -> Option<u8> {
    if phys::bytes(dsdt, 4)? != b"DSDT" {
        return None;
    }
    let aml = phys::bytes(dsdt, table_length(dsdt) as usize)?;
    let at = aml.windows(4).position(|window| window == b"_S5_")?;
    // §20.2: PackageOp, PkgLength (its two top bits say how many bytes follow), NumElements.
    let rest = aml.get(at + 4..)?;
    if *rest.first()? != 0x12 {
        return None;
    }
    let length_bytes = 1 + usize::from(*rest.get(1)? >> 6);
    let element = rest.get(1 + length_bytes + 1..)?;
    match *element.first()? {
        0x0a => element.get(1).copied(), // BytePrefix
        small @ (0 | 1) => Some(small),  // ZeroOp, OneOp
        _ => None,
    }
}

/// The length that a table's header gives; 0 if it's absurd.
fn table_length(table: u64) -> u32 {
    let length = phys::read::<u32>(table.wrapping_add(4)).unwrap_or(0);
    if (36..=TABLE_BYTES).contains(&length) { length } else { 0 }
}

/// The root pointer in the BIOS area (ACPI 6.4 §5.2.5.1).
fn scan_bios_area() -> Option<u64> {
    (0xe_0000..0x10_0000).step_by(16).find(|&at| phys::bytes(at, 8) == Some(b"RSD PTR "))
}
