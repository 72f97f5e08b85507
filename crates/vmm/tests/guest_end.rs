//! How guests end, each in its own way, on the real `/dev/kvm`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail as loudly as the test"
)]

mod common;

use common::{LOAD, elf, file, run, vmm};
use serde_json::Value;

/// `mov dx, port`
fn port(port: u16) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high]
}

/// Writes a text to the serial port.
fn say(text: &str) -> Vec<u8> {
    let mut code = port(0x3f8);
    // mov al, byte; out dx, al
    code.extend(text.bytes().flat_map(|byte| [0xb0, byte, 0xee]));
    code
}

/// mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt
fn power_off() -> Vec<u8> {
    [port(0x604), vec![0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, 0xf4]].concat()
}

/// mov dx, port; mov al, value; out dx, al; hlt
fn out_byte(to: u16, value: u8) -> Vec<u8> {
    [port(to), vec![0xb0, value, 0xee, 0xf4]].concat()
}

/// Runs a guest of `code`; returns the exit code and the report.
fn report(code: &[u8], more: &[&str]) -> (Option<i32>, Value) {
    let target = file(b"");
    let path = target.to_str().unwrap();
    let output = run(code, &[&["--report", path], more].concat());
    let text = std::fs::read_to_string(path).unwrap();
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}")))
}

#[test]
fn a_guest_that_switches_off_ends_well_and_its_output_is_there() {
    let output = run(&[say("hello\n"), power_off()].concat(), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stdout, b"hello\n");
}

#[test]
fn a_string_instruction_writes_every_byte_of_the_string() {
    let text = b"many bytes, one instruction\n";
    // cld; mov esi, text; mov ecx, length; mov dx, 0x3f8; rep outsb; then off.
    let mut code = vec![0xfc, 0xbe];
    let code_length = 1 + 5 + 5 + 4 + 2 + power_off().len();
    code.extend((LOAD as u32 + code_length as u32).to_le_bytes());
    code.push(0xb9);
    code.extend((text.len() as u32).to_le_bytes());
    code.extend(port(0x3f8));
    code.extend([0xf3, 0x6e]);
    code.extend(power_off());
    assert_eq!(code.len(), code_length);
    code.extend(text);
    let output = run(&code, &[]);
    assert_eq!(output.stdout, text, "{output:?}");
}

#[test]
fn a_reset_ends_well_and_is_told_apart() {
    for code in [out_byte(0xcf9, 6), out_byte(0x64, 0xfe)] {
        let (exit, report) = report(&code, &[]);
        assert_eq!((exit, &report["outcome"]), (Some(0), &Value::from("reset")));
    }
}

#[test]
fn a_guests_verdict_decides() {
    let (exit, good) = report(&out_byte(0xf4, 0), &[]);
    assert_eq!((exit, &good["outcome"]), (Some(0), &Value::from("verdict")));
    let (exit, bad) = report(&out_byte(0xf4, 7), &[]);
    assert_eq!((exit, &bad["status"]), (Some(5), &Value::from(7)));
}

#[test]
fn a_triple_fault_is_a_crash_with_its_place() {
    // ud2, without an interrupt table.
    let (exit, report) = report(&[0x90, 0x0f, 0x0b], &[]);
    assert_eq!((exit, &report["outcome"]), (Some(4), &Value::from("crashed")), "{report}");
    assert!(report["registers"]["rip"].is_u64(), "{report}");
}

#[test]
fn a_guest_that_spins_is_hung_after_its_time() {
    let (exit, report) = report(&[0x90, 0xeb, 0xfe], &["--timeout", "1"]);
    assert_eq!((exit, &report["outcome"]), (Some(3), &Value::from("hung")));
    assert_eq!(report["vcpus"][0]["rip"], LOAD + 1, "{report}");
}

