//! What a network's IPv6 is: its prefix, and how guests get addresses of it.
//!
//! ```text
//! prefix /64, slaac            guests make their addresses themselves (RFC 4862)
//! range, or a reservation      guests get addresses by DHCPv6 (RFC 8415); both together is usual
//! ```
//!
//! Whatever guests do, they learn the rest (router, DNS, MTU) from router advertisements, and DNS
//! by DHCPv6 as well.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use crate::{DEFAULT_LEASE_SECONDS, DnsName, MacAddr};

/// Bytes that every IPv6 link carries (RFC 8200 §5): a network with a smaller MTU has no IPv6.
pub const MIN_MTU6: u32 = 1280;

/// The prefix length with which guests can make addresses themselves (RFC 4291 §2.5.1).
const SLAAC_PREFIX: u8 = 64;

/// An IPv6 prefix for guests, of 64 to 120 bits. Printed as `fd12:3456:789a::/64`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "fd12:3456:789a::/64"))]
#[serde(try_from = "String", into = "String")]
pub struct Prefix6(Ipv6Net);

/// IPv6 addresses from the first to the last, both included. Printed as `fd00::1000-fd00::1fff`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddrRange6 {
    first: Ipv6Addr,
    last: Ipv6Addr,
}

/// A network's IPv6.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Ipv6 {
    /// Its addresses; the first one, `::1`, is the host's.
    pub prefix: Prefix6,
    /// Whether guests may make addresses of a /64 themselves.
    #[serde(default = "yes")]
    pub slaac: bool,
    /// The addresses that are given by DHCPv6 to guests without a reservation; none where this is
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<AddrRange6>,
    /// How long an address that was given by DHCPv6 is valid, in seconds.
    #[serde(default = "default_lease_seconds")]
    pub lease_seconds: u32,
    /// Guests that always get the same address by DHCPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reservations: Vec<Reservation6>,
}

/// An IPv6 address kept for one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Reservation6 {
    /// Whose it is.
    pub mac: MacAddr,
    /// The address, inside the prefix, in the range or not.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Ipv6))]
    pub ip: Ipv6Addr,
    /// The guest's name in the network's domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<DnsName>,
}

/// Why a text is no prefix or no range of IPv6 addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Prefix6Error {
    /// Not of the form `ADDRESS/N`.
    #[error("`{0}` is no IPv6 prefix: write it as address/length, as in fd12:3456:789a::/64")]
    Syntax(String),
    /// Bits are set behind the prefix.
    #[error("`{given}` has bits set behind its prefix: did you mean {meant}?")]
    HostBits {
        /// What was written.
        given: String,
        /// The prefix that holds it.
        meant: Ipv6Net,
    },
    /// A length that is no network's.
    #[error("`{0}` cannot be a network's prefix: its length must be /64 to /120")]
    Length(String),
    /// Addresses that guests cannot have.
    #[error(
        "`{0}` is not a prefix for guests: give a unique local one (fd00::/8) or one of yours from \
         2000::/3"
    )]
    Reserved(String),
    /// Not of the form `A-B`.
    #[error("`{0}` is no IPv6 range: write it as first-last, as in fd00::1000-fd00::1fff")]
    RangeSyntax(String),
    /// The last address comes before the first.
    #[error("the range {first}-{last} is backwards: its last address comes before its first")]
    Backwards {
        /// The first address as written.
        first: Ipv6Addr,
        /// The last address as written.
        last: Ipv6Addr,
    },
}

