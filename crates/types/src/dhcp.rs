//! What a network's DHCP gives beyond addresses: options by name or number, what guests boot
//! from, and the addresses that it keeps back.
//!
//! ```text
//! [dhcp.options]                      a name that has a type, or a number with a typed text
//! ntp-servers = ["192.168.122.1"]  ─► option 42, two addresses' bytes
//! 43 = "hex:0104c0a87a01"          ─► option 43, as it stands
//! routers = []                     ─► option 3 is not sent
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{AddrRange, DnsName, SubnetError};

/// Bytes in the longest value of an option that a definition may give: several options of a
/// message joined (RFC 3396), and still a message of ordinary size.
const MAX_OPTION: usize = 1024;

/// Codes that are the server's own business: what the protocol runs on, and what follows from
/// other keys of a definition.
const OWN: [u8; 15] = [0, 1, 12, 50, 51, 52, 53, 54, 55, 56, 57, 61, 80, 82, 255];

/// Options by name: code, name, kind of value.
const NAMED: [(u8, &str, Kind); 22] = [
    (3, "routers", Kind::Addresses),
    (4, "time-servers", Kind::Addresses),
    (6, "dns-servers", Kind::Addresses),
    (7, "log-servers", Kind::Addresses),
    (15, "domain-name", Kind::Text),
    (17, "root-path", Kind::Text),
    (40, "nis-domain", Kind::Text),
    (41, "nis-servers", Kind::Addresses),
    (42, "ntp-servers", Kind::Addresses),
    (44, "netbios-name-servers", Kind::Addresses),
    (46, "netbios-node-type", Kind::Number),
    (58, "renewal-time", Kind::Seconds),
    (59, "rebinding-time", Kind::Seconds),
    (66, "tftp-server-name", Kind::Text),
    (67, "boot-file-name", Kind::Text),
    (100, "posix-timezone", Kind::Text),
    (101, "tzdb-timezone", Kind::Text),
    (114, "captive-portal", Kind::Text),
    (119, "domain-search", Kind::Names),
    (121, "classless-routes", Kind::Routes),
    (150, "tftp-servers", Kind::Addresses),
    (252, "wpad-url", Kind::Text),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Addresses,
    Text,
    Number,
    Seconds,
    Names,
    Routes,
}

/// Options of DHCP as a definition gives them, by their code.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, Written>", into = "BTreeMap<String, Written>")]
pub struct DhcpOptions {
    written: BTreeMap<String, Written>,
    bytes: BTreeMap<u8, Vec<u8>>,
}

/// A value as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u32),
    Text(String),
    List(Vec<String>),
}

/// Why an option cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DhcpOptionError {
    /// Neither a name nor a number.
    #[error("there is no DHCP option `{0}`: use its number, or one of {names}", names = names())]
    Unknown(String),
    /// One of the server's own.
    #[error("the DHCP option {0} is the server's own business, and cannot be given")]
    Own(u8),
    /// The same one by name and by number.
    #[error("the DHCP option {0} is given twice: keep one of the two")]
    Twice(u8),
    /// A value that is none of its kind.
    #[error("the DHCP option `{name}` cannot be {value}: {rule}")]
    Value {
        /// As written.
        name: String,
        /// As written.
        value: String,
        /// What it should be like.
        rule: &'static str,
    },
    /// More than fits.
    #[error("the DHCP option `{0}` is longer than {MAX_OPTION} bytes")]
    TooLong(String),
}

fn names() -> String {
    NAMED.map(|(_, name, _)| name).join(", ")
}

