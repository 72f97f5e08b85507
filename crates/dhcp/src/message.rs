//! What a client says: a DHCP message, decoded and checked.
//!
//! `dhcproto` takes the message apart into its header and its options. What is made of an
//! option's bytes is decided here, because that library's typed options assert lengths that a
//! client is free to get wrong, and its reader of whole messages knows neither option overload
//! nor options that are continued after others (RFC 3396).

use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::{DhcpOptionIterator, Message};
use dhcproto::v4::{HType, MAGIC, MessageType, Opcode, OptionCode};
use serde::Serialize;
use vnet_types::{DnsName, Firmware, MacAddr};

use crate::config::Identity;
use crate::hostname;
use crate::lease::{ClientKey, MAX_CLIENT_ID};

/// Bytes before the options: header and magic cookie (RFC 2131 §2).
const FIXED: usize = 240;
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;
/// Bytes in the longest relay agent information that is echoed: one option.
const MAX_RELAY_INFO: usize = 255;
/// The sub-option of option 82 that names the client's subnet (RFC 3527).
const LINK_SELECTION: u8 = 5;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// To hear which addresses it can have.
    Discover,
    /// To have, or keep, one of them.
    Request,
    /// To say that somebody else uses its address.
    Decline,
    /// To give its address back.
    Release,
    /// The options without an address.
    Inform,
}

/// Why bytes are no message of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum MessageError {
    /// Shorter than a header.
    #[error("the message is shorter than a DHCP header")]
    TooShort,
    /// A reply.
    #[error("the message is not a request of a client")]
    NotARequest,
    /// The hardware address is not a station's on Ethernet.
    #[error("the client's hardware address is not that of an Ethernet card")]
    NotEthernet,
    /// BOOTP, or something else on this port.
    #[error("the message is not DHCP")]
    NotDhcp,
    /// A message type that only servers send, or that is unknown.
    #[error("a client does not send messages of this type")]
    Type,
    /// The client identifier or the relay's information is longer than one option.
    #[error("an option that must be given back is too long")]
    TooLong,
}

/// A client as its messages identify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) key: ClientKey,
    pub(crate) mac: MacAddr,
}

/// The name that a client gave in option 81, to be answered in kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fqdn {
    /// The client's flags.
    pub(crate) flags: u8,
}

/// A message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientMessage {
    pub(crate) kind: Kind,
    pub(crate) xid: u32,
    pub(crate) broadcast: bool,
    pub(crate) ciaddr: Ipv4Addr,
    pub(crate) giaddr: Ipv4Addr,
    pub(crate) client: Client,
    /// Option 61 as sent, to be given back (RFC 6842 §3).
    pub(crate) client_id: Option<Vec<u8>>,
    pub(crate) requested: Option<Ipv4Addr>,
    pub(crate) server_id: Option<Ipv4Addr>,
    /// Option 55: codes in the order of preference.
    pub(crate) parameters: Option<Vec<u8>>,
    /// Option 57: bytes in the largest IP packet that the client takes.
    pub(crate) max_size: Option<u16>,
    /// Option 51: seconds.
    pub(crate) lease_seconds: Option<u32>,
    pub(crate) hostname: Option<DnsName>,
    pub(crate) fqdn: Option<Fqdn>,
    /// Option 82 as sent, to be given back (RFC 3046 §2.2).
    pub(crate) relay_info: Option<Vec<u8>>,
    pub(crate) rapid_commit: bool,
    /// What the client is, if it boots from the network.
    pub(crate) firmware: Option<Firmware>,
}

/// The options that matter here, each put together from its parts.
#[derive(Debug, Default)]
struct Options {
    kind: Option<Vec<u8>>,
    overload: Option<Vec<u8>>,
    client_id: Option<Vec<u8>>,
    requested: Option<Vec<u8>>,
    server_id: Option<Vec<u8>>,
    parameters: Option<Vec<u8>>,
    max_size: Option<Vec<u8>>,
    lease_seconds: Option<Vec<u8>>,
    hostname: Option<Vec<u8>>,
    fqdn: Option<Vec<u8>>,
    relay_info: Option<Vec<u8>>,
    rapid_commit: Option<Vec<u8>>,
    vendor_class: Option<Vec<u8>>,
    user_class: Option<Vec<u8>>,
    architecture: Option<Vec<u8>>,
}

