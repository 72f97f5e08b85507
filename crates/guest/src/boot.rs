//! From the VMM's hand-over to ring 3.
//!
//! ```text
//! PVH note → vnet_guest_start   32 bits, paging off, ebx = hvm_start_info
//!          → long mode          prebuilt page tables: the low 512 GiB, user-accessible
//!          → CPUID facts        ring 3 would see the host's on some hypervisors
//!          → iretq              ring 3, all ports allowed, interrupts off
//!          → rust_main
//! ```
//!
//! All of it in some seventy instructions, because there are hypervisors that emulate ring 0 one
//! instruction at a time but run ring 3 at full speed. Everything else, port and device access
//! included, happens in ring 3. Ports are allowed by the TSS's bitmap, not by IOPL 3: a hypervisor
//! without hardware support (kvm_pvm) loses the IOPL when ring 3 takes its first fault. Interrupts
//! stay off for ever and there is no IDT: an exception is a triple fault, which every VMM reports.

use core::arch::global_asm;
use core::ptr::addr_of;

/// What ring 0 read out of CPUID and set up for ring 3; filled in by the assembly below.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct BootFacts {
    /// CPUID 0x15: TSC to crystal ratio (denominator, numerator) and the crystal's Hz, or zeros.
    pub(crate) crystal: [u32; 3],
    /// CPUID 0x16 eax: base frequency of the processor in MHz, or 0.
    pub(crate) base_mhz: u32,
    /// CPUID 0x40000010 eax: the TSC's kHz as the hypervisor gives it, or 0.
    pub(crate) hypervisor_tsc_khz: u32,
    /// CPUID 0x40000001 eax if the hypervisor is KVM, else 0: its features.
    pub(crate) kvm_features: u32,
    /// CPUID 1 ecx.
    pub(crate) features: u32,
}

/// The clock page that KVM fills in once its MSR is written (`pvclock_vcpu_time_info`).
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct PvClock {
    pub(crate) version: u32,
    pub(crate) pad: u32,
    pub(crate) tsc_timestamp: u64,
    pub(crate) system_time: u64,
    pub(crate) tsc_to_system_mul: u32,
    pub(crate) tsc_shift: i8,
    pub(crate) flags: u8,
    pub(crate) pad2: [u8; 2],
}

unsafe extern "C" {
    static vnet_guest_facts: BootFacts;
    static vnet_guest_pvclock: PvClock;
}

/// The facts that ring 0 left.
pub(crate) fn facts() -> BootFacts {
    // SAFETY: the assembly wrote it before rust_main; nothing writes it afterwards.
    unsafe { addr_of!(vnet_guest_facts).read_volatile() }
}

/// The clock page as it is now: all zeros where the hypervisor isn't KVM.
pub(crate) fn pvclock() -> PvClock {
    // SAFETY: always mapped and aligned; the hypervisor may write it at any time, hence volatile.
    unsafe { addr_of!(vnet_guest_pvclock).read_volatile() }
}

global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .align 4
    .long 4                         # name: "Xen" with its NUL
    .long 8
    .long 18                        # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad vnet_guest_start

    .section .text.boot, "ax", @progbits
    .code32
    .globl vnet_guest_start
vnet_guest_start:
    cli
    cld
    movl $0x620, %eax               # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx          # EFER: long mode
    movl $0x100, %eax
    xorl %edx, %edx
    wrmsr
    movl $0x80000033, %eax          # PG, NE, ET, MP, PE: the FPU is there and not emulated
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $0x08, $boot_long

    .code64
