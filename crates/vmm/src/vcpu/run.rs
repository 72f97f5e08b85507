//! The loop of a vCPU's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvm_ioctls::{VcpuExit, VcpuFd};
use serde::Serialize;
use vnet_virtio::wake::Wake;

use super::kick::Armed;
use super::pio;
use crate::devices::{Board, Effect};
use crate::jail;
use crate::outcome::{Crash, Ending, Outcome, Registers};
use crate::vm::Jail;

/// How often a vCPU left the guest, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ExitCounts {
    /// Port accesses.
    pub ports: u64,
    /// Waits in the wait register; these are port accesses, too.
    pub waits: u64,
    /// Accesses to memory that is not RAM.
    pub memory: u64,
    /// Everything else.
    pub other: u64,
}

impl ExitCounts {
    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            ports: self.ports + other.ports,
            waits: self.waits + other.waits,
            memory: self.memory + other.memory,
            other: self.other + other.other,
        }
    }
}

/// What a vCPU leaves behind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Last {
    /// Its exits.
    pub exits: ExitCounts,
    /// Its registers when it stopped, as far as they could be read.
    pub registers: Option<Registers>,
}

/// What the vCPU threads share with each other and with the monitor.
#[derive(Debug)]
pub struct Shared {
    /// The devices.
    pub board: Board,
    /// Told by devices that something has happened.
    pub wake: Arc<Wake>,
    /// Where the end is put.
    pub ending: Ending,
    /// Whether threads are confined.
    pub jail: Jail,
    /// Set before the vCPUs are kicked for the last time.
    pub stop: AtomicBool,
}

/// A vCPU and what its thread knows.
#[derive(Debug)]
pub struct Vcpu {
    /// KVM's descriptor.
    pub fd: VcpuFd,
    /// Which one it is.
    pub number: u8,
}

/// What came of one stay in the guest.
enum Step {
    Continue,
    Port,
    Crash(String),
}

impl Vcpu {
    /// Runs until the machine ends. Blocks; [`super::kick`] and [`Shared::stop`] make it return.
    pub fn run(mut self, shared: &Shared) -> Last {
        let mut counts = ExitCounts::default();
        let mut seen = 0;
        let armed = Armed::new(&mut self.fd);
        if shared.jail == Jail::Closed {
            jail::confine_or_end(jail::Role::Vcpu);
        }
        while !shared.stop.load(Ordering::SeqCst) {
            match self.step(&shared.board, &mut counts) {
                Step::Continue => {}
                Step::Port => match shared.board.port(pio::access(&mut self.fd)) {
                    Effect::None => {}
                    Effect::Wait(micros) => {
                        counts.waits += 1;
                        shared.wake.wait(&mut seen, Duration::from_micros(micros.into()));
                    }
                    Effect::End(outcome) => {
                        shared.ending.end(outcome);
                        break;
                    }
                    Effect::Panicked => {
                        let reason = "the guest's kernel panicked".to_owned();
                        self.crash(reason, shared);
                        break;
                    }
                },
                Step::Crash(reason) => {
                    self.crash(reason, shared);
                    break;
                }
            }
        }
        drop(armed);
        Last { exits: counts, registers: self.registers() }
    }

    fn crash(&self, reason: String, shared: &Shared) {
        let crash = Crash { reason, vcpu: self.number, registers: self.registers() };
        shared.ending.end(Outcome::Crashed(crash));
    }

    fn step(&mut self, board: &Board, counts: &mut ExitCounts) -> Step {
        let exit = match self.fd.run() {
            Ok(exit) => exit,
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                counts.other += 1;
                self.fd.set_kvm_immediate_exit(0);
                return Step::Continue;
            }
            Err(error) => return Step::Crash(format!("KVM cannot run the guest ({error})")),
        };
        match exit {
            VcpuExit::IoIn(..) | VcpuExit::IoOut(..) => {
                counts.ports += 1;
                return Step::Port;
            }
            VcpuExit::MmioRead(address, data) => {
                counts.memory += 1;
                board.read_memory(address, data);
                return Step::Continue;
            }
            VcpuExit::MmioWrite(address, data) => {
                counts.memory += 1;
                board.write_memory(address, data);
                return Step::Continue;
            }
            _ => counts.other += 1,
        }
        match exit {
            // With KVM's own interrupt controllers a halt stays in the kernel.
            VcpuExit::Intr | VcpuExit::Hlt | VcpuExit::IrqWindowOpen => Step::Continue,
            VcpuExit::Shutdown => Step::Crash("triple fault".to_owned()),
            VcpuExit::InternalError => Step::Crash(self.internal_error()),
            VcpuExit::FailEntry(reason, _) => {
                Step::Crash(format!("the processor refuses the guest's state ({reason:#x})"))
            }
            other => Step::Crash(format!("KVM gave up ({other:?})")),
        }
    }

    /// `KVM_EXIT_INTERNAL_ERROR` in words. With code 1 the bytes of the instruction are there.
    fn internal_error(&mut self) -> String {
        const EMULATION: u32 = 1;
        // SAFETY: after this exit the union holds `internal`, plain data.
        let internal = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal };
        if internal.suberror != EMULATION {
            return format!("KVM internal error {}", internal.suberror);
        }
        // data[0] are flags; then a size byte and up to 15 bytes of the instruction.
        let [size, bytes @ ..] = u128_bytes(internal.data[1], internal.data[2]);
        let count = usize::from(size).min(bytes.len());
        let code: String = bytes[..count].iter().map(|byte| format!(" {byte:02x}")).collect();
        format!("KVM cannot emulate an instruction:{code}")
    }

    fn registers(&self) -> Option<Registers> {
        let (regs, sregs) = (self.fd.get_regs().ok()?, self.fd.get_sregs().ok()?);
        Some(Registers {
            rip: regs.rip,
            rsp: regs.rsp,
            rflags: regs.rflags,
            rax: regs.rax,
            rbx: regs.rbx,
            rcx: regs.rcx,
            rdx: regs.rdx,
            rsi: regs.rsi,
            rdi: regs.rdi,
            rbp: regs.rbp,
            cr0: sregs.cr0,
            cr2: sregs.cr2,
            cr3: sregs.cr3,
            cr4: sregs.cr4,
            efer: sregs.efer,
            cs: sregs.cs.selector,
        })
    }
}

fn u128_bytes(low: u64, high: u64) -> [u8; 16] {
    (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
}
