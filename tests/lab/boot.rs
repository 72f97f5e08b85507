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

#[test]
fn the_power_button_reaches_the_guest_and_it_shuts_down() {
    // What systemd's logind or acpid do: wait for the key, then switch off.
    let work = "
event=$(grep -A 4 'Power Button' /proc/bus/input/devices | sed -n 's/.*\\(event[0-9]*\\).*/\\1/p')
exec 3</dev/input/$event
echo waits on $event
dd of=/dev/null bs=24 count=1 <&3 2>/dev/null
echo pressed
";
    let machine = Machine::new("button").start(work);
    machine.wait_for("waits on event");
    nix::sys::signal::kill(machine.pid(), nix::sys::signal::Signal::SIGPWR).unwrap();
    machine.end().well().says("pressed");
}

#[test]
fn a_panic_is_reported_as_one() {
    let work = "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 60";
    let ended = Machine::new("panic").append("panic=30").run(work);
    assert_eq!(ended.report["outcome"], "crashed", "{ended}");
    assert_eq!(ended.report["reason"], "the guest's kernel panicked", "{ended}");
    assert_eq!(ended.status.code(), Some(4));
    ended.says("sysrq triggered crash");
}

#[test]
fn a_reboot_is_told_apart() {
    let ended = Machine::new("reboot").run("reboot -f");
    assert_eq!(ended.report["outcome"], "reset", "{ended}");
}

#[test]
fn a_virtio_console_takes_and_gives_text() {
    let work = "
exec </dev/hvc0 >/dev/hvc0 2>&1
echo hello from hvc0
read line
echo got $line
";
    let mut machine = Machine::new("console")
        .append("console=hvc0")
        .with(&["--serial", "/dev/null", "--console", "stdio"])
        .start(work);
    machine.wait_for("hello from hvc0");
    machine.type_in("typed\n");
    let ended = machine.end().well();
    assert_eq!(ended.value("got"), "typed");
}

#[test]
fn the_source_of_entropy_is_the_kernels() {
    let work = "
echo rng $(cat /sys/class/misc/hw_random/rng_current)
echo bytes $(dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c)
";
    let ended = Machine::new("rng").run(work).well();
    assert_eq!(ended.value("rng"), "virtio_rng.0");
    assert_eq!(ended.value("bytes"), "256");
}

/// For `scripts/lab --all`.
#[test]
#[ignore = "takes minutes"]
fn a_guest_that_is_started_again_and_again_always_comes_up_and_goes_down() {
    for number in 0..25 {
        let cpus = if number % 2 == 0 { "1" } else { "2" };
        let name = format!("again-{number}");
        Machine::new(&name).with(&["--cpus", cpus]).run("echo up\n").well().says("up");
    }
}
