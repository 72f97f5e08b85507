//! Relays between a client and the server (RFC 9915 §19): what they wrap around a message, and
//! around its answer.

use std::net::Ipv6Addr;

use vnet_types::MacAddr;

use super::message::{MessageError, Options};
use super::reply::Writer;

const RELAY_FORWARD: u8 = 12;
const RELAY_REPLY: u8 = 13;
/// Relays in a row, at most (RFC 9915 §7.6, HOP_COUNT_LIMIT).
const MAX_RELAYS: usize = 8;
/// Type, hop count, link address, peer address.
const HEADER: usize = 34;

const RELAY_MESSAGE: u16 = 9;
const INTERFACE_ID: u16 = 18;
/// RFC 6939
const CLIENT_LINK_LAYER: u16 = 79;

/// What one relay has put around a message.
#[derive(Debug, Clone, Copy)]
struct Relay<'a> {
    /// Hop count, link address and peer address, to be given back.
    header: &'a [u8],
    interface: Option<&'a [u8]>,
}

/// The relays that a message came through, the one next to the server first.
#[derive(Debug, Default)]
pub(super) struct Relays<'a> {
    relays: Vec<Relay<'a>>,
    /// The client's card, as the relay next to it saw it.
    pub(super) mac: Option<MacAddr>,
}

impl<'a> Relays<'a> {
    /// Takes what relays have put around a message off; gives the message as well.
    ///
    /// # Errors
    /// There are too many, or one is cut short.
    pub(super) fn unwrap(mut bytes: &'a [u8]) -> Result<(Self, &'a [u8]), MessageError> {
        let mut all = Self::default();
        while bytes.first() == Some(&RELAY_FORWARD) {
            if all.relays.len() >= MAX_RELAYS {
                return Err(MessageError::TooManyRelays);
            }
            let (header, options) =
                bytes.split_at_checked(HEADER).ok_or(MessageError::Truncated)?;
            let mut relay = Relay { header: &header[1..], interface: None };
            let mut inner = None;
            // Of the relay next to the client alone.
            all.mac = None;
            for option in Options(options) {
                match option? {
                    (RELAY_MESSAGE, value) => inner = inner.or(Some(value)),
                    (INTERFACE_ID, value) => relay.interface = Some(value),
                    (CLIENT_LINK_LAYER, [0, 1, mac @ ..]) => {
                        all.mac = mac.try_into().ok().map(MacAddr);
                    }
                    _ => {}
                }
            }
            all.relays.push(relay);
            bytes = inner.ok_or(MessageError::Truncated)?;
        }
        Ok((all, bytes))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.relays.is_empty()
    }

    /// The client's link as a relay names it: the nearest to the client that does
    /// (RFC 9915 §13.1).
    pub(super) fn link(&self) -> Option<Ipv6Addr> {
        let links = self.relays.iter().rev().filter_map(|relay| address(relay.header, 1));
        links.into_iter().find(|link| !link.is_unspecified())
    }

    /// The client's address as the relay next to it saw it.
    pub(super) fn client(&self) -> Option<Ipv6Addr> {
        self.relays.last().and_then(|relay| address(relay.header, 17))
    }

    /// Puts around `message` what the relays need to bring it back (RFC 9915 §19.3).
    pub(super) fn wrap(&self, message: &mut Vec<u8>) {
        for relay in self.relays.iter().rev() {
            let mut outer = Vec::with_capacity(HEADER + 16 + message.len());
            outer.push(RELAY_REPLY);
            outer.extend(relay.header);
            let mut writer = Writer(&mut outer);
            if let Some(id) = relay.interface {
                writer.bytes(INTERFACE_ID, id);
            }
            writer.bytes(RELAY_MESSAGE, message);
            *message = outer;
        }
    }
}

fn address(header: &[u8], at: usize) -> Option<Ipv6Addr> {
    header.get(at..)?.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes))
}