impl Options {
    /// Adds the options in one field of the message. A field that ends in the middle of an
    /// option counts up to there.
    fn read(&mut self, field: &[u8]) {
        for option in DhcpOptionIterator::new(field) {
            let place = match option.code() {
                OptionCode::MessageType => &mut self.kind,
                OptionCode::OptionOverload => &mut self.overload,
                OptionCode::ClientIdentifier => &mut self.client_id,
                OptionCode::RequestedIpAddress => &mut self.requested,
                OptionCode::ServerIdentifier => &mut self.server_id,
                OptionCode::ParameterRequestList => &mut self.parameters,
                OptionCode::MaxMessageSize => &mut self.max_size,
                OptionCode::AddressLeaseTime => &mut self.lease_seconds,
                OptionCode::Hostname => &mut self.hostname,
                OptionCode::ClientFQDN => &mut self.fqdn,
                OptionCode::RelayAgentInformation => &mut self.relay_info,
                OptionCode::RapidCommit => &mut self.rapid_commit,
                OptionCode::ClassIdentifier => &mut self.vendor_class,
                OptionCode::UserClass => &mut self.user_class,
                OptionCode::ClientSystemArchitecture => &mut self.architecture,
                _ => continue,
            };
            // RFC 3396 §7: the parts of an option are one, wherever they stand.
            place.get_or_insert_default().extend_from_slice(option.data());
        }
    }

    fn of(message: &[u8]) -> Self {
        let mut options = Self::default();
        options.read(message.get(FIXED..).unwrap_or_default());
        // RFC 2132 §9.3: 1 the file field holds options, 2 the sname field, 3 both; in this
        // order (RFC 3396 §5).
        if let Some(&[overload]) = options.overload.as_deref() {
            for (bit, field) in [(1, FILE), (2, SNAME)] {
                if overload & bit != 0 {
                    options.read(message.get(field).unwrap_or_default());
                }
            }
        }
        options
    }
}

impl Options {
    /// What a client is that boots from the network, and says so.
    fn firmware(&self) -> Option<Firmware> {
        let contains = |option: &Option<Vec<u8>>, text: &[u8]| {
            option.as_ref().is_some_and(|bytes| bytes.windows(text.len()).any(|part| part == text))
        };
        if contains(&self.user_class, b"iPXE") {
            return Some(Firmware::Ipxe);
        }
        // RFC 4578 §2.1: one or more types; the first is the machine's own.
        let first = self.architecture.as_deref().and_then(|bytes| bytes.first_chunk::<2>());
        let known = first.and_then(|kind| Firmware::of_architecture(u16::from_be_bytes(*kind)));
        match known {
            Some(firmware) => Some(firmware),
            // An unknown machine that boots over HTTP has no use for a TFTP path.
            None if contains(&self.vendor_class, b"HTTPClient") => None,
            None if contains(&self.vendor_class, b"PXEClient") => Some(Firmware::Default),
            None => None,
        }
    }
}

/// An option's value, if its length is that of the value.
fn number<const N: usize>(option: Option<&Vec<u8>>) -> Option<[u8; N]> {
    option.and_then(|bytes| bytes.as_slice().try_into().ok())
}

