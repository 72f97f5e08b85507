//! The steps by which the guest tries its network, one file each, and the line that reports one.

pub(crate) mod dhcp;
pub(crate) mod dns;
pub(crate) mod outside;
pub(crate) mod ping;
pub(crate) mod release;

use core::fmt;

use crate::serial::{Quoted, Text, say};
use crate::time::Span;

/// The longest reason.
pub(crate) const REASON: usize = 160;

/// Why a step failed.
pub(crate) type Reason = Text<REASON>;

/// Makes a [`Reason`]; takes what `format!` takes.
macro_rules! reason {
    ($($argument:tt)*) => {{
        let mut text = $crate::steps::Reason::new();
        // Writing to a `Text` cannot fail.
        let _ = ::core::fmt::Write::write_fmt(&mut text, format_args!($($argument)*));
        text
    }};
}
pub(crate) use reason;

/// Prints `STEP ok ms=… FACTS`.
pub(crate) fn ok(step: &str, took: Span, facts: fmt::Arguments<'_>) {
    say!("{step} ok ms={took} {facts}");
}

/// Prints `STEP failed ms=… reason="…"`.
pub(crate) fn failed(step: &str, took: Span, reason: &Reason) {
    say!("{step} failed ms={took} reason={}", Quoted(reason.as_str()));
}

/// Prints `STEP skipped reason="…"`.
pub(crate) fn skipped(step: &str, reason: &str) {
    say!("{step} skipped reason={}", Quoted(reason));
}