/// Why the parts of a network's IPv6 do not fit each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ipv6Error {
    /// Guests cannot make addresses of such a prefix.
    #[error(
        "guests can make their own addresses of a /64 only, and the prefix is {0}: set `slaac = \
         false` and give a `range` (--no-slaac --range6), or choose a /64"
    )]
    SlaacPrefix(Prefix6),
    /// Nobody would get an address.
    #[error(
        "guests would get no IPv6 address: set `slaac = true`, or give a `range` or a reservation"
    )]
    NoAddresses,
    /// The range leaves the prefix, or holds an address that is no guest's.
    #[error("the IPv6 range {range} does not fit the prefix {prefix}: choose it within {}", prefix.guests())]
    Range {
        /// As defined.
        range: AddrRange6,
        /// As defined.
        prefix: Prefix6,
    },
    /// A reservation's address is not one that a guest can have here.
    #[error("the reservation of {ip} for {mac} does not fit the prefix {prefix}: choose it within {}", prefix.guests())]
    Reservation {
        /// As defined.
        mac: MacAddr,
        /// As defined.
        ip: Ipv6Addr,
        /// As defined.
        prefix: Prefix6,
    },
    /// Two reservations want the same thing.
    #[error("{0} is reserved twice for IPv6: keep one of the two reservations")]
    ReservedTwice(String),
    /// A reservation for an address that no station can have.
    #[error(
        "{0} is a group address, which no guest can have: reserve for the guest's own MAC address"
    )]
    GroupMac(MacAddr),
    /// A lease too short to be renewed in time.
    #[error("an IPv6 lease of {0} seconds is too short to be renewed: choose 60 or more")]
    LeaseTooShort(u32),
    /// An MTU with which there is no IPv6.
    #[error(
        "IPv6 needs an MTU of {MIN_MTU6} bytes at least, and it is {0}: raise it, or leave out IPv6"
    )]
    Mtu(u32),
}

fn yes() -> bool {
    true
}

fn default_lease_seconds() -> u32 {
    DEFAULT_LEASE_SECONDS
}

impl Prefix6 {
    /// The prefix `net`, if guests can live in it.
    ///
    /// # Errors
    /// Bits behind the prefix, a length outside /64 to /120, or a range reserved for something
    /// else.
    pub fn new(net: Ipv6Net) -> Result<Self, Prefix6Error> {
        if net.addr() != net.network() {
            return Err(Prefix6Error::HostBits { given: net.to_string(), meant: net.trunc() });
        }
        if !(SLAAC_PREFIX..=120).contains(&net.prefix_len()) {
            return Err(Prefix6Error::Length(net.to_string()));
        }
        // RFC 4193 §3.1 (fc00::/7), RFC 4291 §2.5.4 (global unicast is allocated from 2000::/3).
        let first = net.network().segments()[0];
        if first & 0xfe00 != 0xfc00 && first & 0xe000 != 0x2000 {
            return Err(Prefix6Error::Reserved(net.to_string()));
        }
        Ok(Self(net))
    }

    /// The unique local /64 of this global identifier, of which 40 bits count, and of the subnet
    /// 0 (RFC 4193 §3.1).
    #[must_use]
    pub fn unique_local(global_id: u64) -> Self {
        let id = u128::from(global_id & 0xff_ffff_ffff);
        let address = Ipv6Addr::from_bits((0xfd << 120) | (id << 80));
        Self(Ipv6Net::new_assert(address, SLAAC_PREFIX))
    }

    /// The prefix as the `ipnet` crate knows it.
    #[must_use]
    pub const fn net(self) -> Ipv6Net {
        self.0
    }

    /// Its length in bits.
    #[must_use]
    pub const fn prefix_len(self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether guests can make addresses of it themselves.
    #[must_use]
    pub const fn fits_slaac(self) -> bool {
        self.0.prefix_len() == SLAAC_PREFIX
    }

    /// Whether it is a unique local one (RFC 4193), which nobody outside has a route to.
    #[must_use]
    pub fn is_unique_local(self) -> bool {
        self.0.network().segments()[0] & 0xfe00 == 0xfc00
    }

    /// The host's own address in it: the first one, `::1`.
    #[must_use]
    pub fn gateway(self) -> Ipv6Addr {
        self.nth(1)
    }

    /// Every address that a guest may have: from `::2` to the last one.
    #[must_use]
    pub fn guests(self) -> AddrRange6 {
        AddrRange6 { first: self.nth(2), last: self.0.broadcast() }
    }

    /// The addresses that are given by DHCPv6 where nothing else is said: `::1000` to `::1fff`, or
    /// the upper half of a prefix too small for these.
    #[must_use]
    pub fn usual_range(self) -> AddrRange6 {
        let (first, last) = (self.nth(0x1000), self.nth(0x1fff));
        if self.contains(last) {
            return AddrRange6 { first, last };
        }
        let half = 1 << (127 - self.prefix_len());
        AddrRange6 { first: self.nth(half), last: self.0.broadcast() }
    }

    /// The address that a guest with this MAC address makes for itself if it follows RFC 4862 and
    /// RFC 4291 (appendix A). Of a /64 only.
    #[must_use]
    pub fn eui64(self, mac: MacAddr) -> Option<Ipv6Addr> {
        self.fits_slaac().then(|| self.nth(u128::from(interface_id(mac))))
    }

    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(self, address: Ipv6Addr) -> bool {
        self.0.contains(&address)
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(self, other: Ipv6Net) -> bool {
        self.0.contains(&other.network()) || other.contains(&self.0.network())
    }

    fn nth(self, number: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.0.network().to_bits() | number)
    }
}

/// The interface identifier that follows from a MAC address (RFC 4291, appendix A).
fn interface_id(mac: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = mac.octets();
    u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// The link-local address that follows from a MAC address (RFC 4291, appendix A).
#[must_use]
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    Ipv6Addr::from_bits((0xfe80 << 112) | u128::from(interface_id(mac)))
}

impl AddrRange6 {
    /// The range from `first` to `last`, both included.
    ///
    /// # Errors
    /// `last` comes before `first`.
    pub fn new(first: Ipv6Addr, last: Ipv6Addr) -> Result<Self, Prefix6Error> {
        if last < first {
            return Err(Prefix6Error::Backwards { first, last });
        }
        Ok(Self { first, last })
    }

