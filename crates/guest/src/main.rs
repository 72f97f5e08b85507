//! The built-in guest: a bare-metal program that tries the network it is on, and says how it went.
//!
//! ```text
//! boot (ring 0) → rust_main → probe: link → dhcp → gateway → dns → outside → power off
//!                                  └ stay: the same, and then answer, renew, follow the link
//! ```
//!
//! A VMM boots it by PVH, with a virtio-net device on PCI bus 0 and a 16550 at the first serial
//! port's address. It prints one line for each step, which people and programs read alike:
//!
//! ```text
//! vnet-guest: STEP ok ms=MILLISECONDS key=value …
//! vnet-guest: STEP failed ms=MILLISECONDS reason="…"
//! vnet-guest: STEP skipped reason="…"
//! ```
//!
//! The first line is `hello`, the last one `done ok` or, if a step failed, `done failed`. What may
//! be asked for on the command line is in [`cmdline`], what is printed afterwards in [`stay`].
//!
//! Nothing of std is used. It is linked (see `build.rs`) because dependencies that the guest shares
//! with the workspace may be built with it.

#![no_std]
#![no_main]
#![allow(clippy::result_large_err, reason = "an error is its text, and there is no heap for it")]

extern crate std;

mod acpi;
mod boot;
mod cmdline;
mod entropy;
mod hal;
mod mem;
mod network;
mod nic;
mod observe;
mod pci;
mod phys;
mod port;
mod power;
mod probe;
mod serial;
mod start_info;
mod stay;
mod steps;
mod time;
mod transport;
mod wait;

use acpi::Acpi;
use cmdline::{Mode, Options};
use pci::Pci;
use serial::{Quoted, say};
use start_info::StartInfo;
use steps::reason;
use time::Clock;

/// Entered from the assembly in [`boot`], in ring 3, once.
#[unsafe(no_mangle)]
extern "C" fn rust_main(start_info: usize) -> ! {
    let info = StartInfo::read(start_info);
    let acpi = Acpi::read(&info);
    let clock = Clock::new(acpi.pm_timer);
    say!(
        "hello version={} tsc_khz={} clock={}",
        env!("CARGO_PKG_VERSION"),
        clock.khz,
        clock.source.name()
    );
    let options = Options::parse(info.command_line(), |word| {
        say!("option ignored word={}", Quoted(word));
    });
    power::configure(acpi.power_off, options.debug_exit);
    let pci = Pci::new(&acpi, info);
    let ok = probe::run(pci, clock, &options, |network, lease| match options.mode {
        Mode::Probe => {}
        Mode::Stay => stay::run(network, lease, options.timeout_ms),
    });
    power::off(ok)
}

/// Where a panic ends: a line, and off. `build.rs` puts it in the place of std's handler.
#[unsafe(no_mangle)]
fn vnet_guest_panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let reason = reason!("{}", info.message());
    let reason = Quoted(reason.as_str());
    match info.location() {
        Some(at) => say!("panic at={}:{} reason={reason}", at.file(), at.line()),
        None => say!("panic reason={reason}"),
    }
    say!("done failed");
    power::off(false)
}
