//! What the built-in guest writes to its serial port, read as that of a stranger: the guest may be
//! broken, and any bytes may come.
//!
//! ```text
//! vnet-guest: hello key=value …
//! vnet-guest: STEP ok ms=MILLISECONDS key=value …      STEP: link dhcp gateway dns outside
//! vnet-guest: STEP failed ms=MILLISECONDS reason="…"
//! vnet-guest: STEP skipped reason="…"
//! vnet-guest: done ok|failed
//! ```
//!
//! Keys and lines with another first word are for later versions, and are left alone.

use std::collections::BTreeMap;

/// The beginning of each line.
const PREFIX: &str = "vnet-guest: ";
/// Bytes in the longest line that makes sense.
const MAX_LINE: usize = 1024;
/// Bytes that a guest writes at most in a probe: it writes ten lines.
const MAX_OUTPUT: usize = 64 * 1024;

/// The steps in their order.
pub(crate) const STEPS: [&str; 5] = ["link", "dhcp", "gateway", "dns", "outside"];

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    Failed,
    Skipped,
}

/// One step as the guest saw it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) verdict: Verdict,
    /// How long it took; none where it was skipped.
    pub(crate) ms: Option<f64>,
    /// Keys and values in the order in which they came, but for `ms` and `reason`.
    pub(crate) facts: Vec<(String, String)>,
    /// Why it failed or was skipped.
    pub(crate) reason: Option<String>,
}

/// A line that makes sense.
#[derive(Debug, Clone, PartialEq)]
enum Line {
    Step(&'static str, Step),
    Done,
    Panic(String),
    Unknown,
}

/// Everything that the guest has said until now.
#[derive(Debug, Default)]
pub(crate) struct Serial {
    /// Bytes of a line that has not ended.
    open: Vec<u8>,
    received: usize,
    steps: BTreeMap<&'static str, Step>,
    done: bool,
    panic: Option<String>,
    /// The first line that makes no sense.
    rubbish: Option<String>,
}

/// The guest says more than a guest has to say.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest wrote more than {} KiB to its serial port", MAX_OUTPUT / 1024)]
pub(crate) struct TooMuch;

impl Serial {
    /// Takes bytes as they come.
    ///
    /// # Errors
    /// They are too many: nothing more need be read.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), TooMuch> {
        self.received += bytes.len();
        if self.received > MAX_OUTPUT {
            return Err(TooMuch);
        }
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else {
                self.open.push(byte);
            }
        }
        Ok(())
    }

    /// The guest will say nothing more.
    pub(crate) fn end(&mut self) {
        if !self.open.is_empty() {
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.open);
        // printable ASCII is all that it uses; whatever else comes must not reach a terminal.
        let text: String = bytes
            .iter()
            .filter(|byte| **byte != b'\r')
            .map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' })
            .collect();
        if text.is_empty() {
            return;
        }
        match parse(&text) {
            // The first word counts: a second one about the same step would be a mistake.
            Some(Line::Step(name, step)) => drop(self.steps.entry(name).or_insert(step)),
            Some(Line::Done) => self.done = true,
            Some(Line::Panic(reason)) => drop(self.panic.get_or_insert(reason)),
            Some(Line::Unknown) => {}
            None => drop(self.rubbish.get_or_insert_with(|| text.chars().take(80).collect())),
        }
    }

    pub(crate) fn step(&self, name: &str) -> Option<&Step> {
        self.steps.get(name)
    }

    /// What is wrong with the whole of it, if anything is.
    pub(crate) fn trouble(&self) -> Option<String> {
        let missing = || STEPS.iter().find(|name| !self.steps.contains_key(*name));
        match (&self.panic, &self.rubbish) {
            (Some(reason), _) => Some(format!("the guest panicked: {reason}")),
            (None, Some(line)) => {
                Some(format!("the guest wrote a line that is not its own: `{line}`"))
            }
            (None, None) if !self.done => Some("the guest ended before it was done".to_owned()),
            (None, None) => missing().map(|name| format!("the guest said nothing about {name}")),
        }
    }
}

/// Reads one line; none if it makes no sense.
fn parse(line: &str) -> Option<Line> {
    if line.len() > MAX_LINE {
        return None;
    }
    let (word, rest) = split_word(line.strip_prefix(PREFIX)?);
    if word == "done" {
        return matches!(rest, "ok" | "failed").then_some(Line::Done);
    }
    if word == "panic" {
        let reason = facts(rest)?.into_iter().find(|(key, _)| key == "reason");
        return Some(Line::Panic(reason.map(|(_, reason)| reason).unwrap_or_default()));
    }
    let Some(name) = STEPS.into_iter().find(|name| *name == word) else {
        return Some(Line::Unknown);
    };
    let (verdict, rest) = split_word(rest);
    let verdict = match verdict {
        "ok" => Verdict::Ok,
        "failed" => Verdict::Failed,
        "skipped" => Verdict::Skipped,
        // Something about the link that a later version says.
        _ => return Some(Line::Unknown),
    };
    step(verdict, facts(rest)?).map(|step| Line::Step(name, step))
}

