//! One address, route, rule or neighbour as the kernel tells of it, kept whole: as the body of
//! its rtnetlink message. What this program has no word for is moved and put back with the rest.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{LinkId, attributes};
use attributes::Attributes;

/// Address families (`AF_INET`, `AF_INET6`).
pub(crate) const INET: u8 = 2;
pub(crate) const INET6: u8 = 10;

/// `ifaddrmsg`, `rtmsg`, `fib_rule_hdr`, `ndmsg`: bytes before the attributes.
const ADDRESS_HEADER: usize = 8;
const HEADER: usize = 12;

/// Attributes of linux/if_addr.h, linux/rtnetlink.h, linux/neighbour.h and linux/fib_rules.h.
pub(crate) mod kind {
    pub(crate) const IFA_ADDRESS: u16 = 1;
    pub(crate) const IFA_LOCAL: u16 = 2;
    pub(crate) const IFA_LABEL: u16 = 3;
    pub(crate) const IFA_CACHEINFO: u16 = 6;
    pub(crate) const IFA_FLAGS: u16 = 8;
    pub(crate) const RTA_DST: u16 = 1;
    pub(crate) const RTA_IIF: u16 = 3;
    pub(crate) const RTA_OIF: u16 = 4;
    pub(crate) const RTA_GATEWAY: u16 = 5;
    pub(crate) const RTA_PRIORITY: u16 = 6;
    pub(crate) const RTA_PREFSRC: u16 = 7;
    pub(crate) const RTA_MULTIPATH: u16 = 9;
    pub(crate) const RTA_CACHEINFO: u16 = 12;
    pub(crate) const RTA_TABLE: u16 = 15;
    pub(crate) const RTA_EXPIRES: u16 = 23;
    pub(crate) const RTA_NH_ID: u16 = 30;
    pub(crate) const NDA_DST: u16 = 1;
    pub(crate) const NDA_LLADDR: u16 = 2;
    pub(crate) const NDA_CACHEINFO: u16 = 3;
    pub(crate) const NDA_PROBES: u16 = 4;
    pub(crate) const FRA_IIFNAME: u16 = 3;
    pub(crate) const FRA_PRIORITY: u16 = 6;
    pub(crate) const FRA_OIFNAME: u16 = 17;
}

/// Flags of addresses that a request may carry (`IFA_F_NODAD`, `HOMEADDRESS`, `MANAGETEMPADDR`,
/// `NOPREFIXROUTE`, `MCAUTOJOIN`): all others the kernel works out.
const ADDRESS_FLAGS: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
/// `IFA_F_NODAD`.
const NO_DAD: u32 = 0x02;
/// `RTNH_F_ONLINK`, the only flag of a route or next hop that is asked for and not worked out.
const ON_LINK: u8 = 4;
/// `RTPROT_KERNEL`, `RTN_UNICAST`, `NUD_PERMANENT`, `NTF_PROXY`.
const BY_KERNEL: u8 = 2;
const UNICAST: u8 = 1;
const PERMANENT: u16 = 0x80;
const PROXY: u8 = 8;
/// `FIB_RULE_IIF_DETACHED | FIB_RULE_OIF_DETACHED`.
const DETACHED: u32 = 8 | 16;
/// A lifetime without end.
const FOREVER: u32 = u32::MAX;
/// The kernel's clock for the age of routes ticks this often a second (`USER_HZ`).
const TICKS: i32 = 100;

/// What a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// An address of a link.
    Address,
    /// A route, in any table.
    Route,
    /// A routing rule.
    Rule,
    /// A permanent or proxy neighbour.
    Neighbour,
}

/// One object of the kernel, as the body of the message that makes it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Record {
    what: What,
    header: Vec<u8>,
    attributes: Attributes,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    what: What,
    body: String,
}

impl From<Record> for Stored {
    fn from(record: Record) -> Self {
        Self { what: record.what, body: attributes::to_hex(&record.body()) }
    }
}

impl TryFrom<Stored> for Record {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        attributes::from_hex(&stored.body)
            .and_then(|body| Self::parse(stored.what, &body))
            .ok_or_else(|| format!("`{}` is no record", stored.body))
    }
}