impl DhcpOptions {
    /// The value of the option `code`; empty if it is not to be sent.
    #[must_use]
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.bytes.get(&code).map(Vec::as_slice)
    }

    /// Code and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.bytes.iter().map(|(&code, value)| (code, value.as_slice()))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl TryFrom<BTreeMap<String, Written>> for DhcpOptions {
    type Error = DhcpOptionError;

    fn try_from(written: BTreeMap<String, Written>) -> Result<Self, DhcpOptionError> {
        let mut bytes = BTreeMap::new();
        for (name, value) in &written {
            let named = NAMED.iter().find(|(_, other, _)| other == name);
            let (code, value) = match (named, name.parse::<u8>()) {
                (Some(&(code, _, kind)), _) => (code, encode(name, kind, value)?),
                (None, Ok(code)) => (code, raw(name, value)?),
                (None, Err(_)) => return Err(DhcpOptionError::Unknown(name.clone())),
            };
            // By number it may be of any length.
            if matches!(code, 58 | 59) && !matches!(value.len(), 0 | 4) {
                let (name, value) = (name.clone(), written[name].to_string());
                return Err(DhcpOptionError::Value { name, value, rule: "write u32: and seconds" });
            }
            if OWN.contains(&code) {
                return Err(DhcpOptionError::Own(code));
            }
            if value.len() > MAX_OPTION {
                return Err(DhcpOptionError::TooLong(name.clone()));
            }
            if bytes.insert(code, value).is_some() {
                return Err(DhcpOptionError::Twice(code));
            }
        }
        Ok(Self { written, bytes })
    }
}

impl From<DhcpOptions> for BTreeMap<String, Written> {
    fn from(options: DhcpOptions) -> Self {
        options.written
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "`{text}`"),
            Self::List(list) => write!(f, "{list:?}"),
        }
    }
}

/// The bytes of an option whose kind is known.
fn encode(name: &str, kind: Kind, value: &Written) -> Result<Vec<u8>, DhcpOptionError> {
    let bad = |rule| {
        let (name, value) = (name.to_owned(), value.to_string());
        DhcpOptionError::Value { name, value, rule }
    };
    let list = match value {
        Written::List(list) => list.as_slice(),
        Written::Text(text) => std::slice::from_ref(text),
        Written::Number(_) => &[],
    };
    match (kind, value) {
        (_, Written::List(list)) if list.is_empty() => Ok(Vec::new()),
        (Kind::Number, Written::Number(number)) => u8::try_from(*number)
            .map(|byte| vec![byte])
            .map_err(|_| bad("write a number of 0 to 255")),
        (Kind::Number, _) => Err(bad("write a number of 0 to 255")),
        (Kind::Seconds, Written::Number(number)) if *number > 0 => {
            Ok(number.to_be_bytes().to_vec())
        }
        (Kind::Seconds, _) => Err(bad("write a number of seconds")),
        (Kind::Text, Written::Text(text)) if !text.is_empty() => Ok(text.clone().into_bytes()),
        (Kind::Text, _) => Err(bad("write a text")),
        (_, Written::Number(_)) => Err(bad("write a list of texts")),
        (Kind::Addresses, _) => addresses(list).ok_or_else(|| bad("write IPv4 addresses")),
        (Kind::Names, _) => {
            names_on_the_wire(list).ok_or_else(|| bad("write DNS names, as in lab.example"))
        }
        (Kind::Routes, _) => {
            routes(list).ok_or_else(|| bad("write routes as in `10.0.0.0/8 via 192.168.122.5`"))
        }
    }
}

