//! What the server decided about a message, and why: for logs, counters and explanations.

use std::fmt;
use std::net::Ipv4Addr;

use serde::Serialize;
use vnet_types::{DnsName, MacAddr};

use crate::message::{Kind, MessageError};

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The client's card; the neighbour's that sent the frame if the message was unreadable.
    pub mac: MacAddr,
    /// What the client wanted; none if the message was unreadable.
    pub kind: Option<Kind>,
    /// The transaction, as the client numbers them; 0 if the message was unreadable.
    pub xid: u32,
    /// What was decided.
    pub decision: Decision,
    /// Another card that uses the same client identifier and has a lease: probably the two
    /// guests are clones, and now share one address.
    pub shared_with: Option<MacAddr>,
    /// The name that the client asked for and somebody else has.
    pub name_refused: Option<DnsName>,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// An OFFER was made.
    Offered {
        /// What was offered.
        ip: Ipv4Addr,
        /// Why this address.
        why: Choice,
    },
    /// A lease was given or extended.
    Acked {
        /// The address.
        ip: Ipv4Addr,
        /// Why this address.
        why: Choice,
        /// Until when, in Unix seconds.
        expires: u64,
    },
    /// The client was told that it cannot have the address.
    Refused {
        /// The address.
        ip: Ipv4Addr,
        /// Why not.
        why: NakReason,
    },
    /// The client got the options for an address that it has from elsewhere.
    Informed {
        /// The client's address.
        ip: Ipv4Addr,
    },
    /// The client gave its address back.
    Released {
        /// The address.
        ip: Ipv4Addr,
    },
    /// The client found its address in use; nobody gets it for a while.
    Declined {
        /// The address.
        ip: Ipv4Addr,
        /// Until when, in Unix seconds.
        until: u64,
    },
    /// No answer.
    Silent {
        /// Why not.
        why: Silence,
    },
}

/// Why a client got this address and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// A reservation says so.
    Reserved,
    /// The client has it.
    Current,
    /// It was offered to the client a moment ago.
    Offered,
    /// The client had it last.
    Previous,
    /// The client asked for it, and it was free.
    Requested,
    /// Nobody has had it yet.
    Unused,
    /// Its last lease ended before that of any other.
    LeastRecent,
}

/// Why a client cannot have an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum NakReason {
    /// The address belongs to another network.
    WrongNetwork,
    /// The address is on this network, but not one that the server gives.
    NotServed,
    /// It is kept for another client.
    ReservedForOther,
    /// The client has a reservation for another one, which is free.
    HasReservation {
        /// The reserved address.
        ip: Ipv4Addr,
    },
    /// Another client has it.
    InUse,
    /// It was offered to another client.
    OfferedToOther,
    /// Somebody declined it.
    Quarantined,
    /// The client's lease is for another one.
    HasOther {
        /// The leased address.
        ip: Ipv4Addr,
    },
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Silence {
    /// The message could not be read.
    Malformed {
        /// What is wrong with it.
        error: MessageError,
    },
    /// The packet was sent to another host.
    NotForUs {
        /// Where it went.
        to: Ipv4Addr,
    },
    /// The relay asks for another network.
    WrongLink {
        /// The relay's address, or the one that it names.
        link: Ipv4Addr,
    },
    /// The client chose another server.
    OtherServer {
        /// Which.
        server: Ipv4Addr,
    },
    /// The client is not known, and the address may be another server's to give.
    UnknownClient {
        /// What it asked for.
        ip: Ipv4Addr,
    },
    /// The address is not the client's.
    NotTheirs {
        /// The address.
        ip: Ipv4Addr,
    },
    /// Another station gives the address away than the one that has it.
    Forged {
        /// Which station sent the message.
        sender: MacAddr,
    },
    /// The message lacks the address that it is about.
    NoAddress,
    /// No address is free.
    Exhausted,
    /// More addresses are offered than the server keeps track of.
    TooManyOffers,
    /// An option's value cannot be written.
    Unencodable,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reserved => "it is reserved for the client",
            Self::Current => "the client has it",
            Self::Offered => "it was offered to the client before",
            Self::Previous => "the client had it last",
            Self::Requested => "the client asked for it",
            Self::Unused => "nobody has had it yet",
            Self::LeastRecent => "it has been free for longest",
        })
    }
}

impl fmt::Display for NakReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongNetwork => f.write_str("the address is not on this network"),
            Self::NotServed => f.write_str("the address is not one that is given here"),
            Self::ReservedForOther => f.write_str("the address is reserved for another client"),
            Self::HasReservation { ip } => write!(f, "{ip} is reserved for the client"),
            Self::InUse => f.write_str("another client has the address"),
            Self::OfferedToOther => f.write_str("the address is offered to another client"),
            Self::Quarantined => f.write_str("the address was declined a while ago"),
            Self::HasOther { ip } => write!(f, "the client's lease is for {ip}"),
        }
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { error } => write!(f, "{error}"),
            Self::NotForUs { to } => write!(f, "the packet was sent to {to}"),
            Self::WrongLink { link } => write!(f, "the relay asks for the network of {link}"),
            Self::OtherServer { server } => write!(f, "the client chose the server {server}"),
            Self::UnknownClient { ip } => {
                write!(f, "the client is unknown, and {ip} may be another server's to give")
            }
            Self::NotTheirs { ip } => write!(f, "{ip} is not the client's"),
            Self::Forged { sender } => {
                write!(f, "{sender} gives away an address in another station's name")
            }
            Self::NoAddress => f.write_str("the message does not say which address it is about"),
            Self::Exhausted => {
                f.write_str("every address is taken: make the range larger, or the leases shorter")
            }
            Self::TooManyOffers => f.write_str("too many offers are outstanding"),
            Self::Unencodable => f.write_str("an option's value cannot be written"),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offered { ip, why } => write!(f, "offered {ip} because {why}"),
            Self::Acked { ip, why, .. } => write!(f, "leased {ip} because {why}"),
            Self::Refused { ip, why } => write!(f, "refused {ip}: {why}"),
            Self::Informed { ip } => write!(f, "gave options to {ip}"),
            Self::Released { ip } => write!(f, "{ip} was given back"),
            Self::Declined { ip, .. } => write!(f, "{ip} is in use by somebody else"),
            Self::Silent { why } => write!(f, "silent: {why}"),
        }
    }
}

impl Event {
    /// What was decided and why, in words, and what else a person should know.
    #[must_use]
    pub fn outcome(&self) -> String {
        let mut text = self.decision.to_string();
        if let Some(other) = self.shared_with {
            text += &format!("; {other} uses the same client identifier");
        }
        if let Some(name) = &self.name_refused {
            text += &format!("; the name {name} is another client's");
        }
        text
    }
}

impl fmt::Display for Event {
    /// As in `DISCOVER of 52:54:00:00:00:01: offered 192.168.122.5 because it is reserved …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Some(kind) => write!(f, "{kind} of {}: {}", self.mac, self.outcome()),
            None => write!(f, "message of {}: {}", self.mac, self.outcome()),
        }
    }
}