boot_long:
    movl %ebx, %r12d                # hvm_start_info, which cpuid would overwrite
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    cpuid
    movl %eax, %esi                 # highest basic leaf
    movl $1, %eax
    cpuid
    movl %ecx, vnet_guest_facts+24
    testl %ecx, %ecx
    jns boot_basic_leaves           # bit 31 clear: no hypervisor leaves
    movl $0x40000000, %eax
    cpuid
    movl %eax, %edi
    cmpl $0x4b4d564b, %ebx          # "KVMK" of "KVMKVMKVM"
    jne boot_timing_leaf
    movl $0x40000001, %eax
    cpuid
    movl %eax, vnet_guest_facts+20
    testl $8, %eax                  # KVM_FEATURE_CLOCKSOURCE2
    jz boot_timing_leaf
    movl $0x4b564d01, %ecx          # MSR_KVM_SYSTEM_TIME_NEW
    movl $vnet_guest_pvclock+1, %eax
    xorl %edx, %edx
    wrmsr
boot_timing_leaf:
    cmpl $0x40000010, %edi
    jb boot_basic_leaves
    movl $0x40000010, %eax
    cpuid
    movl %eax, vnet_guest_facts+16
boot_basic_leaves:
    cmpl $0x15, %esi
    jb boot_leave
    movl $0x15, %eax
    xorl %ecx, %ecx
    cpuid
    movl %eax, vnet_guest_facts
    movl %ebx, vnet_guest_facts+4
    movl %ecx, vnet_guest_facts+8
    cmpl $0x16, %esi
    jb boot_leave
    movl $0x16, %eax
    cpuid
    movl %eax, vnet_guest_facts+12
boot_leave:
    movl $boot_tss, %eax
    movw %ax, boot_tss_descriptor+2
    shrl $16, %eax
    movb %al, boot_tss_descriptor+4
    movb %ah, boot_tss_descriptor+7
    movl $0x28, %eax
    ltr %ax
    movl $boot_stack, %esp
    pushq $0x1b                     # ss: data, ring 3
    pushq $boot_user_stack
    pushq $0x2                      # rflags: interrupts off
    pushq $0x23                     # cs: 64-bit code, ring 3
    pushq $boot_ring3
    iretq

boot_ring3:
    movl %r12d, %edi
    xorl %ebp, %ebp
    call rust_main
    ud2

    .section .data.boot, "aw", @progbits
    .align 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        # 0x08: code, 64 bits, ring 0
    .quad 0                         # 0x10
    .quad 0x00cff3000000ffff        # 0x18: data, ring 3
    .quad 0x00affb000000ffff        # 0x20: code, 64 bits, ring 3
boot_tss_descriptor:
    .quad 0x0000890000002068        # 0x28: available TSS; its base is filled in
    .quad 0
boot_gdt_pointer:
    .word boot_gdt_pointer - boot_gdt - 1
    .quad boot_gdt
    .align 8
    .globl vnet_guest_facts
vnet_guest_facts:
    .skip 28
    .align 64
    .globl vnet_guest_pvclock
vnet_guest_pvclock:
    .skip 64
    .skip 64                        # ring 0's stack: one interrupt frame
boot_stack:

    # All ports allowed: a bitmap of zeros.
    .align 16
boot_tss:
    .skip 102
    .word 104
    .skip 8192
    .byte 0xff

    # Accessed and dirty are set, so that the processor never writes to them.
    .align 4096
boot_pml4:
    .quad boot_pdpt + 0x67
    .fill 511, 8, 0
boot_pdpt:
    .quad boot_pd + 0x67
    .quad boot_pd + 0x1067
    .quad boot_pd + 0x2067
    .quad boot_pd + 0x3067
    .set gigabyte, 4                # a 64-bit BAR may lie above the low 4 GiB
    .rept 508
    .quad (gigabyte << 30) + 0xe7
    .set gigabyte, gigabyte + 1
    .endr
boot_pd:
    .set page, 0                    # 2 MiB each
    .rept 2048
    .quad (page << 21) + 0xe7
    .set page, page + 1
    .endr

    .section .bss.boot, "aw", @nobits
    .align 16
    .skip 0x20000                   # 128 KiB
boot_user_stack:

    .text
"#,
    options(att_syntax)
);