impl ClientMessage {
    /// Decodes the UDP payload `bytes`.
    ///
    /// # Errors
    /// It is no DHCP message of an Ethernet client.
    pub(crate) fn decode(bytes: &[u8], identity: Identity) -> Result<Self, MessageError> {
        let header = Message::new(bytes).map_err(|_| MessageError::TooShort)?;
        if header.opcode() != Opcode::BootRequest {
            return Err(MessageError::NotARequest);
        }
        // Checked before `chaddr`, which trusts the length.
        if header.htype() != HType::Eth || header.hlen() != 6 {
            return Err(MessageError::NotEthernet);
        }
        let mac = header.chaddr().try_into().map(MacAddr).map_err(|_| MessageError::NotEthernet)?;
        if mac.is_multicast() || mac.octets() == [0; 6] {
            return Err(MessageError::NotEthernet);
        }
        // RFC 2131 §3: the cookie tells options from BOOTP's vendor field.
        if bytes.get(FIXED - MAGIC.len()..FIXED) != Some(&MAGIC) {
            return Err(MessageError::NotDhcp);
        }
        let options = Options::of(bytes);
        let kind = match number::<1>(options.kind.as_ref()) {
            None => return Err(MessageError::NotDhcp),
            Some([code]) => match MessageType::from(code) {
                MessageType::Discover => Kind::Discover,
                MessageType::Request => Kind::Request,
                MessageType::Decline => Kind::Decline,
                MessageType::Release => Kind::Release,
                MessageType::Inform => Kind::Inform,
                _ => return Err(MessageError::Type),
            },
        };
        let address = |option| number::<4>(option).map(Ipv4Addr::from);
        let fqdn = options.fqdn.as_deref();
        let hostname = match fqdn {
            // RFC 4702 §4: with option 81, option 12 says nothing.
            Some(bytes) => hostname::from_option_81(bytes),
            None => options.hostname.as_deref().and_then(hostname::from_option_12),
        };
        let too_long = |option: &Option<Vec<u8>>, most| {
            option.as_ref().is_some_and(|bytes| bytes.len() > most)
        };
        if too_long(&options.client_id, MAX_CLIENT_ID)
            || too_long(&options.relay_info, MAX_RELAY_INFO)
        {
            return Err(MessageError::TooLong);
        }
        // RFC 2132 §9.14: two bytes at least; less identifies nobody.
        let key = match &options.client_id {
            Some(id) if id.len() >= 2 && identity == Identity::ClientId => {
                ClientKey::Id(id.as_slice().into())
            }
            _ => ClientKey::Mac(mac),
        };
        let firmware = options.firmware();
        Ok(Self {
            kind,
            xid: header.xid(),
            broadcast: header.flags().broadcast(),
            ciaddr: header.ciaddr(),
            giaddr: header.giaddr(),
            client: Client { key, mac },
            requested: address(options.requested.as_ref()).filter(|ip| !ip.is_unspecified()),
            server_id: address(options.server_id.as_ref()),
            max_size: number(options.max_size.as_ref()).map(u16::from_be_bytes),
            lease_seconds: number(options.lease_seconds.as_ref()).map(u32::from_be_bytes),
            fqdn: fqdn.and_then(|bytes| bytes.first()).map(|&flags| Fqdn { flags }),
            hostname,
            client_id: options.client_id,
            parameters: options.parameters,
            relay_info: options.relay_info,
            rapid_commit: options.rapid_commit.is_some(),
            firmware,
        })
    }

    /// Whether a relay agent passed the message on.
    pub(crate) fn is_relayed(&self) -> bool {
        !self.giaddr.is_unspecified()
    }

