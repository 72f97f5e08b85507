//! Solicitations and advertisements in bytes.

use std::fmt;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use vnet_types::MacAddr;

use super::config::{Addressing, Config, ConfigError, Preference, Prefix, PrefixUse, Route};
use super::{ADVERTISEMENT, SOLICITATION, Station};
use crate::ip6::{Content, Packet};

/// What nobody has passed on (RFC 4861 §3.1).
const HOP_LIMIT: u8 = 255;
const SOLICITATION_LENGTH: usize = 8;
const ADVERTISEMENT_LENGTH: usize = 16;
const IPV6_HEADER: usize = 40;
/// Lengths of options count these (RFC 4861 §4.6).
const UNIT: usize = 8;

const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

/// Types of options.
mod option {
    pub(super) const SOURCE_LINK_LAYER: u8 = 1;
    pub(super) const PREFIX: u8 = 3;
    pub(super) const MTU: u8 = 5;
    /// RFC 4191 §2.3
    pub(super) const ROUTE: u8 = 24;
    /// RFC 8106 §5.1
    pub(super) const RDNSS: u8 = 25;
    /// RFC 8106 §5.2
    pub(super) const DNSSL: u8 = 31;
}

/// An ICMPv6 message as it was received, its checksum verified by whoever took it from the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// The neighbour that the frame came from, where the caller can tell.
    pub src_mac: Option<MacAddr>,
    /// The sender's address.
    pub src_ip: Ipv6Addr,
    /// The packet's hop limit.
    pub hop_limit: u8,
    /// The message from its type on.
    pub message: &'a [u8],
}

/// A valid router solicitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solicitation {
    /// Who asks; none if it has no address yet.
    pub from: Option<Station>,
}

/// A valid router advertisement, in as far as routers of one link must agree (RFC 4861 §6.2.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// The router's link-local address.
    pub router: Ipv6Addr,
    /// For how long it is a default router, in seconds.
    pub lifetime_seconds: u16,
    /// 0 if it does not say.
    pub hop_limit: u8,
    /// How guests get addresses.
    pub addressing: Addressing,
    /// Where it says.
    pub mtu: Option<u32>,
    /// Its prefixes.
    pub prefixes: Vec<AdvertisedPrefix>,
}

/// A prefix in another router's advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdvertisedPrefix {
    /// The prefix.
    pub net: Ipv6Net,
    /// Seconds.
    pub valid_seconds: u32,
    /// Seconds.
    pub preferred_seconds: u32,
}

/// Why a message must be discarded (RFC 4861 §6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Another message.
    #[error("the message is of another type")]
    Type,
    /// It may come from another link.
    #[error("the packet has been passed on by a router: its hop limit is {0}")]
    HopLimit(u8),
    /// A code that is not 0.
    #[error("the message has the unknown code {0}")]
    Code(u8),
    /// Cut short, or an option is.
    #[error("the message is cut short")]
    Truncated,
    /// An option without length.
    #[error("an option of the message has no length")]
    EmptyOption,
    /// The sender's address is none that such a message may come from.
    #[error("{0} may not send such a message")]
    Source(Ipv6Addr),
    /// A station without an address that gives its card.
    #[error("the message gives the card of a station without an address")]
    UnexpectedCard,
}

/// Something that two routers of one link say differently (RFC 4861 §6.2.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The hop limit: ours, theirs.
    HopLimit(u8, u8),
    /// How guests get addresses: ours, theirs.
    Addressing(Addressing, Addressing),
    /// The MTU: ours, theirs.
    Mtu(u32, u32),
    /// How long a prefix is valid or preferred.
    Lifetimes(Ipv6Net),
}

impl<'a> Received<'a> {
    /// The ICMPv6 message of `packet`; None if it carries something else.
    #[must_use]
    pub fn new(packet: &Packet<'a>) -> Option<Self> {
        let Content::Icmp(message) = packet.content else { return None };
        let Packet { src_mac, src_ip, hop_limit, .. } = *packet;
        Some(Self { src_mac: Some(src_mac), src_ip, hop_limit, message })
    }
}

/// Reads a router solicitation.
///
/// # Errors
/// It is none, or must be discarded (RFC 4861 §6.1.1).
pub fn parse_solicitation(received: &Received<'_>) -> Result<Solicitation, Invalid> {
    let options = header(received, SOLICITATION, SOLICITATION_LENGTH)?;
    let mut card = None;
    for option in Options(options) {
        if let (option::SOURCE_LINK_LAYER, value) = option? {
            card = value.first_chunk::<6>().map(|mac| MacAddr(*mac));
        }
    }
    let source = received.src_ip;
    if source.is_multicast() {
        return Err(Invalid::Source(source));
    }
    if source.is_unspecified() {
        return match card {
            Some(_) => Err(Invalid::UnexpectedCard),
            None => Ok(Solicitation { from: None }),
        };
    }
    // The frame's own source is what a guarded port vouches for.
    let mac = received.src_mac.or(card).filter(|mac| !mac.is_multicast());
    Ok(Solicitation { from: Some(Station { ip: source, mac }) })
}