/// The bytes of an option that is known by its number alone: its text says of which type it is.
fn raw(name: &str, value: &Written) -> Result<Vec<u8>, DhcpOptionError> {
    let parse = || match value {
        Written::Text(text) => {
            let (kind, text) = text.split_once(':')?;
            match kind {
                "hex" => hexadecimal(text),
                "text" => Some(text.as_bytes().to_vec()),
                "ip" => addresses(&text.split(',').map(str::to_owned).collect::<Vec<_>>()),
                "u8" => text.parse().ok().map(|number: u8| vec![number]),
                "u16" => text.parse().ok().map(|number: u16| number.to_be_bytes().to_vec()),
                "u32" => text.parse().ok().map(|number: u32| number.to_be_bytes().to_vec()),
                _ => None,
            }
        }
        Written::List(list) if list.is_empty() => Some(Vec::new()),
        Written::Number(_) | Written::List(_) => None,
    };
    parse().ok_or_else(|| DhcpOptionError::Value {
        name: name.to_owned(),
        value: value.to_string(),
        rule: "write hex:0a0b, text:…, ip:10.0.0.1,10.0.0.2, u8:, u16: or u32: and a number",
    })
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn addresses(list: &[String]) -> Option<Vec<u8>> {
    let all: Option<Vec<Ipv4Addr>> = list.iter().map(|text| text.trim().parse().ok()).collect();
    Some(all?.into_iter().flat_map(|address| address.octets()).collect())
}

/// RFC 3397 §2, without compression.
fn names_on_the_wire(list: &[String]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for text in list {
        let name: DnsName = text.parse().ok()?;
        for label in name.as_str().split('.').filter(|label| !label.is_empty()) {
            bytes.push(u8::try_from(label.len()).ok()?);
            bytes.extend(label.bytes());
        }
        bytes.push(0);
    }
    Some(bytes)
}

/// RFC 3442: the prefix's length, as many of its bytes as it has, the router.
fn routes(list: &[String]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for text in list {
        let (net, router) = text.split_once(" via ")?;
        let (net, router): (Ipv4Net, Ipv4Addr) =
            (net.trim().parse().ok()?, router.trim().parse().ok()?);
        bytes.push(net.prefix_len());
        let length = usize::from(net.prefix_len().div_ceil(8));
        bytes.extend(&net.network().octets()[..length]);
        bytes.extend(router.octets());
    }
    Some(bytes)
}

/// A client identifier, option 61 of DHCP, in hexadecimal digits; colons between bytes are
/// stepped over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "01525400123456"))]
#[serde(try_from = "String", into = "String")]
pub struct ClientId(Vec<u8>);

/// A text that is no client identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no client identifier: write 2 to 255 bytes as hexadecimal digits")]
pub struct ClientIdError(String);

impl ClientId {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = ClientIdError;

    fn from_str(text: &str) -> Result<Self, ClientIdError> {
        let bytes = hexadecimal(text).filter(|bytes| (2..=255).contains(&bytes.len()));
        bytes.map(Self).ok_or_else(|| ClientIdError(text.to_owned()))
    }
}

impl TryFrom<String> for ClientId {
    type Error = ClientIdError;

    fn try_from(text: String) -> Result<Self, ClientIdError> {
        text.parse()
    }
}

impl From<ClientId> for String {
    fn from(id: ClientId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Addresses that are given to nobody: one, or from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "192.168.122.9"))]
#[serde(try_from = "String", into = "String")]
pub struct Excluded(AddrRange);

impl Excluded {
    /// The addresses.
    #[must_use]
    pub const fn range(self) -> AddrRange {
        self.0
    }
}

impl TryFrom<String> for Excluded {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        match text.parse::<Ipv4Addr>() {
            Ok(address) => AddrRange::new(address, address).map(Self),
            Err(_) => text.parse().map(Self),
        }
    }
}

impl From<Excluded> for String {
    fn from(Excluded(range): Excluded) -> Self {
        if range.first() == range.last() {
            return range.first().to_string();
        }
        range.to_string()
    }
}

/// What guests boot from, where they boot from the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// The TFTP server; the gateway where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv4))]
    pub server: Option<Ipv4Addr>,
    /// The file, or for HTTP the URL, for each kind of firmware.
    pub files: BTreeMap<Firmware, String>,
}

/// What a guest is when it boots from the network (RFC 4578 §2.1, and its registry).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// Whatever is not named here, but for HTTP.
    Default,
    /// iPXE, on any machine: what a first boot loader has loaded.
    Ipxe,
    /// A PC's BIOS.
    Bios,
    /// UEFI on 32-bit x86.
    Efi32,
    /// UEFI on x86-64.
    Efi64,
    /// UEFI on 64-bit ARM.
    Arm64,
    /// UEFI on 32-bit x86, over HTTP.
    HttpEfi32,
    /// UEFI on x86-64, over HTTP.
    HttpEfi64,
    /// UEFI on 64-bit ARM, over HTTP.
    HttpArm64,
}

