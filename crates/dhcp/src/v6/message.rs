//! What a client says: a DHCPv6 message, taken apart and checked (RFC 9915 §16).
//!
//! The reader is this module's own: `dhcproto` asserts some lengths that a client is free to get
//! wrong, and follows options within options as deep as they go.

use std::fmt;
use std::net::Ipv6Addr;

use serde::Serialize;
use vnet_types::{DnsName, MacAddr};

use super::Duid;
use crate::hostname;

/// Identity associations that one message may have; more say nothing that a guest needs.
pub(super) const MAX_IAS: usize = 8;
/// Addresses that one association may have.
pub(super) const MAX_ADDRESSES: usize = 4;
/// Codes in the longest option request that is read.
const MAX_REQUESTED: usize = 128;

/// Codes of options (RFC 9915 §21 where nothing else is said).
pub(super) mod code {
    pub(in crate::v6) const CLIENT_ID: u16 = 1;
    pub(in crate::v6) const SERVER_ID: u16 = 2;
    pub(in crate::v6) const IA_NA: u16 = 3;
    pub(in crate::v6) const IA_TA: u16 = 4;
    pub(in crate::v6) const IA_ADDRESS: u16 = 5;
    pub(in crate::v6) const OPTION_REQUEST: u16 = 6;
    pub(in crate::v6) const PREFERENCE: u16 = 7;
    pub(in crate::v6) const STATUS: u16 = 13;
    pub(in crate::v6) const RAPID_COMMIT: u16 = 14;
    /// RFC 3646 §3
    pub(in crate::v6) const DNS_SERVERS: u16 = 23;
    /// RFC 3646 §4
    pub(in crate::v6) const DOMAIN_SEARCH: u16 = 24;
    pub(in crate::v6) const IA_PD: u16 = 25;
    /// RFC 4075
    pub(in crate::v6) const SNTP_SERVERS: u16 = 31;
    pub(in crate::v6) const REFRESH_TIME: u16 = 32;
    /// RFC 4704
    pub(in crate::v6) const CLIENT_FQDN: u16 = 39;
    /// RFC 5908
    pub(in crate::v6) const NTP_SERVER: u16 = 56;
    pub(in crate::v6) const SOL_MAX_RT: u16 = 82;
    pub(in crate::v6) const INF_MAX_RT: u16 = 83;
}

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// To hear which servers there are, and what they give.
    Solicit,
    /// To have what was advertised.
    Request,
    /// To know whether its addresses still fit the link.
    Confirm,
    /// To keep its addresses, from the server that gave them.
    Renew,
    /// To keep its addresses, from any server.
    Rebind,
    /// To give its addresses back.
    Release,
    /// To say that somebody else uses its addresses.
    Decline,
    /// The options without an address.
    InformationRequest,
}

/// Why bytes are no message of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum MessageError {
    /// Cut short, or an option is longer than what holds it.
    #[error("the message is cut short")]
    Truncated,
    /// A message type that only servers send, or that is unknown.
    #[error("a client does not send messages of this type")]
    Type,
    /// No client identifier where there must be one.
    #[error("the message does not say whose it is")]
    NoClientId,
    /// An identifier of a length that none has.
    #[error("an identifier is too short or too long")]
    BadDuid,
    /// No server identifier where there must be one.
    #[error("the message does not say which server it is for")]
    NoServerId,
    /// A server identifier where none may be.
    #[error("the message names a server, which its type does not allow")]
    UnexpectedServerId,
    /// An address is asked for where none may be.
    #[error("the message asks for addresses, which its type does not allow")]
    UnexpectedIa,
    /// More associations or addresses than a client has a use for.
    #[error("the message asks for more addresses than one client gets")]
    TooMany,
    /// Relays in front of relays, more than RFC 9915 §7.6 allows.
    #[error("the message came through too many relays")]
    TooManyRelays,
}

/// A client as its messages identify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) duid: Duid,
    pub(super) mac: Option<MacAddr>,
}

/// What an association is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum IaKind {
    /// Addresses.
    Addresses,
    /// Temporary addresses, which RFC 9915 has no more.
    Temporary,
    /// Prefixes to route.
    Prefixes,
}

/// An identity association (RFC 9915 §12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ia {
    pub(super) kind: IaKind,
    pub(super) iaid: u32,
    pub(super) addresses: Vec<Ipv6Addr>,
}

/// The name that a client gave in option 39 (RFC 4704).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fqdn {
    pub(super) flags: u8,
    pub(super) name: Option<DnsName>,
}

/// A message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientMessage {
    pub(super) kind: Kind,
    /// The transaction, 24 bits.
    pub(super) xid: u32,
    pub(super) duid: Option<Duid>,
    pub(super) server: Option<Duid>,
    pub(super) ias: Vec<Ia>,
    /// Option codes that the client wants; sorted.
    pub(super) requested: Vec<u16>,
    pub(super) rapid_commit: bool,
    pub(super) fqdn: Option<Fqdn>,
}

