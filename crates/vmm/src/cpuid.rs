//! What CPUID tells the guest: what KVM supports, the machine's topology, and how fast the TSC
//! runs, so that a kernel need not measure it.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// The hypervisor leaf with frequencies in kHz that VMware began and others took over.
const TIMING_LEAF: u32 = 0x4000_0010;
/// The first hypervisor leaf: its EAX is the last one.
const HYPERVISOR_LEAF: u32 = 0x4000_0000;
/// KVM's local APIC timer counts nanoseconds: its bus runs at 1 GHz.
const APIC_BUS_KHZ: u32 = 1_000_000;

/// The answers for vCPU `cpu` of `cpus`, from what KVM `supported`. `tsc_khz` is 0 if unknown.
#[must_use]
pub fn build(supported: &CpuId, cpu: u8, cpus: u8, tsc_khz: u32) -> Vec<kvm_cpuid_entry2> {
    let mut entries: Vec<_> = supported
        .as_slice()
        .iter()
        .filter(|entry| !matches!(entry.function, 0xb | 0x1f | TIMING_LEAF))
        .copied()
        .collect();
    for entry in &mut entries {
        adjust(entry, cpu, cpus, tsc_khz != 0);
    }
    // Extended topology: one thread a core, all cores in one package. Leaf 0x1f would say the
    // same and is left out, so that kernels use this one.
    let bits = u32::from(cpus).next_power_of_two().trailing_zeros();
    let id = u32::from(cpu);
    entries.push(leaf(0xb, 0, [0, 1, 1 << 8, id]));
    entries.push(leaf(0xb, 1, [bits, cpus.into(), 2 << 8 | 1, id]));
    entries.push(leaf(0xb, 2, [0, 0, 2, id]));
    if tsc_khz != 0 {
        let entry = leaf(TIMING_LEAF, 0, [tsc_khz, APIC_BUS_KHZ, 0, 0]);
        entries.push(kvm_cpuid_entry2 { flags: 0, ..entry });
    }
    entries
}

fn leaf(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    let flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, ..Default::default() }
}

fn adjust(entry: &mut kvm_cpuid_entry2, cpu: u8, cpus: u8, has_timing: bool) {
    const HYPERVISOR: u32 = 1 << 31;
    const TSC_DEADLINE: u32 = 1 << 24;
    const MULTITHREADING: u32 = 1 << 28;
    let id = u32::from(cpu);
    match entry.function {
        0 => entry.eax = entry.eax.max(0xb),
        1 => {
            entry.ebx = entry.ebx & 0x0000_ffff | id << 24 | u32::from(cpus) << 16;
            entry.ecx |= HYPERVISOR | TSC_DEADLINE;
            entry.edx =
                if cpus > 1 { entry.edx | MULTITHREADING } else { entry.edx & !MULTITHREADING };
        }
        // Intel's caches: the first two levels of one core, the rest of the package.
        4 if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 7;
            let sharing = if level < 3 { 0 } else { u32::from(cpus) - 1 };
            entry.eax = entry.eax & 0x3fff | sharing << 14 | (u32::from(cpus) - 1) << 26;
        }
        // No performance counters: they are the host's.
        0xa => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        HYPERVISOR_LEAF if has_timing => entry.eax = entry.eax.max(TIMING_LEAF),
        // AMD: number of threads less one, bits of the APIC id that number them.
        0x8000_0008 => {
            let bits = u32::from(cpus).next_power_of_two().trailing_zeros();
            entry.ecx = entry.ecx & !0xf0ff | bits << 12 | (u32::from(cpus) - 1);
        }
        0x8000_001d if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 7;
            let sharing = if level < 3 { 0 } else { u32::from(cpus) - 1 };
            entry.eax = entry.eax & 0x3fff | sharing << 14;
        }
        0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (id, id & 0xff, 0),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported() -> CpuId {
        let entry = |function| kvm_cpuid_entry2 { function, ..Default::default() };
        CpuId::from_entries(&[entry(0), entry(1), entry(0xb), entry(HYPERVISOR_LEAF)]).unwrap()
    }

    fn find(entries: &[kvm_cpuid_entry2], function: u32) -> Vec<kvm_cpuid_entry2> {
        entries.iter().filter(|entry| entry.function == function).copied().collect()
    }

    #[test]
    fn each_cpu_sees_its_own_number_and_all_of_them() {
        let entries = build(&supported(), 2, 3, 0);
        assert_eq!(find(&entries, 1)[0].ebx >> 16, 2 << 8 | 3);
        let topology = find(&entries, 0xb);
        assert_eq!(topology.len(), 3);
        assert_eq!((topology[1].eax, topology[1].ebx), (2, 3));
        assert!(topology.iter().all(|entry| entry.edx == 2));
    }

    #[test]
    fn the_speed_of_the_tsc_is_told_where_it_is_known() {
        let entries = build(&supported(), 0, 1, 2_596_094);
        assert_eq!(find(&entries, HYPERVISOR_LEAF)[0].eax, TIMING_LEAF);
        assert_eq!(find(&entries, TIMING_LEAF)[0].eax, 2_596_094);
        assert!(find(&build(&supported(), 0, 1, 0), TIMING_LEAF).is_empty());
    }
}
