//! A stock kernel boots, sees what it was given, and ends in each of the ways.

use crate::machine::{Kernel, Machine};

const LOOK: &str = "
echo cpus $(grep -c ^processor /proc/cpuinfo)
echo siblings $(sed -n 's/^siblings.*: //p' /proc/cpuinfo | sort -u)
echo cores $(sed -n 's/^cpu cores.*: //p' /proc/cpuinfo | sort -u)
echo memory $(sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo)
echo clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)
echo complaints $(dmesg | grep -c -i -e 'acpi.*error' -e 'firmware bug' -e 'unchecked msr')
";

#[test]
fn an_elf_kernel_boots() {
    let ended = Machine::new("elf").kernel(Kernel::Elf).run(LOOK).well();
    assert_eq!(ended.value("cpus"), "1");
}

#[test]
fn a_kernel_as_it_is_shipped_boots_and_keeps_time_by_kvms_clock() {
    let ended = Machine::new("bzimage").run(LOOK).well();
    assert_eq!((ended.value("cpus"), ended.value("clock")), ("1", "kvm-clock"));
    assert_eq!(ended.value("complaints"), "0", "{ended}");
}

#[test]
fn four_processors_come_up_as_cores_of_one_package() {
    let ended = Machine::new("smp4").with(&["--cpus", "4"]).run(LOOK).well();
    for word in ["cpus", "siblings", "cores"] {
        assert_eq!(ended.value(word), "4", "{ended}");
    }
}

#[test]
fn sixteen_processors_come_up() {
    let ended = Machine::new("smp16").with(&["--cpus", "16", "--memory", "512"]).run(LOOK).well();
    assert_eq!(ended.value("cpus"), "16");
}

#[test]
fn memory_goes_on_above_the_32_bit_hole() {
    // The pages that nobody touches cost the outer machine nothing.
    let ended = Machine::new("memory").with(&["--memory", "6144"]).run(LOOK).well();
    let kib: u64 = ended.value("memory").parse().unwrap();
    assert!(kib > 5800 << 10, "{ended}");
}