    /// The first address.
    #[must_use]
    pub const fn first(self) -> Ipv6Addr {
        self.first
    }

    /// The last address, which belongs to the range.
    #[must_use]
    pub const fn last(self) -> Ipv6Addr {
        self.last
    }

    /// Whether `address` lies in the range.
    #[must_use]
    pub fn contains(self, address: Ipv6Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// How many addresses it holds: 1 at least; `u128::MAX` for all of 2^128.
    #[must_use]
    pub fn size(self) -> u128 {
        (self.last.to_bits() - self.first.to_bits()).saturating_add(1)
    }
}

impl Ipv6 {
    /// The prefix with all else as it is where nothing is said.
    #[must_use]
    pub fn new(prefix: Prefix6) -> Self {
        Self {
            prefix,
            slaac: true,
            range: None,
            lease_seconds: DEFAULT_LEASE_SECONDS,
            reservations: Vec::new(),
        }
    }

    /// Whether guests are to ask for addresses by DHCPv6: the flag M of router advertisements
    /// (RFC 4861 §4.2).
    #[must_use]
    pub fn gives_addresses(&self) -> bool {
        self.range.is_some() || !self.reservations.is_empty()
    }

    /// Checks what no single value can show: that the parts fit each other, and the network's MTU.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn validate(&self, mtu: u32) -> Result<(), Ipv6Error> {
        let prefix = self.prefix;
        if mtu < MIN_MTU6 {
            return Err(Ipv6Error::Mtu(mtu));
        }
        if self.slaac && !prefix.fits_slaac() {
            return Err(Ipv6Error::SlaacPrefix(prefix));
        }
        if !self.slaac && !self.gives_addresses() {
            return Err(Ipv6Error::NoAddresses);
        }
        if self.lease_seconds < 60 {
            return Err(Ipv6Error::LeaseTooShort(self.lease_seconds));
        }
        let guests = prefix.guests();
        if let Some(range) = self.range
            && !(guests.contains(range.first()) && guests.contains(range.last()))
        {
            return Err(Ipv6Error::Range { range, prefix });
        }
        let mut seen = BTreeSet::new();
        for &Reservation6 { mac, ip, .. } in &self.reservations {
            if mac.is_multicast() {
                return Err(Ipv6Error::GroupMac(mac));
            }
            if !guests.contains(ip) {
                return Err(Ipv6Error::Reservation { mac, ip, prefix });
            }
            for key in [mac.to_string(), ip.to_string()] {
                if !seen.insert(key.clone()) {
                    return Err(Ipv6Error::ReservedTwice(key));
                }
            }
        }
        Ok(())
    }
}

impl FromStr for Prefix6 {
    type Err = Prefix6Error;

    fn from_str(text: &str) -> Result<Self, Prefix6Error> {
        let net = text.parse().map_err(|_| Prefix6Error::Syntax(text.to_owned()))?;
        Self::new(net)
    }
}

impl FromStr for AddrRange6 {
    type Err = Prefix6Error;