#[test]
fn a_guest_whose_output_nobody_reads_can_be_stopped() {
    // mov dx, 0x3f8; mov al, 'x'; back: out dx, al; jmp back
    let kernel = file(&elf(&[port(0x3f8), vec![0xb0, b'x', 0xee, 0xeb, 0xfd]].concat()));
    let mut child = common::command()
        .args(["--kernel", kernel.to_str().unwrap(), "--timeout", "2", "--quiet"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.stdout.take();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    drop(output);
}

#[test]
fn a_guest_that_waits_for_ever_in_the_wait_register_is_hung_after_its_time() {
    // mov dx, 0x5658; mov eax, -1; out dx, eax; jmp back
    let code = [port(0x5658), vec![0xb8, 0xff, 0xff, 0xff, 0xff, 0xef, 0xeb, 0xfd]].concat();
    let (exit, report) = report(&code, &["--timeout", "1"]);
    assert_eq!((exit, &report["outcome"]), (Some(3), &Value::from("hung")));
    assert_eq!(report["exits"]["waits"], 1);
}

#[test]
fn absent_ports_read_as_ones_and_the_wait_register_has_its_signature() {
    // in al, dx from a CMOS port; complain unless it is 0xff
    let mut code = port(0x71);
    code.extend([0xec, 0x3c, 0xff, 0x74, 0x08]);
    code.extend(out_byte(0xf4, 1));
    assert_eq!(code.len(), 17);
    // in eax, dx from 0x5658; cmp eax, "VNET"; je
    code.extend(port(0x5658));
    code.extend([0xed, 0x3d]);
    code.extend(0x564e_4554_u32.to_le_bytes());
    code.extend([0x74, 0x08]);
    code.extend(out_byte(0xf4, 2));
    code.extend(out_byte(0xf4, 0));
    let (exit, report) = report(&code, &[]);
    assert_eq!(exit, Some(0), "{report}");
}

#[test]
fn sigterm_stops_the_guest_and_is_reported() {
    let kernel = file(&elf(&[say("x"), vec![0xeb, 0xfe]].concat()));
    let target = file(b"");
    let mut child = common::command()
        .args(["--kernel", kernel.to_str().unwrap(), "--report", target.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The guest runs once its byte is here.
    let mut byte = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(6));
    let report = std::fs::read_to_string(&target).unwrap();
    assert!(report.contains("\"interrupted\"") && report.contains("SIGTERM"), "{report}");
}

#[test]
fn every_processor_can_be_started() {
    // A real-mode trampoline at 0x8000 says its number; the first processor sends INIT and SIPI
    // to all others, waits for the byte, and switches off.
    let trampoline = [0xba, 0xf8, 0x03, 0xb0, b'2', 0xee, 0xc6, 0x06, 0x00, 0x90, 0x01, 0xf4];
    let mut code = Vec::new();
    for (address, byte) in (0x8000_u32..).zip(trampoline) {
        // mov byte [address], byte
        code.extend([0xc6, 0x05]);
        code.extend(address.to_le_bytes());
        code.push(byte);
    }
    for command in [0x000c_4500_u32, 0x000c_4608] {
        // mov dword [0xfee00300], command: all but self
        code.extend([0xc7, 0x05]);
        code.extend(0xfee0_0300_u32.to_le_bytes());
        code.extend(command.to_le_bytes());
    }
    // wait: cmp byte [0x9000], 1; jne wait
    code.extend([0x80, 0x3d]);
    code.extend(0x9000_u32.to_le_bytes());
    code.extend([0x01, 0x75, 0xf7]);
    code.extend(power_off());
    let output = run(&code, &["--cpus", "2", "--timeout", "10"]);
    assert_eq!(output.stdout, b"2", "{output:?}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_cannot_be_a_kernel_is_refused_with_the_reason() {
    let good = elf(&power_off());
    let mut no_note = good.clone();
    // The note's type.
    no_note[64 + 2 * 56 + 8] = 17;
    let mut too_high = good.clone();
    too_high[64 + 56 + 24..][..8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    for (bytes, reason) in [
        (&b"#!/bin/sh\n"[..], "is no kernel"),
        (&[], "is no kernel"),
        (&good[..good.len() - 1], "truncated"),
        (&good[..70], "truncated"),
        (&no_note, "no PVH entry note"),
        (&too_high, "does not fit"),
    ] {
        let kernel = file(bytes);
        let output = vmm(&["--kernel", kernel.to_str().unwrap()]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(reason), "{reason}: {error}");
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    }
}

#[test]
fn wrong_amounts_and_missing_files_are_refused_with_the_way_out() {
    let kernel = file(&elf(&power_off()));
    let kernel = kernel.to_str().unwrap();
    for (arguments, reason) in [
        (vec!["--kernel", "/does/not/exist"], "cannot open the kernel /does/not/exist"),
        (vec!["--kernel", kernel, "--initrd", "/no/initrd"], "cannot read the initrd"),
        (vec!["--kernel", kernel, "--cpus", "0"], "1 to"),
        (vec!["--kernel", kernel, "--memory", "1"], "MiB of memory"),
        (vec!["--kernel", kernel, "--tap-fd", "77"], "descriptor 77 is not open"),
        (vec!["--kernel", kernel, "--net", "nat:x", "--root", "/no/root"], "is it running?"),
    ] {
        let output = vmm(&arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(reason), "{reason}: {error}");
        assert_eq!(output.status.code(), Some(1), "{error}");
    }
}

#[test]
fn a_machine_that_could_not_start_has_a_report_too() {
    let target = file(b"");
    let path = target.to_str().unwrap();
    vmm(&["--kernel", "/does/not/exist", "--report", path]);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!((&report["outcome"], &report["exit_code"]), (&"failed_to_start".into(), &1.into()));
}

/// mov dword [address], value
fn store(address: u32, value: u32) -> Vec<u8> {
    [&[0xc7, 0x05][..], &address.to_le_bytes(), &value.to_le_bytes()].concat()
}

/// mov word [address], value
fn store16(address: u32, value: u16) -> Vec<u8> {
    [&[0x66, 0xc7, 0x05][..], &address.to_le_bytes(), &value.to_le_bytes()].concat()
}

/// mov byte [address], value
fn store8(address: u32, value: u8) -> Vec<u8> {
    [&[0xc6, 0x05][..], &address.to_le_bytes(), &[value]].concat()
}

#[test]
fn rubbish_in_a_virtqueue_stops_that_queue_and_nothing_else() {
    const BAR: u32 = 0xc000_0000;
    const RINGS: u32 = 0x20_0000;
    let mut code = Vec::new();
    // ACKNOWLEDGE, DRIVER; VERSION_1 alone; FEATURES_OK.
    code.extend(store8(BAR + 0x14, 3));
    code.extend([store(BAR + 0x08, 1), store(BAR + 0x0c, 1), store8(BAR + 0x14, 11)].concat());
    for queue in 0..2_u16 {
        let rings = RINGS + u32::from(queue) * 0x1_0000;
        code.extend(store16(BAR + 0x16, queue));
        code.extend([store(BAR + 0x20, rings), store(BAR + 0x28, rings + 0x4000)].concat());
        code.extend([store(BAR + 0x30, rings + 0x8000), store16(BAR + 0x1c, 1)].concat());
    }
    // Queue 1: a descriptor far outside of memory, that names itself, is available.
    let rings = RINGS + 0x1_0000;
    code.extend([store(rings + 4, 0x7fff_ffff), store(rings + 8, u32::MAX)].concat());
    code.extend([store(rings + 12, 1), store(rings + 0x4000, 1 << 16)].concat());
    // DRIVER_OK, and a kick.
    code.extend([store8(BAR + 0x14, 15), store16(BAR + 0x3004, 1)].concat());
    // wait: test byte [status], NEEDS_RESET; jz wait
    code.extend([0xf6, 0x05]);
    code.extend((BAR + 0x14).to_le_bytes());
    code.extend([64, 0x74, 0xf7]);
    code.extend(out_byte(0xf4, 0));
    let (near, _far) = std::os::unix::net::UnixDatagram::pair().unwrap();
    nix::fcntl::fcntl(&near, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&near).to_string();
    let (exit, report) = report(&code, &["--tap-fd", &fd, "--timeout", "10"]);
    assert_eq!((exit, &report["nics"][0]["malformed"]), (Some(0), &1.into()), "{report}");
}
