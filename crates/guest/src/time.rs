//! Time, by the TSC.

use core::arch::x86_64::_rdtsc;
use core::fmt;
use core::hint::spin_loop;

use crate::boot;
use crate::port;

/// ACPI's timer runs at this many Hz (ACPI 6.4 §4.8.3.3), everywhere.
const PM_TIMER_HZ: u64 = 3_579_545;

/// Its value has 24 bits at least.
const PM_TIMER_MASK: u32 = 0x00ff_ffff;

/// How long a calibration takes, in ticks of the ACPI timer: 2 ms.
const CALIBRATION: u32 = 7159;

/// A calibration gives up after this many reads: the timer stands still.
const CALIBRATION_READS: u32 = 1_000_000;

/// Where the TSC's frequency is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// CPUID 0x40000010, which hypervisors fill in.
    Hypervisor,
    /// KVM's clock page.
    KvmClock,
    /// CPUID 0x15.
    Crystal,
    /// Measured against ACPI's timer.
    PmTimer,
    /// CPUID 0x16: the processor's nominal frequency.
    Nominal,
    /// Nothing said: 1 GHz.
    Guess,
}

impl Source {
    /// As it is printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hypervisor => "cpuid40000010",
            Self::KvmClock => "kvmclock",
            Self::Crystal => "cpuid15",
            Self::PmTimer => "pmtimer",
            Self::Nominal => "cpuid16",
            Self::Guess => "guess",
        }
    }
}

/// A moment, in microseconds since the clock was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Micros(pub(crate) u64);

impl Micros {
    /// This many milliseconds later.
    pub(crate) fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1000)))
    }

    /// How long ago `earlier` was.
    pub(crate) fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// For smoltcp.
    pub(crate) fn instant(self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros(i64::try_from(self.0).unwrap_or(i64::MAX))
    }
}

/// A duration in microseconds; printed as milliseconds with one decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 + 50) / 100;
        write!(f, "{}.{}", tenths / 10, tenths % 10)
    }
}

/// The clock.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    start: u64,
    /// The TSC's frequency.
    pub(crate) khz: u64,
    /// Where that is known from.
    pub(crate) source: Source,
}

impl Clock {
    /// A clock that starts now. `pm_timer` is the I/O port of ACPI's timer, or 0.
    pub(crate) fn new(pm_timer: u16) -> Self {
        let (khz, source) = frequency(pm_timer);
        Self { start: ticks(), khz: khz.max(1), source }
    }

    /// The time now.
    pub(crate) fn now(&self) -> Micros {
        let elapsed = u128::from(ticks().wrapping_sub(self.start));
        Micros((elapsed * 1000 / u128::from(self.khz)) as u64)
    }
}

/// The TSC.
pub(crate) fn ticks() -> u64 {
    // SAFETY: every x86_64 has it, and CR4.TSD is clear.
    unsafe { _rdtsc() }
}

fn frequency(pm_timer: u16) -> (u64, Source) {
    let facts = boot::facts();
    if facts.hypervisor_tsc_khz != 0 {
        return (facts.hypervisor_tsc_khz.into(), Source::Hypervisor);
    }
    if let Some(khz) = kvm_clock() {
        return (khz, Source::KvmClock);
    }
    let [denominator, numerator, crystal_hz] = facts.crystal.map(u64::from);
    if denominator != 0 && numerator != 0 && crystal_hz != 0 {
        return (crystal_hz * numerator / denominator / 1000, Source::Crystal);
    }
    if let Some(khz) = measure(pm_timer) {
        return (khz, Source::PmTimer);
    }
    if facts.base_mhz != 0 {
        return (u64::from(facts.base_mhz) * 1000, Source::Nominal);
    }
    (1_000_000, Source::Guess)
}

/// From KVM's clock page: nanoseconds = (ticks << shift) * mul / 2^32.
fn kvm_clock() -> Option<u64> {
    let page = boot::pvclock();
    if page.tsc_to_system_mul == 0 {
        return None;
    }
    let khz = (1_000_000_u64 << 32) / u64::from(page.tsc_to_system_mul);
    Some(match page.tsc_shift {
        shift @ 0..=31 => khz >> shift,
        shift @ -31..=-1 => khz << -shift,
        _ => return None,
    })
}

fn measure(pm_timer: u16) -> Option<u64> {
    if pm_timer == 0 {
        return None;
    }
    let read = || port::read32(pm_timer) & PM_TIMER_MASK;
    let (from_timer, from) = (read(), ticks());
    for _ in 0..CALIBRATION_READS {
        let passed = read().wrapping_sub(from_timer) & PM_TIMER_MASK;
        if passed >= CALIBRATION {
            let elapsed = ticks().wrapping_sub(from);
            return Some(elapsed.saturating_mul(PM_TIMER_HZ) / u64::from(passed) / 1000);
        }
        spin_loop();
    }
    None
}
