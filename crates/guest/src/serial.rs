//! Lines on the first serial port.
//!
//! A line is put together in memory and leaves in one `rep outsb`. The transmitter of a virtual
//! 16550 is always ready, so nothing is polled; each byte is an exit to the VMM nevertheless (KVM
//! batches string input only), which is why lines are few.

use core::fmt::{self, Write};

use crate::port;

const DATA: u16 = 0x3f8;

/// The longest line; what is longer is cut.
pub(crate) const LINE: usize = 512;

/// Text of bounded length. What doesn't fit is cut off, silently.
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    used: usize,
}

impl<const N: usize> Text<N> {
    /// No text.
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], used: 0 }
    }

    /// What was written so far.
    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.used]).unwrap_or("")
    }

    /// Whether nothing was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut fits = text.len().min(N - self.used);
        while !text.is_char_boundary(fits) {
            fits -= 1;
        }
        self.bytes[self.used..self.used + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.used += fits;
        Ok(())
    }
}

/// Text in double quotes. A quote within it becomes an apostrophe, so that a reader needs to know
/// no escapes.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            f.write_char(if character == '"' { '\'' } else { character })?;
        }
        f.write_char('"')
    }
}

/// Prints one line, with `vnet-guest: ` before it.
pub(crate) fn print(arguments: fmt::Arguments<'_>) {
    let mut line = Text::<LINE>::new();
    // Writing to a `Text` cannot fail.
    let _ = line.write_str("vnet-guest: ");
    let _ = line.write_fmt(arguments);
    let used = line.used.min(LINE - 1);
    // Names from the command line are printed: none of them may look like a line of its own.
    line.bytes[..used]
        .iter_mut()
        .filter(|byte| byte.is_ascii_control())
        .for_each(|byte| *byte = b'?');
    line.bytes[used] = b'\n';
    port::write_all8(DATA, &line.bytes[..=used]);
}

/// Prints one line, with `vnet-guest: ` before it; takes what `format!` takes.
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::serial::print(format_args!($($argument)*))
    };
}
pub(crate) use say;
