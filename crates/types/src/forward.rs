//! Forwards: ports of the host that lead to a guest.
//!
//! ```text
//! [ADDR:]PORT[-PORT][/tcp|/udp]  ──►  NAME|ADDR[:PORT[-PORT]]
//!            Listen                        Target
//! ```
//!
//! An IPv6 address stands in brackets. `0.0.0.0` is all of the host's IPv4 addresses, `[::]` all
//! IPv6 ones, and no address is all of both.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::DnsName;

/// How many ports one network may publish: each is an element in the firewall's maps, so that a
/// packet costs the same with one as with all of them.
pub const MAX_FORWARDED_PORTS: usize = 16_384;

/// Why a text is no forward, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}: {rule}")]
pub struct ForwardError {
    text: String,
    what: &'static str,
    rule: &'static str,
}

/// A protocol that has ports.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// One port, or several that follow each other. Port 0 is in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Where the host listens in place of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listen {
    /// The host's address, or the unspecified one of its family for all of that family; any of
    /// its addresses where there is none.
    pub address: Option<IpAddr>,
    /// The ports.
    pub ports: PortRange,
    /// The protocol.
    pub protocol: Protocol,
}

/// To whom a forward leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetHost {
    /// The guest of this name, whatever its address is at the moment.
    Name(DnsName),
    /// The guest at this address.
    Address(IpAddr),
}

/// Where a forward leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// To whom.
    pub host: TargetHost,
    /// To which of its ports, as many as are listened on; the same where there are none.
    pub ports: Option<PortRange>,
}

/// A published port of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// The host's address; `0.0.0.0` or `::` for all of its family; any of the host's addresses
    /// where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub address: Option<IpAddr>,
    /// The host's port, or several: `8080` or `"8080-8089"`.
    pub port: PortRange,
    /// Where it leads: `"web:80"`, `"192.168.122.9"`.
    pub target: Target,
}

impl Forward {
    /// What `listen` leads to.
    #[must_use]
    pub fn new(listen: Listen, target: Target) -> Self {
        let Listen { address, ports, protocol } = listen;
        Self { protocol, address, port: ports, target }
    }

    /// Where the host listens.
    #[must_use]
    pub fn listen(&self) -> Listen {
        Listen { address: self.address, ports: self.port, protocol: self.protocol }
    }

    /// The guest's ports.
    #[must_use]
    pub fn target_ports(&self) -> PortRange {
        self.target.ports.unwrap_or(self.port)
    }

    /// The guest's name, where the forward follows one.
    #[must_use]
    pub fn target_name(&self) -> Option<&DnsName> {
        match &self.target.host {
            TargetHost::Name(name) => Some(name),
            TargetHost::Address(_) => None,
        }
    }
}

impl Listen {
    /// Whether some packet could be meant for both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let addresses = match (self.address, other.address) {
            (Some(one), Some(two)) => {
                let same = one.is_ipv4() == two.is_ipv4();
                one == two || same && (one.is_unspecified() || two.is_unspecified())
            }
            _ => true,
        };
        self.protocol == other.protocol && addresses && self.ports.overlaps(other.ports)
    }

    /// Whether the host reaches it at an address of its loopback network.
    #[must_use]
    pub fn has_loopback(&self) -> bool {
        let all = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let is = |address: IpAddr| address.is_ipv4() && address.is_loopback() || address == all;
        self.address.is_none_or(is)
    }

    /// Whether it is at IPv4 addresses of the host.
    #[must_use]
    pub fn takes_v4(&self) -> bool {
        self.address.is_none_or(|address| address.is_ipv4())
    }

    /// Whether it is at IPv6 addresses of the host.
    #[must_use]
    pub fn takes_v6(&self) -> bool {
        self.address.is_none_or(|address| address.is_ipv6())
    }

    /// The one address that it is at; none where it is at all of one family or of both.
    #[must_use]
    pub fn one_address(&self) -> Option<IpAddr> {
        self.address.filter(|address| !address.is_unspecified())
    }
}

impl PortRange {
    /// The ports from `first` to `last`; none where that is no range.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || last < first { None } else { Some(Self { first, last }) }
    }

    /// The lowest port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports there are.
    #[must_use]
    pub const fn count(self) -> usize {
        (self.last - self.first) as usize + 1
    }

    /// Each of them, upwards.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }

    /// Whether the port is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl Protocol {
    /// Its name in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last > self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{}:", bracketed(address))?;
        }
        write!(f, "{}/{}", self.ports, self.protocol)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            TargetHost::Name(name) => write!(f, "{name}")?,
            TargetHost::Address(address) => f.write_str(&bracketed(*address))?,
        }
        if let Some(ports) = self.ports {
            write!(f, ":{ports}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.listen(), self.target)
    }
}