/// The options in some bytes, one after the other, and an error where they end badly.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u16, &'a [u8]), MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let split = |bytes: &'a [u8]| {
            let (code, rest) = bytes.split_first_chunk::<2>()?;
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let (value, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
            Some((u16::from_be_bytes(*code), value, rest))
        };
        match split(self.0) {
            Some((code, value, rest)) => {
                self.0 = rest;
                Some(Ok((code, value)))
            }
            None => {
                self.0 = &[];
                Some(Err(MessageError::Truncated))
            }
        }
    }
}

impl ClientMessage {
    /// Takes the UDP payload `bytes` apart, and checks what RFC 9915 §16 wants of its kind.
    ///
    /// # Errors
    /// It is no valid message of a client.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let (&[kind, a, b, c], options) =
            bytes.split_first_chunk::<4>().ok_or(MessageError::Truncated)?;
        let kind = match kind {
            1 => Kind::Solicit,
            3 => Kind::Request,
            4 => Kind::Confirm,
            5 => Kind::Renew,
            6 => Kind::Rebind,
            8 => Kind::Release,
            9 => Kind::Decline,
            11 => Kind::InformationRequest,
            _ => return Err(MessageError::Type),
        };
        let mut message = Self {
            kind,
            xid: u32::from_be_bytes([0, a, b, c]),
            duid: None,
            server: None,
            ias: Vec::new(),
            requested: Vec::new(),
            rapid_commit: false,
            fqdn: None,
        };
        for option in Options(options) {
            let (code, value) = option?;
            message.option(code, value)?;
        }
        message.check()?;
        Ok(message)
    }

    fn option(&mut self, code: u16, value: &[u8]) -> Result<(), MessageError> {
        let duid = || Duid::new(value).ok_or(MessageError::BadDuid);
        match code {
            code::CLIENT_ID if self.duid.is_none() => self.duid = Some(duid()?),
            code::SERVER_ID if self.server.is_none() => self.server = Some(duid()?),
            code::IA_NA => self.ia(IaKind::Addresses, value, 8)?,
            code::IA_TA => self.ia(IaKind::Temporary, value, 0)?,
            code::IA_PD => self.ia(IaKind::Prefixes, value, 8)?,
            code::OPTION_REQUEST => {
                let codes =
                    value.chunks_exact(2).map(|code| u16::from_be_bytes([code[0], code[1]]));
                self.requested.extend(codes.take(MAX_REQUESTED - self.requested.len()));
                self.requested.sort_unstable();
                self.requested.dedup();
            }
            code::RAPID_COMMIT => self.rapid_commit = true,
            code::CLIENT_FQDN => {
                let flags = value.first().copied().unwrap_or_default();
                self.fqdn = Some(Fqdn { flags, name: hostname::from_option_39(value) });
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds an association, whose options come after its number and `times` bytes of times.
    fn ia(&mut self, kind: IaKind, value: &[u8], times: usize) -> Result<(), MessageError> {
        let (iaid, rest) = value.split_first_chunk::<4>().ok_or(MessageError::Truncated)?;
        let iaid = u32::from_be_bytes(*iaid);
        let mut addresses = Vec::new();
        for option in Options(rest.get(times..).ok_or(MessageError::Truncated)?) {
            let (code, value) = option?;
            if code == code::IA_ADDRESS && kind != IaKind::Prefixes {
                let (ip, _) = value.split_first_chunk::<16>().ok_or(MessageError::Truncated)?;
                let ip = Ipv6Addr::from(*ip);
                if !addresses.contains(&ip) {
                    addresses.push(ip);
                }
            }
        }
        if addresses.len() > MAX_ADDRESSES || self.ias.len() >= MAX_IAS {
            return Err(MessageError::TooMany);
        }
        // The number is that of one association of its kind (RFC 9915 §12.1).
        if !self.ias.iter().any(|ia| (ia.kind, ia.iaid) == (kind, iaid)) {
            self.ias.push(Ia { kind, iaid, addresses });
        }
        Ok(())
    }

    /// RFC 9915 §16.2 to §16.12.
    fn check(&self) -> Result<(), MessageError> {
        let names_server = match self.kind {
            Kind::Solicit | Kind::Confirm | Kind::Rebind => Some(false),
            Kind::Request | Kind::Renew | Kind::Release | Kind::Decline => Some(true),
            Kind::InformationRequest => None,
        };
        if self.kind != Kind::InformationRequest && self.duid.is_none() {
            return Err(MessageError::NoClientId);
        }
        match (names_server, &self.server) {
            (Some(false), Some(_)) => return Err(MessageError::UnexpectedServerId),
            (Some(true), None) => return Err(MessageError::NoServerId),
            _ => {}
        }
        if self.kind == Kind::InformationRequest && !self.ias.is_empty() {
            return Err(MessageError::UnexpectedIa);
        }
        Ok(())
    }

    pub(super) fn wants(&self, code: u16) -> bool {
        self.requested.binary_search(&code).is_ok()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Solicit => "SOLICIT",
            Self::Request => "REQUEST",
            Self::Confirm => "CONFIRM",
            Self::Renew => "RENEW",
            Self::Rebind => "REBIND",
            Self::Release => "RELEASE",
            Self::Decline => "DECLINE",
            Self::InformationRequest => "INFORMATION-REQUEST",
        })
    }
}
