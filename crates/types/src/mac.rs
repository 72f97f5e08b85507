//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The prefix that QEMU, libvirt and vnet give to the network cards of guests.
const GUEST_OUI: [u8; 3] = [0x52, 0x54, 0x00];

/// A 48-bit Ethernet address, printed as `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "52:54:00:12:34:56"))]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

/// Why a text is no Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no MAC address: write six bytes in hexadecimal, as in 52:54:00:12:34:56")]
pub struct MacError(String);

impl MacAddr {
    /// The address that every station receives.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address derived from `seed` under the prefix 52:54:00: the same seed gives the same
    /// address on every run and every machine. `salt` picks another one where the first is taken.
    #[must_use]
    pub fn derived(seed: &str, salt: u32) -> Self {
        let bytes = fnv1a(seed.bytes().chain(salt.to_le_bytes())).to_le_bytes();
        let [a, b, c] = GUEST_OUI;
        Self([a, b, c, bytes[0] ^ bytes[3], bytes[1] ^ bytes[4], bytes[2] ^ bytes[5]])
    }

    /// The six bytes in the order in which they go over the wire.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether this is a group address (broadcast included), which no station may have.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

/// FNV-1a, 64 bits: small, and fixed for ever, which the standard library's hasher isn't.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl FromStr for MacAddr {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let bad = || MacError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().ok_or_else(bad)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self(octets))
    }
}

impl TryFrom<String> for MacAddr {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let mac: MacAddr = "52:54:00:Ab:cd:0f".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:0f");
        assert_eq!("52-54-00-ab-cd-0f".parse::<MacAddr>().unwrap(), mac);
    }

    #[test]
    fn rubbish_is_refused() {
        for text in
            ["", "52:54:00:ab:cd", "52:54:00:ab:cd:0f:00", "52:54:00:ab:cd:+f", "5:54:00:ab:cd:0f"]
        {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn derived_addresses_are_stable_unicast_and_differ_by_salt() {
        let one = MacAddr::derived("network/default", 0);
        assert_eq!(one, MacAddr::derived("network/default", 0));
        assert_ne!(one, MacAddr::derived("network/default", 1));
        assert_ne!(one, MacAddr::derived("network/other", 0));
        assert!(!one.is_multicast());
    }
}