/// Reads a router advertisement.
///
/// # Errors
/// It is none, or must be discarded (RFC 4861 §6.1.2).
pub fn parse_advertisement(received: &Received<'_>) -> Result<Advertised, Invalid> {
    let options = header(received, ADVERTISEMENT, ADVERTISEMENT_LENGTH)?;
    if !received.src_ip.is_unicast_link_local() {
        return Err(Invalid::Source(received.src_ip));
    }
    let message = received.message;
    let mut all = Advertised {
        router: received.src_ip,
        lifetime_seconds: u16::from_be_bytes([message[6], message[7]]),
        hop_limit: message[4],
        addressing: match message[5] {
            flags if flags & MANAGED != 0 => Addressing::Dhcp,
            flags if flags & OTHER != 0 => Addressing::SlaacAndOptions,
            _ => Addressing::Slaac,
        },
        mtu: None,
        prefixes: Vec::new(),
    };
    for option in Options(options) {
        let (code, value) = option?;
        let number = |at: usize| {
            let bytes = value.get(at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map(|bytes| u32::from_be_bytes(*bytes))
        };
        match code {
            option::MTU => all.mtu = number(2),
            option::PREFIX => {
                let bits = value.first().copied().unwrap_or_default();
                let net = value.get(14..).and_then(|rest| rest.first_chunk::<16>());
                let net = net.and_then(|net| Ipv6Net::new(Ipv6Addr::from(*net), bits).ok());
                if let (Some(net), Some(valid_seconds), Some(preferred_seconds)) =
                    (net, number(2), number(6))
                {
                    let net = net.trunc();
                    all.prefixes.push(AdvertisedPrefix { net, valid_seconds, preferred_seconds });
                }
            }
            _ => {}
        }
    }
    Ok(all)
}

/// What both kinds of message must be like; gives the options.
fn header<'a>(received: &Received<'a>, kind: u8, length: usize) -> Result<&'a [u8], Invalid> {
    let &[first, code, ..] = received.message else { return Err(Invalid::Truncated) };
    if first != kind {
        return Err(Invalid::Type);
    }
    if received.hop_limit != HOP_LIMIT {
        return Err(Invalid::HopLimit(received.hop_limit));
    }
    if code != 0 {
        return Err(Invalid::Code(code));
    }
    received.message.get(length..).ok_or(Invalid::Truncated)
}

/// The options in some bytes: type, and what is behind the length.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u8, &'a [u8]), Invalid>;

    fn next(&mut self) -> Option<Self::Item> {
        let (code, units) = match *self.0 {
            [] => return None,
            // "All included options have a length that is greater than zero."
            [_, 0, ..] => {
                self.0 = &[];
                return Some(Err(Invalid::EmptyOption));
            }
            [code, units, ..] => (code, usize::from(units)),
            [_] => (0, usize::MAX / UNIT),
        };
        match self.0.split_at_checked(units * UNIT) {
            Some((option, rest)) => {
                self.0 = rest;
                Some(Ok((code, &option[2..])))
            }
            None => {
                self.0 = &[];
                Some(Err(Invalid::Truncated))
            }
        }
    }
}

/// What an advertisement says of the time from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tense {
    /// The router is there.
    Present,
    /// It is there no longer (RFC 4861 §6.2.5).
    Past,
}

/// Prefixes and name servers that were advertised, and are no longer the link's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Retired {
    pub(super) prefixes: Vec<Prefix>,
    pub(super) dns_servers: Vec<Ipv6Addr>,
}

/// The advertisement of `config`, with no checksum.
pub(super) fn encode(config: &Config, retired: &Retired, tense: Tense) -> Vec<u8> {
    let present = tense == Tense::Present;
    let lifetime = if present { config.lifetime_seconds } else { 0 };
    let mut flags = match config.addressing {
        Addressing::Slaac => 0,
        Addressing::SlaacAndOptions => OTHER,
        Addressing::Dhcp => MANAGED | OTHER,
    };
    // RFC 4191 §2.2: one that is no default router has no preference.
    if lifetime != 0 {
        flags |= preference(config.preference);
    }
    let mut out = vec![ADVERTISEMENT, 0, 0, 0, config.hop_limit, flags];
    out.extend(lifetime.to_be_bytes());
    // Reachable time and retransmission timer: unspecified.
    out.extend([0; 8]);
    out.extend([option::SOURCE_LINK_LAYER, 1]);
    out.extend(config.mac.octets());
    out.extend([option::MTU, 1, 0, 0]);
    out.extend(config.mtu.to_be_bytes());
    for prefix in &config.prefixes {
        let (valid, preferred) = (prefix.valid_seconds, prefix.preferred_seconds);
        push_prefix(&mut out, prefix, valid, if present { preferred } else { 0 });
    }
    for prefix in &retired.prefixes {
        // Guests keep their addresses for two hours at most (RFC 4862 §5.5.3).
        push_prefix(&mut out, prefix, 0, 0);
    }
    for route in &config.routes {
        push_route(&mut out, route, if present { route.lifetime_seconds } else { 0 });
    }
    // RFC 8106 §5.1: three times the longest interval.
    let life = u32::try_from(3 * config.max_interval.as_secs()).unwrap_or(u32::MAX);
    let life = if present { life } else { 0 };
    push_servers(&mut out, &config.dns_servers, life);
    push_servers(&mut out, &retired.dns_servers, 0);
    // Seven names fit an option, however long they are.
    for names in config.search.chunks(7) {
        let start = out.len();
        out.extend([option::DNSSL, 0, 0, 0]);
        out.extend(life.to_be_bytes());
        for name in names {
            for label in name.as_str().split('.').filter(|label| !label.is_empty()) {
                out.extend(u8::try_from(label.len()));
                out.extend(label.bytes());
            }
            out.push(0);
        }
        let length = (out.len() - start).next_multiple_of(UNIT);
        out.resize(start + length, 0);
        out[start + 1] = u8::try_from(length / UNIT).unwrap_or(u8::MAX);
    }
    out
}

