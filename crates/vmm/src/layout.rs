//! Where things are in the guest's physical memory and I/O space.
//!
//! ```text
//! 0x0000_0000  RAM; boot data in its first 128 KiB (see below)
//! 0x000a_0000  nothing (the legacy video hole)
//! 0x000e_0000  ACPI tables
//! 0x0010_0000  RAM: the kernel, and the initrd at its end
//! 0xb000_0000  PCI configuration space (ECAM), one bus; RAM ends here at the latest
//! 0xc000_0000  PCI BARs
//! 0xfec0_0000  I/O APIC, local APIC, and the pages that KVM wants for itself
//! 0x1_0000_0000  the rest of RAM
//! ```

/// Segment descriptors for Linux' 64-bit entry.
pub const BOOT_GDT: u64 = 0x5000;
/// PVH start info.
pub const START_INFO: u64 = 0x6000;
/// PVH list of modules: the initrd, where there is one.
pub const MODULES: u64 = 0x6800;
/// PVH memory map.
pub const MEMORY_MAP: u64 = 0x7000;
/// Linux' zero page.
pub const ZERO_PAGE: u64 = 0x8000;
/// Six pages of page tables for Linux' 64-bit entry.
pub const BOOT_PAGES: u64 = 0x9000;
/// The kernel's command line, NUL-terminated.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Bytes that a command line may have with its NUL: Linux' own bound (`COMMAND_LINE_SIZE`).
pub const COMMAND_LINE_MAX: usize = 2048;
/// End of the conventional memory.
pub const LOW_RAM_END: u64 = 0xa_0000;
/// The ACPI tables, the root pointer first.
pub const ACPI: u64 = 0xe_0000;
/// End of the area for the ACPI tables.
pub const ACPI_END: u64 = 0x10_0000;
/// Where kernels may begin.
pub const HIGH_RAM: u64 = 0x10_0000;
/// Memory-mapped PCI configuration space: one bus, 4 KiB a function. RAM below 4 GiB ends here.
pub const ECAM: u64 = 0xb000_0000;
/// Bytes of [`ECAM`].
pub const ECAM_SIZE: u64 = 1 << 20;
/// PCI BARs.
pub const PCI_WINDOW: u64 = 0xc000_0000;
/// Last byte of the window for BARs.
pub const PCI_WINDOW_LAST: u64 = 0xfebf_ffff;
/// The I/O APIC's registers.
pub const IO_APIC: u32 = 0xfec0_0000;
/// The local APICs' registers.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// A page that KVM on Intel uses for real mode, below the TSS pages.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that KVM on Intel uses for real mode.
pub const KVM_TSS: usize = 0xfffb_d000;
/// Where RAM goes on above the hole.
pub const RAM_ABOVE_4G: u64 = 1 << 32;

/// COM1.
pub const SERIAL_PORT: u16 = 0x3f8;
/// COM1's interrupt.
pub const SERIAL_IRQ: u32 = 4;
/// ACPI PM1a event block: status and enable, two bytes each.
pub const PM1A_EVENT: u16 = 0x600;
/// ACPI PM1a control: two bytes.
pub const PM1A_CONTROL: u16 = 0x604;
/// ACPI timer: four bytes.
pub const PM_TIMER: u16 = 0x608;
/// The interrupt that ACPI raises when the power button is pressed.
pub const SCI_IRQ: u16 = 9;
/// The reset register, as in Intel's chipsets.
pub const RESET_PORT: u16 = 0xcf9;
/// The value that resets.
pub const RESET_VALUE: u8 = 0x06;
/// Where a guest leaves its verdict: a 32-bit or 8-bit write ends the machine with that status.
pub const VERDICT_PORT: u16 = 0xf4;
/// Where a guest says that it has panicked, as QEMU's pvpanic takes it.
pub const PANIC_PORT: u16 = 0x505;
/// The paravirtual wait register, see [`crate::devices::wait`].
pub const WAIT_PORT: u16 = 0x5658;
/// The first interrupt number that is routed as a message; those below are the I/O APIC's.
pub const FIRST_MSI_GSI: u32 = 24;
