//! A link as far as it matters whether it can be an uplink, or the bridge over one.

use serde::{Deserialize, Serialize};
use vnet_types::{IfName, MacAddr};

use super::attributes::{Attributes, text};

/// Attributes of linux/if_link.h.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_STP_STATE: u16 = 5;

/// `ifinfomsg`.
const HEADER: usize = 16;
/// `ARPHRD_ETHER`, `IFF_UP`, `IFF_LOOPBACK`.
const ETHERNET: u16 = 1;
const UP: u32 = 1;
const LOOPBACK: u32 = 8;

/// A link by its name and by the kernel's number for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkId {
    /// Its name.
    pub name: IfName,
    /// Its number in its namespace.
    pub index: u32,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkFacts {
    /// Its name and number.
    pub id: LinkId,
    /// Its kind in the kernel's word, as `bridge` or `macvlan`; none for hardware.
    pub kind: Option<String>,
    /// Whether frames on it are Ethernet.
    pub ethernet: bool,
    /// Whether it is `lo`, or another such.
    pub loopback: bool,
    /// Whether its administrator has set it up.
    pub up: bool,
    /// Its address.
    pub mac: Option<MacAddr>,
    /// Bytes in its largest packet.
    pub mtu: u32,
    /// The number of the bridge, bond or VRF that it belongs to.
    pub master: Option<u32>,
    /// The number of the link that it stands on, if that is in this namespace.
    pub lower: Option<u32>,
    /// What somebody has written on it.
    pub alias: Option<String>,
    /// Whether a bridge speaks the spanning tree protocol.
    pub spanning_tree: bool,
    /// Whether it is wireless; set by who looks at it, since rtnetlink does not say.
    pub wireless: bool,
}

impl LinkFacts {
    /// From the body of a message of a dump of links. None where it is malformed, or has a name
    /// that we would not give.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let header = body.get(..HEADER)?;
        let hardware = u16::from_ne_bytes(header.get(2..4)?.try_into().ok()?);
        let index = u32::from_ne_bytes(header.get(4..8)?.try_into().ok()?);
        let flags = u32::from_ne_bytes(header.get(8..12)?.try_into().ok()?);
        let attributes = Attributes::parse(body.get(HEADER..)?)?;
        let name = text(attributes.get(IFLA_IFNAME)?)?.parse().ok()?;
        let info = attributes.get(IFLA_LINKINFO).and_then(Attributes::parse);
        let kind = info.as_ref().and_then(|info| text(info.get(IFLA_INFO_KIND)?));
        let data = info.as_ref().and_then(|info| Attributes::parse(info.get(IFLA_INFO_DATA)?));
        let stp = data.and_then(|data| data.u32(IFLA_BR_STP_STATE));
        let elsewhere = attributes.get(IFLA_LINK_NETNSID).is_some();
        Some(Self {
            id: LinkId { name, index },
            spanning_tree: kind == Some("bridge") && stp.is_some_and(|state| state != 0),
            kind: kind.map(str::to_owned),
            ethernet: hardware == ETHERNET,
            loopback: flags & LOOPBACK != 0,
            up: flags & UP != 0,
            mac: attributes.get(IFLA_ADDRESS).and_then(|bytes| bytes.try_into().ok()).map(MacAddr),
            mtu: attributes.u32(IFLA_MTU).unwrap_or_default(),
            master: attributes.u32(IFLA_MASTER),
            lower: attributes.u32(IFLA_LINK).filter(|_| !elsewhere),
            alias: attributes.get(IFLA_IFALIAS).and_then(text).map(str::to_owned),
            wireless: false,
        })
    }

    /// Whether it is of this kind.
    #[must_use]
    pub fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }
}