    fn from_str(text: &str) -> Result<Self, Prefix6Error> {
        let syntax = || Prefix6Error::RangeSyntax(text.to_owned());
        let (first, last) = text.split_once('-').ok_or_else(syntax)?;
        let parse = |part: &str| part.trim().parse().map_err(|_| syntax());
        Self::new(parse(first)?, parse(last)?)
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = Prefix6Error;

            fn try_from(text: String) -> Result<Self, Prefix6Error> {
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

as_text!(Prefix6);
as_text!(AddrRange6);

impl fmt::Display for Prefix6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl fmt::Display for AddrRange6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix6 {
        text.parse().unwrap()
    }

    #[test]
    fn a_unique_local_prefix_has_its_40_bits() {
        let ula = Prefix6::unique_local(0xff12_3456_789a_bcde);
        assert_eq!(ula.to_string(), "fd56:789a:bcde::/64");
        assert_eq!(ula.gateway().to_string(), "fd56:789a:bcde::1");
        assert_eq!(ula.usual_range().to_string(), "fd56:789a:bcde::1000-fd56:789a:bcde::1fff");
        assert!(ula.is_unique_local() && ula.fits_slaac());
    }

    #[test]
    fn what_cannot_hold_guests_is_refused_with_what_would() {
        for (text, words) in [
            ("fd00::1/64", "did you mean fd00::/64"),
            ("fd00::/48", "/64 to /120"),
            ("fd00::/121", "/64 to /120"),
            ("fe80::/64", "unique local"),
            ("ff02::/64", "unique local"),
            ("::/64", "unique local"),
            ("10.0.0.0/24", "fd12:3456:789a::/64"),
            ("fd00::", "fd12:3456:789a::/64"),
        ] {
            let error = text.parse::<Prefix6>().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        for text in ["fd00::2", "fd00::9-fd00::2", "x-y"] {
            assert!(text.parse::<AddrRange6>().is_err(), "{text}");
        }
    }

    #[test]
    fn small_prefixes_have_ranges_too() {
        assert_eq!(prefix("fd00::/120").usual_range().to_string(), "fd00::80-fd00::ff");
        assert_eq!(prefix("fd00::/120").guests().size(), 254);
        assert_eq!(prefix("2001:db8::/112").usual_range().size(), 4096);
    }

    #[test]
    fn addresses_follow_from_mac_addresses() {
        let mac = "52:54:00:12:34:56".parse().unwrap();
        assert_eq!(link_local(mac).to_string(), "fe80::5054:ff:fe12:3456");
        let made = prefix("fd00::/64").eui64(mac).unwrap();
        assert_eq!(made.to_string(), "fd00::5054:ff:fe12:3456");
        assert_eq!(prefix("fd00::/96").eui64(mac), None);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let usual = Ipv6::new(prefix("fd00::/64"));
        assert_eq!(usual.validate(1500), Ok(()));
        assert_eq!(usual.validate(1279), Err(Ipv6Error::Mtu(1279)));
        let wide = Ipv6::new(prefix("fd00::/96"));
        assert!(matches!(wide.validate(1500), Err(Ipv6Error::SlaacPrefix(_))));
        let none = Ipv6 { slaac: false, ..usual.clone() };
        assert_eq!(none.validate(1500), Err(Ipv6Error::NoAddresses));
        let given = Ipv6 { range: Some(wide.prefix.usual_range()), ..none.clone() };
        assert_eq!(given.validate(1500), Ok(()));
        let outside = Ipv6 { range: "fd01::2-fd01::9".parse().ok(), ..usual.clone() };
        assert!(matches!(outside.validate(1500), Err(Ipv6Error::Range { .. })));
        let gateway = Ipv6 { range: "fd00::1-fd00::9".parse().ok(), ..usual.clone() };
        assert!(matches!(gateway.validate(1500), Err(Ipv6Error::Range { .. })));
        let one = Reservation6 {
            mac: "52:54:00:00:00:01".parse().unwrap(),
            ip: "fd00::9".parse().unwrap(),
            hostname: None,
        };
        let reserved = Ipv6 { reservations: vec![one.clone()], ..none };
        assert_eq!(reserved.validate(1500), Ok(()));
        assert!(reserved.gives_addresses());
        let twice = Ipv6 { reservations: vec![one.clone(), one], ..usual };
        assert!(matches!(twice.validate(1500), Err(Ipv6Error::ReservedTwice(_))));
    }
}
