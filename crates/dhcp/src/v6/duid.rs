//! DHCP unique identifiers (RFC 9915 §11): opaque, but for the card that some of them name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vnet_types::MacAddr;

/// Bytes: two of the type, and one to 128 behind it (RFC 9915 §11.1).
const LENGTHS: std::ops::RangeInclusive<usize> = 3..=130;
/// The hardware type of Ethernet (RFC 826).
const ETHERNET: [u8; 2] = [0, 1];
const LINK_LAYER_TIME: [u8; 2] = [0, 1];
const LINK_LAYER: [u8; 2] = [0, 3];

/// What identifies a client or a server. As text, hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duid(Box<[u8]>);

/// Bytes or a text that are no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no DUID: write 3 to 130 bytes as hexadecimal digits")]
pub struct DuidError(String);

impl Duid {
    /// The identifier in `bytes`; None unless there are 3 to 130 of them.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        LENGTHS.contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    /// The identifier made of a card's address (RFC 9915 §11.4): the same for ever, as a
    /// bridge with a fixed address wants it.
    #[must_use]
    pub fn of_card(mac: MacAddr) -> Self {
        Self([&LINK_LAYER[..], &ETHERNET, &mac.octets()].concat().into())
    }

    /// The bytes that go over the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The Ethernet card that the identifier was made of (RFC 9915 §11.2, §11.4). The client
    /// may have got another one since.
    #[must_use]
    pub fn card(&self) -> Option<MacAddr> {
        let (kind, rest) = self.0.split_first_chunk::<2>()?;
        let (hardware, rest) = rest.split_first_chunk::<2>()?;
        let address = match *kind {
            LINK_LAYER_TIME => rest.get(4..)?,
            LINK_LAYER => rest,
            _ => return None,
        };
        (*hardware == ETHERNET).then(|| address.try_into().ok().map(MacAddr))?
    }
}

impl fmt::Display for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Duid {
    type Err = DuidError;

    /// Digits, two a byte; colons between bytes are stepped over, as others print them.
    fn from_str(text: &str) -> Result<Self, DuidError> {
        let bad = || DuidError(text.chars().take(300).collect());
        let digits: Vec<u8> = text
            .bytes()
            .filter(|&byte| byte != b':')
            .map(|byte| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok()))
            .collect::<Option<_>>()
            .ok_or_else(bad)?;
        if !digits.len().is_multiple_of(2) {
            return Err(bad());
        }
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        Self::new(&bytes).ok_or_else(bad)
    }
}

impl TryFrom<String> for Duid {
    type Error = DuidError;

    fn try_from(text: String) -> Result<Self, DuidError> {
        text.parse()
    }
}

impl From<Duid> for String {
    fn from(duid: Duid) -> Self {
        duid.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let duid: Duid = "00:03:00:01:52:54:00:12:34:56".parse().unwrap();
        assert_eq!(duid.to_string(), "00030001525400123456");
        assert_eq!(duid, Duid::of_card("52:54:00:12:34:56".parse().unwrap()));
        for bad in ["", "0003", "000", "zzzzzz", &"00".repeat(131)] {
            assert!(bad.parse::<Duid>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_card_is_found_where_there_is_one() {
        let card = |text: &str| text.parse::<Duid>().unwrap().card().map(|mac| mac.to_string());
        let mac = Some("52:54:00:12:34:56".to_owned());
        assert_eq!(card("00030001525400123456"), mac);
        assert_eq!(card("000100012c1f0a00525400123456"), mac);
        // Infiniband, an enterprise's number, a UUID, too short, too long.
        for none in
            ["00030020525400123456", "0002000100000001", "00040001", "0003000152540012345678"]
        {
            assert_eq!(card(none), None, "{none}");
        }
    }
}
