//! How guests end, each in its own way, on the real `/dev/kvm`.

mod common;

use common::run;

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

#[test]
fn a_guest_that_switches_off_ends_well_and_its_output_is_there() {
    let output = run(&[say("hello\n"), power_off()].concat(), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stdout, b"hello\n");
}
