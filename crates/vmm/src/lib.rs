//! The virtual machine monitor: one process, one guest.
//!
//! ```text
//! cli → config → vm: memory, boot (kernel, initrd), acpi, devices, vcpu
//!                 └→ monitor: a thread a vCPU, a thread a network card's queue pair (vnet-virtio),
//!                    and the main thread, which waits for signals, the time limit, netd's events
//!                    and the guest's end
//!                     └→ outcome: exit code and report
//! ```
//!
//! | module | subject |
//! |---|---|
//! | [`layout`] | where everything is in the guest's address space |
//! | [`memory`] | guest memory |
//! | [`boot`] | the kernel's file, and the protocols by which kernels are booted |
//! | [`acpi`] | the tables |
//! | [`cpuid`], [`vcpu`] | processors |
//! | [`devices`] | what answers on ports and in memory; the paravirtual wait register |
//! | [`disk`] | disk images |
//! | [`irq`] | message-signalled interrupts to KVM |
//! | [`jail`] | what the process gives up before a guest runs |
//! | [`net`] | where taps come from: netd, or whoever started us |
//! | [`vm`], [`monitor`] | putting a machine together, and watching it |
//! | [`outcome`], [`report`] | how it ended |

pub mod acpi;
pub mod boot;
pub mod cli;
pub mod cpuid;
pub mod devices;
pub mod disk;
pub mod irq;
pub mod jail;
pub mod layout;
pub mod memory;
pub mod monitor;
pub mod net;
pub mod outcome;
pub mod report;
pub mod vcpu;
pub mod vm;
