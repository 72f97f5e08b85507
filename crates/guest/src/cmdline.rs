//! The command line: words `vnet.key=value`, separated by blanks. Other words are someone else's.

use core::net::Ipv4Addr;

/// What the guest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Tries the network once, and powers off.
    #[default]
    Probe,
    /// Tries the network once, and then stays on it.
    Stay,
}

/// A host to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host<'a> {
    /// By address.
    Address(Ipv4Addr),
    /// By name.
    Name(&'a str),
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options<'a> {
    /// `vnet.mode`: `probe` or `stay`.
    pub(crate) mode: Mode,
    /// `vnet.hostname`: sent to the DHCP server.
    pub(crate) hostname: Option<&'a str>,
    /// `vnet.dns`: the name that is looked up.
    pub(crate) name: Option<&'a str>,
    /// `vnet.connect`: where the TCP connection goes, `HOST:PORT`.
    pub(crate) connect: Option<(Host<'a>, u16)>,
    /// `vnet.http=1`: whether an HTTP request is sent over it.
    pub(crate) http: bool,
    /// `vnet.timeout`: of each step, in milliseconds.
    pub(crate) timeout_ms: u64,
    /// `vnet.release=1`: whether a probe gives its lease back.
    pub(crate) release: bool,
    /// `vnet.debug_exit`: whether QEMU's exit port gets the result.
    pub(crate) debug_exit: bool,
}

const DEFAULT_TIMEOUT_MS: u64 = 5000;

/// RFC 2132 §3.14: an option holds 255 bytes, and a DNS label 63 (RFC 1035 §2.3.4).
const HOSTNAME: usize = 63;

impl<'a> Options<'a> {
    /// Reads a command line. Words that begin with `vnet.` and make no sense go to `ignored`.
    pub(crate) fn parse(line: &'a str, mut ignored: impl FnMut(&'a str)) -> Self {
        let mut options = Self {
            mode: Mode::Probe,
            hostname: None,
            name: None,
            connect: None,
            http: false,
            timeout_ms: DEFAULT_TIMEOUT_MS,
            release: false,
            debug_exit: false,
        };
        for word in line.split_ascii_whitespace() {
            if word.starts_with("vnet.") && options.take(word).is_none() {
                ignored(word);
            }
        }
        options
    }

    /// Takes one word; `None` if it makes no sense.
    fn take(&mut self, word: &'a str) -> Option<()> {
        let (key, value) = word.split_once('=').unwrap_or((word, "1"));
        match key {
            "vnet.mode" => {
                self.mode = match value {
                    "probe" => Mode::Probe,
                    "stay" => Mode::Stay,
                    _ => return None,
                }
            }
            "vnet.hostname" => self.hostname = Some(short(value)?),
            "vnet.dns" => self.name = Some(value).filter(|name| !name.is_empty()),
            "vnet.connect" => self.connect = Some(target(value)?),
            "vnet.http" => self.http = flag(value)?,
            "vnet.timeout" => {
                self.timeout_ms = value.parse().ok().filter(|&ms| (1..=3_600_000).contains(&ms))?;
            }
            "vnet.release" => self.release = flag(value)?,
            "vnet.debug_exit" => self.debug_exit = flag(value)?,
            _ => return None,
        }
        Some(())
    }
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "1" | "on" => Some(true),
        "0" | "off" => Some(false),
        _ => None,
    }
}

fn short(name: &str) -> Option<&str> {
    (1..=HOSTNAME).contains(&name.len()).then_some(name)
}

fn target(value: &str) -> Option<(Host<'_>, u16)> {
    let (host, port) = value.rsplit_once(':')?;
    let port = port.parse().ok().filter(|&port| port != 0)?;
    if host.is_empty() {
        return None;
    }
    let host = host.parse().map_or(Host::Name(host), Host::Address);
    Some((host, port))
}