impl Record {
    /// From the body of a message of a dump, in the form in which it can be asked for again:
    /// without counters and what the kernel works out by itself. None for what is malformed, and
    /// for what is nobody's to move: neighbours that were learned, routes that come and go with
    /// an address.
    #[must_use]
    pub fn parse(what: What, body: &[u8]) -> Option<Self> {
        let length = if what == What::Address { ADDRESS_HEADER } else { HEADER };
        let header = body.get(..length)?.to_vec();
        let attributes = Attributes::parse(body.get(length..)?)?;
        let mut record = Self { what, header, attributes };
        matches!(record.family(), INET | INET6).then_some(())?;
        record.normalise()?;
        Some(record)
    }

    fn normalise(&mut self) -> Option<()> {
        match self.what {
            What::Address => self.normalise_address(),
            What::Route => self.normalise_route()?,
            What::Rule => {
                let flags = self.header_u32(8) & !DETACHED;
                self.header[8..12].copy_from_slice(&flags.to_ne_bytes());
            }
            What::Neighbour => {
                let state = u16::from_ne_bytes([self.header[8], self.header[9]]);
                (state & PERMANENT != 0 || self.header[10] & PROXY != 0).then_some(())?;
                self.attributes.remove(&[kind::NDA_CACHEINFO, kind::NDA_PROBES]);
            }
        }
        Some(())
    }

    fn normalise_address(&mut self) {
        let flags = self.attributes.u32(kind::IFA_FLAGS).unwrap_or(self.header[2].into());
        let flags = flags & ADDRESS_FLAGS;
        self.header[2] = flags.to_ne_bytes()[0];
        self.attributes.set(kind::IFA_FLAGS, flags.to_ne_bytes().to_vec());
        if let Some((preferred, valid)) = self.lifetimes() {
            self.set_lifetimes(preferred, valid);
        }
    }

