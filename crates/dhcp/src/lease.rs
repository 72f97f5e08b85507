//! A binding of a client to an address, as it is stored and listed.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vnet_types::{DnsName, MacAddr};

/// Bytes in the longest client identifier that is accepted: what one option holds.
pub(crate) const MAX_CLIENT_ID: usize = 255;

/// What identifies a client (RFC 2131 §4.2): the identifier that it chose, else its MAC address.
/// As text, `id:` and hexadecimal digits, or `mac:` and the address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ClientKey {
    /// The client identifier, option 61, uninterpreted.
    Id(Box<[u8]>),
    /// The hardware address; the hardware type is always Ethernet here.
    Mac(MacAddr),
}

/// A text that is no client's key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no DHCP client: write id:HEX or mac:ADDRESS")]
pub struct ClientKeyError(String);

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub ip: Ipv4Addr,
    /// Whose it is, or was.
    pub client: ClientKey,
    /// The client's card.
    pub mac: MacAddr,
    /// The client's name in the network's domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<DnsName>,
    /// What became of it.
    pub state: LeaseState,
    /// From when on others may have the address, in Unix seconds.
    pub expires: u64,
}

/// What became of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// The client has it until it expires.
    Bound,
    /// The client gave it back.
    Released,
    /// The client found the address in use by somebody else; nobody gets it until it expires.
    Declined,
}

impl Lease {
    /// Whether the client may use the address at `unix` seconds.
    #[must_use]
    pub fn is_live(&self, unix: u64) -> bool {
        self.state == LeaseState::Bound && unix < self.expires
    }

    /// Whether nobody else can have the address at `unix` seconds.
    pub(crate) fn holds_address(&self, unix: u64) -> bool {
        self.state != LeaseState::Released && unix < self.expires
    }

    /// The client identifier, option 61, where the client sent one.
    #[must_use]
    pub fn client_id(&self) -> Option<&[u8]> {
        match &self.client {
            ClientKey::Id(id) => Some(id),
            ClientKey::Mac(_) => None,
        }
    }
}

impl ClientKey {
    /// A number that is the same for the same client on every run, spread over 64 bits: where
    /// the search for its address starts. Not for hash tables.
    pub(crate) fn seed(&self) -> u64 {
        let fnv = |bytes: &[u8]| {
            bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            })
        };
        let hash = match self {
            Self::Id(id) => fnv(id),
            Self::Mac(mac) => fnv(&mac.octets()),
        };
        // FNV leaves the last bytes in the low bits; fold the high ones in.
        hash ^ (hash >> 32)
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => {
                f.write_str("id:")?;
                id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Mac(mac) => write!(f, "mac:{mac}"),
        }
    }
}

impl FromStr for ClientKey {
    type Err = ClientKeyError;

    fn from_str(text: &str) -> Result<Self, ClientKeyError> {
        let bad = || ClientKeyError(text.to_owned());
        if let Some(mac) = text.strip_prefix("mac:") {
            return mac.parse().map(Self::Mac).map_err(|_| bad());
        }
        let digits = text.strip_prefix("id:").ok_or_else(bad)?.as_bytes();
        if digits.is_empty() || digits.len() % 2 != 0 || digits.len() > 2 * MAX_CLIENT_ID {
            return Err(bad());
        }
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|v| u8::try_from(v).ok());
        digits
            .chunks_exact(2)
            .map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?))
            .collect::<Option<_>>()
            .map(Self::Id)
            .ok_or_else(bad)
    }
}

impl TryFrom<String> for ClientKey {
    type Error = ClientKeyError;

    fn try_from(text: String) -> Result<Self, ClientKeyError> {
        text.parse()
    }
}

impl From<ClientKey> for String {
    fn from(key: ClientKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_text() {
        for text in ["id:ff00aa", "mac:52:54:00:00:00:01"] {
            assert_eq!(text.parse::<ClientKey>().unwrap().to_string(), text);
        }
        for bad in ["", "id:", "id:f", "id:zz", "id:+1", "mac:", "ff00", "mac:1"] {
            assert!(bad.parse::<ClientKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_released_address_is_free_at_once() {
        let lease = Lease {
            ip: Ipv4Addr::new(10, 0, 0, 2),
            client: "id:01".parse().unwrap(),
            mac: "52:54:00:00:00:01".parse().unwrap(),
            hostname: None,
            state: LeaseState::Released,
            expires: 100,
        };
        assert!(!lease.holds_address(50) && !lease.is_live(50));
        let declined = Lease { state: LeaseState::Declined, ..lease };
        assert!(declined.holds_address(99) && !declined.holds_address(100));
        assert!(!declined.is_live(99));
    }
}