fn step(verdict: Verdict, facts: Vec<(String, String)>) -> Option<Step> {
    let mut step = Step { verdict, ms: None, facts: Vec::new(), reason: None };
    for (key, value) in facts {
        match key.as_str() {
            "ms" => {
                let ms = value.parse().ok().filter(|ms: &f64| ms.is_finite() && *ms >= 0.0)?;
                step.ms = Some(ms);
            }
            "reason" => step.reason = Some(value),
            _ => step.facts.push((key, value)),
        }
    }
    let whole = match verdict {
        Verdict::Ok => step.ms.is_some(),
        Verdict::Failed => step.ms.is_some() && step.reason.is_some(),
        Verdict::Skipped => step.reason.is_some(),
    };
    whole.then_some(step)
}

/// The first word and what comes behind it.
fn split_word(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

/// Reads `key=value key="value with blanks"`.
fn facts(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut facts = Vec::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once('=')?;
        let is_key = !key.is_empty()
            && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !is_key {
            return None;
        }
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (value, rest) = quoted.split_once('"')?;
                let rest = if rest.is_empty() { rest } else { rest.strip_prefix(' ')? };
                (value, rest)
            }
            None => split_word(rest),
        };
        facts.push((key.to_owned(), value.to_owned()));
        text = rest;
    }
    Some(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
vnet-guest: hello version=0.1.0 tsc_khz=2400000 clock=pvclock
vnet-guest: link ok ms=0.8 mac=52:54:00:aa:bb:cc mtu=1500
vnet-guest: dhcp ok ms=4.2 address=192.168.122.57/24 router=192.168.122.1 lease=3600 new=1
vnet-guest: gateway ok ms=0.3 address=192.168.122.1
vnet-guest: dns skipped reason=\"no name was asked for\"
vnet-guest: outside failed ms=5000.0 reason=\"192.0.2.1 port 80 does not answer\"
vnet-guest: done failed
";

    fn fed(text: &str) -> Serial {
        let mut serial = Serial::default();
        // Byte by byte: a pipe may cut anywhere.
        for byte in text.as_bytes() {
            serial.feed(&[*byte]).unwrap();
        }
        serial.end();
        serial
    }

    #[test]
    fn the_guests_lines_are_understood() {
        let serial = fed(GOOD);
        assert_eq!(serial.trouble(), None);
        let dhcp = serial.step("dhcp").unwrap();
        assert_eq!((dhcp.verdict, dhcp.ms), (Verdict::Ok, Some(4.2)));
        assert_eq!(dhcp.facts[0], ("address".to_owned(), "192.168.122.57/24".to_owned()));
        assert_eq!(dhcp.facts.last().unwrap().0, "new");
        let dns = serial.step("dns").unwrap();
        assert_eq!(dns.reason.as_deref(), Some("no name was asked for"));
        assert_eq!(serial.step("outside").unwrap().verdict, Verdict::Failed);
    }

    #[test]
    fn carriage_returns_and_later_words_do_no_harm() {
        let text = GOOD.replace('\n', "\r\n").replace("done", "memory kib=9\r\nvnet-guest: done");
        assert_eq!(fed(&text).trouble(), None);
    }

    #[test]
    fn a_guest_that_stops_in_the_middle_is_said_so() {
        let text = GOOD.split_inclusive('\n').take(3).collect::<String>();
        let serial = fed(&text);
        assert!(serial.step("gateway").is_none());
        assert_eq!(serial.trouble().unwrap(), "the guest ended before it was done");
        let text = GOOD.lines().filter(|l| !l.contains("gateway")).collect::<Vec<_>>().join("\n");
        assert_eq!(fed(&text).trouble().unwrap(), "the guest said nothing about gateway");
    }

    #[test]
    fn a_panic_is_passed_on() {
        let text =
            "vnet-guest: panic at=src/a.rs:1 reason=\"index 9 of 8\"\nvnet-guest: done failed";
        assert_eq!(fed(text).trouble().unwrap(), "the guest panicked: index 9 of 8");
    }

    #[test]
    fn lines_that_make_no_sense_are_rubbish() {
        for line in [
            "Linux version 6.1",
            "vnet-guest: done",
            "vnet-guest: link ok",
            "vnet-guest: link ok ms=x",
            "vnet-guest: link ok ms=-1",
            "vnet-guest: link ok ms=inf",
            "vnet-guest: link failed ms=1",
            "vnet-guest: dns skipped",
            "vnet-guest: dns skipped reason=\"open",
            "vnet-guest: dns skipped reason=\"a\"b",
            "vnet-guest: link ok ms=1 =x",
            "vnet-guest: link ok ms=1 word",
        ] {
            let trouble = fed(&format!("{line}\n{GOOD}")).trouble().unwrap();
            assert!(trouble.contains("not its own"), "{line}: {trouble}");
        }
    }

    #[test]
    fn any_bytes_neither_panic_nor_reach_a_terminal() {
        let mut serial = Serial::default();
        let bytes: Vec<u8> = (0..=255).collect();
        serial.feed(&bytes).unwrap();
        serial.end();
        assert!(serial.trouble().unwrap().bytes().all(|b| (b' '..=b'~').contains(&b)));
    }

    #[test]
    fn a_guest_that_never_stops_talking_is_stopped() {
        let mut serial = Serial::default();
        let fed = (0..100).try_for_each(|_| serial.feed(&[b'x'; 1024]));
        assert_eq!(fed, Err(TooMuch));
    }
}
