//! What the server decided about a message, and why: for logs, counters and explanations.

use std::fmt;
use std::net::Ipv6Addr;

use serde::Serialize;
use vnet_types::{DnsName, MacAddr};

use super::Duid;
use super::message::{Kind, MessageError};
use crate::event::Choice;

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The client's card, where it is known.
    pub mac: Option<MacAddr>,
    /// The client's identifier; none if it gave none, or the message was unreadable.
    pub client: Option<Duid>,
    /// What the client wanted; none if the message was unreadable.
    pub kind: Option<Kind>,
    /// The transaction, as the client numbers them; 0 if the message was unreadable.
    pub xid: u32,
    /// What was decided.
    pub decision: Decision,
    /// The name that the client asked for and somebody else has.
    pub name_refused: Option<DnsName>,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// An ADVERTISE said what the client could have.
    Advertised {
        /// For each of its associations.
        answers: Vec<Answer>,
    },
    /// A REPLY gave or extended leases.
    Leased {
        /// For each of its associations.
        answers: Vec<Answer>,
    },
    /// The client's addresses fit the link.
    Confirmed,
    /// The client's addresses belong to another link.
    NotOnLink,
    /// The client got the options that it asked for.
    Informed,
    /// The client gave addresses back.
    Released {
        /// Those that were its own.
        ips: Vec<Ipv6Addr>,
    },
    /// The client found addresses in use; nobody gets them for a while.
    Declined {
        /// Those that were its own.
        ips: Vec<Ipv6Addr>,
    },
    /// No answer.
    Silent {
        /// Why not.
        why: Silence,
    },
}

/// What one association of a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It has, or can have, an address.
    Given {
        /// The address.
        ip: Ipv6Addr,
        /// Why this one.
        why: Choice,
        /// Until when, in Unix seconds; 0 if it was only advertised.
        expires: u64,
    },
    /// It has none.
    Refused {
        /// Why not.
        why: Refusal,
    },
}

/// Why an association gets no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Every address is taken.
    Exhausted,
    /// The client's card has as many as one may have.
    TooManyForOne,
    /// Nothing of the kind is given here: addresses, to guests without a reservation.
    NotServed,
    /// Temporary addresses are made by guests themselves.
    Temporary,
    /// Prefixes are not delegated.
    Prefixes,
    /// The addresses that it names are another link's.
    NotOnLink,
    /// It has no lease, and somebody else has the addresses that it names.
    NoBinding,
    /// It may no longer use the addresses that it names.
    Withdrawn,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Silence {
    /// The message could not be read, or is not what RFC 9915 §16 wants of its type.
    Malformed {
        /// What is wrong with it.
        error: MessageError,
    },
    /// A message for all servers was sent to one (RFC 9915 §16).
    Unicast,
    /// The sender's address is none to answer to.
    BadSource {
        /// Which.
        source: Ipv6Addr,
    },
    /// The relay asks for another link.
    WrongLink {
        /// The relay's address on it.
        link: Ipv6Addr,
    },
    /// The client chose another server.
    OtherServer,
    /// The message lacks the address that it is about.
    NoAddress,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exhausted => {
                "every address is taken: make the range larger, or the leases shorter"
            }
            Self::TooManyForOne => "the guest has as many addresses as one may have",
            Self::NotServed => "guests make their addresses themselves here",
            Self::Temporary => "temporary addresses are made by guests themselves",
            Self::Prefixes => "prefixes are not delegated here",
            Self::NotOnLink => "the addresses are another network's",
            Self::NoBinding => "the guest has no lease",
            Self::Withdrawn => "the guest may no longer use the addresses",
        })
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { error } => write!(f, "{error}"),
            Self::Unicast => f.write_str("a message for all servers was sent to this one alone"),
            Self::BadSource { source } => write!(f, "{source} is no address to answer to"),
            Self::WrongLink { link } => write!(f, "the relay asks for the network of {link}"),
            Self::OtherServer => f.write_str("the client chose another server"),
            Self::NoAddress => f.write_str("the message does not say which addresses it is about"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given { ip, why, .. } => write!(f, "{ip} because {why}"),
            Self::Refused { why } => write!(f, "no address: {why}"),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, items: &[String], none| {
            f.write_str(if items.is_empty() { none } else { "" })?;
            f.write_str(&items.join(", "))
        };
        let answers = |all: &[Answer]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let addresses = |all: &[Ipv6Addr]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        match self {
            Self::Advertised { answers: all } => {
                f.write_str("advertised ")?;
                list(f, &answers(all), "options only")
            }
            Self::Leased { answers: all } => {
                f.write_str("leased ")?;
                list(f, &answers(all), "nothing")
            }
            Self::Confirmed => f.write_str("the addresses fit this network"),
            Self::NotOnLink => f.write_str("the addresses are another network's"),
            Self::Informed => f.write_str("gave options"),
            Self::Released { ips } => {
                list(f, &addresses(ips), "nothing")?;
                f.write_str(" was given back")
            }
            Self::Declined { ips } => {
                list(f, &addresses(ips), "nothing")?;
                f.write_str(" is in use by somebody else")
            }
            Self::Silent { why } => write!(f, "silent: {why}"),
        }
    }
}

impl Event {
    /// What was decided and why, in words, and what else a person should know.
    #[must_use]
    pub fn outcome(&self) -> String {
        match &self.name_refused {
            Some(name) => format!("{}; the name {name} is another client's", self.decision),
            None => self.decision.to_string(),
        }
    }
}

impl fmt::Display for Event {
    /// As in `SOLICIT of 52:54:00:00:00:01: advertised fd00::5 because it is reserved …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Some(kind) => write!(f, "{kind}")?,
            None => f.write_str("message")?,
        }
        match (self.mac, &self.client) {
            (Some(mac), _) => write!(f, " of {mac}")?,
            (None, Some(duid)) => write!(f, " of {duid}")?,
            (None, None) => {}
        }
        write!(f, ": {}", self.outcome())
    }
}
