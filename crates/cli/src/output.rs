//! Standard output and standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use anyhow::Context as _;
use serde::Serialize;

/// Prints `text` on standard output, and a line end behind it unless it has one.
///
/// # Errors
/// Those of `write(2)`; see [`crate::failure`] for a reader that has gone.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(end.as_bytes()))
        .and_then(|()| stdout.flush())
        .context("cannot write to standard output")
}

/// Prints `value` as JSON.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// Says on standard error what a person should know. Nobody may read it: that is no failure.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "note: {}", printable(&text.to_string()));
}

/// Says on standard error that something is wrong that does not keep the command from its work.
pub(crate) fn warn(text: impl Display) {
    let _ = writeln!(io::stderr(), "vnet: warning: {}", printable(&text.to_string()));
}

/// Whether standard output takes colours: it is a terminal that has them, and nobody has said no
/// (<https://no-color.org>).
pub(crate) fn has_colours() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
}

/// `text` without what moves a cursor or colours a terminal: guests choose names, too.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_text_moves_no_cursor() {
        assert_eq!(printable("a\x1b[2Jb\rc\u{9b}d"), "a?[2Jb?c?d");
    }
}
