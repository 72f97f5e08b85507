//! How fast a network or a guest's port may be.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A rate, and how much may pass at once before it counts. Printed as `10mbit` or `10mbit/64kbyte`.
///
/// What counts is Ethernet frames without their checksum. Prefixes are powers of 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Limit {
    /// Bytes in a second.
    rate: u64,
    /// Bytes; where it is left out, they follow from the rate.
    burst: Option<u32>,
}

/// The limits of a network: `in` is towards guests, `out` is what they send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// All that comes to the network from the host and from outside.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Limit>,
    /// All that leaves the network for the host and the outside.
    #[serde(default, rename = "out", skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Limit>,
    /// What each guest's port gets, from other guests too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_in: Option<Limit>,
    /// What each guest's port sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_out: Option<Limit>,
}

/// The limits of one link: what is sent into it and what comes out of it, as its guests see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LinkLimits {
    /// Towards the guests.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Limit>,
    /// From the guests.
    #[serde(default, rename = "out", skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Limit>,
}

/// Why a text is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Not of the form `RATE[/BURST]`.
    #[error(
        "`{0}` is no rate: write a number and bit, kbit, mbit, gbit, byte, kbyte, mbyte or gbyte (a \
         second), as in 10mbit; with a burst behind it, as in 10mbit/64kbyte"
    )]
    Syntax(String),
    /// Slower or faster than can be kept.
    #[error("a rate of {0} cannot be kept: choose 8kbit to 100gbit")]
    Rate(String),
    /// Less than a frame, or more than a second of a fast link.
    #[error("a burst of {0} is not possible: choose 1600byte to 1gbyte")]
    Burst(String),
}

/// The units of rates and bursts, largest first, with their sizes in bits.
const UNITS: [(&str, u64); 8] = [
    ("gbyte", 8_000_000_000),
    ("mbyte", 8_000_000),
    ("kbyte", 8_000),
    ("byte", 8),
    ("gbit", 1_000_000_000),
    ("mbit", 1_000_000),
    ("kbit", 1_000),
    ("bit", 1),
];
/// Bytes in a second.
const RATES: std::ops::RangeInclusive<u64> = 1_000..=12_500_000_000;
/// Bytes.
const BURSTS: std::ops::RangeInclusive<u64> = 1_600..=1_000_000_000;

impl Limit {
    /// The fastest that there is.
    pub const FASTEST: Self = Self { rate: *RATES.end(), burst: None };

    /// Bytes in a second.
    #[must_use]
    pub const fn rate(self) -> u64 {
        self.rate
    }

    /// Bytes that may pass at once, if that is given.
    #[must_use]
    pub const fn burst(self) -> Option<u32> {
        self.burst
    }
}

impl LinkLimits {
    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.inbound.is_none() && self.outbound.is_none()
    }

    /// For each direction, the slower one of both.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        let slower = |one: Option<Limit>, other: Option<Limit>| {
            one.into_iter().chain(other).min_by_key(|limit| limit.rate)
        };
        Self {
            inbound: slower(self.inbound, other.inbound),
            outbound: slower(self.outbound, other.outbound),
        }
    }
}

impl Limits {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Those of the network as a whole.
    #[must_use]
    pub const fn network(&self) -> LinkLimits {
        LinkLimits { inbound: self.inbound, outbound: self.outbound }
    }

    /// Those of each port.
    #[must_use]
    pub const fn port(&self) -> LinkLimits {
        LinkLimits { inbound: self.port_in, outbound: self.port_out }
    }
}

/// A number with one of the units, in bits.
fn bits(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*size)
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let (rate, burst) = match text.split_once('/') {
            Some((rate, burst)) => (rate, Some(burst)),
            None => (text, None),
        };
        let syntax = || LimitError::Syntax(text.to_owned());
        let bytes = bits(rate, &UNITS).ok_or_else(syntax)? / 8;
        if !RATES.contains(&bytes) {
            return Err(LimitError::Rate(rate.to_owned()));
        }
        // A burst in bits would be taken for a rate.
        let burst = match burst {
            None => None,
            Some(burst) => {
                let bytes = bits(burst, &UNITS[..4]).ok_or_else(syntax)? / 8;
                let refused = || LimitError::Burst(burst.to_owned());
                if !BURSTS.contains(&bytes) {
                    return Err(refused());
                }
                Some(u32::try_from(bytes).map_err(|_| refused())?)
            }
        };
        Ok(Self { rate: bytes, burst })
    }
}

impl TryFrom<String> for Limit {
    type Error = LimitError;

    fn try_from(text: String) -> Result<Self, LimitError> {
        text.parse()
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> Self {
        limit.to_string()
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every rate is one of whole bits.
        let text = |bytes: u64, units: &[(&str, u64)]| {
            let bits = bytes * 8;
            let unit = units.iter().find(|(_, size)| bits.is_multiple_of(*size));
            unit.map_or_else(
                || format!("{bytes}byte"),
                |(name, size)| format!("{}{name}", bits / size),
            )
        };
        write!(f, "{}", text(self.rate, &UNITS[4..]))?;
        self.burst.map_or(Ok(()), |burst| write!(f, "/{}", text(burst.into(), &UNITS[..4])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_bytes_are_told_apart() {
        for (text, rate, burst, printed) in [
            ("10mbit", 1_250_000, None, "10mbit"),
            ("10mbyte", 10_000_000, None, "80mbit"),
            ("1500kbit/64kbyte", 187_500, Some(64_000), "1500kbit/64kbyte"),
            ("8008bit/1600byte", 1_001, Some(1_600), "8008bit/1600byte"),
            ("100gbit", 12_500_000_000, None, "100gbit"),
        ] {
            let limit: Limit = text.parse().unwrap();
            assert_eq!((limit.rate(), limit.burst()), (rate, burst), "{text}");
            assert_eq!(limit.to_string(), printed);
            assert_eq!(printed.parse::<Limit>().unwrap(), limit);
        }
    }

    #[test]
    fn what_could_mean_either_is_refused_with_the_rule() {
        for (text, rule) in [
            ("10", "as in 10mbit"),
            ("10mbps", "as in 10mbit"),
            ("10Mbit", "as in 10mbit"),
            ("mbit", "as in 10mbit"),
            ("-1mbit", "as in 10mbit"),
            ("10mbit/", "10mbit/64kbyte"),
            ("10mbit/64kbit", "10mbit/64kbyte"),
            ("99999999999gbit", "as in 10mbit"),
            ("7kbit", "8kbit to 100gbit"),
            ("0mbit", "8kbit to 100gbit"),
            ("101gbit", "8kbit to 100gbit"),
            ("10mbit/9byte", "1600byte to 1gbyte"),
            ("10mbit/2gbyte", "1600byte to 1gbyte"),
        ] {
            let error = text.parse::<Limit>().unwrap_err().to_string();
            assert!(error.contains(rule), "{text}: {error}");
        }
    }

    #[test]
    fn of_two_limits_the_slower_one_counts() {
        let limits = |inbound: &str, outbound: Option<&str>| LinkLimits {
            inbound: Some(inbound.parse().unwrap()),
            outbound: outbound.map(|text| text.parse().unwrap()),
        };
        let both = limits("10mbit", None).stricter(limits("2mbit/8kbyte", Some("1mbit")));
        assert_eq!(both, limits("2mbit/8kbyte", Some("1mbit")));
    }
}
