//! IPv4 subnets and ranges of addresses in them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// An IPv4 subnet with room for a gateway and a guest: its network address and a prefix of 8 to
/// 30 bits. Printed as `192.168.122.0/24`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "192.168.122.0/24"))]
#[serde(try_from = "String", into = "String")]
pub struct Subnet(Ipv4Net);

/// Addresses from the first to the last, both included. Printed as `192.168.122.2-192.168.122.254`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddrRange {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

/// Why a text is no subnet or no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not of the form `A.B.C.D/N`.
    #[error("`{0}` is no IPv4 subnet: write it as address/prefix, as in 192.168.122.0/24")]
    Syntax(String),
    /// Bits are set behind the prefix.
    #[error("`{given}` has bits set behind its prefix: did you mean {meant}?")]
    HostBits {
        /// What was written.
        given: String,
        /// The subnet that holds it.
        meant: Ipv4Net,
    },
    /// A prefix that leaves no room, or too much.
    #[error("`{0}` cannot be a network's subnet: the prefix must be /8 to /30")]
    Prefix(String),
    /// An address range that guests cannot have.
    #[error(
        "`{0}` is not a subnet for guests: loopback, multicast, 0.0.0.0/8 and 240.0.0.0/4 are not"
    )]
    Reserved(String),
    /// Not of the form `A-B`.
    #[error(
        "`{0}` is no address range: write it as first-last, as in 192.168.122.2-192.168.122.254"
    )]
    RangeSyntax(String),
    /// The last address comes before the first.
    #[error("the range {first}-{last} is backwards: its last address comes before its first")]
    Backwards {
        /// The first address as written.
        first: Ipv4Addr,
        /// The last address as written.
        last: Ipv4Addr,
    },
}

impl Subnet {
    /// The subnet of `net`, if guests can live in it.
    ///
    /// # Errors
    /// Bits behind the prefix, a prefix outside /8 to /30, or a range reserved for something else.
    pub fn new(net: Ipv4Net) -> Result<Self, SubnetError> {
        if net.addr() != net.network() {
            return Err(SubnetError::HostBits { given: net.to_string(), meant: net.trunc() });
        }
        if !(8..=30).contains(&net.prefix_len()) {
            return Err(SubnetError::Prefix(net.to_string()));
        }
        let first = net.network();
        if first.is_loopback() || first.octets()[0] == 0 || first.octets()[0] >= 224 {
            return Err(SubnetError::Reserved(net.to_string()));
        }
        Ok(Self(net))
    }

    /// The subnet as the `ipnet` crate knows it.
    #[must_use]
    pub const fn net(self) -> Ipv4Net {
        self.0
    }

    /// Bits in the prefix.
    #[must_use]
    pub const fn prefix_len(self) -> u8 {
        self.0.prefix_len()
    }

    /// The mask, as in `255.255.255.0`.
    #[must_use]
    pub fn netmask(self) -> Ipv4Addr {
        self.0.netmask()
    }

    /// The directed broadcast address.
    #[must_use]
    pub fn broadcast(self) -> Ipv4Addr {
        self.0.broadcast()
    }

    /// The host's own address in the subnet: the first one, `.1`.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.network()) + 1)
    }

    /// Every address that a guest may have: from `.2` to the last before the broadcast address.
    #[must_use]
    pub fn guests(self) -> AddrRange {
        AddrRange {
            first: Ipv4Addr::from(u32::from(self.0.network()) + 2),
            last: Ipv4Addr::from(u32::from(self.0.broadcast()) - 1),
        }
    }

    /// Whether `addr` lies in the subnet, its network and broadcast addresses included.
    #[must_use]
    pub fn contains(self, addr: Ipv4Addr) -> bool {
        self.0.contains(&addr)
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(self, other: Ipv4Net) -> bool {
        self.0.contains(&other.network()) || other.contains(&self.0.network())
    }
}