const LISTEN: (&str, &str) = ("port to forward", "write [ADDR:]PORT[-PORT][/tcp|/udp]");
const TARGET: (&str, &str) = ("target of a forward", "write NAME|ADDR[:PORT[-PORT]]");
const PORTS: (&str, &str) = ("port or range of ports", "write 1 to 65535, or FIRST-LAST");

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// An IPv6 address in brackets, an IPv4 address without.
fn parse_address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn error(text: &str, (what, rule): (&'static str, &'static str)) -> ForwardError {
    ForwardError { text: text.to_owned(), what, rule }
}

impl FromStr for PortRange {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        // u16::from_str would take a sign.
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = number(first).zip(number(last));
        range.and_then(|(first, last)| Self::new(first, last)).ok_or_else(|| error(text, PORTS))
    }
}

impl FromStr for Listen {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let wrong = || error(text, LISTEN);
        let (rest, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((rest, "tcp")) => (rest, Protocol::Tcp),
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some(_) => return Err(wrong()),
        };
        let (address, ports) = match rest.rsplit_once(':') {
            None => (None, rest),
            Some((address, ports)) => (Some(parse_address(address).ok_or_else(wrong)?), ports),
        };
        Ok(Self { address, ports: ports.parse().map_err(|_| wrong())?, protocol })
    }
}

impl FromStr for Target {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let wrong = || error(text, TARGET);
        let (host, ports) = match text.rsplit_once(':') {
            None => (text, None),
            Some(_) if text.ends_with(']') => (text, None),
            Some((host, ports)) => (host, Some(ports.parse().map_err(|_| wrong())?)),
        };
        let host = match (parse_address(host), host.parse::<DnsName>()) {
            (Some(address), _) => TargetHost::Address(address),
            // RFC 1123 §2.1: what ends in a number is meant as an address.
            (_, Ok(name)) if !ends_in_a_number(name.as_str()) => TargetHost::Name(name),
            _ => return Err(wrong()),
        };
        Ok(Self { host, ports })
    }
}

fn ends_in_a_number(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
}

macro_rules! as_text {
    ($name:ty) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(Listen);
as_text!(Target);

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last {
            serializer.serialize_u16(self.first)
        } else {
            serializer.collect_str(self)
        }
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = PortRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port or a range of ports")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<PortRange, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<PortRange, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PortRange, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_printed() {
        let listens = [
            "8080/tcp",
            "203.0.113.2:53/udp",
            "8000-8009/tcp",
            "[2001:db8::2]:53/udp",
            "[::]:80/tcp",
        ];
        for text in listens {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        assert_eq!("8080".parse::<Listen>().unwrap().to_string(), "8080/tcp");
        let targets = ["web", "web:80", "web.default.vnet:80-89", "192.168.122.9:80"];
        for text in targets.into_iter().chain(["[fd00::9]:80-89", "[fd00::9]"]) {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_forward_is_refused_with_the_rule() {
        for text in [
            "",
            "0",
            "65536",
            "80/sctp",
            "9-8",
            "x:80",
            ":80",
            "80-",
            "+80",
            "[::1:80",
            "::1:80",
            "[1.2.3.4]:80",
        ] {
            let error = text.parse::<Listen>().unwrap_err().to_string();
            assert!(error.contains("[ADDR:]PORT"), "{error}");
        }
        for text in
            ["", "web:", "web:0", "300.1.1.1:80", "a b:1", "-web", ":80", "[fd00::9", "fd00::9"]
        {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("NAME|ADDR"), "{error}");
        }
    }

    #[test]
    fn forwards_overlap_where_a_packet_could_be_meant_for_both() {
        let overlap =
            |one: &str, two: &str| one.parse::<Listen>().unwrap().overlaps(&two.parse().unwrap());
        assert!(overlap("80", "80"));
        assert!(overlap("80", "203.0.113.2:80"));
        assert!(overlap("80-90", "90-99"));
        assert!(overlap("[::]:80", "[2001:db8::2]:80"));
        assert!(overlap("[::]:80", "80"));
        assert!(!overlap("[::]:80", "0.0.0.0:80"));
        assert!(!overlap("[::]:80", "203.0.113.2:80"));
        assert!(!overlap("80", "80/udp"));
        assert!(!overlap("127.0.0.1:80", "203.0.113.2:80"));
        assert!(!overlap("80-89", "90-99"));
    }
}