    fn normalise_route(&mut self) -> Option<()> {
        let [.., protocol, _, route_type] = self.header[..8] else { return None };
        // What the kernel makes with an address: local, broadcast, anycast, multicast.
        (protocol != BY_KERNEL || route_type == UNICAST).then_some(())?;
        let flags = self.header_u32(8) & u32::from(ON_LINK);
        self.header[8..12].copy_from_slice(&flags.to_ne_bytes());
        // `rta_cacheinfo`: the third word is what is left of the route's life.
        let left = self.attributes.get(kind::RTA_CACHEINFO).and_then(|value| value.get(8..12));
        let left = left.and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?)));
        if let Some(left) = left.filter(|left| *left > 0) {
            let seconds = (left / TICKS).max(1);
            self.attributes.set(kind::RTA_EXPIRES, seconds.to_ne_bytes().to_vec());
        }
        self.attributes.remove(&[kind::RTA_CACHEINFO]);
        if let Some(hops) = self.attributes.get(kind::RTA_MULTIPATH) {
            let hops = attributes::map_hops(hops, |hop| hop.flags &= ON_LINK)?;
            self.attributes.set(kind::RTA_MULTIPATH, hops);
        }
        Some(())
    }

    /// What it is of.
    #[must_use]
    pub const fn what(&self) -> What {
        self.what
    }

    /// The address family: 2 for IPv4, 10 for IPv6.
    #[must_use]
    pub fn family(&self) -> u8 {
        self.header[0]
    }

    /// The body of the message that asks for it.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut body = self.header.clone();
        self.attributes.write(&mut body);
        body
    }

    /// The body of the message that asks for an address at once, without duplicate address
    /// detection: it was the host's a moment ago.
    #[must_use]
    pub fn body_without_dad(&self) -> Vec<u8> {
        let mut record = self.clone();
        if self.what == What::Address && self.family() == INET6 {
            let flags = self.attributes.u32(kind::IFA_FLAGS).unwrap_or_default() | NO_DAD;
            record.attributes.set(kind::IFA_FLAGS, flags.to_ne_bytes().to_vec());
        }
        record.body()
    }

    /// Whether it is of this link: an address or neighbour of it, a route over it, a rule that
    /// names it.
    #[must_use]
    pub fn is_on(&self, link: &LinkId) -> bool {
        match self.what {
            What::Address => self.header_u32(4) == link.index,
            What::Neighbour => self.header_u32(4) == link.index,
            What::Rule => self.rule_names().any(|name| name == link.name.as_str()),
            What::Route => {
                let hops = self.attributes.get(kind::RTA_MULTIPATH).unwrap_or_default();
                [kind::RTA_OIF, kind::RTA_IIF]
                    .iter()
                    .any(|kind| self.attributes.u32(*kind) == Some(link.index))
                    || attributes::hops(hops).iter().any(|hop| hop.link == link.index)
            }
        }
    }

    fn rule_names(&self) -> impl Iterator<Item = &str> {
        [kind::FRA_IIFNAME, kind::FRA_OIFNAME]
            .into_iter()
            .filter_map(|kind| attributes::text(self.attributes.get(kind)?))
    }

    /// The same on another link: `from` is replaced by `to` wherever it stands. None where a name
    /// does not fit: the label of an address has 15 bytes at most.
    #[must_use]
    pub fn moved(&self, from: &LinkId, to: &LinkId) -> Option<Self> {
        let mut record = self.clone();
        match self.what {
            What::Address | What::Neighbour => {
                if self.header_u32(4) == from.index {
                    record.header[4..8].copy_from_slice(&to.index.to_ne_bytes());
                }
                if self.what == What::Address
                    && let Some(label) = self.attributes.get(kind::IFA_LABEL)
                {
                    let label = attributes::text(label)?;
                    if let Some(rest) = label.strip_prefix(from.name.as_str())
                        && (rest.is_empty() || rest.starts_with(':'))
                    {
                        let label = format!("{}{rest}", to.name);
                        (label.len() <= 15).then_some(())?;
                        record.attributes.set(kind::IFA_LABEL, attributes::with_nul(&label));
                    }
                }
            }
            What::Rule => {
                for kind in [kind::FRA_IIFNAME, kind::FRA_OIFNAME] {
                    let name = self.attributes.get(kind).and_then(attributes::text);
                    if name == Some(from.name.as_str()) {
                        record.attributes.set(kind, attributes::with_nul(to.name.as_str()));
                    }
                }
            }
            What::Route => {
                for kind in [kind::RTA_OIF, kind::RTA_IIF] {
                    if self.attributes.u32(kind) == Some(from.index) {
                        record.attributes.set(kind, to.index.to_ne_bytes().to_vec());
                    }
                }
                if let Some(hops) = self.attributes.get(kind::RTA_MULTIPATH) {
                    let hops = attributes::map_hops(hops, |hop| {
                        if hop.link == from.index {
                            hop.link = to.index;
                        }
                    })?;
                    record.attributes.set(kind::RTA_MULTIPATH, hops);
                }
            }
        }
        Some(record)
    }

    /// The same, `seconds` later: lifetimes are that much shorter. None where its life is over.
    #[must_use]
    pub fn aged(&self, seconds: u32) -> Option<Self> {
        let mut record = self.clone();
        if self.what == What::Address
            && let Some((preferred, valid)) = self.lifetimes()
        {
            let later =
                |left: u32| if left == FOREVER { left } else { left.saturating_sub(seconds) };
            (later(valid) > 0).then_some(())?;
            record.set_lifetimes(later(preferred), later(valid));
        }
        if self.what == What::Route
            && let Some(left) = self.attributes.u32(kind::RTA_EXPIRES)
        {
            let left = left.checked_sub(seconds).filter(|left| *left > 0)?;
            record.attributes.set(kind::RTA_EXPIRES, left.to_ne_bytes().to_vec());
        }
        Some(record)
    }

    /// The seconds for which an address is preferred and valid.
    fn lifetimes(&self) -> Option<(u32, u32)> {
        let info = self.attributes.get(kind::IFA_CACHEINFO)?;
        let word = |at: usize| Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
        Some((word(0)?, word(4)?))
    }

    fn set_lifetimes(&mut self, preferred: u32, valid: u32) {
        // `ifa_cacheinfo`: when it was made and changed is the kernel's to say.
        let mut info = Vec::with_capacity(16);
        for word in [preferred, valid, 0, 0] {
            info.extend(word.to_ne_bytes());
        }
        self.attributes.set(kind::IFA_CACHEINFO, info);
    }

    /// Without what passes: two records of one object, read at different times, are equal then.
    #[must_use]
    pub fn timeless(&self) -> Self {
        let mut record = self.clone();
        let limited = |left: u32| if left == FOREVER { left } else { 1 };
        if self.what == What::Address
            && let Some((preferred, valid)) = self.lifetimes()
        {
            record.set_lifetimes(limited(preferred), limited(valid));
        }
        if self.what == What::Route && self.attributes.get(kind::RTA_EXPIRES).is_some() {
            record.attributes.set(kind::RTA_EXPIRES, 1u32.to_ne_bytes().to_vec());
        }
        record.attributes.sort();
        record
    }

    /// By what the kernel tells two addresses of one link apart.
    #[must_use]
    pub fn address_key(&self) -> Option<(u8, u32, Vec<u8>, u8)> {
        let local = self.attributes.get(kind::IFA_LOCAL);
        let local = local.or_else(|| self.attributes.get(kind::IFA_ADDRESS))?;
        (self.what == What::Address)
            .then(|| (self.family(), self.header_u32(4), local.to_vec(), self.header[1]))
    }

    /// The next hops of a default route of the main table.
    #[must_use]
    pub fn default_gateways(&self, link: &LinkId) -> Vec<IpAddr> {
        const MAIN: u32 = 254;
        if self.what != What::Route || self.header[1] != 0 || self.table() != MAIN {
            return Vec::new();
        }
        let mut found = Vec::new();
        if self.attributes.u32(kind::RTA_OIF) == Some(link.index) {
            found.extend(self.attributes.get(kind::RTA_GATEWAY).and_then(ip));
        }
        for hop in attributes::hops(self.attributes.get(kind::RTA_MULTIPATH).unwrap_or_default()) {
            if hop.link == link.index {
                found.extend(hop.attributes.get(kind::RTA_GATEWAY).and_then(ip));
            }
        }
        found
    }

    /// Whether the route goes by way of a next-hop object, which is not moved.
    #[must_use]
    pub fn has_nexthop_object(&self) -> bool {
        self.what == What::Route && self.attributes.get(kind::RTA_NH_ID).is_some()
    }

    /// Whether a route needs others before it: those to its gateway.
    #[must_use]
    pub fn has_gateway(&self) -> bool {
        self.what == What::Route
            && (self.attributes.get(kind::RTA_GATEWAY).is_some()
                || self.attributes.get(kind::RTA_MULTIPATH).is_some())
    }

    fn table(&self) -> u32 {
        self.attributes.u32(kind::RTA_TABLE).unwrap_or(self.header[4].into())
    }

    fn header_u32(&self, at: usize) -> u32 {
        let bytes = self.header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).unwrap_or_default()
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |kind| self.attributes.get(kind).and_then(ip);
        match self.what {
            What::Address => {
                let local = address(kind::IFA_LOCAL).or_else(|| address(kind::IFA_ADDRESS));
                write!(f, "address {}/{}", show(local), self.header[1])?;
                match self.lifetimes() {
                    Some((_, valid)) if valid != FOREVER => write!(f, " for {valid} s"),
                    _ => Ok(()),
                }
            }
            What::Route => {
                match address(kind::RTA_DST) {
                    None => write!(
                        f,
                        "route default{}",
                        if self.family() == INET6 { " (IPv6)" } else { "" }
                    )?,
                    Some(to) => write!(f, "route {to}/{}", self.header[1])?,
                }
                if let Some(gateway) = address(kind::RTA_GATEWAY) {
                    write!(f, " via {gateway}")?;
                }
                let hops = self.attributes.get(kind::RTA_MULTIPATH).unwrap_or_default();
                for hop in attributes::hops(hops) {
                    write!(f, " via {}", show(hop.attributes.get(kind::RTA_GATEWAY).and_then(ip)))?;
                }
                if let Some(source) = address(kind::RTA_PREFSRC) {
                    write!(f, " from {source}")?;
                }
                if let Some(metric) = self.attributes.u32(kind::RTA_PRIORITY) {
                    write!(f, " metric {metric}")?;
                }
                if self.table() == 254 { Ok(()) } else { write!(f, " in table {}", self.table()) }
            }
            What::Rule => {
                let priority = self.attributes.u32(kind::FRA_PRIORITY).unwrap_or_default();
                let names: Vec<_> = self.rule_names().collect();
                write!(f, "rule {priority} for {}", names.join(" and "))
            }
            What::Neighbour => {
                write!(f, "neighbour {}", show(address(kind::NDA_DST)))?;
                match self.attributes.get(kind::NDA_LLADDR).map(<[u8; 6]>::try_from) {
                    Some(Ok(mac)) => write!(f, " at {}", vnet_types::MacAddr(mac)),
                    _ => write!(f, " by proxy"),
                }
            }
        }
    }
}

fn show(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "?".to_owned(), |address| address.to_string())
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} <{}>", attributes::to_hex(&self.body()))
    }
}