/// Checks that one packet holds the advertisement.
pub(super) fn check_length(config: &Config) -> Result<(), ConfigError> {
    let bytes = encode(config, &Retired::default(), Tense::Present).len();
    let room = usize::try_from(config.mtu).unwrap_or(usize::MAX).saturating_sub(IPV6_HEADER);
    if bytes > room { Err(ConfigError::TooLong { bytes, mtu: config.mtu }) } else { Ok(()) }
}

/// In the bits of the flags (RFC 4191 §2.2, §2.3).
const fn preference(preference: Preference) -> u8 {
    match preference {
        Preference::High => 0b01 << 3,
        Preference::Medium => 0,
        Preference::Low => 0b11 << 3,
    }
}

fn push_prefix(out: &mut Vec<u8>, prefix: &Prefix, valid: u32, preferred: u32) {
    let flags = match prefix.used_for {
        PrefixUse::OnLink => ON_LINK,
        PrefixUse::Both => ON_LINK | AUTONOMOUS,
        PrefixUse::Autonomous => AUTONOMOUS,
    };
    out.extend([option::PREFIX, 4, prefix.net.prefix_len(), flags]);
    out.extend(valid.to_be_bytes());
    out.extend(preferred.to_be_bytes());
    out.extend([0; 4]);
    out.extend(prefix.net.network().octets());
}

fn push_route(out: &mut Vec<u8>, route: &Route, lifetime: u32) {
    let bits = route.net.prefix_len();
    // RFC 4191 §2.3: as much of the prefix as it has bits.
    let bytes = match bits {
        0 => 0,
        1..=64 => 8,
        _ => 16,
    };
    let units = if bytes == 0 { 1 } else { 1 + bytes as u8 / 8 };
    out.extend([option::ROUTE, units, bits, preference(route.preference)]);
    out.extend(lifetime.to_be_bytes());
    out.extend(&route.net.network().octets()[..bytes]);
}

fn push_servers(out: &mut Vec<u8>, servers: &[Ipv6Addr], lifetime: u32) {
    for some in servers.chunks(127) {
        let units = u8::try_from(1 + 2 * some.len()).unwrap_or(u8::MAX);
        out.extend([option::RDNSS, units, 0, 0]);
        out.extend(lifetime.to_be_bytes());
        out.extend(some.iter().flat_map(Ipv6Addr::octets));
    }
}

impl Config {
    /// What `other` says otherwise about the link (RFC 4861 §6.2.7): reasons to warn.
    #[must_use]
    pub fn differences(&self, other: &Advertised) -> Vec<Difference> {
        let mut all = Vec::new();
        if self.hop_limit != 0 && other.hop_limit != 0 && self.hop_limit != other.hop_limit {
            all.push(Difference::HopLimit(self.hop_limit, other.hop_limit));
        }
        if self.addressing != other.addressing {
            all.push(Difference::Addressing(self.addressing, other.addressing));
        }
        if let Some(mtu) = other.mtu.filter(|&mtu| mtu != self.mtu) {
            all.push(Difference::Mtu(self.mtu, mtu));
        }
        for prefix in &self.prefixes {
            let differs = |theirs: &&AdvertisedPrefix| {
                theirs.net == prefix.net.trunc()
                    && (theirs.valid_seconds, theirs.preferred_seconds)
                        != (prefix.valid_seconds, prefix.preferred_seconds)
            };
            if other.prefixes.iter().find(differs).is_some() {
                all.push(Difference::Lifetimes(prefix.net));
            }
        }
        all
    }
}

impl fmt::Display for Addressing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slaac => "addresses without DHCPv6",
            Self::SlaacAndOptions => "addresses without DHCPv6, and options from it",
            Self::Dhcp => "addresses from DHCPv6",
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HopLimit(ours, theirs) => write!(f, "a hop limit of {theirs}, not {ours}"),
            Self::Addressing(ours, theirs) => write!(f, "{theirs}, not {ours}"),
            Self::Mtu(ours, theirs) => write!(f, "an MTU of {theirs}, not {ours}"),
            Self::Lifetimes(net) => write!(f, "other lifetimes of {net}"),
        }
    }
}
