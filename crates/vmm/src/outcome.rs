//! How a machine ended: what the process exits with, and what its report says.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use vmm_sys_util::eventfd::EventFd;

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The guest switched the machine off (ACPI S5).
    PowerOff,
    /// The guest asked for a reset. A machine lives once: whoever wants it again starts it again.
    Reset,
    /// The guest wrote its verdict to the port for it, see [`crate::devices`].
    Verdict {
        /// What it wrote: 0 is success.
        status: u32,
    },
    /// The guest cannot go on.
    Crashed(Crash),
    /// The guest had not stopped in time.
    Hung {
        /// The time that it had.
        seconds: u64,
        /// Where its vCPUs were.
        vcpus: Vec<Registers>,
    },
    /// Somebody stopped us.
    Interrupted {
        /// The signal's name.
        signal: String,
    },
}

/// Why, and where, a guest cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Crash {
    /// What happened.
    pub reason: String,
    /// On which vCPU.
    pub vcpu: u8,
    /// Its registers, as far as they could be read.
    pub registers: Option<Registers>,
}

/// A vCPU's registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "these are the processor's own names")]
pub struct Registers {
    pub rip: u64,
    pub rsp: u64,
    pub rflags: u64,
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub cs: u16,
}

impl Outcome {
    /// The process' exit code: 0 the guest stopped, 3 hung, 4 crashed, 5 the guest said that it
    /// failed, 6 interrupted. (1 is a machine that could not be started, 2 wrong usage.)
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::PowerOff | Self::Reset | Self::Verdict { status: 0 } => 0,
            Self::Hung { .. } => 3,
            Self::Crashed(_) => 4,
            Self::Verdict { .. } => 5,
            Self::Interrupted { .. } => 6,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => write!(f, "the guest switched itself off"),
            Self::Reset => write!(f, "the guest asked for a reset"),
            Self::Verdict { status } => write!(f, "the guest ended with status {status}"),
            Self::Crashed(crash) => write!(f, "the guest crashed: {crash}"),
            Self::Hung { seconds, vcpus } => {
                write!(f, "the guest had not stopped after {seconds} s")?;
                vcpus.iter().try_for_each(|vcpu| write!(f, "; a vCPU was at {:#x}", vcpu.rip))
            }
            Self::Interrupted { signal } => write!(f, "stopped by {signal}"),
        }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on vCPU {}", self.reason, self.vcpu)?;
        let Some(r) = &self.registers else { return Ok(()) };
        write!(f, " at rip {:#x}", r.rip)?;
        write!(f, "\n  cs {:#x} rsp {:#x} rflags {:#x}", r.cs, r.rsp, r.rflags)?;
        write!(f, "\n  rax {:#x} rbx {:#x} rcx {:#x} rdx {:#x}", r.rax, r.rbx, r.rcx, r.rdx)?;
        write!(f, "\n  rsi {:#x} rdi {:#x} rbp {:#x}", r.rsi, r.rdi, r.rbp)?;
        write!(
            f,
            "\n  cr0 {:#x} cr2 {:#x} cr3 {:#x} cr4 {:#x} efer {:#x}",
            r.cr0, r.cr2, r.cr3, r.cr4, r.efer
        )
    }
}

/// Where the first outcome is put, by whichever thread sees it; later ones are consequences.
#[derive(Debug)]
pub struct Ending {
    first: Mutex<Option<Outcome>>,
    event: EventFd,
}

impl Ending {
    /// Nothing has ended yet.
    ///
    /// # Errors
    /// Those of `eventfd(2)`.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { first: Mutex::new(None), event: EventFd::new(libc::EFD_CLOEXEC)? })
    }

    /// Ends the machine with `outcome`, unless it has ended already.
    pub fn end(&self, outcome: Outcome) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(outcome);
        // Only a full counter can fail, and then the event is there already.
        let _ = self.event.write(1);
    }

    /// How the machine ended, if it has.
    #[must_use]
    pub fn get(&self) -> Option<Outcome> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Readable once the machine has ended.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.event
    }
}