    /// The address that says on which subnet the client is: the relay's, unless the relay says
    /// something more precise (RFC 3527 §3). None for a client on the bridge itself.
    pub(crate) fn link(&self) -> Option<Ipv4Addr> {
        if !self.is_relayed() {
            return None;
        }
        let mut rest = self.relay_info.as_deref().unwrap_or_default();
        while let Some((&[code, length], tail)) = rest.split_first_chunk::<2>() {
            let Some((value, tail)) = tail.split_at_checked(usize::from(length)) else { break };
            if code == LINK_SELECTION
                && let Ok(address) = <[u8; 4]>::try_from(value)
            {
                return Some(address.into());
            }
            rest = tail;
        }
        Some(self.giaddr)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Discover => "DISCOVER",
            Self::Request => "REQUEST",
            Self::Decline => "DECLINE",
            Self::Release => "RELEASE",
            Self::Inform => "INFORM",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[28..34].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
        bytes[236..240].copy_from_slice(&MAGIC);
        bytes.extend(options);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<ClientMessage, MessageError> {
        ClientMessage::decode(bytes, Identity::ClientId)
    }

    #[test]
    fn options_continued_after_others_are_one() {
        let message = decode(&with_options(&[61, 2, 1, 2, 53, 1, 1, 61, 1, 3, 255])).unwrap();
        assert_eq!(message.client_id.as_deref(), Some(&[1, 2, 3][..]));
    }

    #[test]
    fn overloaded_fields_hold_options() {
        let mut bytes = with_options(&[53, 1, 3, 52, 1, 3, 255]);
        bytes[FILE][..7].copy_from_slice(&[50, 4, 10, 0, 0, 9, 255]);
        bytes[SNAME][..6].copy_from_slice(&[12, 3, b'w', b'e', b'b', 255]);
        let message = decode(&bytes).unwrap();
        assert_eq!(message.requested, Some(Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!(message.hostname.unwrap().as_str(), "web");
        bytes[245] = 1;
        assert_eq!(decode(&bytes).unwrap().hostname, None);
    }

    #[test]
    fn a_client_is_its_identifier_else_its_card() {
        let key = |options: &[u8]| decode(&with_options(options)).unwrap().client.key.to_string();
        assert_eq!(key(&[53, 1, 1, 61, 3, 0xff, 0, 1, 255]), "id:ff0001");
        assert_eq!(key(&[53, 1, 1, 255]), "mac:52:54:00:00:00:01");
        assert_eq!(key(&[53, 1, 1, 61, 1, 9, 255]), "mac:52:54:00:00:00:01");
        let message = with_options(&[53, 1, 1, 61, 3, 0xff, 0, 1, 255]);
        let message = ClientMessage::decode(&message, Identity::Hardware).unwrap();
        assert_eq!(message.client.key, ClientKey::Mac(message.client.mac));
    }

    #[test]
    fn what_no_client_says_is_refused() {
        let error = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = with_options(&[53, 1, 1, 255]);
            change(&mut bytes);
            decode(&bytes).unwrap_err()
        };
        assert_eq!(error(&|b| b.truncate(239)), MessageError::TooShort);
        assert_eq!(error(&|b| b[0] = 2), MessageError::NotARequest);
        assert_eq!(error(&|b| b[1] = 6), MessageError::NotEthernet);
        assert_eq!(error(&|b| b[2] = 255), MessageError::NotEthernet);
        assert_eq!(error(&|b| b[28] = 1), MessageError::NotEthernet);
        assert_eq!(error(&|b| b[28..34].fill(0)), MessageError::NotEthernet);
        assert_eq!(error(&|b| b[236] = 0), MessageError::NotDhcp);
        assert_eq!(error(&|b| b.truncate(240)), MessageError::NotDhcp);
        assert_eq!(error(&|b| b[242] = 2), MessageError::Type);
        let long = [vec![53, 1, 1, 61, 255], vec![7; 255], vec![61, 1, 7, 255]].concat();
        assert_eq!(decode(&with_options(&long)), Err(MessageError::TooLong));
    }

    #[test]
    fn options_of_a_wrong_length_are_as_if_absent() {
        let message = decode(&with_options(&[
            53, 1, 3, 50, 3, 10, 0, 0, 54, 5, 1, 2, 3, 4, 5, 57, 1, 9, 51, 0, 80, 3, 1, 2, 3, 81,
            0, 255,
        ]))
        .unwrap();
        assert_eq!((message.requested, message.server_id), (None, None));
        assert_eq!((message.max_size, message.lease_seconds, message.fqdn), (None, None, None));
    }

    #[test]
    fn a_relay_names_the_link_of_its_client() {
        let mut bytes = with_options(&[53, 1, 1, 82, 9, 1, 1, 7, 5, 4, 10, 0, 0, 1, 255]);
        assert_eq!(decode(&bytes).unwrap().link(), None);
        bytes[24..28].copy_from_slice(&[10, 9, 9, 9]);
        assert_eq!(decode(&bytes).unwrap().link(), Some(Ipv4Addr::new(10, 0, 0, 1)));
        bytes[248] = 6;
        assert_eq!(decode(&bytes).unwrap().link(), Some(Ipv4Addr::new(10, 9, 9, 9)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn arbitrary_options_never_panic(options in prop::collection::vec(any::<u8>(), 0..600)) {
            let bytes = [with_options(&[53, 1, 3, 52, 1, 3]), options].concat();
            let _ = decode(&bytes).map(|message| message.link());
        }
    }
}
