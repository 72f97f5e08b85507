//! The state in which vCPUs begin: the first one as its kernel's boot protocol says; the others
//! wait for INIT and SIPI.
//!
//! PVH: 32-bit protected mode, no paging, EBX points to the start info. Linux: 64-bit mode, pages
//! mapped to themselves, RSI points to the zero page.

use kvm_bindings::{CpuId, Msrs, kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;

use crate::boot::kernel::{Kernel, Protocol};
use crate::{cpuid, layout};

/// Why a vCPU cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {what} of vCPU {cpu}")]
pub struct SetupError {
    what: &'static str,
    cpu: u8,
    #[source]
    source: kvm_ioctls::Error,
}

/// Sets CPUID (from what KVM `supported`), MSRs and the local APIC of `vcpu`, number `cpu` of
/// `cpus`.
///
/// # Errors
/// KVM refuses one of them.
pub fn common(supported: &CpuId, vcpu: &VcpuFd, cpu: u8, cpus: u8) -> Result<(), SetupError> {
    let failed = |what| move |source| SetupError { what, cpu, source };
    // An unknown frequency is left out; the kernel then measures it.
    let tsc_khz = vcpu.get_tsc_khz().unwrap_or(0);
    let entries = cpuid::build(supported, cpu, cpus, tsc_khz);
    let invalid = || kvm_ioctls::Error::new(libc::E2BIG);
    let entries =
        CpuId::from_entries(&entries).map_err(|_| failed("the CPUID answers")(invalid()))?;
    vcpu.set_cpuid2(&entries).map_err(failed("the CPUID answers"))?;
    set_msrs(vcpu).map_err(failed("the MSRs"))?;
    let mut lapic = vcpu.get_lapic().map_err(failed("the local APIC"))?;
    wire_lapic(&mut lapic);
    vcpu.set_lapic(&lapic).map_err(failed("the local APIC"))
}

/// Fast strings on; memory is write-back unless page tables say otherwise.
fn set_msrs(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    const MISC_ENABLE: u32 = 0x1a0;
    const MTRR_DEFAULT_TYPE: u32 = 0x2ff;
    const MTRR_ON_WRITE_BACK: u64 = 1 << 11 | 6;
    let msr = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let list = [msr(MISC_ENABLE, 1), msr(MTRR_DEFAULT_TYPE, MTRR_ON_WRITE_BACK)];
    let list = Msrs::from_entries(&list).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))?;
    // KVM stops at the first MSR that it doesn't know; both are comforts.
    vcpu.set_msrs(&list).map(drop)
}

/// LINT0 takes the PIC's interrupts, LINT1 the NMI, as a PC's firmware leaves them.
fn wire_lapic(lapic: &mut kvm_lapic_state) {
    const LVT_LINT0: usize = 0x350;
    const LVT_LINT1: usize = 0x360;
    const MODE_EXTINT: u32 = 0x700;
    const MODE_NMI: u32 = 0x400;
    for (offset, mode) in [(LVT_LINT0, MODE_EXTINT), (LVT_LINT1, MODE_NMI)] {
        for (byte, value) in lapic.regs[offset..].iter_mut().zip(mode.to_le_bytes()) {
            *byte = value.cast_signed();
        }
    }
}

/// Makes `vcpu` begin where `kernel` does, in the state that its protocol wants.
///
/// # Errors
/// KVM refuses the registers.
pub fn first(vcpu: &VcpuFd, kernel: &Kernel) -> Result<(), SetupError> {
    let failed = |what| move |source| SetupError { what, cpu: 0, source };
    let mut sregs = vcpu.get_sregs().map_err(failed("the system registers"))?;
    let mut regs = kvm_regs { rip: kernel.entry, rflags: 2, ..Default::default() };
    match kernel.protocol {
        Protocol::Pvh => {
            protected_mode(&mut sregs);
            regs.rbx = layout::START_INFO;
        }
        Protocol::Linux(_) => {
            long_mode(&mut sregs);
            regs.rsi = layout::ZERO_PAGE;
        }
    }
    vcpu.set_sregs(&sregs).map_err(failed("the system registers"))?;
    vcpu.set_regs(&regs).map_err(failed("the registers"))
}

const PROTECTED_MODE: u64 = 1;
const EXTENSION_TYPE: u64 = 0x10;
const CODE: u8 = 0xb;
const DATA: u8 = 0x3;
const TSS: u8 = 0xb;

/// A 32-bit segment of all memory.
fn flat(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

fn set_segments(sregs: &mut kvm_sregs, code: kvm_segment, data: u16) {
    sregs.cs = code;
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = flat(data, DATA);
    }
    sregs.tr = kvm_segment { limit: 0x67, db: 0, s: 0, g: 0, ..flat(0x20, TSS) };
    sregs.idt.limit = 0;
}

fn protected_mode(sregs: &mut kvm_sregs) {
    set_segments(sregs, flat(0x8, CODE), 0x10);
    sregs.gdt.limit = 0;
    sregs.cr0 = PROTECTED_MODE | EXTENSION_TYPE;
    sregs.cr3 = 0;
    sregs.cr4 = 0;
    sregs.efer = 0;
}

fn long_mode(sregs: &mut kvm_sregs) {
    const PAGING: u64 = 1 << 31;
    const PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
    const LONG_MODE_ENABLED_AND_ACTIVE: u64 = 1 << 8 | 1 << 10;
    set_segments(sregs, kvm_segment { db: 0, l: 1, ..flat(0x10, CODE) }, 0x18);
    sregs.gdt.base = layout::BOOT_GDT;
    sregs.gdt.limit = 0x1f;
    sregs.cr0 = PAGING | PROTECTED_MODE | EXTENSION_TYPE;
    sregs.cr3 = layout::BOOT_PAGES;
    sregs.cr4 = PHYSICAL_ADDRESS_EXTENSION;
    sregs.efer = LONG_MODE_ENABLED_AND_ACTIVE;
}