impl AddrRange {
    /// The range from `first` to `last`, both included.
    ///
    /// # Errors
    /// `last` comes before `first`.
    pub fn new(first: Ipv4Addr, last: Ipv4Addr) -> Result<Self, SubnetError> {
        if last < first {
            return Err(SubnetError::Backwards { first, last });
        }
        Ok(Self { first, last })
    }

    /// The first address.
    #[must_use]
    pub const fn first(self) -> Ipv4Addr {
        self.first
    }

    /// The last address, which belongs to the range.
    #[must_use]
    pub const fn last(self) -> Ipv4Addr {
        self.last
    }

    /// Whether `addr` lies in the range.
    #[must_use]
    pub fn contains(self, addr: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&addr)
    }

    /// How many addresses it holds: 1 at least, 2^32 at most.
    #[must_use]
    pub fn size(self) -> u64 {
        u64::from(u32::from(self.last)) - u64::from(u32::from(self.first)) + 1
    }

    /// The addresses in order.
    pub fn iter(self) -> impl Iterator<Item = Ipv4Addr> {
        (u32::from(self.first)..=u32::from(self.last)).map(Ipv4Addr::from)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let net = text.parse().map_err(|_| SubnetError::Syntax(text.to_owned()))?;
        Self::new(net)
    }
}

impl FromStr for AddrRange {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let syntax = || SubnetError::RangeSyntax(text.to_owned());
        let (first, last) = text.split_once('-').ok_or_else(syntax)?;
        let parse = |part: &str| part.trim().parse().map_err(|_| syntax());
        Self::new(parse(first)?, parse(last)?)
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = SubnetError;

            fn try_from(text: String) -> Result<Self, SubnetError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

as_text!(Subnet);
as_text!(AddrRange);

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl fmt::Display for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_subnet() {
        let subnet: Subnet = "192.168.122.0/24".parse().unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(192, 168, 122, 1));
        assert_eq!(subnet.guests().to_string(), "192.168.122.2-192.168.122.254");
        assert_eq!(subnet.guests().size(), 253);
        assert_eq!(subnet.netmask(), Ipv4Addr::new(255, 255, 255, 0));
    }

    #[test]
    fn the_smallest_subnet_has_one_guest() {
        let subnet: Subnet = "10.0.0.4/30".parse().unwrap();
        assert_eq!(subnet.guests().size(), 1);
        assert_eq!(subnet.guests().first(), Ipv4Addr::new(10, 0, 0, 6));
    }

    #[test]
    fn host_bits_are_refused_with_what_was_meant() {
        let error = "192.168.122.1/24".parse::<Subnet>().unwrap_err().to_string();
        assert!(error.contains("did you mean 192.168.122.0/24"), "{error}");
    }

    #[test]
    fn what_cannot_hold_guests_is_refused() {
        for text in [
            "192.168.122.0",
            "x/24",
            "10.0.0.0/31",
            "10.0.0.0/7",
            "127.0.0.0/8",
            "224.0.0.0/24",
            "0.0.0.0/8",
            "10.0.0.0/33",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    #[test]
    fn overlap_is_either_way_round() {
        let subnet: Subnet = "192.168.122.0/24".parse().unwrap();
        for (other, overlaps) in [
            ("192.168.0.0/16", true),
            ("192.168.122.128/25", true),
            ("192.168.123.0/24", false),
            ("0.0.0.0/0", true),
        ] {
            assert_eq!(subnet.overlaps(other.parse().unwrap()), overlaps, "{other}");
        }
    }

    #[test]
    fn ranges() {
        let range: AddrRange = "10.0.0.5 - 10.0.0.9".parse().unwrap();
        assert_eq!(range.size(), 5);
        assert_eq!(range.iter().count(), 5);
        assert!(range.contains(Ipv4Addr::new(10, 0, 0, 9)));
        for bad in ["10.0.0.9-10.0.0.5", "10.0.0.5", "a-b", ""] {
            assert!(bad.parse::<AddrRange>().is_err(), "{bad}");
        }
    }
}