impl Firmware {
    /// What the architecture with this number is; None for those without a word here.
    #[must_use]
    pub const fn of_architecture(number: u16) -> Option<Self> {
        Some(match number {
            0 => Self::Bios,
            6 => Self::Efi32,
            // 7 is what machines send, 9 what the RFC's first text had.
            7 | 9 => Self::Efi64,
            11 => Self::Arm64,
            15 => Self::HttpEfi32,
            16 => Self::HttpEfi64,
            19 => Self::HttpArm64,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<DhcpOptions, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_numbers_become_bytes_and_stay_as_written() {
        let text = r#"{"42":"ip:10.0.0.1,10.0.0.2","43":"hex:01:02ff","77":"text:a","78":"u16:258",
            "domain-search":["lab.example"],"netbios-node-type":8,"routers":[],"root-path":"/srv",
            "classless-routes":["10.0.0.0/8 via 192.168.122.5","0.0.0.0/0 via 192.168.122.1"]}"#;
        let options = read(text).unwrap();
        for (code, bytes) in [
            (42, &[10, 0, 0, 1, 10, 0, 0, 2][..]),
            (43, &[1, 2, 255]),
            (77, b"a"),
            (78, &[1, 2]),
            (119, b"\x03lab\x07example\x00"),
            (46, &[8]),
            (3, &[]),
            (17, b"/srv"),
            (121, &[8, 10, 192, 168, 122, 5, 0, 192, 168, 122, 1]),
        ] {
            assert_eq!(options.get(code), Some(bytes), "{code}");
        }
        let again: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&options).unwrap(), again);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_way_out() {
        for (json, words) in [
            (r#"{"ntp":["10.0.0.1"]}"#, "there is no DHCP option `ntp`: use its number, or one of"),
            (r#"{"53":"u8:1"}"#, "option 53 is the server's own business"),
            (r#"{"42":"hex:0a000001","ntp-servers":["10.0.0.1"]}"#, "option 42 is given twice"),
            (r#"{"ntp-servers":["ntp.example"]}"#, "write IPv4 addresses"),
            (r#"{"43":"0102"}"#, "write hex:0a0b"),
            (r#"{"43":"hex:012"}"#, "write hex:0a0b"),
            (r#"{"78":"u8:256"}"#, "write hex:0a0b"),
            (r#"{"root-path":""}"#, "write a text"),
            (r#"{"classless-routes":["10.0.0.0/8"]}"#, "write routes as in"),
            (r#"{"domain-search":["a b"]}"#, "write DNS names"),
            (r#"{"netbios-node-type":256}"#, "write a number of 0 to 255"),
            (r#"{"renewal-time":0}"#, "write a number of seconds"),
            (r#"{"59":"u16:600"}"#, "write u32: and seconds"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let long = format!(r#"{{"43":"hex:{}"}}"#, "00".repeat(1025));
        assert!(read(&long).unwrap_err().contains("longer than 1024 bytes"));
    }

    #[test]
    fn client_identifiers_and_exclusions_are_read() {
        let id: ClientId = "01:52:54:00:12:34:56".parse().unwrap();
        assert_eq!(id.to_string(), "01525400123456");
        for bad in ["", "01", "0", "xx00", &"00".repeat(256)] {
            assert!(bad.parse::<ClientId>().is_err(), "{bad}");
        }
        for text in ["10.0.0.9", "10.0.0.9-10.0.0.12"] {
            assert_eq!(String::from(Excluded::try_from(text.to_owned()).unwrap()), text);
        }
        assert!(Excluded::try_from("10.0.0.9-10.0.0.2".to_owned()).is_err());
    }
}
